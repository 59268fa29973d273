"""What all dialects share: one picture and its phrases in, one record out."""

import asyncio
from typing import Any

from aiohttp import web

from dataflow_grounding._util import errors
from dataflow_grounding._util.errors import GroundingError
from dataflow_grounding.data.records import parse_line
from dataflow_grounding.serve.engine import Engine
from dataflow_grounding.serve.pictures import Picture, Pictures, WrongRequest

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


class NoAnswer(errors.ServerFault):
    """No answer within the time that a client waits; what comes later is kept."""


class Service:
    """Grounds the pictures of requests, and waits for each no longer than `timeout` seconds.

    Work that nobody waits for any more goes on if it has begun: its reply is kept.
    """

    def __init__(self, engine: Engine, pictures: Pictures, timeout: float) -> None:
        self.engine, self.pictures = engine, pictures
        self._timeout = timeout
        self._at_work: set[asyncio.Task[dict[str, Any]]] = set()
        self.model = engine.job.serving.model

    @property
    def model_version(self) -> str:
        """The model and the box format that it is asked for."""
        return f"{self.model} {self.engine.box_format or '(box format not known yet)'}"

    async def ground(
        self, request: web.Request, picture: Picture, phrases: list[str]
    ) -> dict[str, Any]:
        """Return the record of a picture with its phrases.

        Raises NoAnswer where it takes too long, and another GroundingError where there is none.
        """
        task = asyncio.create_task(self._ground(request, picture, phrases))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        done, _ = await asyncio.wait([task], timeout=self._timeout)
        if done:
            return task.result()
        task.add_done_callback(lambda late: late.cancelled() or late.exception())
        why = self.engine.last_fault()
        raise NoAnswer(
            f"no answer of {self.model} in {self._timeout:g} s{why and f' ({why})'}: ask again,"
            " what comes meanwhile is kept"
        )

    async def _ground(
        self, request: web.Request, picture: Picture, phrases: list[str]
    ) -> dict[str, Any]:
        def is_wanted() -> bool:
            return request.transport is not None and not request.transport.is_closing()

        with picture.as_file(self.pictures.folder) as path:
            try:
                columns = await self.engine.ground(path, phrases, picture.image_id, is_wanted)
            except GroundingError as error:
                error.args = (str(error).replace(path, picture.name or "the picture"),)
                raise
        if columns is None:
            raise NoAnswer("nobody waits for the answer")
        return {"image_path": picture.name, **columns}

    async def finish(self) -> None:
        """Wait for all that is at work."""
        if self._at_work:
            await asyncio.wait(self._at_work)


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
        wanted = f"a list of 1 to {MOST_PHRASES} texts that say what to look for"
        raise WrongRequest(f"`phrases` should be {wanted}")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise WrongRequest(f"{text!r:.40} of `phrases` is no text that says what to look for")
    return [text.strip() for text in texts]
