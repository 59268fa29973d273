"""Boxes checked by a judge: what two answers of different kind decide, and what is done then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding import BoxChecker, MissingFinder, PhraseGrounder
from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.rows import read_records
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.evaluation.metrics import evaluate
from dataflow_grounding.operators._box_decisions import decided
from dataflow_grounding.operators._false_box import false_box_for
from dataflow_grounding.tasks.checks import FITS, Presence
from dataflow_grounding.testing import Answer, LoopbackServer, ReceivedRequest
from tests.support.endpoint import serving_of
from tests.support.half_filled import NOISE, scenes
from tests.support.stand_ins.erring_model import ErringModel, Errors
from tests.support.stand_ins.seeing_model import draw
from tests.support.steps import Steps, storage_in

SIZE = (1200, 900)
RED = [100, 120, 480, 600]
BLUE = [700, 300, 900, 700]

Says = Callable[[ReceivedRequest], Any]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("drawn") / "photo.png")
    draw(path, SIZE, {"red": [tuple(RED)], "blue": [tuple(BLUE)]})  # type: ignore[list-item]
    return path


def thousandths(bbox: list[int]) -> list[int]:
    return [round(1000 * edge / SIZE[place % 2]) for place, edge in enumerate(bbox)]


def judge(
    fits: dict[str, str] | None = None,
    there: dict[str, int] | None = None,
    finds: dict[str, list[list[int]]] | None = None,
) -> Says:
    """Says what it is told of each phrase; of all others, that their boxes are right."""

    def says(request: ReceivedRequest) -> Any:
        asked = request.input["phrases"]
        if request.task == "box_check":
            counts = [(there or {}).get(phrase["text"], 1) for phrase in asked]
            phrases = [
                {"id": phrase["id"], "there": count > 0, "count": count}
                for phrase, count in zip(asked, counts, strict=True)
            ]
            boxes = [
                {**box, "verdict": (fits or {}).get(box["text"], "right")}
                for box in request.input["boxes"]
            ]
            return {"phrases": phrases, "boxes": boxes}
        objects = [
            {"id": phrase["id"], "bbox_2d": bbox}
            for phrase in asked
            for bbox in (finds or {}).get(phrase["text"], [])
        ]
        return {"objects": objects}

    return says


def record_with(photo: str, **boxes: list[list[int]]) -> dict[str, Any]:
    expressions = []
    for number, (text, found) in enumerate(boxes.items()):
        instances = [{"bbox_id": f"a#{number}.{n}", "bbox": b} for n, b in enumerate(found)]
        status = "grounded" if found else "none"
        expression = {"expression_id": f"a#{number}", "text": text, "instances": instances}
        expressions.append({**expression, "status": status})
    return {"image_path": photo, "expressions": expressions}


def checked(server: LoopbackServer, says: Says, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The expressions after `workflow.check: true`."""
    server.answers = says
    serving = serving_of(server)
    record = BoxChecker(serving, check_every=None)(record)
    record = MissingFinder(serving, check_every=None)(record)
    expressions = record["expressions"]
    assert isinstance(expressions, list)
    assert record.get("doubtful", False) is any(e.get("doubtful") for e in expressions)
    return expressions


DIFFER = "the answers differ: "


@pytest.mark.parametrize(
    ("found", "fit", "count", "stays", "verified", "is_doubtful", "why"),
    [
        ([RED], "right", 1, [RED], True, False, ""),
        ([RED], "other", 0, [], True, False, "dropped"),
        ([RED], "nothing", 0, [], True, False, "dropped"),
        ([RED], "right", 0, [RED], None, True, DIFFER),
        ([RED], "other", 1, [RED], None, True, DIFFER),
        ([RED], "loose", 1, [RED], None, False, "a box is too large"),
        ([RED], "part", 1, [RED], None, False, "a box is on a part"),
        ([], "right", 0, [], True, False, ""),
        ([], "right", 1, [], None, True, "it may be there"),
    ],
)
def test_two_answers_of_one_request_decide_where_they_agree(
    server: LoopbackServer,
    photo: str,
    found: list[list[int]],
    fit: str,
    count: int,
    stays: list[list[int]],
    verified: bool | None,
    is_doubtful: bool,
    why: str,
) -> None:
    says = judge(fits={"dog": fit}, there={"dog": count})
    [expression] = checked(server, says, record_with(photo, dog=found))
    assert [box["bbox"] for box in expression["instances"]] == stays
    status = "grounded" if stays else "none"
    assert (expression["verified"], expression["status"]) == (verified, status)
    assert expression.get("doubtful", False) is is_doubtful
    assert why in (expression["verification"]["reason"] or "")
    if why == "dropped":
        [rejected] = expression["rejected"]
        assert rejected["bbox"] == RED
        assert rejected["reason"].endswith("; presence: no")
    further = ["missing_boxes"] if why == "it may be there" else []
    assert [request.task for request in server.requests] == ["box_check", *further]


@pytest.mark.parametrize(
    ("fits", "count", "kept", "dropped"),
    [
        (["other", "other"], 1, 2, 0),  # one of both should be right
        (["right", "right"], 1, 2, 0),  # one of both should be wrong
        (["other", "right", "right"], 2, 2, 1),
    ],
)
def test_no_more_boxes_go_than_the_count_allows(
    server: LoopbackServer, photo: str, fits: list[str], count: int, kept: int, dropped: int
) -> None:
    boxes = [[100 * n, 10, 100 * n + 90, 90] for n in range(len(fits))]
    says = of_one(count, *fits)
    [expression] = checked(server, says, record_with(photo, dog=boxes))
    assert len(expression["instances"]) == kept
    assert len(expression.get("rejected", [])) == dropped
    assert expression["verified"] is (True if dropped else None)


def of_one(count: int, *fits: str, finds: list[list[int]] | None = None) -> Says:
    """Says of the only phrase how many there are, and this of its boxes in turn."""

    def says(request: ReceivedRequest) -> Any:
        if request.task == "missing_boxes":
            return {"objects": [{"id": 1, "bbox_2d": bbox} for bbox in finds or []]}
        boxes = [{"id": n, "verdict": fit} for n, fit in enumerate(fits, 1)]
        return {"phrases": [{"id": 1, "there": count > 0, "count": count}], "boxes": boxes}

    return says


# What is missing


def test_what_lacks_is_asked_for_once_and_makes_its_phrase_doubtful(
    server: LoopbackServer, photo: str
) -> None:
    says = judge(there={"dog": 2}, finds={"dog": [thousandths(RED), thousandths(BLUE)]})
    dog, cup = checked(server, says, record_with(photo, dog=[RED], cup=[BLUE]))
    first, second = dog["instances"]
    assert (first["bbox"], second["bbox"], second["found_by"]) == (RED, BLUE, "missing_search")
    assert first["bbox_id"] != second["bbox_id"]
    assert (dog["verified"], dog["doubtful"], dog["status"]) == (None, True, "grounded")
    assert dog["verification"]["reason"] == "a box was found that no judge has seen"
    assert (cup["verified"], "doubtful" in cup) == (True, False)
    [request] = [r for r in server.requests if r.task == "missing_boxes"]
    assert [phrase["text"] for phrase in request.input["phrases"]] == ["dog"]
    assert [box["bbox_2d"] for box in request.input["boxes"]] == [thousandths(RED)]


def test_a_box_that_was_dropped_is_not_added_again(server: LoopbackServer, photo: str) -> None:
    """The count needs another one in its place."""
    server.answers = of_one(1, "other", "right", finds=[thousandths(RED)])
    serving = serving_of(server)
    record = BoxChecker(serving, check_every=None)(record_with(photo, dog=[RED, BLUE]))
    [dog] = record["expressions"]
    assert [box["bbox"] for box in dog["rejected"]] == [RED]
    dog["verification"]["count"] = 2
    [dog] = MissingFinder(serving, check_every=None)(record)["expressions"]
    assert [box["bbox"] for box in dog["instances"]] == [BLUE]
    assert dog["verified"] is True


def test_what_a_person_settled_is_not_asked_about(server: LoopbackServer, photo: str) -> None:
    record = record_with(photo, dog=[RED])
    record["expressions"][0].update(reviewed_by="ann", verified=True)
    says = judge(fits={"dog": "other"}, there={"dog": 0})
    assert checked(server, says, record)[0]["instances"][0]["bbox"] == RED
    assert server.count() == 0


def test_boxes_with_ids_that_are_not_their_own_are_told_apart(
    server: LoopbackServer, photo: str
) -> None:
    record = record_with(photo, dog=[RED, BLUE])
    for instance in record["expressions"][0]["instances"]:
        instance["bbox_id"] = "same"
    record["expressions"].append({**record["expressions"][0], "text": "cat"})  # the same id, too
    says = judge(fits={"cat": "other"}, there={"dog": 2, "cat": 0})
    dog, cat = checked(server, says, record)
    assert (len(dog["instances"]), len(cat["instances"])) == (2, 0)


def test_a_reply_that_is_cut_off_is_asked_for_in_halves(server: LoopbackServer, photo: str) -> None:
    whole = judge(fits={"cat": "other"}, there={"cat": 0})

    def says(request: ReceivedRequest) -> Any:
        reply = whole(request)
        is_long = len(next(iter(reply.values()))) > 1
        return Answer(json.dumps(reply)[:30], "length") if is_long else reply

    dog, cat = checked(server, says, record_with(photo, dog=[RED], cat=[BLUE]))
    assert (len(dog["instances"]), len(cat["instances"])) == (1, 0)


# Replies and rows that are wrong


def reply(boxes: list[tuple[int, str]], there: Any = False, ids: tuple[int, ...] = (1, 2)) -> str:
    phrases = [{"id": n, "there": there, "count": 0} for n in ids]
    return json.dumps(
        {"phrases": phrases, "boxes": [{"id": n, "verdict": fit} for n, fit in boxes]}
    )


HOSTILE = {
    "prose": "Both boxes are wrong: nothing there. I would drop id 1 and id 2.",
    "another task's answer": json.dumps({"objects": [{"id": 1, "bbox_2d": [1, 2, 3, 4]}]}),
    "ids of nothing": reply([(0, "other")], ids=(7,)),
    "a box missing": reply([(1, "other")]),
    "verdicts that contradict": reply(
        [(n, fit) for n in (1, 2) for fit in ("other", "right")],
    ),
    "lists that contradict": (
        '{"phrases": [{"id": 1, "there": false}, {"id": 2, "there": false}],'
        ' "boxes": [{"id": 1, "verdict": "right"}, {"id": 2, "verdict": "right"}],'
        ' "boxes": [{"id": 1, "verdict": "other"}, {"id": 2, "verdict": "other"}]}'
    ),
    "words of its own": reply([(1, "wrong"), (2, "wrong")], there="hardly"),
    "one item again and again": '{"phrases": [' + '{"id": 1, "there": false, "count": 0},' * 2_000,
    "brackets": "{" * 500_000,
}


def test_no_box_goes_on_a_reply_that_is_no_answer(
    server: LoopbackServer, photo: str, tmp_path: Path
) -> None:
    """Each record's replies are of one kind; two steps over files."""
    rows = []
    for number in range(len(HOSTILE)):
        record = record_with(photo, **{f"dog {number}": [RED], f"cat {number}": [BLUE]})
        rows.append({**record, "image_id": str(number)})

    def says(request: ReceivedRequest) -> Answer:
        first = request.input["phrases"][0]["text"]
        return Answer([*HOSTILE.values()][int(first.split()[1])])

    server.answers = says
    serving = serving_of(server)
    steps = [step(serving, check_every=None) for step in (BoxChecker, MissingFinder)]
    pipeline = Steps(storage_in(tmp_path, *rows), *steps)
    with holding(current_options, RunOptions(max_attempts=1)):
        pipeline.run()
    for name, record in zip(HOSTILE, pipeline.records(), strict=True):
        dog, cat = record["expressions"]
        assert [i["bbox"] for i in dog["instances"] + cat["instances"]] == [RED, BLUE], name
        assert ("rejected" in dog, "rejected" in cat) == (False, False), name
        assert (dog["verified"], cat["verified"]) == (None, None), name
        assert dog["doubtful"] is cat["doubtful"] is record["doubtful"] is True, name
    failures = read_records(pipeline.storage.failures_path)
    assert sorted(failure["id"] for failure in failures) == sorted(map(str, range(len(HOSTILE))))
    assert {failure["kind"] for failure in failures} <= {"unreadable_reply", "truncated_reply"}


def test_more_boxes_than_lacked_are_counted(
    server: LoopbackServer, photo: str, tmp_path: Path
) -> None:
    boxes = [thousandths(BLUE), [10, 10, 60, 60], [900, 900, 950, 950]]
    server.answers = judge(finds={"dog": boxes})
    serving = serving_of(server)
    steps = [step(serving, check_every=None) for step in (BoxChecker, MissingFinder)]
    pipeline = Steps(storage_in(tmp_path, record_with(photo, dog=[])), *steps)
    summary = pipeline.run()
    [record] = pipeline.records()
    assert [i["bbox"] for i in record["expressions"][0]["instances"]] == [BLUE]
    assert (summary.notes["found_missing"], summary.notes["found_too_many"]) == (1, 2)


NAMES = "method boxes bbox_id verdict second score decision there count crop reason found_by"
KEYS = st.sampled_from(NAMES.split())
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "right", "yes", "a.0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from([*FITS, "a.0", "kept", "undecided", 0.5, True, "missing_search"])
VERDICT = st.dictionaries(KEYS, JUNK | WORDS)
VERIFICATION = st.fixed_dictionaries(
    {"method": st.just("check"), "boxes": st.lists(VERDICT | JUNK, max_size=4)},
    optional={"there": JUNK, "count": JUNK, "second": JUNK | st.just("crop")},
)


@pytest.mark.slow
@given(verification=VERIFICATION | JUNK, rejected=JUNK)
def test_what_a_row_says_of_an_earlier_check_may_be_anything(
    one_server: LoopbackServer, photo: str, verification: Any, rejected: Any
) -> None:
    one_server.answers = judge()
    record = record_with(photo, dog=[RED])
    record["expressions"][0].update(verification=verification, rejected=rejected)
    record["expressions"][0]["instances"][0]["bbox_id"] = "a.0"
    for step in (MissingFinder, BoxChecker):
        after = step(serving_of(one_server), check_every=None)(record)
        [expression] = after["expressions"]
        assert [box["bbox"] for box in expression["instances"]][:1] == [RED]
        json.dumps(expression)


# What the answers decide


@given(
    fits=st.lists(st.sampled_from([*FITS, None]), max_size=4),
    there=st.sampled_from([True, False, None]),
    count=st.none() | st.integers(0, 5),
)
def test_no_box_is_lost_and_none_goes_on_one_answer(
    fits: list[Any], there: bool | None, count: int | None
) -> None:
    instances = [Instance((n, 0, n + 9, 9), bbox_id=f"a.{n}") for n in range(len(fits))]
    expression = Expression("dog", "a", instances)
    if there is not None and count is not None and there != (count > 0):
        count = None  # such a contradiction is read as no answer
    result = decided(expression, Presence(there, count), fits)
    kept = [str(instance.bbox_id) for instance in result.instances]
    gone = [str(instance.bbox_id) for instance in result.rejected or []]
    assert sorted(kept + gone) == [instance.bbox_id for instance in instances]
    denied = [f"a.{n}" for n, fit in enumerate(fits) if fit in ("other", "nothing")]
    assert set(gone) <= set(denied)
    if there is None:
        assert not gone
    if there and count is None:
        assert not gone
    if there and count is not None and gone:
        assert len(kept) >= count
    if there is False:
        assert gone == denied
    if result.verified and kept:
        assert there
        assert all(fits[int(bbox_id[2:])] == "right" for bbox_id in kept)
    assert result.verification is not None
    assert 0 <= (result.verification.score or 0) <= 1
    json.dumps(result.to_json())


# A false box among the others


@pytest.mark.parametrize("fit", ["loose", "other"])
def test_false_boxes_are_counted_and_what_accepts_them_is_told(
    server: LoopbackServer, photo: str, tmp_path: Path, fit: str
) -> None:
    def says(request: ReceivedRequest) -> Any:
        boxes = [{"id": box["id"], "verdict": "right"} for box in request.input["boxes"]]
        boxes[-1]["verdict"] = fit
        return {"phrases": [{"id": 1, "there": True, "count": 1}], "boxes": boxes}

    server.answers = says
    rows = [{**record_with(photo, dog=[RED]), "image_id": f"photo {number}"} for number in range(3)]
    checker = BoxChecker(serving_of(server), check_every=1)
    pipeline = Steps(storage_in(tmp_path, *rows), checker)
    summary = pipeline.run()
    for record in pipeline.records():
        [dog] = record["expressions"]
        assert ([box["bbox"] for box in dog["instances"]], dog["verified"]) == ([RED], True)
        assert len(dog["verification"]["boxes"]) == 1
        assert "rejected" not in dog
    is_accepted = fit == "loose"
    assert summary.notes["false_boxes"] == 3
    assert summary.notes["false_boxes_accepted"] == 3 * is_accepted
    warning = "Warning: the judge accepted 3 of 3 false boxes"
    assert (warning in str(summary)) is is_accepted


def test_a_false_box_is_the_same_on_each_call_and_touches_nothing(
    server: LoopbackServer, photo: str
) -> None:
    server.answers = judge(there={"dog": 1})
    for _ in range(2):
        checker = BoxChecker(serving_of(server), check_every=1)
        checker(record_with(photo, dog=[RED], cup=[BLUE]))
    [first, second] = [request.input["boxes"] for request in server.requests]
    assert first == second
    own = [thousandths(RED), thousandths(BLUE)]
    [false_one] = [box["bbox_2d"] for box in first if box["bbox_2d"] not in own]
    for box in own:
        is_beside = false_one[2] <= box[0] or box[2] <= false_one[0]
        assert is_beside or false_one[3] <= box[1] or box[3] <= false_one[1]


def test_no_false_box_is_shown_where_no_part_is_empty(server: LoopbackServer, photo: str) -> None:
    server.answers = judge()
    BoxChecker(serving_of(server), check_every=1)(record_with(photo, dog=[[0, 0, *SIZE]]))
    assert [len(request.input["boxes"]) for request in server.requests] == [1]


def test_about_one_record_in_as_many_as_stated_has_a_false_box() -> None:
    expressions = [Expression("dog", instances=[Instance(box_of(RED))])]
    shown = 0
    for number in range(2000):
        record = Record({"image_path": "a.png"}, image_id=f"photo {number}")
        shown += false_box_for(record, 20, {0: expressions[0]}, expressions, SIZE) is not None
    assert 70 < shown < 130
    assert false_box_for(record, None, {0: expressions[0]}, expressions, SIZE) is None


@pytest.mark.slow
def test_the_check_brings_what_it_should(tmp_path: Path, server: LoopbackServer) -> None:
    """`benchmarks.box_quality --part checks` has more pictures, judges and errors."""
    gold = scenes(tmp_path, 8, seed=3, shrink=2)
    rows: Any = []
    for record in gold:
        texts = [expression["text"] for expression in record["expressions"]]
        rows.append({"image_path": record["image_path"], "caption": "", "expressions": texts})
    errors = Errors(absent=0.9, noise=NOISE, accuracy=0.92)
    server.answers = ErringModel(errors, seed=3)
    serving = serving_of(server)
    plain: Any = PhraseGrounder(serving)(rows)
    checked: Any = MissingFinder(serving)(BoxChecker(serving)(plain))
    before, after = (evaluate(found, gold).figures for found in (plain, checked))
    assert before["il_mcc"] < 0.3
    assert after["il_mcc"] > 0.7
    assert after["recall_at_iou_0.5"] >= before["recall_at_iou_0.5"] - 0.05
    right = []
    for truth, record in zip(gold, checked, strict=True):
        there = {item["text"]: bool(item["instances"]) for item in truth["expressions"]}
        for item in record["expressions"]:
            if item.get("verified", True) is not None:
                right.append(bool(item["instances"]) is there[item["text"]])
    assert len(right) >= 0.6 * 8 * 8
    assert right.count(False) <= 0.05 * len(right), "of those that are decided"
