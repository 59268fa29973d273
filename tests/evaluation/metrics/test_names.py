"""Which phrases of a picture are one name, and what reading refuses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding.evaluation.metrics import Rules, evaluate, read_annotations
from tests.evaluation.metrics.cases import FAR, LEFT, RIGHT, phrase, record
from tests.support.workplace import command, write_rows

BOXES = "precision_at_iou_0.5", "recall_at_iou_0.5"


def measured(found: list[Any], gold: list[Any]) -> tuple[Any, ...]:
    """Precision and recall, and the gold's names that were missed, found ones that it lacks."""
    figures = evaluate(found, gold).figures
    counts = figures["expressions_missing"], figures["expressions_not_in_gold"]
    return *(figures[name] for name in BOXES), *counts


def of_class(name: str, text: str, *boxes: list[int]) -> dict[str, Any]:
    return phrase(text, [*boxes], **{"class": name}, status="grounded" if boxes else "none")


def row(*phrases: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"image_path": "x.png", "expressions": [*phrases], **more}


def test_phrases_are_one_by_text_up_to_case_and_spacing() -> None:
    gold = [record(cat=[LEFT], the_dog=[RIGHT], fox=[FAR])]
    figures = evaluate([record(The__Dog=[RIGHT], cat=[LEFT])], gold).figures
    assert (figures["acc_0.5"], figures["expressions_missing"]) == (0.666667, 1)


def test_a_person_and_a_human_of_one_class_are_one_above_and_below() -> None:
    people = [LEFT, RIGHT]
    found = [row(of_class("person", "a person", *people), of_class("person", "a human", *people))]
    for text, stated in (("a person", "person"), ("person", "person")):
        figures = evaluate(found, [row(of_class(stated, text, *people))]).to_json()
        assert (figures["precision_at_iou_0.5"], figures["boxes"]) == (1.0, 2)
        assert figures["classes"]["person"]["precision"] == 1.0
        assert figures["map"] == figures["ap"] == 1.0
    notes = " ".join(figures["notes"])
    assert "2 phrases of what was given matched by class" in notes
    assert "2 boxes of what was given on a thing that another box of its phrase or class" in notes


def test_two_phrases_of_a_class_that_both_sides_have_are_two() -> None:
    gold = [row(of_class("Car", "the left car", LEFT), of_class("Car", "the right car", RIGHT))]
    swapped = [row(of_class("Car", "the left car", RIGHT), of_class("Car", "the right car", LEFT))]
    assert measured(gold, gold) == (1.0, 1.0, 0, 0)
    assert measured(swapped, gold) == (0.0, 0.0, 0, 0)
    # as a detector's, they are all found
    assert evaluate(swapped, gold).to_json()["classes"]["Car"]["f1"] == 1.0


def test_a_class_joins_what_the_other_side_says_in_other_words() -> None:
    gold = [row(phrase("circle", [LEFT]), phrase("cup", [FAR]))]
    found = [row(of_class("circle", "a red circle", LEFT), of_class("dog", "a dog", RIGHT))]
    assert measured(found, gold) == (0.5, 0.5, 1, 1)
    assert measured(gold, found) == (0.5, 0.5, 1, 1)
    # what was made up to be absent names no thing of its class
    blue = {**of_class("circle", "a blue circle"), "source": "negative"}
    figures = evaluate([row(*found[0]["expressions"], blue)], [row(*gold[0]["expressions"], blue)])
    assert figures.figures["n_acc"] == 1.0
    figures = evaluate(found, [row(*gold[0]["expressions"], blue)])
    assert (figures.figures["expressions"], figures.figures["n_acc"]) == (3, 0.0)


def test_a_perfect_run_of_five_captions_a_picture_is_perfect() -> None:
    captions = ["a man", "a man and a dog", "the dog", "a dog, a man", "two of them"]
    gold = []
    for caption in captions:
        phrases = [phrase("a man", [LEFT], char_span=[0, 5]), phrase(f"it in {caption}", [RIGHT])]
        gold.append(row(*phrases, phrase("a cat", [], status="none"), caption=f"a man: {caption}"))
    figures = evaluate(gold[::-1], gold).to_json()
    shown = {name: value for name, value in figures.items() if isinstance(value, float)}
    assert set(shown.values()) == {1.0}
    assert len(shown) == 10  # all but mAP, as nothing states a class
    assert (figures["images"], figures["expressions"], figures["boxes"]) == (1, 7, 6)
    # a caption that failed is missed
    assert evaluate(gold[1:], gold).figures["span_exact_f1"] == pytest.approx(8 / 9, abs=1e-6)


def test_equal_phrases_are_one_and_their_boxes_those_of_all() -> None:
    first, second = phrase("a man", [LEFT]), phrase("a man", [RIGHT])
    for found in ([row(first, second)], [row(first), row(second)], [row(second), row(first)]):
        for gold in ([row(first, second)], [row(phrase("a man", [RIGHT, LEFT, LEFT]))]):
            assert measured(found, gold) == (1.0, 1.0, 0, 0)
    assert measured([row(first)], [row(first, second)]) == (1.0, 0.5, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("owner", ["path", "id"])
def test_neither_the_order_of_lines_nor_how_phrases_lie_in_records_counts(owner: str) -> None:
    chance = random.Random(0)
    lines, whole = [], []
    for image in range(9):
        own = {"image_id": image, "image_path": None if owner == "id" else f"{image}.png"}
        texts = [chance.choice(["man", "a dog", "the cat", "caf\u00e9"]) for _ in range(5)]
        said = [phrase(text, [[n, n, n + 5, n + 9]]) for n, text in enumerate(texts)]
        lines += [{**own, "caption": one["text"], "expressions": [one]} for one in said]
        whole.append({**own, "caption": None, "expressions": said})
    gold = chance.sample(lines, len(lines))
    right = evaluate(gold, gold).to_json()
    assert (right["f1_at_iou_0.5"], right["ap"]) == (1.0, 1.0)
    nfd = []
    for line in lines:
        [one] = line["expressions"]
        nfd.append(
            {**line, "expressions": [{**one, "text": one["text"].replace("\u00e9", "e\u0301")}]}
        )
    for found, truth in ((lines, gold), (whole, gold), (gold, whole), (nfd, lines)):
        run = evaluate(found, truth).to_json()
        assert (run["f1_at_iou_0.5"], run["expressions_missing"]) == (1.0, 0)
        assert run["intervals"] == right["intervals"]


def test_a_file_without_records_or_pictures_is_named(tmp_path: Path) -> None:
    found, gold = str(tmp_path / "found.jsonl"), str(tmp_path / "gold.jsonl")
    write_rows(Path(gold), {"image": "x.png", "expressions": ["a"]})
    cases = {
        "": "has no records",
        '{"images": [], "annotations": []}': "names no picture: `dataflowgrounding import`",
    }
    for text, said in cases.items():
        Path(found).write_text(text)
        done = command(["eval", found, "--gold", gold])
        assert (done.code, f"found.jsonl {said}" in done.err) == (2, True), done


# pandas writes ints next to a null as floats
@pytest.mark.parametrize("of", [int, float, str, np.int64, np.float32])
def test_boxes_of_a_resized_picture_are_scaled_and_it_is_said(of: Callable[[int], Any]) -> None:
    gold = {**record(a=[[10, 20, 30, 60]], b=[LEFT]), "width": 100, "height": 200}
    found = {**record(a=[[5, 40, 15, 120]], z=[LEFT]), "width": of(50), "height": of(400)}
    run = evaluate([found], [gold]).to_json()
    assert run["acc_0.5"] == 0.5
    assert run["miou"] == 0.5
    told = "boxes of 1 records of what was given are scaled to the size that what was given states"
    assert told in run["notes"]
    assert found["expressions"][0]["instances"][0]["bbox"] == [5, 40, 15, 120]


def test_pictures_by_id() -> None:
    gold = [record("a.png", dog=[]), {**record("b.png", dog=[]), "image_id": "b"}]
    other = {"image": "elsewhere/b.png", "image_id": "b", "expressions": [phrase("dog", [])]}
    assert evaluate([other], gold).figures["expressions_missing"] == 1
    # pandas writes a column of whole numbers with gaps as floats
    seven = evaluate([{**other, "image_id": 7.0}], [{**gold[0], "image_id": "7"}])
    assert seven.figures["expressions_missing"] == 0


def at(path: str | None, **more: Any) -> dict[str, Any]:
    """A dog in the picture at this path."""
    return {**record(dog=[]), "image_path": path, **more}


STATED = [at("1/0.jpg", image_id="v"), at("2/0.jpg", image_id="v")]


@pytest.mark.parametrize(
    ("found", "gold", "same"),
    [
        ([at("/1/0.jpg"), at("/2/0.jpg")], [at("/1/0.jpg")], True),
        ([at("0.png"), at("0.jpg")], [at("0.png")], True),
        (STATED, STATED[:1], True),  # two frames of what is called v
        (STATED[1:], [STATED[0], at("3/0.jpg")], True),
        # whose path both have is found by that alone
        ([at("2/0.jpg"), STATED[0]], STATED[1:], True),
        ([at("/1/0.jpg")], [at("/2/0.jpg")], False),
        ([at("0.png"), at("0.jpg")], [at("0.webp")], False),
        (STATED, [at(None, image_id="v")], False),
    ],
)
def test_a_picture_of_another_path_is_another_but_where_one_of_each_file_states_the_same_id(
    found: list[Any], gold: list[Any], same: bool
) -> None:
    for files in ((found, gold), (gold, found)):
        if not same:
            with pytest.raises(InputError, match="give both the same `image_path`, or `image_id`"):
                evaluate(*files)
    if same:
        run = evaluate(found, gold).figures
        assert (run["n_acc"], run["expressions_not_in_gold"]) == (1.0 / len(gold), 0)


def test_texts_for_expressions_and_bbox_score_are_read() -> None:
    cat = {"text": "cat", "instances": [{"bbox": LEFT, "bbox_score": 1}]}
    rows = [{"image_path": "x", "expressions": ["dog", cat]}]
    run = evaluate(rows, rows).figures
    assert (run["scored_boxes"], run["expressions_not_judged"]) == (1, 1)
    assert (run["acc_0.5"], run["n_acc"]) == (1.0, None)


@pytest.mark.parametrize("of", [np.array, np.float32, np.int64, tuple])
def test_boxes_and_scores_of_numpy_are_read(of: Callable[[Any], Any]) -> None:
    bbox = of(LEFT) if of in (np.array, tuple) else [of(n) for n in LEFT]
    run = evaluate([record(a=[(bbox, np.float32(0.5))])], [record(a=[(bbox, None)])])
    assert (run.figures["acc_0.5"], run.figures["ap"], run.figures["scored_boxes"]) == (1.0, 1.0, 1)


@pytest.mark.parametrize(
    "given", [record(a=[LEFT]), ["gold.jsonl"]], ids=["one record", "a list of paths"]
)
def test_what_is_no_list_of_records_is_named(given: Any) -> None:
    said = r"record 1 should be an object, not '.*': give a path or a list of records"
    with pytest.raises(InputError, match=said):
        evaluate([record(a=[LEFT])], given)


@pytest.mark.parametrize(
    "wrong", [{"threshold": 2}, {"threshold": "x"}, {"score_cut": -1}], ids=str
)
def test_rules_that_nothing_can_pass_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"{next(iter(wrong))} should be a number from 0 to 1, not"):
        Rules(**wrong)


def with_instance(**instance: Any) -> str:
    return json.dumps({"expressions": [{"text": "a", "instances": [instance]}]})


BROKEN = {
    '{"expressions": "dog"}': "should be a list of expressions",
    '{"expressions": [{}]}': "no 'text' in it",
    with_instance(bbox=[1]): "an instance needs 'bbox'",
    with_instance(bbox=[0, 0, 1, 1], score="high"): "'score' should be",
    with_instance(bbox=[0, 0, 1, 1], score=1.5): "'score' should be",
    '{"expressions": [{"text": "a", "char_span": [3, 3]}]}': "'char_span' should be",
    '{"expressions": [{"text": "a", "char_span": 3}]}': "'char_span' should be",
    '{"caption": "a", "expressions": [{"text": "a", "char_span": [0, 2]}]}': "'char_span' should be",
    "[1]": "should be a JSON object",
    "{": "not JSON",
}


@pytest.mark.parametrize("line", BROKEN)
def test_a_broken_line_is_named_with_its_file(line: str, tmp_path: Path) -> None:
    path = tmp_path / "gold.jsonl"
    path.write_text('{"expressions": []}\n\n' + line + "\n")
    with pytest.raises(InputError) as error:
        read_annotations(path)
    assert str(error.value).startswith(f"{path}, line 3: ")
    assert BROKEN[line] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", ["regions", "region_captions"])
def test_a_run_of_regions_alone_is_refused(column: str) -> None:
    regions = {"image_path": "x.png", column: [{"type": "a", "bbox": LEFT}]}
    with pytest.raises(InputError, match=f"has no `expressions`, but `{column}`; compared are"):
        evaluate([regions], [record(a=[LEFT])])
    # what a run that makes expressions of regions leaves of a row it lost
    failed = {**regions, "image_path": "y.png"}
    assert evaluate([record(a=[LEFT]), failed], [record(a=[LEFT])]).figures["acc_0.5"] == 1.0


def test_gold_without_phrases_is_no_gold() -> None:
    with pytest.raises(InputError, match="has no boxes"):
        evaluate([record(a=[LEFT])], [])


def test_empty_predictions_are_wrong_everywhere() -> None:
    run = evaluate([record()], [record(a=[LEFT], b=[])])
    assert run.figures["acc_0.5"] == 0.0
    assert run.figures["expressions_missing"] == 2
    assert (run.figures["n_acc"], run.figures["t_acc"], run.figures["il_mcc"]) == (0.0, 0.0, -1.0)
    assert run.right.tolist() == [False, False]


def test_odd_values_of_other_tools_are_no_crash() -> None:
    row = {**record(a=[LEFT]), "caption": ["c"], "width": "wide", "height": None}
    row |= {"model": ["m"], "image_path": {"x": 1}, "image_id": 0}
    odd = {"status": ["s"], "verified": {}, "type": {"t": 1}, "expression_id": ["i"]}
    row["expressions"][0] |= odd
    run = evaluate([row], [row])
    assert run.figures["acc_0.5"] == 1.0
