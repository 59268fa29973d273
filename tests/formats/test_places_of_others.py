"""Places of phrases in captions whose offsets are off, as other tools' files have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.formats.data import refused
from tests.formats.place import Place
from tests.support.labelled import Labelled, labelled

CAPTION = "A red cup and a red cup on a desk"
TAKEN = "offsets of places in captions that were off, taken from their words"
WIDENED = "offsets of places in captions that were off, taken to the edges of words"
NOWHERE = "places in captions that don't have their phrase anywhere"
WHOLE = "annotations without places in their caption, whose phrase is all of it"
Found = tuple[list[tuple[str, Any]], dict[str, int]]
"""Phrases, each with its place, and what an import left out."""


def region(phrase: str, *spans: list[int]) -> dict[str, Any]:
    """As mmdetection's converter writes it."""
    return {"bbox": [[1, 2, 9, 9]], "phrase": phrase, "tokens_positive": [*spans]}


def mdetr(folder: Path, phrase: str, *spans: list[int], caption: str = CAPTION) -> Path:
    """As MDETR's files are: most say the phrase by its place alone."""
    box = {"bbox": [1, 2, 8, 7], "iscrowd": 0, "tokens_positive": [*spans]}
    entry = {**box, "phrase": phrase} if phrase else box
    picture = Labelled("a.png", [entry], caption=caption)
    return labelled(folder, "coco", [picture], classes=["object"], drawn=False)


def imported(place: Place, path: Path, format: str) -> Found:
    left_out = place.imported(path, format)["left_out"]
    [row] = place.records()
    return [(one["text"], one["char_span"]) for one in row["expressions"]], left_out


@pytest.mark.parametrize("format", ["odvg-mmdet", "coco-grounding"])
@pytest.mark.parametrize(
    ("phrase", "spans", "expected", "said"),
    [
        ("a red cup", [[14, 23]], [14, 23], {}),
        ("a red cup", [[13, 22]], [14, 23], {TAKEN: 1}),
        ("a red cup", [[16, 25]], [14, 23], {TAKEN: 1}),
        ("a red cup", [[1, 10]], [0, 9], {TAKEN: 1}),
        ("a red cup", [[14, 15], [16, 19], [20, 23]], [14, 23], {}),  # a span for each word
        ("a red cup", [[15, 16], [17, 20], [21, 24]], [14, 23], {TAKEN: 1}),
        ("a red cup", [[90, 99]], [14, 23], {TAKEN: 1}),
        ("a blue cup", [[14, 23]], None, {NOWHERE: 1}),
        ("A cup", [[0, 1], [6, 9]], None, {}),  # of two parts
    ],
)
def test_the_nearest_place_of_the_words_is_taken(
    format: str, phrase: str, spans: Any, expected: Any, said: dict[str, int], place: Place
) -> None:
    if format == "odvg-mmdet":
        picture = Labelled("a.png", [region(phrase, *spans)], caption=CAPTION)
        path = labelled(place.folder, "odvg", [picture], drawn=False)
    else:
        path = mdetr(place.folder, phrase, *spans)
    assert imported(place, path, format) == ([(phrase, expected)], said)


@pytest.mark.parametrize(
    ("spans", "words", "expected", "said"),
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
def test_places_that_alone_say_the_words_are_taken_to_their_edges(
    spans: Any, words: str, expected: Any, said: dict[str, int], place: Place
) -> None:
    path = mdetr(place.folder, "", *spans)
    assert imported(place, path, "coco-grounding") == ([(words, expected)], said)


@pytest.mark.parametrize("span", [[33, 40], [9, 10], [5, 5]])
def test_a_place_without_words_is_refused(span: list[int], tmp_path: Path) -> None:
    """It made all of the caption a phrase."""
    arguments = ("import", mdetr(tmp_path, "", span), "--format", "coco-grounding")
    why = f"annotation 1: is not of this format (no words of its caption are at {span}"
    assert why in refused(*arguments, "-o", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_places_of_scripts_without_blanks_are_taken_as_they_are(place: Place) -> None:
    path = mdetr(place.folder, "", [3, 8], caption="桌上的红色的杯子")
    assert imported(place, path, "coco-grounding") == ([("红色的杯子", [3, 8])], {})


def test_a_place_that_is_right_stays_next_to_one_that_is_off(place: Place) -> None:
    both = [region("a red cup", [16, 25]), region("a red cup", [0, 9])]
    path = labelled(place.folder, "odvg", [Labelled("a.png", both, caption=CAPTION)])
    found, _ = imported(place, path, "odvg-mmdet")
    assert found == [("a red cup", [14, 23]), ("a red cup", [0, 9])]


def test_places_of_cvat_are_mended_too(place: Place) -> None:
    facts = {"phrase": "a red cup", "start": 15, "end": 24}
    attributes = "".join(f'<attribute name="{key}">{facts[key]}</attribute>' for key in facts)
    caption = f'<tag label="picture"><attribute name="caption">{CAPTION}</attribute></tag>'
    box = f'<box label="object" xtl="1" ytl="2" xbr="9" ybr="9">{attributes}</box>'
    path = labelled(place.folder, "cvat", [Labelled("a.png", [caption, box])], drawn=False)
    assert imported(place, path, "cvat") == ([("a red cup", [14, 23])], {TAKEN: 1})
