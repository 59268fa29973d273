"""One HTTP/1.1 connection that may break the protocol on purpose, which aiohttp.web doesn't let."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from dataflow_grounding.testing.received import BadRequest

# In bytes; what is longer is refused.
HEAD_LIMIT = 64 * 1024
LONGEST_BODY = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """Request line and headers, names in lower case."""

    method: str
    target: str
    headers: dict[str, str]


def response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole response as bytes, head and body: JSON, unless `headers` say otherwise."""
    reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Status"
    lines = [f"HTTP/1.1 {status} {reason}"]
    for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


async def read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[Head, bytes]:
    """Return head and body. Raises BadRequest, and IncompleteReadError if the client has left."""
    try:
        head_bytes = await reader.readuntil(b"\r\n\r\n")
        head, version = _head_of(head_bytes)
        length = _length_of_body(head)
    except asyncio.LimitOverrunError:  # no end of the head within HEAD_LIMIT
        raise BadRequest("Request header fields too large.", 431) from None
    except ValueError as error:
        raise BadRequest(f"not a request that this server reads: {error}") from None
    if not version.startswith("HTTP/1.") or "transfer-encoding" in head.headers:
        raise BadRequest("send HTTP/1.1 with a Content-Length; chunked bodies are not read here")
    if length > LONGEST_BODY:
        raise BadRequest("Request too large.", 413)
    if head.headers.get("expect", "").lower() == "100-continue":
        # The client sends its body only when it is told to.
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return head, await reader.readexactly(length)


def _head_of(data: bytes) -> tuple[Head, str]:
    """The head and the version of HTTP. Raises ValueError where a line has other parts."""
    text = data.removesuffix(b"\r\n\r\n").decode("latin-1")
    request_line, *lines = text.split("\r\n")
    method, target, version = request_line.split(" ")  # "POST /v1/chat/completions HTTP/1.1"
    headers = {}
    for line in lines:
        name, value = line.split(":", 1)
        headers[name.strip().lower()] = value.strip()
    return Head(method, target, headers), version


def _length_of_body(head: Head) -> int:
    length = head.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise ValueError(f"Content-Length is {length[:20]!r}")
    return int(length)


class Connection(asyncio.StreamReaderProtocol):
    """A talk with a client, which is cancelled when the client leaves."""

    def __init__(
        self,
        talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
    ) -> None:
        super().__init__(asyncio.StreamReader(HEAD_LIMIT), self._begin)
        self._talk = talk
        self._talking: asyncio.Future[None] | None = None  # None before a client has connected

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """When the talk ends, the connection is broken off, with bytes that wait to be sent."""
        # So the talk awaits `drain`, which returns with a limit of 0 when all are sent.
        writer.transport.set_write_buffer_limits(high=0)
        self._talking = asyncio.ensure_future(self._talk(reader, writer))
        self._talking.add_done_callback(lambda _: writer.transport.abort())

    def eof_received(self) -> bool:
        """Take a client that will send no more for one that has left: close the connection."""
        super().eof_received()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self._talking is not None:
            self._talking.cancel()
