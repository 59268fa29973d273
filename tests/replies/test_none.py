"""What says that a thing is not there is none; a refusal, or talk, is not."""

from __future__ import annotations

from contextlib import suppress

import pytest

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import Reading, read_boxes
from dataflow_grounding.replies._absence import missing_in

NONE = [
    "No objects detected",
    "No objects detected.",
    "there are none.",
    "No cat found.",
    "No cat found",
    "There is no cat in the image.",
    "There are no cats in this image.",
    "There's no cat.",
    "There isn't a cat.",
    "I don't see any cats in the image.",
    "I don't see a cat in this picture.",
    "I do not see any such object.",
    "I could not find a cat in the image.",
    "I couldn't find any objects matching the description.",
    "I can't find any cat in the image.",
    "I didn't detect any objects.",
    "Cat not found",
    "cat: none",
    "cat: not found",
    "- cat: none",
    "The cat is not visible in the image.",
    "The cat isn't present in the image.",
    "The object is not present.",
    "The requested object is not present in the image.",
    "The image does not contain a cat.",
    "This image doesn't show any cats.",
    "No such object.",
    "No matching objects found in the image.",
    "No detections.",
    "No bounding boxes.",
    "No boxes found.",
    "None of the objects are present in the image.",
    "None of the requested objects are visible.",
    "Nothing found.",
    "Nothing detected",
    "Nothing matches",
    "No match",
    "no matches found",
    "No results",
    "N/A",
    "Not applicable",
    "not in the image",
    "Unfortunately, there is no cat in the image.",
    "I'm sorry, but there is no cat in this image.",
    "Sorry, I don't see a cat.",
    "Based on the image, there are no cats visible.",
    "It appears that there is no cat in the image.",
    "After examining the image, I found no cats.",
    "In this image, there is no cat.",
    "There is no cat in the image. The image shows a dog lying on a sofa.",
    "No cat is visible.",
    "No cats can be seen in the image.",
    "No instances of cat were found.",
    "There are no visible cats.",
    "0 objects detected",
    "Zero objects found",
    "No person or car detected.",
    "Neither the cat nor the dog is visible in the image.",
    "There is neither a cat nor a dog in the image.",
    "The image contains neither a cat nor a dog.",
    "There is no cat and no dog in the image.",
    "No cat, no dog.",
    "There are no cats or boxes.",
    "None of the phrases match anything in the picture.",
    "I see neither.",
    "None of the listed objects appear in the image.",
    "1. cat: None\n2. dog: None",
    "Both the cat and the dog are absent.",
    "I was unable to find a cat in this image.",
    "I looked carefully but couldn't spot a cat.",
    "cat — none",
    "cat: 0",
    "Could not detect any cat.",
    "Unable to find a cat.",
    "Not present in the image.",
    "It's not there.",
    "That object is not in this image.",
    "The phrase does not match anything in the image.",
    "The answer is none.",
    'There is nothing matching "cat" in the image.',
    "objects: none found",
    "In dieser Aufnahme ist keine Katze zu sehen.",
    "Eine Katze ist nicht zu sehen.",
    "На изображении нет рыжей кошки.",
    "画像に猫は写っていません。",
    "画像の中に猫は見つかりませんでした。",
    "이미지에 고양이가 보이지 않습니다.",
    "该图像中没有猫，因此列表为空。",
    "I see no cat.",
    "We found no objects.",
    "There does not appear to be a cat in the image.",
    "There doesn't seem to be any cat in this image.",
    "The cat does not appear in the image.",
    "The cat could not be found.",
    "The cat cannot be found in the image.",
    "没有找到",
    "未找到",
    "没有找到目标",
    "未检测到目标",
    "未检测到任何物体",
    "图中没有猫",
    "图中没有猫。",
    "图片中没有猫。",
    "图像中不存在猫。",
    "该图片中没有发现猫。",
    "没有检测到猫。",
    "没有符合描述的物体。",
    "猫不在图中。",
    "未发现猫",
    "无",
    "没有",
    "找不到猫",
    "抱歉，图片中没有猫。",
    "在这张图片中，没有找到猫。",
    "画面中未出现猫。",
    "图中并没有猫",
    "没有目标",
    "不存在",
    "图片里看不到猫。",
    "Keine Objekte gefunden.",
    "Keine Katze gefunden",
    "Es wurden keine Objekte erkannt.",
    "Auf dem Bild ist keine Katze zu sehen.",
    "Nichts gefunden",
    "Aucun objet détecté.",
    "Il n'y a pas de chat dans l'image.",
    "No se encontraron objetos.",
    "No se encontró ningún gato en la imagen.",
    "No hay gatos",
    "Ningún objeto detectado",
    "Nenhum objeto encontrado.",
    "Não há gatos na imagem.",
    "Nessun oggetto trovato.",
    "Non ci sono gatti nell'immagine.",
    "オブジェクトは検出されませんでした。",
    "猫は見つかりませんでした。",
    "猫は写っていません。",
    "該当なし",
    "객체가 감지되지 않았습니다.",
    "고양이가 없습니다.",
    "없음",
    "Объекты не обнаружены.",
    "Кошка не найдена.",
    "На изображении нет кошки.",
]
NO_ANSWER = [
    "I can't help with that.",
    "I'm unable to see the image.",
    "I'm sorry, I can't help with that request.",
    "I cannot see the image.",
    "I can't see any image.",
    "No image was provided.",
    "There is no image attached.",
    "I don't see an image.",
    "I don't see any image in your message.",
    "The image is not visible.",
    "The image could not be loaded.",
    "Please upload an image.",
    "No problem! Here you go.",
    "No problem.",
    "No worries",
    "I cannot provide bounding boxes.",
    "I am not able to identify people in images.",
    "I don't have the ability to see images.",
    "As an AI language model, I can't see.",
    "There is a cat on the left.",
    "The cat is on the sofa.",
    "There is no cat in the image, but there is a kitten.",
    "No cat found. However, there is a dog.",
    "There is no cat on the left. The cat is on the right.",
    "No, the cat is on the right.",
    "No",
    "无法查看图片",
    "没有图片",
    "抱歉，我无法处理该图片。",
    "没有收到图片",
    "请上传图片",
    "图片无法加载",
    "没有问题",
    "抱歉，我无法帮助。",
    "画像がありません",
    "画像が見つかりません。",
    "이미지가 없습니다.",
    "Изображение не найдено.",
    "Kein Bild gefunden.",
    "No se encontró ninguna imagen.",
    "Aucune image trouvée.",
    "not found in cache error 404 please retry",
    "No objects detected. The cat is at the right.",
    "There is no doubt that the cat is here",
    "I don't know.",
    "I don't see why not.",
    "There is nothing wrong.",
    "No coordinates available.",
    "Not sure.",
    "There is only one cat.",
    "The cat is not far from the dog.",
    "The cat is not the dog.",
    "not a cat",
    "I did not find the image clear enough.",
    "The man is not wearing a hat.",
    "There is no more than one cat.",
    "No more than two cats.",
    "There are no other cats.",
    "no bounding box can be provided",
    "There is nothing I can do.",
    "抱歉，我无法确定猫的位置。",
    "我无法确定猫的位置",
    "无法定位",
    "没关系",
    "没错。",
    "无所谓",
    "无需标注",
    "没有足够的信息",
    "没办法",
    "申し訳ありません。",
    "申し訳ありませんが、画像を見ることができません。",
    "理解していません。",
    "問題ありません。",
    "問題はありません",
    "도와드릴 수 없습니다.",
    "죄송합니다. 이미지를 볼 수 없습니다.",
    "문제가 없습니다.",
    "Aucun problème.",
    "No hay problema.",
    "Não há problema",
    "Nessun problema",
    "Нет проблем",
    "I can't see the cat clearly.",
    "The cat is not clearly visible.",
    "There is no cat visible except its tail.",
    "There is no single cat; there are several.",
    "The cat is not fully visible.",
    "No cat visible? There might be one.",
    "I cannot locate the cat precisely.",
    "There is no cat. There is a kitten.",
    "There is no second cat.",
    "There is no clear cat, though something grey is at the left.",
    "没有其他猫",
    "图中没有清晰的猫",
    "I can't find a good box for the cat.",
    "No clear cat.",
    "No cat, or is there one?",
    "Ich sehe nicht gut.",
]


def read(reply: str, *phrases: str) -> Reading:
    return read_boxes(reply, format="xyxy_1000", image_size=(1000, 1000), phrases=phrases)


@pytest.mark.slow
@pytest.mark.parametrize("reply", NONE)
def test_words_for_none_are_none(reply: str) -> None:
    for text in (
        reply,
        f"<think>Let me look for it at [1, 2, 3, 4].</think>{reply}",
        f"```\n{reply}\n```",
    ):
        assert read(text).boxes == []


@pytest.mark.parametrize("reply", NO_ANSWER)
def test_a_refusal_or_talk_is_unreadable(reply: str) -> None:
    for phrases in ([], ["cat"], ["cat", "dog"]):
        with pytest.raises(UnreadableReply):
            read(reply, *phrases)


@pytest.mark.parametrize(
    ("reply", "phrases"),
    [
        ("No objects detected.", ["cat", "dog"]),
        ("None of the requested objects are visible.", ["cat", "dog"]),
        ("没有找到任何目标。", ["猫", "狗"]),
        ("No cat or dog found.", ["a dog", "the cat"]),
        (
            "There is no cat in the image. There is no dog either in the image.".replace(
                " either", ""
            ),
            ["cat", "dog"],
        ),
        ("cat: none\ndog: not found", ["cat", "dog"]),
        ("图中没有猫和狗", ["猫", "狗"]),
        ("No cat found.", ["the black cat on the sofa"]),
        ("I see no man in the picture.", ["man with a hat"]),
        ("没有找到", ["cat"]),
        ("没有", ["cat"]),
        ("图中没有猫", ["猫"]),
    ],
)
def test_what_answers_for_every_phrase_is_none(reply: str, phrases: list[str]) -> None:
    assert read(reply, *phrases).boxes == []


@pytest.mark.parametrize(
    ("reply", "phrases"),
    [
        ("No cat found.", ["cat", "dog"]),
        ("There is no cat in the image.", ["cat", "dog"]),
        ("图中没有猫", ["猫", "狗"]),
        ("图中没有猫", ["cat"]),
        ("Keine Katze gefunden.", ["cat", "dog"]),
        ("No dog found.", ["cat"]),
        ("There is no hat on the man.", ["man"]),
        ("No white cat found.", ["black cat", "white cat"]),
        ("There is no cat on the left.", ["cat"]),
        ("I do not see a cat at first glance.", ["cat"]),
        ("No cat without a collar.", ["cat"]),
        ("No white cat and no dog found.", ["cat", "dog"]),
    ],
)
def test_what_answers_for_some_phrases_only_is_unreadable(reply: str, phrases: list[str]) -> None:
    with pytest.raises(UnreadableReply, match="says only"):
        read(reply, *phrases)


@pytest.mark.parametrize(
    "reply",
    [
        '{"answer": "No cat found."}',
        '{"message": "No objects detected."}',
        '{"result": "None"}',
        '{"cat": "not visible"}',
        '{"cat": "No cat in the image"}',
        '{"bbox_2d": "not found", "label": "cat"}',
        '{"objects": {}}',
        '{"cat": {}}',
        '{"objects": [], "note": "there is no cat"}',
        "```json\nnull\n```",
        "Answer: none",
        "**None**",
        "<answer>None</answer>",
        '[{"label": "cat", "found": "no"}]',
    ],
)
def test_none_in_json_or_with_a_word_before_it_is_none(reply: str) -> None:
    assert read(reply, "cat").boxes == []


@pytest.mark.parametrize(
    "words",
    [
        "Boxes are given as [x1, y1, x2, y2].",
        "Coordinates are normalized to 0-1000.",
        "Boxes are [ymin, xmin, ymax, xmax], normalized to 0-1000.",
        "(bbox: [ymin, xmin, ymax, xmax] in the range 0 to 1000)",
        "坐标格式为 [x1, y1, x2, y2]，归一化到 0-1000。",
    ],
)
@pytest.mark.parametrize("reply", ['```json\n{"objects": []}\n```\n', '{"objects": []}\n', "[]\n"])
def test_an_empty_list_is_none_whatever_is_said_of_how_boxes_are_written(
    reply: str, words: str
) -> None:
    assert read(reply + words, "cat").boxes == []
    with suppress(UnreadableReply):  # these numbers may be a box
        assert read(f"{reply}{words} 120, 80, 400, 360", "cat").boxes


@pytest.mark.parametrize(
    "reply",
    [
        "{}",
        "[{}]",
        '{"objects": [{}]}',
        "```json\n{}\n```",
        '{"error": "not found"}',
        '{"error": "No objects detected."}',
        '{"answer": "No dog found."}',
        '{"sign": "No smoking"}',
        "I'm sorry, I can't help with that. []",
        '{"objects": [], "note": "I cannot view images"}',
        '{"objects": [], "note": "no image was provided"}',
        "抱歉，我无法查看图片。[]",
    ],
)
def test_an_empty_object_an_error_and_a_refusal_with_an_empty_list_are_unreadable(
    reply: str,
) -> None:
    with pytest.raises(UnreadableReply):
        read(reply, "cat")


def test_long_texts_without_end_are_looked_at_quickly() -> None:
    for words in (
        "no ",
        "no cat or ",
        "there is no ",
        "not found ",
        "sorry, ",
        "没有",
        "图中没有",
        "it is not ",
    ):
        assert missing_in(words * 20_000) is None
        missing_in((words * 200)[:599])
