"""A review of a small folder of results: its server on a thread or as a process, its page in a
browser, and what became of decisions.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import pytest
from aiohttp import web
from PIL import Image

from dataflow_grounding.review.reviewable import Reviewable
from dataflow_grounding.review.server import ReviewServer
from dataflow_grounding.review.session import Session
from tests.support.forking import Forked
from tests.support.reviewing import asked_for
from tests.support.workplace import HANGING, command, rows_of, write_rows

CAPTION = "\U0001f600 A red mug and a \u202edog\u202c and two dogs on grass."


def phrase(
    text: str, number: int, *boxes: list[float], caption: str = CAPTION, **more: Any
) -> dict[str, Any]:
    start = caption.find(text)
    instances = [
        {"bbox_id": f"a#{number}.{n}", "bbox": b, "score": 0.9, "evidence": "seen"}
        for n, b in enumerate(boxes)
    ]
    span = [start, start + len(text)] if start >= 0 else None
    row = {"expression_id": f"a#{number}", "text": text, "char_span": span}
    return {**row, "status": "grounded" if boxes else "none", "instances": instances, **more}


RECORD = {
    "image_id": "a",
    "image_path": "a.png",
    "width": 400,
    "height": 300,
    "caption": CAPTION,
    "cleaned_caption": CAPTION,
    "expressions": [
        phrase("A red mug", 0, [40.0, 30.5, 200.0, 150.0]),
        phrase("two dogs", 1, [220, 60, 250, 200], [260, 60, 300, 210]),
        phrase("grass", 2),
    ],
}


OF_ANOTHER_PICTURE = {**RECORD, "image_id": "b", "image_path": "b.png"}


def write(folder: Path, *records: Any) -> Path:
    write_rows(folder / "annotations.jsonl", *records)
    for name, color in (("a.png", (90, 120, 60)), ("b.png", (60, 120, 90))):
        if not (folder / name).exists():
            Image.new("RGB", (400, 300), color).save(folder / name)
    return folder


def run(*arguments: Any, code: int = 0) -> str:
    done = command([*map(str, arguments)])
    assert done.code == code, done
    return done.out + done.err


def applied(results: Path, *more: Any, code: int = 0) -> list[dict[str, Any]]:
    run("apply", results, *more, code=code)
    return rows_of(results / "annotations.reviewed.jsonl")


def decisions(results: Path) -> list[dict[str, Any]]:
    return rows_of(results / "reviews.jsonl")


class Server:
    """A review on a thread, which `kill` ends in the middle."""

    def __init__(self, results: Path, who: str = "ann", **options: Any) -> None:
        self.session = Session(Reviewable(str(results)), who, **options)
        self._server = OfThread(self.session)
        self.address, self.origin = self._server.address, self._server.origin

    def ask(self, path: str, body: Any = None, **headers: str) -> Any:
        given, data = {}, None
        if body is not None:
            given = {"Content-Type": "application/json", "Origin": self.origin}
            data = json.dumps(body).encode()
        request = Request(self.address + path, data, {**given, **headers})
        with urlopen(request, timeout=30) as response:
            said = response.read()
        is_json = response.headers["Content-Type"].startswith("application/json")
        return json.loads(said) if is_json else said

    def decide(
        self, asked: dict[str, Any] | None = None, record: str = "a", **more: Any
    ) -> dict[str, Any]:
        decision = {"uid": os.urandom(6).hex(), "record": record, **(asked or {"acts": []}), **more}
        answer: dict[str, Any] = self.ask("decide", {"decisions": [decision]})["answers"][0]
        return answer

    def view(self, place: int = 0) -> dict[str, Any]:
        """A record as the page has it."""
        view: dict[str, Any] = self.ask(f"records?places={place}")["views"][str(place)]
        return view

    def decide_on(self, number: int, *boxes: Any, place: int = 0, **more: Any) -> None:
        """Decide that a phrase has these boxes: of each the corners, the box that it is made of, and
        whether it is right.
        """
        view = self.view(place)
        row = view["expressions"][number]
        instances = [{"bbox": box, "from": of, "verified": right} for box, of, right in boxes]
        asked = asked_for(view, row["id"], {"instances": instances, **more})
        assert not self.decide(asked, record=view["key"])["error"]

    def judge(self, number: int, *verdicts: bool, place: int = 0) -> None:
        """Say of each box of a phrase whether it is right."""
        row = self.view(place)["expressions"][number]
        boxes = [box["bbox"] for box in row["instances"]]
        judged = zip(boxes, range(len(boxes)), verdicts, strict=True)
        self.decide_on(number, *judged, place=place)

    def kill(self) -> None:
        self._server.end()


class OfThread(ReviewServer):
    """Answers at its address until its end."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._loop = asyncio.new_event_loop()
        self._runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0)
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._begin())

    async def _begin(self) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    def _run(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result()

    def end(self) -> None:
        if not self._loop.is_closed():
            self._run(self._runner.cleanup())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


class Process(Server):
    """The same by the command, as a process."""

    def __init__(self, results: Path, *options: str) -> None:
        self.process = Forked(["review", str(results), "--no-open", *options])
        self.address = self.process.stdout.readline().strip()
        self.origin = self.address.rsplit("/", 2)[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=HANGING)


SINGLE = "#view=single&order=file"

TALL = {"width": 1280, "height": 3200}
"""A window that shows a whole page of the grid at once."""


def saved(page: Any) -> None:
    page.locator("#saved", has_text="all saved").wait_for()


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def point(page: Any, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of the picture is on the page."""
    at = page.evaluate(
        "([x, y]) => { const p = new DOMPoint(x, y).matrixTransform(document.querySelector('.stage').getScreenCTM());"
        " return [p.x, p.y]; }",
        [x, y],
    )
    return at[0], at[1]


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*point(page, *start))
    page.mouse.down()
    page.mouse.move(*point(page, *[(a + b) / 2 for a, b in zip(start, end, strict=True)]))
    page.mouse.move(*point(page, *end))
    page.mouse.up()


def select(page: Any, text: str) -> None:
    """Select words of the caption as they are shown."""
    page.evaluate(
        """text => {
          const caption = document.querySelector(".caption"), at = caption.textContent.indexOf(text), ends = [];
          const walk = document.createTreeWalker(caption, NodeFilter.SHOW_TEXT);
          for (let seen = 0, node; (node = walk.nextNode()); seen += node.length) {
            for (const end of [at, at + text.length]) if (seen <= end && end <= seen + node.length) ends.push([node, end - seen]);
          }
          getSelection().setBaseAndExtent(...ends[0], ...ends[ends.length - 1]);
        }""",
        text,
    )


def boxes(record: dict[str, Any], number: int) -> list[list[float]]:
    return [instance["bbox"] for instance in record["expressions"][number]["instances"]]


def seen(page: Any, cells: int) -> None:
    """Wait for a page of the grid with that many cells, until it may be accepted."""
    from playwright.sync_api import expect

    shown = page.locator(".cells:not([aria-busy]) .cell")
    expect(shown).to_have_count(cells, timeout=20_000)


def near(expected: list[list[float]], got: list[list[float]]) -> bool:
    return got == [pytest.approx(box, abs=1) for box in expected]


def grid(results: Path, count: int) -> None:
    rows = [phrase(f"dog {n}", n, [n, n, 50 + n, 60 + n], caption="") for n in range(count)]
    write(results, {**RECORD, "expressions": rows})
