"""One HTTP/1.1 connection, free to break the protocol; aiohttp.web would take twice the CPU per request."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias

HEAD_LIMIT, LONGEST_BODY = 64 * 1024, 64 * 1024 * 1024
Serve: TypeAlias = "Callable[[Connection, Head, bytes | None], None]"


@dataclass(frozen=True, slots=True)
class Head:
    """Request line and headers, names in lower case; `length` is that of the body in bytes."""

    method: str
    target: str
    headers: dict[str, str]
    length: int


class NotTaken(Exception):
    """A request that is answered with `status`, after which the connection is closed."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def response(
    status: int, body: bytes, content_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole response, head and body."""
    reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Status"
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


def read_head(raw: bytes) -> Head:
    """Read request line and headers; raises NotTaken where they are not HTTP/1.1 with a Content-Length."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    try:
        method, target, version = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        length = int(headers.get("content-length", "0"))
    except ValueError as error:
        raise NotTaken(400, f"not a request that this server reads: {error}") from None
    if not version.startswith("HTTP/1.") or "transfer-encoding" in headers:
        raise NotTaken(400, "send HTTP/1.1 with a Content-Length; chunked bodies are not read here")
    if length > LONGEST_BODY:
        raise NotTaken(413, "Request too large.")
    return Head(method, target, headers, length)


class Connection(asyncio.BufferedProtocol):
    """Reads requests one by one, each handed to `serve(connection, head, body)`; `gone(connection)` ends it."""

    def __init__(self, serve: Serve, gone: "Callable[[Connection], None]", scratch: bytearray, keep_body: bool) -> None:
        self._serve, self._gone, self._keep = serve, gone, keep_body
        self._scratch = memoryview(scratch)
        self._received = bytearray()
        self._head: Head | None = None
        self._skip = 0  # bytes of a body to throw away that are still to come
        self._busy = False
        self._drained: Callable[[], None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        # With a limit of 0 resume_writing is called when the very last byte has left.
        transport.set_write_buffer_limits(high=0)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Tell the server."""
        self._drained = self.transport = None
        self._gone(self)

    def get_buffer(self, hint: int) -> memoryview:
        """Everything is received here: a buffer of its own for each piece would cost page faults."""
        return self._scratch

    def buffer_updated(self, count: int) -> None:
        """Go on reading the head or the body."""
        skipped = min(self._skip, count)
        self._skip -= skipped
        self._received += self._scratch[skipped:count]
        if not self._busy:
            self._read()

    def _read(self) -> None:
        """Serve the request that is here whole."""
        try:
            self._head = self._head or self._begin()
        except NotTaken as error:
            self._busy = True
            said = b'{"error": {"message": "%s", "code": null}}' % str(error).encode()
            self.write(response(error.status, said, headers={"Connection": "close"}), self.close)
            return
        if self._head is None or self._skip or (self._keep and len(self._received) < self._head.length):
            return
        self._busy = True
        body: bytes | None = None
        if self._keep:
            body = bytes(self._received[: self._head.length])
            del self._received[: self._head.length]
        self._serve(self, self._head, body)

    def _begin(self) -> Head | None:
        """The head, once it is here."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            if len(self._received) > HEAD_LIMIT:
                raise NotTaken(431, "Request header fields too large.")
            return None
        head = read_head(bytes(self._received[:end]))
        del self._received[: end + 4]
        if not self._keep:
            here = min(head.length, len(self._received))
            self._skip = head.length - here
            del self._received[:here]
        if head.headers.get("expect", "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return head

    def write(self, data: bytes, drained: Callable[[], None] | None = None) -> None:
        """Send bytes; `drained` is called once the system has taken them all, and never if the client left before."""
        if self.transport is None or self.transport.is_closing():
            return
        self._drained = None
        self.transport.write(data)
        if self.transport.is_closing():
            return  # the write failed
        if self.transport.get_write_buffer_size():
            self._drained = drained
        elif drained:
            drained()

    def resume_writing(self) -> None:
        """Everything written has left."""
        drained, self._drained = self._drained, None
        if drained:
            drained()

    def end_exchange(self) -> None:
        """The reply is out: close if the client asked for it, else read the next request."""
        head, self._head, self._busy = self._head, None, False
        if head and head.headers.get("connection", "").lower() == "close":
            self.close()
        elif self._received:
            self._read()

    def close(self) -> None:
        """End the connection after what was written."""
        if self.transport:
            self.transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self.transport:
            self.transport.abort()
