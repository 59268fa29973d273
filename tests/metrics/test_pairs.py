"""Which phrase is which, and what reading refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.errors import InputError
from dataflow_grounding.metrics import agreement, evaluate, read_annotations
from dataflow_grounding.metrics.pairs import pair
from tests.metrics.cases import LEFT, phrase, record


def partners(found: list[Any], gold: list[Any]) -> list[int]:
    """For each gold phrase the place of its partner among all found ones, or -1."""
    answers = read_annotations(found)
    places = {id(phrase): place for place, phrase in enumerate(answers.phrases)}
    pairs = pair(answers, read_annotations(gold))
    return [places.get(id(partner), -1) for record in pairs for _, partner in record.phrases]


def with_ids(*given: tuple[Any, str]) -> dict[str, Any]:
    return {**record(), "expressions": [phrase(text, [], expression_id=own_id) for own_id, text in given]}


def test_phrases_by_text_up_to_case_and_spacing() -> None:
    assert partners([record(The__Dog=[], cat=[])], [record(cat=[], the_dog=[], fox=[])]) == [1, 0, -1]


def test_a_repeated_phrase_is_its_own_occurrence() -> None:
    both = {**record(), "expressions": [phrase("a dog", []), phrase("a cat", []), phrase("a dog", [])]}
    assert partners([both], [both]) == [0, 1, 2]
    assert partners([{**both, "expressions": both["expressions"][:2]}], [both]) == [0, 1, -1]


def test_phrases_by_id_where_both_have_one() -> None:
    assert partners([with_ids(("e1", "dog"), ("e2", "dog"))], [with_ids(("e2", "dog"), ("e1", "a dog"))]) == [1, 0]
    assert partners([with_ids((7, "a dog"))], [with_ids(("7", "the dog"))]) == [0]
    assert partners([record(dog=[])], [with_ids(("e2", "dog"))]) == [0]


def test_ids_that_say_a_place_do_not_join_other_texts() -> None:
    assert partners([with_ids(("x#0", "dog"), ("x#1", "cat"))], [with_ids(("x#0", "cat"), ("x#1", "dog"))]) == [1, 0]
    assert partners([with_ids(("x#0", "dog"))], [with_ids(("x#0", "cat"))]) == [-1]
    same = with_ids(("x#0", "dog"), ("x#1", "dog"))
    assert partners([same], [with_ids(("x#1", "dog"))]) == [1]


def test_records_by_image_and_caption() -> None:
    gold = [record("a.png", "one", dog=[]), record("a.png", "two", dog=[]), record("b.png", "one", dog=[])]
    assert partners(gold[::-1], gold) == [2, 1, 0]
    assert partners([record("./a.png", "two", dog=[])], gold) == [-1, 0, -1]
    with pytest.raises(InputError, match="have no record of the same image"):
        partners([record("a.png", "three", dog=[])], gold)
    twice = [record(dog=[LEFT]), record(dog=[])]  # the same image and caption in two rows: in their order
    assert partners(twice, twice) == [0, 1]


def test_images_by_id_and_records_without_caption() -> None:
    gold = [record("a.png", "one", dog=[]), {**record("b.png", "one", dog=[]), "image_id": "b"}]
    other = {"image": "elsewhere/b.png", "image_id": "b", "expressions": [phrase("dog", [])]}
    assert partners([other], gold) == [-1, 0]
    assert partners([record("a.png", "one", dog=[])], [record("a.png", None, dog=[])]) == [0]


def test_texts_for_expressions_and_bbox_score_are_read() -> None:
    cat = {"text": "cat", "instances": [{"bbox": LEFT, "bbox_score": 1}]}
    run = evaluate(
        [{"image_path": "x", "expressions": ["dog", cat]}], [{"image_path": "x", "expressions": ["dog", cat]}]
    )
    assert (run.figures["scored_boxes"], run.figures["acc_0.5"], run.figures["n_acc"]) == (1, 1.0, 1.0)


BROKEN = {
    '{"expressions": "dog"}': "should be a list of expressions",
    '{"expressions": [{}]}': "no 'text' in it",
    '{"expressions": [{"text": "a", "instances": [{"bbox": [1]}]}]}': "an instance needs 'bbox'",
    '{"expressions": [{"text": "a", "instances": [{"bbox": [0, 0, 1, 1], "score": "high"}]}]}': "'score' should be",
    '{"expressions": [{"text": "a", "instances": [{"bbox": [0, 0, 1, 1], "score": 1.5}]}]}': "'score' should be",
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


def test_gold_without_phrases_is_no_gold() -> None:
    with pytest.raises(InputError, match="has no boxes"):
        evaluate([record(a=[LEFT])], [])


def test_empty_predictions_are_wrong_everywhere() -> None:
    run = evaluate([], [record(a=[LEFT], b=[])])
    assert run.figures["acc_0.5"] == 0.0
    assert (run.figures["expressions_missing"], run.figures["gprec_f1"]) == (2, 0.0)
    assert (run.figures["n_acc"], run.figures["t_acc"], run.figures["il_mcc"]) == (0.0, 0.0, -1.0)
    assert run.right.tolist() == [False, False]


def test_odd_values_of_other_tools_are_no_crash() -> None:
    row = {
        **record(a=[LEFT]),
        "caption": ["c"],
        "width": "wide",
        "height": None,
        "model": ["m"],
        "image_path": {"x": 1},
    }
    row["expressions"][0] |= {"status": ["s"], "verified": {}, "type": {"t": 1}, "expression_id": ["i"]}
    run = evaluate([row], [row])
    assert run.figures["acc_0.5"] == 1.0
    assert run.to_json()["groups"]["status"] == {"['s']": run.to_json()["groups"]["model"]["['m']"]}
    assert agreement([row], [row])["alpha_status"] is None
