"""The loopback model server: two protocols on 127.0.0.1, with faults on demand, for tests.

`Endpoint` decides what is replied. Here are the sockets: how and when a reply's bytes leave, and
the counts of what has left.
"""

import asyncio
import threading
import time

from dataflow_grounding.testing._connection import Connection, read_request, response
from dataflow_grounding.testing._endpoint import Endpoint, Exchange
from dataflow_grounding.testing.received import BadRequest, ReceivedRequest

DRIP_PERIOD = 0.05  # seconds between two drops of a body that drips


class LoopbackServer(Endpoint):
    """A played endpoint on 127.0.0.1, in a background thread of this process; a context manager.

    Every setting can be changed while it runs. `received`, `paid`, `abandoned`, `in_flight`,
    `max_in_flight`, `by_status` and `by_task` count; lists of models are free: neither counted nor
    recorded.

    Args:
        answers: Who answers: EchoAnswers, CannedAnswers, or a function from ReceivedRequest to a
            text, dict or Answer.
        faults: Rules made with `on(...)`, tried in order, or one function from ReceivedRequest to
            Fault or None.
        latency: Seconds that a reply takes, or a function from ReceivedRequest to seconds.
        capacity: Requests served at once; the others get `limit_fault`. None for no limit.
        takes: A rule, too: what the endpoint refuses, of models and bodies that it knows.
        key: The only API key that is accepted; `models`: the only models that are known. None for
            any.
        record: Whether `requests` holds a ReceivedRequest for each, with `keep_bodies` the body's
            JSON, too.
        port: 0 finds a free one.

    Raises:
        OSError: On entering the `with` block, where the port is taken.
        Exception: On leaving it, all that `answers` or a rule raised; the client was sent a 500.

    Example:
        >>> from dataflow_grounding import ground
        >>> from dataflow_grounding.serving import OpenAIServing
        >>> from dataflow_grounding.testing import Fault, LoopbackServer, on
        >>> with LoopbackServer(faults=on(Fault(500, "A fault."), times=1)) as server:
        ...     serving = OpenAIServing(server.base_url, "any", api_key="any", box_format="xyxy_px")
        ...     result = ground("example_data/images/cat.jpg", "the cat", serving=serving)
        >>> len(result), server.count(500)
        (1, 1)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.requests: list[ReceivedRequest] = []
        self._stalled_until = 0.0
        self._coming_back: asyncio.Task[None] | None = None  # kept, as asyncio keeps no task alive
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="loopback-server", daemon=True
        )

    @property
    def address(self) -> str:
        """`http://127.0.0.1:PORT`: what Gemini and Azure clients are given."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:PORT/v1`: what OpenAI clients are given."""
        return f"{self.address}/v1"

    def count(self, status: int | None = None) -> int:
        """Return how many replies with this status left whole.

        Without a status, how many requests were received.
        """
        return self.received if status is None else self.by_status[status]

    def refuse_connections(self, seconds: float) -> None:
        """Drop every connection and refuse new ones for `seconds`, then listen again.

        It listens on the same port. Returns once the connections are dropped.
        """
        asyncio.run_coroutine_threadsafe(self._go_down(seconds), self._loop).result()

    def stall(self, seconds: float) -> None:
        """Send nothing for `seconds` from now on; what is due meanwhile is sent then."""
        self._stalled_until = time.monotonic() + seconds

    def start(self) -> "LoopbackServer":
        """Begin to listen, where no `with` block does that; return the server itself.

        Raises OSError where the port is taken.
        """
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
        asyncio.run_coroutine_threadsafe(self._drop_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    __enter__ = start

    def __exit__(self, error_type: object, error: BaseException | None, trace: object) -> None:
        """Stop; raise the first error of answers or rules, unless the block raised one itself."""
        self.stop()
        if self.errors and error is None:
            raise self.errors[0]

    # From here on everything runs in the server's thread.

    async def _listen(self, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        serve = self._loop.create_server
        self._listener = await serve(
            lambda: Connection(self._talk), "127.0.0.1", self.port, backlog=1024
        )
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests in turn, until one side closes or a reply doesn't leave whole."""
        try:
            while True:
                head, body = await read_request(reader, writer)
                exchange = self.plan(head, body)
                if self.record and exchange.counted:
                    self.requests.append(exchange.request)
                has_left_whole = await self._reply(exchange, writer)
                is_to_close = head.headers.get("connection", "").lower() == "close"
                if is_to_close or not has_left_whole:
                    return
        except BadRequest as error:  # of `read_request`
            body = b'{"error": {"message": "%s", "code": null}}' % str(error).encode()
            writer.write(response(error.status, body, headers={"Connection": "close"}))
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # the client has left

    async def _reply(self, exchange: Exchange, writer: asyncio.StreamWriter) -> bool:
        """Send a reply, and count it as sent or abandoned. Return whether it has left whole."""
        is_cut = exchange.fault.sent_share < 1.0
        # Where the client leaves, one of the awaits is cancelled.
        has_left_whole = False
        try:
            rest = await self._last_part(exchange, writer)
            if exchange.counted and not is_cut:
                # It is counted before its last bytes leave, because a test may look at the count as
                # soon as it has them.
                self._count_as_sent(exchange)
            writer.write(rest)
            await writer.drain()
            has_left_whole = not is_cut
        finally:
            if exchange.counted and not has_left_whole:
                self._count_as_abandoned(exchange)
        return has_left_whole

    def _count_as_sent(self, exchange: Exchange) -> None:
        self._end(exchange)
        self.count_reply(exchange.status, 1)
        exchange.request.status_sent = exchange.status
        exchange.request.time_sent = time.monotonic()

    def _count_as_abandoned(self, exchange: Exchange) -> None:
        self.abandoned += 1
        was_counted_as_sent = exchange.request.status_sent is not None
        if not was_counted_as_sent:
            self._end(exchange)
            return
        self.count_reply(exchange.status, -1)  # takes back what `_count_as_sent` has counted
        exchange.request.status_sent = None
        exchange.request.time_sent = None

    async def _last_part(self, exchange: Exchange, writer: asyncio.StreamWriter) -> bytes:
        """Wait until a reply is due, and return the bytes to send then; of a drip the last drop."""
        fault = exchange.fault
        wire = exchange.wire
        if fault.stall_for is not None:
            self.stall(fault.stall_for)
        if fault.down_for is not None:
            # `_go_down` runs in a new task, because it cancels those of all connections: also the
            # one that runs here.
            self._coming_back = self._loop.create_task(self._go_down(fault.down_for))
        if fault.hang or fault.down_for is not None:
            await self._loop.create_future()  # until it is cancelled, as when the client leaves
        await asyncio.sleep(exchange.delay + fault.delay)
        while self._stalled_until > time.monotonic():  # `stall` may be called during the sleep
            await asyncio.sleep(self._stalled_until - time.monotonic())
        if fault.bytes_per_second:
            return await self._drip(wire, fault.bytes_per_second, writer)
        return wire[: int(len(wire) * fault.sent_share)]

    async def _drip(
        self, wire: bytes, bytes_per_second: float, writer: asyncio.StreamWriter
    ) -> bytes:
        """Send the head at once, then the body in drops, and return the last drop."""
        drop_bytes = max(1, round(bytes_per_second * DRIP_PERIOD))
        pause = drop_bytes / bytes_per_second
        sent = wire.index(b"\r\n\r\n") + 4  # the end of the head
        writer.write(wire[:sent])
        await asyncio.sleep(pause)
        while sent + drop_bytes < len(wire):
            writer.write(wire[sent : sent + drop_bytes])
            await asyncio.sleep(pause)
            sent += drop_bytes
        return wire[sent:]

    def _end(self, exchange: Exchange) -> None:
        """The request is no longer in flight, and gives back its place of the capacity."""
        if exchange.served:
            self.served_now -= 1
        self.in_flight -= 1

    async def _go_down(self, seconds: float) -> None:
        """Return once all is dropped; a task of its own listens again later."""
        await self._drop_all()
        self._coming_back = self._loop.create_task(self._listen(after=seconds))

    async def _drop_all(self) -> None:
        """Stop listening, and end all talks, and perhaps a task that waits to listen again."""
        if self._listener:
            self._listener.close()
        all_but_this = asyncio.all_tasks() - {asyncio.current_task()}
        for task in all_but_this:
            task.cancel()
        await asyncio.gather(*all_but_this, return_exceptions=True)
