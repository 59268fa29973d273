"""Further resize rules: what the image processors of open models and hosted APIs do, as far as they
are published.

Each rule gives, for a width and height as sent, the numbers that the picture's sides span and,
where the picture lies in the middle of a padded one, the numbers at its left and top edge. Sources:
image_processing_*.py of Hugging Face transformers 4.57 to 5.5 (lfm2_vl, llama4, mllama, gemma3,
gemma4, idefics3, pixtral, llava_next, detr), mtmd-image.cpp of llama.cpp, and the pages on images
of OpenAI and Anthropic. Made-up ones come from a seed, for rules nobody foresaw.
"""

from __future__ import annotations

import math
import random

from tests.support.stand_ins.resize_rules import (
    Placing,
    Rule,
    View,
    at_least,
    grids_of,
    halved,
    letterboxed,
    reduced,
    smart,
)


def openai_enlarging(width: int, height: int) -> tuple[float, float]:
    """The same as OpenAI words it: fitted into 2048 x 2048, then the shorter side is 768, so that
    small ones grow.
    """
    return 768 * width / min(width, height), 768 * height / min(width, height)


def patches(budget: int, edge: float = math.inf) -> Rule:
    """OpenAI's: reduced to `budget` patches of 32 x 32 px, sides not rounded."""

    def rule(width: int, height: int) -> tuple[float, float]:
        scale = min(1.0, edge / max(width, height))
        while math.ceil(width * scale / 32) * math.ceil(height * scale / 32) > budget:
            scale *= 0.998
        return width * scale, height * scale

    return rule


def gemma4(tokens: int) -> Rule:
    """Gemma 4: resized to the area of `tokens` tokens of 48 x 48 px, small ones enlarged; sides
    rounded down to 48.
    """

    def rule(width: int, height: int) -> tuple[float, float]:
        factor = math.sqrt(tokens * 48**2 / (width * height))
        w, h = (max(48, math.floor(side * factor / 48) * 48) for side in (width, height))
        return w, h

    return rule


def lfm2(large: Rule) -> Rule:
    """LFM2-VL: up to twice 256 tokens of 32 x 32 px reduced to 256; `large` for pictures beyond,
    which are tiled.
    """
    one_tile = smart(32, 64 * 1024, 256 * 1024)

    def rule(width: int, height: int) -> tuple[float, float]:
        rounded = [max(32, round(side / 32) * 32) for side in (width, height)]
        return (large if math.prod(rounded) > 2 * 256 * 1024 else one_tile)(width, height)

    return rule


def canvas(tile: int, most: int, *, enlarged: bool = False, parts: int = 0) -> Rule:
    """Llama's: the smallest canvas of tiles that holds the picture, else the one that reduces it
    least; the picture in its corner, `enlarged` to it or not. Numbers are pixels, or `parts` of the
    canvas's sides.
    """
    grids = grids_of(tile, most)

    def rule(width: int, height: int) -> tuple[float, float]:
        scales = {grid: min(grid[0] / width, grid[1] / height) for grid in grids}
        holding = [scale for scale in scales.values() if scale >= 1]
        scale = min(holding) if holding else max(scales.values())
        grid = min((grid for grid in grids if math.isclose(scales[grid], scale)), key=math.prod)
        if not enlarged:
            scale = min(scale, max(1.0, tile / max(width, height)))
        across, down = (parts / side if parts else 1.0 for side in grid)
        return width * scale * across, height * scale * down

    return rule


def padded_up(align: int, low: int, high: int) -> Placing:
    """llama.cpp's: smart_resize gives the canvas, the picture keeps its shape and lies in the
    middle of it.
    """
    target = smart(align, low, high)

    def rule(width: int, height: int) -> View:
        across, down = target(width, height)
        scale = min(across / width, down / height)
        w, h = width * scale, height * scale
        return w, h, (across - w) / 2, (down - h) / 2

    return rule


def idefics(edge: int, tile: int) -> Rule:
    """Idefics3 and SmolVLM: the long side brought to `edge`, then both sides up to multiples of a
    tile.
    """

    def rule(width: int, height: int) -> tuple[float, float]:
        scale = edge / max(width, height)
        w, h = (math.ceil(side * scale / tile - 1e-9) * tile for side in (width, height))
        return w, h

    return rule


def phi(tile: int, most: int) -> Rule:
    """Phi-3.5-vision: the long side as many tiles long as fit, the short one in proportion; then
    padded.
    """

    def rule(width: int, height: int) -> tuple[float, float]:
        ratio = max(width, height) / min(width, height)
        tiles = 1
        while (tiles + 1) * math.ceil((tiles + 1) / ratio) <= most:
            tiles += 1
        scale = tiles * tile / max(width, height)
        return width * scale, height * scale

    return rule


def short_long(short: int, long: int, *, enlarged: bool = True) -> Rule:
    """DETR's: the shorter side brought to `short`, unless the longer one would be over `long`."""

    def rule(width: int, height: int) -> tuple[float, float]:
        scale = min(short / min(width, height), long / max(width, height))
        scale = scale if enlarged else min(1.0, scale)
        return width * scale, height * scale

    return rule


def area_always(area: int, factor: int) -> Rule:
    """MiniCPM-V's slices: always about this area, sides to the nearest multiple."""

    def rule(width: int, height: int) -> tuple[float, float]:
        scale = math.sqrt(area / (width * height))
        w, h = (max(factor, round(side * scale / factor) * factor) for side in (width, height))
        return w, h

    return rule


def in_a_square(side: int) -> Placing:
    """Padded to a square with the picture in its middle, then scaled to this side; numbers are the
    square's pixels.
    """

    def rule(width: int, height: int) -> View:
        scale = side / max(width, height)
        w, h = width * scale, height * scale
        return w, h, (side - w) / 2, (side - h) / 2

    return rule


def _as_sent(width: int, height: int) -> tuple[float, float]:
    return width, height


PROCESSORS: dict[str, Placing] = {
    "OpenAI's wording, enlarging": openai_enlarging,
    "short 768, edge 2048, enlarging": short_long(768, 2048),
    "1,536 patches of 32": patches(1536),
    "2,500 patches of 32, long edge 2048": patches(2500, 2048),
    "10,000 patches of 32": patches(10_000),
    "Claude's 1568 and 1.15 megapixels": reduced(edge=1568, area=1.15e6),
    "Gemma 3, 896 x 896": lambda width, height: (896, 896),
    **{f"Gemma 4, {tokens} tokens": gemma4(tokens) for tokens in (70, 140, 280, 560, 1120)},
    "LFM2-VL, large ones as sent": lfm2(_as_sent),
    "LFM2-VL, large ones at most 1920": lfm2(reduced(edge=1920)),
    "Llama 4, 16 tiles of 336": canvas(336, 16),
    "Llama 4, enlarged to the canvas": canvas(336, 16, enlarged=True),
    "Llama 4, parts of the canvas": canvas(336, 16, parts=1000),
    "Llama 3.2, 4 tiles of 560": canvas(560, 4),
    "Llama 3.2, parts of the canvas": canvas(560, 4, parts=1000),
    "llama.cpp, 1,024 to 4,096 tokens of 28": smart(28, 1024 * 28**2, 4096 * 28**2),
    "llama.cpp, 1,024 to 4,096 tokens of 32": smart(32, 1024 * 32**2, 4096 * 32**2),
    "llama.cpp's canvas, 8 to 4,096 tokens of 32": padded_up(32, 8 * 1024, 4096 * 1024),
    "llama.cpp's canvas, 252 to 280 tokens of 48": padded_up(48, 252 * 2304, 280 * 2304),
    "SmolVLM, long edge always 2048, tiles of 512": idefics(2048, 512),
    "SmolVLM, long edge always 1536, tiles of 364": idefics(1536, 364),
    "Pixtral, long edge 1024, 16 upwards": reduced(edge=1024, factor=16, way=math.ceil),
    "Mistral 3, long edge 1540, 28 upwards": reduced(edge=1540, factor=28, way=math.ceil),
    "Phi-3.5, 16 tiles of 336": phi(336, 16),
    "Phi-4, 36 tiles of 448": phi(448, 36),
    "MiniCPM-V, always 448 x 448 in area": area_always(448**2, 14),
    "edge 1333, short 800": short_long(800, 1333),
    "edge 1333, short 800, only reduced": short_long(800, 1333, enlarged=False),
    "edge 1024, short 768": short_long(768, 1024),
    "Kimi-VL, 4,096 patches of 14": reduced(area=4096 * 14**2, factor=28, way=math.ceil),
    "DeepSeek-VL2, px of 9 tiles of 384": letterboxed(grids_of(384, 9)),
    "DeepSeek-VL2, parts of 9 tiles of 384": letterboxed(grids_of(384, 9), 1000),
    "LLaVA-NeXT, px of 4 tiles of 336": letterboxed(grids_of(336, 4)),
    "Ovis 2.5, 448 x 448 to 1792 x 1792": smart(32, 448**2, 1792**2),
    "GLM-4.1V": smart(28, 112**2, 9633792),
    "Qwen3-VL, at least 256 tokens of 32": smart(32, 256 * 1024, 16384 * 1024),
    "Step3, 728 x 728": lambda width, height: (728, 728),
    "padded in the middle, 768 x 768": in_a_square(768),
    **{f"shorter side at least {side}": at_least(side) for side in (224, 336, 448, 512)},
    "shorter side at least 800, long edge 2048": at_least(800, 2048),
    "multiples of 16 downwards": reduced(factor=16, way=math.floor),
    "halved from 300,000 to 700,000 px": halved(3e5, 7e5),
    "halved from 900,000 to 1,400,000 px": halved(9e5, 1.4e6),
}


def made_up(count: int, seed: int = 0) -> dict[str, Placing]:
    """Rules of one to three random steps each: enlarge, reduce by side, short side or area, round,
    pad.
    """
    return {
        f"made up {seed}/{number}": _made_up(random.Random(f"{seed}/{number}"))
        for number in range(count)
    }


def _made_up(chance: random.Random) -> Placing:
    steps = chance.sample(
        ["least", "edge", "short", "area", "between"], chance.choice([1, 1, 2, 3])
    )
    least = chance.choice([200, 320, 420, 600, 700]) if "least" in steps else 0
    edge = chance.choice([600, 1000, 1080, 1200, 1500, 1800]) if "edge" in steps else math.inf
    short = chance.choice([480, 640, 900, 1000]) if "short" in steps else math.inf
    area = chance.choice([0.3, 0.5, 0.9, 1.3, 1.8, 2.5]) * 1e6 if "area" in steps else math.inf
    band = chance.choice([2e5, 5e5, 1e6]) if "between" in steps else math.inf
    factor = chance.choice([1, 1, 8, 14, 16, 20, 28, 32, 48, 64])
    way = chance.choice([round, math.floor, math.ceil])
    middle = chance.random() < 0.2

    def rule(width: int, height: int) -> View:
        scale = max(1.0, least / min(width, height))
        scale = min(
            scale,
            edge / max(width, height),
            short / min(width, height),
            math.sqrt(area / (width * height)),
        )
        if band <= width * height < 2.5 * band:
            scale *= 0.75
        across, down = (
            max(factor, way(side * scale / factor) * factor) for side in (width, height)
        )
        if not middle:
            return across, down
        scale = min(across / width, down / height)
        w, h = width * scale, height * scale
        return w, h, (across - w) / 2, (down - h) / 2

    return rule
