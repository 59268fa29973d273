"""What all dialects share: one picture and its phrases in, one record out."""

import asyncio
from typing import Any

from aiohttp import web

from dataflow_grounding._util.errors import (
    BrokenRow,
    GroundingError,
    ImageBroken,
    ImageMissing,
    InputError,
    MachineBusy,
    OperatorFailed,
    RecordError,
    RunStopped,
    ServerFault,
    ServerOverloaded,
    SizeDiffers,
)
from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding.data.records import parse_line
from dataflow_grounding.serve.engine import Engine
from dataflow_grounding.serve.pictures import Picture, Pictures, WrongRequest

MOST_PHRASES = 1000  # of one picture


class NoAnswer(GroundingError):
    """The endpoint didn't answer within the time that a client waits."""


class Service:
    """Grounds the pictures of requests, and waits for each no longer than `timeout` seconds.

    Work that nobody waits for any more goes on if it has begun: its reply is kept.

    Args:
        engine: Asks the endpoint.
        pictures: Where pictures may come from.
        timeout: Seconds.
    """

    def __init__(self, engine: Engine, pictures: Pictures, timeout: float) -> None:
        self.engine = engine
        self.pictures = pictures
        self._timeout = timeout
        self._at_work: set[asyncio.Task[dict[str, Any]]] = set()

    @property
    def model(self) -> str:
        """The name of the model that is asked."""
        return self.engine.job.serving.model

    @property
    def model_version(self) -> str:
        """The model and the box format that it is asked for."""
        return f"{self.model} {self.engine.box_format or '(box format not known yet)'}"

    async def ground(
        self, request: web.Request, picture: Picture, phrases: list[str]
    ) -> dict[str, Any]:
        """Return the record of a picture with its phrases.

        Raises:
            NoAnswer: It takes too long.
            GroundingError: It can't be had.
        """
        task = asyncio.create_task(self._ground(request, picture, phrases))
        self._at_work.add(task)
        task.add_done_callback(self._end)
        done, _ = await asyncio.wait([task], timeout=self._timeout)
        if done:
            return task.result()
        why = self.engine.last_fault()
        raise NoAnswer(
            f"no answer of {self.model} in {self._timeout:g} s{why and f' ({why})'}: ask again,"
            " what comes meanwhile is kept"
        )

    def _end(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._at_work.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever waits for it

    async def _ground(
        self, request: web.Request, picture: Picture, phrases: list[str]
    ) -> dict[str, Any]:
        def is_wanted() -> bool:
            return request.transport is not None and not request.transport.is_closing()

        with picture.as_file(self.pictures.folder) as path:
            try:
                columns = await self.engine.ground(path, phrases, picture.image_id, is_wanted)
            except GroundingError as error:
                if path not in str(error):
                    raise
                error.args = (str(error).replace(path, picture.name or "the picture"),)
                raise
        if columns is None:
            raise NoAnswer("nobody waits for the answer")
        named = {"image_path": picture.name} if picture.name else {}
        return {**named, **columns}

    async def finish(self) -> None:
        """Wait for all that is at work."""
        if self._at_work:
            await asyncio.wait(self._at_work)


def status_of(error: GroundingError) -> tuple[int, float | None]:
    """Return the status that tells a client of an error, and when to try again, in seconds."""
    if isinstance(error, WrongRequest):
        return error.status, None
    if isinstance(error, ImageMissing):
        return 404, None
    if isinstance(error, (BrokenRow, ImageBroken, SizeDiffers, InputError)):
        return 400, None
    if isinstance(error, ServerOverloaded):
        return 503, error.retry_after or 5
    if isinstance(error, (ServerFault, MachineBusy, NoAnswer)):
        return 503, 5
    if isinstance(error, RunStopped):
        return 503, None
    if isinstance(error, OperatorFailed) or not isinstance(error, RecordError):
        return 500, None
    return 502, None  # the model's reply can't be used


def sentence(error: Exception) -> str:
    """Return an error in one line, without keys."""
    return blotted_message(" ".join(str(error).split()))


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the JSON object of a request. Raises WrongRequest."""
    if request.content_type != "application/json":
        raise WrongRequest(
            f"the content type should be application/json, not {request.content_type}", 415
        )
    data = await request.read()
    try:
        body = parse_line(data)
    except (ValueError, GroundingError):
        raise WrongRequest("the body is no JSON object") from None
    return body


def phrases_of(value: Any) -> list[str]:
    """Return phrases as they were sent, without blanks at their ends. Raises WrongRequest."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise WrongRequest("`phrases` should be a list of texts that say what to look for")
    if len(value) > MOST_PHRASES:
        raise WrongRequest(f"`phrases` has {len(value)} entries: send at most {MOST_PHRASES}")
    for text in value:
        if not isinstance(text, str) or not text.strip():
            raise WrongRequest(f"{text!r:.40} of `phrases` is no text that says what to look for")
    return [text.strip() for text in value]
