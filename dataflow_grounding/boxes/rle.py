"""Run lengths of a mask, as COCO has them.

`size` is height and width, `counts` the lengths of runs down the columns, outside and inside in
turn, as a list or as COCO's text. Source: pycocotools' maskApi.c.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import whole_number

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels: TypeAlias = npt.NDArray[np.bool_]

MOST_PIXELS = 100_000_000  # of a picture with RLE: a few numbers make any size
# Characters of COCO's text for one number, of 5 bits each: enough for the area of any picture.
_LONGEST = 7


def check_rle(mask: Mapping[str, Any], size: Size | None) -> None:
    """Raise BrokenRow with what is wrong with a mask.

    `size` is the picture's width and height, None where it isn't known.
    """
    width, height = _size_of(mask)
    if size is not None and (width, height) != tuple(size):
        raise BrokenRow(
            f"the mask is of {width} x {height} px, the picture of {size[0]} x {size[1]}"
        )
    runs = runs_of(mask)
    if sum(runs) != width * height or min(runs) < 0:
        raise BrokenRow(f"the runs of the mask don't fill {width} x {height} px")
    if not any(runs[1::2]):
        raise BrokenRow("the mask has no pixel")


def _size_of(mask: Mapping[str, Any]) -> Size:
    size = mask.get("size")
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        raise BrokenRow("the mask has no size of height and width")
    height, width = map(whole_number, size)
    if not width or not height or min(width, height) < 1:
        raise BrokenRow("the mask has no size of height and width")
    if width * height > MOST_PIXELS:
        raise BrokenRow(f"the mask is of {width} x {height} px, more than {MOST_PIXELS:,}")
    return width, height


def runs_of(mask: Mapping[str, Any]) -> list[int]:
    """Return the lengths of an RLE's runs, the first one outside. Raises BrokenRow."""
    counts = mask.get("counts")
    if isinstance(counts, str):
        return _runs_in(counts)
    if not isinstance(counts, list) or not counts:
        raise BrokenRow("the mask has no counts")
    if not all(type(count) is int for count in counts):
        raise BrokenRow("the counts of the mask should be whole numbers")
    return counts


def _runs_in(text: str) -> list[int]:
    # From the fourth on a number is the difference from the last but one.
    runs: list[int] = []
    value = 0
    length = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or length == _LONGEST:
            raise BrokenRow("the counts of the mask are no text of COCO's")
        value |= (code & 31) << (5 * length)
        length += 1
        if code & 32:
            continue
        if code & 16:
            value -= 1 << (5 * length)
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = 0
        length = 0
    if length or not runs:
        raise BrokenRow("the counts of the mask are no text of COCO's")
    return runs


def pixels(mask: Mapping[str, Any]) -> "Pixels":
    """Return a checked RLE as an array, true inside."""
    import numpy as np

    runs = runs_of(mask)
    height, width = mask["size"]
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape((width, height)).T


def rle_of(inside: "Pixels") -> dict[str, Any]:
    """Return an array, true inside, as RLE."""
    import numpy as np

    height, width = inside.shape
    down = inside.T.reshape(-1)
    changes = np.flatnonzero(down[1:] != down[:-1]) + 1
    edges = [0, *changes.tolist(), down.size]
    runs = [end - start for start, end in pairwise(edges)]
    return {"size": [height, width], "counts": [0, *runs] if down[0] else runs}
