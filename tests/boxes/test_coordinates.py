from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat, frame_of
from dataflow_grounding.boxes.formats import find_box_format, known_formats
from dataflow_grounding.boxes.geometry import Bbox, Size

FRAMES = [
    "sent",
    "smart_resize_28",
    "smart_resize_32_1024_65536",
    "long_edge_512",
    "long_edge_1568_patch_28_1568",
]
FRAMES += ["pad_square", "pad_square_corner"]
sizes = st.tuples(st.integers(1, 6000), st.integers(1, 6000))
plain_formats = st.builds(
    lambda order, scale, frame: find_box_format(f"{order}_{scale}@{frame}", ""),
    st.sampled_from(ORDERS),
    st.sampled_from(SCALES) | st.integers(1, 999_999),
    st.sampled_from(FRAMES),
)


@st.composite
def images_with_boxes(draw: st.DrawFn) -> tuple[Size, Size, Bbox]:
    width, height = draw(sizes)
    shrink = draw(st.sampled_from([1.0, 0.5, 0.3]))
    sent = max(1, round(width * shrink)), max(1, round(height * shrink))
    xs = sorted(draw(st.tuples(st.floats(0, width), st.floats(0, width))))
    ys = sorted(draw(st.tuples(st.floats(0, height), st.floats(0, height))))
    return (width, height), sent, (xs[0], ys[0], xs[1], ys[1])


@pytest.mark.slow
@given(plain_formats, images_with_boxes())
def test_pixels_survive_the_way_out_and_back(
    box_format: BoxFormat, drawn: tuple[Size, Size, Bbox]
) -> None:
    original, sent, bbox = drawn

    numbers = box_format.from_pixels(bbox, original=original, sent=sent, rounded=False)

    assert box_format.to_pixels(numbers, original=original, sent=sent) == pytest.approx(
        bbox, abs=1e-6 * max(original)
    )


@pytest.mark.slow
@given(plain_formats, images_with_boxes())
def test_numbers_of_a_request_mean_the_box_to_within_their_rounding(
    box_format: BoxFormat, drawn: tuple[Size, Size, Bbox]
) -> None:
    original, sent, bbox = drawn

    numbers = box_format.from_pixels(bbox, original=original, sent=sent)
    back = box_format.to_pixels(numbers, original=original, sent=sent)

    canvas = frame_of(box_format.frame, sent)
    decimals = {1: 4, 100: 2}.get(box_format.scale, 0) if isinstance(box_format.scale, int) else 0
    for i, (was, now) in enumerate(zip(bbox, back, strict=True)):
        side = canvas[i % 2]
        one = 10**-decimals * (1 if box_format.scale == "px" else side / float(box_format.scale))
        one *= original[i % 2] / canvas[4 + i % 2]
        # rounded, and moved by one where the box had no width left
        assert abs(was - now) <= 2.01 * one


@pytest.mark.slow
@given(
    st.sampled_from(
        ["gemini", "qwen3-vl", "deepseek-vl2", "paligemma", "florence-2", "datature-vi"]
    ),
    st.data(),
)
def test_whole_numbers_survive_the_way_in_and_back(name: str, data: st.DataObject) -> None:
    box_format = known_formats()[name]
    assert isinstance(box_format.scale, int)
    values = st.integers(0, box_format.scale - 1)
    low_high = st.tuples(values, values).filter(lambda pair: pair[0] != pair[1]).map(sorted)
    (a, c), (b, d) = data.draw(low_high), data.draw(low_high)
    size = data.draw(sizes)

    bbox = box_format.to_pixels([a, b, c, d], original=size)

    assert box_format.from_pixels(bbox, original=size) == [a, b, c, d]


@given(st.tuples(*[st.integers(0, 31)] * 4), sizes)
def test_grid_cells_survive_the_way_in_and_back(
    corners: tuple[int, int, int, int], size: Size
) -> None:
    rows, columns = sorted(corners[:2]), sorted(corners[2:])
    cells = [rows[0] * 32 + columns[0], rows[1] * 32 + columns[1]]
    kosmos = known_formats()["kosmos-2"]

    assert kosmos.from_pixels(kosmos.to_pixels(cells, original=size), original=size) == cells


MEANINGS = {
    "Gemini: y first, 0 to 1000": ("gemini", [250, 500, 750, 1000], (200, 100), (100, 25, 200, 75)),
    "Qwen3-VL: 0 to 1000": ("qwen3-vl", [250, 500, 750, 1000], (200, 100), (50, 50, 150, 100)),
    "Qwen2.5-VL: resized": ("qwen2.5-vl", [504, 770, 1008, 1540], (1014, 1532), (507, 766, 1014, 1532)),
    "DeepSeek-VL2: 999 is the edge": ("deepseek-vl2", [0, 0, 999, 999], (200, 100), (0, 0, 200, 100)),
    "PaliGemma: 1024 bins": ("paligemma", [256, 512, 512, 768], (200, 100), (100, 25, 150, 50)),
    "Florence-2: bin centres": ("florence-2", [0, 0, 999, 499], (1000, 1000), (0.5, 0.5, 999.5, 499.5)),
    "Moondream: fractions": ("moondream", [0.25, 0.5, 0.75, 1], (200, 100), (50, 50, 150, 100)),
    "Kosmos-2: from centre to centre": ("kosmos-2", [0, 33], (320, 320), (5, 5, 15, 15)),
    "Kosmos-2: whole cells in one row": ("kosmos-2", [0, 1], (320, 320), (0, 0, 20, 10)),
    "Claude: long edge 1568": ("claude", [784, 784, 1568, 784], (3136, 1568), (1568, 1568, 3136, 1568)),
    "corner and size": ("xywh_px", [10, 20, 30, 40], (100, 100), (10, 20, 40, 60)),
    "middle and size": ("cxcywh_1", [0.5, 0.5, 0.2, 0.4], (100, 100), (40, 30, 60, 70)),
    "padded all round": ("xyxy_1@pad_square", [0, 0.25, 1, 0.75], (200, 100), (0, 0, 200, 100)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "numbers", "original", "expected"), MEANINGS.values(), ids=MEANINGS
)
def test_a_format_means_these_pixels(
    name: str, numbers: list[float], original: Size, expected: Bbox
) -> None:
    pixels = find_box_format(name, "").to_pixels(numbers, original=original)
    assert pixels == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(known_formats()))
def test_every_family_of_the_table_translates_both_ways(name: str) -> None:
    box_format = known_formats()[name]

    numbers = box_format.from_pixels((100, 200, 500, 400), original=(800, 600))
    back = box_format.to_pixels(numbers, original=(800, 600))

    within = 800 / 32 if box_format.scale == "grid_32" else 5
    assert back == pytest.approx((100, 200, 500, 400), abs=within)
    assert box_format.source
    assert re.fullmatch(r"\d{4}-\d{2}", box_format.date)


def test_pixels_of_a_reduced_picture_are_put_on_the_original() -> None:
    box_format = find_box_format("xyxy_px", "")

    sizes: dict[str, Size] = {"original": (4000, 2000), "sent": (2000, 1000)}
    assert box_format.to_pixels([10, 20, 30, 40], **sizes) == (20, 40, 60, 80)
    assert box_format.from_pixels((20, 40, 60, 80), **sizes) == [10, 20, 30, 40]


def test_a_box_too_small_for_the_scale_keeps_a_width_and_a_height() -> None:
    numbers = find_box_format("xyxy_1000", "").from_pixels(
        (7999, 7999, 8000, 8000), original=(8000, 8000)
    )

    assert numbers == [999, 999, 1000, 1000]


FRAME_SIZES = {
    "sides to multiples of 28, as recorded for a receipt": ("smart_resize_28", (870, 1398), (868, 1400)),
    "sides to multiples of 28, as recorded for a page": ("smart_resize_28", (1014, 1532), (1008, 1540)),
    "small pictures grow to the least area": ("smart_resize_28", (20, 20), (56, 56)),
    "large pictures shrink to the largest area": ("smart_resize_28", (8000, 8000), (3584, 3584)),
    "long edge reduced": ("long_edge_2048", (4096, 1024), (2048, 512)),
    "long edge never enlarged": ("long_edge_2048", (640, 480), (640, 480)),
    "within the patches": ("long_edge_1568_patch_28_1568", (1000, 1000), (1000, 1000)),
    "as many patches as fit": ("long_edge_1568_patch_28_1568", (3000, 3000), (1092, 1092)),
    "padded to a square": ("pad_square", (200, 100), (200, 200)),
}  # fmt: skip


@pytest.mark.parametrize(("frame", "sent", "width_height"), FRAME_SIZES.values(), ids=FRAME_SIZES)
def test_a_frame_has_the_size_that_its_provider_makes(
    frame: str, sent: Size, width_height: Size
) -> None:
    assert frame_of(frame, sent)[:2] == width_height


NOT_KNOWN = {
    "a model of no family": ("llava-1.6", "xyxy_1000"),
    "a model that only contains a known name": ("my-qwen2.5-vl-tuned", "xyxy_1000"),
    "a name whose model changes": ("qwen-vl-max-latest", "xyxy_1000"),
    "a family that nobody has confirmed": ("gpt-4o", "candidate: gpt"),
    "a family that users report": ("moonshotai/Kimi-VL-A3B-Instruct", "candidate: kimi-vl"),
    "a family without boxes": ("allenai/Molmo-7B-D-0924", "points"),
}


@pytest.mark.parametrize(("model", "hint"), NOT_KNOWN.values(), ids=NOT_KNOWN)
def test_auto_refuses_what_is_not_known_in_one_line(model: str, hint: str) -> None:
    with pytest.raises(SpecError) as refusal:
        find_box_format("auto", model)

    assert hint in str(refusal.value)
    assert "\n" not in str(refusal.value)
    if hint != "points":
        assert "box_format='xyxy_1000'" in str(refusal.value)


def test_a_candidate_can_be_asked_for_by_name() -> None:
    assert find_box_format("gpt", "gpt-4o").verified is False


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("xyxy_1O00", "'xyxy_100'"),
        ("gemni", "'gemini'"),
        ("nonsense", "gemini or qwen2.5-vl"),
        ("calibrated", "no calibration is stored"),
        ("xyxy_px@somewhere", "smart_resize_28"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(name: str, told: str) -> None:
    with pytest.raises(SpecError, match=re.escape(told)):
        find_box_format(name, "gemini-2.5-flash")


@pytest.mark.parametrize("order", ORDERS)
def test_every_plain_format_has_a_name(order: str) -> None:
    for scale in (*SCALES, 10, 512, 2048, 10_000):
        box_format = find_box_format(f"{order}_{scale}", "any model")
        assert (box_format.order, box_format.scale) == (order, scale)
        assert box_format.key == ("box_2d" if order == "yxyx" else "bbox_2d")


def test_a_users_row_comes_before_the_table() -> None:
    rows = [
        {"models": "my-own*", "order": "yxyx", "scale": 1024, "key": "where"},
        {"models": "gemini*", "scale": 1},
    ]

    assert find_box_format("auto", "me/My_Own-7B", rows).key == "where"
    assert find_box_format("auto", "gemini-2.5-flash", rows).scale == 1


@pytest.mark.parametrize(
    "row",
    [
        {"scale": 0},
        {"scale": True},
        {"scale": 51.2},
        {"scale": 1_000_000},
        {"scale": "px", "order": "xxyy"},
        {"scale": "px", "frame": "moon"},
        {"scale": 512, "oder": "xywh"},
        {"scale": 512, "offset": float("nan")},
        {"scale": 1, "bins": True},
        {},
        {"models": ["gemini-*"], "scale": 1000, "bins": "false"},
    ],
)
def test_a_users_row_that_means_nothing_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        find_box_format("auto", "gemini-2.5-flash", [{"name": "mine", **row}])


def test_a_users_row_may_leave_its_models_empty() -> None:
    row = {"name": "mine", "scale": 512, "models": None}
    assert find_box_format("mine", "any model", [row]).scale == 512


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gemini", ['"box_2d"', "[y1, x1, y2, x2]", "0 to 1000", "y before x"]),
        ("qwen3-vl", ['"bbox_2d"', "[x1, y1, x2, y2]", "0 to 1000"]),
        ("qwen2.5-vl", ['"bbox_2d"', "pixels", "1008 px wide", "1540 px high"]),
        ("xyxy_px", ["1014 px wide", "1532 px high"]),
        ("xywh_1", ["[x, y, width, height]", "0 to 1:"]),
        ("xyxy_10", ["in numbers from 0 to 10:"]),
        ("yxyx_512", ["y before x", "whole numbers from 0 to 512:"]),
        ("grok", ["per cent", "0 to 100"]),
        ("paligemma", ["0 to 1023"]),
        ("kosmos-2", ["32 x 32", "two numbers"]),
    ],
)
def test_the_instructions_state_key_order_scale_and_frame(name: str, said: list[str]) -> None:
    sentence = find_box_format(name, "").instructions((1014, 1532))

    for words in said:
        assert words in sentence


MAP = {"size": [1000, 500], "first": [10, 0], "last": [650, 320], "error": 0.002}


def test_the_maps_of_a_row_say_what_numbers_mean_in_each_frame() -> None:
    other = {"size": [500, 1000], "first": [0, 0], "last": [256, 512], "error": 0.002}
    row = {"name": "mine", "scale": "px", "maps": [MAP, other]}
    known = find_box_format("mine", "", [row])
    assert known.to_pixels((10, 0, 650, 320), original=(1000, 500)) == (0, 0, 1000, 500)
    # The picture was scaled to the frame.
    box = known.to_pixels((0, 0, 128, 256), original=(1000, 2000), sent=(500, 1000))
    assert box == (0, 0, 500, 1000)
    assert known.limits((500, 1000)) == (256, 512)
    with pytest.raises(SpecError, match="pictures of 1000x500, 500x1000 px, not of 640"):
        known.to_pixels((1, 2, 3, 4), original=(640, 480))
    # What a prompt says never depends on the maps.
    plain = find_box_format("xyxy_px", "")
    assert known.instructions((1000, 500)) == plain.instructions((1000, 500))


@pytest.mark.parametrize(
    "edit",
    [
        {"size": [1000]}, {"size": [0, 500]}, {"size": [10.5, 20]}, {"first": [700, 0]}, {"last": [1e12, 3]},
        {"last": [float("nan"), 3]}, {"error": "small"}, {"further": 1},
    ],
)  # fmt: skip
def test_a_map_that_means_nothing_is_refused(edit: dict[str, Any]) -> None:
    row = {"name": "mine", "scale": "px", "maps": [{**MAP, **edit}]}
    with pytest.raises(SpecError, match="box format 'mine'"):
        find_box_format("mine", "", [row])
