"""A box goes to a phrase only if it is that phrase's, of the picture sent, in the format asked for;
else it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.replies import read_boxes

A, C = "[100, 200, 500, 800]", "[600, 100, 900, 400]"
BOX = (100, 200, 500, 800)
CAT = ("a cat",)


def found(
    reply: str, phrases: Sequence[str] = CAT, format: str = "xyxy_1000"
) -> list[tuple[int | None, tuple[float, ...]]] | None:
    try:
        reading = read_boxes(reply, format=format, image_size=(1000, 1000), phrases=phrases)
    except (UnreadableReply, TruncatedReply):
        return None
    return [(box.id, box.bbox) for box in reading.boxes]


ANOTHER_UNIT = [  # than parts of a thousand
    '"units": "px"',
    '"coord_type": "pixel"',
    '"is_normalized": false',
    '"normalised": false',
    '"absolute": true',
    '"relative": false',
    '"bbox_format": "absolute"',
    '"coordinate_system": "absolute"',
    '"coordinate_space": "0-1024"',
    '"range": "0-100"',
    '"coordinate_range": [0, 100]',
    '"scale": 100',
    '"image_size": "640x480"',
    '"img_size": [640, 480]',
    '"reference_size": [448, 448]',
    '"note": "coordinates are in pixels"',
    '"coordinate_system": {"type": "pixel", "origin": "top-left"}',
    '"in_pixels": true',
    '"bbox_units": "image pixels"',
    '"coords_normalized": false',
    '"image_meta": {"width": 640, "height": 480}',
    '"image_width": 1280, "image_height": 960',
    '"meta": {"bbox_format": "absolute"}',
]
ANOTHER_UNIT_IN_WORDS = [
    "Coordenadas en píxeles: @",
    "Pixelkoordinaten: @",
    "Coordonnées en pixels : @",
    "Координаты в пикселях: @",
    "픽셀 좌표: @",
    "a cat: @（像素坐标）",
    "单位：像素 @",
    "绝对像素坐标：@",
    "坐标范围0-100：@",
    "以百分比表示：@",
    "百分比：@",
    "ピクセル座標：@",
    "Koordinaten in Prozent: @",
    "The box in absolute coordinates is @",
    "All values are in pixel units. a cat: @",
    "a cat: @\n\nCoordinates are in pixels.",
    "assuming the image is 640x480, the box is @",
    "Współrzędne w pikselach: @",
    "on a scale of 0 to 100: @",
    "a cat on a 0-100 scale: @",
    "scaled to 1024x1024 grid: @",
    "for the 448×448 resized input image: @",
    "a cat In a 640x480 image, @",
    "image size: 640x480; box: @",
    "@ relative to a 448x448 image",
    "@ (absolute)",
    "a cat on a 1024x1024 canvas: @",
]
RELATIVE = [  # where pixels were asked for
    "@ normalized to 0-1000",
    "@ normalised",
    "Normalized coordinates: @",
    "归一化坐标：@",
    "a cat: @ (0-1000 scale)",
    '{"normalized": true, "bbox": @}',
    '{"bbox": @, "coordinate_system": "normalized_0_1000"}',
    '{"bbox": @, "coordinate_system": "relative"}',
    "relative coordinates: @",
    "正規化座標: @",
    "normalisierte Koordinaten: @",
    "@ in thousandths of the image",
    "on a 500x500 grid: @",
    '{"image_size": [1280, 960], "bbox": @}',
]
NO_KNOWN_ORDER = [
    '{"origin": "bottom-left", "bbox": @}',
    '{"anchor": "center", "x": 300, "y": 500, "w": 400, "h": 600}',
    '{"bbox": @, "format": "xxyy"}',
    '{"bbox": @, "bbox_format": "rows first"}',
    "a cat Coordinates in (row, col): @",
    "The origin is the bottom-left corner. @",
    "a cat (y, x order): @",
    "Using the format (left, right, top, bottom): @",
]
ORDERS = [
    ("coco", "[100, 200, 400, 600]"),
    ("COCO", "[100, 200, 400, 600]"),
    ("x_y_w_h", "[100, 200, 400, 600]"),
    ("top-left + size", "[100, 200, 400, 600]"),
    ("yolo", "[300, 500, 400, 600]"),
    ("center", "[300, 500, 400, 600]"),
    ("pascal_voc", A),
    ("[x1, y1, x2, y2]", A),
    ("XYXY", A),
]
ELSEWHERE = [
    '[{"image_index": 0, "bbox": @}, {"image_index": 1, "bbox": #}]',
    '[{"image": 1, "bbox": @}, {"image": 2, "bbox": #}]',
    '[{"frame": 1, "bbox": @}, {"frame": 2, "bbox": #}]',
    '[{"timestamp": "00:01", "bbox": @}, {"timestamp": "00:05", "bbox": #}]',
    '[{"image_path": "1.png", "bbox": @}, {"image_path": "2.png", "bbox": #}]',
    "Frame 1: cat @\nFrame 2: cat #",
    "Image 1: @, Image 2: #",
    "In the first image the cat is at @, in the second image at #.",
    "第1张图：@\n第2张图：#",
    "Picture 1: cat @\nPicture 2: cat #",
    "<image_1> cat @ <image_2> cat #",
    "I cropped the region # and found the cat at @.",
    "cat in crop #: @",
    "Zooming in on #... cat at @.",
    '{"crop": #, "bbox": @}',
    '{"crop_box": #, "label": "a cat", "bbox_2d": @}',
    "# → @",
    "# => @",
    "In the crop # the cat is at @.",
    '<tool_call>{"name": "image_zoom_in_tool", "arguments": {"bbox_2d": @, "label": "a cat", "img_idx": 0}}</tool_call>',
    "Photo A: cat @\nPhoto B: cat #",
    "At 0:01 the cat is at @, at 0:05 at #",
    "Region of interest: #. Cat inside: @",
    '{"roi": #, "bbox": @}',
    '[{"shot": 1, "bbox": @}, {"shot": 2, "bbox": #}]',
    "<poly>(100,200),(500,200),(500,800)</poly>",
    "<polygon>100,200 500,200 500,800</polygon>",
    "The cats are at (100,200) and (500,800).",
]
DENIED_BY_OBJECT = [
    '"is_cat": false',
    '"isCat": false',
    '"is_cat": "no"',
    '"is_target": false',
    '"matches": "no"',
    '"match": false',
    '"present": false',
    '"is_correct": false',
    '"absent": true',
    '"missing": true',
    '"comment": "not a cat"',
    '"note": "This is not a cat."',
    '"note": "It is a fox."',
    '"comment": "no cat here; box is the dog"',
    '"comment": "there is no cat in the image"',
    '"remark": "this box is wrong"',
]
NAMED_OTHERWISE = [
    '"animal": "dog"',
    '"species": "dog"',
    '"vehicle": "bus"',
    '"what": "dog"',
    '"identified_as": "dog"',
    '"subject": {"name": "dog"}',
    '"info": {"label": "dog"}',
    '"detected": {"class": "dog"}',
    '"note": "this is a dog"',
]
OF_ANOTHER = [
    '{"label": "a cat", "next_to": {"bbox_2d": @}}',
    '{"label": "a cat", "owner": {"bbox": @}}',
    '{"label": "a cat", "neighbors": [{"bbox_2d": @}]}',
    "cat's bowl: @",
    "The cat’s owner is at @.",
    "the cat's tail: @",
    "The cat sits on the sofa @.",
    "The cat is near the dog @.",
    "The cat stands next to a chair @.",
    "The cat is chasing the mouse @.",
    "The cat's in front of the TV @.",
    "고양이가 아닙니다: @",
    "A cat is hiding behind the curtain @.",
    "A cat on a sofa; sofa: @.",
    "The cat is to the left of @",
    "The cat is outside @.",
    "The cat is behind @.",
    "The cat is between @ and #.",
    "不是猫：@",
    "非猫：@",
    "لا توجد قطة، كلب: @",
    '{"bbox_2d": @, "label": "a cat"}\nActually that\'s a fox.',
    "@\nActually, this is not a cat.",
    "Unlike the cat, the dog is at @.",
    "<ref>a cat</ref><ref>the dog</ref><box>@</box>",
    "Keine Katze, aber ein Hund: @",
    "不是猫而是狗：@",
]
STILL_READ = [
    "The cat's bounding box is @.",
    "The cat's location: @",
    "The cat's full outline is at @",
    "The cat lies on the bed. Bounding box: @",
    "the cat near the window: @",
    "The cat is in the center of the image @.",
    "The cat is on the left @",
    "The cat on the sofa is located at @.",
    "The whole image is [0, 0, 1000, 1000]; the cat is @.",
    "Here's the cat, cropped tightly: @",
    "I zoomed in on the image to be sure. The cat is at @.",
    "While the dog is on the right, the cat is at @",
    "Between the two animals, the cat is the one at @",
    "The cat isn't hard to find: @",
    "The image is 640 x 480 pixels. The normalized box is @.",
    "Bounding box (normalized 0–1000): @",
    "猫位于图像左侧，其边界框坐标为@（归一化到0-1000）。",
    'Converted from pixel coordinates to a 0-1000 scale:\n```json\n[{"label": "a cat", "bbox_2d": @}]\n```',
    "@\n\nCoordinates are on a 1000x1000 grid.",
    '{"cat_bbox": @}',
    '{"animal": "cat", "bbox_2d": @}',
    '{"label": "a cat", "detection": {"bbox_2d": @}}',
    '{"label": "a cat", "location": {"bbox": @}}',
    "xmin: 100\nymin: 200\nxmax: 500\nymax: 800",
    "Cat:\n- x1: 100\n- y1: 200\n- x2: 500\n- y2: 800",
]
FIELDS_STILL_READ = [
    '"color": "black"',
    '"size": "large"',
    '"attributes": ["black", "sitting"]',
    '"relation": "next to the dog"',
    '"comment": "clearly visible"',
    '"notes": "partially occluded by the sofa"',
    '"reasoning": "This is the only cat in the image."',
    '"is_occluded": false',
    '"isCrowd": false',
    '"has_collar": false',
    '"coordinate_system": "normalized (0-1000)"',
    '"bbox_format": "xyxy"',
    '"units": "normalized"',
    '"scale": "0-1000"',
    '"origin": "top-left"',
    '"image_id": 1',
    '"frame": 0',
    '"image": "img_001.jpg"',
    '"image": "photo_2024_0512.jpg"',
    '"state": "sleeping"',
    '"width": 400, "height": 600',
    '"normalized": true',
    '"format": "json"',
    '"category": "animal"',
    '"mask": null',
]


@pytest.mark.parametrize("fields", ANOTHER_UNIT)
def test_a_field_that_states_another_unit_makes_its_box_unreadable(fields: str) -> None:
    assert found(f'{{"label": "a cat", "bbox_2d": [100, 200, 400, 300], {fields}}}') is None
    assert (
        found(f'{{{fields}, "objects": [{{"label": "a cat", "bbox_2d": [100, 200, 400, 300]}}]}}')
        is None
    )


@pytest.mark.parametrize("reply", ANOTHER_UNIT_IN_WORDS)
def test_words_that_state_another_unit_make_a_box_unreadable(reply: str) -> None:
    assert found(reply.replace("@", "[100, 200, 400, 300]")) is None


@pytest.mark.parametrize("reply", RELATIVE)
def test_parts_of_the_picture_are_unreadable_where_pixels_were_asked_for(reply: str) -> None:
    assert found(reply.replace("@", "[100, 100, 200, 300]"), format="xyxy_px") is None


@pytest.mark.parametrize("reply", NO_KNOWN_ORDER)
def test_an_order_that_is_stated_and_not_known_is_unreadable(reply: str) -> None:
    assert found(reply.replace("@", A)) is None


@pytest.mark.parametrize(("name", "numbers"), ORDERS)
@pytest.mark.parametrize("key", ["format", "bbox_format", "box_mode", "coordinate_format"])
def test_an_order_may_be_stated_by_its_name(key: str, name: str, numbers: str) -> None:
    assert found(f'{{"label": "a cat", "bbox_2d": {numbers}, "{key}": "{name}"}}') == [(1, BOX)]


@pytest.mark.parametrize("reply", ELSEWHERE)
def test_boxes_of_crops_frames_several_pictures_and_outlines_are_unreadable(reply: str) -> None:
    assert found(reply.replace("@", A).replace("#", C)) is None


@pytest.mark.parametrize(
    "tokens", ["a cat<poly>{}<loc_1><loc_2></poly>", "a cat{}<loc_1><loc_2>", "<poly>{}</poly>"]
)
def test_outlines_in_location_tokens_are_unreadable(tokens: str) -> None:
    for phrases in (CAT, ()):
        assert (
            found(tokens.format("<loc_100><loc_200><loc_500><loc_800>"), phrases, "florence-2")
            is None
        )


@pytest.mark.parametrize("field", DENIED_BY_OBJECT)
def test_a_box_whose_object_says_that_it_is_not_the_thing_is_not_the_thing_s(field: str) -> None:
    assert not found(f'{{"label": "a cat", "bbox_2d": {A}, {field}}}')
    assert not found(f'{{"bbox_2d": {A}, {field}}}')


@pytest.mark.parametrize("field", NAMED_OTHERWISE)
def test_a_box_whose_object_names_another_thing_under_any_key_is_not_the_phrase_s(
    field: str,
) -> None:
    assert found(f'{{"bbox": {A}, {field}}}') is None


@pytest.mark.parametrize("reply", OF_ANOTHER)
def test_a_box_of_another_thing_in_the_words_around_it_is_not_the_phrase_s(reply: str) -> None:
    assert found(reply.replace("@", A).replace("#", C)) is None


@pytest.mark.parametrize("reply", STILL_READ)
def test_talk_around_a_right_box_is_still_read(reply: str) -> None:
    assert found(reply.replace("@", A)) == [(1, BOX)]


@pytest.mark.parametrize("field", FIELDS_STILL_READ)
def test_fields_that_say_nothing_against_a_box_are_still_read(field: str) -> None:
    assert found(f'{{"label": "a cat", "bbox_2d": {A}, {field}}}') == [(1, BOX)]


def test_the_sides_of_a_box_are_not_those_of_the_picture() -> None:
    assert found(
        '{"label": "a cat", "bbox_2d": [0, 0, 300, 200], "width": 300, "height": 200}'
    ) == [(1, (0, 0, 300, 200))]
    assert (
        found(
            '{"width": 300, "height": 200, "objects": [{"label": "a cat", "bbox_2d": [0, 0, 300, 200]}]}'
        )
        is None
    )


def test_of_two_things_in_a_sentence_each_gets_the_box_right_behind_it() -> None:
    two = ("a cat", "the dog")
    assert found(f"The cat {A} is lying beside the dog {C}.", two) == [
        (1, BOX),
        (2, (600, 100, 900, 400)),
    ]
    assert found(f"Unlike the dog, which isn't there, the cat is at {A}.", two) == [(1, BOX)]
    assert found(f"The dog's cat is at {A}.", two) in (None, [(1, BOX)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "in pixels ",
        "0-1000 ",
        "image size  ",
        "top left  ",
        "cat's ",
        "image 1 ",
        "The cat is on the ",
        "x1: 3\n",
    ],
)
def test_words_around_boxes_are_looked_at_in_linear_time(words: str) -> None:
    """A search that is quadratic in them would not come to an end."""
    found(words * 150_000 + A)
