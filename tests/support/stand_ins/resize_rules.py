"""What servers do to a picture before the model sees it: rules from width and height as sent to
those that are seen.

`RULES` are forty in use: Qwen's smart_resize (qwen-vl-utils: vision_process.py) with the limits
that servers are started with, longest sides, areas, both, and OpenAI's. `OTHERS` are of other
kinds. More are in processors.py: those of further models and servers, and rules that a seed makes
up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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


def openai_enlarging(width: int, height: int) -> tuple[float, float]:
    """The same as OpenAI words it: fitted into 2048 x 2048, then the shorter side is 768, so that
    small ones grow.
    """
    return 768 * width / min(width, height), 768 * height / min(width, height)


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


_LIMITS_28 = [
    (3136, 12845056),
    (3136, 1003520),
    (200704, 1003520),
    (3136, 602112),
    (3136, 802816),
    (3136, 1605632),
    (3136, 2007040),
    (3136, 1048576),
    (3136, 262144),
    (3136, 524288),
    (3136, 786432),
    (3136, 1254400),
    (3136, 401408),
    (200704, 602112),
    (3136, 2359296),
]
_LIMITS_32 = [
    (4096, 16777216),
    (65536, 1310720),
    (65536, 786432),
    (4096, 1048576),
    (4096, 2621440),
    (65536, 4194304),
    (4096, 2097152),
]
_EDGES = (512, 672, 768, 896, 1024, 1120, 1280, 1344, 1536, 1568, 1920)
_AREAS = (1150000, 1000000, 786000, 2000000)

RULES: dict[str, Rule] = {
    **{f"multiples of 28, area {low} to {high}": smart(28, low, high) for low, high in _LIMITS_28},
    **{f"multiples of 32, area {low} to {high}": smart(32, low, high) for low, high in _LIMITS_32},
    **{f"long edge {edge}": reduced(edge=edge) for edge in _EDGES},
    **{f"area {area}": reduced(area=area) for area in _AREAS},
    "long edge 1568, area 1150000": reduced(edge=1568, area=1150000),
    "OpenAI's": openai,
    "none": lambda width, height: (width, height),
}
OTHERS: dict[str, Rule] = {
    "long edge 500": reduced(edge=500),
    "long edge 1400": reduced(edge=1400),
    "long edge 2000": reduced(edge=2000),
    "area 640000": reduced(area=640000),
    "area 3200000": reduced(area=3.2e6),
    "shorter side 512": reduced(short=512),
    "2,048 tokens of 28 x 28": smart(28, 3136, 2048 * 28**2),
    "2,048 tokens of 32 x 32": smart(32, 4096, 2048 * 32**2),
    "at least 336 x 336": smart(28, 336**2, 1200000),
    "28 downwards": smart(28, 3136, 1605632, math.floor),
    "28 upwards, area 1500000": reduced(area=1.5e6, factor=28, way=math.ceil),
    "32 downwards, area 1000000": reduced(area=1e6, factor=32, way=math.floor),
    "14 downwards, long edge 1344": reduced(edge=1344, factor=14, way=math.floor),
    "16 upwards, long edge 1540": reduced(edge=1540, factor=16, way=math.ceil),
    "multiples of 16, long edge 1280": reduced(edge=1280, factor=16),
    "multiples of 56, area 1200000": reduced(area=1.2e6, factor=56),
    "multiples of 64, long edge 2048": reduced(edge=2048, factor=64),
    "multiples of 40, area 1700000": reduced(area=1.7e6, factor=40),
    "long edge always 1024": scaled_to(1024),
    "long edge always 672": scaled_to(672),
    "always 672 x 672": lambda width, height: (672, 672),
    "always 1024 x 768": lambda width, height: (1024, 768),
    "12 tiles of 448, counted as tiles": tiled(448, 12),
    "6 tiles of 336, counted as tiles": tiled(336, 6),
    "growing with the size": drifting(0.05),
    "shrinking with the size": drifting(-0.05),
}
