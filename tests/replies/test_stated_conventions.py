"""What a reply itself says of its numbers: their order, their unit, and which of two
boxes counts.
"""

from __future__ import annotations

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import read_boxes

A = (100, 50, 400, 250)


def found(
    reply: str, format: str = "xyxy_1000", phrase: str = "red car"
) -> list[tuple[float, ...]] | None:
    try:
        return [
            box.bbox
            for box in read_boxes(
                reply, format=format, image_size=(1000, 1000), phrases=[phrase]
            ).boxes
        ]
    except UnreadableReply:
        return None


@pytest.mark.parametrize(
    ("order", "numbers"),
    [
        ("ymin, xmin, ymax, xmax", "50, 100, 250, 400"),
        ("y1, x1, y2, x2", "50, 100, 250, 400"),
        ("x, y, width, height", "100, 50, 300, 200"),
        ("cx, cy, w, h", "250, 150, 300, 200"),
        ("x1 y1 x2 y2", "100, 50, 400, 250"),
        ("top, left, bottom, right", "50, 100, 250, 400"),
    ],
)
@pytest.mark.parametrize(
    "reply",
    [
        "| label | box ({order}) |\n|---|---|\n| red car | [{numbers}] |",
        'The format is [{order}].\n[{{"label": "red car", "bbox": [{numbers}]}}]',
        'Here are the boxes as [{order}]:\n```json\n[{{"label": "red car", "bbox": [{numbers}]}}]\n```',
        "red car [{order}]: [{numbers}]",
        "red car ({order}): {numbers}",
        '{{"box_order": "{order}", "objects": [{{"label": "red car", "bbox": [{numbers}]}}]}}',
        '[{{"label": "red car", "bbox": [{numbers}], "format": "[{order}]"}}]',
        '[{{"label": "red car", "bbox": [{numbers}]}}]\n(Coordinates: [{order}])',
    ],
)
def test_an_order_that_the_reply_states_is_taken(reply: str, order: str, numbers: str) -> None:
    for format in ("xyxy_1000", "yxyx_1000", "xywh_1000"):
        assert found(reply.format(order=order, numbers=numbers), format) == [A]


@pytest.mark.parametrize("key", ["format", "bbox_format", "bbox_mode", "coordinate_order"])
def test_an_order_may_be_stated_by_its_letters(key: str) -> None:
    for order, numbers in (
        ("xywh", "100, 50, 300, 200"),
        ("yxyx", "50, 100, 250, 400"),
        ("XYXY", "100, 50, 400, 250"),
    ):
        box = f'{{"label": "red car", "bbox": [{numbers}]}}'
        assert (
            found(f'{{"{key}": "{order}", "objects": [{box}]}}')
            == found(f'[{{"{key}": "{order}", {box[1:]}]')
            == [A]
        )


@pytest.mark.parametrize(
    "reply",
    [
        "The boxes are [x1, x2, y1, y2]: red car: [100, 50, 400, 250]",
        '{"format": "tlbr", "objects": [{"label": "red car", "bbox": [100, 50, 400, 250]}]}',
        "[x, y, w, h] or [x1, y1, x2, y2]? red car: [100, 50, 400, 250]",
    ],
)
def test_an_order_that_is_not_clear_is_unreadable(reply: str) -> None:
    assert found(reply) is None


@pytest.mark.parametrize(
    "reply",
    [
        '[{{"label": "red car", "bbox": [100, 50, 400, 250], "unit": "{unit}"}}]',
        '{{"scale": "{unit}", "objects": [{{"label": "red car", "bbox": [100, 50, 400, 250]}}]}}',
        'Coordinates are in {unit}:\n[{{"label": "red car", "bbox": [100, 50, 400, 250]}}]',
        "red car: [100, 50, 400, 250] ({unit})",
        "red car (in {unit}): [100, 50, 400, 250]",
    ],
)
def test_a_unit_that_was_not_asked_for_is_unreadable(reply: str) -> None:
    assert found(reply.format(unit="pixels")) is None
    assert found(reply.format(unit="percent")) is None
    assert found(reply.format(unit="pixels"), "xyxy_px") == [A]
    assert found(reply.format(unit="percent"), "xyxy_px") is None


def test_the_size_of_the_picture_is_no_unit_of_a_box() -> None:
    assert found("The image is 640x480 pixels. red car: [100, 50, 400, 250]") == [A]
    assert found("red car: [100, 50, 400, 250]. The picture has 640 by 480 pixels.") == [A]


@pytest.mark.parametrize(
    ("fields", "box"),
    [
        ('"bbox": [1, 2, 3, 4], "bbox_2d": [100, 50, 400, 250]', [A]),
        ('"bbox_2d": [100, 50, 400, 250], "bbox_pixels": [1, 2, 3, 4]', [A]),
        ('"bbox_2d": [1, 2, 3, 4], "bbox_2d_refined": [100, 50, 400, 250]', [A]),
        ('"final_bbox": [100, 50, 400, 250], "bbox": [1, 2, 3, 4]', [A]),
        ('"box": [100, 50, 400, 250], "bbox": [100, 50, 400, 250]', [A]),
        ('"box": null, "bbox": [100, 50, 400, 250]', [A]),
        ('"box": [1, 2, 3, 4], "bbox": [100, 50, 400, 250]', None),
        ('"bbox_pixels": [100, 50, 400, 250]', None),
    ],
)
def test_of_two_boxes_in_one_object_the_refined_or_the_one_asked_for_counts(
    fields: str, box: list[tuple[float, ...]] | None
) -> None:
    assert found(f'[{{"label": "red car", {fields}}}]') == box


@pytest.mark.parametrize(
    "stated",
    [
        '"image_width": 640, "image_height": 480',
        '"image_size": [640, 480]',
        '"image": {"width": 640, "height": 480}',
        '"resolution": "640x480"',
        '"image_shape": [480, 640, 3]',
    ],
)
def test_numbers_beside_the_size_of_the_image_are_pixels_unless_they_exceed_it(stated: str) -> None:
    def said(box: str, format: str) -> list[tuple[float, ...]] | None:
        reply = f'{{{stated}, "objects": [{{"label": "red car", "bbox": {box}}}]}}'
        try:
            return [
                box.bbox
                for box in read_boxes(
                    reply, format=format, image_size=(640, 480), phrases=["red car"]
                ).boxes
            ]
        except UnreadableReply:
            return None

    assert said("[100, 50, 400, 250]", "xyxy_1000") is None
    assert said("[100, 50, 400, 250]", "xyxy_px") == [A]
    assert said("[100, 50, 800, 250]", "xyxy_1000") == [(64, 24, 512, 120)]


def test_the_range_of_a_relative_format_is_no_size_in_pixels() -> None:
    assert found(
        '{"image_size": [1000, 1000], "objects": [{"label": "red car", "bbox": [100, 50, 400, 250]}]}'
    ) == [A]
