"""How fast a review goes: a scripted reviewer in a browser, and the server's answers with 20,000
records.

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
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from PIL import Image

KEY, MENTAL, WRONG = 0.28, 1.35, 0.1  # seconds, seconds, the share of wrong boxes
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


def review_grid(server: Server, boxes: int, real: bool) -> None:
    """Judge so many boxes in a browser."""
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
            page.keyboard.press("Enter")
            page.locator(".cells:not([data-old]) .cell").first.wait_for()
            waited += time.perf_counter() - started
            done += cells
    print(
        f"grid: {done} boxes, {60 * done / (human + waited):.1f} a minute; of {waited / done:.3f} s"
        " a box waiting"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--boxes", type=int, default=300)
    parser.add_argument("--real", action="store_true")
    given = parser.parse_args()
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
