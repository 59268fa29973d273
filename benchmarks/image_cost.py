"""Images: milliseconds to get one ready to send, from the file to the `data:` URL, and what a probe
picture takes besides its request.

    python -m benchmarks.image_cost

As it is: read, its header looked at, digest, base64. Larger than 2,048 pixels: decoded, reduced and
encoded once, then kept for the record's other steps. Each is measured against what Pillow takes to
decode the same picture and encode it again at full size.

A probe picture is decoded, drawn into and encoded; its answer is read and judged.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import inputs
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.data.records import Record
from dataflow_grounding.images.image import (
    Image,
    ImageLimits,
    Kept,
    file_at,
    open_image,
    read_facts,
)
from dataflow_grounding.trust.own_probes import STANDING_OUT, copy_question
from dataflow_grounding.trust.probes import INNER, phrase_of, probe_of
from dataflow_grounding.trust.showing import showing_of
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


def probe(path: Path) -> None:
    """What a probe picture of this picture takes besides its request."""
    asked = find_box_format("xyxy_px", model="")
    image = open_image(Record({"image_path": str(path)}), "image_path")
    with tempfile.TemporaryDirectory() as folder:
        question = copy_question(image, asked, folder, layout=1)
        question.images[0].data_url()
    boxes = probe_of(image.size, INNER + 1).boxes
    drawn = map(phrase_of, STANDING_OUT)
    found = [{"label": phrase, "bbox_2d": boxes[phrase]} for phrase in drawn]
    probed, _ = question.read(json.dumps({"objects": found}))
    assert showing_of([probed], asked).kind == "fits"


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
            again = milliseconds(full_size, paths[:4])
            ours = milliseconds(first_time, paths)
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
            if not is_reduced:
                probe(first)  # what it needs is imported
                of_probe = milliseconds(probe, paths)
                figure = f"{of_probe:.1f} ms; {of_probe / again:.2f} of that"
                rows.append(Row(f"{width} × {height}, a probe picture", figure))
    return rows


if __name__ == "__main__":
    show(measure)
