"""What a run's requests cost, as a share of two plain requests for each picture.

    python -m benchmarks.bill [--json]

Step 0 finds the phrases of a caption, step 1 their boxes. The endpoint plays how OpenAI and Gemini
bill: 1,400 tokens for a picture and one for every four characters, a beginning that it has seen
before at a tenth of the price, output at five times the price, flex at half of all these. Figures
are those of `cost` for whole runs of `generate`. In the last row one run is killed 20 times.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import inputs
from dataflow_grounding.testing import (
    Answer,
    EchoAnswers,
    LoopbackServer,
    ReceivedRequest,
    Usage,
    faults,
    on,
)
from tests.support.fault_cases.fault_case import IN_FLIGHT
from tests.support.measuring import Row, show, workplace
from tests.support.waiting import wait_until
from tests.support.workplace import Workplace, command

PICTURES = 60
KILLS, KILLED_PICTURES = 20, 150
IMAGE_TOKENS, CHARACTERS_PER_TOKEN = 1400, 4
PRICES = {"input": 1.0, "cached_input": 0.1, "output": 5.0, "flex": 0.5}
SCENES = (
    "A red mug stands on a wooden table near an open window, beside two green books.",
    "Two brown dogs run across the lawn behind a white house with a blue door.",
    "A man in a blue jacket holds a yellow umbrella while a cyclist waits at the crossing.",
    "The bus on the left passes a parked bicycle, three people and a small kiosk.",
)


class Meter:
    """Answers that count their tokens as a provider does.

    With `caches`, the beginning of a request that came before, its instructions and pictures, is
    cached.
    """

    def __init__(self, caches: bool) -> None:
        self.answers = EchoAnswers("qwen3-vl")
        self.caches = caches
        self._seen: set[tuple[str, ...]] = set()

    def __call__(self, request: ReceivedRequest) -> Answer:
        text = json.dumps(self.answers(request))
        beginning = len(request.system) // CHARACTERS_PER_TOKEN
        beginning += IMAGE_TOKENS * len(request.images)
        key = (request.system, *request.image_digests)
        cached = beginning if self.caches and key in self._seen else 0
        self._seen.add(key)
        whole = beginning + len(request.text) // CHARACTERS_PER_TOKEN
        return Answer(text, usage=Usage(whole, cached, len(text) // CHARACTERS_PER_TOKEN))


@dataclass(frozen=True)
class Bill:
    """What `cost` says of a folder."""

    requests: int
    tokens: dict[str, int]
    usd: float


def settings(server: LoopbackServer, flex: bool, fuse: bool = False) -> dict[str, Any]:
    """The spec of a run at an endpoint."""
    return {
        "vlm.openai.base_url": server.base_url,
        "vlm.box_format": "qwen3-vl",
        "vlm.on_suspect_boxes": "warn",  # made-up boxes are much alike
        "vlm.prices": PRICES,
        "vlm.service_tier": "flex" if flex else None,
        "workflow.max_workers": IN_FLIGHT,
        "workflow.fuse": fuse,
    }


def place_of(folder: Path, pictures: int) -> Workplace:
    """An input of this many pictures, each with a caption."""
    place = Workplace(folder)
    paths = inputs.pictures(folder / "pictures", pictures)
    place.rows(
        {
            "image_path": str(path),
            "image_id": f"r{number}",
            "caption": f"{SCENES[number % len(SCENES)]} Number {number}.",
        }
        for number, path in enumerate(paths)
    )
    return place


def bill_of(folder: Path, caches: bool, flex: bool, fuse: bool = False) -> Bill:
    """The bill of a whole run. Raises RuntimeError where the run fails."""
    place = place_of(folder, PICTURES)
    with LoopbackServer(Meter(caches)) as server:
        done = place.run(**settings(server, flex, fuse))
    if done.code:
        raise RuntimeError(str(done))
    figures = command(["cost", str(place.results), "--json"]).summary
    return Bill(figures["requests"], figures["tokens"], figures["cost_usd"])


@dataclass(frozen=True)
class Killed:
    """What a run paid that was killed again and again: answers of the endpoint, replies in the
    store, and those of them that had been stored before.
    """

    kills: int
    answered: int
    stored: int
    twice: int


def killed(folder: Path) -> Killed:
    """Kill one run 20 times, at a moment drawn by lot, and let it end. Raises RuntimeError where it
    doesn't.
    """
    place = place_of(folder, KILLED_PICTURES)
    draw = random.Random(37)
    kills = 0
    no_room = on(faults.no_room_at_tier(), share=0.05)
    with LoopbackServer(Meter(caches=True), faults=no_room, latency=0.03) as server:
        place.settings |= settings(server, flex=True)
        while kills < KILLS:
            running = place.start()
            kill_after(running, server, server.count() + draw.randint(1, 22))
            kills += 1
        server.latency = 0.0
        done = place.run()
        if done.code:
            raise RuntimeError(str(done))
        answered = server.paid
    lines = [json.loads(line) for line in place.replies.read_text().splitlines()]
    keys = Counter(line["key"] for line in lines)
    return Killed(kills, answered, len(lines), len(lines) - len(keys))


def kill_after(running: subprocess.Popen[str], server: LoopbackServer, received: int) -> None:
    """Kill a process once the server has received this many requests.

    Raises RuntimeError if it has ended before.
    """
    wait_until(lambda: server.count() >= received or running.poll() is not None)
    if running.poll() is not None:
        raise RuntimeError(f"it ended before it was killed: {running.communicate()}")
    running.kill()
    running.communicate()


def measure() -> list[Row]:
    """What a run's requests cost, as a share of two plain requests for each picture."""
    with workplace() as folder:
        plain = bill_of(folder / "plain", caches=False, flex=False)
        cached = bill_of(folder / "cached", caches=True, flex=False)
        flex = bill_of(folder / "flex", caches=False, flex=True)
        both = bill_of(folder / "both", caches=True, flex=True)
        fused = bill_of(folder / "fused", caches=False, flex=False, fuse=True)
        cheapest = bill_of(folder / "cheapest", caches=False, flex=True, fuse=True)
        ended = killed(folder / "killed")
    each = {name: count / plain.requests for name, count in plain.tokens.items()}
    return [
        Row(
            f"two plain requests for each of {PICTURES} pictures: tokens in and out of a request",
            f"100%; {each['input']:.0f}, {each['output']:.0f}",
        ),
        share_row("prompt cache", cached, plain, 0.75),
        share_row("flex", flex, plain, 0.50),
        share_row("flex and prompt cache", both, plain, 0.37),
        share_row("fused", fused, plain, 0.67),
        share_row("fused, flex", cheapest, plain, 0.33),
        Row(
            f"replies paid for again that were stored, {ended.kills} kills",
            str(ended.twice),
            "0",
            ended.twice == 0,
        ),
        Row(
            "answers that a kill kept from the store, of all",
            f"{ended.answered - ended.stored} of {ended.answered}",
            f"≤ {ended.kills * IN_FLIGHT}",
            ended.answered - ended.stored <= ended.kills * IN_FLIGHT,
        ),
    ]


def share_row(what: str, bill: Bill, plain: Bill, goal: float) -> Row:
    """A bill as a share of the plain one, and its goal."""
    share = bill.usd / plain.usd
    return Row(what, f"{share:.1%}", f"≤ {goal:.0%}", round(share, 4) <= goal)


if __name__ == "__main__":
    show(measure)
