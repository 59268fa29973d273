"""Box formats of the user's own, records whose replies needed much mending, and what replies say
next to their answers.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import PhraseGrounder
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.operators._agreement import merge_answers
from dataflow_grounding.operators._box_decisions import decided
from dataflow_grounding.tasks.checks import Presence
from dataflow_grounding.tasks.grounding import Found
from tests.support.answering import Answering

PICTURE = Image.new("RGB", (200, 100), "white")
ROW: dict[str, Any] = {"image_path": PICTURE, "expressions": ["a cat", "a dog"]}


def test_a_row_of_the_users_own_settles_how_an_unknown_model_writes_boxes() -> None:
    serving = Answering('{"objects": [{"id": 1, "label": "a cat", "box": [100, 200, 500, 600]}]}')
    serving.model, serving.box_format = "our-own-vlm-7b", "auto"
    serving.box_formats = [{"models": ["our-own-*"], "order": "yxyx", "scale": 1000, "key": "box"}]
    record = PhraseGrounder(serving)(ROW)
    assert record["expressions"][0]["instances"][0]["bbox"] == [40, 10, 120, 50]
    assert "doubtful" not in record


def test_a_record_whose_boxes_were_mostly_moved_is_marked_doubtful() -> None:
    cat, dog = (
        '"label": "a cat", "bbox_2d": [900, 10, 1060, 400]',
        '"label": "a dog", "bbox_2d": [10, 900, 400, 1080]',
    )
    far = f'{{"objects": [{{"id": 1, {cat}}}, {{"id": 2, {dog}}}]}}'
    record = PhraseGrounder(Answering(far), box_format="xyxy_1000")(ROW)
    assert (record["doubtful"], record["doubt"]) == (True, "much was dropped or moved")
    near = far.replace("1060", "990").replace("1080", "990")
    assert PhraseGrounder(Answering(near), box_format="xyxy_1000")(record)["doubtful"] is False


ANSWER = """```json
[{"id": 1, "label": "a cat", "bbox_2d": [1, 2, 30, 40]},
 {"id": 2, "label": "a dog", "bbox_2d": [50, 2, 90, 40]}]
```"""


def grounded(row: dict[str, Any], *texts: str, **settings: Any) -> dict[str, Any]:
    settings |= {"box_format": "xyxy_px", "check_every": None}  # records alone ask
    return dict(PhraseGrounder(Answering(*texts), **settings)(row))


@pytest.mark.slow
def test_a_record_keeps_what_its_reply_says_next_to_the_answer() -> None:
    plain = grounded(ROW, ANSWER)
    record = grounded(ROW, f"I found 2 objects.\n{ANSWER}")
    assert record == {**plain, "remark": "I found 2 objects."}
    assert "remark" not in plain
    again = grounded(record, ANSWER)
    assert again.pop("remark") is None
    assert again == plain


def test_a_user_s_own_column_of_that_name_stays() -> None:
    assert grounded({**ROW, "remark": "taken at night"}, ANSWER)["remark"] == "taken at night"


@pytest.mark.slow
def test_remarks_of_several_answers_are_kept_once_each() -> None:
    many = {**ROW, "expressions": [f"cat number {number}" for number in range(32)]}
    objects = [{"id": number, "bbox_2d": [number, 2, number + 30, 40]} for number in range(1, 17)]
    answers = [
        f"{said}\n{json.dumps(objects)}" for said in ("All are cats.", "I found 16 objects.")
    ]
    record = grounded(many, *answers)
    assert record["remark"] == "All are cats. … I found 16 objects."
    texts = ("I found 2 objects.", "Both are there.", "I found 2 objects.")
    sampled = grounded(ROW, *[f"{text}\n{ANSWER}" for text in texts], samples=3)
    assert sampled["remark"] == "I found 2 objects. … Both are there."


WOLF = ANSWER.replace("a dog", "a wolf")


def test_a_phrase_that_the_reply_calls_otherwise_is_doubtful_and_so_is_its_record() -> None:
    record = grounded(ROW, WOLF)
    cat, dog = record["expressions"]
    assert not {"doubtful", "doubt"} & set(cat)
    assert (dog["doubtful"], dog["doubt"]) == (True, record["doubt"])
    assert "a wolf" in record["doubt"]
    assert record["doubtful"] is True
    again = grounded(record, ANSWER)
    assert not {"doubtful", "doubt"} & set(again["expressions"][1]), "these are new boxes"
    assert (again["doubtful"], again["doubt"]) == (False, None)


def test_the_doubt_about_a_whole_reply_goes_before_that_about_a_phrase() -> None:
    everywhere = WOLF.replace("[1, 2, 30, 40]", "[0, 0, 200, 100]")
    everywhere = everywhere.replace("[50, 2, 90, 40]", "[0, 0, 200, 100]")
    record = grounded(ROW, everywhere)
    assert record["doubt"] == "several phrases have the whole picture"
    assert "a wolf" in record["expressions"][1]["doubt"]


BOX = [Instance((1, 2, 30, 40))]


@pytest.mark.parametrize(("unsure", "doubt"), [(1, ""), (2, "a guess"), (3, "a guess")])
def test_a_phrase_is_doubtful_if_half_of_its_samples_are(unsure: int, doubt: str) -> None:
    answers = [Found("grounded", BOX, own_doubt="a guess")] * unsure
    answers += [Found("grounded", BOX)] * (4 - unsure)
    merged = merge_answers(answers, 4)
    assert (merged.own_doubt, merged.doubt) == (doubt, "")


def test_a_check_that_decides_on_a_phrase_takes_its_doubt_away() -> None:
    row = {
        "expression_id": "a#0",
        "text": "a dog",
        "status": "grounded",
        "instances": [{"bbox": [1, 2, 30, 40], "bbox_id": "a#0.0"}],
        "doubtful": True,
        "doubt": "the reply isn't sure of it",
    }
    expression = Expression.from_json(row)
    checked = decided(expression, Presence(True, 1), ["right"])
    assert checked.verified is True
    assert not {"doubtful", "doubt"} & set(checked.to_json())
