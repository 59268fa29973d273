"""Kinds of pictures: what is known of one picture is known of others of its kind.

Models and servers may treat upright pictures, squares, strips, small or large pictures in ways of
their own. So each kind has a probe picture.
"""

import math
from collections.abc import Sequence

from dataflow_grounding.boxes.geometry import Size

ELONGATED = 2.5  # a side over the other one, from which on a picture is a strip
MOST_KINDS = 8  # that have a probe before a run, which a run of a thousand requests can bear


def kind_of(size: Size) -> tuple[str, int]:
    """Return a picture's kind: its shape, and by which power of two its longer side goes.

    `size` is width and height in pixels, as sent.

    Example:
        >>> kind_of((640, 480)) == kind_of((1000, 900)), kind_of((480, 640))
        (True, ('upright', 9))
    """
    width, height = size
    if width == height:
        shape = "square"
    elif width > height:
        shape = "wide" if width > ELONGATED * height else "lying"
    else:
        shape = "tall" if height > ELONGATED * width else "upright"
    return shape, int(math.log2(max(size)))


def one_of_each_kind(sizes: Sequence[Size], most: int = MOST_KINDS) -> list[Size]:
    """Return a size of each kind, `most` at the most.

    The commonest lying and upright sizes are among them, and the most elongated one.

    Args:
        sizes: Width and height in pixels, as sent, the commonest first.
        most: How many sizes are returned at the most.
    """
    first = []
    for shape in ("lying", "upright"):
        first += [size for size in sizes if kind_of(size)[0] == shape][:1]
    if sizes:
        strip = max(sizes, key=lambda size: max(size) / min(size))
        first += [strip] if kind_of(strip)[0] in ("wide", "tall") else []
    chosen: dict[tuple[str, int], Size] = {}
    for size in [*first, *sizes]:
        chosen.setdefault(kind_of(size), size)
    return list(chosen.values())[:most]
