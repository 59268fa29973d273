"""A reply without boxes is "none" only if it says so of everything that was asked, and nothing in
it speaks against.
"""

from __future__ import annotations

import pytest

from benchmarks.places.bytecode import instructions_of
from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import Reading, read_boxes

CAT = ["a cat"]
TWO = ["a cat", "the dog"]


def read(reply: str, *phrases: str) -> Reading:
    return read_boxes(reply, format="xyxy_1000", image_size=(1000, 1000), phrases=phrases)


OF_ANOTHER_THING = [
    '{"the dog": []}',
    '{"the dog": null}',
    '{"the dog": "none"}',
    '{"dog": [], "bird": []}',
    '{"label": "the dog", "bbox_2d": null}',
    '{"label": "the dog", "found": false}',
    "the dog: []",
    "<ref>the dog</ref><box>None</box>",
    '[{"label": "the dog", "bbox_2d": [0, 0, 0, 0]}]',
    "the dog: [0, 0, 0, 0]",
    '{"choices": []}',
    '{"candidates": []}',
    '{"questions": []}',
]
OF_ONE_OF_TWO = [
    '{"the dog": []}',
    '{"a cat": []}',
    '[{"id": 1, "boxes": []}]',
    '[{"id": 2, "found": false}]',
    '{"1": []}',
    '{"2": null}',
    "1. none",
    "the dog: []",
    "the dog: [0, 0, 0, 0]",
    '[{"label": "a bird", "bbox_2d": [0, 0, 0, 0]}]',
    "<ref>a cat</ref><box>None</box>",
]
FAULTS = [
    '{"error": "timeout", "objects": []}',
    '{"objects": null, "error": "timeout"}',
    '{"error": {"message": "overloaded"}, "data": []}',
    '{"success": false, "objects": []}',
    '{"status": "error", "message": "image could not be decoded", "objects": []}',
    '{"results": [], "message": "rate limited"}',
    '{"predictions": [], "note": "model not loaded"}',
    '{"objects": [], "reason": "The image is too blurry to read"}',
    '{"message": "not found"}',
    '{"errors": []}',
    '{"detections": [], "message": "Could not process image"}',
    '{"tool_calls": []}',
    '{"content": null}',
    '{"warnings": []}',
    '{"metadata": null}',
    "[]\nI can't see images",
    '{"error": "not found", "objects": []}',
]
CONTRADICTED = [
    '{"count": 2, "boxes": []}',
    '{"num_objects": 3, "objects": []}',
    '{"found": true, "boxes": []}',
    '{"found": true, "bbox": null}',
    '{"label": "a cat", "visible": true, "bbox_2d": []}',
    '{"label": "a cat", "confidence": 0.95, "bbox_2d": []}',
    '{"boxes": [], "labels": ["a cat"]}',
]
AFFIRMED = [
    ("[]\nThere is a cat at the left edge.", "a cat"),
    ("[] Wait, I see a cat.", "a cat"),
    ("[] (there is a cat, but I can't box it)", "a cat"),
    ("```json\n[]\n```\nHowever, there is a cat on the sofa.", "a cat"),
    ("The cat is at the top left of the image: []", "a cat"),
    ("[]\nThe image shows a cat.", "a cat"),
    ("I found a cat. []", "a cat"),
    ("[] - one cat found at the left", "a cat"),
    ("cat: yes []", "a cat"),
    ("[]\n图中有一只猫。", "猫"),
    ("[]\nEs gibt eine Katze links.", "Katze"),
    ("[]\nIl y a un chat à gauche.", "chat"),
    ("[]\n猫がいます。", "猫"),
    ("[]\nHay un gato a la izquierda.", "gato"),
    ("[]\nНа изображении есть кошка.", "кошка"),
    ("[]\nC'è un gatto.", "gatto"),
    ("Output format: []", "a cat"),
    ("If there is no cat, output [].", "a cat"),
    ("I will return [] if there is no cat.", "a cat"),
    ("[]\nThe cat is partially hidden.", "a cat"),
    ("[]\nYou can see a cat on the bed.", "a cat"),
    ("tool returned: []", "a cat"),
    ("如果没有猫，输出[]", "猫"),
    ("Falls keine Katze da ist: []", "Katze"),
    ("Schema: []", "a cat"),
]
OF_ANOTHER_IN_WORDS = [
    ("Kein Hund gefunden.", "Katze"),
    ("没有发现狗。", "猫"),
    ("没有车", "自行车"),
    ("犬が見つかりません", "猫"),
    ("개가 보이지 않습니다", "고양이"),
    ("Собака не найдена.", "кошка"),
    ("Aucun chien détecté.", "chat"),
    ("No hay perros.", "gato"),
    ("Nessun cane trovato.", "gatto"),
    ("没有黑色的猫", "猫"),
    ("猫はいますが、犬はいません", "猫"),
    ("没有狗", "a cat"),
    ("нет собаки", "a cat"),
    ("Keine schwarze Katze gefunden.", "a cat"),
    ("Aucune idée", "a cat"),
    ("Nessuna risposta", "a cat"),
    ("нет данных", "a cat"),
    ("응답 없음", "a cat"),
    ("没有答案", "a cat"),
    ("无效", "a cat"),
    ("没有把握", "猫"),
    ("答えはありません", "猫"),
    ("No cat... wait, let me look.", "a cat"),
    ("no cat in the first picture", "a cat"),
    ('{"id": 1, "tags": []}', "a cat"),
    ('{"猫": []}', "a dog"),
    ("No cat, hold on.", "a cat"),
]
OF_IT_IN_WORDS = [
    ("Keine Katze gefunden.", "Katze"),
    ("图中没有猫", "猫"),
    ("图中没有猫。", "一只猫"),
    ("没有汽车", "红色的汽车"),
    ("猫は写っていません。", "猫"),
    ("고양이가 없습니다.", "고양이"),
    ("Кошка не найдена.", "кошка"),
    ("На изображении нет кошки.", "кошка"),
    ("No hay gatos", "gato"),
    ("Aucun chat détecté.", "chat"),
    ("没有", "a cat"),
    ("未找到", "a cat"),
    ("Keine Objekte gefunden.", "a cat"),
    ("[]\n图中没有猫。", "猫"),
    ("There is no cat in the image, only a dog.\n[]", "a cat"),
    ("There's a toy cat on the shelf but no real cat.\n[]", "a cat"),
    ("The image shows a dog on a sofa. There is no cat: []", "a cat"),
    ("[]\nLet me know if you need anything else!", "a cat"),
]
NONE_WITHOUT_DOUBT = [
    "I looked for a cat. []",
    "I looked for a cat: []",
    '{"objects": [], "error": null}',
    '{"objects": [], "error": ""}',
    '{"count": 0, "boxes": []}',
    '{"success": true, "objects": []}',
    '{"objects": [], "confidence": 0.95}',
    '{"bboxes": [], "labels": []}',
    '{"bboxes": [], "labels": [""]}',
    '{"label": "a cat", "found": false, "confidence": 0.95}',
    '{"label": "a cat", "bbox_2d": null, "score": 0}',
    '{"error": "No cat found in the image.", "objects": []}',
    '{"status": "ok", "objects": []}',
    '{"objects": [], "message": "No objects detected."}',
]
OF_ALL = [
    ("[]", TWO),
    ('{"objects": []}', TWO),
    ('{"a cat": [], "the dog": []}', TWO),
    ('{"cat": null, "dog": null}', TWO),
    ('[{"id": 1, "boxes": []}, {"id": 2, "boxes": []}]', TWO),
    ('[{"id": 0, "boxes": []}, {"id": 1, "boxes": []}]', TWO),
    ("1. none\n2. none", TWO),
    ("[0, 0, 0, 0]", TWO),
    ('{"cat": []}', ["the black cat on the sofa"]),
    ('{"label": "a cat, the dog", "bbox_2d": []}', TWO),
    ('{"detected_objects": []}', TWO),
    ("Objects: []", TWO),
    ('{"label": "none", "bbox_2d": []}', TWO),
    ('{"label": "cat (not visible)", "bbox_2d": null}', CAT),
    ('{"猫": []}', ["猫"]),
    ('{"id": 1, "label": "gato", "bbox_2d": null}', CAT),
    ('{"cat_boxes": []}', CAT),
    ('{"name": "submit_boxes", "arguments": {"objects": []}}', TWO),
    ("There are no cats: []", CAT),
    ("<|ref|>a cat<|/ref|><|det|>None<|/det|>", CAT),
    ("<ref>a cat</ref><box>None</box><ref>the dog</ref><box>None</box>", TWO),
    ('{"picture frame": []}', ["picture frame"]),
    ('{"id": 1, "found": false}', CAT),
    ('{"cats": []}', CAT),
    ('[{"label": "cat", "bbox_2d": [0, 0, 0, 0]}]', CAT),
]


@pytest.mark.parametrize("reply", OF_ANOTHER_THING)
def test_the_absence_of_another_thing_is_no_answer(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, *CAT)


@pytest.mark.parametrize("reply", OF_ONE_OF_TWO)
def test_the_absence_of_one_of_two_is_no_answer_to_both(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, *TWO)


@pytest.mark.parametrize("reply", FAULTS)
def test_a_fault_with_an_empty_list_is_no_answer(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, *CAT)


@pytest.mark.parametrize("reply", CONTRADICTED)
def test_an_empty_list_that_its_object_contradicts_is_no_answer(reply: str) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, *CAT)


@pytest.mark.parametrize(("reply", "phrase"), AFFIRMED + OF_ANOTHER_IN_WORDS)
def test_words_for_another_thing_or_beside_an_empty_list_of_what_is_there_are_no_answer(
    reply: str, phrase: str
) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, phrase)


@pytest.mark.parametrize(("reply", "phrase"), OF_IT_IN_WORDS)
def test_words_for_the_thing_itself_or_for_anything_are_none(reply: str, phrase: str) -> None:
    assert read(reply, phrase).boxes == []


@pytest.mark.parametrize("reply", NONE_WITHOUT_DOUBT)
def test_an_empty_list_beside_which_nothing_speaks_of_a_thing_is_none(reply: str) -> None:
    assert read(reply, *CAT).boxes == []


def test_a_phrase_whose_empty_box_is_contradicted_is_unread_beside_the_box_of_another() -> None:
    reply = (
        '[{"id": 1, "bbox_2d": [100, 200, 500, 800]}, {"id": 2, "found": true, "bbox_2d": null}]'
    )
    reading = read(reply, *TWO)
    assert ([box.id for box in reading.boxes], reading.unread) == ([1], [2])


def test_a_label_of_words_for_pictures_is_still_the_phrase_that_it_equals() -> None:
    with pytest.raises(UnreadableReply):
        read('{"picture frame": []}', "picture frame", "a dog")


@pytest.mark.parametrize(("reply", "phrases"), OF_ALL)
def test_the_absence_of_all_that_was_asked_is_none(reply: str, phrases: list[str]) -> None:
    assert read(reply, *phrases).boxes == []


@pytest.mark.parametrize(
    "reply",
    [
        '{"a cat": [[100, 200, 500, 800]], "the dog": []}',
        '[{"id": 1, "bbox_2d": [100, 200, 500, 800]}, {"id": 2, "bbox_2d": null}]',
        "a cat: [100, 200, 500, 800]\nthe dog: []",
        '{"a cat": [[100, 200, 500, 800]], "a bird": []}',
    ],
)
def test_a_reply_with_boxes_of_one_phrase_and_none_of_another_is_read(reply: str) -> None:
    reading = read(reply, *TWO)
    assert [(box.id, box.bbox) for box in reading.boxes] == [(1, (100, 200, 500, 800))]
    assert reading.unread == []


@pytest.mark.slow
def test_many_absences_of_other_things_are_looked_at_in_linear_time() -> None:
    """A search that is quadratic in the long key would not come to an end."""

    def refused(reply: str) -> None:
        with pytest.raises(UnreadableReply):
            read(reply, "a cat", "the dog")

    def instructions(count: int) -> int:
        absences = '{"label": "x, y and z", "bbox_2d": null},' * count
        return instructions_of(lambda: refused('{"objects": [' + absences + "null]}"))

    refused('{"' + "x, " * 1_000_000 + '": []}')
    instructions(1)
    assert instructions(800) < 10 * instructions(100)
