"""Items written in every form are read back the same; what is damaged is never read as other boxes.

The writer is `tests/support/reply_forms.py`, the damages are those of
`tests/support/damaged_replies.py`; `python -m benchmarks.damaged_replies` reads a hundred thousand.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest

from dataflow_grounding.replies import read_boxes
from tests.support.bytecode import instructions_of
from tests.support.damaged_replies import (
    AROUND,
    DAMAGES,
    KINDS,
    UNTELLABLE,
    Damage,
    Damaged,
    Reply,
    cuts,
    draw_reply,
    found_in,
    long_text,
    read,
    read_any,
    verdict,
)
from tests.support.reply_forms import (
    FORMS,
    GRAMMAR,
    Form,
    Item,
    beginnings,
    draw_items,
    js,
    write,
)

EACH_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
REPLIES = 12
"""Of each form."""


def replies_of(form: Form, count: int = REPLIES) -> Iterator[Reply]:
    for number in range(count):
        yield draw_reply(form, random.Random(f"{form.name}/{number}"))


def reply_with_several_items(form: Form) -> Reply:
    """Draw a reply in a form that has as many items as it may have, two at the most: one of up to two
    boxes, then one of one.
    """
    dice = random.Random(form.name)
    items: list[Item] = []
    while len(items) < min(form.most_items, 2):
        items = draw_items(form, dice)
    items = [Item(it.id, it.phrase, it.boxes[: 2 - n]) for n, it in enumerate(items)]
    return Reply(form, items, 1, write(form, items, 1))


@EACH_FORM
def test_items_are_read_back_the_same(form: Form) -> None:
    for reply in replies_of(form):
        reading = read(reply, reply.text)
        assert found_in(reading) == reply.truth, reply.text
        assert (reading.unread, reading.unsure) == ([], {}), reply.text
        assert reading.count("dropped") == reading.count("truncated") == 0, reply.text


@pytest.mark.parametrize("role", ["wrapper", "label", "box"])
def test_every_key_of_the_grammar_is_read(role: str) -> None:
    for key in GRAMMAR["keys"][role].split():
        item = {"label": "red cup", "bbox_2d": [10, 20, 300, 400]}
        if role != "wrapper":
            kind = "bbox_2d" if role == "box" else "label"
            item = {key if name == kind else name: value for name, value in item.items()}
        reply = js({key: [item]} if role == "wrapper" else [item])
        reading = read_boxes(
            reply, format="xyxy_1000", image_size=(1000, 1000), phrases=["red cup", "dog"]
        )
        assert [(box.id, box.bbox) for box in reading.boxes] == [(1, (10, 20, 300, 400))], reply


def places_to_cut(text: str) -> list[int]:
    """The bytes after which a cut differs from the cut before: of letters, digits or blanks that
    follow each other, only after the first and after the last one.
    """
    ends = set()
    for run in re.finditer(r"[^\W\d_]+|\d+|\s+|.", text):
        first = len(text[: run.start()].encode())
        ends |= {first + 1, len(text[: run.end()].encode())}
    return [0, *sorted(ends)[:-1]]


@pytest.mark.slow
@EACH_FORM
def test_a_reply_that_is_cut_off_is_marked_or_refused(form: Form) -> None:
    if form.name in UNTELLABLE:
        return
    reply = reply_with_several_items(form)
    for damaged in cuts(reply, places_to_cut(reply.text)):
        outcome, why = verdict(reply, damaged)
        assert outcome != "wrong", f"{damaged.text!r}: {why}"


@pytest.mark.parametrize("name", UNTELLABLE)
def test_a_cut_that_cant_be_told_gives_one_box_at_the_most(name: str) -> None:
    form = FORMS[name]
    items = [Item(1, form.phrases[0], ((100, 200, 500, 800),))]
    reply = Reply(form, items, 0, write(form, items))
    for at in range(len(reply.text)):
        outcome, _ = verdict(reply, Damaged(reply.text[:at]))
        if outcome != "refused":
            assert len(read(reply, reply.text[:at]).boxes) == 1


STREAMS = [form for form in FORMS.values() if form.is_stream]


@pytest.mark.parametrize("form", STREAMS, ids=lambda form: form.name)
def test_a_stream_cut_between_two_items_is_a_shorter_stream(form: Form) -> None:
    reply = reply_with_several_items(form)
    for text, truth in beginnings(form, reply.items, reply.seed):
        if truth:
            found = found_in(read(reply, text + form.ending))
            assert found == truth, text


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_reply_never_has_other_boxes(damage: Damage) -> None:
    for form in FORMS.values():
        for number in range(2):
            dice = random.Random(f"{form.name}/{number}")
            reply = draw_reply(form, dice)
            damaged = damage(reply, dice)
            if damaged is not None:
                outcome, why = verdict(reply, damaged)
                assert outcome != "wrong", f"{reply.text!r} → {damaged.text!r}: {why}"


def work_of(text: str) -> int:
    """Count the instructions that reading a text takes."""
    read_any(text)  # loads what is loaded once
    read_any("[]")  # the last reply that was read is kept
    return instructions_of(lambda: read_any(text))


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("kind", KINDS)
def test_twice_the_length_is_twice_the_work(kind: str) -> None:
    for around in AROUND:
        half = work_of(long_text(KINDS[kind], around, 15_000))
        whole = work_of(long_text(KINDS[kind], around, 30_000))
        assert whole < 2.1 * half + 50_000, around


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("kind", KINDS)
def test_no_pattern_runs_up_on_a_long_text(kind: str) -> None:
    """A pattern that is quadratic in a reply's length would not come to an end on this length."""
    for around in AROUND:
        read_any(long_text(KINDS[kind], around, 300_000))
