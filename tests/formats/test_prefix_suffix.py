"""PaliGemma's and Florence-2's lines: tokens that are in their vocabularies, and files by other
tools.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.data.records import dump_line
from dataflow_grounding.extras.formats import find_format, read, write
from tests.formats.data import draw, hostile, record

SIZE = (640, 428)
CAPTION = "A red mug and a red mug on the left, next to two small plates."
MUG, PLATE, OTHER = (
    [12.5, 20.25, 200.0, 300.0],
    [300.0, 100.0, 400.75, 200.5],
    [410.0, 110.0, 640.0, 428.0],
)


def rows() -> list[dict[str, Any]]:
    plates = [{"bbox": PLATE}, {"bbox": OTHER}]
    phrases = [
        {"text": "a red mug on the left", "instances": [{"bbox": MUG}]},
        {"text": "two small plates"},
    ]
    return [
        record(
            "000001.jpg", SIZE, [phrases[0], {**phrases[1], "instances": plates}], caption=CAPTION
        )
    ]


def exported(folder: Path, data: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    draw(folder / "pictures", data)
    write(data, name, str(folder / "out"), folders=[str(folder / "pictures")])
    return [
        json.loads(line)
        for line in (folder / "out/annotations.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def test_paligemma(tmp_path: Path) -> None:
    (line,) = exported(tmp_path, rows(), "paligemma")
    assert line == {
        "image": "images/000001.jpg",
        "prefix": "detect a red mug on the left ; two small plates",
        "suffix": "<loc0048><loc0020><loc0717><loc0320> a red mug on the left ; <loc0239><loc0480><loc0479><loc0641>"
        " two small plates ; <loc0263><loc0655><loc1023><loc1023> two small plates",
    }


def test_florence(tmp_path: Path) -> None:
    (line,) = exported(tmp_path, rows(), "florence-2")
    assert line == {
        "image": "images/000001.jpg",
        "prefix": f"<CAPTION_TO_PHRASE_GROUNDING>{CAPTION}",
        "suffix": "a red mug on the left<loc_19><loc_47><loc_312><loc_700>two small plates"
        "<loc_468><loc_233><loc_626><loc_468><loc_640><loc_257><loc_999><loc_999>",
    }
    # as the model's own post-processor reads a suffix: a phrase up to the next "<", then groups of
    # four
    said = {}
    for part in re.findall(r"([^<]+(?:<loc_\d+>){4,})", line["suffix"]):
        bins = [int(number) for number in re.findall(r"<loc_(\d+)>", part)]
        pixels = [math.floor((bin_ + 0.5) * SIZE[i % 2] / 1000) for i, bin_ in enumerate(bins)]
        said[part.partition("<")[0]] = pixels
    assert said["a red mug on the left"] == pytest.approx(MUG, abs=1)
    assert said["two small plates"] == pytest.approx([*PLATE, *OTHER], abs=1)


@pytest.mark.parametrize(("name", "top"), [("paligemma", 1023), ("florence-2", 999)])
def test_tokens_are_in_the_vocabulary_and_texts_have_none(
    tmp_path: Path, name: str, top: int
) -> None:
    edges = record(
        "edges.png", (64, 48), [{"text": "an edge", "instances": [{"bbox": [0, 0, 64, 48]}]}]
    )
    texts = [
        {"text": text, "instances": [{"bbox": [0, 0, 1, 1]}]}
        for text in ("<loc_1000> sign", "a;b", "a\nb")
    ]
    for line in exported(tmp_path, [*hostile(), edges, record("t.png", (64, 48), texts)], name):
        form = r"<loc(\d{4})>" if name == "paligemma" else r"<loc_(\d+)>"
        bins = re.findall(form, line["suffix"])
        assert all(int(number) <= top for number in bins)
        assert len(bins) % 4 == 0
        assert "<" not in re.sub(form, "", line["suffix"])
        assert line["prefix"].count("<") == (name == "florence-2")
        assert line["suffix"]
        if name == "paligemma":
            assert "\n" not in line["prefix"]
            asked = set(line["prefix"].removeprefix("detect ").split(" ; "))
            assert {part.rpartition("> ")[2] for part in line["suffix"].split(" ; ")} == asked


def read_line(folder: Path, line: dict[str, Any], name: str) -> Any:
    draw(folder, [record("a.png", (200, 100), [])])
    (folder / "data.jsonl").write_text(dump_line(line), encoding="utf-8")
    (row,) = read(str(folder / "data.jsonl"), name)
    return row["caption"], {
        one["text"]: [i["bbox"] for i in one["instances"]] for one in row["expressions"]
    }


@pytest.mark.parametrize(
    ("name", "prefix", "suffix", "caption", "text"),
    [
        ("paligemma", "the mug", "<loc0102><loc0102><loc0512><loc0512>", None, "the mug"),
        (
            "paligemma",
            "segment mug",
            "<loc0102><loc0102><loc0512><loc0512><seg001><seg127> mug",
            None,
            "mug",
        ),
        ("paligemma", "detect mug", "<loc0102><loc0102><loc0512><loc0512> mug;", None, "mug"),
        ("florence-2", "<OD>", "mug<loc_100><loc_100><loc_500><loc_500>", None, "mug"),
        (
            "florence-2",
            "<CAPTION_TO_PHRASE_GROUNDING>A mug.",
            "mug<loc_100><loc_100><loc_500><loc_500>",
            "A mug.",
            "mug",
        ),
    ],
)
def test_by_others(
    tmp_path: Path, name: str, prefix: str, suffix: str, caption: str | None, text: str
) -> None:
    line = {"suffix": suffix, "extra": None, "prefix": prefix, "image": "a.png"}
    assert read_line(tmp_path, line, name) == (
        caption,
        {text: [pytest.approx([20, 10, 100, 50], abs=0.2)]},
    )


def test_florences_tasks_without_boxes_are_left_out(tmp_path: Path) -> None:
    draw(tmp_path, [record("a.png", (200, 100), [])])
    four = "<loc_100><loc_100><loc_500><loc_500>"
    lines = [
        ("<REFERRING_EXPRESSION_SEGMENTATION>mug", 2 * four),
        ("<REGION_TO_CATEGORY>" + four, "mug"),
        ("<OPEN_VOCABULARY_DETECTION>mug", f"mug<poly>{four}</poly>"),
        ("<OPEN_VOCABULARY_DETECTION>mug", four),
    ]
    data = [
        dump_line({"image": "a.png", "prefix": prefix, "suffix": suffix})
        for prefix, suffix in lines
    ]
    (tmp_path / "data.jsonl").write_text("".join(data), encoding="utf-8")
    made = find_format("florence-2")
    *_, row = read(str(tmp_path / "data.jsonl"), made)
    assert [(one["text"], len(one["instances"])) for one in row["expressions"]] == [("mug", 1)]
    told = ("<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_CATEGORY>", "<poly>")
    assert +made.passed_over == {
        f"answers with {one}, of outlines or single regions": 1 for one in told
    }


def test_other_tasks_have_no_expressions(tmp_path: Path) -> None:
    assert (
        read_line(
            tmp_path, {"image": "a.png", "prefix": "caption en", "suffix": "a mug"}, "paligemma"
        )[1]
        == {}
    )


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        (
            "florence-2",
            {"prefix": "<OD>", "suffix": "a<loc_1><loc_2><loc_1000><loc_4>"},
            "is not a box of florence-2",
        ),
        (
            "florence-2",
            {"prefix": "<OD>", "suffix": "a<loc_1><loc_2><loc_3>"},
            "is not a box of florence-2",
        ),
        (
            "paligemma",
            {"prefix": "detect a", "suffix": "<loc0001><loc0002><loc1024><loc0004> a"},
            "is not a box",
        ),
        (
            "paligemma",
            {"prefix": "detect ", "suffix": "<loc0001><loc0002><loc0003><loc0004>"},
            "without a phrase",
        ),
        ("paligemma", {"prefix": "detect a"}, "no 'suffix'"),
        ("paligemma", {"prefix": None, "suffix": ""}, "not of this format"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, name: str, line: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=rf"data\.jsonl, line 1.*{said}"):
        read_line(tmp_path, {"image": "a.png", **line}, name)
    with pytest.raises(InputError, match=r"line 1: no 'image' in it"):
        read_line(tmp_path, line, name)
