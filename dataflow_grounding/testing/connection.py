"""One HTTP/1.1 connection of the loopback server, made by hand: cheap, and free to break the protocol on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

HEAD_LIMIT = 64 * 1024
KEPT_BUFFER = 8 * 1024 * 1024
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    429: "Too Many Requests",
}


@dataclass(frozen=True, slots=True)
class Head:
    """Request line and headers, names in lower case; `length` is that of the body in bytes."""

    method: str
    target: str
    headers: dict[str, str]
    length: int

    @property
    def keep_alive(self) -> bool:
        """Whether the client wants to use the connection again."""
        return self.headers.get("connection", "").lower() != "close"


def response(
    status: int, body: bytes, content_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole response, head and body."""
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


def read_head(raw: bytes) -> Head:
    """Read request line and headers; raises ValueError where they are not HTTP/1.1 with a Content-Length."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"unknown protocol {version}")
    headers = {}
    for line in lines:
        name, mark, value = line.partition(":")
        if not mark:
            raise ValueError("a header without a colon")
        headers[name.strip().lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise ValueError("send a Content-Length; chunked bodies are not read here")
    return Head(method, target, headers, int(headers.get("content-length", "0")))


class Connection(asyncio.BufferedProtocol):
    """Reads one request after the other and hands each to `serve(connection, head, body)`; `end_exchange` reads on.

    `scratch` is shared by all connections of a server (one thread). With `keep_body` false a body is counted and thrown
    away, and `serve` gets None for it. `gone(connection)` is called when the client has left or was cut off.
    """

    def __init__(
        self,
        serve: Callable[[Connection, Head, memoryview | None], None],
        gone: Callable[[Connection], None],
        scratch: bytearray,
        keep_body: bool,
        longest_body: int,
    ) -> None:
        self._serve, self._gone, self._keep, self._longest = serve, gone, keep_body, longest_body
        self._scratch = memoryview(scratch)
        self._early = bytearray()
        self._body = bytearray()
        self._head: Head | None = None
        self._got = 0
        self._busy = False
        self._drained: Callable[[], None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        # With a limit of 0 resume_writing tells when the very last byte has left.
        transport.set_write_buffer_limits(high=0)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the server."""
        self._drained = None
        self.transport = None
        self._gone(self)

    def get_buffer(self, hint: int) -> memoryview:
        """Bodies that are kept are received in place; all else goes through the scratch buffer."""
        if self._head and self._keep and not self._busy:
            return memoryview(self._body)[self._got : self._head.length]
        if self._head and not self._busy:
            return self._scratch[: self._head.length - self._got]
        return self._scratch

    def buffer_updated(self, count: int) -> None:
        """Go on reading the head or the body."""
        if self._head and not self._busy:
            self._got += count
            self._finish_body()
            return
        self._early += self._scratch[:count]
        if not self._busy:
            self._read_early()

    def _read_early(self) -> None:
        """Read a head, and what came along of its body, from the bytes that are there."""
        end = self._early.find(b"\r\n\r\n")
        if end < 0:
            if len(self._early) > HEAD_LIMIT:
                self.write(response(431, b"{}"), lambda: self.close())
            return
        try:
            head = read_head(bytes(self._early[:end]))
        except ValueError as error:
            self._refuse(400, f"not a request that this server reads: {error}")
            return
        if head.length > self._longest:
            self._refuse(413, "Request too large.")
            return
        self._head, self._got = head, min(len(self._early) - end - 4, head.length)
        if self._keep:
            if len(self._body) < head.length:
                self._body = bytearray(head.length)
            self._body[: self._got] = self._early[end + 4 : end + 4 + self._got]
        del self._early[: end + 4 + self._got]
        if head.headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._finish_body()

    def _refuse(self, status: int, message: str) -> None:
        self._busy = True
        body = b'{"error": {"message": "%s", "code": null}}' % message.encode()
        self.write(response(status, body, headers={"Connection": "close"}), lambda: self.close())

    def _finish_body(self) -> None:
        assert self._head
        if self._got < self._head.length:
            return
        self._busy = True
        self._serve(self, self._head, memoryview(self._body)[: self._head.length] if self._keep else None)

    def write(self, data: bytes, drained: Callable[[], None] | None = None) -> None:
        """Send bytes; `drained` is called once the system has taken them all, and never if the client left before."""
        if self.transport is None or self.transport.is_closing():
            return
        self._drained = None
        self.transport.write(data)
        if self.transport.is_closing():
            return  # the write failed
        if self.transport.get_write_buffer_size() == 0:
            if drained:
                drained()
        else:
            self._drained = drained

    def resume_writing(self) -> None:
        """Everything written has left."""
        drained, self._drained = self._drained, None
        if drained:
            drained()

    def end_exchange(self) -> None:
        """The reply is out: close if the client asked for it, else read the next request."""
        keep_alive = self._head is None or self._head.keep_alive
        self._head, self._busy = None, False
        if len(self._body) > KEPT_BUFFER:
            self._body = bytearray()
        if not keep_alive:
            self.close()
        elif self._early:
            self._read_early()

    def close(self) -> None:
        """End the connection after what was written."""
        if self.transport:
            self.transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self.transport:
            self.transport.abort()
