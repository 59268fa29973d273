"""Entries and files that can't be read are refused in Python, with their place; what an import makes
of them is in test_bad_entries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.formats import read
from tests.support.labelled import Labelled, labelled, region, saved

EDGES = 'xtl="1" ytl="2" xbr="3.5" ybr="4"'
CVAT_TAG = '<tag label="no box"><attribute name="phrase">x</attribute>'
TEXT = {"id": "r1", "from_name": "phrase", "type": "textarea", "value": {"text": ["a mug"]}}


def part(value: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A region of Label Studio; what isn't said of its place is the right half of the picture."""
    own = {"x": 50, "y": 0, "width": 50, "height": 100, "rotation": 0}
    made = region("", {}, from_name="box", to_name="image")
    return {**made, "value": {**own, **value}, **more}


def polygon(*points: Any) -> dict[str, Any]:
    return region("cup", {"points": [*points]}, kind="polygon")


def shape(label: str, *points: Any) -> dict[str, Any]:
    return {"label": label, "points": [*points], "shape_type": "rectangle"}


def voc(name: str, *edges: Any) -> str:
    box = "".join(f"<{key}>{edge}</{key}>" for key, edge in zip(VOC_EDGES, edges, strict=False))
    return f"<object>{name}<bndbox>{box}</bndbox></object>"


VOC_EDGES = ("xmin", "ymin", "xmax", "ymax")
REFUSED: dict[str, list[tuple[Any, str]]] = {
    "cvat": [
        (f'<box label="car" rotation="nan" {EDGES}/>', "the rotation nan should be degrees"),
        (f'<box label="car" rotation="1e308" {EDGES}/>', "should be degrees"),
        (f'<box label="car" rotation="thirty" {EDGES}/>', "could not convert"),
        ('<box label="car" rotation="30" xtl="nan" ytl="2" xbr="3" ybr="4"/>', "not of this form"),
        ('<box label="car" rotation="30" xtl="1" ytl="2" xbr="1e309" ybr="4"/>', "not of this"),
        ('<box label="car" rotation="30" xtl="3" ytl="2" xbr="1" ybr="4"/>', "before it begins"),
        ('<polygon label="car" points="1,2;3,4"/>', "a polygon of 4 numbers"),
        ('<polygon label="car" points="1,2;3,nan;5,6"/>', "a polygon should be a list"),
        ('<polygon label="car" points="1;2;3"/>', "not enough values"),
        ('<polygon label="car"/>', "no 'points'"),
        ('<polygon label="car" points="100,100;120,100;120,120"/>', "the polygon is outside"),
        ('<mask label="car" rle="0, 4" left="3" top="0" width="2"/>', "no 'height'"),
        ('<mask label="car" left="3" top="0" width="nan" height="2"/>', "bbox"),
        (f'<box label="object" {EDGES}/>', "has no phrase"),
        ('<box label="car" xtl="1" ytl="2" xbr="0" ybr="4"/>', "ends before it begins"),
        ('<box label="car" xtl="x" ytl="2" xbr="1" ybr="4"/>', "is not of this format"),
        ('<box label="car" xtl="1"/>', "no 'ytl' in it"),
        (f'{CVAT_TAG}<attribute name="status">y</attribute></tag>', "status 'y'"),
    ],
    "label-studio": [
        (part({"rotation": "12"}), "should be degrees"),
        (part({"rotation": [12]}), "should be degrees"),
        (part({"rotation": 1e308}), "should be degrees"),
        (part({"rotation": 10**400}), "should be degrees"),
        (part({"x": "12"}), "not of this format"),
        (part({"height": None}), "not of this format"),
        (part({"x": 1e308, "width": 1e308}), "not of this format"),
        (polygon([1, 2], [3, 4]), "a polygon of 4 numbers"),
        (polygon([1, 2], [3, None], [3, 4]), "a value is missing, or of another type"),
        (polygon([200, 200], [300, 200], [300, 300]), "the polygon is outside"),
        (part({}, image_rotation=90), "region r1 is of a rotated picture"),
        (part({"rectanglelabels": ["object"]}, id="r2"), "region r2 has no phrase"),
        (part({"width": -1}), "ends before it begins"),
        (part({}, item_index=1), "a task of several pages"),
        (part({}, original_width="64"), "is not of this format"),
        (part({}, score=7), "score 7 is not between"),
        ({"id": "r1"}, "no 'type' in it"),
    ],
    "yolo": [
        ("0 .5 .5 1 1 7 1 1", "a.txt, line 1: has 8 fields"),
        ("3 .5 .5 1 1", "a.txt, line 1: class '3' is not one of the 3 names"),
        ("0.5 .5 .5 1 1", "a.txt, line 1: class '0.5' is not one of the 3 names"),
        ("0 .5 .5 1 x", "a.txt, line 1: 'x' is not a number"),
    ],
    "yolo-obb": [
        ("0 0.5 0.5 0.2 0.2", "has 5 fields, a YOLO-OBB label has 9 or 10"),
        ("0 .1 .1 .3 .1 .3 .3 .2 .4 .1 .3", "has 11 fields"),
        ("0 .1 .1 .3 .1 nan .3 .1 .3", "'nan' is not a number"),
        ("0 .1 .1 .3 .1 1e308 .3 .1 .3", "1e308 .3 .1 .3 should be parts of the image"),
        ("0 124 37 372 37 372 112 124 112", "124 112 should be parts"),
        ("7 .1 .1 .3 .1 .3 .3 .1 .3", "class '7' is not one of the 3 names"),
        ("0 .1 .1 .2 .2 .3 .3 .4 .4", "its four corners are on one line"),
        ("0 1.2 .1 1.4 .1 1.4 .3 1.2 .3", "the polygon is outside of its picture"),
    ],
    "dota": [
        ("10 20 60 40 ship 0", "has 6 fields, a DOTA label has 9 or 10"),
        ("10 20 60 20 60 40 10 40 ship 0 1", "has 11 fields"),
        ("10 20 nan 20 60 40 10 40 ship 0", "'nan' is not a number"),
        ("10 20 60 20 60 40 10 40 ship hard", "'ship hard', and should end with a category"),
        ("0 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3", "should end with a category"),  # as many fields
        ("10 20 20 25 30 30 40 35 ship 0", "its four corners are on one line"),
        ("1e308 20 1.7e308 20 1.7e308 40 1e308 40 ship 0", "outside of its picture"),
    ],
    "labelme": [
        (shape("", [1, 2], [3, 4]), "a box without a label"),
        (shape("cup"), r"a.json, shape 1: is not of this format \(a shape without points"),
        (shape("cup", ["x", 1]), "a.json, shape 1"),
    ],
    "voc": [
        ("<object><name>a</name><bndbox/></object>", "is not of this format"),
        (voc("", 1, 2, 3, 4), "an object without a name"),
        (voc("<name>a</name>", 9, 2, 3, 4), "ends before it begins"),
    ],
}
CASES = [(format, entry, why) for format, rows in REFUSED.items() for entry, why in rows]


@pytest.mark.parametrize(("format", "entry", "why"), CASES)
def test_an_entry_of_no_use_is_refused(format: str, entry: Any, why: str, tmp_path: Path) -> None:
    entries = [entry, TEXT] if format == "label-studio" else [entry]
    path = labelled(tmp_path, format, [Labelled("a.png", entries)], classes=["cup", "a", "b"])
    with pytest.raises(InputError, match=why) as error:
        list(read(str(path), format))
    assert str(path) in str(error.value)
    number = 3 if format == "dota" else 1  # after its head
    assert f" {number}" in str(error.value)


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
LINE = {"filename": "a.jpg"}
TWO_IMAGES = [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]
TWO_CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 7, "name": "dog"}]
FILES: dict[str, list[tuple[Any, str]]] = {
    "x.json coco": [
        ("[]", "not a COCO file"),
        ("{}", "not a COCO file"),
        ('{"images": {}, "annotations": []}', "not a COCO file"),
        ('{"images": [], "annotations": [{"id": 1]}', "is not JSON"),
        ('{"images": [], "annotations": []', "is not JSON"),
        (
            '{"images": [], "annotations": []} x',
            "is not JSON, in .*: parse error: trailing garbage",
        ),
        ('{"images": [], 7: [], "annotations": []}', "is not JSON"),
        ('{"annotations": ' + "[" * 100_000, "nested too deeply"),
        ({"images": TWO_IMAGES, "annotations": []}, "two images have the id 1"),
        (
            {"images": [], "annotations": [], "categories": TWO_CATEGORIES},
            "two categories have the id 7",
        ),
        *(
            (
                {"images": [{"id": 1, "file_name": "a", "width": side, "height": 48}]}
                | {"annotations": []},
                "width and height should be whole numbers of pixels",
            )
            for side in ("wide", 640.5, True)
        ),
    ],
    "x.xml cvat": [
        (f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]><annotations>&l9;</annotations>', "a DOCTYPE"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotations/>', "has a DOCTYPE"),
        ("<annotations><image></annotations>", "is not XML"),
        ("<annotations></annotations>", "has no <image>"),
        ('<annotations><image name="a.png"/></annotations>', "no 'width'"),
        ("<annotations><track/></annotations>", "a <track>"),
    ],
    "x.xml voc": [
        ("<annotations><image/></annotations>", "is a <annotations>"),
        ("<annotation>", "is not XML"),
        ("<!DOCTYPE x [<!ENTITY l 'ha'>]><annotation>&l;</annotation>", "DOCTYPE"),
    ],
    "x.json labelme": [
        ("{", "is not JSON"),
        ("[]", "is not of this format"),
        ('{"shapes": []}', "no 'imagePath' in it"),
    ],
    "x.jsonl odvg": [
        ([[]], "x.jsonl, line 1"),
        ("{", "x.jsonl, line 1"),
        ([{}], "x.jsonl, line 1"),
        ([LINE], "x.jsonl, line 1"),
        ([{"filename": 7, "grounding": {"regions": [{}]}}], "x.jsonl, line 1"),
        ("\x00", "x.jsonl is in UTF-16"),
    ],
    "a.parquet datasets": [("PAR1", "is not a Parquet file")],
    "a.tar webdataset": [("no tar", "is not a tar file")],
    "a.txt datasets": [("", "has no files that end in .parquet")],
}
FILE_CASES = [(name, content, why) for name, rows in FILES.items() for content, why in rows]


@pytest.mark.parametrize(("name", "content", "why"), FILE_CASES)
def test_a_file_that_is_none_of_its_format_is_refused(
    name: str, content: Any, why: str, tmp_path: Path
) -> None:
    file, _, format = name.partition(" ")
    path = saved(tmp_path / file, content)
    given = tmp_path if format == "voc" or file == "a.txt" else path
    with pytest.raises(InputError, match=why) as error:
        list(read(str(given), format))
    assert str(given) in str(error.value)
