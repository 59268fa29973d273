"""Labels behind their boxes on lines, in rows and in columns: each box goes to its own phrase, or
is refused.
"""

from __future__ import annotations

import pytest

from benchmarks.places.bytecode import instructions_of
from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import read_boxes

A, B = "[100, 200, 500, 800]", "[600, 100, 900, 400]"
IN_CORNERS = ("(100,200)-(500,800)", "(600,100)-(900,400)")
FIRST, SECOND = (100, 200, 500, 800), (600, 100, 900, 400)


def read(reply: str, phrases: list[str]) -> list[tuple[int | None, tuple[float, ...]]] | None:
    """The boxes of a reply with their phrases, by id; None where the reply is refused."""
    try:
        boxes = read_boxes(
            reply, format="xyxy_1000", image_size=(1000, 1000), phrases=phrases
        ).boxes
    except UnreadableReply:
        return None
    return sorted(((box.id, box.bbox) for box in boxes), key=lambda box: (box[0] or 0, box[1]))


# `@` is a box, `*` its label; one item after another.
ITEMS = [
    "@\n*\n",
    "@ *\n",
    "@, *\n",
    "@ # *\n",
    "@ // *\n",
    "@, label: *\n",
    "@\n**\\***\n",
    "bbox: @\nlabel: *\n",
    "bbox: @, label: *\n",
    "- bbox: @\n  label: *\n",
    "- bbox: @\n  label: *\n  score: 0.9\n",
    "bbox: @\nlabel: *\n\n",
    "bbox=@ label='*'\n",
    "Box: @\nObject: *\n",
    "1. @\n   *\n",
    "@ shows *.\n",
    "| @ | * |\n",
    "| 1 | @ | * | 0.9 |\n",
    "@\t*\n",
    '"@",*\n',
    "<tr><td>@</td><td>*</td></tr>",
    "<tr><td>@</td><td>*</td></tr>\n",
    '[[detections]]\nbbox = @\nlabel = "*"\n\n',
    "Bounding box: @. Label: *. ",
    '{"bbox_2d": @} // *\n',
    '{"bbox_2d": @}\n*\n',
    "* @\n",
    "*: @\n",
    "*\n@\n\n",
    "label: *\nbbox: @\n",
    "- label: *\n  bbox: @\n",
    "| * | @ |\n",
    '"*","@"\n',
]
MAY_BE_REFUSED = {"*\n@\n\n"}
LEADS = ["", "Here are the boxes:\n"]
HEADS = {
    "| @ |": "| bbox | label |\n|---|---|\n",
    "@\t": "bbox\tlabel\n",
    '"@"': "bbox,label\n",
    "<tr>": "<table><tr><th>bbox</th><th>label</th></tr>",
}


@pytest.mark.slow
@pytest.mark.parametrize("boxes", [(A, B), IN_CORNERS])
@pytest.mark.parametrize("item", ITEMS)
def test_each_box_in_a_row_goes_to_its_own_phrase(item: str, boxes: tuple[str, str]) -> None:
    if "{" in item and boxes == IN_CORNERS:
        pytest.skip("no JSON")
    placed = item.replace("\\*", "\0") if "\\" in item else item.replace("*", "\0")
    rows = "".join(
        placed.replace("@", box).replace("\0", label)
        for box, label in zip(boxes, ["a cat", "the dog"], strict=True)
    )
    heads = [head for begins, head in HEADS.items() if item.startswith(begins)]
    for lead in [*LEADS, *heads]:
        for phrases, expected in [
            (["a cat", "the dog"], [(1, FIRST), (2, SECOND)]),
            (["the dog", "a cat"], [(1, SECOND), (2, FIRST)]),
            (["a cat"], [(1, FIRST)]),
            (["the dog"], [(1, SECOND)]),
            (["a horse"], None),
        ]:
            found = read(lead + rows, phrases)
            assert found == expected or (found is None and item in MAY_BE_REFUSED), (
                lead + rows,
                phrases,
            )


@pytest.mark.parametrize(
    "reply",
    [
        f"[{A}, # a cat\n{B}] # the dog",
        f"[\n  {A}, // a cat\n  {B} // the dog\n]",
        f"[\n  // a cat\n  {A},\n  // the dog\n  {B}\n]",
        f"bbox: {A[1:-1].replace(',', '')}\nlabel: a cat\nbbox: {B[1:-1].replace(',', '')}\nlabel: the dog",
        f'```json\n{{"bbox_2d": {A}}}\n```\na cat\n```json\n{{"bbox_2d": {B}}}\n```\nthe dog',
        f"{A}\na cat\n{B}",
        f"cats\n{A}\na cat\n{B}\nthe dog",
    ],
)
def test_boxes_whose_labels_are_not_sure_are_refused_or_right(reply: str) -> None:
    assert read(reply, ["a cat", "the dog"]) in (None, [(1, FIRST), (2, SECOND)])
    assert read(reply, ["a cat"]) in (None, [(1, FIRST)])
    assert read(reply, ["the dog"]) in (None, [(1, SECOND)])


@pytest.mark.parametrize(
    "reply",
    [
        f"<obj name='the dog'>{A}</obj>",
        f'<obj label="the dog">{A}</obj>',
        f'<detection class="dog">{A}</detection>',
        '<object name="the dog"><bbox>100 200 500 800</bbox></object>',
        '<object id="dog"><box>(100,200),(500,800)</box></object>',
        '<phrase text="the dog"><box>100 200 500 800</box></phrase>',
        f"<region label=dog>{A}</region>",
        f"[dog]({A[1:-1]})",
        '<div data-bbox="100,200,500,800" data-label="dog"></div>',
        f"[dog] {A}",
        f"[dog]\nbbox = {A}",
        f'[{A}, "dog"]',
        f"{A}\ndog",
        f"{A}\nLabel: dog",
        f"bbox: {A}\nlabel: dog",
        "bbox: 100 200 500 800\nlabel: dog",
        f"bbox: {A}, label: dog",
    ],
)
def test_a_box_of_another_thing_is_refused_and_one_of_the_phrase_is_read(reply: str) -> None:
    assert read(reply, ["a cat"]) is None
    assert read(reply, ["the dog"]) == [(1, FIRST)]


def test_lists_and_labels_behind_them_go_together() -> None:
    assert read(f'[{A}, "a cat", {B}, "the dog"]', ["a cat", "the dog"]) == [
        (1, FIRST),
        (2, SECOND),
    ]
    assert read(f'[{A}, {B}, "the dog"]', ["a cat", "the dog"]) is None


@pytest.mark.parametrize(
    "reply",
    [
        f"{A}\n{B}",
        f"1. {A}\n2. {B}",
        f"{A}\nand\n{B}",
        f"{A} (0.93)\n{B} (0.88)",
        f"Here they are:\n{A}\n{B}\n\nLet me know if you need more.",
        f"cat:\n{A}\n{B}",
        f"Cats:\n{A} left one\n{B} right one",
        f"Box 1: {A}\nBox 2: {B}",
        f"{A}\n{B}\nDone.",
        f"| bbox |\n|---|\n| {A} |\n| {B} |",
        f"cat\n{A}\n\ncat\n{B}\n\nBoth lie on the sofa.",
    ],
)
def test_rows_that_name_no_other_thing_leave_the_boxes_to_the_only_phrase(reply: str) -> None:
    assert read(reply, ["cat"]) == [(1, FIRST), (1, SECOND)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [
        f"{A}\na cat\n",
        f"{A} a cat\n",
        f"<obj name='a cat'>{A}</obj>",
        f"[{A}, // a cat\n",
        "<obj name=' ",
    ],
)
def test_many_rows_are_read_in_linear_time(row: str) -> None:
    """A search that is quadratic in their length would not come to an end."""

    def instructions(count: int) -> int:
        return instructions_of(lambda: read(row * count, ["a cat"]))

    read(row * 10_000, ["a cat"])
    assert instructions(800) < 10 * instructions(100)


@pytest.mark.parametrize(
    "reply",
    [
        f"The cat and the dog are at {A} and {B}, respectively.",
        f"a cat, the dog: {A}, {B}",
        f"a cat and the dog: {A}",
        f'{{"label": "a cat and the dog", "bbox_2d": [{A}, {B}]}}',
        f"cat and dog: {A} {B}",
    ],
)
def test_boxes_of_several_phrases_at_once_are_refused(reply: str) -> None:
    assert read(reply, ["a cat", "the dog"]) is None


def test_a_phrase_that_lists_things_is_one_phrase() -> None:
    phrases = ["a cat and a dog", "a cat"]

    assert read(f"the cat and the dog: {A}\na cat: {B}", phrases) == [(1, FIRST), (2, SECOND)]
    assert read(
        f"a black and white cat: {A}\na dog: {B}", ["a black and white cat", "a white cat"]
    ) == [(1, FIRST)]


@pytest.mark.parametrize(
    "reply",
    [
        "**Cat**\n**xmin**: 100\n**ymin**: 200\n**xmax**: 500\n**ymax**: 800",
        "**Cat**\n- **xmin:** 100\n- **ymin:** 200\n- **xmax:** 500\n- **ymax:** 800\n",
        "Cat: `left`: 100, `top`: 200, `right`: 500, `bottom`: 800",
        "label: cat\nbox:\n  - 100\n  - 200\n  - 500\n  - 800",
        "```yaml\n- label: cat\n  bbox_2d:\n  - 100\n  - 200\n  - 500\n  - 800\n```",
    ],
)
def test_keys_in_bold_and_lists_of_yaml_are_read(reply: str) -> None:
    assert read(reply, ["cat"]) == [(1, FIRST)]


def test_lists_of_yaml_go_to_their_own_labels() -> None:
    reply = "".join(
        f"- label: {label}\n  bbox:\n" + "".join(f"  - {number}\n" for number in box)
        for label, box in (("dog", SECOND), ("cat", FIRST))
    )
    assert read(reply, ["cat", "dog"]) == [(1, FIRST), (2, SECOND)]


@pytest.mark.parametrize(
    "reply",
    [
        "sizes:\n- 100\n- 200\n- 500\n- 800",
        "label: cat\nbbox:\n- 100\n- 200\n- 500\n- 800\n- 5",
        "label: cat\nbbox:\n- 100\n- 200\n- 500",
        "label: cat\nbbox:\n- 100  # y1\n- 200  # x1\n- 500  # y2\n- 800  # x2",
    ],
)
def test_other_lists_of_numbers_are_no_boxes(reply: str) -> None:
    assert read(reply, ["cat"]) is None


def test_a_minus_in_a_list_of_yaml_is_kept() -> None:
    assert read("bbox:\n- -30\n- 200\n- 500\n- 800", ["cat"]) == [(1, (0, 200, 500, 800))]
