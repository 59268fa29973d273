"""A box at an edge of the picture is read as one in its middle is, in every form that
models write.
"""

from __future__ import annotations

from itertools import product

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format, known_formats
from dataflow_grounding.replies import read_boxes

pytestmark = pytest.mark.slow

SIZE = (640, 480)
PHRASES = ([], ["cat"], ["cat", "dog"])
# In parts of the sides: at the left, at the top, in three corners, at the right, at the bottom,
# across, and everything.
EDGES = [
    (0, 0.25, 0.5, 0.75),
    (0.25, 0, 0.5, 0.75),
    (0, 0, 0.5, 0.75),
    (0.25, 0.5, 1, 0.75),
    (0.25, 0.5, 0.75, 1),
    (0.25, 0.5, 1, 1),
    (0, 0.5, 0.75, 1),
    (0.25, 0, 1, 0.75),
    (0, 0.25, 1, 0.75),
    (0.25, 0, 0.75, 1),
    (0, 0, 1, 1),
]
MIDDLE = (0.25, 0.5, 0.5, 0.75)

# How four numbers are written, and what stands around them. The first of each is in the other's
# tests.
NUMBERS = [
    "{0} {1} {2} {3}",
    "{0},{1},{2},{3}",
    "{0}, {1}, {2}, {3}",
    "{0};{1};{2};{3}",
    "{0}; {1}; {2}; {3}",
    "{0} , {1} , {2} , {3}",
    "[{0}, {1}, {2}, {3}]",
    "[{0} {1} {2} {3}]",
    "({0}, {1}, {2}, {3})",
    "[[{0}, {1}, {2}, {3}]]",
    "({0},{1}),({2},{3})",
    "({0}, {1}), ({2}, {3})",
    "({0},{1})({2},{3})",
    "[[{0}, {1}], [{2}, {3}]]",
    "({0},{1}) ({2},{3})",
    "[{0}, {1}], [{2}, {3}]",
    "<{0}><{1}><{2}><{3}>",
    "{0}|{1}|{2}|{3}",
    "{0}/{1}/{2}/{3}",
    "{0}\t{1}\t{2}\t{3}",
    "({0}, {1}) to ({2}, {3})",
    "({0}, {1}) -> ({2}, {3})",
]
FRAMES = [
    "<bbox>@</bbox>",
    "<box>@</box>",
    "<|box_start|>@<|box_end|>",
    "<|det|>@<|/det|>",
    "<|det|>cat @<|/det|>",
    "<ref>cat</ref><box>@</box>",
    "<ref>cat</ref><quad>@</quad>",
    "<label>cat</label><bbox>@</bbox>",
    "<|ref|>cat<|/ref|><|det|>@<|/det|>",
    "<|object_ref_start|>cat<|object_ref_end|><|box_start|>@<|box_end|>",
    '<point_box mention="cat"> @ </point_box>',
    '<collection mention="cat"><point_box>@</point_box></collection>',
    '<box label="cat">@</box>',
    "<ref>cat</ref><box>@</box><ref>cat</ref><box>@</box>",
    '<p data-bbox="@">cat</p>',
    "The cat is at <bbox>@</bbox>.",
    "cat: <bbox>@</bbox>",
    "<answer><bbox>@</bbox></answer>",
    "<|begin_of_box|><bbox>@</bbox><|end_of_box|>",
    "```\n<bbox>@</bbox>\n```",
    '{"bbox_2d": "@"}',
    '{"bbox_2d": "@", "label": "cat"}',
    '[{"label": "cat", "bbox": "@"}]',
    '{"cat": "@"}',
    '{"cat": ["@"]}',
    '{"objects": [{"id": 1, "label": "cat", "bbox_2d": "@"}]}',
    '{"label": "cat", "bbox_2d": "<bbox>@</bbox>"}',
    '{"label": "cat", "coordinates": "@"}',
    '{"label": "cat", "location": "@"}',
    '{"answer": "@"}',
    '{"answer": "cat: @"}',
    "{'label': 'cat', 'bbox': '@'}",
    '{"bboxes": ["@"], "labels": ["cat"]}',
    '```json\n[{"label": "cat", "bbox": "@"}]\n```',
    "- label: cat\n  bbox: @",
    "@",
    "cat: @",
    "cat @",
    "cat = @",
    "cat → @",
    "- cat: @",
    "1. cat: @",
    "**cat**: @",
    "**cat**\n@",
    "cat\n@",
    "`cat`: `@`",
    "cat (@)",
    "The cat is at @.",
    "The cat is located at @ in the picture.",
    "Bounding box: @",
    "Bounding box of the cat: @",
    "| cat | @ |",
    "| object | box |\n|---|---|\n| cat | @ |",
    "cat: @\ndog: @",
    "- cat: @\n- dog: @",
    "Answer: @",
    "**Answer**: cat: @",
    "猫：@",
    "cat: @ (certain)",
    "Here is the box:\n\n@",
    "@: cat",
    "@ cat",
]
JSON = [
    '{"bbox_2d": [%s, %s, %s, %s]}',
    '{"label": "cat", "bbox_2d": [%s, %s, %s, %s]}',
    '[{"label": "cat", "bbox": [%s, %s, %s, %s]}]',
    '{"objects": [{"id": 1, "label": "cat", "bbox_2d": [%s, %s, %s, %s]}]}',
    "[%s, %s, %s, %s]",
    "[[%s, %s, %s, %s]]",
    '["cat", [%s, %s, %s, %s]]',
    '["cat", %s, %s, %s, %s]',
    '{"cat": [%s, %s, %s, %s]}',
    '{"cat": [[%s, %s, %s, %s]]}',
    '{"label": "cat", "bbox": [[%s, %s], [%s, %s]]}',
    '{"label": "cat", "bbox": {"x1": %s, "y1": %s, "x2": %s, "y2": %s}}',
    '{"label": "cat", "x1": %s, "y1": %s, "x2": %s, "y2": %s}',
    '{"label": "cat", "xmin": %s, "ymin": %s, "xmax": %s, "ymax": %s}',
    '{"label": "cat", "left": %s, "top": %s, "right": %s, "bottom": %s}',
    '{"label": "cat", "top_left": [%s, %s], "bottom_right": [%s, %s]}',
    '{"label": "cat", "top_left": {"x": %s, "y": %s}, "bottom_right": {"x": %s, "y": %s}}',
    '{"bboxes": [[%s, %s, %s, %s]], "labels": ["cat"]}',
    '{"label": "cat", "bbox": ["%s", "%s", "%s", "%s"]}',
    '{"label": "cat", "found": true, "bbox": [%s, %s, %s, %s]}',
    '{"label": "cat", "polygon": [[%s, %s], [%s, %s]]}',
    '{"label": "cat", "bbox": [%s, %s, %s, %s], "score": 0}',
    '{"label": "cat", "bbox": [%s, %s, %s, %s], "count": 0}',
    'The cat: {"bbox": (%s, %s, %s, %s)}',
    "{'cat': (%s, %s, %s, %s)}",
    '{"cat": {"bbox": [%s, %s, %s, %s]}}',
    "label,x1,y1,x2,y2\ncat,%s,%s,%s,%s",
    "| label | x1 | y1 | x2 | y2 |\n|---|---|---|---|---|\n| cat | %s | %s | %s | %s |",
    "label\txmin\tymin\txmax\tymax\ncat\t%s\t%s\t%s\t%s",
    "cat: x1=%s, y1=%s, x2=%s, y2=%s",
    "cat: x1: %s, y1: %s, x2: %s, y2: %s",
    "cat: left=%s top=%s right=%s bottom=%s",
    "- bbox:\n    - %s\n    - %s\n    - %s\n    - %s\n  label: cat",
    "label: cat\nbbox:\n  - %s\n  - %s\n  - %s\n  - %s\n",
    '<box x1="%s" y1="%s" x2="%s" y2="%s" label="cat"/>',
    "cat: top-left (%s, %s), bottom-right (%s, %s)",
    "猫位于左上角(%s, %s)、右下角(%s, %s)。",
    "cat: (x1=%s, y1=%s) to (x2=%s, y2=%s)",
    '[{"label": "cat", "bbox": [%s, %s, %s, %s]}, {"label": "dog", "found": false}]',
]


def read(
    reply: str, box_format: BoxFormat | str, phrases: list[str]
) -> str | list[tuple[int | None, list[float]]]:
    """What comes of a reply: the ids and the boxes in parts of the sides, or "unreadable"."""
    try:
        boxes = read_boxes(reply, format=box_format, image_size=SIZE, phrases=phrases).boxes
    except UnreadableReply:
        return "unreadable"
    return [
        (box.id, [round(value / SIZE[i % 2], 2) for i, value in enumerate(box.bbox)])
        for box in boxes
    ]


def moved(outcome: str | list[tuple[int | None, list[float]]], box: tuple[float, ...]) -> object:
    """What comes of the reply with the box in the middle, with this box instead."""
    return (
        outcome
        if isinstance(outcome, str)
        else [(phrase, [round(n, 2) for n in box]) for phrase, _ in outcome]
    )


def written(box: tuple[float, ...], limit: tuple[int, int], style: str) -> list[str]:
    return [style.format(value * limit[i % 2]) for i, value in enumerate(box)]


def check(form: str, style: str, box_format: str, limit: tuple[int, int]) -> int:
    """Compare every box with the one in the middle; how often that is read."""
    fill = (lambda box: form % tuple(written(box, limit, style))) if "%s" in form else None
    fill = fill or (lambda box: form.format(*written(box, limit, style)))
    known = 0
    for phrases in PHRASES:
        middle = read(fill(MIDDLE), box_format, phrases)
        assert middle != [], fill(MIDDLE)
        known += middle != "unreadable"
        for box in EDGES:
            assert read(fill(box), box_format, phrases) == moved(middle, box), (fill(box), phrases)
    return known


@pytest.mark.sampled(20)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("style", ["{:.0f}", "{:04.0f}", "{:.1f}"])
def test_a_box_of_numbers_in_a_text_is_read_at_the_edges_as_in_the_middle(
    frame: str, style: str
) -> None:
    braced = frame.replace("{", "{{").replace("}", "}}")
    read_in = [
        check(braced.replace("@", numbers), style, "xyxy_1000", (1000, 1000)) for numbers in NUMBERS
    ]
    assert sum(read_in) >= len(NUMBERS)  # else the frame is none that is read


@pytest.mark.parametrize("form", JSON)
@pytest.mark.parametrize("style", ["{:.0f}", "{:.1f}", "{:.2f}"])
def test_a_box_in_json_or_a_table_is_read_at_the_edges_as_in_the_middle(
    form: str, style: str
) -> None:
    assert check(form, style, "xyxy_1000", (1000, 1000))
    assert check(form, style, "xyxy_px", SIZE)
    if style == "{:.2f}":
        assert check(form, style, "xyxy_1", (1, 1))


@pytest.mark.parametrize("unit", ["px", " px", "%", " %"])
@pytest.mark.parametrize(
    "form",
    [
        "cat: [{0}@, {1}@, {2}@, {3}@]",
        "cat: {0}@, {1}@, {2}@, {3}@",
        '{{"label": "cat", "bbox": ["{0}@", "{1}@", "{2}@", "{3}@"]}}',
        '{{"label": "cat", "bbox": "{0}@ {1}@ {2}@ {3}@"}}',
        '{{"label": "cat", "bbox": "{0}@, {1}@, {2}@, {3}@"}}',
        '{{"cat": "{0}@, {1}@, {2}@, {3}@"}}',
        '{{"label": "cat", "x1": "{0}@", "y1": "{1}@", "x2": "{2}@", "y2": "{3}@"}}',
        "<box>{0}@ {1}@ {2}@ {3}@</box>",
        "cat: x1={0}@, y1={1}@, x2={2}@, y2={3}@",
        "cat: [{0}, {1}, {2}, {3}] (in@)",
        "cat (in@): {0}, {1}, {2}, {3}",
    ],
)
def test_a_box_with_units_is_read_at_the_edges_as_in_the_middle(form: str, unit: str) -> None:
    form = form.replace("(in@", f"(in {unit.strip()}").replace("@", unit)
    check(
        form,
        "{:.0f}",
        "xyxy_100" if "%" in unit else "xyxy_px",
        (100, 100) if "%" in unit else SIZE,
    )


FAMILIES = {
    "florence-2": "cat<loc_{}><loc_{}><loc_{}><loc_{}>",
    "paligemma": "<loc{:04}><loc{:04}><loc{:04}><loc{:04}> cat",
    "kosmos-2": "<phrase>cat</phrase><object><patch_index_{:04}><patch_index_{:04}></object>",
    "rex-omni": "<|object_ref_start|>cat<|object_ref_end|><|box_start|><{}><{}><{}><{}><|box_end|>",
    "locate-anything": "<ref>cat</ref><box><{}><{}><{}><{}></box>",
    "qwen2-vl": "<|object_ref_start|>cat<|object_ref_end|><|box_start|>({},{}),({},{})<|box_end|>",
    "qwen-vl": "<ref>cat</ref><box>({},{}),({},{})</box>",
    "internvl": "<ref>cat</ref><box>[[{}, {}, {}, {}]]</box>",
    "minicpm-v": "<ref>cat</ref><box>{} {} {} {}</box>",
    "deepseek-vl2": "<|ref|>cat<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>",
    "deepseek-ocr": "<|ref|>cat<|/ref|><|det|>[[{}, {}, {}, {}]]<|/det|>",
    "unlimited-ocr": "<|det|>cat [{}, {}, {}, {}]<|/det|>",
    "hunyuan-ocr": "cat({},{}),({},{})",
    "cogvlm": "cat [[{:03},{:03},{:03},{:03}]]",
    "isaac": '<point_box mention="cat"> ({},{}) ({},{}) </point_box>',
    "seed-vl": "<bbox>{} {} {} {}</bbox>",
    "doctags": "<cat><loc_{}><loc_{}><loc_{}><loc_{}></cat>",
}


@pytest.mark.parametrize("name", [name for name, known in known_formats().items() if known.boxes])
def test_a_box_as_its_family_writes_it_is_read_at_the_edges_as_in_the_middle(name: str) -> None:
    """What a family writes for a box at an edge comes back at the edge, in its own form and in the
    JSON asked for.
    """
    known = find_box_format(name, "")
    count = 2 if known.scale == "grid_32" else 4
    as_json = f'[{{{{"id": 1, "label": "cat", "{known.key}": [{", ".join(["{}"] * count)}]}}}}]'
    for box, form, phrases in product(
        [MIDDLE, *EDGES], [as_json, FAMILIES.get(name, as_json)], PHRASES
    ):
        if phrases == ["cat", "dog"] and "cat" not in form:
            continue  # a box of either
        asked = (box[0] * SIZE[0], box[1] * SIZE[1], box[2] * SIZE[0], box[3] * SIZE[1])
        reading = read_boxes(
            form.format(*known.from_pixels(asked, original=SIZE)),
            format=known,
            image_size=SIZE,
            phrases=phrases,
        )
        assert len(reading.boxes) == 1, (form, box, phrases)
        step = 1 / 16 if known.scale == "grid_32" else 1 / 90
        close = [
            pytest.approx(value, abs=step * SIZE[i % 2] * 1.01) for i, value in enumerate(asked)
        ]
        assert list(reading.boxes[0].bbox) == close
