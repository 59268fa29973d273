"""AP equals what faster-coco-eval makes of COCO files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.evaluation.metrics import evaluate
from tests.evaluation.metrics.cases import FAR, LEFT, RIGHT, record
from tests.evaluation.metrics.coco_library import Box, ap_of_the_library


def boxes_of(records: list[Any], phrases: list[tuple[str, str]]) -> list[Box]:
    """The boxes of these phrases, each of which is an image of its own, in one class."""
    boxes = []
    for r in records:
        for e in r["expressions"]:
            own = (r["image_path"], e["text"])
            if own in phrases:
                image = phrases.index(own)
                boxes += [Box(image, 7, i["bbox"], i.get("score")) for i in e["instances"]]
    return boxes


@pytest.mark.parametrize("seed", range(2))
def test_it_is_the_librarys(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    gold, found = [], []
    # no two equal: those would be told apart by names
    scores = iter(chance.sample(range(10_000), 2_000))
    for image in range(12):
        boxes: dict[str, list[Any]] = {f"p{n}": [] for n in range(4)}
        noisy: dict[str, list[Any]] = {name: [] for name in boxes}
        for number, (name, of) in enumerate(boxes.items()):
            for _ in range(number):
                x = chance.randint(0, 300)
                of.append([x, 5, x + chance.randint(8, 200), 90])
            for box in of:
                if chance.random() < 0.8:
                    moved = [edge + chance.randint(-6, 6) for edge in box]
                    noisy[name].append((moved, next(scores) / 10_000))
        gold.append(record(f"{image:02}.png", **boxes))
        # where the gold says that there is none
        noisy["p0"] = [(FAR, next(scores) / 10_000)] * (image % 3 == 0)
        found.append(record(f"{image:02}.png", **noisy, unasked=[(FAR, 1.0)]))
    ours = evaluate(found, gold).figures["ap"]
    phrases = [(r["image_path"], e["text"]) for r in gold for e in r["expressions"]]
    boxes = [boxes_of(records, phrases) for records in (gold, found)]
    assert [ours] == pytest.approx(ap_of_the_library(*boxes, len(phrases), tmp_path), abs=6e-5)
    assert 0.1 < ours < 0.9


@pytest.mark.parametrize(
    "wrong", [FAR, [60, 50, 50, 60], [50, 60, 60, 50], [60, 60, 50, 50], [0, 0, 2e5, 2e5]], ids=str
)
def test_a_wrong_box_is_a_false_positive_whatever_its_corners_and_size(wrong: list[float]) -> None:
    gold = [record(a=[LEFT])]
    assert evaluate([record(a=[(LEFT, 0.5), (wrong, 0.9)])], gold).figures["ap"] == 0.5


def test_a_gold_box_counts_whatever_its_corners_and_size() -> None:
    huge = [record(a=[[0, 0, 2e5, 2e5]])]
    assert evaluate(huge, huge).figures["ap"] == 1.0
    assert evaluate([record(a=[FAR])], huge).figures["ap"] == 0.0
    # no box meets the second, not even itself
    turned = [record(a=[(LEFT, 0.9)], b=[([60, 60, 50, 50], 0.1)])]
    assert evaluate(turned, turned).figures["ap"] == pytest.approx(51 / 101, abs=6e-5)


def test_the_order_of_the_records_does_not_count_where_scores_are_equal() -> None:
    boxes = [LEFT, FAR, LEFT, LEFT, FAR, RIGHT]
    gold = [record(f"{n}.png", a=[LEFT]) for n in range(6)]
    found = [record(f"{n}.png", a=[(box, 0.5)]) for n, box in enumerate(boxes)]
    turned = [(found[n:] + found[:n], gold[n:] + gold[:n]) for n in range(6)]
    assert len({evaluate(*both).figures["ap"] for both in turned}) == 1


def test_without_scores_the_place_in_the_answer_ranks() -> None:
    gold = [record(f"{n}.png", a=[LEFT]) for n in range(4)]
    # All first boxes are right, and come before any second one.
    both = [record(f"{n}.png", a=[LEFT, FAR]) for n in range(4)]
    assert evaluate(both, gold).figures["ap"] == 1.0
    # The sure one comes first: of 5 boxes the last 4 are right, at best 4 of 5.
    mixed = [record("0.png", a=[(FAR, 0.0), LEFT]), *gold[1:]]
    assert 0 < evaluate(mixed, gold).figures["ap"] < 0.81


def test_nothing_found_or_nothing_there() -> None:
    assert evaluate([record(a=[])], [record(a=[LEFT, RIGHT])]).figures["ap"] == 0.0
    assert evaluate([record(a=[LEFT])], [record(a=[])]).figures["ap"] is None
