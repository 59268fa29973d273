"""Conversations: numbers as each trainer's model sees them, and what their readers ask for."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.formats import find_format, read, write
from tests.formats import data
from tests.formats.data import (
    command,
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


@pytest.mark.parametrize("name", ["ms-swift", "llava", "sharegpt", "messages"])
def test_conversations_are_written_alone(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "data.jsonl", [{"image": "a.png", "conversations": []}])
    with pytest.raises(SpecError, match=f"{name} is written, not read. These are read: odvg, "):
        read(str(path), name)
    line = refused("import", path, "--format", name, "-o", tmp_path / "out")
    assert f"{name} is written, not read" in line
    assert name not in command("import", "--help").out


@pytest.mark.slow
def test_out_as_a_command(tmp_path: Path) -> None:
    dog = {"text": "a dog", "instances": [{"bbox": NOTEBOOK[1]}]}
    run, out = run_of(tmp_path / "run", [record("a.png", NOTEBOOK[0], [dog])]), tmp_path / "out"
    export = ("export", run, "--format", "llava", "-o", out)
    assert "qwen2.5-vl" in refused(*export)
    succeeds(*export, "--target", "qwen2.5-vl")
    (line,) = records_of(out / "llava.jsonl")
    assert "[147, 134, 619, 407]" in line["conversations"][1]["value"]
