"""Replies without end: they are read in as much work as they are long, in little memory.

`python -m benchmarks.damaged_replies` reads 1 MB of each of 29 kinds of text.
"""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import read_boxes
from dataflow_grounding.replies.text import answer_of
from tests.support.bytecode import instructions_of

BOX = '{"label": "cat", "bbox_2d": [10, 20, 30, 40]}, '
KINDS = {
    "words": "the cat is here ",
    "open brackets": "[",
    "open braces": '{"a":',
    "quotation marks": '"',
    "objects": BOX,
    "cut objects": BOX[:-10],
    "tags": "<ref>cat</ref><box>(10,20),(30,40)</box>",
    "location tokens": "cat<loc_1><loc_2><loc_3><loc_4>",
    "open thoughts": "<think>",
    "lines": "1. cat: [10, 20, 30, 40]\n",
    "denials": "There is no cat in the image. ",
}
PIECES = [
    *KINDS.values(), "{", "(", "<box ", "<|det|>", "<patch_index_1>", '"a "a ', '[{"a":"', "[1,", "\\", "//", "/*",
    "[/*/", "{}", "<points ", "x1=", "1_2_", "<|im_end|>", "<zorb>", "</zorb>", "<|zorb|>", "Wait, 5 ", "no cat or ",
    "Assistant: ", "“", "“”，1", 'é\\"', "~~a", "~~", "- ", "a ", "cat if it is wrong ", "not a cat ", "x, y, ", "x   ",
    "the cat is at 1, 2, 3, 4\n", "图中没有，", "# [1,2,3,4]\n", "a,b,c,d\n", '"bbox1": [1,2,3,4],', " ", "\n", "12345 ",
    '{"id":1,"bbox_2d":[1,2,3,4]}\n', "7", '\\"', "```\n", "[10, 20, 30, 40], ", "{label: 'cat', bbox_2d: (1, 2, 3, 4)}, ",
    "// cat\n", "<box>", "<a", "<loc0001>", "<think>no </think>", "<answer>[]</answer>", "<|start|>assistant<|message|>",
    "cat[[10, 20, 30, 40]]\n", "没有找到任何物体", '<p data-bbox="1 2 3 4">',
]  # fmt: skip
HEADS = [
    "",
    '[{"a":[',
    "- cat: ",
    '[{"label": "',
    "<ref>cat</ref><box>",
    "```json\n",
]


def read_any(text: str) -> None:
    """Read a text that nobody asked for."""
    with suppress(UnreadableReply):
        read_boxes(text, format="xyxy_1000", image_size=(1280, 960), phrases=["cat", "dog"])


def work_of(text: str) -> int:
    """Count the instructions that reading a text takes."""
    read_any(text)  # loads what is loaded once
    read_any("[]")  # the last reply that was read is kept
    return instructions_of(lambda: read_any(text))


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("kind", KINDS)
def test_twice_the_length_is_twice_the_work(kind: str) -> None:
    for head in HEADS:
        half, whole = (
            work_of(head + KINDS[kind] * (n // len(KINDS[kind]))) for n in (9000, 18_000)
        )
        assert whole < 2.1 * half + 50_000, head


@pytest.mark.slow
@pytest.mark.sampled
@pytest.mark.parametrize("piece", PIECES)
def test_no_pattern_runs_up_on_a_long_text(piece: str) -> None:
    """A pattern that is quadratic in a reply's length would not come to an end on this length."""
    for head in HEADS:
        read_any(head + piece * (200_000 // len(piece)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply",
    [
        "Memory: a\nReason: b\n" * 100_000,
        "Memory: " + "x\nReason: y\nAction: z\n" * 70_000,
        "Memory: x\nReason: y\n" + " \n" * 700_000,
    ],
    ids=["reasons", "actions", "blank lines"],
)
def test_an_agent_s_long_turn_comes_to_an_end(reply: str) -> None:
    """With a pattern whose work grows by the square of the length, 2 MB take a quarter of an hour."""
    with pytest.raises(UnreadableReply):
        read_boxes(reply, format="xyxy_1000", image_size=(1000, 1000), phrases=["cat"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", ["box 1 is a ", "the second one is a ", "missing: ", "only found the fork "]
)
def test_words_again_and_again_take_no_longer_than_they_are(words: str) -> None:
    answer = '[{"id": 1, "label": "cup", "bbox_2d": [1, 2, 3, 4]}, {"id": 2, "label": "fork", "bbox_2d": [5, 6, 7, 8]}]'
    reply = f"```json\n{answer}\n```\n{words * (6_000 // len(words))}"
    with suppress(UnreadableReply):
        read_boxes(reply, format="xyxy_1000", image_size=(9, 9), phrases=["cup", "fork"])


@pytest.mark.slow
def test_a_loop_of_one_box_is_one_box() -> None:
    reply = f"[{BOX * 500}"
    reading = read_boxes(reply, format="xyxy_1000", image_size=(1000, 1000), phrases=["cat"])
    assert len(reading.boxes) == 1
    assert len(reading.notes) < 10


def test_an_answer_of_unclosed_tags_is_read_in_little_memory() -> None:
    tracemalloc.start()
    try:
        assert answer_of("<answer>" + "<a" * 100_000).startswith("<a<a")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
