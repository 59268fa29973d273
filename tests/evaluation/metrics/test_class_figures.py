"""Figures of each class: AP equals what faster-coco-eval makes of it, the rest what one counts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.evaluation.metrics import evaluate
from tests.evaluation.metrics.cases import FAR, LEFT, MIDDLE, RIGHT, phrase
from tests.evaluation.metrics.coco_library import Box, ap_of_the_library
from tests.support.workplace import Done, command, write_rows

CLASSES = ("cat", "dog", "tie")


def of_classes(image: int, **boxes: list[Any]) -> dict[str, Any]:
    expressions = [phrase(name, those, **{"class": name}) for name, those in boxes.items()]
    for expression in expressions:
        expression["status"] = "grounded" if expression["instances"] else "none"
    return {"image_path": f"{image}.png", "caption": "", "expressions": expressions}


def evaluated(folder: Path, predicted: list[Any], gold: list[Any]) -> Done:
    """What `eval` prints of files with these records."""
    found = write_rows(folder / "predicted.jsonl", *predicted)
    truth = write_rows(folder / "gold.jsonl", *gold)
    return command(["eval", str(found), "--gold", str(truth)])


def box_near(chance: random.Random, box: list[float]) -> list[float]:
    right, down = chance.choice([0, 0, 2, 5, 40]), chance.choice([0, 0, 2, 5])
    return [box[0] + right, box[1] + down, box[2] + right, box[3] + down]


def data_set(seed: int, *, gold_lists_all: bool) -> tuple[list[Any], list[Any]]:
    """Gold and predictions; gold of detectors lists the classes that are there alone."""
    chance = random.Random(seed)
    scores = iter(chance.sample(range(10_000), 2_000))  # no two equal
    gold, predicted = [], []
    for image in range(15):
        truth: dict[str, list[Any]] = {}
        guess: dict[str, list[Any]] = {}
        for name in CLASSES:
            truth[name] = []
            for _ in range(chance.choice([0, 1, 1, 2])):
                x, y = chance.randrange(200), chance.randrange(200)
                w, h = chance.randrange(20, 90), chance.randrange(20, 90)
                truth[name].append([x, y, x + w, y + h])
            guesses = [box_near(chance, box) for box in truth[name] if chance.random() < 0.8]
            if chance.random() < 0.3:
                guesses.append([5, 5, 60, 60])
            guess[name] = [(box, next(scores) / 10_000) for box in guesses]
            if not truth[name] and not gold_lists_all:
                del truth[name]
        gold.append(of_classes(image, **truth))
        predicted.append(of_classes(image, **guess))
    return gold, predicted


def boxes_in(records: list[Any]) -> list[Box]:
    """Pictures are images, and classes categories."""
    boxes = []
    for image, record in enumerate(records):
        for expression in record["expressions"]:
            number = CLASSES.index(expression["class"])
            for found in expression["instances"]:
                boxes.append(Box(image, number, found["bbox"], found.get("score")))
    return boxes


@pytest.mark.slow
@pytest.mark.parametrize("gold_lists_all", [True, False])
def test_ap_of_each_class_is_the_librarys(gold_lists_all: bool, tmp_path: Path) -> None:
    gold, predicted = data_set(0, gold_lists_all=gold_lists_all)
    expected = ap_of_the_library(boxes_in(gold), boxes_in(predicted), len(gold), tmp_path)
    figures = evaluate(predicted, gold).to_json()
    ours = [figures["classes"][name]["ap"] for name in CLASSES]
    assert ours == pytest.approx(expected, abs=1e-4)
    assert figures["map"] == pytest.approx(sum(expected) / len(expected), abs=1e-4)
    for name in CLASSES:
        row = figures["classes"][name]
        for measure in ("precision", "recall", "f1", "ap"):
            low, high = row["intervals"][measure]
            assert low <= row[measure] <= high


def in_other_words(records: list[Any]) -> list[Any]:
    """The boxes in phrases of other words, one for each box, and of a picture in two rows."""
    rows = []
    for record in records:
        expressions = []
        for expression in record["expressions"]:
            for instance in expression["instances"]:
                text = f"some {expression['text']} that is there"
                expressions.append({**expression, "text": text, "instances": [instance]})
        rows += [{**record, "expressions": part} for part in (expressions[::2], expressions[1::2])]
    return rows


@pytest.mark.slow
def test_words_phrases_and_rows_make_no_difference(tmp_path: Path) -> None:
    gold, predicted = data_set(4, gold_lists_all=False)
    expected = ap_of_the_library(boxes_in(gold), boxes_in(predicted), len(gold), tmp_path)
    before = evaluate(predicted, gold).to_json()["classes"]
    sides = {
        "gold": (predicted, in_other_words(gold)),
        "predicted": (in_other_words(predicted), gold),
        "both": (in_other_words(predicted), in_other_words(gold)),
    }
    for side, (found, true) in sides.items():
        classes = evaluate(found, true).to_json()["classes"]
        aps = [classes[name]["ap"] for name in CLASSES]
        assert aps == pytest.approx(expected, abs=1e-4), side
        for name in CLASSES:
            for measure in ("gold_boxes", "boxes", "precision", "recall", "f1"):
                assert classes[name][measure] == before[name][measure], side


@pytest.mark.slow
def test_a_class_that_is_open_in_an_image_is_not_judged_there() -> None:
    """What a person rejected in the gold says neither what is there nor that nothing is."""
    gold = [of_classes(1, cat=[LEFT]), of_classes(2, cat=[RIGHT])]
    for record, verdict in zip(gold, (True, False), strict=True):
        [expression] = record["expressions"]
        expression |= {"verified": verdict, "reviewed_by": "ann"}
    predicted = [of_classes(1, cat=[(LEFT, 0.9)]), of_classes(2, cat=[(FAR, 0.8)])]
    figures = evaluate(predicted, gold).to_json()
    cat = figures["classes"]["cat"]
    assert (cat["gold_boxes"], cat["boxes"], cat["precision"], cat["ap"]) == (1, 1, 1, 1)
    [note] = [note for note in figures["notes"] if "not judged" in note]
    assert "1 phrase with a box that a reviewer rejected" in note
    assert "Precision looks better than it is" in note
    gold[1]["expressions"][0].update(instances=[], status="none", verified=True)  # it was mended
    figures = evaluate(predicted, gold).to_json()
    assert figures["classes"]["cat"]["precision"] == 0.5
    assert not any("not judged" in note for note in figures["notes"])


@pytest.mark.slow
def test_a_box_of_several_phrases_of_a_class_counts_once() -> None:
    gold = [of_classes(1, cat=[LEFT, RIGHT])]
    predicted = [of_classes(1, cat=[(LEFT, 0.4), (RIGHT, 0.8)])]
    kitten = {**predicted[0]["expressions"][0], "text": "a kitten"}
    kitten["instances"] = [{**box, "score": 0.9} for box in kitten["instances"][:1]]
    predicted[0]["expressions"].append(kitten)
    cat = evaluate(predicted, gold).to_json()["classes"]["cat"]
    assert (cat["boxes"], cat["precision"], cat["recall"], cat["ap"]) == (2, 1, 1, 1)


@pytest.mark.slow
def test_classes_by_hand() -> None:
    gold = [of_classes(1, cat=[LEFT, RIGHT]), of_classes(2, dog=[LEFT])]
    predicted = [
        of_classes(1, cat=[(LEFT, 0.9), (FAR, 0.5)], dog=[(MIDDLE, 0.4)]),
        of_classes(2, cat=[], dog=[]),
    ]
    classes = evaluate(predicted, gold).to_json()["classes"]
    figures = {name: (row["gold_boxes"], row["boxes"]) for name, row in classes.items()}
    assert figures == {"cat": (2, 2), "dog": (1, 1)}
    cat, dog = classes["cat"], classes["dog"]
    assert (cat["precision"], cat["recall"], cat["f1"]) == (0.5, 0.5, 0.5)
    assert (dog["precision"], dog["recall"], dog["f1"], dog["ap"]) == (0, 0, 0, 0)


@pytest.mark.slow
def test_a_class_is_told_by_either_side_and_free_phrases_have_none() -> None:
    detectors_gold = [{"image_path": "1.png", "expressions": [phrase("Cat", [LEFT])]}]
    figures = evaluate([of_classes(1, cat=[(LEFT, 0.9)])], detectors_gold).to_json()
    assert [*figures["classes"]] == ["cat"]
    assert figures["classes"]["cat"]["f1"] == 1
    free = evaluate(detectors_gold, detectors_gold).to_json()
    assert "classes" not in free


@pytest.mark.slow
def test_what_eval_prints_of_classes(tmp_path: Path) -> None:
    gold, predicted = data_set(1, gold_lists_all=True)
    done = evaluated(tmp_path, predicted, gold)
    assert done.code == 0, done.err
    first = [line.split()[1] for line in done.out.splitlines()[2:5]]
    assert first == ["precision_at_iou_0.5", "recall_at_iou_0.5", "f1_at_iou_0.5"]
    [heads] = [line for line in done.out.splitlines() if line.startswith("| class ")]
    names = [head.strip() for head in heads.strip("| ").split("|")]
    assert names[1:4] == ["gold boxes", "boxes", "precision"]


@pytest.mark.slow
def test_two_runs_have_differences_in_the_table_of_classes(tmp_path: Path) -> None:
    gold, first = data_set(2, gold_lists_all=True)
    _, worse = data_set(3, gold_lists_all=True)
    said = evaluate(first, gold).against(evaluate(worse, gold))["classes"]
    for name in CLASSES:
        own, other = (evaluate(run, gold).classes[name] for run in (first, worse))
        for measure in ("precision", "recall", "f1", "ap"):
            difference = said[name]["difference"][measure]
            assert difference == pytest.approx(other[measure] - own[measure], abs=2e-6)
            low, high = said[name]["intervals"][measure]
            assert low <= difference <= high
    files = [write_rows(tmp_path / f"{n}.jsonl", *rows) for n, rows in enumerate((first, worse))]
    truth = write_rows(tmp_path / "gold.jsonl", *gold)
    page = command(["eval", *map(str, files), "--gold", str(truth)]).out
    [heads] = [line for line in page.splitlines() if line.startswith("| class ")]
    assert f"| {files[1]} less {files[0]} |" in heads
