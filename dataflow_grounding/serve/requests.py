"""What is read of a request: its JSON, phrases and picture; and what errors become."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pybase64
from aiohttp import web

from dataflow_grounding._util import errors
from dataflow_grounding._util.errors import GroundingError
from dataflow_grounding._util.files import within
from dataflow_grounding._util.terminal import quoted
from dataflow_grounding.data.records import JsonObject, parse_line
from dataflow_grounding.images.files import read_file
from dataflow_grounding.jobs.downloads import fetched_picture, shown_address
from dataflow_grounding.spec import RowsData

MOST_PHRASES = 1000  # of one picture
MOST_CHARACTERS = 10_000  # of a phrase
_STATUSES: dict[int, tuple[type[GroundingError], ...]] = {  # the first that fits counts
    503: (errors.RunStopped, errors.ServerFault, errors.MachineBusy, errors.ImageChanged),
    502: (errors.UnreadableReply, errors.RequestRefused),  # the endpoint's answer is no use
    500: (errors.OperatorFailed,),
    400: (errors.RecordError, errors.InputError),  # the picture is no good
}


class WrongRequest(GroundingError):
    """A request that can't be answered as it is; `status` is the answer's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Picture:
    """A picture of a request: what it is called, and what reads its bytes."""

    name: str
    read: Callable[[], bytes]  # called when its turn comes
    path: str = ""  # of a file below the root
    is_far: bool = False  # whether reading it waits for a network

    def named(self, error: str, path: str) -> str:
        """Return an error's text with the picture's name in place of its path."""
        name = self.name or "the picture"
        return error.replace(quoted(path), quoted(name)).replace(path, name)


class Pictures:
    """Where pictures may come from: paths below `root`, addresses that a spec's `data` allows."""

    def __init__(self, root: str | None, data: RowsData, allow_hosts: Sequence[str]) -> None:
        self._root = None if root is None else os.path.realpath(root)  # None: no paths are served
        self._allow_http = data.allow_http
        self._hosts = data.allow_hosts + [host.lower() for host in allow_hosts]

    def of_base64(self, text: object) -> Picture:
        """Return the picture of a text in base64, which may be in a `data:` address."""
        if not isinstance(text, str) or not text:
            raise WrongRequest("the picture should be base64, as a text")
        encoded = text.partition(",")[2] if text.startswith("data:") else text
        try:
            data = pybase64.b64decode(encoded, validate=True)
        except ValueError:
            raise WrongRequest("the picture is no base64") from None
        return Picture(name="", read=lambda: data)

    def of_path(self, name: object) -> Picture:
        """Its path is resolved again when it is read: it may be a link by then."""
        return Picture(str(name), lambda: read_file(self._path_of(name)), self._path_of(name))

    def _path_of(self, name: object) -> str:
        if self._root is None:
            raise WrongRequest("no paths are served: start serve with --root DIR", 403)
        path = os.path.realpath(within(self._root, name, "the request"))
        # `within` refuses names such as `../a.jpg`; a link in the folder may still lead out of it.
        if os.path.commonpath([path, self._root]) != self._root:
            raise WrongRequest(f"{quoted(str(name))} leads out of the folder of --root", 403)
        if not os.path.isfile(path):
            raise errors.ImageMissing(f"no image {quoted(str(name))} below the folder of --root")
        return path

    def of_address(self, url: object) -> Picture:
        """Return the picture at an http(s) address; it is fetched when it is read."""
        address = str(url)
        if not (self._allow_http or self._hosts):
            way = "data.allow_http or data.allow_hosts of the spec, or --allow-host, allow it"
            raise WrongRequest(f"no picture from {shown_address(address)}, unless {way}", 403)
        # A host of `_hosts` may be on a private network, too. Any other host may not, and without
        # `allow_http` it is refused.
        no_others = not self._allow_http
        read = partial(fetched_picture, address, hosts=self._hosts, no_others=no_others)
        return Picture(shown_address(address), read, is_far=True)


def status_of(error: GroundingError) -> int:
    if isinstance(error, WrongRequest):
        return error.status
    for status, kinds in _STATUSES.items():
        if isinstance(error, kinds):
            return status
    return 500


def read_json(request: web.Request) -> JsonObject:
    """Return the object that a request's body is. Raises WrongRequest."""
    charset = request.charset or "utf-8"
    is_utf8 = charset.lower() in ("utf-8", "utf8")
    if request.content_type != "application/json" or not is_utf8:
        kind = request.headers.get("Content-Type", "none")
        raise WrongRequest(f"the content type should be application/json in UTF-8, not {kind}", 415)
    try:
        return parse_line(request["body"])
    except (ValueError, GroundingError):
        raise WrongRequest("the body is no JSON object") from None


def phrases_of(value: Any) -> list[str]:
    """Return phrases without blanks at their ends. Raises WrongRequest, UnicodeEncodeError."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not 0 < len(texts) <= MOST_PHRASES:
        raise WrongRequest(f"`phrases` should be a list of 1 to {MOST_PHRASES} texts to look for")
    for text in texts:
        is_text = isinstance(text, str) and bool(text.strip())
        if not is_text or len(text) > MOST_CHARACTERS:
            raise WrongRequest(f"{text!r:.40} of `phrases` is no text that says what to look for")
        text.encode()  # no model can be asked half of a surrogate pair: UnicodeEncodeError
    return [text.strip() for text in texts]
