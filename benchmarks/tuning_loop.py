"""How fast errors fall as review and `tune` take turns.

    python -m benchmarks.tuning_loop [--seeds 3]

A model misses a quarter of the things unless it is told to look for every instance, and takes pink
things for red ones and cyan ones for blue ones unless a definition keeps them out. 80 pictures with
8 phrases each. A turn: 10, 20, then 40 pictures are mended (here by their gold), `tune` finds words
on them, `generate` asks again with these. Counted are the boxes to mend on the 40 that nobody sees.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from benchmarks.places.workplace import Workplace, command
from benchmarks.stand_ins.check_quality import scenes
from benchmarks.stand_ins.confusing_model import ConfusingModel, Habits
from benchmarks.stand_ins.erring_model import Errors
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.extras.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.extras.tuning.gold import (
    GoldPicture,
    boxes_by_text,
    gold_pictures,
    score_of,
)

PICTURES = 80
MENDED = (0, 10, 20, 40)
HABITS = Habits({"red": "pink", "blue": "cyan"}, missed=0.25, harmful=0.2)
LOOKING = 0.05  # share of things that it misses once it looks for every instance


class LoopModel(ConfusingModel):
    """As ConfusingModel; it misses less where it is told to look for every instance."""

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """What the model says."""
        looks = "every instance" in request.text
        self._errors = Errors(missing=LOOKING if looks else HABITS.missed)
        return super().__call__(request)


@dataclass(frozen=True)
class Turn:
    """What a turn came to: requests of tuning and generating, and what is left to mend."""

    mended: int
    tuning: int
    generating: int
    f1: float
    to_mend: float


def run(arguments: list[str]) -> dict[str, Any]:
    """Run a command. Raises SystemExit where it ends otherwise than with 0."""
    done = command([*arguments, "--json"])
    if done.code:
        raise SystemExit(str(done))
    return done.summary


def turns(folder: Path, seed: int) -> list[Turn]:
    """Take all turns through the real commands, on loopback."""
    gold = scenes(folder, PICTURES, seed)
    labels = [expression["text"].split()[1] for expression in gold[0]["expressions"]]
    classes = {label: {"phrases": [f"the {label} box"]} for label in labels}
    for record in gold:
        for expression in record["expressions"]:
            expression["class"] = expression["text"].split()[1]
    _write(folder / "gold.jsonl", gold)
    unseen = {record["image_path"] for record in gold[MENDED[-1] :]}
    pictures = [one for one in gold_pictures(str(folder / "gold.jsonl")) if one.path in unseen]
    told = []
    with LoopbackServer(LoopModel(HABITS, seed=seed), keep_bodies=True, record=False) as server:
        settings = {"vlm.box_format": "xyxy_1000", "data.classes": classes}
        place = Workplace(folder, server.base_url, **settings)
        place.rows([{"image_path": record["image_path"]} for record in gold])
        spec = str(place.spec())
        for mended in MENDED:
            before = server.count()
            extra = []
            if mended:
                _write(folder / "mended.jsonl", gold[:mended])
                out = folder / f"tuning_{mended}"
                files = ["--gold", str(folder / "mended.jsonl"), "-o", str(out)]
                run(["tune", spec, *files, "--definitions"])
                extra = ["-e", str(out / "tuned.yaml")]
            tuning = server.count() - before
            results = folder / f"results_{mended}"
            run(["generate", "-e", spec, *extra, "--no-report", f"results_dir={results}"])
            answers = {}
            for line in (results / "annotations.jsonl").read_text().splitlines():
                record = json.loads(line)
                answers[record["image_path"]] = record
            generating = server.count() - before - tuning
            scores = [score_of(one, answers[one.path]) for one in pictures]
            wrong = [boxes_to_mend(one, answers[one.path]) for one in pictures]
            f1 = sum(scores) / len(scores)
            told.append(Turn(mended, tuning, generating, f1, sum(wrong) / len(wrong)))
    return told


def boxes_to_mend(picture: GoldPicture, record: Mapping[str, Any]) -> int:
    """Return how many boxes a person would draw or take away."""
    answered = boxes_by_text(record)
    count = 0
    for phrase in picture.phrases:
        boxes = answered.get(phrase.text, [])
        count += len(boxes) + len(phrase.boxes) - 2 * len(match_boxes(boxes, phrase.boxes))
    return count


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    by_turn: dict[int, list[Turn]] = {mended: [] for mended in MENDED}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            for turn in turns(Path(folder), seed):
                by_turn[turn.mended].append(turn)
    print(f"mean of {arguments.seeds} models of this kind")
    print(f"{'mended':>6} {'tune':>6} {'generate':>8} {'F1':>6} {'to mend a picture':>18}")
    for mended, told in by_turn.items():
        figures = [astuple(turn)[1:] for turn in told]
        tuning, generating, f1, to_mend = (
            sum(column) / len(told) for column in zip(*figures, strict=True)
        )
        print(f"{mended:6d} {tuning:6.0f} {generating:8.0f} {f1:6.3f} {to_mend:18.2f}")


if __name__ == "__main__":
    main()
