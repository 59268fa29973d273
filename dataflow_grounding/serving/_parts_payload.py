"""A request's body in parts, sent by aiohttp at once."""

from collections.abc import Sequence

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from dataflow_grounding.images.image import InBase64


class PartsPayload(Payload):
    """A JSON body in parts: a waiting request shares a picture's part with what is kept of it."""

    def __init__(self, parts: Sequence[bytes | InBase64]) -> None:
        super().__init__(parts, content_type="application/json")
        self._size = sum(map(len, parts))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(map(bytes, self._value)).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        # one send: each one wakes who receives
        await writer.write(b"".join(map(bytes, self._value)))
