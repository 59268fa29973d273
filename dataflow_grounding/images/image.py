"""Images as tasks use them: where a record's is, its facts, and the bytes that go to a model."""

import hashlib
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dataflow_grounding._util.errors import (
    BrokenRow,
    ImageChanged,
    ImageMissing,
    InputError,
    MachineBusy,
    MissingExtra,
    cant_read,
)
from dataflow_grounding._util.paths import (
    is_absolute,
    is_elsewhere,
    is_web,
    joined,
    look,
    may_be_named,
    scheme_of,
)
from dataflow_grounding._util.terminal import quoted
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.files import ImageFacts, decoding, encoded, parse_facts, read_file

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

L = TypeVar("L", bound="SizeLimits")
K = TypeVar("K")
V = TypeVar("V")
PADDING = (127, 127, 127)
MAX_KEPT_BYTES = 32 * 2**20


@dataclass(frozen=True)
class SizeLimits:
    """The sizes in which pictures are sent.

    No side is over `max_side` px, the shorter one not over `max_short_side`, the area is
    `min_pixels` to `max_pixels` square pixels, and sides are multiples of `multiple`. A picture
    more than `max_wide` times as wide as high, or `max_tall` times as high as wide, is padded. None
    stands for no limit.
    """

    max_side: int = 2048
    max_short_side: int | None = None
    max_pixels: int | None = None
    min_pixels: int = 0
    multiple: int = 1
    max_wide: float | None = None
    max_tall: float | None = None

    def padded(self, size: Size) -> Size:
        """The size (width, height), padded to the shape that `max_wide` and `max_tall` want."""
        width, height = size
        least_width = math.ceil(height / (self.max_tall or math.inf))
        least_height = math.ceil(width / (self.max_wide or math.inf))
        # give or take a hundredth, for which nothing is padded
        if width < 0.99 * least_width:
            width = least_width
        if height < 0.99 * least_height:
            height = least_height
        return width, height

    def fitted(self, size: Size) -> Size:
        """The size (width, height) in which a picture of `size` is sent.

        The upper limits go before the lower one.
        """
        scale = self._scale(size)
        if scale == 1 and self.multiple == 1:
            return size
        step = self.multiple
        columns = size[0] * scale / step
        rows = size[1] * scale / step
        nearest = (max(step, round(columns) * step), max(step, round(rows) * step))
        if self._most(nearest) >= 0.99:
            return nearest
        return max(step, math.floor(columns) * step), max(step, math.floor(rows) * step)

    def allows(self, size: Size) -> bool:
        """Whether a picture of this size is sent in it.

        Give or take a hundredth, and rounding to multiples.
        """
        return abs(self._scale(size) - 1) <= 0.01

    def within(self: L, other: "SizeLimits") -> L:
        """These limits, narrowed to sizes that the `other` allows too."""
        ways: dict[str, Callable[..., Any]] = {"min_pixels": max, "multiple": math.lcm}
        narrowed = {}
        for field in fields(SizeLimits):
            narrower = ways.get(field.name, _least)
            narrowed[field.name] = narrower(getattr(self, field.name), getattr(other, field.name))
        return replace(self, **narrowed)

    def _scale(self, size: Size) -> float:
        enlarged = math.sqrt(self.min_pixels / math.prod(size))
        return min(self._most(size), max(1.0, enlarged))

    def _most(self, size: Size) -> float:
        """What the sides can be multiplied with at the most."""
        longest = self.max_side / max(size)
        shortest = (self.max_short_side or math.inf) / min(size)
        area = math.sqrt((self.max_pixels or math.inf) / math.prod(size))
        return min(longest, shortest, area)


@dataclass(frozen=True)
class ImageLimits(SizeLimits):
    """What a serving takes as it is: sizes, media types, and bytes of the file."""

    media_types: tuple[str, ...] = ("image/jpeg", "image/png", "image/webp")
    max_bytes: int = 15 * 2**20


def url_of(data: bytes, media_type: str) -> bytes:
    """An image file's bytes as a `data:` URL."""
    import pybase64

    return b"data:" + media_type.encode() + b";base64," + pybase64.b64encode(data)


def _least(limit_a: float | None, limit_b: float | None) -> float | None:
    """The narrower of two upper limits; None is no limit."""
    return min((limit for limit in (limit_a, limit_b) if limit is not None), default=None)


class _Kept(OrderedDict[str, bytes]):
    """The last pictures by digest, for the record's next steps.

    Up to MAX_KEPT_BYTES, or some times as many.
    """

    held = 0  # bytes
    times = 1
    # of all: threads that read pictures put them here
    _lock = threading.Lock()

    def put(self, key: str, data: bytes) -> bytes:
        """Keep `data`; the oldest go where there are too many bytes."""
        with self._lock:
            if key not in self:
                self[key] = data
                self.held += len(data)
            while self.held > self.times * MAX_KEPT_BYTES and len(self) > 1:
                self.held -= len(self.popitem(last=False)[1])
        return data


kept_urls = _Kept()  # as sent, as `data:` URLs
kept_files = _Kept()  # of files elsewhere, so that they are fetched once
kept_files.times = 4


@dataclass(frozen=True)
class Image:
    """An image file as a task uses it: facts now, bytes when it is sent."""

    path: str
    facts: ImageFacts
    limits: ImageLimits

    @cached_property
    def size(self) -> Size:
        """Width and height in pixels of the upright picture."""
        return self.facts.size

    @cached_property
    def shown_size(self) -> Size:
        """Width and height, in pixels of the upright picture, of what the model is shown.

        Its padding is included.
        """
        return self.limits.padded(self.size)

    @cached_property
    def as_is(self) -> bool:
        """Whether the file's own bytes are sent."""
        facts, limits = self.facts, self.limits
        return (
            facts.plain
            and facts.media_type in limits.media_types
            and facts.file_bytes <= limits.max_bytes
            and limits.fitted(self.shown_size) == facts.size
        )

    @cached_property
    def sent_size(self) -> Size:
        """Width and height in pixels of the picture as sent."""
        fitted = self.limits.fitted(self.shown_size)
        is_padded = self.shown_size != self.size
        if self.facts.media_type != "image/jpeg" or self.limits.multiple != 1 or is_padded:
            return fitted
        for part in (2, 4, 8):
            # a half, a quarter or an eighth comes out of the decoder as it is
            width = math.ceil(self.facts.width / part)
            height = math.ceil(self.facts.height / part)
            if 0.75 * max(fitted) <= max(width, height) <= max(fitted) < max(self.size):
                return width, height
        return fitted

    @cached_property
    def sent_digest(self) -> str:
        """Tells apart what is sent: the file's bytes, and what is done to them."""
        if self.as_is:
            return self.facts.digest
        width, height = self.sent_size
        padding = "" if self.shown_size == self.size else "+padding"
        return f"{self.facts.digest}>{width}x{height}{padding}"

    @property
    def ready(self) -> bool:
        """Whether `data_url` has it at hand, without reading the file."""
        return kept_urls.get(self.sent_digest) is not None

    def data_url(self) -> bytes:
        """The picture as sent, as a `data:` URL; kept for a while, for the record's next steps."""
        key = self.sent_digest
        return kept_urls.get(key) or kept_urls.put(key, self._url_of(self._bytes()))

    def _bytes(self) -> bytes:
        """The file, if it is the one that the facts are of.

        Raises ImageChanged, ImageMissing, MachineBusy.
        """
        kept = kept_files.get(self.facts.digest)
        if kept is not None:
            return kept
        data = read_file(self.path, self.facts.file_bytes)
        if hashlib.sha256(data).hexdigest() != self.facts.digest:
            raise ImageChanged(f"{quoted(self.path)} changed while it was read: run again")
        return data

    def _url_of(self, data: bytes) -> bytes:
        if self.as_is:
            return url_of(data, self.facts.media_type)
        return url_of(encoded(self.as_sent(data), self.limits.max_bytes), "image/jpeg")

    def as_sent(self, data: bytes) -> "PillowImage":
        """The file's picture upright, RGB, in the size that is sent, with its padding.

        Raises ImageBroken.
        """
        import PIL.Image

        sent = self.sent_size
        shown = self.shown_size
        width = max(1, round(self.size[0] * sent[0] / shown[0]))
        height = max(1, round(self.size[1] * sent[1] / shown[1]))
        with decoding(data, self.path, at_least=(width, height)) as picture:
            if picture.size != (width, height):
                picture = picture.resize(
                    (width, height), PIL.Image.Resampling.BICUBIC, reducing_gap=3.0
                )
        if (width, height) == sent:
            return picture
        canvas = PIL.Image.new("RGB", sent, PADDING)
        canvas.paste(picture)
        return canvas

    def sent_picture(self) -> "PillowImage":
        """The picture that is sent, decoded.

        Raises ImageBroken, ImageChanged, ImageMissing, MachineBusy.
        """
        return self.as_sent(self._bytes())

    def decoded(self) -> "AbstractContextManager[PillowImage]":
        """The picture, upright, RGB, while the `with` lasts: other threads wait with large ones.

        Raises ImageBroken.
        """
        return decoding(self._bytes(), self.path)


class ImageFile(NamedTuple):
    """An image file and the state that its facts are remembered by."""

    path: str
    file_bytes: int
    mtime_ns: int


def is_far(record: Record, key: str) -> bool:
    """Whether a store may be asked for the record's image."""
    return any(map(is_elsewhere, (record.get(key), *record.folders)))


def find_image(record: Record, key: str) -> ImageFile:
    """The record's image file: as given, else in the record's folders.

    Whatever a row says, it is the failure of its record alone, and no host is asked that the user
    had no part in. Raises BrokenRow, ImageMissing, MachineBusy.
    """
    name = _path_in(record, key)
    folders = record.folders
    busy: MachineBusy | None = None
    for path in _paths_of(name, folders):
        try:
            return keep(seen_files, (name, *folders), _file_at(path))
        except (OSError, InputError, MissingExtra) as error:
            why = cant_read(path, error)
            reason = getattr(error, "strerror", error)
            if isinstance(why, MachineBusy):
                busy = why
        except ValueError:  # half of a surrogate pair: no file can be called so
            reason = "no such name"
    if busy is not None:  # it may be there all the same
        raise busy
    with_slashes = name.replace("\\", "/")
    if with_slashes != name and _is_there(with_slashes, folders):
        raise ImageMissing(
            f"no image {quoted(name)}, but {quoted(with_slashes)}: write / for \\ in its path"
        )
    where = f" (looked in {', '.join(folders)})" if folders and not is_absolute(name) else ""
    raise ImageMissing(f"no image {quoted(name)}: {reason}{where}")


def _paths_of(name: str, folders: Sequence[str]) -> list[str]:
    """Where an image of that name may be, in the order in which it is looked for."""
    if name.startswith(os.sep) and "://" not in name:  # as most are
        return [name]
    if is_absolute(name) or not folders:
        return [joined("", name)]
    return [joined(folder, name) for folder in folders]


def _file_at(path: str) -> ImageFile:
    """What is at a path or address. Raises OSError, ValueError, InputError, MissingExtra."""
    if "://" in path:
        state = look(path)
        return ImageFile(path, state.size, state.changed)
    status = os.stat(path)
    return ImageFile(path, status.st_size, status.st_mtime_ns)


def _is_there(path: str, folders: Sequence[str]) -> bool:
    """Whether a path names a file of this machine.

    It is looked for in the folders that are on this machine; without any, where it says.
    """
    here = [folder for folder in folders if not is_elsewhere(folder)]
    paths = [joined(folder, path) for folder in here] or [path]
    try:
        return any(os.path.isfile(found) for found in paths)
    except ValueError:
        return False


def _path_in(record: Record, key: str) -> str:
    """The path or address that a row names, if it may. Raises BrokenRow, ImageMissing."""
    path = record.get(key)
    if not isinstance(path, str) or not path or "\0" in path:
        raise BrokenRow(f"column {key!r} should be the path of an image")
    if "://" not in path:
        return path
    if not may_be_named(path, record.folders):
        what = f"column {key!r} names a picture at {scheme_of(path)}://, which rows may not"
        raise BrokenRow(
            f"{what}: copy it to a folder, or name its folder as data.image_root (--image-root)"
        )
    if is_web(path):
        raise ImageMissing(
            f"no image {quoted(path)}: what is at http addresses is fetched where data.allow_http"
            " says so"
        )
    return path


def open_image(record: Record, key: str, limits: ImageLimits | None = None) -> Image:
    """The image that column `key` names, as far as its facts need.

    Raises BrokenRow, ImageMissing, ImageBroken.
    """
    file = None
    if is_far(record, key):
        file = seen_files.get((record.get(key), *record.folders))
    if file is None:
        file = find_image(record, key)
    facts = kept_facts.get(file)
    if facts is None:
        facts = keep(kept_facts, file, read_facts(file.path, size=file.file_bytes))
    return Image(file.path, facts, limits or ImageLimits())


def read_facts(
    path: str, keep_for: ImageLimits | None = None, size: int | None = None
) -> ImageFacts:
    """An image file's facts; `keep_for` keeps what is sent under these limits.

    Raises ImageMissing, ImageBroken.
    """
    data = read_file(path, size)
    facts = parse_facts(data, path)
    if is_elsewhere(path):
        kept_files.put(facts.digest, data)
    if keep_for:
        image = Image(path, facts, keep_for)
        if image.as_is:
            kept_urls.put(image.sent_digest, image._url_of(data))
    return facts


kept_facts: OrderedDict[ImageFile, ImageFacts] = OrderedDict()
seen_files: OrderedDict[tuple[Any, ...], ImageFile] = OrderedDict()
"""By path and folders: whoever works on a record with an image elsewhere looks once, and its
operators take that.
"""


def keep(kept: OrderedDict[K, V], key: K, value: V) -> V:
    """Put a value into `kept`, for the record's next steps, and return it.

    Beyond 4,096 entries, the oldest are dropped.
    """
    kept[key] = value
    while len(kept) > 4096:
        kept.popitem(last=False)
    return value
