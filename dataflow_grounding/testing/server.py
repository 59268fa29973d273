"""The loopback model server: two protocols on 127.0.0.1, with faults on demand, for tests."""

import asyncio
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from dataflow_grounding.testing.connection import Connection, Head
from dataflow_grounding.testing.endpoint import Endpoint, Exchange
from dataflow_grounding.testing.received import ReceivedRequest

DRIP_PERIOD = 0.05


@dataclass(eq=False)
class LoopbackServer(Endpoint):
    """A played endpoint on 127.0.0.1, in a background thread of this process; a context manager.

    Every setting can be changed while it runs. `received`, `paid`, `abandoned`, `in_flight`, `max_in_flight`,
    `by_status` and `by_task` count; lists of models are free: neither counted nor recorded.

    Args:
        answers: Who answers: EchoAnswers, CannedAnswers, or a function from ReceivedRequest to a text, dict or Answer.
        faults: Rules made with `on(...)`, tried in order, or one function from ReceivedRequest to Fault or None.
        latency: Seconds that a reply takes, or a function from ReceivedRequest to seconds.
        capacity: Requests served at once; the others get `limit_fault`. None for no limit.
        takes: What the endpoint refuses with a 400.
        key: The only API key that is accepted; `models`: the only models that are known. None for any.
        leaky: Whether errors repeat the key, as those of some endpoints do.
        record: Whether `requests` holds a ReceivedRequest for each, with `keep_bodies` the body's JSON, too.
        port: 0 finds a free one.

    Raises:
        OSError: On entering the `with` block, where the port is taken.
        Exception: On leaving it, whatever `answers` or a rule raised; the client was sent a 500.

    Example:
        >>> from dataflow_grounding import ground
        >>> from dataflow_grounding.serving import OpenAIServing
        >>> from dataflow_grounding.testing import LoopbackServer, faults, on
        >>> with LoopbackServer(faults=on(faults.server_error(), times=1)) as server:
        ...     serving = OpenAIServing(server.base_url, "any", api_key="any", box_format="xyxy_px")
        ...     result = ground("example_data/images/cat.jpg", "the cat", serving=serving)
        >>> len(result), server.count(500)
        (1, 1)
    """

    port: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.requests: list[ReceivedRequest] = []
        self._stalled_until = 0.0
        self._scratch = bytearray(256 * 1024)
        self._open: dict[Connection, Exchange | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loopback-server", daemon=True)

    @property
    def address(self) -> str:
        """`http://127.0.0.1:PORT`: what Gemini and Azure clients are given."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`: what OpenAI clients are given."""
        return f"{self.address}/v1"

    def count(self, status: int | None = None) -> int:
        """How many replies with this status left whole; without a status, how many requests were received."""
        return self.received if status is None else self.by_status[status]

    def refuse_connections(self, seconds: float) -> None:
        """Drop every connection and refuse new ones for `seconds`, then listen on the same port again."""
        asyncio.run_coroutine_threadsafe(self._go_down(seconds), self._loop).result()

    def stall(self, seconds: float) -> None:
        """Answer nothing for `seconds`; what is due meanwhile is sent then."""
        self._stalled_until = time.monotonic() + seconds

    def start(self) -> "LoopbackServer":
        """Begin to listen, where no `with` block does. Raises OSError where the port is taken."""
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Close every connection and end the thread; twice does no harm."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> "LoopbackServer":
        return self.start()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.stop()
        if self.errors and error is None:
            raise self.errors[0]

    # From here on everything runs in the server's thread.

    async def _listen(self, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        if self._listener is None:
            self._listener = await self._loop.create_server(self._connect, "127.0.0.1", self.port, backlog=1024)
            self.port = self._listener.sockets[0].getsockname()[1]

    def _connect(self) -> Connection:
        connection = Connection(self._serve, self._gone, self._scratch, self.reads_body)
        self._open[connection] = None
        return connection

    async def _close(self) -> None:
        self._drop_all()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # the aborted connections report their loss now

    def _drop_all(self) -> None:
        if self._listener:
            self._listener.close()
            self._listener = None
        for connection in list(self._open):
            connection.abort()

    async def _go_down(self, seconds: float) -> None:
        self._drop_all()
        self._run_task(self._listen(after=seconds))

    def _run_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _serve(self, connection: Connection, head: Head, body: bytes | None) -> None:
        """A whole request is here: decide on the reply, and when it leaves."""
        exchange = self.plan(head, body)
        self._open[connection] = exchange
        if self.record and exchange.counted:
            self.requests.append(exchange.request)
        fault = exchange.fault
        if fault.down_for is not None:
            self._run_task(self._go_down(fault.down_for))
            return
        if fault.stall_for is not None:
            self.stall(fault.stall_for)
        delay = exchange.delay + fault.delay
        if fault.hang:
            return
        if delay > 0:
            self._loop.call_later(delay, self._send, connection, exchange)
        else:
            self._send(connection, exchange)

    def _send(self, connection: Connection, exchange: Exchange) -> None:
        if self._open.get(connection) is not exchange:
            return  # the client has left
        still = self._stalled_until - time.monotonic()
        fault = exchange.fault
        if still > 0:
            self._loop.call_later(still, self._send, connection, exchange)
        elif fault.sent_share < 1.0:
            connection.write(exchange.wire[: int(len(exchange.wire) * fault.sent_share)])
            connection.close()
        elif fault.bytes_per_second:
            self._run_task(self._drip(connection, exchange, fault.bytes_per_second))
        else:
            self._write_last(connection, exchange, exchange.wire)

    async def _drip(self, connection: Connection, exchange: Exchange, bytes_per_second: float) -> None:
        sent = exchange.wire.index(b"\r\n\r\n") + 4
        step = max(1, round(bytes_per_second * DRIP_PERIOD))
        connection.write(exchange.wire[:sent])
        while self._open.get(connection) is exchange:
            await asyncio.sleep(step / bytes_per_second)
            if sent + step >= len(exchange.wire):
                self._write_last(connection, exchange, exchange.wire[sent:])
                return
            connection.write(exchange.wire[sent : sent + step])
            sent += step

    def _write_last(self, connection: Connection, exchange: Exchange, data: bytes) -> None:
        """Send the end of a reply, counted first: whoever has the reply in hand must find it counted."""
        if self._open.get(connection) is not exchange:
            return
        if exchange.counted:
            self._end(exchange)
            self._count(exchange.status, 1)
            exchange.request.status_sent, exchange.request.time_sent = exchange.status, time.monotonic()
        connection.write(data, lambda: self._sent(connection))

    def _sent(self, connection: Connection) -> None:
        self._open[connection] = None
        connection.end_exchange()

    def _gone(self, connection: Connection) -> None:
        """The connection is lost; what was being served on it has no reader any more."""
        exchange = self._open.pop(connection, None)
        if exchange is None or not exchange.counted:
            return
        self.abandoned += 1
        if exchange.request.status_sent is None:
            self._end(exchange)
        else:  # counted as sent, and then it did not leave whole
            self._count(exchange.status, -1)
            exchange.request.status_sent = exchange.request.time_sent = None

    def _end(self, exchange: Exchange) -> None:
        self.serving -= exchange.served
        self.in_flight -= 1

    def _count(self, status: int, replies: int) -> None:
        self.by_status[status] += replies
        self.paid += replies if 200 <= status < 300 else 0
