"""Phrases in one image, in one call: `ground()`."""

import asyncio
import inspect
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from dataflow_grounding._util.addresses import is_web
from dataflow_grounding._util.errors import ImageMissing, SpecError, needs_extra
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding._util.terminal import quoted
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.data.expressions import Expression, Instance, read_expressions
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.display import Shown
from dataflow_grounding.images.files import decode
from dataflow_grounding.images.in_memory import as_path, is_picture
from dataflow_grounding.jobs.downloads import fetched_picture
from dataflow_grounding.jobs.serving_of_spec import serving_from_environment
from dataflow_grounding.operators import BoxRefiner, Operator, PhraseGrounder
from dataflow_grounding.serving.serving import Serving

if TYPE_CHECKING:
    import supervision
    from numpy.typing import NDArray
    from PIL.Image import Image as PillowImage

AT_ONCE = 64  # calls of `aground` that are at work at a time
Picture: TypeAlias = "str | os.PathLike[str] | bytes | PillowImage | NDArray[Any]"
"""What `ground` takes for an image."""


@dataclass(frozen=True)
class GroundedBox:
    """A phrase's box: (x1, y1, x2, y2) in pixels of the upright image of `size`.

    `score` is None if none was given.
    """

    phrase: str
    bbox: Bbox
    score: float | None
    size: Size

    def normalized(self, scale: float = 1024) -> Bbox:
        """Return the box with both sides of the image running from 0 to `scale`.

        1024 is Datature Vi's; 1 gives fractions.
        """
        width, height = self.size
        x1, y1, x2, y2 = self.bbox
        return x1 * scale / width, y1 * scale / height, x2 * scale / width, y2 * scale / height


@dataclass(frozen=True)
class GroundedPhrase:
    """What was found for a phrase.

    `status` is `grounded`, `none` (not in the image), `ambiguous` or `unsupported`.
    """

    text: str
    status: str
    boxes: tuple[GroundedBox, ...]
    reason: str | None = None


@dataclass(frozen=True)
class Grounded(Shown, Sequence[GroundedBox]):
    """All boxes of an image, in the order of the phrases.

    `size` is that of the upright image, in pixels. `image_path` is the path that was given, None
    for a picture in memory.
    """

    image_path: str | None
    size: Size
    model: str
    phrases: tuple[GroundedPhrase, ...]
    picture: Any = field(default=None, repr=False, compare=False)
    """What was given."""

    def __repr__(self) -> str:
        """Return a line with the first three phrases, each with its first three boxes or status."""
        # Grounded('a.jpg', 640×480 px, gpt-4o: 'red cup' [12, 30, 80, 96]; 'a dog' none)
        parts = []
        for phrase in self.phrases[:3]:
            boxes = ", ".join(str(list(box.bbox)) for box in phrase.boxes[:3])
            parts.append(f"{phrase.text[:40]!r} {boxes or phrase.status}")
        if len(self.phrases) > 3:
            parts.append(f"{len(self.phrases)} phrases")
        width, height = self.size
        return excerpt(
            f"Grounded({self.image_path!r}, {width}×{height} px, {self.model}: {'; '.join(parts)})"
        )

    @cached_property
    def boxes(self) -> tuple[GroundedBox, ...]:
        """The boxes of all phrases."""
        boxes: list[GroundedBox] = []
        for phrase in self.phrases:
            boxes += phrase.boxes
        return tuple(boxes)

    def __len__(self) -> int:
        return len(self.boxes)

    @overload
    def __getitem__(self, place: int) -> GroundedBox: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[GroundedBox, ...]: ...

    def __getitem__(self, place: int | slice) -> GroundedBox | tuple[GroundedBox, ...]:
        return self.boxes[place]

    def normalized(self, scale: float = 1024) -> list[Bbox]:
        """Return each box with both sides of the image running from 0 to `scale`."""
        return [box.normalized(scale) for box in self.boxes]

    def to_dict(self) -> dict[str, Any]:
        """Return all but the picture as plain JSON, boxes as [x1, y1, x2, y2] in pixels."""
        phrases = []
        for phrase in self.phrases:
            boxes = [{"bbox": list(box.bbox), "score": box.score} for box in phrase.boxes]
            phrases.append({**vars(phrase), "boxes": boxes})  # text, status, boxes, reason
        return {
            "image_path": self.image_path,
            "width": self.size[0],
            "height": self.size[1],
            "model": self.model,
            "phrases": phrases,
        }

    def shown_picture(self) -> "PillowImage":
        """Return the picture that was given, decoded."""
        picture = self.image_path if self.picture is None else self.picture
        return decode(as_path(picture, "image"))

    def shown_expressions(self) -> list[Expression]:
        """Return the phrases as expressions with their boxes."""
        expressions = []
        for phrase in self.phrases:
            instances = [Instance(box.bbox, box.score) for box in phrase.boxes]
            expressions.append(
                Expression(
                    phrase.text, instances=instances, status=phrase.status, reason=phrase.reason
                )
            )
        return expressions

    def to_supervision(self) -> "supervision.Detections":
        """Return the boxes as `supervision.Detections`.

        `class_id` is the phrase's index; scores are there if all boxes have one. Raises
        MissingExtra without the extra `supervision`.
        """
        with needs_extra("to_supervision()", "supervision"):
            import supervision  # the extra, which few need
        import numpy

        indices: list[int] = []
        for index, phrase in enumerate(self.phrases):
            indices += [index] * len(phrase.boxes)
        scores = [box.score for box in self.boxes]
        confidence = None
        if None not in scores:
            confidence = numpy.array(scores, dtype=float)
        return supervision.Detections(
            # (0, 4) without any box
            xyxy=numpy.array([box.bbox for box in self.boxes], dtype=float).reshape(-1, 4),
            class_id=numpy.array(indices, dtype=int),
            confidence=confidence,
            data={"class_name": numpy.array([box.phrase for box in self.boxes], dtype=str)},
        )


def ground(
    image: Picture,
    phrases: str | Iterable[str],
    *,
    serving: Serving | None = None,
    zoom: bool = False,
    allow_http: bool = False,
    allow_hosts: Collection[str] = (),
    **settings: Any,
) -> Grounded:
    """Find one phrase or several in one picture.

    Args:
        image: Path of the image, the bytes of an image file, a PIL image, or a NumPy array of uint8
            (H×W, H×W×3 RGB or H×W×4 RGBA); its http(s) address, where that may be fetched. EXIF
            orientation is applied: boxes are those of the upright image.
        phrases: What to look for, such as "red mug"; one string or several of them.
        serving: The model that answers. Without one, the endpoint of DF_BASE_URL, DF_MODEL and
            DF_API_KEY is asked, or, where none of them is set, the embedded grounder.
        zoom: Whether small boxes are looked for again in an enlarged part of the image, by a
            BoxRefiner.
        allow_http: Whether the picture may be fetched from any public host.
        allow_hosts: Hosts that it may be fetched from wherever they are, `name` or `name:port`.
        settings: Keyword arguments of PhraseGrounder, such as `box_format` or `samples`.

    Returns:
        A sequence of boxes, in the order of the phrases: `bbox` is (x1, y1, x2, y2) in pixels of
        the upright image, `score` is in [0, 1] or None. `phrases` has the status of each phrase,
        also of those without a box.

    Raises:
        GroundingError: For everything that can go wrong, in one sentence. Its kinds, which
            `dataflow_grounding.errors` has, are ImageMissing and ImageBroken for the picture,
            EndpointRefused for a wrong key, model or address, EndpointUnreachable and others for
            the network, RequestRefused and UnreadableReply for this request, SpecError for an
            argument.

    It may be called from several threads at once, also with one serving: they share its limits.
    `aground` is the same for asyncio.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, ground
        >>> picture = "example_data/images/shapes.jpg"
        >>> found = ground(picture, ["the red circle"], serving=EmbeddedServing())
        >>> [(phrase.text, phrase.status) for phrase in found.phrases]
        [('the red circle', 'grounded')]
    """
    picture = _one_picture(image, allow_http, allow_hosts)
    texts = _texts(phrases)
    if not texts:
        raise SpecError("phrases: name at least one thing to look for")
    if serving is None:
        serving = serving_from_environment()
    operators = _operators(serving, zoom, settings)
    obstacles = serving.obstacles()  # a missing key, say, before anything is sent
    if obstacles:
        raise SpecError("\n".join(obstacles))
    record: Mapping[str, Any] = {"image": picture, "expressions": texts}
    for operator in operators:  # each gets what the one before has returned
        record = operator(record, input_image_key="image")
    size = (int(record["width"]), int(record["height"]))
    expressions = read_expressions(Record(record), "expressions")
    grounded = tuple(_phrase(expression, size) for expression in expressions)
    path = os.fsdecode(image) if isinstance(image, (str, os.PathLike)) else None
    return Grounded(path, size, serving.model, grounded, picture)


async def aground(
    image: Picture,
    phrases: str | Iterable[str],
    *,
    serving: Serving | None = None,
    zoom: bool = False,
    allow_http: bool = False,
    allow_hosts: Collection[str] = (),
    **settings: Any,
) -> Grounded:
    """Ground as `ground` does, for asyncio: the event loop goes on while the model answers.

    Up to AT_ONCE calls of a process are at work at a time, each in a thread; give all of them one
    `serving`, whose limits they share. One that is cancelled is not waited for, but goes on
    unseen: what it still asks is paid.

    Example:
        >>> import asyncio
        >>> from dataflow_grounding import EmbeddedServing
        >>> from dataflow_grounding.grounded import aground
        >>> async def both():
        ...     serving, picture = EmbeddedServing(), "example_data/images/shapes.jpg"
        ...     wanted = ("the red circle", "a dog")
        ...     return await asyncio.gather(*[aground(picture, w, serving=serving) for w in wanted])
        >>> [found.phrases[0].status for found in asyncio.run(both())]
        ['grounded', 'unsupported']
    """
    work = partial(
        ground,
        image,
        phrases,
        serving=serving,
        zoom=zoom,
        allow_http=allow_http,
        allow_hosts=allow_hosts,
        **settings,
    )
    context = copy_context()  # so that options set by the caller hold in the thread, too
    return await asyncio.get_running_loop().run_in_executor(
        _threads(os.getpid()), context.run, work
    )


@cache
def _threads(process: int) -> ThreadPoolExecutor:
    # One for each process id: a forked process has its parent's pool, but none of its threads.
    return ThreadPoolExecutor(AT_ONCE, thread_name_prefix="aground")


def _one_picture(image: Any, allow_http: bool, allow_hosts: Collection[str]) -> Any:
    """Return what operators take: the picture as given, or as fetched from its address."""
    is_data_frame = hasattr(image, "iloc")
    is_collection = is_data_frame or isinstance(image, (list, tuple, Mapping))
    is_one_picture = is_picture(image)  # such as {"bytes": b"…", "path": "a.jpg"} of a data set
    if is_collection and not is_one_picture:
        raise SpecError(
            f"ground() takes one picture, not {type(image).__name__}: for rows of pictures and"
            " phrases, a list of dicts or a DataFrame, call PhraseGrounder(serving)(rows)"
        )
    if not is_web(image):
        return image
    if not (allow_http or allow_hosts):
        raise ImageMissing(f"no image {quoted(image)}: it is fetched with allow_http=True")
    hosts = [host.lower() for host in allow_hosts]
    return fetched_picture(image, hosts=hosts, no_others=not allow_http)


def _texts(phrases: Any) -> list[str]:
    if isinstance(phrases, str):
        phrases = [phrases]
    is_data_frame = hasattr(phrases, "columns")  # which iterates over its columns' names
    is_no_list_of_texts = is_data_frame or isinstance(phrases, (bytes, Mapping))
    if is_no_list_of_texts or not isinstance(phrases, Iterable):
        type_name = "None" if phrases is None else type(phrases).__name__
        raise SpecError(f"phrases should be a text or several, not {type_name}")
    texts = list(phrases)
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise SpecError(
                f"phrases should be texts that say what to look for, and {text!r} is not one"
            )
    return texts


def _operators(serving: Serving, zoom: bool, settings: dict[str, Any]) -> list[Operator]:
    _, *setting_names = inspect.signature(PhraseGrounder).parameters  # the first is `serving`
    for name in settings:
        if name not in setting_names:
            raise SpecError(f"ground() takes no {name}: it has zoom, {', '.join(setting_names)}")
    # BoxRefiner asks for one phrase at a time: it takes all of these settings but one.
    for_refiner = {name: value for name, value in settings.items() if name != "phrases_per_request"}
    try:
        operators: list[Operator] = [PhraseGrounder(serving, **settings)]
        if zoom:
            operators.append(BoxRefiner(serving, **for_refiner))
    except (TypeError, ValueError, AttributeError) as error:  # for a setting of another type, say
        raise SpecError(f"ground() can't use {', '.join(settings)} as given: {error}") from None
    return operators


def _phrase(expression: Expression, size: Size) -> GroundedPhrase:
    text = expression.text
    boxes = [GroundedBox(text, item.bbox, item.score, size) for item in expression.instances]
    return GroundedPhrase(text, expression.status or "none", tuple(boxes), expression.reason)
