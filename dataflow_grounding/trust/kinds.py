"""Kinds of sizes: what is known of a picture of one size is known of others of its kind.

Models and servers may treat upright pictures, squares, strips, small or large pictures in ways of
their own. So each kind has a probe picture: one with rectangles at known places, which shows
whether the model answers as asked (`probes.py`).
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from dataflow_grounding._util.errors import GroundingError
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.options import OwnPictures
from dataflow_grounding.images.image import Image, ImageLimits, SizeLimits, open_image


class SizeKind(NamedTuple):
    """A shape, and the power of two that the long side has."""

    shape: str
    power_of_two: int


PictureKind: TypeAlias = "tuple[SizeKind | Size, str]"
"""The kind of a picture's size, or its frame, and its media type."""

# The aspect, longer over shorter side, up to which no model is known to put boxes in wrong places:
# Qwen3-VL does beyond it (QwenLM/Qwen3-VL issue 2020).
MODERATE = 3
ELONGATED = 2.5  # a side over the other one, from which on a picture is a strip
# Requests since the last check from which a run ends with another: for fewer, one more request is
# over a twentieth of what they cost.
AT_THE_END = 20
MOST_KINDS = 8  # that have a probe before a run, which a run of a thousand requests can bear


def kind_of(size: Size) -> SizeKind:
    """Return the kind of a size as sent."""
    width, height = size
    if width == height:
        shape = "square"
    elif width > height:
        shape = "wide" if width > ELONGATED * height else "lying"
    else:
        shape = "tall" if height > ELONGATED * width else "upright"
    return SizeKind(shape, int(math.log2(max(size))))


def one_of_each_kind(sizes: Sequence[Size]) -> list[Size]:
    """Return one size of each kind, MOST_KINDS at the most. `sizes` are the commonest first."""
    # Those that must not be left out come first: the first lying and the first upright one, and the
    # most elongated one if it is wide or tall.
    first = []
    for shape in ("lying", "upright"):
        of_shape = [size for size in sizes if kind_of(size).shape == shape]
        first += of_shape[:1]  # none, if there is none of the shape
    if sizes:
        most_elongated_one = max(sizes, key=lambda size: max(size) / min(size))
        if kind_of(most_elongated_one).shape in ("wide", "tall"):
            first.append(most_elongated_one)
    size_of_kind: dict[SizeKind, Size] = {}
    for size in [*first, *sizes]:  # of each kind, the first one is kept
        size_of_kind.setdefault(kind_of(size), size)
    return list(size_of_kind.values())[:MOST_KINDS]


def sizes_to_check(sizes: Sequence[Size], *, in_frames: bool) -> list[Size]:
    """Return of which of a run's sizes, the commonest first, its first check has a picture."""
    # each frame has a different map
    return list(sizes[:MOST_KINDS]) if in_frames else one_of_each_kind(sizes)


def picture_kind(image: Image) -> PictureKind:
    """Return a picture's kind for checks; a server may read PNGs otherwise than JPEGs."""
    size = image.sent_size
    if image.limits.frames:  # each frame has a different map, and so is a kind of its own
        return size, image.sent_media_type
    return kind_of(size), image.sent_media_type


def picture_of_each_kind(
    pictures: OwnPictures, limits: ImageLimits, asked: BoxFormat
) -> list[Image]:
    """Return one of a run's pictures of each kind, MOST_KINDS at the most.

    A picture that can't be read is left out: its record fails when its turn comes.
    """
    path_by_size: dict[Size, str] = {}  # by size as sent; the commonest picture's path
    for size, path in zip(pictures.sizes, pictures.examples, strict=True):
        path_by_size.setdefault(limits.sent(size), path)
    sizes = list(path_by_size)
    if asked.scale == "px" and not asked.maps:  # with maps, each frame is checked
        # Servers reduce the largest ones first.
        sizes.sort(key=max, reverse=True)
    images = []
    for size in sizes_to_check(sizes, in_frames=bool(limits.frames)):
        path = path_by_size[size]
        # A record's address is opened only if it begins with one of the record's folders. This one
        # comes from the run's rows, so it is allowed: it is given as a folder.
        folders = (path,) if "://" in path else ()
        with suppress(GroundingError):
            record = Record({"image_path": path}, folders)
            images.append(open_image(record, "image_path", limits))
    return images


def is_elongated(size: Size) -> bool:
    """Whether a picture is over MODERATE times as long as wide, give or take a hundredth."""
    return SizeLimits(max_wide=MODERATE, max_tall=MODERATE).padded(size) != size


def most_elongated(sizes: Sequence[Size], limits: SizeLimits) -> list[Size]:
    """Return the widest and the tallest of these sizes, each only if it is sent elongated."""
    sent_elongated = [size for size in sizes if is_elongated(limits.padded(size))]
    tallest_first = sorted(sent_elongated, key=lambda size: size[0] / size[1])
    wide = [size for size in tallest_first if size[0] > size[1]]
    tall = [size for size in tallest_first if size[0] < size[1]]
    return [*wide[-1:], *tall[:1]]  # either may be empty


def probes_for(
    requests: int, every: int | None, pictures: Mapping[Size, int], *, in_frames: bool = False
) -> int:
    """Estimate how many probe pictures a run asks about, if all are answered as asked.

    `requests` are the run's own, and `pictures` is as `sent_sizes` returns it. `every` is how many
    requests there are between two checks; None for no checks.
    """
    if not requests or every is None:
        return 0
    kinds = sizes_to_check(list(pictures), in_frames=in_frames)
    in_first_check = max(1, len(kinds))  # one, if no pictures are known yet
    in_stretches = requests // every
    at_the_end = 1 if requests >= min(AT_THE_END, every) else 0
    return in_first_check + in_stretches + at_the_end


def sent_sizes(pictures: OwnPictures, limits: ImageLimits) -> Counter[Size]:
    fitted: Counter[Size] = Counter()
    for size, count in zip(pictures.sizes, pictures.counts, strict=True):
        fitted[limits.sent(size)] += count
    return fitted
