"""Which thing a sentence names before its box: its clause, negations, numbers and exceptions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import read_boxes

A = (100, 300, 200, 400)
B = (500, 300, 600, 400)
C = (800, 100, 900, 250)
CAT = ("cat",)


def found(
    reply: str, phrases: Sequence[str] = CAT, format: str = "xyxy_px"
) -> list[tuple[int | None, tuple[float, ...]]] | None:
    """Return (phrase id, box) of each box of a reply in which @, & and ^ stand for boxes A, B and
    C; None where it is refused.
    """
    reply = reply.replace("@", str(list(A))).replace("&", str(list(B))).replace("^", str(list(C)))
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
def test_a_heading_names_its_boxes_unless_they_have_ids_of_others(heading: str) -> None:
    rows = '[{"bbox": @}, {"bbox": &}]'
    fenced = f"{heading}```json\n{rows}\n```"
    phrases = ["cat", "dog", "horse"]
    assert found(heading + rows, phrases) == found(fenced, phrases) == [(2, A), (2, B)]
    assert found(heading + '[{"id": 2, "bbox": @}]', phrases) == [(2, A)]
    # an id may be the phrase's, or count the boxes under the heading
    assert found(heading + '[{"id": 1, "bbox": @}, {"id": 2, "bbox": &}]', phrases) is None
    of_phrases = '[{"phrase_id": 1, "bbox": @}, {"phrase_id": 2, "bbox": &}]'
    assert found(heading + of_phrases, ["cat", "dog"]) == [(1, A), (2, B)]


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


@pytest.mark.parametrize("heading", ["**{}**", "{}:", "### {}\n", "1. {}"])
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


CLEAR = [
    (
        'Phrases:\n1. cat\n2. dog\n\n[{"id": 1, "bbox": @}, {"id": 2, "bbox": &}]',
        ["cat", "dog"],
        [(1, A), (2, B)],
    ),
    (
        '- cat\n- dog\n[{"id": 1, "bbox": @}, {"id": 2, "bbox": &}]',
        ["cat", "dog"],
        [(1, A), (2, B)],
    ),
    (
        '1. **the red car**\n2. **a man in a hat**\n3. **dog**\n\n[{"id": 1, "bbox": @}, {"id": 2, "bbox": &}]',
        ["the red car", "a man in a hat", "dog"],
        [(1, A), (2, B)],
    ),
    ('Cat:\nDog:\n[{"id": 1, "bbox": @}, {"id": 2, "bbox": &}]', ["cat", "dog"], [(1, A), (2, B)]),
    (
        '**Dog**\nThe dog lies on the floor.\n\n[{"id": 1,"bbox": @},{"id": 2,"bbox": &}]',
        ["cat", "dog"],
        [(1, A), (2, B)],
    ),
    (
        'I see the\ndog:\n[{"id": 1,"bbox": @},{"id": 2,"bbox": &}]',
        ["cat", "dog"],
        [(1, A), (2, B)],
    ),
    (
        'Objects:\n[{"id": 1,"bbox": @},{"id": 2,"bbox": &}]',
        ["person", "objects"],
        [(1, A), (2, B)],
    ),
    (
        '(1) cat\n(2) dog\n[{"id": 1,"bbox": @},{"id": 2,"bbox": &}]',
        ["cat", "dog"],
        [(1, A), (2, B)],
    ),
    (
        '- [x] cat\n- [x] dog\n[{"id": 1,"bbox": @},{"id": 2,"bbox": &}]',
        ["cat", "dog"],
        [(1, A), (2, B)],
    ),
    (
        "The man wearing a hat, who isn't looking at the camera, is at @. The man not wearing a hat is at &.",
        ["man wearing a hat", "man not wearing a hat"],
        [(1, A), (2, B)],
    ),
    (
        "I found the man wearing a hat who isn't smiling at @ and the man not wearing a hat at &.",
        ["man wearing a hat", "man not wearing a hat"],
        [(1, A), (2, B)],
    ),
    (
        "The woman with glasses, who has no bag, is at @. The woman without glasses is at &.",
        ["woman with glasses", "woman without glasses"],
        [(1, A), (2, B)],
    ),
    (
        "I see the bottle with a cap, which has no shadow, at @.",
        ["bottle with a cap", "bottle missing a cap"],
        [(1, A)],
    ),
    ("dog on a leash but partly hidden: @", ["dog on a leash", "dog not on a leash"], [(1, A)]),
    ("The dog that is missing from the list is at @.", ["dog", "dog without a collar"], [(1, A)]),
    ("The man wearing a hat, without any occlusion, is at @.", ["man not wearing a hat"], None),
    ("There is a bottle with a cap not far from the tree at @.", ["bottle missing a cap"], None),
    ("There is a open door that isn't moving at @.", ["not open door"], None),
    (
        '{"label":"woman with glasses missing a shoe","bbox":@}',
        ["woman with glasses", "woman without glasses"],
        [(1, A)],
    ),
    (
        '{"label":"man with a hat, lacking a coat","bbox":@}',
        ["man with a hat", "man without a hat"],
        [(1, A)],
    ),
    (
        '{"label":"woman with glasses, not smiling","bbox":@}',
        ["woman with glasses", "woman without glasses"],
        None,
    ),
    (
        '{"label":"woman with glasses but partly hidden","bbox":@}',
        ["woman with glasses", "woman without glasses"],
        [(1, A)],
    ),
    (
        '{"label":"man with a hat but no coat","bbox":@}',
        ["man with a hat", "man without a hat"],
        None,
    ),
    ('{"label":"man with a hat but no coat","bbox":@}', ["man without a hat"], None),
    (
        'For "missing tooth": @\nFor "front tooth": &',
        ["missing tooth", "front tooth"],
        [(1, A), (2, B)],
    ),
    (
        "Phrase 1 (missing tooth): @\nPhrase 2 (tooth): &",
        ["missing tooth", "tooth"],
        [(1, A), (2, B)],
    ),
    (
        "Here are the boxes: minus sign @, plus sign &.",
        ["minus sign", "plus sign"],
        [(1, A), (2, B)],
    ),
    (
        "Here are the boxes: not ripe banana @, ripe banana &.",
        ["not ripe banana", "ripe banana"],
        [(1, A), (2, B)],
    ),
    (
        'For "Never Mind the Bollocks album": @\nFor "album": &',
        ["Never Mind the Bollocks album", "album"],
        [(1, A), (2, B)],
    ),
    (
        'For "no entry sign": @\nFor "entry sign": &',
        ["no entry sign", "entry sign"],
        [(1, A), (2, B)],
    ),
    (
        "Here are the boxes: no parking sign @, parking sign &.",
        ["no parking sign", "parking sign"],
        [(1, A), (2, B)],
    ),
    (
        "Here are the boxes: do not disturb sign @, disturb sign &.",
        ["do not disturb sign", "disturb sign"],
        [(1, A), (2, B)],
    ),
    ("Note: the first and third numbers are vertical lines' positions. cat: @", ["cat"], [(1, A)]),
    (
        "@ car that is parked\n& car that is moving",
        ["car that is parked", "car that is moving"],
        [(1, A), (2, B)],
    ),
    (
        "@: person who is on the left\n&: person who is on the right",
        ["person who is on the left", "person who is on the right"],
        [(1, A), (2, B)],
    ),
    (
        "@ no smoking sign\n& no parking sign",
        ["no smoking sign", "no parking sign"],
        [(1, A), (2, B)],
    ),
    (
        "Here are the boxes: no smoking sign @, no parking sign &.",
        ["no smoking sign", "no parking sign"],
        [(1, A), (2, B)],
    ),
    (
        "### man that is holding a bat\n@\n\n### bat that the man is holding\n&",
        ["man that is holding a bat", "bat that the man is holding"],
        [(1, A), (2, B)],
    ),
    ('[{"label": "third row, second seat", "bbox": @}]', ["second seat", "third seat"], None),
    (
        "The woman, who is looking at the camera, is at @. The man, who is holding a phone, is at &.",
        ["woman in red", "man in blue"],
        [(1, A), (2, B)],
    ),
    (
        "- **cat** (which is lying on the sofa): @\n- **dog** (which is on the floor): &",
        ["black cat", "white dog"],
        [(1, A), (2, B)],
    ),
    ("I see a car which is parked by the road. Its bounding box is @.", ["red car"], [(1, A)]),
    ("The bus that is on the far right is at @.", ["the 42 bus"], [(1, A)]),
    (
        "The tall man who is looking at the camera is at @. The short woman that is closest to the camera is at &.",
        ["tall man with a beard", "short woman"],
        [(1, A), (2, B)],
    ),
    ("The 3D printer, which is on the desk, is at @.", ["3D printer"], [(1, A)]),
    (
        "The 3D printer, which is on the left, is at @.\nThe zebra, which is on the left, is at &.",
        ["3D printer", "zebra"],
        [(1, A), (2, B)],
    ),
    ("All three dogs that you asked about are at @.", ["all three dogs"], [(1, A)]),
    ("The only missing tooth is at @.", ["missing tooth"], [(1, A)]),
    ("I found 1 minus sign: @", ["minus sign"], [(1, A)]),
    ("1 missing tooth found at @", ["missing tooth"], [(1, A)]),
    ("The Not a Toy label is at @.", ["Not a Toy label"], [(1, A)]),
    ("The red non-alcoholic beer is at @.", ["non-alcoholic beer"], [(1, A)]),
    ("The man standing without support is at @.", ["man"], [(1, A)]),
    ("No problem, the cat is at @", ["cat"], [(1, A)]),
    ('{"label":"broken chair missing leg","bbox":@}', ["broken chair"], [(1, A)]),
    ('{"metal chair": {"x":100,"y":300,"width":100,"height":100}}', ["metal chair"], [(1, A)]),
    ('{"label":"cat","bbox":@,"metadata":{"width":100,"height":100}}', ["cat"], [(1, A)]),
    ('{"label":"cat","size":[100,100],"instances":[{"bbox":@}]}', ["cat"], [(1, A)]),
    ('{"cat":{"size":[100,100],"boxes":[{"bbox":@}]}}', ["cat"], [(1, A)]),
    (
        "Large\nxmin: 100\nymin: 300\nxmax: 200\nymax: 400\n\nSmall\nxmin: 500\nymin: 300\nxmax: 600\nymax: 400",
        ["cat"],
        [(1, A), (1, B)],
    ),
    ("<box>(100,300),(200,400)</box> or <box>(100,300),(200,400)</box>", ["cat"], [(1, A)]),
    ("I detected 1 Boeing 747: @", ["Boeing 747"], [(1, A)]),
    (
        "The 7-Eleven sign is at @. The exit sign is at &.",
        ["7-Eleven sign", "exit sign"],
        [(1, A), (2, B)],
    ),
    ('{"label":"1st car","bbox":@}', ["first car"], [(1, A)]),
    ('{"label":"2nd car","bbox":@}', ["first car"], None),
]


@pytest.mark.parametrize(("reply", "phrases", "boxes"), CLEAR)
def test_what_a_person_reads_without_doubt(
    reply: str, phrases: list[str], boxes: list[tuple[int, tuple[float, ...]]] | None
) -> None:
    assert found(reply, phrases) == boxes


@pytest.mark.parametrize(
    "reply",
    [
        "The width is 1280 and the height is 960. The cat is at [0, 500, 1280, 960].",
        "The canvas is 1280 pixels wide and 960 pixels tall. cat: [0, 500, 1280, 960]",
        '[{"label":"cat","bbox":@},{"label":"dog","bbox":[300,300,500,700]}]\n'
        "The dog is 200 pixels wide and 400 pixels tall.",
    ],
)
def test_a_size_of_the_picture_or_between_corners_refuses_nothing(reply: str) -> None:
    assert found(reply, ["cat", "dog"])


OF_SEVERAL = [
    ("100, 300, 200, 400\ncat\n500, 300, 600, 400\ndog", ["cat", "dog"], [None, [(1, A), (2, B)]]),
    (
        "100, 300, 200, 400\n**cat**\n500, 300, 600, 400\n**dog**\n800, 100, 900, 250\n**bird**",
        ["cat", "dog", "bird"],
        [None],
    ),
    (
        "x1=100, y1=300, x2=200, y2=400\ncat\nx1=500, y1=300, x2=600, y2=400\ndog",
        ["cat", "dog"],
        [None],
    ),
    (
        "### 斑马\n100, 300, 200, 400\n\n### 狗\n500, 300, 600, 400",
        ["斑马", "狗"],
        [[(1, A), (2, B)]],
    ),
    (
        "### Cup A\n100, 300, 200, 400\n\n### B\n500, 300, 600, 400",
        ["Cup A", "B"],
        [[(1, A), (2, B)], None, [(1, A)]],
    ),
    ("cat\n100, 300, 200, 400\n\n---\n500, 300, 600, 400", ["cat", "dog"], [[(1, A)], None]),
    (
        '[{"id":1,"label":"car 1","bbox":@},{"id":2,"label":"car 2","bbox":&}]',
        ["second car", "third car"],
        [[(1, A), (2, B)], None],
    ),
    (
        '[{"id":1,"label":"girl 1","bbox":@},{"id":2,"label":"car 1","bbox":&}]',
        ["second girl from right", "car"],
        [[(1, A), (2, B)]],
    ),
    (
        '[{"phrase_id":1,"label":"car 1","bbox":@},{"phrase_id":2,"label":"truck 1","bbox":&}]',
        ["the second car", "the truck"],
        [[(1, A), (2, B)]],
    ),
    (
        '[{"id":1,"label":"window 1","bbox":@},{"id":2,"label":"door 1","bbox":&}]',
        ["second floor window", "door"],
        [[(1, A), (2, B)]],
    ),
    ('[{"label":"No. 5 bus","bbox":@},{"label":"No. 7 bus","bbox":&}]', ["No. 7 bus"], [[(1, B)]]),
    ('[{"label":"No. 5 bus","bbox":@}]', ["No. 7 bus"], [None]),
    (
        '[{"label":"no entry sign","bbox":@},{"label":"stop sign","bbox":&}]',
        ["no parking sign", "stop sign"],
        [[(2, B)], None],
    ),
    (
        '[{"label":"no turn sign","bbox":@},{"label":"no parking sign","bbox":&}]',
        ["no parking sign", "stop sign"],
        [[(1, B)]],
    ),
    (
        '[{"label":"horse without rider","bbox":&},{"label":"man","bbox":@}]',
        ["brown horse", "man"],
        [[(2, A)]],
    ),
    (
        '[{"label":"man with no helmet","bbox":@},{"label":"man with hat","bbox":&}]',
        ["man with hat"],
        [[(1, B)]],
    ),
    ('[{"label":"pizza missing a slice","bbox":@}]', ["whole pizza"], [None]),
    (
        '[{"label":"bottom left slice not touching","bbox":@},{"label":"bottom left slice","bbox":&},{"label":"bottom right slice","bbox":^}]',
        ["bottom left slice", "bottom right slice"],
        [[(1, B), (2, C)]],
    ),
    (
        '[{"label":"player with no. 12","bbox":@},{"label":"player with no. 7","bbox":&},{"label":"player","bbox":^}]',
        ["player with no. 12"],
        [[(1, A)], [(1, A), (1, C)]],
    ),
    (
        '[{"label":"man without hat and glasses","bbox":@},{"label":"man with hat and glasses","bbox":&}]',
        ["man without glasses", "man with glasses"],
        [[(2, B)], [(1, A), (2, B)]],
    ),
    ('[{"label":"man without hat and glasses","bbox":@}]', ["man with glasses"], [None]),
    (
        "The car that is behind the red car is at @. The red car is at &.",
        ["red car", "blue car"],
        [[(1, B)]],
    ),
    (
        "The dog that is lying next to the brown dog is at @. The brown dog is at &.",
        ["brown dog", "white dog"],
        [[(1, B)]],
    ),
    (
        "The boy who is next to the boy in the red shirt is at @. The boy in the red shirt is at &.",
        ["boy in red shirt", "boy in blue shirt"],
        [[(1, B)]],
    ),
    ("The silver car that is parked next to the red car is at @.", ["red car", "blue car"], [None]),
    ("The blue car that is next to the red car is at @.", ["red car"], [None]),
    (
        "The small dog that is on the white couch is at @. The brown dog is at &.",
        ["brown dog", "white dog"],
        [[(1, B)]],
    ),
    (
        "The man who is sitting next to the woman with a hat is at @.",
        ["man with a hat", "man with glasses"],
        [None],
    ),
    (
        "The zebra whose head is up is at @. The zebra on left is at &.",
        ["zebra on left"],
        [[(1, B)]],
    ),
    ("The two men are at @. The man on the left is at &.", ["man on the left", "dog"], [[(1, B)]]),
    ("The second man is at @. The dog is at &.", ["man on the left", "dog"], [[(2, B)]]),
    ("The third cup is at @. The cup on the left is at &.", ["cup on the left"], [[(1, B)]]),
    (
        "@: the one that isn't cut\n&: the one that is cut",
        ["the one that isn't cut", "the one that is cut"],
        [[(1, A), (2, B)], None],
    ),
    (
        "The one that isn't cut is at @. The one that is cut is at &.",
        ["the one that isn't cut", "the one that is cut"],
        [[(1, A), (2, B)]],
    ),
    (
        '## Street\n[{"id":2,"bbox":@},{"id":3,"bbox":&}]',
        ["street", "car", "man"],
        [[(2, A), (3, B)], None],
    ),
    ('[{"label":"NO PARKING","bbox":@}]', ["no parking sign"], [[(1, A)]]),
    ('[{"label":"no parking sign","bbox":@}]', ["NO PARKING"], [[(1, A)]]),
    ("No Smoking: @\nExit: &", ["no smoking sign", "exit sign"], [[(1, A)]]),
    ("The car that is parked next to a white van is at @.", ["red car"], [[(1, A)]]),
    ("The car which has white stripes is at @.", ["red car"], [[(1, A)]]),
    ("The man who is wearing a blue shirt is at @.", ["standing man"], [[(1, A)]]),
    ("The woman who is holding a phone is at @.", ["smiling woman"], [[(1, A)]]),
    (
        "The dog that is lying on the sofa is at @. The cat that is sitting is at &.",
        ["sleeping dog", "cat"],
        [[(1, A), (2, B)]],
    ),
    ("No doubt the cat is at @.", ["cat"], [[(1, A)]]),
    ("No worries - the cat is at @.", ["cat"], [[(1, A)]]),
    ("The dog that is on the grass is at @.", ["dog on the grass", "dog on the road"], [[(1, A)]]),
    ("The dog that is lying on the grass is at @.", ["dog on the grass"], [[(1, A)]]),
    (
        "The person who is sitting on the bench is at @. The person who is standing is at &.",
        ["person sitting on the bench", "standing person"],
        [[(1, A), (2, B)]],
    ),
]


@pytest.mark.parametrize("phrase", ["man with a red shirt", "man without a red shirt"])
def test_how_far_a_negation_reaches_behind_and_is_unclear(phrase: str) -> None:
    label = "man without a hat and a red shirt"
    assert found(f'{{"label": "{label}", "bbox": @}}', [phrase]) is None
    assert found(f"The {label} is at @.", [phrase]) is None


def test_and_stands_before_a_name_with_a_negation() -> None:
    reply = "<phrase>Enter</phrase><box>100,300,200,400</box> and "
    reply += "<phrase>Do Not Enter</phrase><box>500,300,600,400</box>"
    assert found(reply, ["Do Not Enter", "Enter"]) == [(2, A), (1, B)]
    assert found(reply, ["Enter"]) == [(1, A)]


@pytest.mark.parametrize(("reply", "phrases", "allowed"), OF_SEVERAL)
def test_a_phrase_never_has_the_box_of_another_thing(
    reply: str,
    phrases: list[str],
    allowed: list[list[tuple[int, tuple[float, ...]]] | None],
) -> None:
    assert found(reply, phrases) in allowed
