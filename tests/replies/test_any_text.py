"""Any text at all, and texts made of what models write: boxes inside the image, or one kind of
error.

A few hundred texts each time; FUZZ_TEXTS=200000 for a long run.
"""

from __future__ import annotations

import json
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.formats import known_formats
from dataflow_grounding.replies import read_boxes, read_object

pytestmark = pytest.mark.slow

TEXTS = int(os.environ.get("FUZZ_TEXTS", "200"))
BOX_FORMATS = ["xyxy_1000", "yxyx_1000", "xyxy_1", "xyxy_100", "xywh_px", "cxcywh_1"]
BOX_FORMATS += ["xyxy_px@pad_square"]
BOX_FORMATS += [name for name, known in known_formats().items() if known.boxes]
PHRASES: list[Any] = [
    [],
    ["cat"],
    ["cat", "dog"],
    ["the red mug", "red mug", "cat", "cat"],
    {7: "猫", 9: "the cat"},
]

ODD_NUMBERS: list[Any] = [
    10**308,
    10**309,
    -(10**400),
    10**4000,
    1e308,
    "10",
    "٣",
    "1e999",
    "9" * 50,
]
NUMBERS = (
    st.integers(-50, 1200) | st.floats() | st.sampled_from([*ODD_NUMBERS, "", None, True, "NaN"])
)
NAMES = """
    bbox_2d box_2d bbox boxes xywh quad polygon segmentation mask corners point_2d points x1 y1
    x2 y2 x y w h width height top_left bottom_right label labels name id ids score scores
    evidence statuses status objects found error thinking answer message cat dog 1 0 <OD> image
"""
KEYS = st.sampled_from([*NAMES.split(), ""])
WORDS = st.sampled_from([
    "cat", "red mug", "猫", "not found", "[1, 2, 3, 4]", "10,20,30,40", "<loc_1><loc_2><loc_3><loc_4>",
    '{"bbox": [1, 2, 3, 4]}', "&amp;", "&#xD800;", "&#99999999;", "\ud800", "\x00", "seen", "95%", "a\nb",
])  # fmt: skip
VALUES = st.recursive(
    NUMBERS | WORDS | st.none() | st.booleans() | st.lists(NUMBERS, max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
TOKENS = """
    { } [ ] ( ) " ' , : ` ``` // /* */ “ null NaN 1e999 - true 0.5 12 ٣ x1=1 [1,2,3,4] [[ ]]
    <think> </think> <seed:think> </seed:think> <zorb> </zorb> <answer> </answer> <|zorb|>
    ◁think▷ ◁/think▷ [THINK] [/THINK] <unused94> <unused95> <|channel>thought <channel|> to=self
    <|message|> <|start|>assistant <|channel|>final <|channel|>analysis <|end|> <|eot|>
    <|im_end|> <|im_start|>user <|turn>user <|start_header_id|>assistant<|end_header_id|> analysisI
    assistantfinal 等等， none 没有找到 &lt; &amp; </input> <tool_call> </tool_call> <|"|> \\boxed{
"""
PIECES = st.sampled_from([
    *TOKENS.split(), "\n", "```json\n", "\x00", "\ud800", "9" * 5000, '{"a":' * 60, "[1," * 40, "click(x=1, y=2)",
    "Assistant: ", "Wait, ", "I can't see the image.", "not ",
])  # fmt: skip
RECORDED = [
    json.loads(line)["reply"]
    for line in Path(__file__).with_name("forms.jsonl").read_text("utf-8").splitlines()
]


def part_of_reply(seed: int) -> str:
    """Any part of a reply in any of the forms that models write boxes in."""
    dice = random.Random(seed)
    text = dice.choice(RECORDED)
    start, end = sorted(dice.choices(range(len(text) + 1), k=2))
    return text[start:end]


PARTS = st.integers(0, 2**32).map(part_of_reply)
JSON_TEXTS = VALUES.map(lambda value: json.dumps(value)) | VALUES.map(repr)
REPLIES = st.one_of(
    st.text(max_size=60),
    JSON_TEXTS,
    st.lists(PIECES | PARTS | st.text(max_size=5), max_size=30).map("".join),
    st.lists(PIECES | JSON_TEXTS, max_size=8).map("".join),
    st.tuples(JSON_TEXTS, st.integers(0, 300)).map(lambda cut: cut[0][: cut[1]]),
)


@settings(
    max_examples=TEXTS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    print_blob=True,
)
@given(
    REPLIES,
    st.sampled_from(BOX_FORMATS),
    st.tuples(*[st.integers(1, 9000)] * 4),
    st.sampled_from(PHRASES),
)
def test_whatever_stands_in_a_reply_gives_boxes_inside_the_image_or_is_unreadable(
    reply: str, box_format: str, sizes: tuple[int, int, int, int], phrases: Any
) -> None:
    size, sent = sizes[:2], sizes[2:]
    ids = set(phrases) if isinstance(phrases, dict) else set(range(1, len(phrases) + 1))
    boxes, complaint = [], ""
    try:
        boxes = read_boxes(
            reply, format=box_format, image_size=size, sent_size=sent, phrases=phrases
        ).boxes
    except UnreadableReply as error:
        complaint = str(error)
    assert "\n" not in complaint
    for box in boxes:
        x1, y1, x2, y2 = box.bbox
        assert 0 <= x1 < x2 <= size[0]
        assert 0 <= y1 < y2 <= size[1]
        assert box.id in ids or not phrases
        assert box.score is None or 0 <= box.score <= 1
        json.dumps([box.label, box.evidence, box.numbers])
    with suppress(UnreadableReply):
        read_object(reply, required="objects")


@pytest.mark.parametrize(
    "reply",
    [
        '{"objects": [{"id": 1, "label": "cat", "bbox_2d": [%s, 0, 500, 500], "score": 1}]}',
        '{"objects": [{"id": 1, "label": "cat", "bbox_2d": [0, 0, 500, 500], "score": %s}]}',
        '{"objects": [{"id": %s, "label": "cat", "bbox_2d": [0, 0, 500, 500], "score": 1}]}',
        '[{"label": "cat", "bbox_2d": [-%s, 0, 500, 500]}]',
        '[{"label": "cat", "x1": %s, "y1": 0, "x2": 1, "y2": 2}]',
        '{"statuses": [{"id": %s, "status": "ambiguous"}]}',
        "cat: [%s, 1, 2, 3]",
        "cat: %s, 1, 2, 3",
        "<box>(%s,1),(2,3)</box>",
        "<loc_%s><loc_1><loc_2><loc_3>",
        "<patch_index_%s><patch_index_1>",
    ],
)
def test_a_number_of_any_length_is_a_number_or_none(reply: str) -> None:
    for digits in (308, 309, 400, 4000, 5000):
        text = reply % ("9" * digits)
        with suppress(UnreadableReply):
            reading = read_boxes(text, format="xyxy_1000", image_size=(640, 480), phrases=["cat"])
            assert [box.bbox for box in reading.boxes] in ([], [(0.0, 0.0, 320.0, 240.0)])
