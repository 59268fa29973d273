"""Which thing a sentence names before its box: its clause, negations, numbers and exceptions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import read_boxes

A, B = (100, 300, 200, 400), (500, 300, 600, 400)
CAT = ("cat",)


def found(
    reply: str, phrases: Sequence[str] = CAT, format: str = "xyxy_px"
) -> list[tuple[int | None, tuple[float, ...]]] | None:
    """Return (phrase id, box) of each box of a reply in which @ and & stand for boxes A and B; None
    where it is refused.
    """
    reply = reply.replace("@", str(list(A))).replace("&", str(list(B)))
    try:
        reading = read_boxes(reply, format=format, image_size=(1280, 960), phrases=phrases)
    except UnreadableReply:
        return None
    return [(box.id, box.bbox) for box in reading.boxes]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("dog that isn't sleeping", "sleeping dog"),
        ("dog that is not sleeping", "dog that is sleeping"),
        ("dog which is sleeping", "dog which is barking"),
        ("man who wears a hat", "man who has no hat"),
        ("man wearing a hat", "man without a hat"),
        ("person who is sitting on the bench", "person who is standing"),
        ("car whose door is open", "car whose door is closed"),
        ("no smoking sign", "smoking sign"),
        ("do not enter sign", "enter sign"),
        ("don't walk signal", "walk signal"),
        ("unopened bottle", "opened bottle"),
        ("42 bus", "17 bus"),
        ("$5 bill", "$10 bill"),
        ("first car", "third car"),
    ],
)
def test_two_that_a_word_tells_apart_have_each_its_box(first: str, second: str) -> None:
    reply = f"The {first} is at @. The {second} is at &."
    assert found(reply, [first, second]) == [(1, A), (2, B)]
    assert found(reply, [second, first]) == [(2, A), (1, B)]
    # and neither's box is taken for the other's
    assert found(f"The {first} is at @.", [second]) is None


@pytest.mark.parametrize(
    ("sentence", "phrase"),
    [
        ("The cat that you asked for is at @.", "red cat"),
        ("The cat which is partly hidden is at @.", "cat"),
        ("The cat, which is sleeping, is at @.", "cat"),
        ("The cat that isn't fully visible is at @.", "cat"),
        ("There is a dog that is lying on the grass at @.", "dog"),
        ("The car that is red is at @.", "red car"),
        ("The person who is standing is at @.", "standing person"),
        ("The man with no hat is at @.", "man without a hat"),
        ('The "Don\'t Walk" sign is at @.', "don't walk sign"),
        ("I can't be sure, but the cat is at @.", "cat"),
        ("Not only the cat is visible; it is at @.", "cat"),
        ("There is no red car, but the blue car is at @.", "blue car"),
        ("I don't see a red car, but the blue car is at @.", "blue car"),
        ("There are 2 cats: @.", "cats"),
        ("I see 3 cars: @.", "red car"),
        ("The first car is at @.", "red car"),
        ("2. cat @", "cat"),
        ("The second car is at @.", "car 2"),
    ],
)
def test_words_that_tell_nothing_apart_leave_a_box_to_its_phrase(
    sentence: str, phrase: str
) -> None:
    assert found(sentence, [phrase]) == [(1, A)]


@pytest.mark.parametrize(
    ("thing", "phrase"),
    [
        ("car that isn't red", "red car"),
        ("car that is red", "blue car"),
        ("man wearing no helmet", "man wearing a helmet"),
        ("man lacking a hat", "man with a hat"),
        ("man missing a hat", "man with a hat"),
        ("cars except the red car", "red car"),
        ("everything but the red car", "red car"),
        ("car 3", "second car"),
        ("third car", "second car"),
        ("3 cars", "two cars"),
        ("non-alcoholic beer", "alcoholic beer"),
    ],
)
def test_a_thing_without_or_of_another_number_is_another(thing: str, phrase: str) -> None:
    assert found(f"The {thing} is at @.", [phrase]) is None
    assert found(f'{{"label": "{thing}", "bbox": @}}', [phrase]) is None
    assert found(f'{{"label": "{thing}", "bbox": @}}', [thing]) == [(1, A)]


@pytest.mark.parametrize(
    ("label", "phrase"), [("2 cars", "two cars"), ("car 2", "second car"), ("cars", "two cars")]
)
def test_a_number_is_the_same_in_digits(label: str, phrase: str) -> None:
    assert found(f'{{"label": "{label}", "bbox": @}}', [phrase]) == [(1, A)]


@pytest.mark.parametrize("heading", ["dog:\n", "**dog**\n", "### dog\n", "- dog:\n"])
def test_numbers_under_a_heading_count_its_boxes(heading: str) -> None:
    rows = '[{"id": 1, "bbox": @}, {"id": 2, "bbox": &}]'
    assert found(heading + rows, ["cat", "dog"]) == [(2, A), (2, B)]
    fenced = f"{heading}```json\n{rows}\n```"
    assert found(fenced, ["cat", "dog"]) == [(2, A), (2, B)]


@pytest.mark.parametrize(
    "line", ["Here you are:\n", "Boxes:\n", "I found the dog:\n", "## Result\n"]
)
def test_other_lines_above_leave_numbers_to_the_phrases(line: str) -> None:
    reply = line + '[{"id": 1, "bbox": @}, {"id": 2, "bbox": &}]'
    assert found(reply, ["cat", "dog"]) == [(1, A), (2, B)]


@pytest.mark.parametrize(
    "reply",
    [
        "The cat is at 100, 300, 200, 400 or 500, 300, 600, 400.",
        "cat: 100, 300, 200, 400, or perhaps 500, 300, 600, 400",
        "The cat is at <box>(100,300),(200,400)</box> or <box>(500,300),(600,400)</box>.",
        "<bbox>100 300 200 400</bbox> or <bbox>500 300 600 400</bbox>",
    ],
)
def test_one_box_or_another_is_none(reply: str) -> None:
    assert found(reply) is None
    assert found(reply.replace(" or", " and")) != []


@pytest.mark.parametrize(
    "words",
    [
        "The first and third numbers are y.",
        "The first and third values are the y coordinates, the second and fourth are x.",
        "The second and the fourth numbers represent the horizontal position.",
    ],
)
def test_which_two_numbers_are_y_is_heeded(words: str) -> None:
    assert found(f"cat: @. {words}") == [(1, (300, 100, 400, 200))]


@pytest.mark.parametrize(
    "words",
    [
        "200 pixels wide and 400 tall",
        "it is 200 px wide, 400 px high",
        "with a width of 200 and a height of 400",
    ],
)
def test_a_box_that_ends_in_its_size_is_none_where_corners_were_asked_for(words: str) -> None:
    assert found(f"The cat is at @, {words}.") is None
    assert found(f"The cat is at @, {words}.", format="xywh_px") == [(1, (100, 300, 300, 700))]


@pytest.mark.parametrize(
    "words",
    [
        "The cat is at @, which is 100 pixels wide and 100 tall.",
        "The cat is at @. The image is 1280 pixels wide and 960 tall.",
        "The cat is at @; it looks 200 pixels wide and 300 tall.",
        "x: 100, y: 300, width: 100, height: 100",
    ],
)
def test_other_sizes_say_nothing_of_a_box(words: str) -> None:
    assert found(words) == [(1, A)]


@pytest.mark.parametrize(
    "size",
    [
        '"metadata": {"width": 640, "height": 480}',
        '"size": [640, 480]',
        '"meta": {"w": 640, "h": 480}',
    ],
)
def test_the_size_of_another_picture_is_heeded(size: str) -> None:
    reply = f'{{{size}, "boxes": [{{"label": "cat", "bbox": @}}]}}'
    assert found(reply) is None
    assert found(reply.replace("640", "1280").replace("480", "960")) == [(1, A)]


def test_the_size_of_a_box_is_no_pictures() -> None:
    assert found('{"boxes": [{"label": "cat", "bbox": @, "size": [100, 100]}]}') == [(1, A)]


@pytest.mark.parametrize("heading", ["**{}**", "{}:", "### {}\n", "1. {}", "The {} is at"])
def test_lines_above_coordinates_in_lines_name_their_boxes(heading: str) -> None:
    first = "xmin: 100\nymin: 300\nxmax: 200\nymax: 400\n"
    second = first.replace("100", "500").replace("200", "600")
    reply = f"{heading.format('chat')}\n{first}\n{heading.format('chien')}\n{second}"
    assert found(reply, ["chat", "chien"]) == [(1, A), (2, B)]


@pytest.mark.parametrize(
    ("first", "second"),
    [("Box 1:", "Box 2:"), ("First box:", "Second box:"), ("Here is one:", "Another:")],
)
def test_lines_that_name_nothing_leave_boxes_to_the_only_phrase(first: str, second: str) -> None:
    box = "xmin: 100\nymin: 300\nxmax: 200\nymax: 400\n"
    other = box.replace("100", "500").replace("200", "600")
    assert found(f"{first}\n{box}\n{second}\n{other}") == [(1, A), (1, B)]


@pytest.mark.parametrize(
    "reply",
    [
        "The bounding box of no smoking sign is @. The bounding box of exit sign is &.",
        "<ref>no smoking sign</ref><box>(100,300),(200,400)</box>"
        "<ref>exit sign</ref><box>(500,300),(600,400)</box> Done.",
    ],
)
def test_a_name_with_a_negation_says_of_nothing_that_it_is_absent(reply: str) -> None:
    assert found(reply, ["no smoking sign", "exit sign"]) == [(1, A), (2, B)]


def test_a_yaml_list_at_the_very_end_is_read() -> None:
    reply = "- label: cat\n  bbox:\n    - 100\n    - 300\n    - 200\n    - 400"
    assert found(reply) == found(reply + "\n") == [(1, A)]
    dog = "- label: dog\n  bbox:\n    - 500\n    - 300\n    - 600\n    - 400"
    assert found(f"{reply}\n{dog}", ["cat", "dog"]) == [(1, A), (2, B)]
