"""One thing, one box: near-duplicates are merged, and boxes over the whole picture are told of."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dataflow_grounding import BoxRefiner, PhraseGrounder
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.geometry import iou, without_duplicates
from dataflow_grounding.data.expressions import Instance
from dataflow_grounding.testing import LoopbackServer
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.answering import Answering
from tests.support.workplace import Workplace

CAT, DOG = [100, 100, 300, 300], [500, 100, 900, 500]
NEAR_CAT = [102, 98, 301, 303]  # IoU 0.961
LOOSE_CAT = [110, 100, 310, 310]  # IoU 0.864 with the first, 0.881 with the second


def objects(*boxes: tuple[int, list[int], float | None]) -> str:
    listed = [
        {"id": n, "label": ["a cat", "a dog"][n - 1], "bbox_2d": box, "score": s}
        for n, box, s in boxes
    ]
    return json.dumps({"objects": listed})


ROW: dict[str, Any] = {
    "image_path": Image.new("RGB", (1000, 800), "white"),
    "expressions": ["a cat", "a dog"],
}


def boxes_of(record: dict[str, Any], place: int = 0) -> list[tuple[list[int], float | None]]:
    return [
        (instance["bbox"], instance["score"])
        for instance in record["expressions"][place]["instances"]
    ]


Said = list[tuple[int, list[int], float | None]]
Kept = list[tuple[list[int], float | None]]
TWO = [(DOG, 0.1), (NEAR_CAT, 0.9)]
MERGED: dict[str, tuple[Said, Kept]] = {
    "the higher score stays": ([(1, CAT, 0.4), (1, NEAR_CAT, 0.9)], [(NEAR_CAT, 0.9)]),
    "the first of equal ones": ([(1, CAT, 0.5), (1, NEAR_CAT, 0.5)], [(CAT, 0.5)]),
    "the first without scores": ([(1, CAT, None), (1, NEAR_CAT, None)], [(CAT, None)]),
    "a score before none": ([(1, CAT, None), (1, NEAR_CAT, 0.0)], [(NEAR_CAT, 0.0)]),
    "two below 0.9": ([(1, CAT, 0.4), (1, LOOSE_CAT, 0.9)], [(CAT, 0.4), (LOOSE_CAT, 0.9)]),
    "another phrase's is another thing": ([(1, CAT, 0.4), (2, NEAR_CAT, 0.9)], [(CAT, 0.4)]),
    "the reply's order stays": ([(1, DOG, 0.1), (1, CAT, 0.4), (1, NEAR_CAT, 0.9)], TWO),
}


@pytest.mark.parametrize(("said", "kept"), MERGED.values(), ids=MERGED)
def test_near_duplicates_of_a_phrase_are_one(said: Said, kept: Kept) -> None:
    assert boxes_of(PhraseGrounder(Answering(objects(*said)))(ROW)) == kept


def test_merge_iou_is_the_users() -> None:
    reply = objects((1, CAT, None), (1, NEAR_CAT, None), (1, LOOSE_CAT, None))
    counts = {
        at: len(boxes_of(PhraseGrounder(Answering(reply), merge_iou=at)(ROW)))
        for at in (None, 1.0, 0.97, 0.9, 0.8)
    }
    assert counts == {None: 3, 1.0: 3, 0.97: 3, 0.9: 2, 0.8: 1}
    for wrong in (0, -1, 1.1):
        with pytest.raises(SpecError, match="merge_iou"):
            PhraseGrounder(Answering(reply), merge_iou=wrong)


def test_each_of_several_answers_is_merged_before_they_are_compared() -> None:
    twice, once = objects((1, CAT, None), (1, NEAR_CAT, None)), objects((1, CAT, None))
    record = PhraseGrounder(Answering(twice, once, twice), samples=3)(ROW)
    assert boxes_of(record) == [(CAT, 1.0)]
    assert record["expressions"][0]["disagreement"] is False


@pytest.mark.slow
def test_small_boxes_that_are_one_from_closer_by_are_merged() -> None:
    small, beside = [100, 100, 112, 112], [106, 100, 118, 112]
    whole = objects((1, small, None), (1, beside, None))
    crops = [objects((1, [400, 400, 480, 480], None)), objects((1, [361, 400, 441, 480], None))]
    row = {**ROW, "expressions": ["a cat"]}

    def refined(merge_iou: float | None) -> Kept:
        serving = Answering(whole, *crops)
        record = PhraseGrounder(serving, merge_iou=merge_iou)(row)
        return boxes_of(BoxRefiner(serving, merge_iou=merge_iou)(record))

    kept, apart = refined(0.9), refined(None)
    assert (len(kept), len(apart)) == (1, 2)
    (a, _), (b, _) = apart
    assert iou(tuple(a), tuple(b)) >= 0.9


sides = st.integers(0, 60)
scored = st.one_of(st.none(), st.integers(0, 4).map(lambda n: n / 4))


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    x, y = draw(sides), draw(sides)
    bbox = (x, y, x + draw(st.integers(1, 60)), y + draw(st.integers(1, 60)))
    return Instance(bbox, draw(scored))


@pytest.mark.slow
@given(st.lists(instances(), max_size=12), st.sampled_from([0.1, 0.5, 0.9, 1.0]))
def test_no_two_that_stay_are_near_and_each_that_goes_is_near_a_better_one(
    given_: list[Instance], at: float
) -> None:
    def rank(instance: Instance) -> float:
        return -1.0 if instance.score is None else instance.score

    kept = without_duplicates(given_, at)
    assert all(iou(a.bbox, b.bbox) < at for a, b in itertools.combinations(kept, 2))
    for gone in given_:
        near = [k for k in kept if iou(k.bbox, gone.bbox) >= at]
        assert any(rank(k) >= rank(gone) for k in near)
    assert [i for i in given_ if any(i is k for k in kept)] == kept
    assert without_duplicates(kept, at) == kept


@pytest.mark.slow
def test_ten_thousand_boxes() -> None:
    """What takes time in the square of that would never end."""
    boxes = [Instance((5 * n, 0, 5 * n + 40, 40)) for n in range(10_000)]
    assert len(without_duplicates([*boxes, *boxes], 0.9)) == 10_000


# --- boxes over the whole picture

WHOLE, NEARLY = [0, 0, 1000, 800], [0, 0, 1000, 780]  # 100%, 97.5%


@pytest.mark.parametrize(
    ("said", "doubtful"),
    [
        pytest.param([(1, WHOLE, None)], None, id="one thing may fill the picture"),
        pytest.param([(1, WHOLE, None), (2, DOG, None)], None, id="one of two"),
        pytest.param([(1, WHOLE, None), (2, [0, 5, 1000, 800], None)], True, id="both"),
        pytest.param([(1, NEARLY, None), (2, NEARLY, None)], None, id="both, under 98%"),
    ],
)
def test_a_record_in_whose_reply_several_phrases_have_the_whole_picture_is_doubtful(
    said: Said, doubtful: bool | None
) -> None:
    record = PhraseGrounder(Answering(objects(*said)))(ROW)
    assert record.get("doubtful") is doubtful
    assert len(boxes_of(record)) == 1, "it stays, to be looked at"


def test_equal_phrases_are_one_thing() -> None:
    found = [{"id": n, "label": "the sky", "bbox_2d": WHOLE} for n in (1, 2)]
    reply = json.dumps({"objects": found})
    row = {**ROW, "expressions": ["the sky", "The sky"]}
    assert "doubtful" not in PhraseGrounder(Answering(reply))(row)


def test_samples_are_doubtful_when_half_of_the_answers_are() -> None:
    fine, odd = objects((1, CAT, None), (2, DOG, None)), objects((1, WHOLE, None), (2, WHOLE, None))
    assert PhraseGrounder(Answering(odd, odd, fine), samples=3)(ROW)["doubtful"] is True
    assert "doubtful" not in PhraseGrounder(Answering(odd, fine, fine), samples=3)(ROW)


def test_a_run_counts_both_and_null_keeps_all_at_no_cost(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.picture(size=(1000, 800))
    workplace.rows([{"image_path": "a.jpg", "caption": "Alpha Beta"}])

    def answer(request: ReceivedRequest) -> dict[str, Any]:
        if request.task == "expression_extraction":
            return {
                "cleaned_caption": "Alpha Beta",
                "expressions": [{"text": "Alpha", "noun_chunk": "x"}] * 2,
            }
        boxes = [CAT, NEAR_CAT, [99, 100, 300, 300], WHOLE]
        return {
            "objects": [{"id": 1, "label": "Alpha", "bbox_2d": box, "score": None} for box in boxes]
        }

    server.answers = answer
    workplace.settings["vlm.openai.base_url"] = server.base_url
    notes = workplace.run().summary["notes"]
    assert (notes["merged"], notes["whole_picture"]) == (2, 1), notes
    [record] = workplace.annotations()
    assert [i["bbox"] for i in record["expressions"][0]["instances"]] == [CAT, WHOLE]
    sent = server.count()
    assert workplace.run(**{"workflow.merge_iou": None}).code == 0
    assert server.count() == sent
    [record] = workplace.annotations()
    assert len(record["expressions"][0]["instances"]) == 4
