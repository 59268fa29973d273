"""Replies without ids in forms that models' documentation, tools and issues show."""

from __future__ import annotations

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import Reading
from tests.support.reading import read

MUG = (1, (100.0, 120.0, 300.0, 420.0))
FORK = (2, (400.0, 120.0, 600.0, 420.0))
ITEMS = '[{"label": "mug", "bbox_2d": [100, 120, 300, 420]}]'


def found(reading: Reading) -> list[tuple[int | None, tuple[float, ...]]]:
    return [(box.id, box.bbox) for box in reading.boxes]


READ = {
    # Doubao Seed, case ra04 of the public reports
    "a label after Seed's box": "<bbox>100 120 300 420</bbox> mug",
    "each of Seed's boxes with a label after it": "<bbox>100 120 300 420</bbox> mug\n<bbox>400 120 600 420</bbox> the fork",
    # InternVL#953 and #625: the question is printed before the answer
    "InternVL's echo of the question": "Please provide the bounding box coordinate of the region this sentence describes: <ref>mug</ref>\nAssistant: mug[[100, 120, 300, 420]]",
    "an echo on one line": "USER: <image> Where is the mug? ASSISTANT: mug[[100, 120, 300, 420]]",
    # google-generativeai, GenerateContentResponse.text; gemini/code-execution/intro_agentic_vision.ipynb
    "Gemini's code, its result, and the answer": f"I will zoom in.\n``` python\nbox = [1, 2, 3, 4]\n```\n```\n[1, 2, 3, 4]\n\n```\n```json\n{ITEMS}\n```",
    "two runs of code, and the answer without a fence": f"``` python\nopen('x')\n```\n``` failed\nNo such file\n```\n``` python\nprint([5, 6, 7, 8])\n```\n```\n[5, 6, 7, 8]\n```\n{ITEMS}",
}  # fmt: skip


@pytest.mark.parametrize("reply", READ.values(), ids=READ)
def test_a_published_form_is_read(reply: str) -> None:
    expected = [MUG, FORK] if "fork" in reply else [MUG]
    assert found(read(reply, ["mug", "fork"])) == expected


REFUSED = {
    "a caption with CogVLM's boxes": "The image shows a mug[[100,120,300,420]] next to a fork[[400,120,600,420]] on a table.",
    "a Markdown table": "| phrase | bbox |\n|---|---|\n| mug | [100, 120, 300, 420] |",
    "a label for one of two boxes": "<bbox>100 120 300 420</bbox> and <bbox>400 120 600 420</bbox> mug",
    "labels before and after boxes": "mug <bbox>100 120 300 420</bbox> fork <bbox>400 120 600 420</bbox> plate",
    "a draft before the role": f"[[1, 2, 3, 4]]\nAssistant: {ITEMS}",
    "code without an answer after it": "``` python\nx = [1, 2, 3, 4]\n```\n```\n[[100, 120, 300, 420]]\n```\n",
    "an answer before the code alone": f"```json\n{ITEMS}\n```\n``` python\nprint(1)\n```\n```\n1\n```\nDone.",
    "words between an empty list and a list": f"```json\n[]\nOr: {ITEMS}\n```",
}  # fmt: skip


@pytest.mark.parametrize("reply", REFUSED.values(), ids=REFUSED)
def test_what_is_nearly_of_such_a_form_is_refused(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, ["mug", "fork"])


def test_deepseek_ocrs_text_between_the_boxes_is_no_remark_on_them() -> None:
    """As deepseek-ai/DeepSeek-OCR converts a page; its own `re_match` finds the boxes."""
    reply = (
        "<|ref|>title<|/ref|><|det|>[[120, 68, 270, 82]]<|/det|>\n# Not an example: [1]\n\n"
        "<|ref|>text<|/ref|><|det|>[[120, 109, 503, 127]]<|/det|>\nIs \\(f(x)\\) wrong? See 2.1.\n"
    )
    reading = read(reply, ["title", "text"], "deepseek-vl2")
    assert [(box.id, box.numbers) for box in reading.boxes] == [
        (1, (120, 68, 270, 82)),
        (2, (120, 109, 503, 127)),
    ]
    assert reading.remark == ""


@pytest.mark.parametrize(
    ("reply", "boxes", "absent"),
    [
        ('{"7": [100, 120, 300, 420]}', [7], []),
        ('{"7": {"bbox_2d": [100, 120, 300, 420]}, "8": null}', [7], [8]),
        ('{"objects": {"8": [[1, 2, 30, 40], [5, 6, 70, 80]], "7": []}}', [8, 8], [7]),
    ],
)
def test_the_ids_of_phrases_may_be_the_keys(
    reply: str, boxes: list[int], absent: list[int]
) -> None:
    reading = read(reply, {7: "mug", 8: "fork"})
    assert [box.id for box in reading.boxes] == boxes
    assert not set(absent) & {*reading.unread, *reading.unsure}


@pytest.mark.parametrize(
    "reply",
    [
        '{"7": [100, 120, 300, 420], "9": [1, 2, 30, 40]}', '{"1": [100, 120, 300, 420]}', '{"7": 3}',
        '{"7": {"id": 8, "bbox_2d": [100, 120, 300, 420]}}', '{"7": [1, 2, 30, 40], "7": [5, 6, 70, 80]}',
    ],
)  # fmt: skip
def test_keys_that_may_count_boxes_are_refused(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, {7: "mug", 8: "fork"})


def test_a_callers_own_list_key_holds_the_answer() -> None:
    for reply in (f'{{"cards": {ITEMS}}}', f'```json\n{{"Cards": {ITEMS}, "count": 1}}\n```'):
        reading = read(reply, ["mug"], list_key="cards")
        assert found(reading) == [MUG]
        with pytest.raises(UnreadableReply):
            read(reply, ["mug"])


@pytest.mark.parametrize(
    "reply",
    ["屏幕上没有这个元素", "当前界面中没有找到该元素。", "屏幕上不存在该元素", "화면에 해당 요소가 없습니다.", "화면에서 이러한 요소를 찾을 수 없습니다"],
)  # fmt: skip
def test_no_such_element_on_the_screen_says_that_nothing_is_there(reply: str) -> None:
    """What a GUI model says in its language, where it writes "target element not found"."""
    reading = read(reply, ["mug"])
    assert (reading.boxes, reading.unread, reading.unsure) == ([], [], {})
    with pytest.raises(UnreadableReply):  # one element of two
        read(reply, ["mug", "fork"])
