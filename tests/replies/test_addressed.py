"""Addressed answers, in which every box has the id of a phrase: what is next to them decides nothing.

The replies in addressed.jsonl were written for this project by somebody who hadn't seen the reader.
They are ordinary sentences, labels and keys.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import Reading
from tests.support import reading as usual

CUP, FORK = [100, 120, 300, 420], [400, 120, 600, 420]
PHRASES = ["the red cup", "a fork"]


def rows() -> list[Any]:
    path = Path(__file__).with_name("addressed.jsonl")
    with path.open(encoding="utf-8") as lines:
        return [pytest.param(row, id=row["id"]) for row in map(json.loads, lines)]


def outcome_of(reply: str, **asked: Any) -> str:
    try:
        reading = read_reply(reply, **asked)
    except UnreadableReply:
        return "refused"
    if reading.unread:
        return "refused"
    if reading.doubts or reading.doubtful:
        return "doubtful"
    return "said" if reading.remark else "clean"


RIGHT = {
    "read": ("clean", "said", "doubtful"),
    "clean": ("clean",),
    "doubtful": ("doubtful",),
    "unreadable": ("refused", "doubtful"),
}


@pytest.mark.parametrize("row", rows())
def test_a_reply(row: dict[str, Any]) -> None:
    asked = {key: row[key] for key in ("format", "image_size", "phrases")}
    assert outcome_of(row["reply"], **asked) in RIGHT[row["right"]]


def read_reply(reply: str, **asked: Any) -> Reading:
    return usual.read(reply, **{"phrases": PHRASES, **asked})


def item(number: int | None, label: str = "", **keys: Any) -> dict[str, Any]:
    """An object of an answer, with a box; of the second phrase the fork's."""
    named: dict[str, Any] = {"id": number} if number else {}
    if label:
        named["label"] = label
    return {**named, "bbox_2d": FORK if number == 2 else CUP, **keys}


def read(
    before: str = "",
    after: str = "",
    *,
    top: dict[str, Any] | None = None,
    label: str = "the red cup",
    format: str = "xyxy_1000",
    size: tuple[int, int] = (1000, 1000),
    **keys: Any,
) -> Reading:
    """Read an answer for two phrases; `keys` are next to the first box."""
    answer = {**(top or {}), "objects": [item(1, label, **keys), item(2, "a fork")]}
    fenced = f"{before}\n```json\n{json.dumps(answer)}\n```\n{after}"
    return read_reply(fenced, format=format, image_size=size)


def test_a_remark_is_kept_with_a_note_and_changes_no_box() -> None:
    reading = read("I see a table.", "Both are near the edge.")
    assert reading.remark == "I see a table. … Both are near the edge."
    assert [(note.code, note.text) for note in reading.notes] == [("remark", reading.remark)]
    assert [list(box.bbox) for box in reading.boxes] == [CUP, FORK]
    assert not reading.doubts


def test_of_a_long_remark_200_characters_are_kept() -> None:
    assert len(read(after="The table is longer. " * 40).remark) == 200


CUP_ITEM = json.dumps(item(1, "the red cup"))
FORK_ITEM = json.dumps(item(2, "a fork"))
NUMBERED = f"[{CUP_ITEM}, {FORK_ITEM}]"
LABELLED = json.dumps([item(None, text) for text in PHRASES])
"""An answer in a model's own form, which has labels and no ids."""


def each_way(words: str) -> list[str]:
    """Words before and after an answer, whose boxes have ids and labels, or labels alone."""
    return [
        template.format(words=words, answer=answer)
        for template, answer in product(
            ("{words}\n{answer}", "```json\n{answer}\n```\n{words}"), (NUMBERED, LABELLED)
        )
    ]


def test_a_list_before_the_answer_is_no_word() -> None:
    for before in (f"{CUP}", "[1, 2, 3]", '["the red cup"]', "[[1, 2, 3, 4"):
        with pytest.raises(UnreadableReply):
            read_reply(f'{before}\n{{"objects": [{CUP_ITEM}]}}', phrases=["the red cup"])


@pytest.mark.parametrize(
    "keys",
    [
        {"index": 1}, {"rank": 2}, {"area": 60000}, {"iscrowd": 0}, {"order": 1}, {"visible": True},
        {"attributes": ["red"]}, {"attributes": {"color": "red", "count": 1}}, {"color": "red"},
        {"reason": "It is the only red cup; the other is not red"}, {"position": "left of the plate"},
        {"imageWidth": 1000}, {"bbox_format": "xyxy"}, {"coordinate_system": "normalized"}, {"error": None},
        {"model": "gpt"}, {"page_title": "red"},
    ],
    ids=lambda keys: next(iter(keys)),
)  # fmt: skip
def test_a_key_that_does_no_harm_is_skipped(keys: dict[str, Any]) -> None:
    assert len(read(**keys).boxes) == 2
    assert len(read(top=keys).boxes) == 2


@pytest.mark.parametrize(
    ("label", "is_doubtful"),
    [
        ("red cup", False), ("cup", False), ("cup 1", False), ("red_cup_2", False), ("red cup (left)", False),
        ("coffee cup", True), ("blue cup", True), ("cup handle", True), ("mug", True), ("cup's shadow", True),
        ("reflection of the red cup", True), ("cup and saucer", True), ("no red cup", True), ("the red cup, red", False),
    ],
)  # fmt: skip
def test_a_label_with_the_id_has_the_phrase_s_head_or_is_doubtful(
    label: str, is_doubtful: bool
) -> None:
    reading = read(label=label)
    assert [box.id for box in reading.boxes] == [1, 2]
    assert list(reading.doubts) == [1] * is_doubtful
    assert reading.count("unlike_label") == is_doubtful


@pytest.mark.parametrize("first", [0, 1])
def test_ids_may_begin_at_0(first: int) -> None:
    phrases = dict(enumerate(PHRASES, start=first))
    cup = {**item(1, "the red mug"), "id": first}
    assert not read_reply(json.dumps([item(None, "a fork")]), phrases=phrases).doubts
    assert list(read_reply(json.dumps([cup]), phrases=phrases).doubts) == [first]


def test_a_label_that_is_another_phrase_costs_its_own_box_alone() -> None:
    reading = read(label="fork")
    assert [box.id for box in reading.boxes] == [2]
    assert list(reading.unsure) == [1]
    assert not reading.unread


def test_a_label_that_is_a_part_of_one_phrase_is_doubtful() -> None:
    """Models shorten the phrases that they were asked for: "man" for "the man in blue"."""

    def reading_of(*labels: str) -> Reading:
        reply = json.dumps([item(None, label) for label in labels])
        return read_reply(reply, phrases=["the red cup on the left", "a silver fork"])

    reading = reading_of("red cup", "silver fork")
    assert [box.id for box in reading.boxes] == [1, 2]
    assert list(reading.doubts) == [1]
    # no head, another one, a kind of things
    for labels in (["left"], ["blue cup"], ["cup", "cup"]):
        with pytest.raises(UnreadableReply):
            reading_of(*labels)


@pytest.mark.parametrize(
    ("label", "is_doubtful"),
    [
        ("red coffee cup", True),
        ("red ceramic cup on the desk", True),
        ("the second red cup", True),
        ("no red cup", False),
        ("red cup not found", False),
        ("red cup holder", False),
        ("shadow of the red cup", False),
        ("blue and red cup", False),
    ],
)
def test_a_label_that_has_one_phrase_and_more_is_doubtful(label: str, is_doubtful: bool) -> None:
    """Models describe more than they were asked for: "red coffee mug" for "the red mug"."""
    reply = json.dumps([item(None, label)])
    for phrases in (["the red cup"], ["a silver fork", "the red cup"]):
        assert outcome_of(reply, phrases=phrases) == ("doubtful" if is_doubtful else "refused")
        if is_doubtful:
            reading = read_reply(reply, phrases=phrases)
            assert [box.id for box in reading.boxes] == list(reading.doubts) == [len(phrases)]


def test_a_fence_with_a_mark_too_many_is_closed() -> None:
    reading = read_reply(f"```json\n{LABELLED}\n```\n```")
    assert [box.id for box in reading.boxes] == [1, 2]


def read_one(before: str = "", after: str = "", **top: Any) -> Reading:
    """Read an answer for two phrases that has a box of the first alone; `top` is next to its list."""
    answer = json.dumps({"objects": [item(1, "the red cup")], **top})
    return read_reply(f"{before}\n{answer}\n{after}")


@pytest.mark.parametrize(
    ("keys", "remark"),
    [
        ({"left": 1}, '"left": 1'),
        ({"unmatched": ["a fork"]}, '"unmatched": ["a fork"]'),
        ({"draft": True}, '"draft": true'),
        ({"thinking": "The fork is absent."}, '"thinking": "The fork is absent."'),
    ],
)  # fmt: skip
def test_an_unknown_key_next_to_the_list_is_a_remark(keys: dict[str, Any], remark: str) -> None:
    reading = read_one(**keys)
    assert (reading.remark, reading.unsure) == (remark, {})


@pytest.mark.parametrize(
    "keys", [{"not_found": ["a fork"]}, {"missing": [2]}, {"absent": ["fork"]}, {"not_visible": ["a fork"]}]
)  # fmt: skip
def test_a_list_of_what_is_absent_is_an_answer(keys: dict[str, Any]) -> None:
    reading = read_one(**keys)
    assert (reading.unsure, reading.unread, reading.remark) == ({}, [], "")
    assert list(read(top=keys).doubts) == [2]  # the fork has a box, too
    phrases = ["a fork"] if keys != {"missing": [2]} else PHRASES
    found = read_reply(json.dumps({"objects": [], **keys}), phrases=phrases)
    assert (found.boxes, found.unread) == ([], [])


@pytest.mark.parametrize("keys", [{"count": 1}, {"absent": False}, {"found": True}])
def test_an_item_without_a_box_is_unread_if_other_keys_contradict(keys: dict[str, Any]) -> None:
    assert read_without_box(keys).unread == [2]


def read_without_box(keys: dict[str, Any]) -> Reading:
    """Read an answer for two phrases whose second item has no box, but `keys`."""
    fork = {**item(2, "a fork", **keys), "bbox_2d": None}
    return read_reply(json.dumps({"objects": [item(1, "the red cup"), fork]}))


OTHER_CUP_ITEM = CUP_ITEM.replace(str(CUP), str(FORK))
BOTH = f'{{"objects": [{CUP_ITEM}, {FORK_ITEM}]}}'


@pytest.mark.parametrize("key", ["phrase_grounding", "reply", "final_answer", "content", "json"])
def test_one_key_may_be_around_the_whole_answer(key: str) -> None:
    for answer in (BOTH, json.dumps(BOTH)):
        reading = read_reply(f'{{"{key}": {answer}}}')
        assert [list(box.bbox) for box in reading.boxes] == [CUP, FORK]
    assert read(**{key: "the red cup"}).boxes  # next to a box it is a text
    for inner in ("No image came.", "not found"):  # a server's words
        with pytest.raises(UnreadableReply):
            read_reply(json.dumps({key: inner}))


@pytest.mark.parametrize(
    "reply",
    [
        f'{{"objects": [{CUP_ITEM}]}}\n{{"objects": [{FORK_ITEM}]}}',
        f"[{CUP_ITEM}]\n[{FORK_ITEM}]",
        f"```json\n{CUP_ITEM}\n```\n\n```json\n{FORK_ITEM}\n```",
        f"**Red cup**\n```json\n[{CUP_ITEM}]\n```\n**Fork**\n```json\n[{FORK_ITEM}]\n```",
    ],
    ids=["two objects", "two lists", "two fences", "two fences with headings"],
)
def test_an_answer_may_come_phrase_by_phrase(reply: str) -> None:
    reading = read_reply(reply)
    assert [list(box.bbox) for box in reading.boxes] == [CUP, FORK]


@pytest.mark.parametrize(
    "reply",
    [
        f"```json\n{CUP_ITEM}\n```\n\n```json\n{OTHER_CUP_ITEM}\n```",
        f'{{"objects": [{CUP_ITEM}]}}\n{{"objects": [{OTHER_CUP_ITEM}]}}',
        f'{BOTH}\n{{"objects": [{OTHER_CUP_ITEM}]}}',
        f'```json\n{{"objects": [{CUP_ITEM}]}}\n```\n```json\n{{"objects": []}}\n```',
        f'{{"objects": [{CUP_ITEM}]}}\n{{"objects": [{{"label": "a fork", "bbox_2d": [1, 2, 3, 4]}}]}}',
        f'{{"objects": [{CUP_ITEM}]}}\n{{"objects": [{FORK_ITEM[:40]}',
    ],
    ids=["a draft", "two answers", "one again", "an empty one", "no id", "cut off"],
)
def test_two_answers_about_one_phrase_stay_refused(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read_reply(reply)


def test_boxes_under_phrases_may_be_texts() -> None:
    reply = json.dumps({PHRASES[0]: "[100, 200, 300, 400]", PHRASES[1]: "10, 20, 30, 40"})
    first, second = read_reply(reply).boxes
    assert (first.id, *first.bbox) == (1, 100, 200, 300, 400)
    assert (second.id, *second.bbox) == (2, 10, 20, 30, 40)


def test_with_a_list_of_what_is_not_found_any_other_phrase_without_a_box_was_not_answered() -> None:
    phrases = ["the red cup", "a fork", "a plate"]

    def reading_of(*boxes: int, **keys: Any) -> Reading:
        objects = [item(number, phrases[number - 1]) for number in boxes]
        return read_reply(json.dumps({"objects": objects, **keys}), phrases=phrases)

    named = reading_of(1, not_found=[2])
    assert (list(named.unsure), named.unnamed, named.not_found) == ([3], [3], [2])
    assert named.left_out == [2, 3]
    nothing_found = reading_of(not_found=[1, 2])
    assert (nothing_found.boxes, list(nothing_found.unsure)) == ([], [3])
    # a list that is empty out of habit says nothing of the others, and neither does none
    for keys in ({"not_found": []}, {}):
        habit = reading_of(1, **keys)
        assert (habit.unsure, habit.left_out, habit.not_found) == ({}, [2, 3], [])
    both = reading_of(1, 2, 3, not_found=[2, 9])
    assert (list(both.doubts), both.count("dropped")) == ([2], 1)
