"""What tiles find that the whole picture hides, by the size of the thing.

    python -m benchmarks.tiles [--pictures 20] [--noise 0.003] [--seed 0]

Each picture of 4000 x 3000 px has ten things of each class of size, at random places that don't
touch. The model is shown at most 1000 px a side, and sees nothing there that is under 16 px: about
what models do that reduce a picture to 1568 px, or to 768 px on its shorter side, and see it in
patches of 14 to 32 px. Its edges are off by a share of the picture that it is shown (`--noise`, the
standard deviation). Recall is at IoU 0.5; `false` are boxes that are no thing's, of which
`twice` are on a thing that has a box already.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

from dataflow_grounding import BoxRefiner, OpenAIServing, Operator, PhraseGrounder, TileGrounder
from dataflow_grounding.boxes.geometry import Bbox, area, intersection
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.testing import LoopbackServer
from tests.support.stand_ins.limited_model import LimitedModel
from tests.support.stand_ins.seeing_model import COLORS, draw

SIZE = (4000, 3000)
LONGER = max(SIZE)
CLASSES = ((0.0035, 0.005), (0.005, 0.01), (0.01, 0.02), (0.02, 0.05), (0.05, 0.12))
NAMES = ("< 0.5%", "0.5-1%", "1-2%", "2-5%", "> 5%")  # the side of the thing, of the picture's
THINGS = 10  # of each class in a picture
WAYS = ("plain", "zoom", "tiles")


def scene(path: Path, chance: random.Random) -> list[tuple[int, Bbox, str]]:
    """Draw a picture; return its things, with the number of their class and their colour."""
    things: list[tuple[int, Bbox, str]] = []
    for number in reversed(range(len(CLASSES))):
        low, high = (share * LONGER for share in CLASSES[number])
        for _ in range(THINGS):
            while True:
                width, height = round(chance.uniform(low, high)), round(chance.uniform(low, high))
                x, y = chance.randint(0, SIZE[0] - width), chance.randint(0, SIZE[1] - height)
                around = (x - 12, y - 12, x + width + 12, y + height + 12)
                if all(area(intersection(around, other)) == 0 for _, other, _ in things):
                    break
            bbox = (float(x), float(y), float(x + width), float(y + height))
            things.append((number, bbox, chance.choice(sorted(COLORS))))
    boxes: dict[str, list[Bbox]] = {}
    for _, bbox, color in things:
        boxes.setdefault(color, []).append(bbox)
    draw(str(path), SIZE, boxes)
    return things


def steps(way: str, serving: OpenAIServing) -> list[Operator]:
    if way == "tiles":
        return [TileGrounder(serving, check_every=None)]
    plain = PhraseGrounder(serving, check_every=None)
    return [plain, BoxRefiner(serving, check_every=None)] if way == "zoom" else [plain]


class Score:
    """What one way found in all pictures."""

    def __init__(self) -> None:
        self.found = [0] * len(CLASSES)
        self.false = self.twice = self.requests = 0

    def add(self, things: list[tuple[int, Bbox, str]], record: dict[str, Any]) -> None:
        for expression in record["expressions"]:
            color = expression["text"].split()[1]
            wanted = [(number, bbox) for number, bbox, own in things if own == color]
            boxes = [tuple(instance["bbox"]) for instance in expression["instances"]]
            pairs = match_boxes(boxes, [bbox for _, bbox in wanted])
            for place in pairs:
                self.found[wanted[place][0]] += 1
            matched = {number for number, _ in pairs.values()}
            for number, box in enumerate(boxes):
                if number not in matched:
                    self.false += 1
                    boxed = [wanted[place][1] for place in pairs]
                    self.twice += any(area(intersection(box, bbox)) > 0 for bbox in boxed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    scores = {way: Score() for way in WAYS}
    phrases = [f"the {color} box" for color in sorted(COLORS)]
    model = LimitedModel(noise=given.noise, seed=given.seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        LoopbackServer(model, keep_bodies=True) as server,
    ):
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")
        for number in range(given.pictures):
            path = Path(folder) / f"{number}.png"
            things = scene(path, chance)
            for way, score in scores.items():
                before = server.count()
                record: Any = {"image_path": str(path), "expressions": phrases}
                for step in steps(way, serving):
                    record = step(record)
                score.requests += server.count() - before
                score.add(things, record)
                server.requests.clear()  # they hold the pictures
            path.unlink()
    print(
        f"{'':8}" + "".join(f"{name:>9}" for name in NAMES) + "    false  twice  requests/picture"
    )
    for way, score in scores.items():
        recalls = "".join(f"{n / (THINGS * given.pictures):9.3f}" for n in score.found)
        mean = score.requests / given.pictures
        print(f"{way:8}{recalls}{score.false:9}{score.twice:7}{mean:18.1f}")


if __name__ == "__main__":
    main()
