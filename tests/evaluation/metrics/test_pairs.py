"""Which phrase is which, and what reading refuses."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding.evaluation.metrics import (
    Rules,
    agreement,
    evaluate,
    read_annotations,
)
from dataflow_grounding.evaluation.metrics.pairs import Pairs
from tests.evaluation.metrics.cases import LEFT, RIGHT, phrase, record
from tests.support.workplace import command, write_rows


def partners(found: list[Any], gold: list[Any]) -> list[int]:
    """For each gold phrase the place of its partner among all found ones, or -1."""
    answers = read_annotations(found)
    phrases = [phrase for record in answers for phrase in record["expressions"]]
    places = {id(phrase): place for place, phrase in enumerate(phrases)}
    pairs = Pairs(answers, read_annotations(gold))
    return [places.get(id(partner), -1) for record in pairs for _, partner in record.phrases]


def with_ids(*given: tuple[Any, str]) -> dict[str, Any]:
    phrases = [phrase(text, [], expression_id=own_id) for own_id, text in given]
    return {**record(), "expressions": phrases}


def test_phrases_by_text_up_to_case_and_spacing() -> None:
    gold = [record(cat=[], the_dog=[], fox=[])]
    assert partners([record(The__Dog=[], cat=[])], gold) == [1, 0, -1]


def test_a_repeated_phrase_is_its_own_occurrence() -> None:
    both = {**record(), "expressions": [phrase(text, []) for text in ("a dog", "a cat", "a dog")]}
    assert partners([both], [both]) == [0, 1, 2]
    assert partners([{**both, "expressions": both["expressions"][:2]}], [both]) == [0, 1, -1]


def test_phrases_by_id_where_both_have_one() -> None:
    found, gold = with_ids(("e1", "dog"), ("e2", "dog")), with_ids(("e2", "dog"), ("e1", "a dog"))
    assert partners([found], [gold]) == [1, 0]
    assert partners([with_ids(("e7", "a dog"))], [with_ids(("e7", "the dog"))]) == [0]
    # a place, for all that is known
    assert partners([with_ids((7, "a dog"))], [with_ids(("7", "a cat"))]) == [-1]
    assert partners([record(dog=[])], [with_ids(("e2", "dog"))]) == [0]
    # "0" is no name for one: another tool's place
    again = {**with_ids(("0", "dog")), "image_path": "y.png"}
    assert partners([with_ids(("0", "dog")), again], [with_ids(("0", "a cat")), again]) == [-1, 1]


def test_ids_that_say_a_place_do_not_join_other_texts() -> None:
    found, gold = with_ids(("x#0", "dog"), ("x#1", "cat")), with_ids(("x#0", "cat"), ("x#1", "dog"))
    assert partners([found], [gold]) == [1, 0]
    assert partners([with_ids(("x#0", "dog"))], [with_ids(("x#0", "cat"))]) == [-1]
    same = with_ids(("x#0", "dog"), ("x#1", "dog"))
    assert partners([same], [with_ids(("x#1", "dog"))]) == [1]


def test_records_by_image_and_caption() -> None:
    places = (("a.png", "one"), ("a.png", "two"), ("b.png", "one"))
    gold = [record(path, caption, dog=[]) for path, caption in places]
    assert partners(gold[::-1], gold) == [2, 1, 0]
    assert partners([record("./a.png", "two", dog=[])], gold) == [-1, 0, -1]
    with pytest.raises(InputError, match="have no record of the same image"):
        partners([record("c.png", "one", dog=[])], gold)
    found = [record("a.png", "  three", dog=[]), record("b.png", " one", dog=[])]
    assert partners(found, gold) == [0, -1, 1]
    # the same image and caption in two rows: by their boxes
    twice = [record(dog=[LEFT]), record(dog=[])]
    assert (partners(twice, twice), partners(twice[::-1], twice)) == ([0, 1], [1, 0])


@pytest.mark.slow
@pytest.mark.parametrize("captioned", [True, False])
@pytest.mark.parametrize("owner", ["own", "id", "none"])
def test_neither_the_order_of_lines_nor_how_phrases_lie_in_records_counts(
    captioned: bool, owner: str
) -> None:
    chance = random.Random(0)
    lines, whole = [], []
    for image in range(9):
        own: dict[str, Any] = {"image_id": image}
        own["image_path"] = None if owner == "id" else f"{image}.png"
        texts = [chance.choice(["man", "a dog", "the cat", "caf\u00e9"]) for _ in range(5)]
        said = [phrase(text, [[n, n, n + 5, n + 9]]) for n, text in enumerate(texts)]
        if owner == "own":
            said = [{**one, "expression_id": f"e{image}.{n}"} for n, one in enumerate(said)]
        for one in said:
            caption = one["text"] if captioned else None
            lines.append({**own, "caption": caption, "expressions": [one]})
        whole.append({**own, "caption": None, "expressions": said})
    gold = chance.sample(lines, len(lines))
    right = evaluate(gold, gold).to_json()
    assert (right["acc_0.5"], right["ap"]) == (1.0, 1.0)
    nfd = []
    for row in lines:
        [one] = row["expressions"]
        one = {**one, "text": one["text"].replace("\u00e9", "e\u0301")}
        nfd.append({**row, "expressions": [one]})
    for found, truth in ((lines, gold), (whole, gold), (gold, whole), (nfd, lines)):
        run = evaluate(found, truth).to_json()
        assert (run["acc_0.5"], run["expressions_missing"]) == (1.0, 0)
        assert run["intervals"] == right["intervals"]


FIRST, SECOND = phrase("a man", [LEFT]), phrase("a man", [RIGHT])
NONE = phrase("a man", [], status="none")


@pytest.mark.parametrize("found", [[FIRST, NONE], [NONE, SECOND]], ids=["first", "second"])
@pytest.mark.parametrize("gold", [[FIRST, SECOND], [SECOND, FIRST]], ids=["in order", "turned"])
def test_equal_phrases_are_one_by_their_boxes_whether_a_line_is_an_image_or_a_phrase(
    found: list[Any], gold: list[Any]
) -> None:
    files = []
    for said in (found, gold):
        lines = [{**record(), "expressions": [one]} for one in said]
        files.append(([{**record(), "expressions": said}], lines, lines[::-1]))
    for given, truth in itertools.product(*files):
        run = evaluate(given, truth).figures
        assert (run["acc_0.5"], run["precision_at_iou_0.5"]) == (0.5, 1.0)
        assert agreement(given, truth)["f1_0.5"] == 0.6667


def test_equal_phrases_are_one_by_their_spans() -> None:
    row = {**record(), "caption": "a man hands a cup to a man"}
    said = [{**FIRST, "char_span": [0, 5]}, {**SECOND, "char_span": [21, 26]}]
    turned = [{**SECOND, "char_span": [0, 5]}, {**FIRST, "char_span": [21, 26]}]
    run = evaluate([{**row, "expressions": said[::-1]}], [{**row, "expressions": said}]).figures
    assert (run["acc_0.5"], run["joint"]) == (1.0, 1.0)
    run = evaluate([{**row, "expressions": turned}], [{**row, "expressions": said}]).figures
    assert (run["acc_0.5"], run["joint"]) == (0.0, 0.0)


@pytest.mark.slow
def test_very_many_equal_phrases_are_paired_in_time() -> None:
    leaves = [phrase("leaf", [[n, 0, n + 5, 5]]) for n in range(3000)]
    found, gold = ({**record(), "expressions": each} for each in (leaves, leaves[::-1]))
    assert evaluate([found], [gold]).figures["acc_0.5"] == 1.0


def test_a_file_without_records_or_pictures_is_named(tmp_path: Path) -> None:
    found, gold = str(tmp_path / "found.jsonl"), str(tmp_path / "gold.jsonl")
    write_rows(Path(gold), {"image": "x.png", "expressions": ["a"]})
    cases = {
        "": "has no records",
        '{"images": [], "annotations": []}': "names no picture: `dataflowgrounding import`",
    }
    for text, said in cases.items():
        Path(found).write_text(text)
        for words in (["eval", found, "--gold", gold], ["agree", found, gold]):
            done = command(words)
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
    assert agreement([found], [gold])["mean_iou"] == 1.0


def test_images_by_id_and_records_without_caption() -> None:
    gold = [record("a.png", "one", dog=[]), {**record("b.png", "one", dog=[]), "image_id": "b"}]
    other = {"image": "elsewhere/b.png", "image_id": "b", "expressions": [phrase("dog", [])]}
    assert partners([other], gold) == [-1, 0]
    # pandas writes a column of whole numbers with gaps as floats
    assert partners([{**other, "image_id": 7.0}], [{**gold[0], "image_id": "7"}]) == [0]
    assert partners([record("a.png", "one", dog=[])], [record("a.png", None, dog=[])]) == [0]


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
        if same:
            assert agreement(*files)["expressions"] == 1
        else:
            with pytest.raises(InputError, match="give both the same `image_path`, or `image_id`"):
                agreement(*files)
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
    for compare in (evaluate, agreement):
        with pytest.raises(InputError, match=f"has no `expressions`, but `{column}`; compared are"):
            compare([regions], [record(a=[LEFT])])
    # what a run that makes expressions of regions leaves of a row it lost
    failed = {**regions, "image_path": "y.png"}
    assert evaluate([record(a=[LEFT]), failed], [record(a=[LEFT])]).figures["acc_0.5"] == 1.0


def test_gold_without_phrases_is_no_gold() -> None:
    with pytest.raises(InputError, match="has no boxes"):
        evaluate([record(a=[LEFT])], [])


def test_empty_predictions_are_wrong_everywhere() -> None:
    run = evaluate([record()], [record(a=[LEFT], b=[])])
    assert str(run.figures["cgf1"]) == "0.0"
    assert run.figures["acc_0.5"] == 0.0
    assert (run.figures["expressions_missing"], run.figures["gprec_f1"]) == (2, 0.0)
    assert (run.figures["n_acc"], run.figures["t_acc"], run.figures["il_mcc"]) == (0.0, 0.0, -1.0)
    assert run.right.tolist() == [False, False]


def test_odd_values_of_other_tools_are_no_crash() -> None:
    row = {**record(a=[LEFT]), "caption": ["c"], "width": "wide", "height": None}
    row |= {"model": ["m"], "image_path": {"x": 1}, "image_id": 0}
    odd = {"status": ["s"], "verified": {}, "type": {"t": 1}, "expression_id": ["i"]}
    row["expressions"][0] |= odd
    run = evaluate([row], [row])
    assert run.figures["acc_0.5"] == 1.0
    groups = run.to_json()["groups"]
    assert groups["status"] == {"['s']": groups["model"]["['m']"]}
    assert agreement([row], [row])["alpha_status"] is None
