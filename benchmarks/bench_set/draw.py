"""Draw the pictures of `dataflowgrounding bench` and write their gold.

    python -m benchmarks.bench_set.draw [FOLDER]

Everything is drawn from one seed, so that the same Pillow gives the same files. Photographs, and
what is in their gold, come from `example_data` and `photos.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageFilter

from benchmarks.bench_set.things import (
    COLORS,
    THINGS,
    background_of,
    box_of_pixels,
    layer_of,
    plural,
    sign_of,
)

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "dataflow_grounding/bench/set"
SEED = 38
NUMBERS = ("", "one", "two", "three", "four", "five", "six")
PALE = ("white", "yellow", "pink")
CLEAR = 10  # px between a thing and another that it is left of
WORDS = [
    ("EXIT", "EDIT"),
    ("OPEN", "OVEN"),
    ("GATE 12", "GATE 21"),
    ("SALE", "SAFE"),
    ("NORTH", "FORTH"),
]
WORDS += [
    ("ROOM 7", "ROOM 1"),
    ("BAKERY", "BATTERY"),
    ("STOP", "SHOP"),
    ("TAXI", "TAX"),
    ("MENU", "MEMO"),
]


@dataclass
class Scene:
    """A picture in the making, and what is said of it."""

    kind: str
    picture: Image.Image
    chance: random.Random
    groups: dict[tuple[str, str], list[list[int]]] = field(default_factory=dict)
    signs: dict[str, list[int]] = field(default_factory=dict)
    expressions: list[dict[str, Any]] = field(default_factory=list)

    def put(self, layer: Image.Image, x: int, y: int) -> list[int]:
        """Put a layer into the picture, and return the box of its pixels."""
        self.picture.paste(layer, (x, y), layer)
        return box_of_pixels(layer, x, y)

    def say(self, text: str, boxes: Sequence[list[int]], differs_from: str = "") -> None:
        """Add a phrase; one without boxes differs in a word from another one that has some."""
        if any(expression["text"] == text for expression in self.expressions):
            return
        expression: dict[str, Any] = {"text": text, "instances": [{"bbox": box} for box in boxes]}
        if differs_from:
            expression["differs_from"] = differs_from
        self.expressions.append(expression)


def cells_of(size: tuple[int, int], columns: int, rows: int) -> list[tuple[int, int, int]]:
    """Left, top and side of squares that don't touch, one in each cell of a grid."""
    width, height = size[0] // columns, size[1] // rows
    side = min(width, height)
    cells = []
    for row in range(rows):
        for column in range(columns):
            x = column * width + (width - side) // 2
            cells.append((x, row * height + (height - side) // 2, side))
    return cells


def fill(
    scene: Scene,
    groups: Sequence[tuple[str, str, int]],
    cells: list[tuple[int, int, int]],
    share: tuple[float, float],
    most_turn: float = 0.0,
) -> None:
    """Draw `groups`, (color, noun, count) each, into cells, each thing a share of its cell."""
    chance = scene.chance
    wanted = [(color, noun) for color, noun, count in groups for _ in range(count)]
    for (color, noun), (x, y, side) in zip(wanted, chance.sample(cells, len(wanted)), strict=True):
        own = max(8, round(side * chance.uniform(*share)))
        turn = chance.uniform(-most_turn, most_turn)
        layer = layer_of(noun, color, own, turn)
        left = x + chance.randint(0, max(0, side - layer.width))
        top = y + chance.randint(0, max(0, side - layer.height))
        scene.groups.setdefault((color, noun), []).append(scene.put(layer, left, top))


def name_of(color: str, noun: str, count: int) -> str:
    """The words for all things of a color and noun."""
    if count == 1:
        return f"the {color} {noun}"
    if count < len(NUMBERS):
        return f"the {NUMBERS[count]} {color} {plural(noun)}"
    return f"the {color} {plural(noun)}"


def describe(scene: Scene, absent: int) -> None:
    """Say a true phrase of each group, and `absent` false ones that differ from such by a word."""
    names = {}
    for group, boxes in scene.groups.items():
        names[group] = name_of(*group, len(boxes))
        scene.say(names[group], boxes)
    relation = left_of(scene)
    if relation is not None:
        true, boxes = relation
        scene.say(true, boxes)
        scene.say(true.replace("left", "right"), [], true)
    pairs = wrong_groups(scene, names)
    scene.chance.shuffle(pairs)
    for false, true in pairs:
        if sum(not expression["instances"] for expression in scene.expressions) < absent:
            scene.say(false, [], true)


def wrong_groups(scene: Scene, names: dict[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Phrases of another color or noun than anything in the picture has, with the true ones."""
    pairs = []
    for (color, noun), true in names.items():
        count = len(scene.groups[(color, noun)])
        colors = [other for other in COLORS if (other, noun) not in scene.groups]
        nouns = [other for other in THINGS if (color, other) not in scene.groups]
        pairs.append((name_of(scene.chance.choice(colors), noun, count), true))
        pairs.append((name_of(color, scene.chance.choice(nouns), count), true))
    return pairs


def left_of(scene: Scene) -> tuple[str, list[list[int]]] | None:
    """A true phrase about a thing that is further left than another one, and its box."""
    singles = [(group, boxes[0]) for group, boxes in scene.groups.items() if len(boxes) == 1]
    for (color, noun), left in singles:
        for (other_color, other_noun), right in singles:
            if left[2] + CLEAR < right[0]:
                text = f"the {color} {noun} to the left of the {other_color} {other_noun}"
                return text, [left]
    return None


def some_groups(
    chance: random.Random, counts: Sequence[int], colors: Sequence[str], nouns: Sequence[str]
) -> list[tuple[str, str, int]]:
    """As many groups as counts, each of another color and noun together."""
    pairs = [(color, noun) for color in colors for noun in nouns]
    chance.shuffle(pairs)
    groups: list[tuple[str, str, int]] = []
    for count in counts:
        color, noun = pairs.pop()
        groups.append((color, noun, count))
    return groups


def colors_on(style: str) -> list[str]:
    """Colors that stand out from a background."""
    hidden = {
        "night": ("black", "blue", "purple"),
        "meadow": ("green",),
        "plain": ("white", "yellow"),
        "room": ("white",),
        "grain": ("white", "black"),
    }[style]
    return [color for color in COLORS if color not in hidden]


def scene_of(kind: str, number: int, chance: random.Random) -> Scene:
    """A picture of a kind."""
    style, size = {
        "scene": (("room", "meadow", "plain")[number % 3], (640, 480)),
        "crowd": (("plain", "room")[number % 2], (960, 640)),
        "small": (("meadow", "room", "plain")[number % 3], (1280, 960)),
        "wide": (("room", "plain")[number % 2], (1600, 400)),
        "tall": (("room", "plain")[number % 2], (400, 1400)),
        "text": (("room", "plain")[number % 2], (800, 600)),
        "night": ("night", (800, 600)),
        "texture": ("grain", (720, 540)),
    }[kind]
    scene = Scene(kind, background_of(style, size, chance), chance)
    colors = colors_on(style)
    nouns = chance.sample(sorted(THINGS), 5)
    if kind == "crowd":
        groups = some_groups(chance, (9, 7, 6, 1, 2), chance.sample(colors, 3), nouns[:2])
        fill(scene, groups, cells_of(size, 7, 5), (0.55, 0.85))
    elif kind == "small":
        groups = some_groups(chance, (1, 1, 2, 1, 3), colors, nouns)
        fill(scene, groups, cells_of(size, 8, 6), (0.12, 0.22))
    elif kind == "wide":
        groups = some_groups(chance, (1, 1, 2, 1, 1), colors, nouns)
        fill(scene, groups, cells_of(size, 7, 2), (0.5, 0.95))
    elif kind == "tall":
        groups = some_groups(chance, (1, 1, 2, 1, 1), colors, nouns)
        fill(scene, groups, cells_of(size, 2, 7), (0.5, 0.95))
    elif kind == "text":
        put_signs(scene, number, colors)
        groups = some_groups(chance, (1, 1, 2), colors, nouns)
        fill(scene, groups, cells_of((size[0], size[1] // 2), 5, 2), (0.55, 0.9))
    else:
        groups = some_groups(chance, (1, 1, 2, 1, 1), colors, nouns)
        turn = 25.0 if kind == "texture" else 0.0
        fill(scene, groups, cells_of(size, 4, 3), (0.45, 0.7), turn)
    describe(scene, absent=3)
    if kind == "night":
        scene.picture = scene.picture.point(lambda value: round(value * 0.62))
    if kind == "texture":
        scene.picture = scene.picture.filter(ImageFilter.GaussianBlur(0.8))
    return scene


def put_signs(scene: Scene, number: int, colors: Sequence[str]) -> None:
    """Two signs in the lower half, and phrases by their words."""
    width, height = scene.picture.size
    pairs = [WORDS[2 * number % len(WORDS)], WORDS[(2 * number + 1) % len(WORDS)]]
    for place, (words, near) in enumerate(pairs):
        sign = sign_of(words, scene.chance.choice([c for c in colors if c not in PALE]), 84)
        x = place * width // 2 + scene.chance.randint(10, max(11, width // 2 - sign.width - 10))
        y = height // 2 + scene.chance.randint(30, height // 2 - sign.height - 20)
        text = f'the sign that says "{words}"'
        scene.say(text, [scene.put(sign, x, y)])
        scene.say(text.replace(words, near), [], text)


KINDS = {
    "scene": 9,
    "crowd": 6,
    "small": 6,
    "wide": 4,
    "tall": 4,
    "text": 5,
    "night": 4,
    "texture": 5,
}


def record_of(scene: Scene, path: str) -> dict[str, Any]:
    """The gold record of a picture; its caption names the first phrases that are true."""
    true = [expression["text"] for expression in scene.expressions if expression["instances"]]
    caption = f"A picture with {', '.join(true[:-1])} and {true[-1]}."
    for expression in scene.expressions:
        start = caption.find(expression["text"]) if expression["instances"] else -1
        expression["char_span"] = [start, start + len(expression["text"])] if start >= 0 else None
    width, height = scene.picture.size
    return {
        "image_path": path,
        "image_id": Path(path).stem,
        "kind": scene.kind,
        "width": width,
        "height": height,
        "caption": caption,
        "expressions": scene.expressions,
    }


def main() -> None:
    """Write pictures and gold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    pictures = folder / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir(parents=True)
    records = []
    for line in (Path(__file__).parent / "photos.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        name = Path(record["image_path"]).name
        shutil.copyfile(REPOSITORY / "example_data/images" / name, pictures / name)
        records.append(record)
    for kind, count in KINDS.items():
        for number in range(count):
            chance = random.Random(f"{SEED}/{kind}/{number}")
            scene = scene_of(kind, number, chance)
            name = f"{kind}_{number + 1}"
            path = pictures / f"{name}.jpg"
            scene.picture.save(path, quality=90)
            records.append(record_of(scene, f"pictures/{name}.jpg"))
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (folder / "gold.jsonl").write_text(text, encoding="utf-8")
    phrases = [expression for record in records for expression in record["expressions"]]
    absent = sum(1 for expression in phrases if not expression["instances"])
    print(f"{len(records)} pictures, {len(phrases)} phrases, {absent} of them absent")


if __name__ == "__main__":
    main()
