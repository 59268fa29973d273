"""Decisions laid over records, as they were and as a later run left them: nothing is lost, nothing
is made up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.review._decisions import review_files
from dataflow_grounding.review._overlay import version_of
from dataflow_grounding.review._record_view import expressions_of
from dataflow_grounding.review.reviewable import Reviewable
from dataflow_grounding.review.session import Session
from tests.support.opened import opened
from tests.support.reviewing import asked_for
from tests.support.reviewing import left as open_items
from tests.support.workplace import command, rows_of, write_rows

BOXES = {
    "A": [0, 0, 40, 40],
    "B": [50, 0, 90, 40],
    "C": [100, 0, 140, 40],
    "bus": [150, 0, 190, 40],
}


def phrase(text: str, box: str | None = None, **more: Any) -> dict[str, Any]:
    instances = [{"bbox": BOXES[box], "score": 0.5}] if box else []
    return {"text": text, "instances": instances, "status": "grounded" if box else "none", **more}


def write(folder: Path, *rows: dict[str, Any], **more: Any) -> Path:
    record = {"image_id": "a", "caption": "A dog and a dog.", "width": 200, "height": 150}
    write_rows(folder / "annotations.jsonl", {**record, "expressions": rows, **more})
    return folder


def phrases_of(folder: Path) -> dict[str, Expression]:
    """Those of the record, as the pipeline left them, by id."""
    return expressions_of(Session(Reviewable(str(folder)), "ann").reviewable.record(0))


def decided(folder: Path, id: str, after: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """The session's answer to a decision on an expression, by the id that it has now."""
    session = Session(Reviewable(str(folder)), "ann")
    asked = {} if "acts" in more else asked_for(session.view(0), id, after)
    log = folder / "reviews.jsonl"
    uid = str(log.stat().st_size if log.exists() else 0)
    [answer] = session.decide([{**line(uid), **asked, **more}])["answers"]
    return answer


def line(uid: str, **more: Any) -> dict[str, Any]:
    """A decision, as the page sends it."""
    return {"uid": uid, "record": "a", "acts": [], **more}


def found(*boxes: Any) -> dict[str, Any]:
    """What the page sends of a phrase with these boxes."""
    return {"instances": [*boxes], "status": "grounded"}


def judged(box: str | None, verified: bool | None = True) -> dict[str, Any]:
    """What the page sends of a phrase with one box, or with none, that is judged as it is."""
    if box is None:
        return {"instances": [], "status": "none", "verified": verified}
    return found({"bbox": BOXES[box], "from": 0, "verified": verified})


def applied(folder: Path, code: int = 0, *options: str) -> list[dict[str, Any]]:
    done = command(["apply", str(folder), *options])
    assert done.code == code, done
    [record] = rows_of(folder / "annotations.reviewed.jsonl")
    rows = record["expressions"] or record.get("regions") or record.get("region_captions") or []
    assert isinstance(rows, list)
    return rows


def what_stands(folder: Path, *options: str) -> list[tuple[str, Any, Any]]:
    """Of each phrase its text, the name of its box, and what a reviewer said."""
    names = {str(box): name for name, box in BOXES.items()}
    said = []
    for row in applied(folder, 0, *options):
        [name] = [names[str(box["bbox"])] for box in row["instances"]] or [None]
        said.append((row["text"], name, row.get("verified")))
    return said


def test_phrases_with_one_id_are_all_kept(tmp_path: Path) -> None:
    rows = (phrase("a dog", "A", expression_id="e"), phrase("a cat", "B", expression_id="e"))
    folder = write(tmp_path, *rows)
    decided(folder, "e", judged("A"))
    assert what_stands(folder) == [("a dog", "A", True), ("a cat", "B", None)]
    decided(folder, "e", None)
    assert not decided(folder, "e~2", judged("B", False))["error"]
    assert what_stands(folder) == [("a cat", "B", False)]


def test_a_phrase_without_a_box_is_told_from_one_of_its_words_that_has_one(tmp_path: Path) -> None:
    rows = (phrase("a dog", "A", expression_id="e"), phrase("a dog", None, expression_id="f"))
    folder = write(tmp_path, *rows)
    decided(folder, "f", judged(None))
    assert what_stands(folder) == [("a dog", "A", None), ("a dog", None, True)]


def test_phrases_of_a_caption_that_is_another_by_now_say_where_they_stand_in_it(
    tmp_path: Path,
) -> None:
    dog = phrase("a dog", "A", char_span=[10, 15], caption_span=[10, 15])
    cat, gone = phrase("A cat", "B", char_span=[0, 5]), phrase("two", "C", char_span=[17, 20])
    folder = write(tmp_path, dog, cat, gone, caption="A cat and a dog, two.")
    decided(folder, "a#0", judged("A"))
    decided(folder, "a#1", {**judged("B"), "text": "cat", "char_span": [2, 5]})
    decided(folder, "a#2", judged("C"))
    dog |= {"char_span": [5, 10], "caption_span": [6, 11]}
    cat |= {"char_span": [12, 17]}
    captions = {"caption": "Two,  a dog, A cat.", "cleaned_caption": "Two, a dog, A cat."}
    write(folder, dog, cat, **captions)
    dog, cat = applied(folder)
    assert (dog["char_span"], dog["caption_span"]) == ([5, 10], [6, 11])
    assert (cat["text"], cat["char_span"], cat["caption_span"]) == ("cat", [14, 17], [15, 18])


@pytest.mark.parametrize("caption", ["So, a cat, a cat.", "Two dogs."])
def test_new_words_that_a_later_caption_has_not_once_have_no_place_in_it(
    tmp_path: Path, caption: str
) -> None:
    folder = write(tmp_path, phrase("a cat", "A", char_span=[0, 5]), caption="a cat.")
    decided(folder, "a#0", {**judged("A"), "text": "cat", "char_span": [2, 5]})
    write(folder, phrase("a cat", "A", char_span=[4, 9]), caption=caption)
    [row] = applied(folder)
    assert (row["text"], row["char_span"], row["caption_span"]) == ("cat", None, None)


@pytest.mark.parametrize("caption", [None, 21])
def test_a_phrase_of_a_record_without_a_caption_has_no_place_in_one(
    tmp_path: Path, caption: Any
) -> None:
    folder = write(tmp_path, phrase("None of 21", "A", char_span=[0, 10]), caption="None of 21")
    text = str(caption)
    start = "None of 21".index(text)
    span = [start, start + len(text)]
    decided(folder, "a#0", {**judged("A"), "text": text, "char_span": span})
    [row] = applied(folder)
    assert (row["char_span"], row["caption_span"]) == (span, span)
    write(folder, phrase("None of 21", "A"), caption=caption)
    [row] = applied(folder)
    assert (row["text"], row["char_span"], row["caption_span"]) == (text, None, None)


def test_a_decision_holds_where_its_name_is_and_nowhere_without(tmp_path: Path) -> None:
    circle = phrase("A black circle", "A", char_span=[0, 14])
    rows = circle, phrase("an elephant", "B")
    folder = write(tmp_path, *rows, caption="A black circle.")
    decided(folder, "a#0", judged("A"))
    decided(folder, "a#1", judged("B"))
    decided(folder, "", None, acts=[{"added": "circle", "char_span": [8, 14]}])
    decided(folder, "a#2", found({"bbox": BOXES["C"], "from": None}))
    before = applied(folder)
    later = phrase("A round black circle", "A", char_span=[0, 20]), phrase("an elephant", "C")
    write(folder, *later, caption="A round black circle.")
    view = Session(Reviewable(str(folder)), "ann").view(0)
    shown = [(row["text"], row["verified"]) for row in view["expressions"]]
    # other words and another box ask again; the phrase that a person added is there, too
    assert shown == [("A round black circle", None), ("an elephant", None), ("circle", True)]
    assert applied(folder)[2]["char_span"] == [14, 20]
    write(folder, *rows, caption="A black circle.")
    assert applied(folder) == before  # no decision is lost
    write(folder, *later, image_id="b")
    done = command(["apply", str(folder)])
    assert (done.code, "no decisions on" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("Dog", "dog"), ("necktie", "necktie"), ("a tie", "necktie"), ("zebra", None)],
)
def test_other_words_are_of_another_class(tmp_path: Path, words: str, expected: str | None) -> None:
    folder = write(
        tmp_path,
        phrase("cat", "A", **{"class": "cat"}),
        phrase("dog", **{"class": "dog"}),
        phrase("a tie", **{"class": "necktie"}),
    )
    after = {**judged("A"), "text": words, "char_span": None}
    assert not decided(folder, "a#0", after)["error"]
    refused = decided(folder, "", None, acts=[{"added": words, "char_span": None}])["error"]
    assert f"there is a phrase {words!r} already" in refused
    changed, *others = applied(folder)
    assert (changed["text"], changed.get("class")) == (words, expected)
    assert [row["class"] for row in others] == ["dog", "necktie"]


def test_a_box_that_is_moved_keeps_what_is_not_of_its_numbers(tmp_path: Path) -> None:
    own = {"track_id": 7, "label": "pet", "bbox_id": "b7"}
    dog = phrase("a dog", "A")
    dog["instances"][0] |= {"area": 1600, **own}
    folder = write(tmp_path, dog)
    moved = found({"bbox": BOXES["B"], "from": 0, "verified": True})
    assert not decided(folder, "a#0", moved)["error"]
    [row] = applied(folder)
    person = {"score": None, "evidence": "person", "verified": True, "reviewed_by": "ann"}
    assert row["instances"] == [{"bbox": BOXES["B"], **own, **person}]


def test_what_nobody_judged_stays_as_it_was_written(tmp_path: Path) -> None:
    bare = {"text": "a cat", "own": {"n": 1.50}}
    with_box = {**bare, "instances": [{"bbox": [1, 2, 3, 4]}]}
    folder = write(tmp_path, phrase("a dog", "A"), bare, "a bare text", with_box)
    decided(folder, "a#0", judged("A"))
    assert applied(folder)[1:] == [
        {**bare, "expression_id": "a#1"},
        {"text": "a bare text", "expression_id": "a#2"},
        {**with_box, "expression_id": "a#3"},
    ]


def test_what_a_reviewer_found_right_before_can_be_settled_again(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", phrase("a dog", "A"))
    decided(folder, "a#0", judged("A"))
    mended = write(tmp_path / "other", *applied(folder))
    session = Session(Reviewable(str(mended)), "ann", sample=(5, 0))
    assert len(open_items(session)) == 1
    decided(mended, "a#0", judged("A"))
    assert len(open_items(session)) == 0
    assert command(["certify", str(mended)]).out.startswith("0.0% of 1 boxes wrong")


@pytest.mark.parametrize(("verified", "left"), [(True, "none"), (False, "pending")])
def test_a_phrase_nobody_looked_for_yet_is_none_once_a_person_found_nothing(
    tmp_path: Path, verified: bool, left: str
) -> None:
    folder = write(tmp_path, phrase("a dog", status="pending"), "a cat")
    after = {"instances": [], "status": "pending", "verified": verified}
    for id in ("a#0", "a#1"):
        assert not decided(folder, id, after)["error"]
    assert [(row["status"], row["verified"]) for row in applied(folder)] == [(left, verified)] * 2


def test_a_box_that_is_none_can_be_rejected_and_not_accepted(tmp_path: Path) -> None:
    folder = write(tmp_path, {"text": "a dog", "instances": [{"bbox": [40, 0, 0, 40]}]})
    given = found({"bbox": [40, 0, 0, 40], "from": 0, "verified": True})
    assert "x1 < x2" in decided(folder, "a#0", given)["error"]
    given["instances"][0]["verified"] = False
    assert decided(folder, "a#0", given)["error"] == ""
    assert applied(folder)[0]["verified"] is False


RIGHT = {"from": 0, "bbox": BOXES["A"], "verified": True}
REGION = {"bbox": BOXES["A"], "type": "mug", "own": 7}
BY_ANN = {"verified": True, "reviewed_by": "ann"}
OF_ANN = {"bbox": BOXES["B"], "evidence": "person", **BY_ANN}
MOVED = {"bbox": BOXES["B"], "from": 0, "verified": True}
SECOND = {"bbox": BOXES["B"], "from": None, "verified": True}


@pytest.mark.parametrize(
    ("after", "left"),
    [
        (judged(None), [{**REGION, **BY_ANN, "verified": False}]),
        (found(), []),
        (found(MOVED), [{**REGION, **OF_ANN}]),
        (found(RIGHT, SECOND), [{**REGION, **BY_ANN}, {"type": "mug", **OF_ANN}]),
    ],
    ids=["not there", "its box deleted", "its box moved", "a second box"],
)
def test_regions_say_what_was_decided(tmp_path: Path, after: Any, left: Any) -> None:
    other = {**REGION, "bbox": BOXES["C"]}
    first = {**REGION, "score": 0.5, "area": 1600}  # which are of the box
    folder = write(tmp_path, expressions=None, regions=[first, other])
    decided(folder, "a#0", after)
    rows = applied(folder)
    if left and left[0]["bbox"] == REGION["bbox"]:
        rows[0] = {name: value for name, value in rows[0].items() if name in left[0]}
    assert rows == [*left, other]


@pytest.mark.parametrize(
    ("first", "left"),
    [
        pytest.param(None, [], id="region deleted"),
        pytest.param({"instances": [], "status": "none", "verified": None}, [], id="box deleted"),
        pytest.param(found(RIGHT, SECOND), ["A", "B"], id="box drawn"),
    ],
)
def test_a_region_that_goes_or_has_a_second_box_hands_no_decision_to_another(
    tmp_path: Path, first: Any, left: list[str]
) -> None:
    items = [
        {"bbox": BOXES[box], "text": "a mug", "score": score}
        for box, score in (("A", 0.5), ("C", 0.25))
    ]
    folder = write(tmp_path, expressions=None, region_captions=items)
    page = Session(Reviewable(str(folder)), "ann")
    assert not decided(folder, "a#0", first)["error"]
    assert [item.id for item in open_items(page)] == ["a#1"]
    shown = next(e for e in page.view(0)["expressions"] if e["id"] == "a#1")
    assert shown["instances"][0]["bbox"] == BOXES["C"]
    decided(folder, "a#1", judged("C"))
    *before, last = applied(folder)
    assert [region["bbox"] for region in before] == [BOXES[box] for box in left]
    assert last == {**items[1], "verified": True, "reviewed_by": "ann"}
    assert (len(open_items(page)), page.view(0)["expressions"][-1]["reviewed_by"]) == (0, "ann")


def test_lines_that_can_not_be_read_and_decisions_on_another_file_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path, phrase("a dog", "A"), phrase("a cat", "B"))
    decided(folder, "a#0", judged("A"))
    decided(folder, "a#1", judged("B"))
    log = folder / "reviews.jsonl"
    first, second = log.read_text().splitlines()
    # joined without a line break, and the last without its own
    log.write_text(f"{first}{first}\n{second}")
    done = command(["apply", str(folder)])
    assert (done.code, f"{log}, line 1 can't be read" in done.err) == (0, True)
    assert [row.get("verified") for row in applied(folder)] == [None, True]
    decided(folder, "a#0", judged("A"))
    assert [row.get("verified") for row in applied(folder)] == [True, True]
    write(folder, phrase("a dog", "A"), image_id="b")
    assert "no decisions on " in command(["apply", str(folder)]).err


def test_a_damaged_line_changes_nothing_at_all(tmp_path: Path) -> None:
    rows = (phrase("a dog", "A", expression_id="e"), phrase("a cat", "B", expression_id="f"))
    folder = write(tmp_path, *rows)
    decided(folder, "e", judged("A"))
    log = folder / "reviews.jsonl"
    [first] = rows_of(log)
    [act] = first["acts"]
    gone = {"phrase": "a cat", "gone": True}
    damaged = [[gone, {**act, "box": [1, 2]}], [gone, {**act, "phrase": 7}], [gone, "a bus"]]
    write_rows(log, first, *({**first, "uid": str(a), "acts": a} for a in damaged))
    done = command(["apply", str(folder)])
    for number in (2, 3, 4):
        assert f"{log}, line {number} can't be read" in done.err
    assert what_stands(folder) == [("a dog", "A", True), ("a cat", "B", None)]


def test_a_downloaded_decision_on_a_record_that_can_not_be_read_keeps_none_of_the_others_away(
    tmp_path: Path,
) -> None:
    folder = write(tmp_path, phrase("a dog", "A"))
    version = version_of(phrases_of(folder)["a#0"])
    [good] = rows_of(folder / "annotations.jsonl")
    broken = {**good, "image_id": "b", "expressions": [{"text": "a", "instances": [{"bbox": 1}]}]}
    write_rows(folder / "annotations.jsonl", good, broken)
    on_b = line("1", record="b", acts=[{"id": "b#0", "absent": True}])
    acts = [{"id": "a#0", "box": BOXES["A"], "right": True}]
    on_a = line("2", acts=acts, versions={"a#0": version})
    downloaded = write_rows(folder / "decisions.jsonl", on_b, on_a)
    done = command(["apply", str(folder), str(downloaded)])
    assert (done.code, "line 1: column 'expressions'" in done.err) == (1, True), done
    first, second = rows_of(folder / "annotations.reviewed.jsonl")
    assert (first["expressions"][0]["verified"], second) == (True, broken)


def test_downloaded_decisions_on_one_phrase_build_on_each_other(tmp_path: Path) -> None:
    folder = write(tmp_path, phrase("a dog", "A"))
    seen = {"versions": {"a#0": version_of(phrases_of(folder)["a#0"])}}
    act = {"id": "a#0", "box": BOXES["A"], "right": False}
    downloaded = write_rows(
        folder / "decisions.jsonl",
        line("own0", acts=[act], **seen),
        line("own1", acts=[{**act, "right": True}, {"id": "a#0", "text": "dog"}], **seen),
        line("own2", undoes="own1"),
        line("own3", acts=[{**act, "right": True}], **seen),
    )
    done = command(["apply", str(folder), str(downloaded)])
    assert done.code == 0, done
    assert what_stands(folder) == [("a dog", "A", True)]


def test_what_a_review_of_a_copy_wrote_is_no_download_and_nothing_of_it_is_taken(
    tmp_path: Path,
) -> None:
    rows = (phrase("a dog", "A"), phrase("a cat", "B"))
    folder, copy = (write(tmp_path / name, *rows) for name in ("one", "copy"))
    decided(copy, "a#0", judged("A", False))
    log, own = copy / "reviews.jsonl", folder / "reviews.jsonl"
    done = command(["apply", str(folder), str(log)])
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    told = "is what `review` itself wrote: name what a page has downloaded, or copy it to"
    assert f"{log} {told} {own}" in done.err
    assert not own.exists()
    own.write_bytes(log.read_bytes())
    assert what_stands(folder) == [("a dog", "A", False), ("a cat", "B", None)]


def test_apply_writes_over_no_file_that_is_there(tmp_path: Path) -> None:
    folder = write(tmp_path, phrase("a dog", "A"))
    decided(folder, "a#0", judged("A", False))
    log = folder / "reviews.jsonl"
    for name in ("a.png", "gold.jsonl"):
        (folder / name).write_bytes(b"the user's")
        done = command(["apply", str(folder), "-o", str(folder / name)])
        assert (done.code, (folder / name).read_bytes()) == (2, b"the user's")
    assert "is there already" in done.err
    assert command(["apply", str(folder), str(log), "-o", str(log)]).code == 2
    assert len(rows_of(log)) == 1
    own = folder / "annotations.reviewed.jsonl"
    for _ in range(2):
        assert command(["apply", str(folder), "-o", str(own)]).code == 0
        [record] = rows_of(own)
        assert len(record["expressions"]) == 1, "all boxes, whoever names the file"


BOX = "a box should be [x1, y1, x2, y2]"
OF_BOX = {"box": BOXES["A"]}


@pytest.mark.parametrize(
    ("act", "why"),
    [
        ({}, "nothing is said"),
        ({"right": True}, "nothing is said"),
        (OF_BOX, "nothing is said of a box"),
        ({"id": "a#7", "gone": True}, "changed"),
        ({"text": ""}, "text"),
        ({"text": "dog", "char_span": [0, 3]}, "char_span"),
        ({"text": "dog", "char_span": [8, 999]}, "char_span"),
        ({"box": BOXES["B"], "right": True}, "there is no box"),
        ({"box": 7, "gone": True}, "there is no box 7"),
        ({**OF_BOX, "corners": [5, 5, 5, 9]}, "x1 < x2"),
        ({**OF_BOX, "corners": [1, 2, 3]}, BOX),
        ({**OF_BOX, "corners": [1, 2, 3, "4"]}, BOX),
        ({"new": [None] * 4}, BOX),
        ({"new": BOXES["B"], "of": "a#7"}, "there is no box"),
        ({"new": [500, 500, 600, 600]}, "outside of the"),
        ({**OF_BOX, "right": "false"}, "true, false or null, not 'false'"),
    ],
)
def test_a_decision_that_is_none_is_refused_in_a_line_and_not_written(
    tmp_path: Path, act: dict[str, Any], why: str
) -> None:
    folder = write(tmp_path, phrase("a dog", "A"))
    versions = {"a#0": version_of(phrases_of(folder)["a#0"])}
    answer = decided(folder, "", None, acts=[{"id": "a#0", **act}], versions=versions)
    assert why in answer["error"]
    assert "\n" not in answer["error"]
    older = decided(folder, "", None, acts=[{"id": "a#0", "gone": True}], versions={"a#0": "older"})
    assert "changed it meanwhile" in older["error"]
    assert not (folder / "reviews.jsonl").read_text()


def test_a_decision_that_is_sent_twice_counts_once(tmp_path: Path) -> None:
    folder = write(tmp_path, phrase("a dog", "A"))
    assert "'uid'" in decided(folder, "a#0", judged("A"), uid=[1])["error"]
    assert [decided(folder, "a#0", judged("A"), uid="same")["error"] for _ in range(2)] == ["", ""]
    assert len(rows_of(folder / "reviews.jsonl")) == 1


def test_a_decision_changes_nothing_past_its_check(tmp_path: Path) -> None:
    folder = write(tmp_path, phrase("a dog", "A"))
    [row] = phrases_of(folder).values()
    forged = {"phrase": "a cat", "verified": True, "reviewed_by": "bob", "span": [0, 1]}
    act = {**forged, "id": "a#0", "box": BOXES["A"], "right": True}
    assert not decided(folder, "", None, acts=[act], versions={"a#0": version_of(row)})["error"]
    assert [(row["text"], row["reviewed_by"]) for row in applied(folder)] == [("a dog", "ann")]
    [decision] = rows_of(folder / "reviews.jsonl")
    assert decision["acts"] == [{"phrase": "a dog", "box": BOXES["A"], "right": True}]


def test_apply_is_told_of_the_folder_of_pictures_as_the_review_was(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", phrase("a dog", "A"), image_path="a.png")
    Image.new("RGB", (200, 150)).save(tmp_path / "a.png")
    session = Session(Reviewable(str(folder), str(tmp_path)), "ann")
    asked = asked_for(session.view(0), "a#0", judged("A"))
    [answer] = session.decide([line("1", **asked)])["answers"]
    assert not answer["error"]
    told = "give its --image-root here, too"
    assert told in command(["apply", str(folder)]).err
    assert what_stands(folder, "--image-root", str(tmp_path)) == [("a dog", "A", True)]


def test_why_no_decision_counts_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", phrase("a dog", "A"))
    other = write_rows(tmp_path / "other.jsonl", line("1", record="another"))
    done = command(["apply", str(folder), str(other)])
    assert (done.code, "there is no record 'another' here" in done.err) == (2, True)
    write_rows(folder / "reviews.jsonl", line("1", acts=[{"id": "a#0"}]))
    done = command(["apply", str(folder)])
    assert (done.code, "reviews.jsonl, line 1 can't be read" in done.err) == (2, True)


def test_export_says_that_reviewers_left_another_file(tmp_path: Path) -> None:
    folder = write(tmp_path, phrase("a dog", "A"), image_path="a.png")
    export = ["export", str(folder), "--format", "coco", "--images", "reference", "-o"]
    assert "reviewers" not in command([*export, str(tmp_path / "one")]).err
    decided(folder, "a#0", judged("A"))
    applied(folder)
    told = command([*export, str(tmp_path / "other")]).err
    assert f"name {folder / 'annotations.reviewed.jsonl'}" in told


def test_files_of_one_stem_have_decisions_of_their_own(tmp_path: Path) -> None:
    files = [write_rows(tmp_path / name) for name in ("x.json", "x.jsonl")]
    of_json, of_lines = (review_files(str(path)) for path in files)
    assert not {*of_json} & {*of_lines}
    assert of_lines.decisions == str(tmp_path / "x.reviews.jsonl")


def test_joined_boxes_stay_what_they_were(tmp_path: Path) -> None:
    folder = write(tmp_path, phrase("a dog", "A"), phrase("a cat", "B"))
    versions = {id: version_of(row) for id, row in phrases_of(folder).items()}
    joined = {"id": "a#0", "new": BOXES["B"], "of": "a#1"}
    acts = [joined, {"id": "a#1", "gone": True}]
    assert decided(folder, "", None, acts=acts, versions=versions)["error"] == ""
    [row] = applied(folder)
    said = [(box["bbox"], box["score"], box.get("evidence")) for box in row["instances"]]
    assert said == [(BOXES["A"], 0.5, None), (BOXES["B"], 0.5, None)]
    assert not {"verified", "reviewed_by"} & {*row, *row["instances"][1]}


def test_a_comment_can_be_emptied_and_a_verdict_taken_back(tmp_path: Path) -> None:
    folder = write(tmp_path, phrase("a dog", "A"))
    decided(folder, "a#0", judged("A"), comment="odd")
    decided(folder, "a#0", judged(None, None), comment="")
    assert Session(Reviewable(str(folder)), "ann").view(0)["comment"] == ""
    assert applied(folder) == [{**phrase("a dog"), "expression_id": "a#0"}]
    [record] = rows_of(folder / "annotations.reviewed.jsonl")
    assert "review_comment" not in record


@pytest.mark.parametrize(
    "first", [{"bbox": [5, 5, 45, 45], "from": 0, "verified": True}, None], ids=["moved", "deleted"]
)
def test_a_rejection_beside_a_mended_box_is_lost_with_neither(
    tmp_path: Path, first: dict[str, Any] | None
) -> None:
    two = {"text": "dogs", **found({"bbox": BOXES["A"]}, {"bbox": BOXES["B"]})}
    folder = write(tmp_path, two)
    second = {"bbox": BOXES["B"], "from": 1, "verified": None}
    kept = [first] if first else []
    decided(folder, "a#0", found(*kept, second))
    rejected = {"bbox": BOXES["B"], "from": len(kept), "verified": False}
    decided(folder, "a#0", found(*kept, rejected))
    mended = [(box["bbox"], box["verified"]) for box in (*kept, rejected)]
    assert [(i["bbox"], i["verified"]) for i in applied(folder)[0]["instances"]] == mended
    # another run with another box, and that box next to one that was rejected
    write(folder, {**two, "instances": [{"bbox": BOXES["C"]}]})
    assert command(["apply", str(folder)]).code == 2
    write(folder, {**two, "instances": [{"bbox": BOXES["C"]}, {"bbox": BOXES["B"]}]})
    [dogs] = applied(folder)
    assert [i.get("verified") for i in dogs["instances"]] == [None, False]


def test_a_rejection_of_other_boxes_takes_no_phrase_the_id_of_another(tmp_path: Path) -> None:
    folder = write(tmp_path, phrase("a car", "A"), phrase("a bus", "bus"))
    decided(folder, "a#0", judged("A", False))
    decided(folder, "a#1", judged("bus"))
    # the car has another box now
    write(tmp_path, phrase("a dog", "C"), phrase("a car", "B"), phrase("a bus", "bus"))
    stands = [("a dog", "C", None), ("a car", "B", None), ("a bus", "bus", True)]
    assert what_stands(folder) == stands
    assert len({row["expression_id"] for row in applied(folder)}) == 3


def test_a_file_for_training_has_no_rejected_boxes_and_the_reviewed_one_has_all(
    tmp_path: Path,
) -> None:
    """Pipelines and later reviews go on from the reviewed one."""
    folder = write(tmp_path / "run", phrase("A dog", "A"), phrase("a dog", "B"))
    decided(folder, "a#0", judged("A", True))
    decided(folder, "a#1", judged("B", False))
    assert [row["text"] for row in applied(folder)] == ["A dog", "a dog"]
    training = tmp_path / "train.jsonl"
    done = command(["apply", str(folder), "-o", str(training)])
    assert "left out, as they were rejected: 1 box" in done.out
    [record] = rows_of(training)
    assert [row["text"] for row in record["expressions"]] == ["A dog"]


def test_a_decision_without_a_box_reads_no_size_of_the_picture(tmp_path: Path) -> None:
    folder = write(tmp_path, phrase("dog", "A"), phrase("cat"), image_path="a.png")
    Image.new("RGB", (200, 150)).save(folder / "a.png")
    times_opened = []
    drawn = found({"bbox": BOXES["B"], "from": 0})
    for id, after in (("a#1", judged(None)), ("a#0", drawn), ("a#1", judged(None))):
        with opened() as names:
            assert not decided(folder, id, after)["error"]
        times_opened.append(names["a.png"])
    _, with_box, without_box = times_opened  # the first one takes the picture's digest, too
    assert without_box == with_box - 1


def test_a_drawn_box_is_cut_to_its_picture(tmp_path: Path) -> None:
    folder = write(tmp_path, phrase("a dog", "A"))
    drawn = {"bbox": [150, 100, 240.5, 160], "verified": True}
    assert not decided(folder, "a#0", found(drawn))["error"]
    [row] = applied(folder)
    assert [box["bbox"] for box in row["instances"]] == [[150, 100, 200, 150]]


@pytest.mark.slow
@pytest.mark.parametrize(("drawn", "verified"), [(0, False), (1, True), (2, True)])
def test_a_phrase_whose_right_box_was_drawn_beside_the_rejected_one_is_right(
    tmp_path: Path, drawn: int, verified: bool
) -> None:
    folder = write(tmp_path, phrase("dogs", "A", expression_id="e"))
    rejected = {"bbox": BOXES["A"], "from": 0, "verified": False}
    added = [{"bbox": BOXES[name], "verified": True} for name in ("B", "C")[:drawn]]
    after = found(rejected, *added)
    assert not decided(folder, "e", after)["error"]
    [row] = applied(folder)
    assert (row["verified"], row["reviewed_by"]) == (verified, "ann")
    gold = folder / "annotations.reviewed.jsonl"
    as_gold = command(["eval", str(folder), "--gold", str(gold), "--json"]).summary
    assert as_gold["gold_boxes"] == drawn  # the rejected one is none


@pytest.mark.slow
def test_gold_of_which_a_box_was_judged_is_that_alone(tmp_path: Path) -> None:
    two = phrase("dogs", "A", expression_id="e")
    two["instances"].append({"bbox": BOXES["B"], "score": 0.5})
    folder = write(tmp_path, two, phrase("a bus", "bus", expression_id="f"))
    gold = folder / "annotations.reviewed.jsonl"
    first, second = ({"bbox": box["bbox"], "from": n} for n, box in enumerate(two["instances"]))
    for verdict, boxes in ((None, 0), (True, 2)):
        after = [{**first, "verified": True}, {**second, "verified": verdict}]
        decided(folder, "e", {"instances": after, "status": "grounded"})
        applied(folder)
        figures = command(["eval", str(folder), "--gold", str(gold), "--json"]).summary
        assert figures["gold_boxes"] == boxes
        assert figures["expressions_not_judged"] == (1 if boxes else 2)
