"""Images: milliseconds to get one ready to send, from the file to the `data:` URL.

    python -m benchmarks.image_cost

As it is: read, its header looked at, digest, base64. Larger than 2,048 pixels: decoded, reduced and
encoded once, then kept for the record's other steps. Each is measured against what Pillow takes to
decode the same picture and encode it again at full size.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import inputs
from dataflow_grounding.images.image import Image, ImageLimits, Kept, file_at, read_facts
from tests.support.measuring import Row, median, show, workplace

SIZES = ((640, 480, 60), (1920, 1080, 400), (4000, 3000, 2500), (4001, 3001, 2500))
COUNT = 12
AS_IT_IS, REDUCED = 0.10, 0.41
"""Of the time that decoding and encoding the picture again at full size takes, the most that it may
take: the machine's speed is in both.
"""


def first_time(path: Path) -> None:
    """What the first request with an image costs."""
    limits = ImageLimits()
    kept: Kept = {}
    file = file_at(str(path))
    facts = read_facts(file, limits, kept)
    Image(file, facts, limits, kept=kept).data_url()


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
            is_reduced = max(width, height) > 2048
            goal = REDUCED if is_reduced else AS_IT_IS
            what = "reduced to 2048" if is_reduced else "as it is"
            figure = f"{ours:.2f} ms; at full size: {again:.0f} ms; {ours / again:.2f} of that"
            rows.append(
                Row(
                    f"{width} × {height}, {size} KB, {what}",
                    figure,
                    f"≤ {goal:.2f}",
                    ours / again <= goal,
                )
            )
    return rows


if __name__ == "__main__":
    show(measure)
