"""Images as tasks use them: where a record's is, its facts, and the bytes that go to a model."""

import hashlib
import math
import os
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from dataflow_grounding._util.addresses import is_remote, is_web, may_be_named, scheme_of
from dataflow_grounding._util.errors import (
    BrokenRow,
    ImageBroken,
    ImageChanged,
    ImageMissing,
    InputError,
    MachineBusy,
    MissingExtra,
    cant_read,
)
from dataflow_grounding._util.lazy import cached_property
from dataflow_grounding._util.paths import folders_in_words, is_absolute, joined, look, plain_path
from dataflow_grounding._util.terminal import quoted
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.files import ImageFacts, decoding, encoded, parse_facts, read_file

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

L = TypeVar("L", bound="SizeLimits")
N = TypeVar("N", int, float)
PADDING = (127, 127, 127)  # the grey, in RGB, of what is added next to a picture
MAX_KEPT_BYTES = 256 * 2**20  # of pictures as sent that `kept_encoded` holds
MAX_KEPT_FILES = 128 * 2**20  # bytes of remote files that `kept_files` holds
_MOST_KEPT = 4096  # entries of `kept_facts`
_MOST_PER_PIXEL = 2.6  # bytes of a JPEG of the best quality; noise of pure colors has 2.5
SECOND_NS = 10**9
# How much a size may miss a limit or a shape: nothing is scaled or padded for a hundredth.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class SizeLimits:
    """The sizes in which pictures are sent.

    No side is over `max_side` px, the shorter one not over `max_short_side`, the area is
    `min_pixels` to `max_pixels` square pixels, and sides are multiples of `multiple`. A picture
    more than `max_wide` times as wide as high, or `max_tall` times as high as wide, is padded. None
    is no limit.

    Where there are `frames`, every picture is sent in one of these exact sizes, and the other
    limits don't matter: it is scaled to fit in, and padded at the right or the bottom.
    """

    max_side: int = 2048
    max_short_side: int | None = None
    max_pixels: int | None = None
    min_pixels: int = 0
    multiple: int = 1
    max_wide: float | None = None
    max_tall: float | None = None
    frames: tuple[Size, ...] = ()

    def frame_for(self, size: Size) -> Size:
        """Return the frame in which a picture costs least, in pixels and in lost resolution."""
        # Pixels that the other limits would take away don't count as lost by a frame.
        within_other_limits = self.fitted(size)
        return min(self.frames, key=lambda frame: frame_cost(within_other_limits, frame))

    def padded(self, size: Size) -> Size:
        """Return a picture's size with the padding that `max_wide` and `max_tall` ask for.

        A side that is too short by less than a hundredth stays. With `frames`, the padding fills
        the picture's frame; the size is in pixels of the picture, before it is scaled.
        """
        width, height = size
        if self.frames:
            frame = self.frame_for(size)
            return filling(size, frame, scale_into(size, frame))
        least_width = math.ceil(height / (self.max_tall or math.inf))
        least_height = math.ceil(width / (self.max_wide or math.inf))
        if width < (1 - _TOLERANCE) * least_width:
            width = least_width
        if height < (1 - _TOLERANCE) * least_height:
            height = least_height
        return width, height

    def fitted(self, size: Size) -> Size:
        """Return the size to which a picture is scaled by these limits, without padding.

        The upper limits go before the lower one. Sides are rounded to the nearest multiples. Where
        these would be over a limit by more than a hundredth, they are rounded down, but to one
        multiple at least.
        """
        scale = self._scale(size)
        if scale == 1 and self.multiple == 1:
            return size
        step = self.multiple
        steps_across = size[0] * scale / step  # not whole
        steps_down = size[1] * scale / step
        nearest = (max(step, round(steps_across) * step), max(step, round(steps_down) * step))
        keeps_limits = self._largest_scale(nearest) >= 1 - _TOLERANCE
        if keeps_limits:
            return nearest
        width = max(step, math.floor(steps_across) * step)
        return width, max(step, math.floor(steps_down) * step)

    def sent(self, size: Size) -> Size:
        """Return the size in which a picture of `size` is sent, padding and all."""
        if self.frames:
            return self.frame_for(size)
        return self.fitted(self.padded(size))

    def allows(self, size: Size) -> bool:
        """Return whether a picture is sent unscaled, but for a hundredth, multiples and padding."""
        return abs(self._scale(size) - 1) <= _TOLERANCE

    def keeps(self, size: Size) -> bool:
        """Return whether a picture of this size is sent as it is: neither scaled nor padded.

        One that is smaller than `min_pixels` is not, even if an upper limit keeps it from being
        enlarged.
        """
        if self.frames:
            return size in self.frames
        # An area has the tolerance of its two sides.
        is_large_enough = math.prod(size) >= self.min_pixels * (1 - _TOLERANCE) ** 2
        return is_large_enough and self.allows(size) and self.padded(size) == size

    def within(self: L, other: "SizeLimits") -> L:
        """Return these limits, narrowed to sizes that the `other` allows too."""
        # Most limits are upper ones: the lower of two is the narrower. Of `min_pixels` it is the
        # higher. Sides that have to be multiples of 28 and of 32 are multiples of 224, their `lcm`.
        narrower_of: dict[str, Callable[..., Any]] = {"min_pixels": max, "multiple": math.lcm}
        narrowed: dict[str, Any] = {}
        for limit in fields(SizeLimits):
            name = limit.name
            if name == "frames":  # exact sizes can't be narrowed: the other's replace these
                narrowed[name] = other.frames or self.frames
            else:
                narrower = narrower_of.get(name, _least)
                narrowed[name] = narrower(getattr(self, name), getattr(other, name))
        return replace(self, **narrowed)

    def _scale(self, size: Size) -> float:
        """Return what sides are multiplied with before they are rounded to multiples."""
        # A picture is enlarged up to `min_pixels`, but not over an upper limit.
        enlarging = math.sqrt(self.min_pixels / math.prod(size))
        return min(self._largest_scale(size), max(1.0, enlarging))

    def _largest_scale(self, size: Size) -> float:
        """Return the most to multiply sides with within all upper limits."""
        longest = self.max_side / max(size)
        shortest = (self.max_short_side or math.inf) / min(size)
        area = math.sqrt((self.max_pixels or math.inf) / math.prod(size))
        return min(longest, shortest, area)


def scale_into(size: Size, frame: Size) -> float:
    """Return what a picture's sides are multiplied with so that it fills a frame one way."""
    return min(frame[0] / size[0], frame[1] / size[1])


def filling(size: Size, frame: Size, scale: float) -> Size:
    """Return a picture's size with the padding that fills a frame, in pixels of the picture before
    it is scaled: 1000x1000 for one of 1000x500 in a frame of 512x512.
    """
    # The side that fills the frame has no padding. By rounding it could lose a pixel.
    return max(size[0], round(frame[0] / scale)), max(size[1], round(frame[1] / scale))


def frame_cost(size: Size, frame: Size) -> float:
    """Return what it costs to send a picture in a frame: megapixels, lost resolution, padding.

    Small objects are lost where the picture is reduced. So to lose a tenth of the sides' pixels
    costs as much as 0.6 megapixels more. Padding costs precision: where the picture fills half of
    the frame's side, an answer that is off by 1% of the frame is off by 2% of the picture.
    """
    scale = scale_into(size, frame)
    lost = max(0.0, 1 - scale)
    padding = 1 - math.prod(size) * scale**2 / math.prod(frame)
    return math.prod(frame) / 1e6 + 6 * lost + padding


@dataclass(frozen=True)
class ImageLimits(SizeLimits):
    """What a serving takes as it is: sizes, media types, and bytes of the file.

    No picture is sent that has more characters in base64 than `picture_bytes`, which the user
    states, or `learnt_bytes`, which a refusal has told: it is sent as a JPEG with as many pixels at
    most. None is no limit. Neither is in the `repr`, by which finished rows are known.
    """

    media_types: tuple[str, ...] = ("image/jpeg", "image/png", "image/webp")
    max_bytes: int = 15 * 2**20
    picture_bytes: int | None = field(default=None, repr=False)
    learnt_bytes: int | None = field(default=None, repr=False)

    @cached_property
    def most_base64(self) -> int | None:
        """The most characters of a picture in base64; None is no limit."""
        return _least(self.picture_bytes, self.learnt_bytes)

    def within(self, other: SizeLimits) -> "ImageLimits":
        """Return these limits, narrowed to what the `other` allows too, in bytes as well."""
        narrowed = super().within(other)
        if not isinstance(other, ImageLimits):
            return narrowed
        return replace(
            narrowed,
            max_bytes=min(self.max_bytes, other.max_bytes),
            picture_bytes=_least(self.picture_bytes, other.picture_bytes),
            learnt_bytes=_least(self.learnt_bytes, other.learnt_bytes),
        )

    @cached_property
    def of_file(self) -> "ImageLimits":
        """The same limits, with `max_bytes` in place of those on characters in base64."""
        if self.most_base64 is None:
            return self
        bytes_in_base64 = self.most_base64 // 4 * 3  # four characters have three bytes
        max_bytes = min(self.max_bytes, bytes_in_base64)
        return replace(self, max_bytes=max_bytes, picture_bytes=None, learnt_bytes=None)


def url_of(data: bytes, media_type: str) -> bytes:
    """Return an image file's bytes as a `data:` URL."""
    return url_head(media_type) + in_base64(data)


def url_head(media_type: str) -> bytes:
    """Return what comes before the base64 in a `data:` URL."""
    return b"data:" + media_type.encode() + b";base64,"


def in_base64(data: bytes) -> bytes:
    """Return an image file's bytes in base64."""
    import pybase64

    return pybase64.b64encode(data)


class InBase64:
    """A part of a request's body: a picture's bytes, which are encoded when they are sent. So a
    waiting request shares them with what is kept of the picture.
    """

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return base64_length(len(self._data))

    def __bytes__(self) -> bytes:
        return in_base64(self._data)


def _least(limit_a: N | None, limit_b: N | None) -> N | None:
    return min((limit for limit in (limit_a, limit_b) if limit is not None), default=None)


class _KeptFiles(OrderedDict[str, bytes]):
    """The last remote files by digest, up to MAX_KEPT_FILES."""

    held = 0  # bytes of all of them
    _lock = threading.Lock()  # threads that read pictures put them here

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under a key unless it is there; the last one stays, however large it is."""
        with self._lock:
            if key not in self:
                self[key] = data
                self.held += len(data)
            while self.held > MAX_KEPT_FILES and len(self) > 1:
                _, oldest = self.popitem(last=False)
                self.held -= len(oldest)


kept_files = _KeptFiles()  # so that they are fetched once


class Encoded:
    """The bytes of a picture as sent."""

    __slots__ = ("__weakref__", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data


Kept: TypeAlias = dict[str, Encoded]
"""Pictures as sent that somebody keeps, by `Image.sent_digest`."""

kept_encoded: WeakValueDictionary[str, Encoded] = WeakValueDictionary()
"""All that is in any `Kept`: records that show the same picture share it."""
_keeping = threading.Lock()  # threads prepare pictures side by side


def keep_encoded(kept: Kept, digest: str, data: bytes) -> None:
    """Put a picture as sent into `kept`, unless that would make more than MAX_KEPT_BYTES of all
    that is kept anywhere. Where another has kept the same bytes, these are shared.
    """
    with _keeping:
        held_bytes = 0
        for reference in kept_encoded.valuerefs():  # a copy: other threads may let go of some
            held = reference()
            if held is not None:
                held_bytes += len(held.data)
        if held_bytes + len(data) <= MAX_KEPT_BYTES:
            shared = kept_encoded.get(digest)
            if shared is None or shared.data != data:
                shared = Encoded(data)
                kept_encoded[digest] = shared
            kept[digest] = shared


def base64_length(byte_count: float) -> int:
    """Return how many characters this many bytes have in base64."""
    return 4 * math.ceil(byte_count / 3)


class ImageFile(NamedTuple):
    """An image file and the state that its facts are remembered by.

    Programs may set `mtime_ns`, but not `ctime_ns`, which is 0 for a file on another machine.
    `inode` is 0 on disks where a number may change by itself.
    """

    path: str
    file_bytes: int
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0

    @property
    def is_far(self) -> bool:
        """Whether reading it waits for a store."""
        return not self.ctime_ns

    @property
    def changed_ns(self) -> int:
        """The latest time at which it may have changed last, in nanoseconds since 1970."""
        latest_ctime = self.ctime_ns + SECOND_NS - 1 if self.counts_seconds else self.ctime_ns
        return max(self.mtime_ns, latest_ctime)

    @property
    def counts_seconds(self) -> bool:
        """Whether its system seems to count whole seconds; so of a remote file."""
        return self.ctime_ns % SECOND_NS == 0


@dataclass(frozen=True)
class Image:
    """An image file as a task uses it: facts now, bytes when it is sent.

    It has four sizes. For a picture of 1000x500 px that is sent in a frame of 512x512, `size` is
    1000x500, `shown_size` 1000x1000 with padding below, `sent_size` 512x512, and of these
    `content_size` 512x256 is what isn't padding.

    Args:
        file: The file, as it was found.
        facts: What was read from its header.
        limits: What the serving takes as it is.
        kept: What keeps it as it is sent, shared with what the record's other steps open.
    """

    file: ImageFile
    facts: ImageFacts
    limits: ImageLimits
    kept: Kept = field(default_factory=dict, kw_only=True, repr=False, compare=False)

    @property
    def path(self) -> str:
        """The file's path or address."""
        return self.file.path

    @cached_property
    def size(self) -> Size:
        """Width and height in pixels of the upright picture."""
        return self.facts.size

    @cached_property
    def shown_size(self) -> Size:
        """Width and height, in pixels of the upright picture, of what the model is shown.

        Its padding is included.
        """
        return self.fitted_limits.padded(self.size)

    @cached_property
    def as_is(self) -> bool:
        """Whether the file's own bytes are sent.

        They are if the picture is `plain`, as ImageFacts explains it, and neither scaled nor
        padded, and if the serving takes its type and its number of bytes.
        """
        facts = self.facts
        limits = self.limits.of_file  # its `max_bytes` heeds the limits in base64, too
        is_taken = facts.media_type in limits.media_types and facts.file_bytes <= limits.max_bytes
        if not (facts.plain and is_taken):
            return False
        size = facts.size
        if limits.sent(size) != size:  # it is scaled
            return False
        return self.shown_size == size

    @property
    def sent_media_type(self) -> str:
        """Such as `image/png`: the file's own where it is sent as it is, else a JPEG's."""
        return self.facts.media_type if self.as_is else "image/jpeg"

    @cached_property
    def sent_size(self) -> Size:
        """Width and height in pixels of the picture as sent.

        That is what the limits ask for. A JPEG that has to be reduced is sent a little smaller if
        its decoder gives such a size at once, without resampling.
        """
        limits = self.fitted_limits
        fitted = limits.sent(self.size)
        needs_exact_size = limits.frames or limits.multiple != 1
        is_padded = self.shown_size != self.size
        if needs_exact_size or is_padded or self.facts.media_type != "image/jpeg":
            return fitted
        is_reduced = max(fitted) < max(self.size)
        return self._near_size_of_decoder(fitted) if is_reduced else fitted

    def _near_size_of_decoder(self, fitted: Size) -> Size:
        """Return a size near `fitted` that a JPEG's decoder gives at once, else `fitted`."""
        longest = max(fitted)
        for divisor in (2, 4, 8):  # what JPEG decoders divide by
            width = math.ceil(self.facts.width / divisor)
            height = math.ceil(self.facts.height / divisor)
            is_near = 0.75 * longest <= max(width, height) <= longest
            is_large_enough = width * height >= self.fitted_limits.min_pixels
            if is_near and is_large_enough:
                return width, height
        return fitted

    @cached_property
    def sent_digest(self) -> str:
        """A text that tells apart what is sent: the file's digest, and what is done to the picture.

        `DIGEST` of a file that is sent as it is, else `DIGEST>640x480` or `DIGEST>640x480+padding`;
        a picture that is `stretched` has `+range` at the end.
        """
        if self.as_is:
            return self.facts.digest
        width, height = self.sent_size
        padding = "" if self.shown_size == self.size else "+padding"
        stretched = "+range" if self.facts.stretched else ""
        return f"{self.facts.digest}>{width}x{height}{padding}{stretched}"

    @property
    def ready(self) -> bool:
        """Whether `encoded` has it at hand, without reading the file; then that stays so."""
        return self._at_hand() is not None

    def _at_hand(self) -> bytes | None:
        at_hand = kept_encoded.get(self.sent_digest)
        most = self.limits.most_base64
        # under a limit, the same size may have been sent in a better quality before it was told
        if at_hand is None or (most is not None and base64_length(len(at_hand.data)) > most):
            return None
        self.kept[self.sent_digest] = at_hand  # another record that has kept it may end
        return at_hand.data

    def sent_bytes(self) -> bytes:
        """Return the picture's file as sent; it is kept for the record's next steps.

        Raises ImageBroken, ImageChanged, ImageMissing, MachineBusy.
        """
        data = self._at_hand()
        if data is None:
            data = self.file_bytes()
            if not self.as_is:
                data = encoded(self.as_sent(data), self.fitted_limits.max_bytes)
            keep_encoded(self.kept, self.sent_digest, data)
        return data

    def encoded(self) -> bytes:
        """Return the picture as sent, in base64. Raises what `sent_bytes` does."""
        return in_base64(self.sent_bytes())

    def data_url(self) -> bytes:
        """Return the picture as sent, as a `data:` URL. Raises what `encoded` does."""
        return url_head(self.sent_media_type) + self.encoded()

    def file_bytes(self) -> bytes:
        """Return the file's bytes.

        Raises ImageChanged for a file that isn't the one that the facts are of; ImageMissing,
        ImageBroken, MachineBusy as `read_file` does.
        """
        remembered = kept_files.get(self.facts.digest)
        if remembered is not None:
            return remembered
        data = read_file(self.path, self.facts.file_bytes)
        if hashlib.sha256(data).hexdigest() != self.facts.digest:
            raise ImageChanged(f"{quoted(self.path)} changed while it was read: run again")
        return data

    def keep_as_is(self, data: bytes) -> None:
        """Keep the file's bytes to be sent, if the picture is sent as it is."""
        if self.as_is:
            keep_encoded(self.kept, self.sent_digest, data)

    @cached_property
    def fitted_limits(self) -> ImageLimits:
        """The limits, with the one on characters in base64 as bytes of the file and as an area.

        A picture that keeps within that limit as it is isn't reduced. Others may have as many
        pixels as characters: a JPEG of noise has 0.72 bytes a pixel in the third of the qualities
        that are tried, which are 0.96 characters, and one of a photo 0.2 to 0.5 in the first.
        """
        most = self.limits.most_base64
        if most is None:
            return self.limits
        limits = self.limits.of_file
        unfitted = replace(self, limits=limits)
        if unfitted.as_is or math.prod(unfitted.sent_size) <= most:
            return limits
        frames = tuple(frame for frame in limits.frames if math.prod(frame) <= most)
        if limits.frames and not frames:  # all are larger
            frames = (min(limits.frames, key=math.prod),)
        return replace(limits, max_pixels=most, frames=frames)

    @property
    def is_fitted(self) -> bool:
        """Whether it is sent otherwise than if its bytes didn't count."""
        any_bytes = replace(self.limits, picture_bytes=None, learnt_bytes=None)
        return replace(self, limits=any_bytes).sent_digest != self.sent_digest

    @property
    def most_characters(self) -> int:
        """How many characters it has in base64 as sent: at most, where that isn't known."""
        at_hand = self._at_hand()
        if at_hand is not None:
            return base64_length(len(at_hand))
        if self.as_is:
            return base64_length(self.facts.file_bytes)
        return base64_length(math.prod(self.sent_size) * _MOST_PER_PIXEL)

    def as_sent(self, data: bytes) -> "PillowImage":
        """Return the file's picture upright, RGB, in the size that is sent.

        Padding is to the right or below. `data` are the file's bytes. Raises ImageBroken,
        MachineBusy.
        """
        with decoding(data, self.path, at_least=self.content_size) as picture:
            return self.padded_to_sent(picture)

    @property
    def content_size(self) -> Size:
        """Width and height, as sent, of what isn't padding."""
        sent = self.sent_size
        shown = self.shown_size
        width = max(1, round(self.size[0] * sent[0] / shown[0]))
        return width, max(1, round(self.size[1] * sent[1] / shown[1]))

    def padded_to_sent(self, picture: "PillowImage") -> "PillowImage":
        """Return a picture of all that is shown, in the size that is sent, padding and all."""
        import PIL.Image

        if picture.size != self.content_size:
            # With `reducing_gap`, Pillow first reduces it roughly, by a whole number.
            bicubic = PIL.Image.Resampling.BICUBIC
            picture = picture.resize(self.content_size, bicubic, reducing_gap=3.0)
        if picture.size == self.sent_size:
            return picture
        canvas = PIL.Image.new("RGB", self.sent_size, PADDING)
        canvas.paste(picture)
        return canvas

    def sent_picture(self) -> "PillowImage":
        """Return the picture as it is sent, decoded.

        Raises ImageBroken, ImageChanged, ImageMissing, MachineBusy.
        """
        return self.as_sent(self.file_bytes())

    def decoded(self) -> "AbstractContextManager[PillowImage]":
        """Give the picture in its own size, upright, RGB, for a `with` block.

        Other threads wait with large pictures until the block ends. Raises ImageBroken,
        ImageChanged, ImageMissing, MachineBusy.
        """
        return decoding(self.file_bytes(), self.path)


def is_far(record: Record, key: str) -> bool:
    """Return whether a store may be asked for the record's image, whose path is in column `key`."""
    return waits(record.get(key), record.folders)


def waits(path: object, folders: Iterable[str] = ()) -> bool:
    """Return whether a store may be asked for what is at a path, in one of these folders."""
    return is_remote(path) or any(map(is_remote, folders))


def find_image(record: Record, key: str) -> ImageFile:
    """Return the image file that a record names in column `key`. Raises what `find_file` does."""
    return find_file(record.get(key), record.folders, key)


def find_file(path: object, folders: Sequence[str], column: str = "image") -> ImageFile:
    """Return the image file at a path that a row's `column` has, in the first folder that has it.

    Without folders a relative path starts from the current one. A row can't have just any host
    asked (`may_be_named`). Raises BrokenRow for no path, or one that rows may not name;
    ImageMissing; MachineBusy where a folder couldn't be looked into, so the file may be there all
    the same.
    """
    name = _checked_path(path, folders, column)
    candidates: Iterable[str]
    if is_absolute(name):
        candidates = [plain_path(name)]
    else:
        # each path is made when it is looked for: nearly always the first has the file
        candidates = (joined(folder, name) for folder in folders or ("",))
    busy: MachineBusy | None = None  # of a folder that couldn't be looked into
    why_not_at_last: object = None  # why no file was found at the last candidate
    for candidate in candidates:  # after an error, the next folder may have it
        try:
            return file_at(candidate)
        except (OSError, InputError, MissingExtra) as error:
            why_not_at_last = getattr(error, "strerror", error)
            fault = cant_read(candidate, error)
            if isinstance(fault, MachineBusy):
                busy = fault
        except ValueError:  # a name with half of a surrogate pair, which no file can have
            why_not_at_last = "no such name"
    if busy is not None:
        raise busy
    raise _missing(name, folders, why_not_at_last)


def _missing(name: str, folders: Sequence[str], reason: object) -> ImageMissing:
    """Return the error; `reason` says why nothing is at the last path."""
    other_file = _file_of_other_name(name, folders)
    if other_file:
        return ImageMissing(f"no image {quoted(name)}, but {other_file}")
    if is_absolute(name):
        return ImageMissing(f"no image {quoted(name)}: {reason}")
    looked_in = " and ".join(folders_in_words(folders or ["."]))
    where = f" (looked in {looked_in})" if looked_in else ""
    return ImageMissing(f"no image {quoted(name)}: {reason}{where}")


def _file_of_other_name(name: str, folders: Sequence[str]) -> str:
    """Return a file whose name differs a little, and what to do, in words; "" without one."""
    with_slashes = name.replace("\\", "/")
    if with_slashes != name and _is_there(with_slashes, folders):
        return f"{quoted(with_slashes)}: write / for \\ in its path"
    for form in ("NFC", "NFD"):
        other_form = unicodedata.normalize(form, name)
        if other_form != name and _is_there(other_form, folders):
            same_name = f"one with the same name in Unicode's form {form}"
            return f"{same_name}: write it in {form}, or rename the file"
    # The path may name a folder of another machine: `C:/data/a.jpg`.
    file_name = os.path.basename(with_slashes)
    if file_name != name and folders and _is_there(file_name, folders):
        return f"{quoted(file_name)} is there: write that"
    return ""


def file_at(path: str) -> ImageFile:
    """Return the file at a path or address, with its state now.

    Raises OSError where it isn't there or can't be looked up, InputError or MissingExtra where no
    library opens such addresses, ValueError for a name that no file can have.
    """
    if "://" in path:
        state = look(path)
        return ImageFile(path, state.size, state.changed)
    status = os.stat(path)
    # File systems of a network have devices with the major number 0. There, a file's inode may
    # get another number though the file stays the same: it isn't remembered.
    is_on_disk = hasattr(os, "major") and os.major(status.st_dev) > 0
    inode = status.st_ino if is_on_disk else 0
    return ImageFile(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode)


def is_unchanged(file: ImageFile) -> bool:
    """Return whether a file of this machine is still in this state."""
    try:
        return file_at(file.path) == file
    except OSError:
        return False


def _is_there(path: str, folders: Sequence[str]) -> bool:
    """Return whether a file of this machine is at a path, in one of these folders."""
    paths = [joined(folder, path) for folder in folders] or [path]
    try:
        return any(os.path.isfile(candidate) for candidate in paths)
    except ValueError:  # no file can be called so
        return False


def _checked_path(path: object, folders: Sequence[str], column: str) -> str:
    if not isinstance(path, str) or not path or "\0" in path:
        raise BrokenRow(f"column {column!r} should be the path of an image")
    if "://" not in path:
        return path
    if not may_be_named(path, folders):
        raise BrokenRow(
            f"column {column!r} names a picture at {scheme_of(path)}://, which rows may not: copy"
            " it to a folder, or name its folder as data.image_root (--image-root)"
        )
    # A run that may fetch pictures at http addresses has done so: its rows name files by now.
    if is_web(path):
        raise ImageMissing(
            f"no image {quoted(path)}: what is at http addresses is fetched where data.allow_http"
            " says so"
        )
    return path


def open_image(record: Record, key: str, limits: ImageLimits | None = None) -> Image:
    """Return the image that column `key` names, with its file's facts.

    It is looked for once, and is the same in all steps of the record. Facts that are known already
    are not read again while the file's state stays the same.

    Args:
        record: The record.
        key: The column with the image's path.
        limits: What the serving takes; None for the usual limits.

    Raises:
        BrokenRow, ImageMissing, ImageBroken, MachineBusy: As `find_image` and `read_facts` say.
    """
    image = opened(record, key)
    if image is None:
        file = find_image(record, key)
        facts = kept_facts.get(file)
        if facts is None:
            facts = keep_facts(file, read_facts(file))
        image = Image(file, facts, limits or ImageLimits())
        record.images[record[key]] = image
    # An earlier step may have opened it for a serving with other limits.
    return replace(image, limits=limits or ImageLimits())


@contextmanager
def name_at_source(record: Record) -> Iterator[None]:
    """Have an ImageBroken say what a picture from a shard or table is called there.

    That is the column `image_file`; the file that was made of it has a digest for a name.
    """
    try:
        yield
    except ImageBroken as error:
        name = record.get("image_file")
        if isinstance(name, str):
            error.args = (f"{quoted(name)} of the input: {error}",)
        raise


def opened(record: Record, key: str) -> Image | None:
    """Return the image that column `key` names, if it is known to the record."""
    name = record.get(key)
    image: Image | None = record.images.get(name) if isinstance(name, str) else None
    return image


def let_go(record: Record) -> None:
    """Forget a record's images, and what is kept of them as they are sent, whoever has them."""
    for image in record.images.values():
        image.kept.clear()
    record.images.clear()


def pin(record: Record, key: str, data: bytes, limits: ImageLimits) -> ImageFacts:
    """Have the record's image be `data` in all steps, and return its facts.

    If the file changes meanwhile, steps go on with `data` while it is kept, and then raise
    ImageChanged: none sends another picture. Raises ImageBroken, MachineBusy.
    """
    path = record[key]
    image = Image(ImageFile(path, len(data)), parse_facts(data, path), limits)
    image.keep_as_is(data)
    record.images[path] = image
    return image.facts


def read_facts(
    file: ImageFile, keep_for: ImageLimits | None = None, kept: Kept | None = None
) -> ImageFacts:
    """Return an image file's facts.

    If the file is sent as it is to a serving with the limits `keep_for`, `kept` gets its bytes: so
    it needn't be read again. A file of a store is put into `kept_files`, too.

    Raises ImageMissing, ImageBroken, MachineBusy.
    """
    data = read_file(file.path, file.file_bytes)
    facts = parse_facts(data, file.path)
    if file.is_far:
        kept_files.put(facts.digest, data)
    if keep_for and kept is not None:
        Image(file, facts, keep_for, kept=kept).keep_as_is(data)
    return facts


kept_facts: OrderedDict[ImageFile, ImageFacts] = OrderedDict()
"""Facts of the last files, so that the record's next steps needn't read them again."""


def keep_facts(file: ImageFile, facts: ImageFacts) -> ImageFacts:
    """Put a file's facts into `kept_facts`, and return them."""
    kept_facts[file] = facts
    while len(kept_facts) > _MOST_KEPT:
        kept_facts.popitem(last=False)
    return facts
