from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding._util.errors import SpecError, TruncatedReply, UnreadableReply
from dataflow_grounding.replies import Reading, read_boxes

CAT, DOG = (10, 20, 30, 40), (50, 60, 70, 80)


def read(reply: str, **settings: Any) -> Reading:
    return read_boxes(reply, **{"format": "xyxy_1000", "image_size": (1000, 1000), **settings})


def found(reading: Reading) -> list[tuple[str | None, tuple[float, ...]]]:
    return [(box.label, box.bbox) for box in reading.boxes]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(
            '{"objects": [{"label": "cat", "bbox_2d": [10,20,30,40]}, {"label": "dog", "bbox_2d": [50,60,70,80]}]}',
            id="an object with a list",
        ),
        pytest.param(
            '[{"label": "cat", "bbox": [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,80]}]',
            id="a bare list",
        ),
        pytest.param(
            '{"label": "cat", "box": [10,20,30,40]}\n{"label": "dog", "box": [50,60,70,80]}',
            id="an object a line",
        ),
        pytest.param(
            'Sure!\n```json\n[{"label": "cat", "bbox": [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,80]}]\n```\nDone.',
            id="fenced, with talk around",
        ),
        pytest.param(
            '[{"label": "cat", "bbox": [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,80]}',
            id="a list without its end",
        ),
        pytest.param(
            '[{"label": "cat", "bbox": [10,20,30,40],}, {"label": "dog", "bbox": [50,60,70,80],},]',
            id="trailing commas",
        ),
        pytest.param(
            '[{"label": "cat" "bbox": [10 20 30 40]} {"label": "dog" "bbox": [50 60 70 80]}]',
            id="no commas",
        ),
        pytest.param(
            "[{'label': 'cat', 'bbox': (10, 20, 30, 40), 'ok': True}, {'label': 'dog', 'bbox': (50, 60, 70, 80), 'ok': None}]",
            id="Python literals",
        ),
        pytest.param(
            "[{label: cat, bbox: [10,20,30,40]}, {label: dog, bbox: [50,60,70,80]}]",
            id="bare keys and words",
        ),
        pytest.param(
            '[ // found\n{"label": "cat", /* box */ "bbox": [10,20,30,40]}, # next\n{"label": "dog", "bbox": [50,60,70,80]}]',
            id="comments",
        ),
        pytest.param(
            '[{"label": "cat", "bbox": ["10","20","30","40"]}, {"label": "dog", "bbox": "50, 60, 70, 80"}]',
            id="numbers as strings",
        ),
        pytest.param(
            '[{"label": "cat", "bbox": [[10,20],[30,40]]}, {"label": "dog", "bbox": [[50,60,70,80]]}]',
            id="nested lists",
        ),
        pytest.param(
            '{"label": "cat", "bbox": [10,20,30,40], "label": "dog", "bbox": [50,60,70,80]}',
            id="repeated keys",
        ),
        pytest.param('{"cat": [10,20,30,40], "dog": [[50,60,70,80]]}', id="labels as keys"),
        pytest.param(
            '{"bboxes": [[10,20,30,40],[50,60,70,80]], "labels": ["cat", "dog"]}',
            id="lists side by side",
        ),
        pytest.param(
            '[["cat", [10,20,30,40]], ["dog", 50, 60, 70, 80]]', id="label and box in a list"
        ),
        pytest.param(
            '[{"label":"cat","xmin":10,"xmax":30,"ymin":20,"ymax":40},{"label":"dog","bbox":{"x1":50,"y1":60,"x2":70,"y2":80}}]',
            id="named corners",
        ),
        pytest.param(
            '[{"label":"cat","x":10,"y":20,"width":20,"height":20},{"label":"dog","top_left":{"x":50,"y":60},"bottom_right":{"x":70,"y":80}}]',
            id="named sizes and corner pairs",
        ),
        pytest.param(
            '{"name": "mark", "arguments": "{\\"objects\\": [{\\"label\\": \\"cat\\", \\"bbox\\": [10,20,30,40]}, {\\"label\\": \\"dog\\", \\"bbox\\": [50,60,70,80]}]}"}',
            id="JSON in a string",
        ),
        pytest.param("- cat: [10, 20, 30, 40]\n- dog: [50, 60, 70, 80]", id="a list in words"),
        pytest.param(
            "**Cat**\nBounding box: (10, 20), (30, 40)\n\n**Dog**\nBounding box: (50, 60), (70, 80)",
            id="headings and pairs",
        ),
        pytest.param("| cat | 10 | 20 | 30 | 40 |\n| dog | 50 | 60 | 70 | 80 |", id="a table"),
        pytest.param("cat[[10, 20, 30, 40]]\ndog[[50, 60, 70, 80]]", id="label and list glued"),
        pytest.param(
            "cat: x1=10, y1=20, x2=30, y2=40\ndog: x1=50, y1=60, x2=70, y2=80",
            id="coordinates by name",
        ),
        pytest.param(
            "<think>[1, 2, 3, 4] or so</think>[{'label': 'cat', 'bbox': [10,20,30,40]}, {'label': 'dog', 'bbox': [50,60,70,80]}]",
            id="after thinking",
        ),
        pytest.param(
            "the box [1,2,3,4]?</think><answer>cat: [10,20,30,40]\ndog: [50,60,70,80]</answer>",
            id="thinking without its beginning, an answer tag",
        ),
        pytest.param(
            "<ref>cat</ref><box>(10,20),(30,40)</box> and <ref>dog</ref><box>(50,60),(70,80)</box>",
            id="Qwen-VL",
        ),
        pytest.param(
            "<|object_ref_start|>cat<|object_ref_end|><|box_start|>(10,20),(30,40)<|box_end|><|object_ref_start|>dog<|object_ref_end|><|box_start|>(50,60),(70,80)<|box_end|><|im_end|>",
            id="Qwen2-VL",
        ),
        pytest.param(
            "<ref>cat</ref><box>[[10, 20, 30, 40]]</box>\n<ref>dog</ref><box>[[50, 60, 70, 80]]</box>",
            id="InternVL",
        ),
        pytest.param(
            "<ref>cat</ref><box>10 20 30 40</box><ref>dog</ref><box>50 60 70 80</box>",
            id="MiniCPM-V",
        ),
        pytest.param(
            "<|ref|>cat<|/ref|><|det|>[[10, 20, 30, 40]]<|/det|><|ref|>dog<|/ref|><|det|>[[50, 60, 70, 80]]<|/det|><｜end▁of▁sentence｜>",
            id="DeepSeek-VL2",
        ),
        pytest.param(
            "<|det|>cat [10, 20, 30, 40]<|/det|>text\n<|det|>dog [50, 60, 70, 80]<|/det|>",
            id="label in the det tag",
        ),
        pytest.param(
            'Here: <|begin_of_box|>[{"label": "cat", "bbox_2d": [10,20,30,40]}, {"label": "dog", "bbox_2d": [50,60,70,80]}]<|end_of_box|>.',
            id="GLM",
        ),
        pytest.param(
            '<point_box mention="cat"> (10,20) (30,40) </point_box> by <point_box mention="dog"> (50,60) (70,80) </point_box>',
            id="Isaac",
        ),
        pytest.param(
            "<|object_ref_start|>cat<|object_ref_end|><|box_start|><10><20><30><40><|box_end|><|object_ref_start|>dog<|object_ref_end|><|box_start|><50><60><70><80><|box_end|>",
            id="Rex-Omni",
        ),
        pytest.param(
            '<box x1="10" y1="20" x2="30" y2="40" label="cat"/><box x1="50" y1="60" x2="70" y2="80" label="dog"/>',
            id="attributes",
        ),
        pytest.param(
            '[{"label": "cat", "bbox": [10, 20, 30, 40</bbox>}, {"label": "dog", "bbox": "<bbox>50 60 70 80</bbox>"}]',
            id="tags within JSON",
        ),
    ],
)
def test_two_labelled_boxes_are_read_in_every_shape(reply: str) -> None:
    assert [((label or "").lower(), bbox) for label, bbox in found(read(reply))] == [
        ("cat", CAT),
        ("dog", DOG),
    ]


@pytest.mark.parametrize(
    ("reply", "format"),
    [
        pytest.param(
            '{"answer": "[{\\"bbox\\": [10,20,30,40], \\"label\\": \\"cat\\"}]"}',
            "xyxy_1000",
            id="a list of objects in a string",
        ),
        pytest.param(
            '{"objects": "[{\\"bbox\\": [10,20,30,40], \\"label\\": \\"cat\\"}]"}',
            "xyxy_1000",
            id="the same under objects",
        ),
        pytest.param(
            '{"response": "```json\\n[{\\"bbox_2d\\": [10,20,30,40], \\"label\\": \\"cat\\"}]\\n```"}',
            "xyxy_1000",
            id="a fence in a string",
        ),
        pytest.param('{"content": "cat: [10, 20, 30, 40]"}', "xyxy_1000", id="a line in a string"),
        pytest.param(
            '{"ok": 1, "arguments": "[{\\"bbox\\": [10,20,30,40], \\"label\\": \\"cat\\"}]"}',
            "xyxy_1000",
            id="a string beside others",
        ),
        pytest.param(
            '[{"bbox_2d"：[10，20，30，40]，"label"："cat"}]',
            "xyxy_1000",
            id="full-width punctuation",
        ),
        pytest.param(
            "［｛“bbox_2d”： [10、20、30、40]， “label”：“cat”｝］",
            "xyxy_1000",
            id="full-width brackets and quotation marks",
        ),
        pytest.param(
            '[{"bbox": ["10px","20px","30px","40px"], "label": "cat"}]',
            "xyxy_px",
            id="px in strings",
        ),
        pytest.param(
            '[{"x1": "10px", "y1": "20px", "x2": "30px", "y2": "40px", "label": "cat"}]',
            "xyxy_px",
            id="px in named corners",
        ),
        pytest.param(
            '[{"bbox": "10px, 20px, 30px, 40px", "label": "cat"}]', "xyxy_px", id="px in one string"
        ),
        pytest.param("cat: [10px, 20px, 30px, 40px]", "xyxy_px", id="px in a line"),
        pytest.param(
            '[{"bbox": ["1%","2%","3%","4%"], "label": "cat"}]', "xyxy_100", id="per cent"
        ),
        pytest.param(
            "- label: cat\n  bbox:\n    - 10\n    - 20\n    - 30\n    - 40\n",
            "xyxy_1000",
            id="a block list of YAML",
        ),
        pytest.param(
            "图中cat位于左上角(10, 20)、右下角(30, 40)。", "xyxy_1000", id="corners in Chinese"
        ),
    ],
)
def test_a_right_box_is_read_however_it_is_wrapped_and_punctuated(reply: str, format: str) -> None:
    assert [box.bbox for box in read(reply, format=format, phrases=["cat"]).boxes] == [CAT]


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        pytest.param(
            '[{"bbox_2d": [10,20,30,40], "text_content": "Total"}]', "Total", id="text_content"
        ),
        pytest.param(
            '[{"bbox_2d": [10,20,30,40], "name_zh": "米饭"}]', "米饭", id="a name in one language"
        ),
        pytest.param(
            '[{"bbox_2d": [10,20,30,40], "names": {"zh": "米饭", "en": "Rice"}}]',
            "Rice",
            id="names in two",
        ),
        pytest.param(
            '[{"bbox_2d": [10,20,30,40], "label": "the "red" one"}]',
            'the "red" one',
            id="quotation marks within",
        ),
        pytest.param(
            '[{"bbox_2d": [10,20,30,40], "label": "dog\'s bowl"}]', "dog's bowl", id="an apostrophe"
        ),
        pytest.param(
            "[{'bbox_2d': [10,20,30,40], 'label': 'dog's bowl'}]",
            "dog's bowl",
            id="an apostrophe in its own quotes",
        ),
        pytest.param('[{"bbox_2d": [10,20,30,40], "label": "猫"}]', "猫", id="not Latin"),
        pytest.param(
            '[{"bbox_2d": [10,20,30,40], "label": "\\u732b \\ud83d\\ude00"}]', "猫 😀", id="escaped"
        ),
        pytest.param(
            '[{"bbox_2d": [10,20,30,40], "label": "cat", "color": [1, 2, 3, 4]}]',
            "cat",
            id="other lists beside",
        ),
        pytest.param("[10, 20, 30, 40]", None, id="no label"),
        pytest.param("The cat is at [10, 20, 30, 40].", None, id="talk is no label"),
        pytest.param("[10, 20, 30, 40]: cat", "cat", id="label behind"),
    ],
)
def test_the_label_is_read_as_it_stands(reply: str, label: str | None) -> None:
    assert found(read(reply)) == [(label, CAT)]


@pytest.mark.parametrize(
    "reply",
    [
        "[]",
        '{"objects": []}',
        '{"objects": null}',
        "```json\n[]\n```",
        "None",
        "none.",
        '{"cat": null, "dog": []}',
        "<think>no cat here</think>[]",
        "I see no such thing: []",
        "{'objects': [],}",
    ],
)
def test_an_answer_that_says_none_is_no_box_and_no_error(reply: str) -> None:
    assert read(reply, phrases=["cat", "dog"]).boxes == []


@pytest.mark.parametrize(
    "reply",
    [
        '[{"label": "cat", "bbox_2d": null}]',
        '{"cat": "not found"}',
        '[{"label": "cat", "found": false}]',
        '{"bbox_2d": [0, 0, 0, 0], "label": "cat"}',
        "<ref>cat</ref><box>None</box>",
    ],
)
def test_an_answer_that_says_that_the_only_phrase_is_not_there_is_no_box_and_no_error(
    reply: str,
) -> None:
    assert read(reply, phrases=["cat"]).boxes == []


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        pytest.param("", "empty", id="nothing"),
        pytest.param("{}", "an empty object", id="an empty object"),
        pytest.param("   \n", "empty", id="blanks"),
        pytest.param("I'm sorry, I can't help with that.", "I'm sorry", id="a refusal"),
        pytest.param("There is a cat on the left.", "no box", id="talk"),
        pytest.param("The box is [x1, y1, x2, y2].", "no box", id="the format's letters"),
        pytest.param('{"error": "overloaded"}', "no box", id="another object"),
        pytest.param('{"error": null, "message": "no"}', "no box", id="another object with a null"),
        pytest.param("<think>the cat is at [10, 20, 30, 40]", "thinking", id="thinking to the end"),
        pytest.param('[{"label": "cat", "bbox": [10, 20, 30]}]', "3 numbers", id="three numbers"),
        pytest.param(
            '[{"label": "cat", "bbox": [10, 20, 30, 40, 50]}]', "5 numbers", id="five numbers"
        ),
        pytest.param('[{"label": "cat", "bbox": [10, 20, NaN, 40]}]', "not a number", id="NaN"),
        pytest.param(
            '[{"label": "cat", "bbox": [10, 20, Infinity, 40]}]', "not a number", id="Infinity"
        ),
        pytest.param(
            '[{"label": "cat", "bbox": [10, 20, 1e999, 40]}]',
            "not a number",
            id="a number past all bounds",
        ),
        pytest.param(
            '[{"label": "cat", "bbox": [10, 20, ' + "9" * 5000 + ", 40]}]",
            "not a number",
            id="5,000 digits",
        ),
        pytest.param(
            '[{"label": "cat", "bbox": [10, 20, true, 40]}]', "not a number", id="a boolean"
        ),
        pytest.param(
            '[{"label": "cat", "bbox": [100, 200, 1900, 1000]}]',
            "0 to 1000 was asked for",
            id="pixels",
        ),
        pytest.param(
            '[{"label": "cat", "bbox": [0.1, 0.2, 0.5, 0.6]}]',
            "0 to 1000 was asked for",
            id="fractions",
        ),
        pytest.param(
            '[{"label": "cat", "bbox": [-900, 20, 30, 40]}]',
            "0 to 1000 was asked for",
            id="far out on the left",
        ),
        pytest.param('[{"label": "cat", "bbox": [10, 20, 10, 40]}]', "no area", id="no width"),
        pytest.param('[{"label": "cat", "point_2d": [10, 20]}]', "points", id="points"),
        pytest.param(
            "<loc0256><loc0256><loc0768><loc0768><loc0800> cat",
            "5 location tokens",
            id="PaliGemma: five tokens",
        ),
        pytest.param(
            '[{"label": "cow", "bbox": [10, 20, 30, 40]}]',
            "not one of the phrases",
            id="a label of no phrase",
        ),
        pytest.param(
            "[[10, 20, 30, 40], [50, 60, 70, 80]]",
            "without an id or a label",
            id="boxes of nothing",
        ),
        pytest.param("[" * 1000 + "10, 20, 30, 40" + "]" * 1000, "nested", id="nested without end"),
        pytest.param(
            '```json\n}\n{"box_2d": }10, 20]\n```',
            "no box",
            id="brackets that don't fit around nothing",
        ),
    ],
)
def test_what_cannot_be_read_is_an_error_of_one_line_and_not_none(reply: str, told: str) -> None:
    with pytest.raises(UnreadableReply) as error:
        read(reply, phrases=["cat", "dog"])

    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "reply",
    [
        '{"objects": [',
        '{"objects": [{"id": 1, "label": "cat", "bbox_2d": [10, 20, 30, 4',
        "<ref>cat</ref><box>(10,20),(30",
        '```json\n[{"label": "cat", "bbox_2d": [10, 20',
    ],
)
def test_a_reply_cut_off_before_its_first_box_is_truncated_and_not_none(reply: str) -> None:
    with pytest.raises(TruncatedReply):
        read(reply, phrases=["cat", "dog"])


def test_a_reply_cut_off_later_keeps_its_whole_boxes_and_says_so() -> None:
    reading = read(
        '[{"label": "cat", "bbox": [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,8',
        phrases=["cat", "dog"],
    )

    assert found(reading) == [("cat", CAT)]
    assert reading.count("truncated") == 1
    assert reading.doubtful
    assert reading.unread == [2]


@pytest.mark.parametrize("end", range(1, 100))
def test_wherever_a_reply_is_cut_no_number_is_made_up(end: int) -> None:
    whole = '{"objects": [{"id": 1, "label": "cat", "bbox_2d": [111,222,333,444]}, {"id": 2, "label": "dog", "bbox_2d": [555,666,777,888]}]}'

    try:
        reading = read(whole[:end], phrases=["cat", "dog"])
    except UnreadableReply:
        return
    assert found(reading) in (
        [("cat", (111, 222, 333, 444))],
        [("cat", (111, 222, 333, 444)), ("dog", (555, 666, 777, 888))],
    )


@pytest.mark.parametrize(
    ("reply", "bbox", "code"),
    [
        ("[{'label': 'cat', 'bbox': [30, 40, 10, 20]}]", CAT, "swapped"),
        ("[{'label': 'cat', 'bbox': [-50, 20, 30, 1100]}]", (0, 20, 30, 1000), "clamped"),
        ("[{'label': 'cat', 'bbox': [10, 20, 30, 99999]}]", (10, 20, 30, 999), "clamped"),
        ("[{'label': 'cat', 'bbox': [10, 20, 30, 40]}]", CAT, "repaired_json"),
        (
            '[{"label": "cat", "bbox": [10, 20, 30, 40]}, {"label": "cat", "bbox": [10, 20, 30, 40]}]',
            CAT,
            "merged",
        ),
        ('[{"label": "the cat", "bbox": [10, 20, 30, 40]}]', CAT, "matched_by_label"),
        ('[{"label": "cat", "bbox": [10, 20, 30, 40], "score": 7}]', CAT, "score_ignored"),
        ('[{"label": "cat", "bbox": [10, 20, 30, 40], "score": ""}]', CAT, "score_ignored"),
        (
            '[{"label": "cat", "bbox": [10, 20, 30, 40]}, {"label": "cow", "bbox": [1, 2, 3, 4]}]',
            CAT,
            "dropped",
        ),
        ('[{"label": "cat", "bbox": [10, 20, 30, 40]}}, 1]', CAT, "broken_json"),
    ],
)
def test_what_is_done_to_a_box_is_noted(reply: str, bbox: tuple[float, ...], code: str) -> None:
    reading = read(reply, phrases=["cat"])

    assert [box.bbox for box in reading.boxes] == [bbox]
    assert reading.count(code) == 1


def test_one_box_out_of_scale_among_many_is_dropped_but_two_spoil_the_reply() -> None:
    boxes = [{"label": "cat", "bbox": [i, i, i + 100, i + 100]} for i in range(20)]
    one = [*boxes, {"label": "cat", "bbox": [10, 20, 1800, 40]}]
    more = [
        *one,
        {"label": "cat", "bbox": [10, 20, 1900, 40]},
        {"label": "cat", "bbox": [10, 20, 1700, 40]},
    ]

    assert len(read(json.dumps(one)).boxes) == 20
    with pytest.raises(UnreadableReply, match="10 to 1900"):
        read(json.dumps(more))


@pytest.mark.parametrize(
    ("entry", "phrases", "phrase_id"),
    [
        pytest.param({"id": 2}, ["cat", "dog"], 2, id="by id"),
        pytest.param({"id": "2"}, ["cat", "dog"], 2, id="by an id in quotes"),
        pytest.param(
            {"id": 2, "label": "some animal"}, ["cat", "dog"], 2, id="by id, whatever the label"
        ),
        pytest.param(
            {"id": 1, "label": "dog"},
            ["cat", "dog"],
            2,
            id="by label where that is another phrase than the id's",
        ),
        pytest.param(
            {"id": 9, "label": "Dog"}, ["cat", "dog"], 2, id="by label where there is no such id"
        ),
        pytest.param(
            {"label": " The  DOG. "}, ["cat", "the dog"], 2, id="case, spacing and full stops"
        ),
        pytest.param({"label": "dog 3"}, ["cat", "a dog"], 2, id="articles and numbering"),
        pytest.param({"label": "mug"}, ["red mug", "table"], 1, id="a shorter label"),
        pytest.param(
            {"label": "red mug on the table"}, ["table", "mug on the table"], 2, id="a longer label"
        ),
        pytest.param(
            {"label": "woman wearing a hat"},
            ["woman with a hat", "man"],
            1,
            id="the same things in other words",
        ),
        pytest.param({"label": "杯子"}, ["红色的杯子", "桌子"], 1, id="a script without blanks"),
        pytest.param({}, ["cat"], 1, id="the only phrase"),
        pytest.param({"label": "blue mug"}, ["red mug", "table"], None, id="another colour"),
        pytest.param({"label": "mug"}, ["red mug", "blue mug"], None, id="either of two"),
        pytest.param(
            {"label": "table lamp"},
            ["table"],
            None,
            id="another thing that has the phrase in its name",
        ),
        pytest.param({"label": "mug"}, ["big old red mug"], None, id="too little of the phrase"),
        pytest.param({"label": "man without a hat"}, ["man with a hat"], None, id="a negation"),
        pytest.param({"label": "dog"}, ["cat"], None, id="not the only phrase"),
        pytest.param({}, ["cat", "dog"], None, id="no word of which"),
    ],
)
def test_a_box_belongs_to_the_phrase_that_it_names(
    entry: dict[str, Any], phrases: list[str], phrase_id: int | None
) -> None:
    reply = json.dumps([{**entry, "bbox_2d": CAT}, {"id": 1, "bbox_2d": DOG}])
    reading = read(reply, phrases=phrases)

    assert [box.id for box in reading.boxes if box.bbox == CAT] == (
        [phrase_id] if phrase_id else []
    )
    assert reading.count("dropped") == (phrase_id is None)


def test_phrases_that_read_the_same_get_a_box_each() -> None:
    reply = json.dumps([{"label": "dog", "bbox": CAT}, {"label": "dog", "bbox": DOG}])

    assert [box.id for box in read(reply, phrases={3: "dog", 5: "cat", 8: "Dog"}).boxes] == [3, 8]


@pytest.mark.parametrize(
    ("written", "score"),
    [
        ({"score": 0.5}, 0.5),
        ({"bbox_score": 1}, 1.0),
        ({"confidence": "91%"}, 0.91),
        ({"confidence": "0.25"}, 0.25),
        ({}, None),
        ({"score": None}, None),
        ({"score": 91}, None),
        ({"score": -0.1}, None),
        ({"score": "high"}, None),
        ({"score": True}, None),
    ],
)
def test_a_score_is_a_part_of_one_or_nothing(written: dict[str, Any], score: float | None) -> None:
    assert read(json.dumps([{"label": "cat", "bbox": CAT, **written}])).boxes[0].score == score


def test_statuses_and_evidence_pass_through() -> None:
    reply = {
        "objects": [{"id": 1, "bbox_2d": CAT, "evidence": "seen"}],
        "statuses": [
            {"id": 2, "status": "ambiguous", "reason": "two alike"},
            {"id": 9, "status": "unsupported"},
        ],
    }
    reading = read(json.dumps(reply), phrases=["cat", "dog"])

    assert reading.boxes[0].evidence == "seen"
    assert (reading.statuses, reading.reasons) == ({2: "ambiguous"}, {2: "two alike"})


def test_an_answer_of_statuses_alone_is_readable() -> None:
    reading = read(
        '{"objects": [], "statuses": [{"id": 1, "status": "unsupported"}]}', phrases=["cat"]
    )

    assert (reading.boxes, reading.statuses) == ([], {1: "unsupported"})


def test_tokens_that_one_family_writes_mean_what_that_family_means() -> None:
    reading = read("<loc0512><loc0256><loc1023><loc0768> cat", format="xyxy_1000")

    assert reading.boxes[0].bbox == (250, 500, 750, pytest.approx(999, abs=0.1))
    assert reading.count("native_tokens") == 1


@pytest.mark.parametrize(
    ("name", "bbox"),
    [
        ("gemini", (20, 10, 40, 30)),
        ("xywh_px", (10, 20, 40, 60)),
        ("xyxy_px", (10, 20, 30, 40)),
        ("xyxy_100", (100, 200, 300, 400)),
    ],
)
def test_the_format_and_not_the_key_settles_what_the_numbers_mean(
    name: str, bbox: tuple[float, ...]
) -> None:
    for key in ("bbox_2d", "box_2d", "box"):
        assert read(json.dumps([{key: [10, 20, 30, 40]}]), format=name).boxes[0].bbox == bbox


def test_named_corners_keep_their_meaning_whatever_the_order_of_the_format() -> None:
    reply = '{"label": "cat", "x_min": 10, "y_min": 20, "x_max": 30, "y_max": 40}'

    assert found(read(reply, format="gemini")) == [("cat", CAT)]


def test_a_reduced_picture_is_put_on_the_original() -> None:
    reading = read(
        '{"bbox_2d": [10, 20, 30, 40]}',
        format="xyxy_px",
        image_size=(4000, 2000),
        sent_size=(2000, 1000),
    )

    assert reading.boxes[0].bbox == (20, 40, 60, 80)
    assert reading.boxes[0].numbers == (10, 20, 30, 40)


def test_a_second_box_in_one_object_has_the_label_of_the_first() -> None:
    assert found(read('{"label": "cat", "bbox": [10, 20, 30, 40], "bbox": [50, 60, 70, 80]}')) == [
        ("cat", CAT),
        ("cat", DOG),
    ]


def test_a_loop_of_one_box_is_one_box() -> None:
    reading = read(
        '[{"label": "cat", "bbox": [10, 20, 30, 40]}'
        + ', {"label": "cat", "bbox": [10, 20, 30, 40]}' * 500,
        phrases=["cat"],
    )

    assert len(reading.boxes) == 1
    assert len(reading.notes) < 10


def test_of_one_box_given_twice_the_highest_score_stays() -> None:
    objects = [{"label": "cat", "bbox": CAT, "score": score} for score in (None, 0.2, 0.9, 0.5)]

    for order in (objects, objects[::-1]):
        assert [box.score for box in read(json.dumps(order), phrases=["cat"]).boxes] == [0.9]


@pytest.mark.parametrize(
    "reply",
    [
        '<point x="10.5" y="20" alt="cat">cat</point>',
        '[{"point_2d": [10.5, 20], "label": "cat"}]',
        "click(start_box='(10.5,20)')",
        "click(x=10.5, y=20)",
        "<points>(100, 200), (300, 400)</points>",
        "<points>(100, 200), (300, 400), (500, 600)</points>",
        '<points alt="cat">(100, 200)\n(300, 400)</points>',
        "<|point_start|>(100, 200),(300, 400)<|point_end|>",
        "The cat is at <point>(100, 200)</point>, (300, 400).",
    ],
)
def test_points_are_no_boxes(reply: str) -> None:
    with pytest.raises(UnreadableReply, match="points where boxes were asked for"):
        read(reply)


@pytest.mark.sampled(12)
@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "{",
        "(",
        "<box>",
        "<box ",
        "<|det|>",
        "<loc_1>",
        "<patch_index_1>",
        '"',
        '"a "a ',
        '{"a":',
        '[{"a":"',
        "[1,",
        "[1,2,3,4],",
        "9",
        "\\",
        "```",
        "<think>",
        "//",
        "/*",
        "[/*/",
        "{}",
        "<points ",
        "x1=",
        "1_2_",
        "- a: [1,2,3,4]\n",
        "<|im_end|>",
        "<zorb>",
        "</zorb>",
        "<|zorb|>",
        "Wait, 5 ",
        "no cat or ",
        " ",
        "Assistant: ",
        "“",
        "“”，1",
        'é\\"',
        "~~a",
        "cat if it is wrong ",
        "not a cat ",
        "x, y, ",
        "x   ",
        "the cat is at 1, 2, 3, 4\n",
        "图中没有，",
        "# [1,2,3,4]\n",
        "a,b,c,d\n",
        '"bbox1": [1,2,3,4],',
        '{"id":1,"bbox_2d":[1,2,3,4]}\n',
    ],
)
def test_a_hundred_kilobytes_of_anything_come_to_an_end(piece: str) -> None:
    for head in ("", '[{"a":['):
        reply = head + piece * (100_000 // len(piece))
        try:
            read(reply, phrases=["cat", "dog"])
        except UnreadableReply:
            pass


@pytest.mark.slow
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "id": st.integers(-1, 4),
                "label": st.sampled_from(["a cat", "A  Cat", "dog", " the dog ", "mouse"]),
                "bbox_2d": st.lists(
                    st.integers(-50, 1200) | st.floats(0, 1000), min_size=3, max_size=5
                ),
            },
            optional={
                "score": st.none() | st.floats(-1, 2) | st.just("0.5"),
                "evidence": st.sampled_from(["seen", "x"]),
            },
        ),
        max_size=5,
    )
)
def test_a_reply_to_the_letter_is_read_as_the_same_in_a_fence(
    objects: list[dict[str, Any]],
) -> None:
    reply = json.dumps({"objects": objects})
    readings = []
    for text in (reply, f"```json\n{reply}\n```"):
        try:
            reading = read_boxes(
                text, format="xyxy_1000", image_size=(640, 480), phrases=["a cat", "the dog"]
            )
            readings.append((reading.boxes, reading.notes, reading.unread))
        except UnreadableReply as error:
            readings.append(str(error))
    assert readings[0] == readings[1]


def test_a_message_without_text_says_nothing() -> None:
    with pytest.raises(UnreadableReply, match="the reply is empty"):
        read_boxes(None, format="xyxy_1000", image_size=(640, 480))


def test_a_size_from_json_is_taken_and_an_impossible_one_is_not_blamed_on_the_reply() -> None:
    reply = "[100, 200, 500, 800]"
    listed: Any = [640, 480]
    reading = read_boxes(reply, format="xyxy_1000", image_size=listed, sent_size=listed)
    assert [box.bbox for box in reading.boxes] == [(64.0, 96.0, 320.0, 384.0)]
    for wrong in ((0, 480), (float("nan"), 480), (640, float("inf")), (640,), ("640", "480"), 640):
        size: Any = wrong
        with pytest.raises(SpecError, match="image_size should be width and height"):
            read_boxes(reply, format="xyxy_1000", image_size=size)
    with pytest.raises(SpecError, match="sent_size should be"):
        read_boxes(reply, format="xyxy_px", image_size=(640, 480), sent_size=(0, 0))
    no_format: Any = None
    with pytest.raises(SpecError, match="unknown box_format"):
        read_boxes(reply, format=no_format, image_size=(640, 480))
