"""What servers do to a picture before the model sees it: rules from width and height as sent to
those that are seen. `python -m benchmarks.resize_rules` plays those in use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

Rule: TypeAlias = Callable[[int, int], tuple[float, float]]
# The numbers that a picture's sides span and, where it lies within a padded one, those at its left
# and top edge.
View: TypeAlias = tuple[float, float] | tuple[float, float, float, float]
Placing: TypeAlias = Callable[[int, int], View]
Way: TypeAlias = Callable[[float], int]


def smart(factor: int, low: int, high: int, way: Way = round) -> Rule:
    """Sides in multiples of `factor`, an area of `low` to `high` square pixels."""

    def rule(width: int, height: int) -> tuple[float, float]:
        w, h = (max(factor, way(side / factor) * factor) for side in (width, height))
        if w * h > high:
            shrink = math.sqrt(width * height / high)
            w, h = (
                max(factor, math.floor(side / shrink / factor) * factor) for side in (width, height)
            )
        elif w * h < low:
            grow = math.sqrt(low / (width * height))
            w, h = (math.ceil(side * grow / factor) * factor for side in (width, height))
        return w, h

    return rule


def reduced(
    *,
    edge: float = math.inf,
    short: float = math.inf,
    area: float = math.inf,
    factor: int = 1,
    way: Way = round,
) -> Rule:
    """Reduced, never enlarged, to a longest side, a shortest side, an area; then sides in multiples
    of `factor`.
    """

    def rule(width: int, height: int) -> tuple[float, float]:
        scale = min(
            1.0,
            edge / max(width, height),
            short / min(width, height),
            math.sqrt(area / (width * height)),
        )
        w, h = (max(factor, way(side * scale / factor) * factor) for side in (width, height))
        return w, h

    return rule


def openai(width: int, height: int) -> tuple[float, float]:
    """GPT-4o's: fitted into 2048 x 2048, then the shorter side at most 768."""
    w, h = reduced(edge=2048)(width, height)
    return reduced(short=768)(round(w), round(h))


def scaled_to(edge: int) -> Rule:
    """The longer side always this long: small pictures are enlarged."""
    return lambda width, height: (
        edge * width / max(width, height),
        edge * height / max(width, height),
    )


def tiled(tile: int, most: int) -> Rule:
    """Stretched over the grid of at most `most` tiles whose shape is nearest; numbers count the
    grid's pixels.
    """
    grids = [(x, y) for x in range(1, most + 1) for y in range(1, most + 1) if x * y <= most]

    def rule(width: int, height: int) -> tuple[float, float]:
        x, y = min(
            grids, key=lambda grid: (abs(width / height - grid[0] / grid[1]), -grid[0] * grid[1])
        )
        return x * tile, y * tile

    return rule


def drifting(share: float) -> Rule:
    """Numbers that are off by more the larger the picture is, beyond a megapixel
    (ggml-org/llama.cpp issue 16880).
    """

    def rule(width: int, height: int) -> tuple[float, float]:
        off = 1 + share * min(4.0, max(0.0, (width * height - 1e6) / 0.44e6))
        return width * off, height * off

    return rule


def letterboxed(grids: Sequence[tuple[int, int]], parts: int = 0) -> Placing:
    """LLaVA-NeXT's and DeepSeek-VL2's: the grid that keeps most of the picture, which lies in its
    middle, enlarged or reduced to touch its edges. Numbers are pixels, or `parts` of the grid's
    sides.
    """

    def rule(width: int, height: int) -> View:
        def kept(grid: tuple[int, int]) -> tuple[float, int]:
            scale = min(grid[0] / width, grid[1] / height)
            return min(width * height, width * height * scale**2), -math.prod(grid)

        across, down = max(grids, key=kept)
        scale = min(across / width, down / height)
        w, h = width * scale, height * scale
        x, y = (parts / side if parts else 1.0 for side in (across, down))
        return w * x, h * y, (across - w) / 2 * x, (down - h) / 2 * y

    return rule


def grids_of(tile: int, most: int) -> list[tuple[int, int]]:
    """All grids of at most `most` tiles, in pixels."""
    return [
        (x * tile, y * tile)
        for x in range(1, most + 1)
        for y in range(1, most + 1)
        if x * y <= most
    ]


def at_least(side: int, edge: float = math.inf) -> Rule:
    """Small pictures enlarged until the shorter side has this length; a longest side."""

    def rule(width: int, height: int) -> tuple[float, float]:
        scale = max(1.0, side / min(width, height))
        scale = min(scale, edge / max(width, height)) if edge < math.inf else scale
        return width * scale, height * scale

    return rule


def halved(low: float, high: float) -> Rule:
    """Pictures of these areas alone are seen at half their sides."""
    return lambda width, height: (
        (width / 2, height / 2) if low < width * height < high else (width, height)
    )
