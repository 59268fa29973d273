"""Conversations: numbers as each trainer's model sees them, what their readers ask for, and files
by other tools.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding.formats import find_format, read, write
from dataflow_grounding.formats.format import Format
from tests.formats import data
from tests.formats.data import (
    boxes_of,
    draw,
    hostile,
    record,
    records_of,
    refused,
    run_of,
    succeeds,
)
from tests.support.labelled import saved
from tests.support.stand_ins.resize_rules import smart

# of Qwen's process_bbox.ipynb, with what comes out for each model
NOTEBOOK = (640, 428), [146, 137, 615, 415]
CONVERSATIONS = [
    ("ms-swift", {}),
    *(("llava", {"target": name}) for name in ("qwen3-vl", "qwen2-vl", "internvl")),
]
CONVERSATIONS += [("sharegpt", {"target": "qwen2.5-vl"}), ("sharegpt", {"target": "gemini"})]


def exported(
    folder: Path, rows: list[dict[str, Any]], name: str, **options: Any
) -> list[dict[str, Any]]:
    out = data.exported(folder, name, rows, **options)
    return records_of(out / find_format(name, **options).data_file)


def back(
    folder: Path, rows: list[dict[str, Any]], name: str, **options: Any
) -> list[dict[str, Any]]:
    return list(read(str(data.exported(folder, name, rows, **options)), name, **options))


def answer(folder: Path, size: tuple[int, int], box: list[float], name: str, **options: Any) -> str:
    """What is answered for a phrase with one box in a picture of this size."""
    one = {"text": "a dog", "instances": [{"bbox": box}]}
    folder.mkdir(exist_ok=True)
    (folder / "x.jsonl").unlink(missing_ok=True)
    write([record("a.png", size, [one])], name, str(folder / "x.jsonl"), **options)
    (line,) = records_of(folder / "x.jsonl")
    return str(line["conversations"][1]["value"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"target": "Qwen/Qwen3-VL-8B-Instruct"},
            '[{"bbox_2d": [228, 320, 961, 970], "label": "a dog"}]',
        ),
        ({"target": "qwen2.5-vl"}, '[{"bbox_2d": [147, 134, 619, 407], "label": "a dog"}]'),
        ({"target": "gemini"}, '[{"box_2d": [320, 228, 970, 961], "label": "a dog"}]'),
        ({"target": "xyxy_1"}, '[{"bbox_2d": [0.2281, 0.3201, 0.9609, 0.9696], "label": "a dog"}]'),
        ({"target": "internvl"}, "<ref>a dog</ref><box>[[228, 320, 961, 970]]</box>"),
        (
            {"target": "qwen2-vl"},
            "<|object_ref_start|>a dog<|object_ref_end|><|box_start|>(228,320),(961,970)<|box_end|>",
        ),
    ],
)
def test_the_notebooks_own_case(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    assert answer(tmp_path, *NOTEBOOK, "llava", **options) == expected


def as_trained(width: int, height: int, trainer: str, low: int, high: int) -> tuple[float, float]:
    """Width and height of a picture as Qwen2.5-VL gets it from each trainer."""
    if trainer == "llama-factory":
        if width * height > high:
            factor = math.sqrt(high / (width * height))
            width, height = int(width * factor), int(height * factor)
        if width * height < low:
            factor = math.sqrt(low / (width * height))
            width, height = int(width * factor), int(height * factor)
        if min(width, height) < 28:
            width, height = max(width, 28), max(height, 28)
        low, high = 56 * 56, 14 * 14 * 4 * 16384
    return smart(28, low, high)(width, height)


TRAINERS = {"llava": ("qwen", 12544, 451584), "sharegpt": ("llama-factory", 1024, 589824)}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
@given(size=st.tuples(st.integers(20, 1500), st.integers(20, 1500)))
@example(size=(10, 50))
@settings(max_examples=30, deadline=None)
def test_pixels_are_those_of_the_trainer(
    tmp_path_factory: pytest.TempPathFactory, name: str, size: tuple[int, int]
) -> None:
    box = [size[0] * 0.1, size[1] * 0.25, size[0] * 0.9, size[1] * 0.75]
    said = answer(tmp_path_factory.getbasetemp() / "pixels", size, box, name, target="qwen2.5-vl")
    new = as_trained(*size, *TRAINERS[name])
    expected = [value * new[i % 2] / size[i % 2] for i, value in enumerate(box)]
    assert json.loads(said)[0]["bbox_2d"] == pytest.approx(expected, abs=0.5 + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("sharegpt", ["`image_min_pixels: 1024, image_max_pixels: 589824`", "multiples of 28 px"]),
        ("llava", ["`smart_resize_28_12544_451584`", "`--min_pixels 12544 --max_pixels 451584`"]),
    ],
)
def test_the_readme_states_limits_and_rule(name: str, lines: list[str], tmp_path: Path) -> None:
    out = data.exported(tmp_path, name, list(hostile()), target="qwen2.5-vl")
    readme = (out / "README.md").read_text(encoding="utf-8")
    assert [line for line in lines if line not in readme] == []


@pytest.mark.parametrize(("name", "options"), CONVERSATIONS)
def test_readers_rules(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    """Turns alternate and are even in number; as many <image> as pictures, which are there; nothing
    else is a token; every line has every key.
    """
    written = exported(tmp_path, list(hostile()), name, **options)
    assert len({tuple(line) for line in written}) == 1
    for line in written:
        turns = line.get("conversations") or line["messages"]
        roles = [turn.get("from") or turn["role"] for turn in turns]
        texts = [turn.get("value") or turn["content"] for turn in turns]
        both = ["user", "assistant"] if name == "ms-swift" else ["human", "gpt"]
        assert roles == both * (len(turns) // 2) != []
        pictures = line.get("images") or [line["image"]]
        assert all((tmp_path / name / picture).is_file() for picture in pictures)
        assert [text.count("<image>") for text in texts] == [1, *[0] * (len(turns) - 1)]
        assert not any(mark in text for text in texts for mark in ("<video>", "<audio>"))
        if name == "ms-swift":
            objects, text = line["objects"], "".join(texts)
            assert text.count("<bbox>") == len(objects["bbox"])
            assert text.count("<ref-object>") == len(objects["ref"])
            assert all(type(number) is float for box in objects["bbox"] for number in box)
        else:
            assert not any("<bbox>" in text or "<ref-object>" in text for text in texts)


def listed_in(file: Path) -> dict[str, Any]:
    """The only data set that a trainer's list names."""
    (entry,) = json.loads(file.read_text(encoding="utf-8")).values()
    return dict(entry)


@pytest.mark.slow
def test_the_lists_of_trainers_name_the_data_set(tmp_path: Path) -> None:
    lines = exported(tmp_path, list(hostile()), "sharegpt", target="qwen3-vl")
    entry = listed_in(tmp_path / "sharegpt/dataset_info.json")
    assert (entry["file_name"], entry["formatting"]) == ("sharegpt.jsonl", "sharegpt")
    assert set(entry["columns"].values()) == set(lines[0])
    lines = exported(tmp_path, list(hostile()), "llava", target="OpenGVLab/InternVL3_5-8B")
    entry = listed_in(tmp_path / "llava/meta.json")
    assert entry["length"] == len(lines)
    assert (tmp_path / "llava" / entry["root"] / lines[0]["image"]).is_file()
    assert (tmp_path / "llava" / entry["annotation"]).is_file()
    # as its evaluator finds a box
    assert re.findall(r"\[*\[(.*?),(.*?),(.*?),(.*?)\]\]*", lines[0]["conversations"][1]["value"])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("ms-swift", "x <|box_start|> y", "x box_start y"),
        ("ms-swift", "dog</ref><box>[[1,2,3,4]]</box>", "dog ref box [[1,2,3,4]] box"),
        ("ms-swift", "a<image>b <z> <|", "a image b z"),
        ("odvg", "car . red", "car, red"),
    ],
)
def test_tokens_leave_their_names(name: str, text: str, expected: str) -> None:
    assert find_format(name).safe(text) == expected


@pytest.mark.slow
def test_nothing_there_is_an_empty_list(tmp_path: Path) -> None:
    rows = [record("none.png", (64, 48), [{"text": "a dog"}])]
    for name, options in CONVERSATIONS:
        (line,) = exported(tmp_path, rows, name, **options)
        turns = line.get("conversations") or line["messages"]
        assert "[]" in (turns[1].get("value"), turns[1].get("content"))
        (row,) = read(str(tmp_path / name), name, **options)
        assert [(one["text"], one["status"]) for one in row["expressions"]] == [("a dog", "none")]


TARGETS = "such as qwen3-vl, qwen2.5-vl, qwen2-vl, internvl, .* the format ms-swift needs no target"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, TARGETS),
        ({"target": "no-such-model"}, "not 'no-such-model'"),
        ({"target": "florence-2"}, "not 'florence-2'"),
    ],
)
def test_a_target_that_no_format_is_for_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        find_format("llava", **options)


def read_line(
    folder: Path, line: dict[str, Any], format: str | Format, **options: Any
) -> list[dict[str, Any]]:
    draw(folder, [record("a.png", (200, 100), [])])
    return list(read(str(saved(folder / "data.jsonl", [line])), format, **options))


def boxes_in_line(*arguments: Any, **options: Any) -> dict[str, list[Any]]:
    (row,) = read_line(*arguments, **options)
    return boxes_of(row)


BOX, OTHER = [20.0, 10.0, 100.0, 50.0], [120.5, 10.0, 200.0, 50.0]


@pytest.mark.parametrize(
    ("question", "said", "objects"),
    [
        (
            "<image>Locate the <ref-object>",
            '[\n\t{"bbox_2d": <bbox>, "label": "<ref-object>"},\n\t{"bbox_2d": <bbox>, "label": "<ref-object>"}\n]',
            {"ref": ['a "mug"'] * 3, "bbox": [BOX, OTHER], "bbox_type": "real"},
        ),
        (
            "<image>Describe the image with grounding.",
            'A <ref-object><bbox> or <ref-object><bbox>, a "mug".',
            {"ref": ['a "mug"'] * 2, "bbox": [BOX, OTHER]},
        ),
        (
            '<image>Find: a "mug"',
            "<bbox><bbox>",
            {"bbox": [[0.1, 0.1, 0.5, 0.5], [0.6025, 0.1, 1.0, 0.5]], "bbox_type": "norm1"},
        ),
    ],
)
def test_ms_swift_by_others(
    tmp_path: Path, question: str, said: str, objects: dict[str, Any]
) -> None:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": said}]
    line = {"objects": objects, "images": [{"path": "a.png", "bytes": None}], "messages": messages}
    found = boxes_in_line(tmp_path, line, "ms-swift")
    assert found == {'a "mug"': [pytest.approx(BOX), pytest.approx(OTHER)]}


@pytest.mark.parametrize(
    ("target", "question", "said"),
    [
        ("xyxy_1", "<image>\nGive the region of this: the mug", "[0.1, 0.1, 0.5, 0.5]"),
        (
            "qwen3-vl",
            "Where is it: the mug<image>",
            '```json\n[{"bbox_2d": [100, 100, 500, 500]}]\n```',
        ),
        (
            "qwen3-vl",
            "<image>Detect all",
            '[{"label": "the mug", "bbox_2d": [100, 100, 500, 500]}]',
        ),
        ("internvl", "<image>\nFind <ref>the mug</ref>", "<box>[[100, 100, 500, 500]]</box>"),
        ("internvl", "<image>\nFind <ref>the mug</ref>", "[[100, 100, 500, 500]]"),
    ],
)
@pytest.mark.parametrize("name", ["llava", "sharegpt"])
def test_llava_by_others(tmp_path: Path, name: str, target: str, question: str, said: str) -> None:
    talk = [("system", "Be brief. [1, 2, 3, 4]"), ("human", "Hello [1]"), ("gpt", "Good day.")]
    talk += [("human", question), ("gpt", said)]
    turns = [{"from": who, "value": text} for who, text in talk]
    line = {"conversations": turns, "image": "a.png", "more": 1}
    assert boxes_in_line(tmp_path, line, name, target=target) == {"the mug": [pytest.approx(BOX)]}
    del line["image"]
    assert read_line(tmp_path, line, name, target=target) == []


@pytest.mark.parametrize(
    ("name", "keys", "called", "answered"),
    [
        ("sharegpt", ("from", "human", "gpt", "value"), "function_call", "observation"),
        ("messages", ("role", "user", "assistant", "content"), "tool_call", "tool"),
        ("messages", ("role", "user", "assistant", "content"), "tool_call", "tool_response"),
    ],
)
def test_calls_and_answers_of_tools_are_not_the_models(
    tmp_path: Path, name: str, keys: tuple[str, str, str, str], called: str, answered: str
) -> None:
    speaker, user, model, text = keys
    elsewhere = '[{"bbox_2d": [600, 600, 900, 900], "label": "the mug"}]'
    talk = [
        ("system", elsewhere),
        (user, "Find the mug"),
        (called, f'{{"name": "zoom", "arguments": {elsewhere}}}'),
        (answered, elsewhere),
        (answered, "[]"),
        (model, '[{"bbox_2d": [100, 100, 500, 500], "label": "the mug"}]'),
    ]
    turns = [{speaker: who, text: said} for who, said in talk]
    line = {"messages" if name == "messages" else "conversations": turns, "images": ["a.png"]}
    assert boxes_in_line(tmp_path, line, name, target="qwen3-vl") == {
        "the mug": [pytest.approx(BOX)]
    }


def test_words_with_numbers_in_brackets_are_passed_over(tmp_path: Path) -> None:
    texts = [
        "In [2021] it was built.",
        "From [1999, 2001], see [3].",
        "It's at [100, 100, 500, 500].",
    ]
    turns = [part for text in texts for part in turn(text, "A mug")]
    line = {"conversations": turns, "image": "a.png"}
    made = find_format("llava", target="qwen3-vl")
    assert boxes_in_line(tmp_path, line, made) == {"A mug": [pytest.approx(BOX)]}
    assert +made.passed_over == {"answers with numbers in brackets that are no box": 2}


def test_a_question_in_parts_about_no_box_is_passed_over(tmp_path: Path) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    said = [{"role": "user", "content": parts}, {"role": "assistant", "content": "A mug."}]
    line = {"messages": said, "images": ["a.png"]}
    assert boxes_in_line(tmp_path, line, "llava", target="qwen3-vl") == {}


def test_a_json_list_is_read_too(tmp_path: Path) -> None:
    draw(tmp_path, [record("a.png", (200, 100), [])])
    line = {"image": "a.png", "conversations": turn("[[100, 100, 500, 500]]")}
    path = saved(tmp_path / "data.json", [line] * 2)
    rows = read(str(path), "llava", target="qwen3-vl")
    assert [boxes_of(row) for row in rows] == [{"a mug": [pytest.approx(BOX)]}] * 2


@pytest.mark.parametrize(("name", "options"), CONVERSATIONS)
def test_texts_come_back_as_they_were(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    texts = ["Tom &amp; Jerry", "none", "no dog", "[1, 2, 3, 4]", "not: in the image", "a\\b"]
    texts += ["{x}", "%s", "` `", "a\u2028b", "a <loc_12> b", '{"a"}', '{"bbox_2d": 1}', "phrase 3"]
    phrases = [{"text": text, "instances": [{"bbox": [1, 2, 30, 40]}]} for text in texts]
    (row,) = back(tmp_path, [record("a.png", (64, 48), phrases)], name, **options)
    found = [(text, len(boxes)) for text, boxes in boxes_of(row).items()]
    assert found == [(text, 1) for text in texts]


@pytest.mark.parametrize(("name", "options"), CONVERSATIONS)
def test_a_box_of_a_pixel_is_no_share(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    box = [0.0, 0.0, 1.0, 1.0]
    row = record("a.png", (1000, 1000), [{"text": "a mug", "instances": [{"bbox": box}]}])
    (row,) = back(tmp_path, [row], name, **options)
    assert boxes_of(row) == {"a mug": [pytest.approx(box, abs=1)]}


def turn(said: Any, question: Any = "<image>Find: a mug") -> list[dict[str, Any]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": said}]


BROKEN_ANSWERS: dict[Any, str] = {
    "[0.1, 0.2, 0.3, 0.4]": "where 0 to 1000 was asked for",
    '[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [1, 2]}]': "points",
    '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [1, 2': "end",
    '[{"box_2d": [1, 2, 3, 4]}]': "boxes are 'box_2d'.* 'bbox_2d'",
    "[615, 226]": "points where boxes",
    "[[1, 2, 3, 4], [5, 6, 7": "ends in the middle",
    '[{"bbox_2d": [50, 100, 300, 5': "cut off",
    '[{"bbox_2d": [50, NaN, 300, 500], "label": "c"}]': "not a number",
    '[{"bbox_2d": ["a", 100, 300, 500], "label": "c"}]': "not a number",
    None: "not of this format",
}
GOOD = turn("[1, 2, 30, 40]")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        *(
            ({"image": "a.png", "conversations": turn(answer)}, said)
            for answer, said in BROKEN_ANSWERS.items()
        ),
        ({"image": "a.png", "conversations": turn("[1, 2, 3, 4]", "<image>")}, "without a phrase"),
        ({"image": ["a.png", "b.png"], "conversations": GOOD}, "several pictures"),
        ({"image": "b.png", "conversations": GOOD}, "b.png"),
        ({"image": "a.png"}, "messages"),
        ({"filename": "a.png", "grounding": {}}, "image"),
        ({"image": "a.png", "conversations": ["hello"]}, "not of this format"),
        ({"image": 3, "conversations": []}, "path of an image"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=rf"data\.jsonl, line 1.*{said}"):
        read_line(tmp_path, line, "llava", target="qwen3-vl")


@pytest.mark.parametrize(
    ("answer", "bbox", "said"),
    [
        ("<bbox><bbox>", [[615, 226], BOX], ""),
        ("<bbox><bbox>", [BOX], ""),
        ("<bbox><bbox>", [BOX, OTHER, BOX], ""),
        ("<bbox><bbox>", [["a"] * 4, BOX], ""),
        ("<bbox><bbox>", [{"x": 1}, BOX], ""),
        ('[{"bbox_2d": <bbox>, "label": "a mug"}]', [[]], r": .*\[\] is not a box"),
        ("a mug: <bbox>", [[]], r": .*\[\] is not a box"),
    ],
)
def test_broken_objects_are_named(tmp_path: Path, answer: str, bbox: list[Any], said: str) -> None:
    messages = [
        {"role": "user", "content": "<image><ref-object>"},
        {"role": "assistant", "content": answer},
    ]
    line = {"messages": messages, "images": ["a.png"], "objects": {"ref": ["a mug"], "bbox": bbox}}
    with pytest.raises(InputError, match=rf"data\.jsonl, line 1{said}"):
        read_line(tmp_path, line, "ms-swift")


@pytest.mark.slow
def test_in_and_out_as_commands(tmp_path: Path) -> None:
    dog = {"text": "a dog", "instances": [{"bbox": NOTEBOOK[1]}]}
    run, out = run_of(tmp_path / "run", [record("a.png", NOTEBOOK[0], [dog])]), tmp_path / "out"
    export = ("export", run, "--format", "llava", "-o", out)
    assert "qwen2.5-vl" in refused(*export)
    succeeds(*export, "--target", "qwen2.5-vl")
    given = ("--set", "target=qwen2.5-vl")
    succeeds("import", out, "--format", "llava", "-o", tmp_path / "in", *given)
    (row,) = records_of(tmp_path / "in")
    assert boxes_of(row) == {"a dog": [pytest.approx(NOTEBOOK[1], abs=2)]}
