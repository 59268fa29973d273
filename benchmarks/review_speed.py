"""How fast a review goes: a scripted reviewer in a browser, and the server's answers with 20,000
records.

Mending: of 160 boxes in 32 pictures, 30 are wrong in place and size. The reviewer marks them in the
grid, accepts the rest, and draws each again where the page offers to. A key, a click and a drag are
an action each. On the page of commit 95558e87, which could not find rejected boxes again, the same
reviewer took 180 actions by the shortest way, one record after the other: pick, delete and draw
each wrong box, then accept the rest of the record (`mend_by_record`, which still works). Mending
may take 60% of that. `acc_0.5` is what `eval` says of the records before and after.

The reviewer's times are those of the keystroke-level model (Card, Moran and Newell, CACM 23(7),
1980): a key of an average typist 0.28 s, a mental act 1.35 s. Each box takes a mental act (is it
right for its phrase?), each wrong one its number's two digits, each page Enter; waiting for the
page is measured and added. `--real` waits all of it out.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from PIL import Image

KEY, MENTAL, WRONG = 0.28, 1.35, 0.1  # seconds, seconds, the share of wrong boxes
BEFORE = 180  # actions of the page before, as told above
MOST_OF_BEFORE = 0.6
SEEN_AFTER = 250  # milliseconds in which a person sees what a key has done, before the next one
PICTURES, BOXES_EACH, WRONG_BOXES = 32, 5, 30
CHROMIUM = "/usr/bin/chromium"


def write_records(folder: Path, count: int) -> None:
    """Records of a thing or two in pictures of 12 megapixels, of which there are sixty."""
    chance = random.Random(7)
    things = ["dog", "cat", "red car", "bicycle", "wooden chair", "window", "traffic light", "tree"]
    for n in range(60):
        Image.effect_noise((400, 300), 60).resize((4000, 3000)).convert("RGB").save(
            folder / f"{n}.jpg", quality=80
        )
    with open(folder / "annotations.jsonl", "w") as file:
        for n in range(count):
            rows = []
            for number in range(5):
                x, y = chance.randrange(3000), chance.randrange(2200)
                box = {
                    "bbox_id": f"{n}#{number}.0",
                    "bbox": [x, y, x + 700, y + 500],
                    "score": chance.random(),
                }
                thing = {
                    "expression_id": f"{n}#{number}",
                    "text": f"a {chance.choice(things)}",
                    "status": "grounded",
                }
                rows.append({**thing, "char_span": None, "instances": [box]})
            size = {"width": 4000, "height": 3000, "caption": ""}
            file.write(
                json.dumps(
                    {"image_id": str(n), "image_path": f"{n % 60}.jpg", **size, "expressions": rows}
                )
                + "\n"
            )


class Server:
    """`review` in a process of its own; `began`: seconds until it said its address."""

    def __init__(self, folder: Path) -> None:
        started = time.perf_counter()
        command = [sys.executable, "-m", "dataflow_grounding", "review", str(folder), "--no-open"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.address = self.process.stdout.readline().strip()
        self.began = time.perf_counter() - started

    def ask(self, path: str, body: Any = None) -> tuple[Any, float]:
        """The answer, and the milliseconds that it took."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Origin": self.address.rsplit("/", 2)[0]}
        started = time.perf_counter()
        with urlopen(Request(self.address + path, data, headers if data else {})) as response:
            said = json.load(response)
        return said, 1000 * (time.perf_counter() - started)


def answer_times(server: Server) -> None:
    """Moves of a box, and the next things to review."""
    times: dict[str, list[float]] = {"decide": [], "next": [], "grid": []}
    for n in range(300):
        e = server.ask(f"record/{n}")[0]["expressions"][0]
        bbox = [edge + 1 for edge in e["instances"][0]["bbox"]]
        after = {"status": "grounded", "instances": [{"from": 0, "bbox": bbox, "verified": True}]}
        change = {"id": e["id"], "version": e["version"], "after": after}
        decision = {
            "uid": os.urandom(8).hex(),
            "record": str(n),
            "action": "move",
            "changes": [change],
        }
        times["decide"].append(server.ask("decide", {"decisions": [decision]})[1])
        for way, query in (
            (("next", "next?mode=single&most=20"), ("grid", "next?mode=grid")) if n < 30 else ()
        ):
            times[way].append(server.ask(query)[1])
    for way, taken in times.items():
        print(
            f"{way}: median {statistics.median(taken):.0f} ms, slowest {max(taken):.0f} ms, first"
            f" {taken[0]:.0f} ms"
        )


def accept_page(page: Any, press: Callable[[str], Any]) -> int:
    """Press Enter until the page marked as old is gone, and return how often.

    It goes first to what hasn't been on the screen.
    """
    presses = 0
    while True:
        # After the last page comes a sentence. A busy page may still become that sentence.
        page.locator(".cells:not([aria-busy]), #main p").first.wait_for()
        if not page.locator("[data-old]").count():
            break
        press("Enter")
        presses += 1
        page.wait_for_timeout(SEEN_AFTER)
    page.locator(".cell, .stage, #main p").first.wait_for()
    return presses


def review_grid(server: Server, boxes: int, real: bool) -> None:
    """Judge this many boxes in a browser."""
    from playwright.sync_api import sync_playwright

    chance, human, waited, done = random.Random(1), 0.0, 0.0, 0
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        ).new_page()
        page.goto(server.address)
        page.locator(".cell").first.wait_for()
        while done < boxes:
            page.locator(".cells:not([aria-busy])").wait_for()  # a person is still looking by then
            cells = page.locator(".cell").count()
            wrong = [n for n in range(cells) if chance.random() < WRONG]
            human += (spent := cells * MENTAL + (2 * len(wrong) + 1) * KEY)
            time.sleep(spent if real else 0)
            page.keyboard.type("".join(str(n + 11) for n in wrong))
            page.evaluate("document.querySelector('.cells').dataset.old = 1")
            started = time.perf_counter()
            presses = accept_page(page, page.keyboard.press)
            waited += time.perf_counter() - started
            human += (presses - 1) * KEY
            done += cells
    print(
        f"grid: {done} boxes, {60 * done / (human + waited):.1f} a minute; of {waited / done:.3f} s"
        " a box waiting"
    )


class Mending:
    """Records of which some boxes are wrong, in a folder of their own; `gold` are the right ones.

    `right` and `wrong` are boxes by phrase, all right ones and those in the records
    instead; `phrases` those of each record.
    """

    def __init__(self, folder: Path) -> None:
        chance = random.Random(3)
        self.folder = folder
        self.results = folder / "annotations.jsonl"
        self.gold = folder / "gold.jsonl"
        self.right: dict[str, list[int]] = {}
        self.phrases: list[list[str]] = []
        for n in range(PICTURES):
            Image.effect_noise((640, 480), 60).convert("RGB").save(folder / f"{n}.jpg")
            self.phrases.append([f"dog {n} {number}" for number in range(BOXES_EACH)])
            for number, phrase in enumerate(self.phrases[-1]):
                x, y = 20 + 120 * number, chance.randrange(20, 200)
                self.right[phrase] = [x, y, x + 90, y + 70]
        self.wrong = {}
        for phrase in chance.sample(list(self.right), WRONG_BOXES):
            x, y, *_ = self.right[phrase]
            self.wrong[phrase] = [x + 20, y + 190, x + 60, y + 260]
        self._write(self.results, {**self.right, **self.wrong})
        self._write(self.gold, self.right)

    def _write(self, path: Path, boxes: dict[str, list[int]]) -> None:
        lines = []
        for n, phrases in enumerate(self.phrases):
            rows = []
            for number, phrase in enumerate(phrases):
                box = {"bbox_id": f"{n}#{number}.0", "bbox": boxes[phrase], "score": 0.5}
                rows.append(
                    {
                        "expression_id": f"{n}#{number}",
                        "text": phrase,
                        "status": "grounded",
                        "instances": [box],
                    }
                )
            record = {"image_id": str(n), "image_path": f"{n}.jpg", "width": 640, "height": 480}
            lines.append(json.dumps({**record, "caption": "", "expressions": rows}) + "\n")
        path.write_text("".join(lines))

    def acc(self, records: Path) -> float:
        """What `eval` says of some records."""
        command = [sys.executable, "-m", "dataflow_grounding", "eval", str(records)]
        done = subprocess.run(
            [*command, "--gold", str(self.gold), "--json"], capture_output=True, check=True
        )
        return float(json.loads(done.stdout)["acc_0.5"])

    def apply(self) -> Path:
        """The records as reviewed."""
        command = [sys.executable, "-m", "dataflow_grounding", "apply", str(self.folder)]
        subprocess.run(command, capture_output=True, check=True)
        return self.folder / "annotations.reviewed.jsonl"


class Hands:
    """A reviewer's hands on a page; `actions` counts keys, clicks and drags."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.actions = 0

    def press(self, key: str) -> None:
        """A key."""
        self.actions += 1
        self.page.keyboard.press(key)

    def click(self, thing: Any) -> None:
        """A click."""
        self.actions += 1
        thing.click()

    def draw(self, box: list[int]) -> None:
        """A drag over a box of the picture."""
        self.actions += 1
        place = (
            "([x, y]) => { const spot = new DOMPoint(x, y)"
            ".matrixTransform(document.querySelector('.stage').getScreenCTM());"
            " return [spot.x, spot.y]; }"
        )
        self.page.mouse.move(*self.page.evaluate(place, box[:2]))
        self.page.mouse.down()
        self.page.mouse.move(*self.page.evaluate(place, box[2:]), steps=2)
        self.page.mouse.up()

    def picked(self) -> str:
        """The phrase that is picked, one by one."""
        return str(self.page.locator("li.picked .phrase").text_content())


def mend_by_grid(hands: Hands, mending: Mending, address: str) -> None:
    """Mark the wrong boxes in the grid, accept the rest, then draw each wrong one again."""
    page = hands.page
    page.goto(address)
    left = PICTURES * BOXES_EACH
    while left:
        page.locator(".cells:not([aria-busy])").wait_for()
        phrases = [text.split(" ", 1)[1] for text in page.locator(".phrase").all_inner_texts()]
        for number, phrase in enumerate(phrases):
            if phrase in mending.wrong:
                hands.click(page.locator(".cell").nth(number))
        page.evaluate("document.querySelector('.cells').dataset.old = 1")
        accept_page(page, hands.press)
        left -= len(phrases)
    hands.click(page.get_by_role("button", name=f"Mend {WRONG_BOXES} rejected"))
    page.locator(".stage").wait_for()
    for _ in range(WRONG_BOXES):
        hands.draw(mending.right[hands.picked()])
        page.locator("#saved", has_text="all saved").wait_for()
        hands.press("]")
        page.locator("#main:not([inert])").wait_for()


def mend_by_record(hands: Hands, mending: Mending, address: str) -> None:
    """Record by record: delete and draw what is wrong, then accept the rest, as it was done."""
    page = hands.page
    page.goto(f"{address}#mode=single&order=file")
    shown = ""
    for _ in range(PICTURES):
        page.wait_for_function(
            "shown => { const name = document.querySelector('article h2');"
            " return name && name.textContent !== shown; }",
            arg=shown,
        )
        shown = str(page.locator("article h2").text_content())
        for number, phrase in enumerate(mending.phrases[int(shown)], 1):
            if phrase not in mending.wrong:
                continue
            if hands.picked() != phrase:
                hands.press(str(number))
            hands.press("Delete")
            hands.draw(mending.right[phrase])
            page.locator("#saved", has_text="all saved").wait_for()
            time.sleep(1)  # or a second digit makes a number of two
        for key in ("Escape", "Escape", "a"):
            hands.press(key)
    page.locator("#saved", has_text="all saved").wait_for()


def review_wrong_boxes(mend: Any = mend_by_grid) -> bool:
    """Mend them in a browser; whether the actions and the figures are as they should be."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        mending = Mending(Path(folder))
        before = mending.acc(mending.results)
        server = Server(Path(folder))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            hands = Hands(browser.new_page(viewport={"width": 1400, "height": 900}))
            mend(hands, mending, server.address)
            hands.page.locator("#saved", has_text="all saved").wait_for()
        finally:
            browser.close()
            server.process.terminate()
            server.process.wait()
        after = mending.acc(mending.apply())
    share = hands.actions / BEFORE
    mended = WRONG_BOXES / (PICTURES * BOXES_EACH)
    print(
        f"mending {WRONG_BOXES} wrong boxes of {PICTURES * BOXES_EACH}: {hands.actions} pointer and"
        f" key actions, {share:.0%} of the {BEFORE} of before; acc_0.5 {before:.4f} -> {after:.4f},"
        f" of which {mended:.4f} were to mend"
    )
    return share <= MOST_OF_BEFORE and abs(after - before - mended) < 1e-6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--boxes", type=int, default=300)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--mending", action="store_true", help="Nothing else.")
    parser.add_argument("--by-record", action="store_true", help="Mend as the page before allowed.")
    given = parser.parse_args()
    is_mended = review_wrong_boxes(mend_by_record if given.by_record else mend_by_grid)
    if given.mending:
        sys.exit(not is_mended)
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder), given.records)
        server = Server(Path(folder))
        print(f"{given.records:,} records: the page's address after {server.began:.1f} s")
        try:
            answer_times(server)
            review_grid(server, given.boxes, given.real)
        finally:
            server.process.terminate()
            server.process.wait()
    sys.exit(not is_mended)
