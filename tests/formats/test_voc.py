"""Pascal VOC: files of the devkit and of other tools, and what a trainer's own reader makes of ours."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.formats import find_format, read, write
from tests.formats.data import draw, exported, hostile, record, records_of, succeeds, told
from tests.support.labelled import saved

# The first picture of VOC 2007, but for the address of its owner.
DEVKIT = """\
<annotation>
	<folder>VOC2007</folder>
	<filename>000001.jpg</filename>
	<source>
		<database>The VOC2007 Database</database>
		<annotation>PASCAL VOC2007</annotation>
		<image>flickr</image>
		<flickrid>341012865</flickrid>
	</source>
	<size>
		<width>353</width>
		<height>500</height>
		<depth>3</depth>
	</size>
	<segmented>0</segmented>
	<object>
		<name>dog</name>
		<pose>Left</pose>
		<truncated>1</truncated>
		<difficult>0</difficult>
		<bndbox>
			<xmin>48</xmin>
			<ymin>240</ymin>
			<xmax>195</xmax>
			<ymax>371</ymax>
		</bndbox>
	</object>
	<object>
		<name>person</name>
		<pose>Left</pose>
		<truncated>1</truncated>
		<difficult>1</difficult>
		<bndbox>
			<xmin>1</xmin>
			<ymin>12</ymin>
			<xmax>353</xmax>
			<ymax>498</ymax>
		</bndbox>
		<part>
			<name>head</name>
			<bndbox>
				<xmin>9</xmin>
				<ymin>20</ymin>
				<xmax>99</xmax>
				<ymax>120</ymax>
			</bndbox>
		</part>
	</object>
</annotation>
"""
LABELIMG = """\
<annotation verified="yes">
	<folder>cups</folder>
	<filename>cup 1</filename>
	<path>C:\\Users\\me\\cups\\cup 1.jpg</path>
	<source>
		<database>Unknown</database>
	</source>
	<segmented>0</segmented>
	<object>
		<name>Red Cup</name>
		<pose>Unspecified</pose>
		<truncated>0</truncated>
		<difficult>0</difficult>
		<bndbox>
			<xmin>10</xmin>
			<ymin>20</ymin>
			<xmax>30</xmax>
			<ymax>40</ymax>
		</bndbox>
	</object>
	<object>
		<name>tilted</name>
		<robndbox>
			<cx>1</cx>
		</robndbox>
	</object>
</annotation>
"""


def devkit(folder: Path) -> Path:
    """A folder as VOC's, with its picture in JPEGImages."""
    saved(folder / "Annotations" / "000001.xml", DEVKIT)
    draw(folder, [{"image_path": "JPEGImages/000001.jpg", "width": 353, "height": 500}])
    return folder


def labelimg(folder: Path) -> Path:
    """A folder as LabelImg leaves it: pictures and files side by side."""
    saved(folder / "cup 1.xml", LABELIMG)
    draw(folder, [{"image_path": "cup 1.jpg", "width": 64, "height": 48}])
    return folder


def boxes(row: dict[str, Any]) -> list[tuple[str, list[float]]]:
    return [
        (expression["class"], instance["bbox"])
        for expression in row["expressions"]
        for instance in expression["instances"]
    ]


@pytest.mark.parametrize("named", ["", "Annotations", "Annotations/000001.xml"])
def test_the_devkits_pixels_are_counted_from_1(tmp_path: Path, named: str) -> None:
    source = devkit(tmp_path / "VOC2007")
    (row,) = read(str(source / named), "voc")
    assert boxes(row) == [("dog", [47, 239, 195, 371]), ("person", [0, 11, 353, 498])]
    assert (row["width"], row["height"]) == (353, 500)
    top = source if named != "Annotations/000001.xml" else source / "Annotations"
    places = (top / named / row["image_path"], top / row["image_path"])
    assert any(place.resolve().is_file() for place in places)


def test_labelimgs_edges_are_counted_from_0(tmp_path: Path) -> None:
    """The file name lacks its ending, and the size is missing."""
    source = labelimg(tmp_path / "cups")
    made = find_format("voc")
    (row,) = read(str(source), made)
    assert boxes(row) == [("Red Cup", [10, 20, 30, 40])]
    assert (row["image_path"], row["expressions"][0]["text"]) == ("cup 1.jpg", "Red Cup")
    assert +made.passed_over == {"objects without a bndbox": 1}
    (row,) = read(str(source), "voc", offset=1)
    assert boxes(row) == [("Red Cup", [9, 19, 30, 40])]
    succeeds("import", source, "--format", "voc", "-o", tmp_path / "results")
    (row,) = records_of(tmp_path / "results")
    assert (row["width"], row["height"]) == (64, 48)


def test_what_a_record_has_no_place_for_is_counted(tmp_path: Path) -> None:
    said = told("import", devkit(tmp_path / "a"), "--format", "voc", "-o", tmp_path / "results")
    for name in ("pose", "truncated"):
        assert f"values of '{name}' (" in said


def yolo_of(file: Path) -> list[tuple[str, tuple[float, ...]]]:
    """What ultralytics makes of a file: the function in its VOC.yaml, with the names of classes."""
    root = ET.parse(file).getroot()
    size: Any = root.find("size")
    width, height = int(size.find("width").text), int(size.find("height").text)
    found = []
    each: Any
    for each in root.iter("object"):
        if int(each.find("difficult").text) == 1:
            continue
        x1, x2, y1, y2 = (
            float(each.find("bndbox").find(edge).text) for edge in ("xmin", "xmax", "ymin", "ymax")
        )
        centre = ((x1 + x2) / 2.0 - 1) / width, ((y1 + y2) / 2.0 - 1) / height
        found.append((each.find("name").text, (*centre, (x2 - x1) / width, (y2 - y1) / height)))
    return found


def test_a_trainers_reader(tmp_path: Path) -> None:
    out = exported(tmp_path, "voc", list(hostile())) / "Annotations"
    assert yolo_of(out / "empty.xml") == []
    (first, second) = yolo_of(out / "a b" / "ü x.xml")
    assert (first[0], second[0]) == ("a red mug", "a red mug")
    # a box of whole pixels; the reader takes a pixel off its sides, as for the devkit's files
    assert second[1] == ((75 / 2 - 1) / 64, (54 / 2 - 1) / 48, 53 / 64, 42 / 48)


def test_records_of_one_picture_are_one_file(tmp_path: Path) -> None:
    box = [{"bbox": [1, 2, 30, 40], "score": None}]
    rows = [
        record("a.png", (64, 48), [{"text": text, "instances": box}], image_id=text)
        for text in ("a mug", "a dog")
    ]
    (row,) = read(str(exported(tmp_path, "voc", rows)), "voc")
    assert boxes(row) == [("a mug", [1, 2, 30, 40]), ("a dog", [1, 2, 30, 40])]


def test_a_name_with_several_dots_loses_its_ending_alone(tmp_path: Path) -> None:
    """v1.2.png and v1.3.png would both have been v1.xml, which was refused."""
    mug = {"text": "mug", "instances": [{"bbox": [1, 2, 30, 40], "score": None}]}
    rows = [record(name, (64, 48), [dict(mug)]) for name in ("v1.2.png", "v1.3.png")]
    write(rows, "voc", str(tmp_path / "out"), images="reference")
    names = [path.name for path in sorted((tmp_path / "out" / "Annotations").iterdir())]
    assert names == ["v1.2.xml", "v1.3.xml"]
