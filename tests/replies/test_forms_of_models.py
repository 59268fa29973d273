"""Replies written by hand in the forms of models and tools, and what is right for each: boxes,
none, or unreadable.
"""

from __future__ import annotations

from itertools import product

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import read_boxes

pytestmark = pytest.mark.slow

A, B = (0, 200, 300, 400), (500, 600, 700, 800)
CAT, DOG, BOTH, NEITHER = {"cat": [A]}, {"dog": [B]}, {"cat": [A], "dog": [B]}, {}
UNREADABLE = None


def read(
    reply: str, box_format: str, phrases: list[str]
) -> dict[str, list[tuple[float, ...]]] | None:
    try:
        boxes = read_boxes(reply, format=box_format, image_size=(1000, 1000), phrases=phrases).boxes
    except UnreadableReply:
        return None
    found: dict[str, list[tuple[float, ...]]] = {}
    for box in boxes:
        found.setdefault(phrases[(box.id or 0) - 1], []).append(
            tuple(round(value) for value in box.bbox)
        )
    return found


FORMS = [
    # MinerU and MinerU2.5: the label behind the box, then its rotation and its text
    (
        "<|box_start|>000 200 300 400<|box_end|><|ref_start|>cat<|ref_end|><|rotate_up|>\n<|box_start|>500 600 700 800<|box_end|><|ref_start|>dog<|ref_end|><|rotate_left|>",
        "xyxy_1000",
        BOTH,
    ),
    (
        "<|box_start|>000 200 300 400<|box_end|><|ref_start|>cat<|ref_end|><|md_start|>0 1 2 3<|md_end|><|box_start|>500 600 700 800<|box_end|><|ref_start|>dog<|ref_end|><|md_start|># Dog\nIt is one.<|md_end|><|im_end|>",
        "xyxy_1000",
        BOTH,
    ),
    (
        "<|box_start|>000 200 300 400<|box_end|><|ref_start|>cat<|ref_end|>txt_contd<|box_start|>500 600 700 800<|box_end|><|ref_start|>dog<|ref_end|>",
        "xyxy_1000",
        BOTH,
    ),
    # Seed and Doubao
    ("<bbox>0 200 300 400</bbox>", "seed-vl", UNREADABLE),
    ("<bbox>0 200 300 400</bbox> cat\n<bbox>500 600 700 800</bbox> dog", "seed-vl", BOTH),
    ("cat: <bbox>0 200 300 400</bbox>\ndog: <bbox>500 600 700 800</bbox>", "seed-vl", BOTH),
    (
        '[{"category": "cat", "bbox": "<bbox>0 200 300 400</bbox>"}, {"category": "dog", "bbox": "<bbox>500 600 700 800</bbox>"}]',
        "seed-vl",
        BOTH,
    ),
    ('{"cat": "<bbox>0 200 300 400</bbox>", "dog": null}', "seed-vl", CAT),
    ("猫<bbox>0 200 300 400</bbox>", "seed-vl", UNREADABLE),
    # LocateAnything, Rex-Omni
    (
        "<ref>cat</ref><box><0><200><300><400></box><ref>dog</ref><box><500><600><700><800></box>",
        "locate-anything",
        BOTH,
    ),
    (
        "<ref>cat</ref><box><0><200><300><400></box><ref>dog</ref><box>none</box>",
        "locate-anything",
        CAT,
    ),
    ("<ref>cat</ref><box>none</box><ref>dog</ref><box>None</box>", "locate-anything", NEITHER),
    (
        "<|object_ref_start|>cat<|object_ref_end|><|box_start|><0><200><300><400><|box_end|>, <|object_ref_start|>dog<|object_ref_end|><|box_start|><500><600><700><800><|box_end|><|im_end|>",
        "xyxy_1000",
        BOTH,
    ),
    # Kosmos-2.5: text behind the box, in pixels
    (
        "<bbox><x_0><y_200><x_300><y_400></bbox>cat\n<bbox><x_500><y_600><x_700><y_800></bbox>dog\n",
        "xyxy_px",
        BOTH,
    ),
    (
        "<bbox><x_0><y_200><x_300><y_400></bbox>The total is\n<bbox><x_500><y_600><x_700><y_800></bbox>dog\n",
        "xyxy_px",
        DOG,
    ),
    # Nemotron Parse: a corner on each side of the text, the class behind
    (
        "<x_0.0><y_0.2>Meow<x_0.3><y_0.4><class_Cat><x_0.5><y_0.6>What is it?<x_0.7><y_0.8><class_Dog>",
        "xyxy_1",
        BOTH,
    ),
    ("</s><s><x_0.0><y_0.2><x_0.3><y_0.4><class_Cat></s>", "xyxy_1", CAT),
    ("<x_0.0><y_0.2>Meow<x_0.3><y_0.4><class_Cat>", "xyxy_1000", UNREADABLE),
    ("<x_0.0><y_0.2>Meow", "xyxy_1", UNREADABLE),
    ("<x_0.0><y_0.2>Meow<x_0.3><class_Cat>", "xyxy_1", UNREADABLE),
    # DocTags
    (
        "<doctag><cat><loc_0><loc_100><loc_150><loc_200></cat><dog><loc_250><loc_300><loc_350><loc_400></dog></doctag>",
        "doctags",
        BOTH,
    ),
    (
        "<doctag><cat><loc_0><loc_100><loc_150><loc_200></cat><dog><loc_250><loc_300><loc_350><loc_400></dog></doctag>",
        "xyxy_500",
        BOTH,
    ),
    (
        "<doctag><cat><loc_0><loc_100><loc_150><loc_200></cat><dog><loc_250><loc_300>",
        "doctags",
        CAT,
    ),
    ("<doctag><picture><loc_0><loc_0><loc_500><loc_500></picture></doctag>", "doctags", UNREADABLE),
    # DeepSeek-OCR, Unlimited-OCR, dots.ocr, PaddleOCR-VL
    (
        "<|ref|>cat<|/ref|><|det|>[[0, 200, 300, 400]]<|/det|>\nThe cat sat.\n\n<|ref|>dog<|/ref|><|det|>[[500, 600, 700, 800]]<|/det|>\n# Dog",
        "xyxy_1000",
        BOTH,
    ),
    (
        "<|det|>cat [0, 200, 300, 400]<|/det|>text\n<|det|>dog [500, 600, 700, 800]<|/det|>",
        "xyxy_1000",
        BOTH,
    ),
    (
        '[{"bbox": [0, 200, 300, 400], "category": "cat", "text": "0"}, {"bbox": [500, 600, 700, 800], "category": "dog"}]',
        "xyxy_px",
        BOTH,
    ),
    (
        "cat<|LOC_0|><|LOC_200|><|LOC_300|><|LOC_200|><|LOC_300|><|LOC_400|><|LOC_0|><|LOC_400|>",
        "xyxy_1000",
        UNREADABLE,
    ),
    (
        "<|TEXT_START|>cat<|TEXT_END|><|LOC_BEGIN|><|LOC_0|><|LOC_200|><|LOC_300|><|LOC_400|><|LOC_END|>",
        "xyxy_1000",
        UNREADABLE,
    ),
    ('<div data-bbox="0 200 300 400"><p>cat</p></div>', "xyxy_1000", UNREADABLE),
    # Ferret, Shikra, CogVLM, ASMv2, GeoChat, ChatRex, GLaMM
    ("The cat [0, 200, 300, 400] and the dog [500, 600, 700, 800].", "xyxy_1000", BOTH),
    ("A cat [0.000,0.200,0.300,0.400] beside a dog [0.500,0.600,0.700,0.800].", "xyxy_1", BOTH),
    ("A cat [[000,200,300,400]] beside a dog [[500,600,700,800]].", "xyxy_1000", BOTH),
    ("{<0><20><30><40>|<45>}", "xyxy_100", UNREADABLE),
    ("<ground>cat</ground><objects><obj0><obj3></objects>", "xyxy_1000", UNREADABLE),
    ("<p> cat </p> [SEG] and <p> dog </p> [SEG]", "xyxy_1000", UNREADABLE),
    ("<p>cat</p> {<0><20><30><40>}", "xyxy_100", UNREADABLE),
    # UI models: points
    ("click(start_box='<|box_start|>(0,200)<|box_end|>')", "xyxy_1000", UNREADABLE),
    ('<point x="0" y="200" alt="cat">cat</point>', "xyxy_1000", UNREADABLE),
    ('{"action": "click", "coordinate": [0, 200]}', "xyxy_1000", UNREADABLE),
    # JSON with a place beside the box
    (
        '[{"label": "cat", "bbox_2d": [0, 200, 300, 400], "center": [150, 300]}, {"label": "dog", "bbox_2d": [500, 600, 700, 800], "center": [600, 700]}]',
        "xyxy_1000",
        BOTH,
    ),
    (
        '[{"label": "cat", "box_2d": [0, 200, 300, 400], "location": "left"}, {"label": "dog", "box_2d": [500, 600, 700, 800], "location": [600, 700]}]',
        "xyxy_1000",
        BOTH,
    ),
    (
        '[{"label": "cat", "bbox": [0, 200, 300, 400], "coordinates": {"x": 150, "y": 300}}, {"label": "dog", "bbox": [500, 600, 700, 800], "position": 2}]',
        "xyxy_1000",
        BOTH,
    ),
    (
        '[{"label": "cat", "bbox": [0, 200, 300, 400], "location": [500, 600, 700, 800]}]',
        "xyxy_1000",
        UNREADABLE,
    ),
    ('[{"label": "cat", "bbox": null, "location": [100, 50]}]', "xyxy_1000", UNREADABLE),
    ('[{"label": "cat", "bbox": null, "location": [0, 200, 300, 400]}]', "xyxy_1000", CAT),
    # Zeros in strings, tables and lines
    ('{"cat": "0 200 300 400", "dog": "500 600 700 800"}', "xyxy_1000", BOTH),
    (
        '[{"label": "cat", "bbox_2d": "0 200 300 400"}, {"label": "dog", "bbox_2d": "not visible"}]',
        "xyxy_1000",
        CAT,
    ),
    ("cat: 0, 200, 300, 400\ndog: not visible", "xyxy_1000", CAT),
    ("cat: 0, 200, 300, 400\ndog: 0", "xyxy_1000", CAT),
    ("cat,0,200,300,400\ndog,500,600,700,800", "xyxy_1000", BOTH),
    ("label,x1,y1,x2,y2\ncat,0,200,300,400\ndog,500,600,700,800", "xyxy_1000", BOTH),
    ("0 200 300 400 cat\n500 600 700 800 dog", "xyxy_1000", UNREADABLE),
    ("0 0.150 0.300 0.300 0.200\n1 0.600 0.700 0.200 0.200", "cxcywh_1", UNREADABLE),
    # None, and what is not
    ("cat: 0\ndog: 0", "xyxy_1000", NEITHER),
    ("No cats, no dogs", "xyxy_1000", NEITHER),
    ("There are 0 objects.", "xyxy_1000", NEITHER),
    ("0", "xyxy_1000", UNREADABLE),
    ("0 0", "xyxy_1000", UNREADABLE),
    ("0 200", "xyxy_1000", UNREADABLE),
    ("0 200 300", "xyxy_1000", UNREADABLE),
    ("0 0 0", "xyxy_1000", UNREADABLE),
    ('{"label": "cat", "bbox_2d": "0"}', "xyxy_1000", UNREADABLE),
    ('[{"label": "cat", "present": false, "bbox": [0, 200, 300, 400]}]', "xyxy_1000", UNREADABLE),
    (
        '[{"label": "cat", "present": false, "bbox": [0, 0, 0, 0]}, {"label": "dog", "present": false, "bbox": null}]',
        "xyxy_1000",
        NEITHER,
    ),
    ('{"objects": [], "raw": "0 200 300 400"}', "xyxy_1000", UNREADABLE),
    ("No bounding box was provided.", "xyxy_1000", UNREADABLE),
    # Numbers that are in no such range
    ('[{"label": "cat", "bbox": [9999, 1, 2, 3]}]', "xyxy_1000", UNREADABLE),
    ('[{"label": "cat", "bbox": [1, 9999, 2, 3]}]', "xyxy_1000", UNREADABLE),
    ('[{"label": "cat", "bbox": [0, 0, 1, 1]}]', "xyxy_1000", UNREADABLE),
    ('[{"label": "cat", "bbox": [0, 200, 300, 4000]}]', "xyxy_1000", UNREADABLE),
    ('[{"label": "cat", "bbox": [100, 200, 9999, 9999]}]', "xywh_1000", UNREADABLE),
]


@pytest.mark.parametrize(("reply", "box_format", "right"), FORMS)
def test_a_form_of_a_model_is_read_right_or_refused(
    reply: str, box_format: str, right: dict[str, list[tuple[float, ...]]] | None
) -> None:
    assert read(reply, box_format, ["cat", "dog"]) == right
    assert read(reply, box_format, ["dog", "cat"]) == right


@pytest.mark.parametrize(
    ("reply", "box_format", "right"), [form for form in FORMS if form[2] and form[2] != NEITHER]
)
def test_with_one_phrase_asked_for_no_box_of_another_thing_is_its(
    reply: str, box_format: str, right: dict[str, list[tuple[float, ...]]]
) -> None:
    for phrase in ("cat", "dog", "horse"):
        found = read(reply, box_format, [phrase])
        assert found in ([{phrase: right[phrase]}] if phrase in right else [{}, None]), phrase


@pytest.mark.parametrize(
    "place",
    [
        "[200, 150]",
        '{"x": 200, "y": 150}',
        '"200, 150"',
        '"(200, 150)"',
        '"200 150"',
        '"top left"',
        '"row 2"',
        "3",
        "null",
        "[[200, 150]]",
    ],
)
def test_a_place_beside_a_box_is_no_second_box(place: str) -> None:
    keys = ("location", "position", "center", "coordinates", "region", "coords", "centroid")
    for key in keys:
        if place not in ("null", "3", '"top left"', '"row 2"'):
            reply = f'[{{"label": "cat", "{key}": {place}}}]'
            assert read(reply, "xyxy_1000", ["cat"]) is None, reply
    for key, box_key in product(keys, ("bbox_2d", "bbox", "box")):
        for fields in (
            f'"{box_key}": [0, 200, 300, 400], "{key}": {place}',
            f'"{key}": {place}, "{box_key}": [0, 200, 300, 400]',
        ):
            for phrases in (["cat"], ["dog", "cat"]):
                reply = f'[{{"label": "cat", {fields}}}]'
                assert read(reply, "xyxy_1000", phrases) == CAT, (reply, phrases)


@pytest.mark.parametrize(
    "frame",
    [
        "No {} {}.",
        "No {} was {}.",
        "no {} were {}",
        "There are no {} {}.",
        "The {} is not {}.",
        "No {} could be {}.",
        "{} not {}",
        "**No {} {}**",
        "No {} {} for cat.",
    ],
)
def test_boxes_that_nobody_gave_say_nothing_of_the_picture(frame: str) -> None:
    things = (
        "bounding box",
        "bounding boxes",
        "boxes",
        "coordinates",
        "bbox",
        "detections",
        "annotations",
        "bounding box coordinates",
    )
    verbs = ("provided", "given", "available", "returned", "supplied", "generated")
    for thing, verb in product(things, verbs):
        sentence = frame.format(thing, verb)
        for reply in (sentence, f'{{"answer": "{sentence}"}}', f"<box>{sentence}</box>"):
            for phrases in ([], ["cat"], ["cat", "dog"]):
                assert read(reply, "xyxy_1000", phrases) is None, (reply, phrases)
