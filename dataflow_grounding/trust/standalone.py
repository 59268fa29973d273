"""`calibrate`: a model's box format, for users who send their requests with their own code."""

import asyncio
import base64
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import EndpointRefused, GroundingError, SpecError
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.users_code import call_in_thread
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.engine.options import OwnPictures, RunOptions, RunStart, budget_of
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.serving.serving import Serving, check_counts
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.trust.calibrating import calibrate as calibrate_serving
from dataflow_grounding.trust.choice import check_calibratable, first_format

Client: TypeAlias = Callable[[str, bytes], str | Awaitable[str]]
"""A function from a prompt and a JPEG file's bytes to the text of the model's reply."""


@dataclass(frozen=True)
class CalibratedFormat(BoxFormat):
    """A box format as it was measured.

    Attributes:
        sizes: The sizes of pictures for which it holds; None for all. A model that counts pixels
            has such limits: a picture is sent on white of `padded = sizes.padded(size)`, in
            `sizes.sent(size)`.
        error_px: How far off an edge is on average, in pixels of the probe pictures.
        requests: How many requests it took.
    """

    sizes: SizeLimits | None = None
    error_px: float = 0.0
    requests: int = 0

    def limits(self, sent: Size) -> tuple[float, float]:
        """Return what `BoxFormat.limits` does.

        Raises:
            SpecError: The format doesn't hold for a picture of this size: the numbers mean other
                pixels there.
        """
        if self.sizes is not None and not self.sizes.keeps(sent):
            width, height = sent
            raise SpecError(
                f"how boxes are written was measured for other sizes than {width:g} x {height:g}"
                " px: send each picture on white of `padded = format.sizes.padded(size)`, in"
                " `sent = format.sizes.sent(size)`, and read with image_size=padded, sent_size=sent"
            )
        return super().limits(sent)


def calibrate(client: Client | Serving, *, max_workers: int = 4) -> CalibratedFormat:
    """Find out in which format a model writes boxes, from pictures of colored rectangles.

    It sends 6 requests, or 17 to 59 if the model counts pixels. Nothing is stored.

    Args:
        client: A function from a prompt and a JPEG file's bytes to the text of the model's reply,
            which may be async; or a Serving. An async one is called in an event loop that ends with
            this call: have it make its client itself.
        max_workers: Most calls of the function at once; a Serving has its own.

    Returns:
        The format, for `read_boxes(reply, format=…)`. Its name alone does for PhraseGrounder's
            `box_format` where it has no `sizes`; a model that counts pixels is measured there, with
            "auto".
            `format.instructions(size)` are the sentences that state it in a prompt.

    Raises:
        NoFit: The answers name no format.
        RunStopped: The model doesn't answer; where the client raised, the message says what.
        SpecError: There is nothing to find out, or the client returns no text.

    Example:
        >>> from dataflow_grounding import calibrate, read_boxes
        >>> def ask(prompt: str, jpeg: bytes) -> str:
        ...     return my_client.ask(prompt, jpeg)
        >>> box_format = calibrate(ask)  # doctest: +SKIP
        >>> read_boxes(reply, format=box_format, image_size=(640, 480))  # doctest: +SKIP
    """
    check_counts(max_workers=max_workers)
    serving = _serving_of(client, max_workers)
    check_calibratable(serving)
    options = RunOptions()
    start = RunStart(options, budget_of(options), folder=None, pictures=OwnPictures)
    calibration, _, _ = run_blocking(
        lambda: calibrate_serving(serving, first_format(serving), start)
    )
    box_format = calibration.format
    of_box_format = {field.name: getattr(box_format, field.name) for field in fields(box_format)}
    return CalibratedFormat(
        **of_box_format,
        sizes=calibration.limits,
        error_px=calibration.error_px,
        requests=calibration.requests,
    )


def _serving_of(client: Client | Serving, max_workers: int) -> Serving:
    if isinstance(client, Serving):
        return client
    if callable(client):
        return _OneFunction(client, max_workers)
    raise SpecError(
        "calibrate() takes a function of a prompt and a JPEG's bytes, or a Serving, not"
        f" {type(client).__name__}"
    )


class _OneFunction(Serving):
    """A serving that answers with the user's function of a prompt and a JPEG."""

    model = "the client"

    def __init__(self, client: Client, max_workers: int) -> None:
        self._client = client
        self.max_workers = max_workers

    async def answer(self, request: Request[Any]) -> str:
        """Call the function, and return the reply's text.

        Errors of this package pass as they are. Raises EndpointRefused for any other that the
        function raises, and SpecError if it returns no text.
        """
        try:
            reply = await self._call(request)
        except GroundingError:
            raise
        except Exception as error:
            what = excerpt(f"{type(error).__name__}: {error}")
            if isinstance(error, RuntimeError) and inspect.iscoroutinefunction(self._client):
                # asyncio raises RuntimeError where a client belongs to another event loop
                what += ". It is called in an event loop of its own: have it make its client there"
            raise EndpointRefused(f"the client raised {what}") from None
        if not isinstance(reply, str):
            raise SpecError(
                f"the client should return the reply's text, not {type(reply).__name__}"
            )
        return reply

    async def _call(self, request: Request[Any]) -> object:
        [image] = request.images
        prompt = f"{request.system}\n\n{request.text}"
        # "data:image/jpeg;base64,…", made in a thread, because the picture may be encoded
        url = await asyncio.to_thread(image.data_url)
        jpeg = base64.b64decode(url.partition(b",")[2])
        reply = await call_in_thread(self._client, prompt, jpeg)
        return await reply if inspect.isawaitable(reply) else reply
