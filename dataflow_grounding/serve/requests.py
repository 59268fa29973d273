"""What is read of a request: its JSON, phrases and picture; and what errors become."""

import asyncio
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import NamedTemporaryFile, TemporaryDirectory
from typing import Any

import pybase64
from aiohttp import web

from dataflow_grounding._util import errors
from dataflow_grounding._util.errors import GroundingError, errors_as
from dataflow_grounding._util.files import within
from dataflow_grounding._util.terminal import quoted
from dataflow_grounding.data.records import parse_line
from dataflow_grounding.jobs.downloads import fetched_picture, shown_address
from dataflow_grounding.spec import RowsData

MOST_PHRASES = 1000  # of one picture
AGAIN_SECONDS = 5  # after which to try again what may pass
_STATUSES: dict[type[GroundingError], int] = {  # the first that fits counts
    errors.RunStopped: 503,
    errors.ServerFault: 503,
    errors.MachineBusy: 503,
    errors.UnreadableReply: 502,  # the endpoint's answer is no use
    errors.RequestRefused: 502,
    errors.OperatorFailed: 500,
    errors.RecordError: 400,  # the picture is no good
    errors.InputError: 400,
}


class WrongRequest(GroundingError):
    """A request that can't be answered as it is; `status` is the answer's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Picture:
    """A picture of a request: its file's `path` or the `data` that was sent; what it is called."""

    name: str
    path: str = ""
    data: bytes = b""

    @property
    def image_id(self) -> str:
        """The id of its record: the path without its ending, or a digest of what was sent."""
        if self.path:
            return os.path.splitext(self.name)[0]
        return hashlib.blake2b(self.data, digest_size=16).hexdigest()

    @contextmanager
    def as_file(self, folder: str) -> Iterator[str]:
        """Yield the path of its file; one that was sent is a file of `folder` in the block."""
        if self.path:
            yield self.path
            return
        with ExitStack() as files:
            with errors_as(errors.StorageFailed, f"can't write in {folder}"):
                file = files.enter_context(NamedTemporaryFile(dir=folder, buffering=0))
                file.write(self.data)
            yield file.name


class Pictures:
    """Where pictures may come from: paths below `root`, addresses that a spec's `data` allows."""

    def __init__(self, root: str | None, data: RowsData, allow_hosts: Sequence[str]) -> None:
        self._root = None if root is None else os.path.realpath(root)
        self._allow_http = data.allow_http
        self._hosts = data.allow_hosts + [host.lower() for host in allow_hosts]
        self.spool = TemporaryDirectory(prefix="dataflow_grounding_serve_")  # removed at the end

    def of_base64(self, text: object) -> Picture:
        """Return the picture of base64, which may stand in a `data:` address."""
        if not isinstance(text, str) or not text:
            raise WrongRequest("the picture should be base64, as a text")
        encoded = text.partition(",")[2] if text.startswith("data:") else text
        try:
            return Picture("", data=pybase64.b64decode(encoded, validate=True))
        except ValueError:
            raise WrongRequest("the picture is no base64") from None

    def of_path(self, name: object) -> Picture:
        """Return the picture at a path below the root."""
        if self._root is None:
            raise WrongRequest("no paths are served: start serve with --root DIR", 403)
        path = os.path.realpath(within(self._root, name, "the request"))
        if os.path.commonpath([path, self._root]) != self._root:  # by a link
            raise WrongRequest(f"{quoted(str(name))} leads out of the folder of --root", 403)
        if not os.path.isfile(path):
            raise errors.ImageMissing(f"no image {quoted(str(name))} below the folder of --root")
        return Picture(str(name), path)

    async def of_address(self, url: object) -> Picture:
        """Return the picture at an http(s) address, where that is allowed."""
        address = str(url)
        if not (self._allow_http or self._hosts):
            way = "data.allow_http or data.allow_hosts of the spec, or --allow-host, allow it"
            raise WrongRequest(f"no picture from {shown_address(address)}, unless {way}", 403)
        data = await asyncio.to_thread(
            fetched_picture, address, hosts=self._hosts, no_others=not self._allow_http
        )
        return Picture(shown_address(address), data=data)


def status_of(error: GroundingError) -> tuple[int, float | None]:
    """Return the status that tells a client of an error, and when to try again, in seconds."""
    if isinstance(error, WrongRequest):
        return error.status, None
    status = next((_STATUSES[kind] for kind in _STATUSES if isinstance(error, kind)), 500)
    if status == 503 and isinstance(error, errors.RecordError):
        return status, getattr(error, "retry_after", None) or AGAIN_SECONDS
    return status, None


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the JSON object of a request. Raises WrongRequest."""
    if request.content_type != "application/json":
        kind = request.content_type
        raise WrongRequest(f"the content type should be application/json, not {kind}", 415)
    try:
        return parse_line(await request.read())
    except (ValueError, GroundingError):
        raise WrongRequest("the body is no JSON object") from None


def phrases_of(value: Any) -> list[str]:
    """Return phrases as they were sent, without blanks at their ends. Raises WrongRequest."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not 0 < len(texts) <= MOST_PHRASES:
        raise WrongRequest(f"`phrases` should be a list of 1 to {MOST_PHRASES} texts to look for")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise WrongRequest(f"{text!r:.40} of `phrases` is no text that says what to look for")
    return [text.strip() for text in texts]
