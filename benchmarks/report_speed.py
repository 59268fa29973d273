"""The report of 20,000 pictures: seconds and memory to make it; in a browser, from disk, to open,
turn and filter it.

    python -m benchmarks.report_speed [--records 20000]

Pictures are the example data's photos, 1280 by 960 pixels, JPEGs of some 140 KB each; each record
has four phrases with five boxes. Fewer are made with small copies, and of photos from a camera
(4032 by 3024 pixels). Needs chromium and playwright; without them only what it costs to make the
report is measured.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.inputs import links
from tests.support.measuring import COMMAND, Row, median, run, show, workplace

COUNT, SIZE = 20_000, (1280, 960)
# pixels of a camera's photos, and how many small copies are made
CAMERA, COPIED = (4032, 3024), 500
MOST_MS, MOST_COPY_MS, MOST_MB = 2.0, 6.0, 160
CHROMIUM = "/usr/bin/chromium"
PHOTOS = Path(__file__).parent.parent / "example_data" / "images"
COLORS = ("red", "blue", "green", "white", "small", "large", "old", "striped")
THINGS = (
    "car",
    "dog",
    "mug",
    "chair",
    "tree",
    "bird",
    "lamp",
    "book",
    "boat",
    "door",
    "shoe",
    "bottle",
)
PLACES = ("on the left", "in the middle", "under the table", "near the window")
HASHES = (
    "q=striped",
    "head=mug",
    "show=doubtful",
    "show=none",
    "size=small",
    "low=0.9",
    "q=blue+boat&low=0.5",
    "high=0.2",
)

# Ask for something by the address, and wait until it is there and a frame with it was drawn.
TURN = """async (hash) => {
  const began = performance.now();
  const main = document.querySelector(".records"), first = main.firstChild;
  const frame = () => new Promise(requestAnimationFrame);
  location.hash = hash;
  while (main.firstChild === first) await frame();
  await frame();
  return performance.now() - began;
}"""
# 120 moves of the pointer over a picture with 2,000 boxes: the longest time between two frames.
MOVES = """async () => {
  const canvas = document.querySelector("canvas.overlay"), place = canvas.getBoundingClientRect();
  let last = 0, longest = 0;
  for (let n = 0; n < 120; n++) {
    const there = { bubbles: true, clientX: place.x + 3 * n, clientY: place.y + n };
    canvas.dispatchEvent(new PointerEvent("pointermove", there));
    const now = await new Promise(requestAnimationFrame);
    if (last) longest = Math.max(longest, now - last);
    last = now;
  }
  return longest;
}"""


def photos(folder: Path, size: tuple[int, int], count: int) -> list[Path]:
    """Paths of the example data's photos, enlarged to this size: hard links, which take no disk."""
    from PIL import Image

    folder.mkdir()
    files = []
    for number, path in enumerate(sorted(PHOTOS.glob("*.jpg"))):
        files.append(folder / f"photo-{number}.jpg")
        Image.open(path).convert("RGB").resize(size, Image.Resampling.LANCZOS).save(
            files[-1], quality=88
        )
    return links(folder / "linked", files, count)


def expression(number: int, chance: random.Random) -> dict[str, Any]:
    """A phrase with no box, one or two."""
    text = f"a {chance.choice(COLORS)} {chance.choice(THINGS)} {chance.choice(PLACES)}"
    boxes = []
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2))):
        x, y = chance.uniform(0, SIZE[0] - 80), chance.uniform(0, SIZE[1] - 80)
        bbox = [x, y, x + chance.uniform(8, 80), y + chance.uniform(8, 80)]
        boxes.append({"bbox": [round(n, 1) for n in bbox], "score": round(chance.random(), 2)})
    return {
        "text": text,
        "status": "grounded" if boxes else "none",
        "instances": boxes,
        "number": number,
    }


def results(folder: Path, size: tuple[int, int] = SIZE, count: int = COUNT) -> None:
    """A results folder of `count` records, 200 failures, and one picture with 2,000 boxes."""
    folder.mkdir(exist_ok=True)
    chance = random.Random(7)
    with open(folder / "annotations.jsonl", "w") as file:
        for number, path in enumerate(photos(folder / "pictures", size, count)):
            expressions = [expression(n, chance) for n in range(4)]
            caption = ", ".join(e["text"] for e in expressions)
            for e in expressions:
                start = caption.find(e["text"])
                e["char_span"] = [start, start + len(e["text"])]
            row = {"image_id": f"pictures/{number:05}", "image_path": str(path.relative_to(folder))}
            row |= {
                "width": size[0],
                "height": size[1],
                "caption": caption,
                "expressions": expressions,
            }
            file.write(
                json.dumps({**row, "doubtful": chance.random() < 0.05, "model": "a-model"}) + "\n"
            )
        many = [expression(n, chance) for n in range(2500)]
        file.write(
            json.dumps(
                {**row, "image_id": "many", "expressions": [e for e in many if e["instances"]]}
            )
            + "\n"
        )
    with open(folder / "failures.jsonl", "w") as file:
        file.writelines(
            json.dumps({"id": str(n), "kind": "refused", "message": "no"}) + "\n"
            for n in range(200)
        )


def in_browser(page_path: Path) -> Iterator[Row]:
    """What a reader waits for."""
    from playwright.sync_api import Page, sync_playwright

    def opened(new: Callable[[], Page], more: str = "") -> tuple[Page, float]:
        page = new()
        page.goto(page_path.as_uri() + more)
        page.wait_for_selector("article")
        drawn = "new Promise(done => requestAnimationFrame(() => done(performance.now())))"
        return page, float(page.evaluate(drawn))

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        opens = [opened(browser.new_page)[1] for _ in range(5)]
        yield _row("open, from disk", opens, 1500)
        page, _ = opened(browser.new_page)
        yield _row(
            "turn a page", [float(page.evaluate(TURN, f"page={n}")) for n in range(2, 40, 3)], 100
        )
        yield _row(
            "turn a page of phrases",
            [float(page.evaluate(TURN, f"view=phrases&page={n}")) for n in range(9)],
            100,
        )
        times = [float(opened(browser.new_page)[0].evaluate(TURN, more)) for more in HASHES]
        yield _row("filter, the first time", times, 150)
        yield _row(
            "filter",
            [float(page.evaluate(TURN, more)) for _ in range(2) for more in HASHES][len(HASHES) :],
            150,
        )
        page, _ = opened(browser.new_page, "#record=many")
        longest = float(page.evaluate(MOVES))
        yield Row(
            "pointer over 2,000 boxes, longest time between frames",
            f"{longest:.0f} ms",
            "≤ 34 ms",
            longest <= 34,
        )


def _row(what: str, times: list[float], most: int) -> Row:
    figure = f"{median(times):.0f} ms (longest {max(times):.0f})"
    return Row(what, figure, f"≤ {most:,} ms", median(times) <= most)


def made(what: str, folder: Path, count: int, most_ms: float, *options: str) -> Iterator[Row]:
    """What making a report costs."""
    used = run([*COMMAND, "report", str(folder), *options])
    each = used.cpu_s * 1000 / count
    yield Row(
        f"{count:,} {what}: CPU ms each",
        f"{each:.1f} ({used.wall_s:.1f} s)",
        f"≤ {most_ms:g}",
        each <= most_ms,
    )
    yield Row(
        "the same, peak memory",
        f"{used.peak_mb:.0f} MB",
        f"≤ {MOST_MB} MB",
        used.peak_mb <= MOST_MB,
    )


def measure(records: int) -> list[Row]:
    """The report of this many pictures."""
    with workplace() as folder:
        many, few, camera = Path(folder, "many"), Path(folder, "few"), Path(folder, "camera")
        results(many, SIZE, records)
        rows = [*made("pictures, shown themselves", many, records, MOST_MS)]
        results(few, SIZE, COPIED)
        rows += made("pictures, with copies", few, COPIED, MOST_COPY_MS, "--copies")
        results(camera, CAMERA, COPIED)
        rows += made(f"photos of {CAMERA[0]} x {CAMERA[1]}", camera, COPIED, MOST_COPY_MS)
        index = next(many.glob("report_files/*/index.js")).stat().st_size / (records + 1)
        rows.append(Row("index, bytes a record", f"{index:.0f}", "≤ 200", index <= 200))
        return [*rows, *(in_browser(many / "report.html") if os.path.exists(CHROMIUM) else ())]


if __name__ == "__main__":
    show(measure, COUNT)
