"""Contradictions without a request: phrases of drawn scenes, true ones and ones that are not.

    python -m benchmarks.contradictions [--scenes 300] [--seed 0]

A scene has things of some kinds, each with a colour of its own, in a picture of any shape. Its
record names each thing, and all things of a kind together. Then true phrases of each kind of claim
are added, and the same with one word changed so that the boxes are no longer right: a side, a rank,
a number, a colour, "largest" for a thing that isn't. What contradicts follows from how a scene was
drawn; nothing of the package is used to tell. Wordings under `held out` weren't looked at while the
rules were written. The true phrases are what precision is of: each that is told counts against it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2
import numpy as np

from benchmarks.places.measuring import Row, show
from benchmarks.places.workplace import REPOSITORY
from dataflow_grounding.extras.embedded.contradictions import find_contradictions

SIZES = [(640, 480), (480, 640), (1280, 720), (500, 500), (360, 1080)]
# BGR, as a painter would mix them
COLORS = {
    "red": (40, 30, 200),
    "green": (60, 150, 40),
    "blue": (190, 80, 30),
    "yellow": (40, 210, 235),
    "orange": (30, 130, 240),
    "purple": (150, 50, 110),
    "white": (245, 245, 245),
    "black": (22, 20, 20),
}
CONFUSED = {("red", "orange"), ("orange", "yellow"), ("blue", "purple"), ("yellow", "white")}
KINDS = ["cup", "ball", "box", "chair", "umbrella", "dog", "person", "kite", "bicycle", "vase"]
PLURALS = {"box": "boxes", "person": "people", "bicycle": "bicycles"}
COUNTED = ["zero", "one", "two", "three", "four", "five", "six", "seven"]
RANKS = ["", "first", "second", "third", "fourth", "fifth"]
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


@dataclass
class Thing:
    """A thing of a scene: what it is, its colour, its box (x1, y1, x2, y2 in pixels)."""

    kind: str
    color: str
    box: tuple[int, int, int, int]

    @property
    def area(self) -> int:
        """In pixels."""
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)

    @property
    def x(self) -> float:
        """Twice the middle's."""
        return self.box[0] + self.box[2]

    @property
    def y(self) -> float:
        """Twice the middle's."""
        return self.box[1] + self.box[3]


@dataclass
class Scene:
    """A picture's size, its things, and its pixels."""

    size: tuple[int, int]
    things: list[Thing]
    pixels: Any = field(repr=False)


@dataclass(frozen=True)
class Claim:
    """A phrase, the things that it is boxed at, and whether it is right there."""

    kind: str
    text: str
    things: tuple[Thing, ...]
    is_true: bool
    is_held_out: bool = False


def draw(rng: random.Random) -> Scene:
    """A scene with three to nine things that don't touch."""
    width, height = rng.choice(SIZES)
    low, high = sorted(rng.sample(range(60, 200), 2))
    noise = np.random.default_rng(rng.randrange(2**32))
    pixels = noise.integers(low, high, (height, width, 3), dtype=np.uint8)
    pixels = cv2.GaussianBlur(pixels, (0, 0), 3)
    kinds = rng.sample(KINDS, rng.randint(1, 3))
    things: list[Thing] = []
    for _ in range(60):
        if len(things) == rng.randint(3, 9):
            break
        w = rng.randint(width // 14, width // 4)
        h = rng.randint(height // 14, height // 4)
        x = rng.choice([0, rng.randrange(width - w)])
        y = rng.choice([0, rng.randrange(height - h)])
        box = (x, y, x + w, y + h)
        if any(_touches(box, other.box) for other in things):
            continue
        thing = Thing(rng.choice(kinds), rng.choice(list(COLORS)), box)
        things.append(thing)
        color = COLORS[thing.color]
        if rng.random() < 0.5:
            middle = ((x + x + w) // 2, (y + y + h) // 2)
            cv2.ellipse(pixels, middle, (w // 2, h // 2), 0, 0, 360, color, -1)
        else:
            cv2.rectangle(pixels, (x, y), (x + w - 1, y + h - 1), color, -1)
    grain = noise.normal(0, 4, pixels.shape)
    pixels = np.clip(pixels + grain, 0, 255).astype(np.uint8)
    return Scene((width, height), things, pixels)


def _touches(box: tuple[int, ...], other: tuple[int, ...]) -> bool:
    apart = box[2] + 8 < other[0] or other[2] + 8 < box[0]
    return not (apart or box[3] + 8 < other[1] or other[3] + 8 < box[1])


def plural(kind: str) -> str:
    """More than one of a kind."""
    return PLURALS.get(kind, f"{kind}s")


def claims_of(scene: Scene, rng: random.Random) -> Iterator[Claim]:
    """True and false phrases of every kind of claim that a scene allows."""
    for kind in dict.fromkeys(thing.kind for thing in scene.things):
        same = [thing for thing in scene.things if thing.kind == kind]
        yield from counts(kind, same, rng)
        yield from sides(kind, same, scene, rng)
        if len(same) > 1:
            yield from ranks(kind, same, scene, rng)
            yield from extremes(kind, same, scene, rng)
    yield from relations(scene, rng)
    yield from colors(scene, rng)


def counts(kind: str, same: list[Thing], rng: random.Random) -> Iterator[Claim]:
    """As many, one fewer, and one more than there are."""
    count = len(same)
    if count < 2:
        return
    for said in {count, count + 1, max(2, count - 1)}:
        if said < len(COUNTED):
            for form, held in (
                (f"{COUNTED[said]} {plural(kind)}", False),
                (f"the {said} {plural(kind)}", True),
            ):
                yield Claim("count", form, tuple(same), said == count, held)
    if count == 2:
        yield Claim("count", f"both {plural(kind)}", tuple(same), True)
    one = rng.choice(same)
    yield Claim("count", f"one {kind}", (one,), True)


def sides(kind: str, same: list[Thing], scene: Scene, rng: random.Random) -> Iterator[Claim]:
    """One clearly at a side of the picture, and the only one of its kind on that half."""
    width = scene.size[0]
    thing = rng.choice(same)
    x = thing.x / 2 / width
    is_outermost = {
        "left": all(thing.x < other.x for other in same if other is not thing),
        "right": all(thing.x > other.x for other in same if other is not thing),
    }
    forms = (
        ("the {0} on the {1}", False),
        ("{0} on the {1} side of the picture", False),
        ("the {0} at the {1}", True),
        ("{0} that is on the {1}", True),
        ("the {1} {0}", False),
    )
    for side, offset in (("left", x), ("right", 1 - x)):
        if offset < 0.4 and is_outermost[side]:
            for form, held in forms:
                yield Claim("side", form.format(kind, side), (thing,), True, held)
                if offset < 0.33:
                    wrong = form.format(kind, OPPOSITE[side])
                    yield Claim("side", wrong, (thing,), False, held)
            if offset < 0.25:
                yield Claim("not", f"the {kind} not on the {side}", (thing,), False)
            yield Claim("not", f"the {kind} not on the {OPPOSITE[side]}", (thing,), True)


def ranks(kind: str, same: list[Thing], scene: Scene, rng: random.Random) -> Iterator[Claim]:
    """Which one from a side, where middles are clearly apart."""
    ordered = sorted(same, key=lambda thing: thing.x)
    gaps = [b.x - a.x for a, b in itertools.pairwise(ordered)]
    if min(gaps) < 0.1 * scene.size[0]:
        return
    place = rng.randrange(len(ordered))
    thing = ordered[place]
    forms = (
        ("the {1} {0} from the {2}", False),
        ("{0} {1} from {2}", True),
        ("the {0} that is {1} from the {2}", True),
    )
    for side, rank in (("left", place + 1), ("right", len(ordered) - place)):
        for said in range(1, min(len(ordered), 5) + 1):
            if rank > 5:
                continue
            form, held = rng.choice(forms)
            text = form.format(kind, RANKS[said], side)
            yield Claim("rank", text, (thing,), said == rank, held)


def extremes(kind: str, same: list[Thing], scene: Scene, rng: random.Random) -> Iterator[Claim]:
    """The largest, smallest, leftmost and rightmost, where they clearly are."""
    by_area = sorted(same, key=lambda thing: thing.area)
    smallest = by_area[0]
    largest = by_area[-1]
    for word, right, wrong in (
        ("largest", largest, smallest),
        ("biggest", largest, smallest),
        ("smallest", smallest, largest),
    ):
        yield Claim("size", f"the {word} {kind}", (right,), True)
        if largest.area > 1.8 * smallest.area:
            yield Claim("size", f"the {word} {kind}", (wrong,), False)
    by_x = sorted(same, key=lambda thing: thing.x)
    for word, thing, other in (
        ("leftmost", by_x[0], by_x[-1]),
        ("rightmost", by_x[-1], by_x[0]),
    ):
        yield Claim("side", f"the {word} {kind}", (thing,), True)
        if by_x[-1].x - by_x[0].x > 0.2 * scene.size[0]:
            yield Claim("side", f"the {word} {kind}", (other,), False)
            end = word.removesuffix("most")
            yield Claim("side", f"{kind} on the far {end}", (other,), False, True)
        yield Claim("side", f"{kind} on the far {word.removesuffix('most')}", (thing,), True, True)


def relations(scene: Scene, rng: random.Random) -> Iterator[Claim]:
    """A thing beside another, where its kind is there once."""
    kinds = Counter(thing.kind for thing in scene.things)
    alone = [thing for thing in scene.things if kinds[thing.kind] == 1]
    for anchor in alone:
        for thing in scene.things:
            if thing is anchor:
                continue
            color = thing.color
            for side, is_there in (
                ("left", thing.box[2] <= anchor.box[0]),
                ("right", thing.box[0] >= anchor.box[2]),
                ("above", thing.box[3] <= anchor.box[1]),
                ("below", thing.box[1] >= anchor.box[3]),
            ):
                if not is_there:
                    continue
                if side in ("left", "right"):
                    forms = (
                        ("the {0} {1} to the {2} of the {3}", False),
                        ("{0} {1} {2} of the {3}", False),
                        ("the {0} {1} standing on the {2} side of the {3}", True),
                    )
                else:
                    forms = (
                        ("the {0} {1} {2} the {3}", False),
                        ("{0} {1} that is {2} the {3}", True),
                    )
                form, held = rng.choice(forms)
                for said in (side, OPPOSITE[side]):
                    text = form.format(color, thing.kind, said, anchor.kind)
                    yield Claim("relation", text, (thing,), said == side, held)


def colors(scene: Scene, rng: random.Random) -> Iterator[Claim]:
    """Its own colour, and another that is not like it, of things that are of one colour."""
    for thing in scene.things:
        if thing.kind in ("dog", "person", "bicycle"):
            yield Claim("colour", f"the {thing.color} {thing.kind}", (thing,), True)
            continue
        others = [
            color
            for color in COLORS
            if color != thing.color
            and (color, thing.color) not in CONFUSED
            and (thing.color, color) not in CONFUSED
        ]
        wrong = rng.choice(others)
        form, held = rng.choice(
            (("the {0} {1}", False), ("{0} {1}", False), ("a small {0} {1}", True))
        )
        yield Claim("colour", form.format(thing.color, thing.kind), (thing,), True, held)
        yield Claim("colour", form.format(wrong, thing.kind), (thing,), False, held)
        yield Claim("not", f"the {thing.kind} that is not {wrong}", (thing,), True)
        yield Claim("not", f"the {thing.kind} that is not {thing.color}", (thing,), False)


def expression(text: str, things: tuple[Thing, ...]) -> dict[str, Any]:
    """A phrase with the boxes of things, as records have it."""
    return {"text": text, "instances": [{"bbox": list(thing.box)} for thing in things]}


def plain_expressions(scene: Scene) -> list[dict[str, Any]]:
    """What every record of a scene has: all things of a kind together, and each by its colour."""
    expressions = []
    for kind in dict.fromkeys(thing.kind for thing in scene.things):
        same = tuple(thing for thing in scene.things if thing.kind == kind)
        expressions.append(expression(plural(kind) if len(same) > 1 else f"a {kind}", same))
        for thing in same:
            expressions.append(expression(f"the {thing.color} {kind}", (thing,)))
    return expressions


def _same(pixels: Any) -> Any:
    return pixels


@dataclass
class Tally:
    """How many phrases are false, of these told, and told without being false."""

    false: int = 0
    told: int = 0
    told_wrongly: int = 0
    true: int = 0

    @property
    def recall(self) -> float:
        """Of the false phrases."""
        return self.told / self.false if self.false else 1.0

    @property
    def precision(self) -> float:
        """Of those that are told."""
        told = self.told + self.told_wrongly
        return self.told / told if told else 1.0


def run(scenes: int, seed: int, *, tell: bool = False) -> dict[str, Tally]:
    """The tally of each kind of claim; of those held out; and of all."""
    rng = random.Random(seed)
    tallies: dict[str, Tally] = {}
    for _ in range(scenes):
        scene = draw(rng)
        plain = plain_expressions(scene)
        open_pixels = partial(_same, scene.pixels)
        for claim in claims_of(scene, rng):
            expressions = [*plain, expression(claim.text, claim.things)]
            found = find_contradictions(expressions, scene.size, open_pixels)
            is_told = any(each.index == len(plain) for each in found)
            told_of_plain = len(found) - is_told
            names = [claim.kind, "all", "held out" if claim.is_held_out else "looked at"]
            for name in names:
                tally = tallies.setdefault(name, Tally())
                tally.true += claim.is_true
                tally.false += not claim.is_true
                tally.told += is_told and not claim.is_true
                tally.told_wrongly += (is_told and claim.is_true) + told_of_plain
            if tell and (is_told == claim.is_true or told_of_plain):
                print(claim.text, claim.is_true, [each.reason for each in found], scene.size)
    return tallies


def of_examples() -> Row:
    """What is told of the gold of example_data, whose phrases are true."""
    folder = REPOSITORY / "example_data"
    phrases = 0
    told = 0
    for line in (folder / "gold.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        pixels = cv2.imread(str(folder / record["image_path"]))
        size = (pixels.shape[1], pixels.shape[0])
        expressions = [{"instances": [], **each} for each in record["expressions"]]
        phrases += len(expressions)
        told += len(find_contradictions(expressions, size, partial(_same, pixels)))
    return Row("example_data: true phrases told", f"{told} of {phrases}", "0", told == 0)


def measure() -> list[Row]:
    """Contradictions without a request: of phrases about drawn scenes."""
    rows = [of_examples()]
    for name, tally in run(SCENES, SEED, tell=TELL).items():
        recall = f"{tally.recall:.1%} of {tally.false:,}"
        precision = f"{tally.precision:.2%}, {tally.told_wrongly} of {tally.true:,} true ones told"
        is_met = tally.recall >= 0.8 and tally.precision >= 0.99
        rows.append(
            Row(
                f"{name}: recall; precision",
                f"{recall}; {precision}",
                "≥ 80%; ≥ 99%",
                is_met,
            )
        )
    return rows


SCENES = 300
SEED = 0
TELL = False

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--tell", action="store_true", help="print what was judged wrongly")
    options, rest = parser.parse_known_args()
    SCENES, SEED, TELL = options.scenes, options.seed, options.tell
    sys.argv[1:] = rest
    show(measure)
