"""Images: milliseconds to get one ready to send, from the file to the `data:` URL.

    python -m benchmarks.image_cost

As it is: read, its header looked at, digest, base64. Larger than 2,048 pixels: decoded, reduced and
encoded once, then kept for the record's other steps. For scale: decoding and encoding again with
Pillow at full size.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import inputs
from benchmarks.places.measuring import Row, median, show, workplace
from dataflow_grounding.images.image import Image, ImageLimits, read_facts

SIZES = ((640, 480, 60), (1920, 1080, 400), (4000, 3000, 2500), (4001, 3001, 2500))
COUNT = 12


def first_time(path: Path) -> None:
    """What the first request with an image costs."""
    limits = ImageLimits()
    Image(str(path), read_facts(str(path), limits), limits).data_url()


def full_size(path: Path) -> None:
    """Decode and encode again."""
    import PIL.Image

    with PIL.Image.open(path) as picture:
        picture.convert("RGB").save(io.BytesIO(), "JPEG", quality=92)


def milliseconds(work: Callable[[Path], object], paths: list[Path]) -> float:
    """The median over the files, each taken once."""
    times = []
    for path in paths:
        began = time.perf_counter()
        work(path)
        times.append((time.perf_counter() - began) * 1000)
    return median(times)


def measure() -> list[Row]:
    """Images: milliseconds to get one ready to send, from the file to the `data:` URL."""
    rows = []
    with workplace() as folder:
        for width, height, kilobytes in SIZES:
            first, *paths = inputs.pictures(
                folder / f"{width}", COUNT + 1, width, height, kilobytes
            )
            first_time(first)  # Pillow is imported on first use
            size = paths[0].stat().st_size // 1000
            ours, again = milliseconds(first_time, paths), milliseconds(full_size, paths[:4])
            goal = 46.0 if max(width, height) > 2048 else 0.8 if kilobytes <= 150 else 2.0
            what = "reduced to 2048" if max(width, height) > 2048 else "as it is"
            figure = f"{ours:.2f} ms (decoded and encoded at full size: {again:.0f} ms)"
            rows.append(
                Row(
                    f"{width} × {height}, {size} KB, {what}", figure, f"≤ {goal:g} ms", ours <= goal
                )
            )
    return rows


if __name__ == "__main__":
    show(measure)
