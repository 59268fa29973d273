"""JSON as models write it: what is read, and what is refused since it may be meant otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.replies import Reading
from dataflow_grounding.replies.forms import is_whole
from tests.support.reading import read, refused

CAT, DOG = (10, 20, 30, 40), (50, 60, 70, 80)


def found(reading: Reading) -> list[tuple[str | None, tuple[float, ...]]]:
    return [(box.label, box.bbox) for box in reading.boxes]


# forms.jsonl has further ones.
WAYS = {
    "an object with a list": '{"objects": [{"label": "cat", "bbox_2d": [10,20,30,40]}, {"label": "dog", "bbox_2d": [50,60,70,80]}]}',
    "polite words after it": '```json\n[{"label": "cat", "bbox": [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,80]}]\n```\nLet me know if you need anything else.',
    "a list without its end": '[{"label": "cat", "bbox": [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,80]}',
    "trailing commas": '[{"label": "cat", "bbox": [10,20,30,40],}, {"label": "dog", "bbox": [50,60,70,80],},]',
    "no comma between objects": '[{"label": "cat", "bbox": [10,20,30,40]} {"label": "dog", "bbox": [50,60,70,80]}]',
    "Python literals": "[{'label': 'cat', 'bbox': (10, 20, 30, 40), 'score': None}, {'label': 'dog', 'bbox': (50, 60, 70, 80)}]",
    "comments": '[ // found\n{"label": "cat", /* box */ "bbox": [10,20,30,40]}, # box\n{"label": "dog", "bbox": [50,60,70,80]}]',
    # google-cloud generative-ai, intro_agentic_vision.ipynb
    "all of it a comment": '# [{box_2d: [10, 20, 30, 40], label: "cat"},\n#  {box_2d: [50, 60, 70, 80], label: "dog"}]',
    "nested lists": '[{"label": "cat", "bbox": [[10,20],[30,40]]}, {"label": "dog", "bbox": [[50,60,70,80]]}]',
    # Qwen3-VL, recorded as h098
    "the braces between left out": '{"label": "cat", "bbox": [10,20,30,40], "label": "dog", "bbox": [50,60,70,80]}',
    "a brace twice": '[{{"label": "cat", "bbox": [10,20,30,40]},{"label": "dog", "bbox": [50,60,70,80]}]',
    "no commas between numbers": '[{"label": "cat", "bbox": [10 20 30 40]}, {"label": "dog", "bbox": [50 60 70 80]}]',
    "named corners": '[{"label":"cat","xmin":10,"xmax":30,"ymin":20,"ymax":40},{"label":"dog","bbox":{"x1":50,"y1":60,"x2":70,"y2":80}}]',
    "named sizes and corner pairs": '[{"label":"cat","x":10,"y":20,"width":20,"height":20},{"label":"dog","left":50,"top":60,"right":70,"bottom":80}]',
    "JSON in a string": '{"name": "mark", "arguments": "{\\"objects\\": [{\\"label\\": \\"cat\\", \\"bbox\\": [10,20,30,40]}, {\\"label\\": \\"dog\\", \\"bbox\\": [50,60,70,80]}]}"}',
    "outlines": '[{"label": "cat", "polygon": [[10,20],[30,20],[30,40],[10,40]]}, {"label": "dog", "quad": [50,60,70,60,70,80,50,80]}]',
    # vllm-project/vllm-ascend issue 16001, liustack/modlens issue 45
    "a brace too many": '{"objects": [{"label": "cat", "bbox": [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,80]}]}}',
    "brackets too many": '{"objects": [{"label": "cat", "bbox": [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,80]}]}\n]}\n',
    "a fenced brace too many": '```json\n[{"label": "cat", "bbox": [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,80]}]}\n```',
}


@pytest.mark.parametrize("reply", WAYS.values(), ids=WAYS)
def test_two_boxes_are_read_in_every_way_of_writing_json(reply: str) -> None:
    for phrases in ((), ["cat", "dog"]):
        assert found(read(reply, phrases=phrases)) == [("cat", CAT), ("dog", DOG)]


@pytest.mark.parametrize(
    "reply",
    [
        '"rejected": [{"id": 1, "label": "cat", "bbox": [10,20,30,40]}]}',
        '{"objects": [{"label": "cat", "bbox": [10,20,30,40]}]}, "rejected": [{"label": "cat", "bbox": [50,60,70,80]}]}',
        '{"objects": [{"label": "cat", "bbox": [10,20,30,40]}]}, {"objects": [{"label": "cat", "bbox": [50,60,70,80]}]}]}',
        '{"objects": []}, {"label": "cat", "bbox": [10,20,30,40]}]}',
        '{"objects": [{"id": 1, "label": "cat", "bbox": [10,20,30,40]}]}} The cat is wrong.',
    ],
)
def test_a_bracket_too_many_joins_no_two_answers(reply: str) -> None:
    refused(reply, phrases=["cat"])


def test_a_list_without_its_beginning_may_lack_objects() -> None:
    """roboflow/inference issue 2930."""
    for end in ("]", "]}"):
        cat = '{"id": 1, "label": "cat", "bbox": [10,20,30,40]}'
        dog = '{"id": 2, "label": "dog", "bbox": [50,60,70,80]}'
        reading = read(f"{cat}, {dog}{end}", phrases=["cat", "dog"])
        assert found(reading) == [("cat", CAT), ("dog", DOG)]
        assert reading.count("truncated") == 1


@pytest.mark.parametrize(
    "reply",
    [
        '{"cat": [10,20,30,40], "dog": [[50,60,70,80]]}',
        '{"the cat": {"bbox_2d": [10,20,30,40]}, "Dog": [{"box": [50,60,70,80]}]}',
        '{"objects": {"cat": [10,20,30,40], "dog": [50,60,70,80]}}',
    ],
)
def test_phrases_may_be_the_keys(reply: str) -> None:
    boxes = read(reply, phrases=["cat", "dog"]).boxes
    assert [(box.id, box.bbox) for box in boxes] == [(1, CAT), (2, DOG)]
    assert "known" in refused(reply)  # without phrases such a key is none that is known


@pytest.mark.parametrize(
    "value",
    [
        '"partly hidden, about 500,200,900,700"', '"see above"', '"?"', "true", "2", '{"count": 2}',
        "[1, 2, 3]", '{"note": "there"}', '[{"note": "there"}]', '"behind the cat"', "[[1, 2], 3]",
    ],
)  # fmt: skip
def test_a_key_that_is_a_phrase_has_a_box_or_none_and_is_never_silently_none(value: str) -> None:
    reply = f'{{"cat": [10, 20, 30, 40], "dog": {value}}}'
    try:
        reading = read(reply, phrases=["cat", "dog"])
    except UnreadableReply:
        return
    assert [box.bbox for box in reading.boxes] == [CAT]
    assert reading.unread == [2]


@pytest.mark.parametrize("value", ["null", "[]", '"none"', '"not found"', '{"bbox": null}'])
def test_a_phrase_without_a_box_is_absent(value: str) -> None:
    reading = read(f'{{"cat": [10, 20, 30, 40], "dog": {value}}}', phrases=["cat", "dog"])
    assert [(box.id, box.bbox) for box in reading.boxes] == [(1, CAT)]
    assert (reading.unread, reading.unsure) == ([], {})


@pytest.mark.parametrize(
    "key",
    [
        "false_positives", "ignored", "examples", "history", "low_confidence", "ground_truth", "rejected",
        "candidates", "excluded", "previous", "input", "prompt", "discarded", "negatives", "drafts", "considered",
    ],
)  # fmt: skip
def test_only_known_keys_hold_answers(key: str) -> None:
    cat = '{"label": "cat", "bbox_2d": [10,20,30,40]}'
    for value in ('[{"label": "cat", "bbox_2d": [1, 2, 3, 4]}]', "[[1, 2, 3, 4]]"):
        reading = read(f'{{"objects": [{cat}], "{key}": {value}}}', phrases=["cat"])
        assert found(reading) == [("cat", CAT)]
        assert reading.remark == f'"{key}": {value}'
        refused(f'{{"{key}": {value}}}', phrases=["cat"])
        refused(f'{{"objects": [], "{key}": {value}}}', phrases=["cat"])


@pytest.mark.parametrize(
    "sibling",
    [
        '"found": false', '"visible": "no"', '"absent": true', '"count": 2', '"status": "not found"', '"success": false',
        '"bbox": [50, 60, 70, 80]', '"x1": 1, "y1": 2, "x2": 3, "y2": 4', '"x1": 10',
        '"name": "dog"', '"width": 20, "height": 20', '"img_idx": 1',
    ],
)  # fmt: skip
def test_a_key_whose_role_contradicts_its_box_costs_the_box(sibling: str) -> None:
    for reply in (
        f'[{{"label": "cat", "bbox_2d": [10,20,30,40], {sibling}}}]',
        f'{{{sibling}, "bbox_2d": [10,20,30,40], "label": "cat"}}',
    ):
        refused(reply, phrases=["cat", "dog"])


@pytest.mark.parametrize(
    "sibling",
    [
        '"score": 0.9', '"confidence": "91%"', '"mask": "data:image/png;base64,iVBORw0KGgo="', '"color": "red"',
        '"found": true', '"visible": "yes"', '"description": "a black cat with 2 eyes"', '"occluded": false',
        '"status": "detected"', '"note": ""', '"attributes": []', '"bbox": [10, 20, 30, 40]', '"count": 1',
        '"x1": 10, "y1": 20, "x2": 30, "y2": 40', '"activity": "sleeping"', '"area": 400', '"index": 4', '"point_2d": null', '"img_idx": 0',
        '"unit": "px"', '"offset": [100, 0]', '"is_cat": false', '"note": "shifted down"', '"text": "no cat"', '"confidence": "rejected"',
    ],
)  # fmt: skip
def test_what_changes_nothing_may_stand_next_to_a_box(sibling: str) -> None:
    reply = f'[{{"label": "cat", "bbox_2d": [10,20,30,40], {sibling}}}]'
    assert found(read(reply, phrases=["cat"])) == [("cat", CAT)]


@pytest.mark.parametrize(
    "next_to_it",
    [
        '"total": 3', '"count": 2', '"message": "the image failed to load"', '"labels": ["cat"]', '"found": true',
        '"rejected": [[1, 2, 3, 4]]', '"note": "I can\'t see the image."',
    ],
)  # fmt: skip
def test_an_empty_list_counts_only_where_nothing_else_speaks(next_to_it: str) -> None:
    for reply in (f'{{"objects": [], {next_to_it}}}', f'{{{next_to_it}, "detections": []}}'):
        refused(reply, phrases=["cat"])


@pytest.mark.parametrize(
    "reply",
    [
        "[]", '{"found": false}', '{"objects": []}', '{"objects": null}', "null", "```json\n[]\n```", "{'objects': [],}",
        '{"objects": [], "count": 0}', '{"objects": [], "message": "No objects found."}', '{"found": false, "boxes": []}',
        '{"isObjOccurred": false, "occurredObjects": []}', '{"objects": [], "status": "ok"}', "<think>no cat</think>[]",
        '[{"id": 1, "bbox_2d": null}, {"id": 2, "found": false}]', '{"<OD>": {"bboxes": [], "labels": []}}',
        '[{"label": "cat", "bbox_2d": [0, 0, 0, 0]}, {"label": "dog", "bbox_2d": [-1, -1, -1, -1]}]',
    ],
)  # fmt: skip
def test_a_list_of_nothing_says_that_nothing_is_there(reply: str) -> None:
    reading = read(reply, phrases=["cat", "dog"])
    assert (reading.boxes, reading.unread, reading.unsure) == ([], [], {})


@pytest.mark.parametrize(
    "reply",
    [
        '{"label": "cat", "bbox": [10,20,30,40], "bbox": [50,60,70,80]}',
        '{"label": "cat", "bbox_2d": {"bbox": [10,20,30,40]}}',
        '[{"label": "cat", "bbox": [[10,20,30,40], 5]}]',
        '[{"label": "cat", "bbox": [["a", 20], [30, 40]]}]',
        "[{'label': 'cat', 'bbox': [10, 20, NaN, 40]}]",
        '[{"label": "cat", "bbox": [10,20,30,40}]',
        '[{"label": "cat", "bbox": 10,20,30,40]}]',
        '[{"label": "cat", "bbox": [10,20,30,40]}}, 1]',
        '[{"label": "cat", "bbox: [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,80]}]',
        '[{"label": "cat", "bbox" [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,80]}]',
        '[{"label": "cat" "bbox": [10,20,30,40]}]',
        '[{"label": "cat, "bbox": [10,20,30,40]}]',
        '[{"label": "cat", "bbox": [10, /* ymin */ 20, 30, 40]}]',
        '{"image_width": 500, "objects": [{"label": "cat", "bbox": [10,20,30,40]}]}',
        '{"objects": [{"label": "cat", "bbox": [10,20,30,40]}], "count": 2}',
        '{"objects": [{"label": "cat", "bbox": [10,20,30,40]}], "detections": [{"label": "cat", "bbox": [5,6,7,8]}]}',
        '[{"img_idx": 0, "bbox": [10,20,30,40]}, {"img_idx": 1, "bbox": [50,60,70,80]}]',
        '{"answer": {"answer": {"answer": {"answer": {"answer": {"answer": {"answer": {"answer": [[10,20,30,40]]}}}}}}}}',
        # braces left out, and a label lost
        '{"bbox": [10,20,30,40], "label": "cat", "bbox": [50,60,70,80], "label": "dog", "bbox": [1,2,300,400]}',
        '{"label": "cat", "bbox": {"x1": 10, "y1": 20, "x2": 30, "y2": 40, "x1": 5}}',
        '［｛“label”：“fox”，“bbox_2d”［10，20，30，40］｝，｛“label”：“cat”，“bbox_2d”：［50，60，70，80］｝］',
        '［10，20，30，40］｝，｛“label”：“cat”，“bbox_2d”：［441，22，554，260］｝］｝',
        '{"objects": [], "bbox_2d": [10,20,30,40], "label": "cat"}',
        '[{"id": "dog", "bbox_2d": [10,20,30,40]}]',
        '# [{"label": "cat", "bbox": [10,20,30,40]}]\n[{"label": "cat", "bbox": [50,60,70,80]}]',
        '[{"bbox": [10,20,30,40]}, {"bbox": [50,60,70,80], "label": "dog"}]',
        "{}", '{"error": "overloaded"}', '{"objects": "many"}', '{"objects": 3}', '["cat"]', "[true]", "[" * 1000,
    ],
)  # fmt: skip
def test_json_that_may_be_meant_otherwise_is_refused_in_one_line(reply: str) -> None:
    assert "\n" not in refused(reply, phrases=["cat"])


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ("[10, 20, 30]", "3 numbers"), ("[10, 20, 30, 40, 50]", "5 numbers"), ("[10, 20, NaN, 40]", "not a number"),
        ("[10, 20, Infinity, 40]", "not a number"), ("[10, 20, 1e999, 40]", "not a number"),
        ("[10, 20, true, 40]", "not a number"), ('["10px", "20px", "30px", "40px"]', "not a number"),
        ("[100, 200, 1900, 1000]", "0 to 1000 was asked for"), ("[0.1, 0.2, 0.5, 0.6]", "0 to 1000 was asked for"),
        ("[-900, 20, 30, 40]", "0 to 1000 was asked for"), ("[1.100, 1.200, 2.300, 2.400]", "0 to 1000 was asked for"),
        ("[10, 20, 10, 40]", "no area"), ('"somewhere"', "no box"), ("[[1, 2, 3], [4, 5, 6]]", "3 numbers"),
        ("[10, 20, " + "9" * 5000 + ", 40]", ""),
    ],
)  # fmt: skip
def test_numbers_that_are_no_box_in_the_format_are_refused(box: str, told: str) -> None:
    assert told in refused(f'[{{"label": "cat", "bbox_2d": {box}}}]', phrases=["cat", "dog"])


def test_decimals_far_too_small_for_a_range_are_of_another_one() -> None:
    pixels: dict[str, Any] = {"format": "xyxy_px", "image_size": (4000, 3000)}
    for numbers in ("[1.100, 1.200, 2.300, 2.400]", "[1.100, 200, 1.300, 900]"):
        refused(f'{{"label": "cat", "bbox": {numbers}}}', phrases=["cat"], **pixels)
    [box] = read("[1, 2, 3, 4]", **pixels).boxes
    assert box.bbox == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ('[{"bbox_2d": [10,20,30,40], "text_content": "Total"}]', "Total"),
        ('[{"bbox_2d": [10,20,30,40], "name_zh": "米饭"}]', "米饭"),
        ('[{"bbox_2d": [10,20,30,40], "names": {"zh": "米饭", "en": "Rice"}}]', "Rice"),
        ('[{"bbox_2d": [10,20,30,40], "category": "text", "text": "0"}]', "text"),  # dots.ocr
        ('[{"bbox_2d": [10,20,30,40], "label": "the "red" one"}]', 'the "red" one'),
        ("[{'bbox_2d': [10,20,30,40], 'label': 'dog's bowl'}]", "dog's bowl"),
        ('[{"bbox_2d": [10,20,30,40], "label": "\\u732b \\ud83d\\ude00"}]', "猫 😀"),
        ('```json\n[{"bbox_2d": [10,20,30,40], "label": "<think>"}]\n```', "<think>"),
        ('[{"bbox_2d": [10,20,30,40], "label": "<think>"}]', "<think>"),
        ("[10, 20, 30, 40]", None),
        ("10, 20, 30, 40", None),
        ("10 20 30 40", None),
        ("10_20_30_40", None),  # VideoLLaMA3
        # doubao-vision in a GUI agent's log
        ('"{\\"bbox\\":[10,20,30,40],\\"errors\\":[]}"', None),
        ('[{"bbox_2d": [10,20,30,40], "points": [[15, 25], [18, 30]]}]', None),  # VisionReasoner
    ],
)
def test_the_label_is_read_as_it_stands(reply: str, label: str | None) -> None:
    assert found(read(reply)) == [(label, CAT)]


def test_a_further_label_of_an_item_is_a_remark_unless_it_is_another_phrase() -> None:
    reply = '[{"label": "cat", "bbox_2d": [10, 20, 30, 40], "name": "%s"}]'
    reading = read(reply % "the fox", phrases=["cat", "dog"])
    assert (found(reading), reading.remark) == ([("cat", CAT)], '"name": "the fox"')
    refused(reply % "dog", phrases=["cat", "dog"])


def test_of_objects_without_braces_the_whole_ones_are_kept_where_the_reply_is_cut_off() -> None:
    reply = '{"label": "cat", "bbox": [10,20,30,40], "label": "dog", "bbox": [50,'
    reading = read(reply, phrases=["cat", "dog"])
    assert found(reading) == [("cat", CAT)]
    assert reading.count("truncated") == 1


def test_a_cut_off_reply_keeps_its_whole_boxes_and_says_so() -> None:
    reply = '[{"label": "cat", "bbox": [10,20,30,40]}, {"label": "dog", "bbox": [50,60,70,8'
    reading = read(reply, phrases=["cat", "dog"])
    assert found(reading) == [("cat", CAT)]
    assert reading.count("truncated") == 1
    assert reading.doubtful
    assert list(reading.unsure) == [2]
    for short in (
        '{"objects": [',
        f'{{"objects": [{ITEM[:-6]}',
        '```json\n[{"label": "cat", "bbox',
    ):
        with pytest.raises(TruncatedReply):
            read(short, phrases=["cat", "dog"])


def test_one_box_out_of_scale_among_many_is_dropped_but_more_spoil_the_reply() -> None:
    boxes = [{"label": "cat", "bbox": [i, i, i + 100, i + 100]} for i in range(20)]
    one = [*boxes, {"label": "cat", "bbox": [10, 20, 1800, 40]}]
    more = [*one, *({"label": "cat", "bbox": [10, 20, x, 40]} for x in (1700, 1900))]
    assert len(read(json.dumps(one)).boxes) == 20
    assert "10 to 1900" in refused(json.dumps(more))


def test_points_are_no_boxes() -> None:
    for reply in (
        '[{"point_2d": [105, 20], "label": "cat"}]',
        "[105, 20]",
        "{'action': 'CLICK', 'position': [105, 20]}",
    ):
        assert "points where boxes were asked for" in refused(reply)


ITEM = '{"id": 1, "label": "cat", "bbox_2d": [10, 20, 30, 40]}'
WHOLE = f'{{"objects": [{ITEM}]}}'


@pytest.mark.parametrize(
    "reply",
    [
        WHOLE,
        WHOLE + " \n",
        WHOLE + "<|im_end|>",
        f"```json\n{WHOLE}",
        f"```json\n{WHOLE}\n```",
        f"Here are the boxes:\n{WHOLE}",
        f"[{ITEM}]",
        "{'objects': []}",
        '{"caption": "A cat."}',
        '{"cleaned_caption": "A cat.", "expressions": []}',
        WHOLE + "}",
        ITEM + 20 * "\n",
        f"{WHOLE}\nThe cat is",
        f"```json\n{WHOLE}\n```\n### Explanation\nThe cat is on the",
        f"{ITEM}\nThe cat is on the left",
    ],
)
def test_json_that_is_closed_is_whole(reply: str) -> None:
    """wire.md: "is whole, whatever `finish_reason` says" (vllm-project/vllm issue 8020)."""
    assert is_whole(reply)


@pytest.mark.parametrize(
    "reply",
    [
        WHOLE[:-2],
        f"{WHOLE}\n{WHOLE}",
        ITEM,
        ITEM + "\n",
        f"```json\n{ITEM}\n",
        f"```json\n{ITEM}\n```",  # the next phrase's may follow
        f"{ITEM}\n{ITEM}",
        "cat[[10, 20, 30, 40]]",
        '{"label": "cat", "bbox_2d": []}',
        '{"text": "a cat", "region_ids": []}',
        '{"a cat": [10, 20, 30, 40]}',
        "[]",
        f"<think>I draft: {WHOLE}",
        "",
    ],
)
def test_what_may_go_on_is_cut_off(reply: str) -> None:
    assert not is_whole(reply)
