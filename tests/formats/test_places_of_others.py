"""Places of phrases in captions whose offsets are off, as other tools' files have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tests.formats.data import command, facts_of, records_of, succeeds
from tests.support.labelled import Labelled, labelled

CAPTION = "A red cup and a red cup on a desk"
TAKEN = "offsets of places in captions that were off, taken from their words"
WIDENED = "offsets of places in captions that were off, taken to the edges of words"
NOWHERE = "places in captions that don't have their phrase anywhere"


def mmdet(phrase: str, *spans: list[int], caption: str = CAPTION) -> dict[str, Any]:
    region = {"bbox": [[1, 2, 9, 9]], "phrase": phrase, "tokens_positive": spans}
    line = {"filename": "a.png", "width": 64, "height": 48}
    return {**line, "grounding": {"caption": caption, "regions": [region]}}


def mdetr(phrase: str | None, *spans: list[int], caption: str = CAPTION) -> dict[str, Any]:
    """As MDETR's files are: most say the phrase by its place alone."""
    image = {"id": 1, "file_name": "a.png", "width": 64, "height": 48, "caption": caption}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 7], "iscrowd": 0}
    box |= {"tokens_positive": spans} | ({"phrase": phrase} if phrase else {})
    categories = [{"id": 1, "name": "object"}]
    return {"images": [image], "annotations": [box], "categories": categories}


def imported(folder: Path, format: str, data: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The one expression of a file, and what the command says that it left out."""
    PIL.Image.new("RGB", (64, 48)).save(folder / "a.png")
    file = folder / ("x.jsonl" if format == "odvg-mmdet" else "x.json")
    file.write_text(json.dumps(data) + "\n")
    said = facts_of("import", file, "--format", format, "-o", folder / "back")
    [row] = records_of(folder / "back")
    (expression,) = row["expressions"]
    return expression, said["left_out"]


@pytest.mark.parametrize(("format", "made"), [("odvg-mmdet", mmdet), ("coco-grounding", mdetr)])
@pytest.mark.parametrize(
    ("spans", "place", "said"),
    [
        ([[14, 23]], [14, 23], {}),
        ([[13, 22]], [14, 23], {TAKEN: 1}),
        ([[16, 25]], [14, 23], {TAKEN: 1}),
        ([[1, 10]], [0, 9], {TAKEN: 1}),
        ([[14, 15], [16, 19], [20, 23]], [14, 23], {}),  # a span for each word
        ([[15, 16], [17, 20], [21, 24]], [14, 23], {TAKEN: 1}),
        ([[90, 99]], [14, 23], {TAKEN: 1}),
    ],
)
def test_the_nearest_place_of_the_words_is_taken(
    format: str, made: Any, spans: Any, place: list[int], said: dict[str, int], tmp_path: Path
) -> None:
    expression, left_out = imported(tmp_path, format, made("a red cup", *spans))
    assert (expression["text"], expression["char_span"]) == ("a red cup", place)
    assert left_out == said


@pytest.mark.parametrize(("format", "made"), [("odvg-mmdet", mmdet), ("coco-grounding", mdetr)])
def test_words_that_the_caption_does_not_have_have_no_place(
    format: str, made: Any, tmp_path: Path
) -> None:
    expression, left_out = imported(tmp_path, format, made("a blue cup", [14, 23]))
    assert (expression["text"], expression["char_span"]) == ("a blue cup", None)
    assert left_out == {NOWHERE: 1}


@pytest.mark.parametrize(("format", "made"), [("odvg-mmdet", mmdet), ("coco-grounding", mdetr)])
def test_words_of_two_parts_have_no_single_place(format: str, made: Any, tmp_path: Path) -> None:
    expression, left_out = imported(tmp_path, format, made("A cup", [0, 1], [6, 9]))
    assert (expression["text"], expression["char_span"], left_out) == ("A cup", None, {})


WHOLE = "annotations without places in their caption, whose phrase is all of it"


@pytest.mark.parametrize(
    ("spans", "words", "place", "said"),
    [
        ([[14, 23]], "a red cup", [14, 23], {}),
        ([[0, 7]], "A red cup", [0, 9], {WIDENED: 1}),  # it was "A red c"
        ([[13, 22]], "a red cup", [14, 23], {WIDENED: 1}),
        ([[28, 40]], "desk", [29, 33], {WIDENED: 1}),
        # these had no place, and an export to mmdetection left out the box
        ([[14, 15], [16, 19], [20, 23]], "a red cup", [14, 23], {}),
        ([[14, 15], [20, 23]], "a cup", None, {}),  # with words between them
        ([], CAPTION, [0, len(CAPTION)], {WHOLE: 1}),
    ],
)
def test_places_that_alone_say_the_words_are_taken_to_the_edges_of_words(
    spans: Any, words: str, place: list[int] | None, said: dict[str, int], tmp_path: Path
) -> None:
    expression, left_out = imported(tmp_path, "coco-grounding", mdetr(None, *spans))
    assert (expression["text"], expression["char_span"], left_out) == (words, place, said)


@pytest.mark.parametrize("span", [[33, 40], [9, 10], [5, 5]])
def test_a_place_without_words_is_refused(span: list[int], tmp_path: Path) -> None:
    """It made all of the caption a phrase."""
    (tmp_path / "x.json").write_text(json.dumps(mdetr(None, span)))
    arguments = ("import", tmp_path / "x.json", "--format", "coco-grounding")
    done = command(*arguments, "-o", tmp_path / "back")
    why = f"annotation 1: is not of this format (no words of its caption are at {span}"
    assert (done.code, why in done.err, len(done.err.splitlines())) == (2, True, 1)
    assert not (tmp_path / "back").exists()


def test_places_of_scripts_without_blanks_are_taken_as_they_are(tmp_path: Path) -> None:
    data = mdetr(None, [3, 8], caption="桌上的红色的杯子")
    expression, left_out = imported(tmp_path, "coco-grounding", data)
    assert (expression["text"], expression["char_span"]) == ("红色的杯子", [3, 8])
    assert left_out == {}


def test_a_place_that_is_right_stays_next_to_one_that_is_off(tmp_path: Path) -> None:
    data = mmdet("a red cup", [16, 25])
    desk = {"bbox": [[1, 2, 9, 9]], "phrase": "a red cup", "tokens_positive": [[0, 9]]}
    data["grounding"]["regions"].append(desk)
    (tmp_path / "x.jsonl").write_text(json.dumps(data))
    out = tmp_path / "back"
    succeeds("import", tmp_path / "x.jsonl", "--format", "odvg-mmdet", "-o", out)
    [row] = records_of(out)
    assert [one["char_span"] for one in row["expressions"]] == [[14, 23], [0, 9]]


def test_places_of_cvat_are_mended_too(tmp_path: Path) -> None:
    facts = {"phrase": "a red cup", "start": 15, "end": 24}
    attributes = "".join(f'<attribute name="{key}">{facts[key]}</attribute>' for key in facts)
    caption = f'<tag label="picture"><attribute name="caption">{CAPTION}</attribute></tag>'
    box = f'<box label="object" xtl="1" ytl="2" xbr="9" ybr="9">{attributes}</box>'
    path = labelled(tmp_path, "cvat", [Labelled("a.png", [caption, box])], drawn=False)
    done = succeeds("import", path, "--format", "cvat", "-o", tmp_path / "back")
    [row] = records_of(tmp_path / "back")
    assert row["expressions"][0]["char_span"] == [14, 23]
    assert f"not read as they are: {TAKEN} (1)" in done.out + done.err
