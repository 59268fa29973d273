"""Rules by which servers resize pictures.

`RULES` are forty in use: Qwen's smart_resize (qwen-vl-utils: vision_process.py) with the limits
that servers are started with, longest sides, areas, both, and OpenAI's. `OTHERS` are of other
kinds. More are in processors.py.
"""

from __future__ import annotations

import math

from tests.support.stand_ins.resize_rules import (
    Rule,
    drifting,
    openai,
    reduced,
    scaled_to,
    smart,
    tiled,
)

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
