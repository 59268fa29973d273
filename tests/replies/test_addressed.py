"""Addressed answers, in which every box has the id of a phrase: what is next to them is harmless, said
or refused.

The replies in addressed.jsonl were written for this project by somebody who hadn't seen the reader.
They are ordinary sentences, labels and keys, and a hundred replies that want a wrong box.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import Reading
from tests.support import reading as usual

CUP, FORK = [100, 120, 300, 420], [400, 120, 600, 420]
PHRASES = ["the red cup", "a fork"]
TAKEN = {
    "hos76": "a hot dog is a dog by its head word",
    "lab31": "of three boxes one is of no use: its phrase is unsure, which a run calls ambiguous",
}
"""Replies that are read cleanly though they weren't meant to be."""


def rows() -> list[Any]:
    path = Path(__file__).with_name("addressed.jsonl")
    with path.open(encoding="utf-8") as lines:
        return [pytest.param(row, id=row["id"]) for row in map(json.loads, lines)]


def outcome_of(reply: str, **asked: Any) -> str:
    try:
        reading = read_reply(reply, **asked)
    except UnreadableReply:
        return "refused"
    if reading.unread:
        return "refused"
    if reading.doubts or reading.doubtful:
        return "doubtful"
    return "said" if reading.remark else "clean"


RIGHT = {
    "read": ("clean", "said", "doubtful"),
    "clean": ("clean",),
    "doubtful": ("doubtful",),
    "unreadable": ("refused", "doubtful"),
    "not clean": ("refused", "said", "doubtful"),
}


@pytest.mark.parametrize("row", rows())
def test_a_reply(row: dict[str, Any]) -> None:
    asked = {key: row[key] for key in ("format", "image_size", "phrases")}
    outcome = outcome_of(row["reply"], **asked)
    assert (outcome in RIGHT[row["right"]]) is not (row["id"] in TAKEN), outcome


def read_reply(reply: str, **asked: Any) -> Reading:
    return usual.read(reply, **{"phrases": PHRASES, **asked})


def item(number: int | None, label: str = "", **keys: Any) -> dict[str, Any]:
    """An object of an answer, with a box; of the second phrase the fork's."""
    named: dict[str, Any] = {"id": number} if number else {}
    if label:
        named["label"] = label
    return {**named, "bbox_2d": FORK if number == 2 else CUP, **keys}


def read(
    before: str = "",
    after: str = "",
    *,
    top: dict[str, Any] | None = None,
    label: str = "the red cup",
    format: str = "xyxy_1000",
    size: tuple[int, int] = (1000, 1000),
    **keys: Any,
) -> Reading:
    """Read an answer for two phrases; `keys` are next to the first box."""
    answer = {**(top or {}), "objects": [item(1, label, **keys), item(2, "a fork")]}
    fenced = f"{before}\n```json\n{json.dumps(answer)}\n```\n{after}"
    return read_reply(fenced, format=format, image_size=size)


def test_a_remark_is_kept_with_a_note_and_changes_no_box() -> None:
    reading = read("I see a table.", "Both are near the edge.")
    assert reading.remark == "I see a table. … Both are near the edge."
    assert [(note.code, note.text) for note in reading.notes] == [("remark", reading.remark)]
    assert [list(box.bbox) for box in reading.boxes] == [CUP, FORK]
    assert not reading.doubts


def test_of_a_long_remark_200_characters_are_kept() -> None:
    assert len(read(after="The table is long. " * 40).remark) == 200


@pytest.mark.slow
def test_more_words_than_a_person_would_read_are_refused() -> None:
    with pytest.raises(UnreadableReply, match="more than 20,000 characters"):
        read(after="The table is long. " * 2000)


def test_neutral_words_leave_no_remark() -> None:
    after = "Let me know if you need anything else."
    assert read("Here are the bounding boxes:", after).remark == ""


CUP_ITEM = json.dumps(item(1, "the red cup"))
FORK_ITEM = json.dumps(item(2, "a fork"))
NUMBERED = f"[{CUP_ITEM}, {FORK_ITEM}]"
LABELLED = json.dumps([item(None, text) for text in PHRASES])
"""An answer in a model's own form, which has labels and no ids."""


def each_way(words: str) -> list[str]:
    """Words before and after an answer, whose boxes have ids and labels, or labels alone."""
    return [
        template.format(words=words, answer=answer)
        for template, answer in product(
            ("{words}\n{answer}", "```json\n{answer}\n```\n{words}"), (NUMBERED, LABELLED)
        )
    ]


# Many were written by somebody who hadn't seen the reader, as models might write them.
REFUSED = [
    "A fork: [1, 2, 300, 400]",
    '{"id": 2}',
    "I answered without any access to it.",
    "There is no fork.",
    "The fork is absent, so I boxed a spoon.",
    "I can't see the red cup.",
    "None of the objects is visible.",
    "The red cup is not in the picture.",
    "I'm not able to see the fork.",
    "I was unable to find the fork.",
    "The image does not contain a fork.",
    "A fork does not exist in the picture.",
    "The second box does not show it.",
    "Neither of these objects appears in the photograph.",
    "Fork could not be located; using the spoon instead.",
    "The image is completely black.",
    "Based on typical table layouts, I would expect:",
    "The origin is at the bottom-left.",
    "After rotating the image by 90 degrees, I get:",
    "I doubled all coordinates.",
    "Corrección: la segunda caja es de una cuchara.",
    "In percent:",
    "Row, column:",
    "This is not the red cup:",
    "Nicht die Tasse:",
    "Distractors:",
    "The reflection of the red cup:",
    "The left half of the image:",
    "Bad example:",
    "~~",
    "There is no cup.",
    "The red cup: not found",
    "**a fork**: not visible",
    "Not found: a fork",
    "Only the red cup was found.",
    "Detected 1 of 2 objects.",
    "Object 2 was not found.",
    "I switched the labels.",
    "The coordinates are listed y before x.",
    "The boxes are center-based.",
    "Origin: bottom-left.",
    "I wasn't given an image.",
    "坐标以像素为单位。",
    "The first number of each box is the vertical coordinate.",
    "Here (0, 0) is the bottom-left corner.",
    "(x1, y1) is the bottom-left corner and (x2, y2) the top-right corner.",
    "The values are normalized to 1024.",
    "Coordinates are percentages of the image size.",
    "Boxes use the center format (cx, cy, w, h).",
    "I cropped the picture before.",
    "坐标格式为 [ymin, xmin, ymax, xmax]：",
    "The boxes are listed as center x, center y, width, height.",
    "The last two numbers are the width and the height.",
    "The numbers are hundredths of the sides.",
    "The values are quantized into 256 bins.",
    "The box values are multiplied by two.",
    "The bounding boxes are arbitrary.",
    "The coordinates are relative to the red cup.",
    "The coordinates refer to the second frame.",
    "The coordinates are those from the example.",
    "The image is 320 pixels wide and 240 pixels high; the boxes are for it.",
    "The x coordinates increase to the left and y coordinates increase upward.",
    "The values are pixels but not normalized coordinates.",
    "Die Boxen sind als Mittelpunkt, Breite und Höhe angegeben.",
    "Der Ursprung der Koordinaten liegt unten links.",
    "Las coordenadas están en porcentaje del ancho.",
    "Les coordonnées sont celles de l'image réduite.",
    "As coordenadas x e y estão trocadas.",
    "L'origine delle coordinate è in basso a sinistra.",
    "The coordinates are top, left.",
    "Coordinates: top, left first.",
    "Format: top, left, bottom.",
    "The boxes are given as top left bottom right.",
    "Die Koordinaten sind oben, links.",
    "Las coordenadas son arriba y izquierda.",
    "坐标为上，左。",
]


@pytest.mark.parametrize("words", REFUSED)
def test_words_that_do_harm_are_refused(words: str) -> None:
    for reply in each_way(words):
        with pytest.raises(UnreadableReply, match=r"may change it|several answers"):
            read_reply(reply)


def test_marks_and_a_word_that_takes_back_do_harm_after_an_answer() -> None:
    for words in ("red cup ✓ fork ✗", "Strike that."):
        with pytest.raises(UnreadableReply, match="may change it"):
            read(after=words)


# Which thing a denial in another language denies can't be told: each of those with a box, if all have one.
DOUBTED = [
    ("Box 2 is a spoon.", [2]),
    ("The second one shows a spoon.", [2]),
    ("The cup is blue.", [1]),
    ("The fork is a drawing on the wall.", [2]),
    ("The second box is questionable.", [2]),
    ("未检测到叉子。", [1, 2]),
    ("Keine Gabel gefunden.", [1, 2]),
    ("The fork could be a spoon.", [2]),
    ("The closest match to the fork is a spoon.", [2]),
    ("The fork's box is a guess.", [2]),
    ("id 2: spoon.", [2]),
    ("On closer inspection, the object with id 2 is a spoon.", [2]),
    ("图中没有叉子。", [1, 2]),
    ("La fourchette n'est pas visible sur cette image.", [1, 2]),
    ("Вилки на изображении нет.", [1, 2]),
    ("フォークは画像に写っていません。", [1, 2]),
    ("포크는 이미지에 없습니다.", [1, 2]),
    ("O garfo não aparece na imagem.", [1, 2]),
]


@pytest.mark.parametrize(("words", "doubted"), DOUBTED)
def test_words_that_call_a_thing_in_question_make_its_phrase_doubtful(
    words: str, doubted: list[int]
) -> None:
    for reply in each_way(words):
        assert list(read_reply(reply).doubts) == doubted


def test_a_denial_in_another_language_may_be_of_what_has_no_box() -> None:
    for words in ("图中没有叉子。", "Вилки на изображении нет.", "포크는 이미지에 없습니다."):
        assert not read_one(after=words).doubts


REMARKS = [
    "The fork seems to be lying on a napkin.",
    "The cup is probably standing on the table.",
    "I did not include the cup's shadow.",
    "The image was not rotated.",
    "Nothing is wrong with the image.",
    "Two of 2 objects were found.",
    "Let me know if you need the coordinates in another format, such as YOLO.",
    "To convert to pixels, multiply by the image width and divide by 1000.",
    "These coordinates are normalized, not in pixels.",
    "La taza está a la izquierda y el tenedor a la derecha.",
    "坐标分别为左上角和右下角。",
    "坐标值已按图像宽高归一化到1000。",
    "The cup is not fully visible.",
    "Note that the red cup isn't occluded.",
    "The hand that holds the red cup is not part of the box.",
    "There is no knife.",
    "If the fork is wrong, tell me.",
    "None of the objects overlap.",
    "I can't read the text on the cup.",
    "None of the objects appears blurry.",
    "Neither of these objects overlaps.",
    "The fork could not be seen fully.",
    "The image is black and white.",
    "The photo of a typical kitchen.",
    "I cropped nothing, and the origin is as asked.",
    "I found 2 objects.",
    "The image shows a red cup and a fork on a table.",
    "Note: the coordinates are approximate.",
    "No other objects were found.",
    "If you need pixel coordinates, I can convert them.",
    "There are plates left and right.",
    "Die Tassen stehen links, rechts und in der Mitte.",
    "Les tasses sont à gauche, droite.",
    "Hay platos a la izquierda y derecha.",
    "The boxes are given as top left and bottom right corners.",
    "Top left and bottom right coordinates.",
    "In the form [x1, y1, x2, y2] (0-1000):",
    "Here are the bounding boxes for the image (1000x1000 coordinates).",
    "The image is [1000, 1000].",
    "The coordinates follow the requested [x1, y1, x2, y2] layout.",
    "Each bounding box is represented as [x1, y1, x2, y2].",
    "The values have been normalized to a 1000x1000 grid.",
    "Coordinates are given with respect to the upper left corner of the image.",
    "The coordinates are relative to the image width and height.",
    "The normalized coordinates correctly frame the two objects.",
    "The confidence scores range from 0 to 1.",
    "The image is 1000 pixels wide and 1000 pixels high; the boxes are normalized to 0-1000.",
    "These coordinates can be converted to pixels by multiplying x by 640/1000.",
    "The x coordinates increase to the right and y coordinates increase downward.",
    "Here x1 < x2 and y1 < y2 for every box.",
    "The values are not pixels but normalized coordinates from 0 to 1000.",
    "Alle Werte sind auf den Bereich 0 bis 1000 normalisiert.",
    "x1, y1 ist die obere linke Ecke, x2, y2 die untere rechte Ecke.",
    "Las coordenadas están en el formato [x1, y1, x2, y2].",
    "(x1, y1) es la esquina superior izquierda y (x2, y2) la inferior derecha.",
    "Les valeurs sont normalisées entre 0 et 1000.",
    "As coordenadas foram normalizadas para o intervalo de 0 a 1000.",
    "Le coordinate sono nel formato [x1, y1, x2, y2].",
    "id 2 is on the left.",
    "id 2: left",
    "id 2 is the fork.",
    "id 7: spoon",
    "图中没有其他物体。",
    "La fourchette n'est pas entièrement visible.",
    "Der Becher ist rot.",
    "The coordinates are left, top.",
]


@pytest.mark.parametrize("words", REMARKS)
def test_other_words_are_a_remark_and_change_nothing(words: str) -> None:
    for reply in each_way(words):
        reading = read_reply(reply)
        assert [box.id for box in reading.boxes] == [1, 2]
        assert (reading.remark, reading.doubts) == (words, {})


def test_a_phrase_s_own_words_take_nothing_back() -> None:
    words, phrase = "The wrong way sign is red.", "the wrong way sign"
    reply = f"{words}\n```json\n{json.dumps([item(1, phrase)])}\n```"
    assert read_reply(reply, phrases=[phrase]).remark == words


STATED = [
    ("xyxy_1000", "Coordinates are normalized to 0-1000."),
    ("xyxy_1000", "Each box is [x1, y1, x2, y2]."),
    ("xyxy_1000", "Format: [x_min, y_min, x_max, y_max] relative to 1000."),
    ("xyxy_1000", "(x1, y1) is the top-left corner and (x2, y2) the bottom-right corner."),
    ("xyxy_1000", "The image is 1280x720 pixels."),
    ("xyxy_1000", "坐标已归一化到0-1000。"),
    ("xyxy_px", "Coordinates are in absolute pixels of the 1280x720 image."),
    ("xywh_px", "Boxes are [x, y, width, height] in pixels."),
    ("yxyx_1000", "Boxes are [ymin, xmin, ymax, xmax], normalized to 0-1000."),
]


@pytest.mark.parametrize(("format", "words"), STATED)
def test_coordinates_may_be_stated_as_they_were_asked_for(format: str, words: str) -> None:
    assert len(read(after=words, format=format, size=(1280, 720)).boxes) == 2


@pytest.mark.parametrize(("format", "words"), STATED)
def test_no_other_order_unit_or_scale_may_be_stated(format: str, words: str) -> None:
    is_size = "1280x720" in words and "oordinates" not in words  # of the picture alone
    others = {"xyxy_1000": "xyxy_px", "xyxy_px": "xyxy_1000"}
    other = others.get(format, "xyxy_1000")
    if words.startswith(("Each", "(x1")):
        other = "yxyx_1000"
    if is_size:
        assert read(after=words, format=other, size=(1280, 720)).boxes
        return
    with pytest.raises(UnreadableReply):
        read(after=words, format=other, size=(1280, 720))


def test_a_list_before_the_answer_is_no_word() -> None:
    for before in (f"{CUP}", "[1, 2, 3]", '["the red cup"]', "[[1, 2, 3, 4"):
        with pytest.raises(UnreadableReply):
            read_reply(f'{before}\n{{"objects": [{CUP_ITEM}]}}', phrases=["the red cup"])


@pytest.mark.parametrize(
    ("thought", "doubted"),
    [
        ("There is no fork, but a spoon which I return for id 2", [2]),
        ("I have no image so I will produce plausible boxes", [1, 2]),
        ("The image shows only a bicycle. I must output something.", [1, 2]),
        ("At first I can't see the fork. There is the fork, right of the cup.", []),
        ("I see no knife. Wait, the fork is on the right.", []),
    ],
)
def test_thinking_in_the_answer_makes_doubtful_what_it_denies_at_last(
    thought: str, doubted: list[int]
) -> None:
    for key in ("analysis", "reasoning", "thinking"):
        reading = read(top={key: thought})
        assert list(reading.doubts) == doubted
        assert reading.remark == ""


@pytest.mark.parametrize(
    ("description", "is_doubtful"),
    [
        ("A blue ceramic mug with a white logo", True),
        ("the spoon beside the plate", True),
        ("A red ceramic vessel with a handle", False),
        ("The cup next to a plate", False),
        ("the one on the left", False),
        ("left of the plate, on a napkin", False),
    ],
)
def test_a_description_without_any_word_of_the_phrase_is_doubtful(
    description: str, is_doubtful: bool
) -> None:
    for key in ("description", "caption"):
        assert list(read(**{key: description}).doubts) == [1] * is_doubtful


@pytest.mark.parametrize(
    "keys",
    [
        {"index": 1}, {"rank": 2}, {"area": 60000}, {"iscrowd": 0}, {"order": 1}, {"visible": True},
        {"attributes": ["red"]}, {"attributes": {"color": "red", "count": 1}}, {"color": "red"},
        {"reason": "It is the only red cup; the other is not red"}, {"position": "left of the plate"},
        {"imageWidth": 1000}, {"bbox_format": "xyxy"}, {"coordinate_system": "normalized"}, {"error": None},
        {"model": "gpt"}, {"page_title": "red"},
    ],
    ids=lambda keys: next(iter(keys)),
)  # fmt: skip
def test_a_key_that_does_no_harm_is_skipped(keys: dict[str, Any]) -> None:
    assert len(read(**keys).boxes) == 2
    assert len(read(top=keys).boxes) == 2


@pytest.mark.parametrize(
    "keys",
    [
        {"is_placeholder": True}, {"hallucinated": True}, {"inferred": True}, {"is_correct": False}, {"matches": "no"},
        {"match_phrase": False}, {"actual_object": "spoon"}, {"refers_to": 2}, {"bbox_of": "table"},
        {"offset": [10, 20]}, {"anchor": [1, 2]}, {"page": 3}, {"frame": 2}, {"scale": 0.5}, {"mode": "yxyx"},
        {"bbox_format": "xywh"}, {"unit": "px"}, {"deleted": 1}, {"valid": 0}, {"image_width": 640},
        {"note": "the box is of the dog, wrong"}, {"status": "not found"}, {"uncertain": True}, {"negated": True},
    ],
    ids=lambda keys: next(iter(keys)),
)  # fmt: skip
def test_a_key_that_does_harm_makes_its_box_or_the_reply_unreadable(keys: dict[str, Any]) -> None:
    try:
        reading = read(**keys)
    except UnreadableReply:
        pass
    else:
        assert reading.unread == [1]
    with pytest.raises(UnreadableReply):
        read(top=keys)


def test_a_short_text_that_is_no_word_of_the_phrase_is_said() -> None:
    assert read(validity="invalid", color="red").remark == "validity: invalid"
    assert read(top={"scene": "kitchen"}).remark == "scene: kitchen"


@pytest.mark.parametrize(
    ("label", "is_doubtful"),
    [
        ("red cup", False), ("cup", False), ("cup 1", False), ("red_cup_2", False), ("cup (left)", False),
        ("coffee cup", False), ("blue cup", True), ("cup handle", True), ("mug", True), ("cup's shadow", True),
        ("reflection of the red cup", True), ("cup and saucer", True), ("cup in the second image", True),
    ],
)  # fmt: skip
def test_a_label_with_the_id_has_the_phrase_s_head_or_is_doubtful(
    label: str, is_doubtful: bool
) -> None:
    reading = read(label=label)
    assert [box.id for box in reading.boxes] == [1, 2]
    assert list(reading.doubts) == [1] * is_doubtful
    assert reading.count("unlike_label") == is_doubtful


@pytest.mark.parametrize(
    ("phrase", "label", "is_doubtful"),
    [
        ("the glass on the shelf", "glass on the floor", True),
        ("the old man", "young man", True),
        ("the parked car", "car driving past", True),
        ("the chair", "all six chairs", True),
        ("the dog", "dog (reflection)", True),
        ("the car", "toy car", True),
        ("the man on the left", "man (left)", False),
        ("a woman holding an umbrella", "woman with umbrella", False),
        ("the potted plant", "pottedPlant", False),
    ],
)
def test_words_that_tell_things_apart_make_a_label_another_thing(
    phrase: str, label: str, is_doubtful: bool
) -> None:
    reading = read_reply(json.dumps([item(1, label)]), phrases=[phrase])
    assert bool(reading.doubts) is is_doubtful


def test_a_text_in_an_item_denies_the_item_s_own_phrase() -> None:
    with pytest.raises(UnreadableReply, match="a thing with a box is denied"):
        read(comment="not in the picture")
    assert read(comment="not fully visible").boxes


@pytest.mark.parametrize("first", [0, 1])
def test_ids_may_begin_at_0(first: int) -> None:
    phrases = dict(enumerate(PHRASES, start=first))
    cup = {**item(1, "the red cup", note="I am not sure about it."), "id": first}
    assert not read_reply(json.dumps([item(None, "a fork")]), phrases=phrases).doubts
    assert list(read_reply(json.dumps([cup]), phrases=phrases).doubts) == [first]


@pytest.mark.parametrize(
    "label", ["fork", "a silver fork", "not a cup", "<label>", "string", "cup?"]
)
def test_a_label_that_is_another_phrase_or_denies_costs_its_own_box_alone(label: str) -> None:
    reading = read(label=label)
    assert [box.id for box in reading.boxes] == [2]
    assert list(reading.unsure) == [1]
    assert not reading.unread


def test_a_label_that_is_a_part_of_one_phrase_is_doubtful() -> None:
    """Models shorten the phrases that they were asked for: "man" for "the man in blue"."""

    def reading_of(*labels: str) -> Reading:
        reply = json.dumps([item(None, label) for label in labels])
        return read_reply(reply, phrases=["the red cup on the left", "a silver fork"])

    reading = reading_of("red cup", "silver fork")
    assert [box.id for box in reading.boxes] == [1, 2]
    assert list(reading.doubts) == [1]
    # no head, another one, a kind of things
    for labels in (["left"], ["blue cup"], ["cup", "cup"]):
        with pytest.raises(UnreadableReply):
            reading_of(*labels)


@pytest.mark.parametrize(
    ("label", "is_doubtful"),
    [
        ("red coffee cup", True),
        ("red ceramic cup on the desk", True),
        ("the second red cup", True),
        ("no red cup", False),
        ("red cup not found", False),
        ("red cup holder", False),
        ("fake red cup", False),
        ("shadow of the red cup", False),
        ("blue and red cup", False),
        ("red cup or bowl", False),
    ],
)
def test_a_label_that_has_one_phrase_and_more_is_doubtful(label: str, is_doubtful: bool) -> None:
    """Models describe more than they were asked for: "red coffee mug" for "the red mug"."""
    reply = json.dumps([item(None, label)])
    for phrases in (["the red cup"], ["a silver fork", "the red cup"]):
        assert outcome_of(reply, phrases=phrases) == ("doubtful" if is_doubtful else "refused")
        if is_doubtful:
            reading = read_reply(reply, phrases=phrases)
            assert [box.id for box in reading.boxes] == list(reading.doubts) == [len(phrases)]


def test_a_fence_with_a_mark_too_many_is_closed() -> None:
    reading = read_reply(f"```json\n{LABELLED}\n```\n```")
    assert [box.id for box in reading.boxes] == [1, 2]


def test_keys_next_to_a_box_without_a_name_are_of_the_only_phrase() -> None:
    def of_one(**keys: Any) -> Reading:
        return read_reply(json.dumps([item(None, **keys)]), phrases=["the red cup"])

    assert [box.id for box in of_one(reason="It is the only red cup", score=0.9).boxes] == [1]
    assert of_one(note="It is a spoon").doubts
    with pytest.raises(UnreadableReply):
        of_one(note="shifted down")


@pytest.mark.parametrize(
    ("keys", "outcome"),
    [
        ({"coordinates": "pixels"}, "refused"),
        ({"hallucinated": ["a fork"]}, "refused"),
        ({"uncertain": ["a fork"]}, "doubtful"),
        ({"summary": "Both were found."}, "said"),
    ],
)
def test_what_keys_next_to_the_list_say_of_boxes_is_judged(
    keys: dict[str, Any], outcome: str
) -> None:
    assert outcome_of(json.dumps({"objects": json.loads(LABELLED), **keys})) == outcome


def test_a_thing_may_be_seen_in_part() -> None:
    keys = {"fully_visible": False, "partially_visible": False, "cropped": False}
    assert not read(**keys).doubts
    assert [box.id for box in read(false_positive=True).boxes] == [2]


def test_next_to_boxes_that_name_no_phrase_the_strict_rules_stay() -> None:
    with pytest.raises(UnreadableReply):
        read_reply(f"I see a table.\n{json.dumps([item(None)])}", phrases=PHRASES[:1])


def read_one(before: str = "", after: str = "", **top: Any) -> Reading:
    """Read an answer for two phrases that has a box of the first alone; `top` is next to its list."""
    answer = json.dumps({"objects": [item(1, "the red cup")], **top})
    return read_reply(f"{before}\n{answer}\n{after}")


# The contract (wire.md): a reply is never taken as "the rest isn't there" where it is cut off. So it is where
# the model itself says that it left something out.
LEFT_OUT = [
    "The fork is also there, but I could not determine its box.",
    "I stopped after the first object.",
    "(remaining phrases omitted for brevity)",
    "Due to length limits I only list the first.",
    "I skipped the fork since it is ambiguous which one is meant.",
    "I didn't include the fork, as it is blurry.",
    "For privacy reasons I did not box the person.",
    "Part 1 of 2.",
    "由于篇幅限制，其余省略。",
    "Fork: visible, box uncertain.",
    "The fork is not clearly visible.",
]


@pytest.mark.parametrize("words", LEFT_OUT)
def test_a_phrase_that_the_words_leave_out_is_unsure(words: str) -> None:
    for reading in (read_one(after=words), read_one(before=words)):
        assert list(reading.unsure) == [2]
        assert words.rstrip(".。")[:8] in reading.remark
        assert not reading.doubts  # the cup's box isn't spoken of


@pytest.mark.parametrize(
    "words",
    [
        "There is no fork in the image.",
        "The fork was omitted because it is not in the picture.",
        "I couldn't find a fork.",
        "The red cup is there but the fork is not.",
        "It is a spoon rather than a fork.",
        "a fork: not found",
        "There doesn't seem to be a fork.",
        "The image does not contain a fork.",
        "A fork does not exist in the picture.",
        "The other phrases do not match anything.",
        "The fork isn't shown here, so I left it out.",
        "No other objects were found.",
        "I see a table.",
        "The handle of the cup was left out of the box.",
        "The cup is too small to read its text.",
        "The cup is truncated by the image edge.",
        "A man is skipping rope.",
        "A car stopped at a light.",
        "Feel free to ask for more!",
        "图中没有叉子。",
    ],
)
def test_words_that_leave_nothing_out_change_no_absence(words: str) -> None:
    for reading in (read_one(after=words), read_one(before=words)):
        assert (reading.unsure, reading.unread, reading.count("truncated")) == ({}, [], 0)


def test_a_list_of_the_phrases_before_an_answer_is_the_question_again() -> None:
    for words in ("I look for the red cup and a fork.", "1. the red cup\n2. a fork\n"):
        assert not read_one(before=words).unsure
    assert not read_one(queries=PHRASES).unsure


@pytest.mark.parametrize(
    "keys",
    [
        {"unresolved": [2]}, {"todo": [2]}, {"not_processed": ["a fork"]}, {"skipped": ["a fork"]},
        {"note": "I left out the fork because it is too small"}, {"omitted": "a fork is visible but blurred"},
    ],
    ids=lambda keys: next(iter(keys)),
)  # fmt: skip
def test_a_phrase_that_a_key_leaves_out_is_unsure(keys: dict[str, Any]) -> None:
    reading = read_one(**keys)
    assert list(reading.unsure) == [2]
    assert next(iter(keys)) in reading.remark


@pytest.mark.parametrize(
    "keys",
    [
        {"complete": False}, {"truncated": True}, {"has_more": True}, {"more": "yes"}, {"partial": 1},
        {"status": "incomplete"}, {"after": "..."}, {"after": "…"},
    ],
    ids=lambda keys: str(next(iter(keys.items()))),
)  # fmt: skip
def test_an_answer_that_says_it_goes_on_is_cut_off(keys: dict[str, Any]) -> None:
    reading = read_one(**keys)
    assert reading.count("truncated") == 1
    assert list(reading.unsure) == [2]


@pytest.mark.parametrize(
    "keys",
    [{"complete": True}, {"truncated": False}, {"status": "complete"}, {"success": True}, {"count": 1}],
    ids=lambda keys: next(iter(keys)),
)  # fmt: skip
def test_an_answer_that_says_it_is_whole_is(keys: dict[str, Any]) -> None:
    reading = read_one(**keys)
    assert (reading.notes, reading.unsure, reading.remark) == ([], {}, "")


@pytest.mark.parametrize(
    ("keys", "remark"),
    [
        ({"left": 1}, "left: 1"),
        ({"skipped": 0}, "skipped: 0"),
        ({"unmatched": ["a fork"]}, "unmatched: a fork"),
        ({"omitted": False}, "omitted: false"),
        ({"draft": True}, "draft: true"),
        ({"not_in_view": ["a fork"]}, "not_in_view: a fork"),
        ({"analysis_of_scene": "Two plates stand on a table."}, "analysis_of_scene: Two plates stand on a table."),
    ],
)  # fmt: skip
def test_an_unknown_key_next_to_the_list_is_a_remark(keys: dict[str, Any], remark: str) -> None:
    reading = read_one(**keys)
    assert (reading.remark, reading.unsure) == (remark, {})


@pytest.mark.parametrize(
    "keys", [{"not_found": ["a fork"]}, {"missing": [2]}, {"absent": ["fork"]}, {"not_visible": ["a fork"]}]
)  # fmt: skip
def test_a_list_of_what_is_absent_is_an_answer(keys: dict[str, Any]) -> None:
    reading = read_one(**keys)
    assert (reading.unsure, reading.unread, reading.remark) == ({}, [], "")
    assert read(top=keys).unread == [2]  # the fork has a box, too: a run asks again
    phrases = ["a fork"] if keys != {"missing": [2]} else PHRASES
    found = read_reply(json.dumps({"objects": [], **keys}), phrases=phrases)
    assert (found.boxes, found.unread) == ([], [])


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("not in the picture", None),
        ("not visible", None),
        ("There is no fork.", None),
        ("too blurry", "ambiguous"),
        ("several forks fit", "ambiguous"),
    ],
)
def test_an_item_without_a_box_may_say_why(reason: str, status: str | None) -> None:
    for key in ("reason", "reasoning", "comment"):
        reading = read_without_box({key: reason})
        assert reading.statuses.get(2) == status
        assert (reading.unread, len(reading.boxes)) == ([], 1)


@pytest.mark.parametrize(
    "keys", [{"error": "too blurry"}, {"score": 0.9}, {"status": "occluded"}, {"found": True}]
)
def test_an_item_without_a_box_is_unread_if_other_keys_contradict(keys: dict[str, Any]) -> None:
    assert read_without_box(keys).unread == [2]


def test_an_item_without_a_box_for_want_of_a_picture_is_refused() -> None:
    with pytest.raises(UnreadableReply):
        read_without_box({"reason": "I can not view images."})


def read_without_box(keys: dict[str, Any]) -> Reading:
    """Read an answer for two phrases whose second item has no box, but `keys`."""
    fork = {**item(2, "a fork", **keys), "bbox_2d": None}
    return read_reply(json.dumps({"objects": [item(1, "the red cup"), fork]}))


OTHER_CUP_ITEM = CUP_ITEM.replace(str(CUP), str(FORK))
BOTH = f'{{"objects": [{CUP_ITEM}, {FORK_ITEM}]}}'


@pytest.mark.parametrize("key", ["phrase_grounding", "reply", "final_answer", "content", "json"])
def test_one_key_may_be_around_the_whole_answer(key: str) -> None:
    for answer in (BOTH, json.dumps(BOTH)):
        reading = read_reply(f'{{"{key}": {answer}}}')
        assert [list(box.bbox) for box in reading.boxes] == [CUP, FORK]
    assert read(**{key: "the red cup"}).boxes  # next to a box it is a text
    for inner in ("No image came.", "not found"):  # a server's words
        with pytest.raises(UnreadableReply):
            read_reply(json.dumps({key: inner}))


@pytest.mark.parametrize(
    "reply",
    [
        f'{{"objects": [{CUP_ITEM}]}}\n{{"objects": [{FORK_ITEM}]}}',
        f"[{CUP_ITEM}]\n[{FORK_ITEM}]",
        f"```json\n{CUP_ITEM}\n```\n\n```json\n{FORK_ITEM}\n```",
        f"**Red cup**\n```json\n[{CUP_ITEM}]\n```\n**Fork**\n```json\n[{FORK_ITEM}]\n```",
    ],
    ids=["two objects", "two lists", "two fences", "two fences with headings"],
)
def test_an_answer_may_come_phrase_by_phrase(reply: str) -> None:
    reading = read_reply(reply)
    assert [list(box.bbox) for box in reading.boxes] == [CUP, FORK]


@pytest.mark.parametrize(
    "reply",
    [
        f"```json\n{CUP_ITEM}\n```\n\n```json\n{OTHER_CUP_ITEM}\n```",
        f'{{"objects": [{CUP_ITEM}]}}\n{{"objects": [{OTHER_CUP_ITEM}]}}',
        f'{BOTH}\n{{"objects": [{OTHER_CUP_ITEM}]}}',
        f'```json\n{{"objects": [{CUP_ITEM}]}}\n```\n```json\n{{"objects": []}}\n```',
        f'{{"objects": [{CUP_ITEM}]}}\n{{"objects": [{{"label": "a fork", "bbox_2d": [1, 2, 3, 4]}}]}}',
        f'{{"objects": [{CUP_ITEM}]}}\n{{"objects": [{FORK_ITEM[:40]}',
    ],
    ids=["a draft", "two answers", "one again", "an empty one", "no id", "cut off"],
)
def test_two_answers_about_one_phrase_stay_refused(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read_reply(reply)


@pytest.mark.parametrize(
    ("thought", "unsure"),
    [
        ("I look for the fork. It is nowhere.", []),
        ("Let me look for a fork next to the cup.", []),
        ("The fork is too small, so I skip it.", [2]),
        ("I skip the fork because it is not in the picture.", []),
    ],
)
def test_thinking_in_the_answer_may_leave_a_phrase_out(thought: str, unsure: list[int]) -> None:
    assert list(read_one(reasoning=thought).unsure) == unsure


def test_boxes_under_phrases_may_be_texts() -> None:
    reply = json.dumps({PHRASES[0]: "[100, 200, 300, 400]", PHRASES[1]: "10, 20, 30, 40"})
    first, second = read_reply(reply).boxes
    assert (first.id, *first.bbox) == (1, 100, 200, 300, 400)
    assert (second.id, *second.bbox) == (2, 10, 20, 30, 40)
