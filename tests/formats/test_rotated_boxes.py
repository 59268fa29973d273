"""Rotated boxes come in as the outlines of their boxes, and go out as the rotated boxes they were."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image
import pytest

from dataflow_grounding.formats.samples import Exported
from tests.formats.data import parts_of
from tests.formats.place import Place
from tests.support.labelled import Box, Labelled, labelled, region, saved

SIZES = [(64, 48), (1242, 375), (300, 900), (37, 1200), (2000, 1999)]
CLASSES = ("ship", "plane", "large vehicle")
FORMATS = ("label-studio", "cvat", "labelme", "yolo-obb", "dota")
COUNTED = "rotated boxes, of which the upright box around and the corners are read"
IN_PLACE = ("--images", "reference")
DIGITS = 0.01  # px: LS, YOLO-OBB and DOTA come far closer

Corners = list[float]


class Turned(NamedTuple):
    """A region as a person draws it: an upright box, turned about its middle."""

    picture: str
    size: tuple[int, int]
    label: str
    x: float
    y: float
    width: float
    height: float
    degrees: float

    @property
    def drawn(self) -> Box:
        x, y = self.x - self.width / 2, self.y - self.height / 2
        return Box(self.label, x, y, x + self.width, y + self.height, self.degrees)

    @property
    def corners(self) -> Corners:
        return self.drawn.corners

    @property
    def box(self) -> list[float]:
        xs, ys = self.corners[::2], self.corners[1::2]
        return [min(xs), min(ys), max(xs), max(ys)]


def regions(count: int) -> list[Turned]:
    """Regions of any angle, of which corners may be outside of their picture."""
    draw = random.Random(79)
    made = []
    while len(made) < count:
        number = len(made) % 20
        width, height = SIZES[number % len(SIZES)]
        one = Turned(
            f"p{number:02}.png",
            (width, height),
            draw.choice(CLASSES),
            draw.uniform(0, width),
            draw.uniform(0, height),
            draw.uniform(2, width / 2),
            draw.uniform(2, height / 2),
            draw.choice([draw.uniform(0, 360), draw.uniform(0, 1), 90.0, 180.0, 270.0]),
        )
        x1, y1, x2, y2 = one.box
        is_of_trainers = 0 <= x1 + x2 <= 2 * width and 0 <= y1 + y2 <= 2 * height
        if is_of_trainers and x2 - x1 <= width and y2 - y1 <= height:
            made.append(one)
    return made


def by_picture(made: Sequence[Turned]) -> Iterator[tuple[str, tuple[int, int], list[Turned]]]:
    for name in sorted({one.picture for one in made}):
        of_picture = [one for one in made if one.picture == name]
        yield name, of_picture[0].size, of_picture


def source_of(place: Place, format: str, *made: Turned) -> Path:
    """The regions as a tool writes them, without the pictures."""
    pictures = [
        Labelled(name, [one.drawn for one in of_picture], size)
        for name, size, of_picture in by_picture(made)
    ]
    return labelled(place.folder / "in", format, pictures, classes=CLASSES, drawn=False)


def content_of(path: Path) -> Any:
    if path.is_dir():
        files = [*path.glob("label*/*.txt"), *path.rglob("*.json")]
        return {each.name: each.read_text() for each in files}
    if path.suffix == ".json":
        return json.loads(path.read_text())
    return parts_of(path.read_text())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(20):
        size = SIZES[number % len(SIZES)]
        PIL.Image.new("L", size, number).save(folder / f"p{number:02}.png")
    return folder


@pytest.fixture
def place(tmp_path: Path, pictures: Path) -> Place:
    return Place(tmp_path, pictures)


def instances_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [box for expression in record["expressions"] for box in expression["instances"]]


def boxes_in(place: Place, format: str, source: Path | None = None) -> list[dict[str, Any]]:
    return [box for row in place.rows(format, source) for box in instances_of(row)]


def outlines_in(place: Place, format: str, source: Path | None = None) -> list[Corners | None]:
    return [box.get("outline") for box in boxes_in(place, format, source)]


# There and back


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_regions_come_in_as_outlines_and_go_back_as_they_were(format: str, place: Place) -> None:
    made = regions(100)
    source = source_of(place, format, *made)
    left_out = place.imported(source, format)["left_out"]
    known = {"label-studio": {COUNTED: 100}, "cvat": {COUNTED: 100}}
    assert left_out == (known | {"dota": {"values of 'difficult'": 100}}).get(format, {})
    found = 0
    for record, (name, _, of_picture) in zip(place.records(), by_picture(made), strict=True):
        assert record["image_path"] == name
        for expression in record["expressions"]:
            label = expression["text"].replace("-", " ")
            of_label = [one for one in of_picture if one.label == label]
            for box, one in zip(expression["instances"], of_label, strict=True):
                assert box["outline"] == pytest.approx(one.corners, abs=DIGITS)
                assert box["bbox"] == pytest.approx(one.box, abs=DIGITS)
                found += 1
    assert found == 100
    lost = place.exported(format, *IN_PLACE)["lost"]
    assert not {what for what in lost if "outline" in what or "box" in what}
    if format in ("dota", "yolo-obb"):  # they are written new
        corners = [box["outline"] for record in place.records() for box in instances_of(record)]
        again = [box["outline"] for box in boxes_in(place, format)]
        for one, other in zip(again, corners, strict=True):
            assert one == pytest.approx(other, abs=DIGITS)
        return
    out = place.out if source.is_dir() else place.out / source.name
    assert content_of(out) == content_of(source)


@pytest.mark.slow
def test_supervision_reads_the_corners_of_yolo_obb(place: Place) -> None:
    import supervision

    made = regions(40)
    source = source_of(place, "label-studio", *made)
    place.imported(source, "label-studio")
    place.exported("yolo-obb")
    folders = [str(place.out / name) for name in ("images", "labels", "data.yaml")]
    dataset = supervision.DetectionDataset.from_yolo(*folders, is_obb=True)
    found = 0
    for path, _, detections in dataset:
        for corners, number in zip(detections.data["xyxyxyxy"], detections.class_id, strict=True):
            label = dataset.classes[number]
            of_picture = [
                one for one in made if (one.picture, one.label) == (Path(path).name, label)
            ]
            distances = [max(abs(corners.flatten() - one.corners)) for one in of_picture]
            assert min(distances) < DIGITS
            found += 1
    assert found == 40


# What becomes of boxes that are moved

SHIP = Turned("p01.png", SIZES[1], "ship", 400, 200, 120.5, 40.25, 30)


def moved(place: Place, change: Callable[[dict[str, Any]], None]) -> None:
    record = next(row for row in place.records() if row["expressions"])
    change(instances_of(record)[0])
    place.change(record)


def shift(box: dict[str, Any]) -> None:
    box["bbox"] = [edge + 10 for edge in box["bbox"]]
    box["outline"] = [number + 10 for number in box["outline"]]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_box_that_was_shifted_goes_back_as_a_rotated_one(format: str, place: Place) -> None:
    place.imported(source_of(place, format, SHIP), format)
    moved(place, shift)
    place.exported(format, *IN_PLACE)
    (outline,) = outlines_in(place, format)
    assert outline == pytest.approx([number + 10 for number in SHIP.corners], abs=DIGITS)
    if format == "label-studio":
        (part,) = first_result(place.out)
        assert part["type"] == "rectanglelabels"
        assert part["value"]["rotation"] == pytest.approx(30, abs=1e-3)


def first_result(out: Path) -> list[dict[str, Any]]:
    (task, *_) = json.loads((out / "tasks.json").read_text())
    result: list[dict[str, Any]] = (task.get("annotations") or task["predictions"])[0]["result"]
    return result


@pytest.mark.parametrize("format", FORMATS)
def test_a_box_that_is_another_one_goes_back_upright(format: str, place: Place) -> None:
    place.imported(source_of(place, format, SHIP), format)
    moved(place, lambda box: box.update(bbox=[340, 150, 470, 250]))
    facts = place.exported(format, *IN_PLACE)
    assert facts["lost"]["outlines that don't fit their box"] == 1
    (box,) = boxes_in(place, format)
    assert box["bbox"] == pytest.approx([340, 150, 470, 250], abs=1e-4)
    assert "outline" not in box
    text = "".join(path.read_text() for path in place.out.rglob("*.*") if path.suffix != ".md")
    assert "30" not in text if format == "cvat" else 'rotation": 30' not in text


@pytest.mark.parametrize("format", FORMATS)
def test_an_upright_box_with_an_outline_goes_back_rotated(format: str, place: Place) -> None:
    x1, y1, x2, y2 = SHIP.box
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    upright = SHIP._replace(x=middle[0], y=middle[1], width=x2 - x1, height=y2 - y1, degrees=0)
    facts = place.imported(source_of(place, format, upright), format)
    assert facts["left_out"] == ({"values of 'difficult'": 1} if format == "dota" else {})
    (row,) = [row for row in place.records() if row["expressions"]]
    assert "outline" not in instances_of(row)[0]
    moved(place, lambda box: box.update(outline=SHIP.corners))
    place.exported(format, *IN_PLACE)
    (outline,) = outlines_in(place, format)
    assert outline == pytest.approx(SHIP.corners, abs=DIGITS)


# Files that others wrote


def test_a_box_of_cvat_that_reaches_out_of_its_picture(tmp_path: Path) -> None:
    """As in datumaro's issue 1887: the middle and the sides stay, both ends are outside."""
    element = (
        '<box label="wit_norm" source="manual" occluded="0" xtl="172.17" ytl="-67.74" xbr="379.49"'
        ' ybr="1063.68" rotation="18.50" z_order="0">\n</box>'
    )
    image = '<image id="143" name="tile.png" width="1024" height="1024">'
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{image}{element}</image></annotations>'
    PIL.Image.new("L", (1024, 1024)).save(tmp_path / "tile.png")
    place = Place(tmp_path, pictures=tmp_path)
    place.imported(saved(tmp_path / "a.xml", text), "cvat")
    (box,) = instances_of(place.records()[0])
    width, height = 379.49 - 172.17, 1063.68 + 67.74
    middle = (172.17 + width / 2, -67.74 + height / 2)
    wanted = Turned("", (1024, 1024), "", *middle, width, height, 18.5)
    assert box["outline"] == pytest.approx(wanted.corners, abs=1e-5)
    place.exported("cvat", *IN_PLACE)
    assert (
        'ytl="-67.74" xbr="379.49" ybr="1063.68" rotation="18.50"'
        in (place.out / "annotations.xml").read_text()
    )
    # Ultralytics would leave this picture out: the upright box around is higher than it.
    facts = place.exported("yolo-obb", *IN_PLACE)
    assert [line for line in facts["remarks"] if "corners put to its edge: 1" in line]
    parts = [float(part) for part in (place.out / "labels" / "tile.txt").read_text().split()[1:]]
    cut = [min(max(number, 0), 1024) / 1024 for number in wanted.corners]
    assert parts == pytest.approx(cut, abs=1e-7)


# CVAT's exports to other formats have the box before its turn, and the turn as an attribute: cvat's
# issues 4745 and 6785, datumaro's VOC exporter.
X, Y = SHIP.x - SHIP.width / 2, SHIP.y - SHIP.height / 2
COCO_OF_CVAT = {
    "id": 1,
    "image_id": 1,
    "category_id": 1,
    "segmentation": [],
    "area": SHIP.width * SHIP.height,
    "bbox": [X, Y, SHIP.width, SHIP.height],
    "iscrowd": 0,
    "attributes": {"occluded": False, "rotation": SHIP.degrees},
}
VOC_OF_CVAT = f"""<annotation><filename>{SHIP.picture}</filename><source><database>Unknown</database></source>
<size><width>{SHIP.size[0]}</width><height>{SHIP.size[1]}</height></size>
<object><name>ship</name><occluded>0</occluded>
<bndbox><xmin>{X}</xmin><ymin>{Y}</ymin><xmax>{X + SHIP.width}</xmax><ymax>{Y + SHIP.height}</ymax></bndbox>
<attributes><attribute><name>rotation</name><value>{SHIP.degrees}</value></attribute></attributes>
</object></annotation>
"""


def of_cvat(format: str, folder: Path) -> Path:
    if format == "voc":
        return saved(folder / "p01.xml", VOC_OF_CVAT)
    picture = Labelled(SHIP.picture, [COCO_OF_CVAT], SHIP.size)
    return labelled(folder, "coco", [picture], classes=["ship"], drawn=False)


@pytest.mark.parametrize("format", ["coco", "voc"])
def test_a_rotated_box_that_cvat_exported_to_coco_or_voc(format: str, place: Place) -> None:
    facts = place.imported(of_cvat(format, place.folder), format)
    assert facts["left_out"][COUNTED] == 1
    (box,) = instances_of(place.records()[0])
    assert box["bbox"] == pytest.approx(SHIP.box, abs=1e-5)
    assert box["outline"] == pytest.approx(SHIP.corners, abs=1e-5)
    place.exported(format, *IN_PLACE)
    if format == "coco":
        out = json.loads((place.out / "annotations.json").read_text())
        assert out["annotations"] == [COCO_OF_CVAT]


def test_a_rotated_box_of_cvats_coco_that_was_shifted_is_a_rotated_one(place: Place) -> None:
    place.imported(of_cvat("coco", place.folder), "coco")
    moved(place, shift)
    place.exported("coco", *IN_PLACE)
    (annotation,) = json.loads((place.out / "annotations.json").read_text())["annotations"]
    assert annotation["bbox"] == pytest.approx([X + 10, Y + 10, SHIP.width, SHIP.height])
    assert annotation["attributes"] == {"occluded": False, "rotation": pytest.approx(30)}
    assert annotation["segmentation"] == []


@pytest.mark.parametrize("format", ["coco", "voc"])
def test_a_resized_box_of_cvat_is_turned_no_more(format: str, place: Place) -> None:
    place.imported(of_cvat(format, place.folder), format)
    moved(place, lambda box: box.update(bbox=[340, 150, 470, 250]))
    place.exported(format, *IN_PLACE)
    (box,) = boxes_in(place, format)
    assert (box["bbox"], "outline" in box) == ([340, 150, 470, 250], False)


@pytest.mark.parametrize(
    ("format", "written", "other"),
    [
        ("coco", "30}", '"left"}'),
        ("voc", ">30<", ">left<"),
        ("voc", ">30<", ">nan<"),
        ("voc", ">30<", "><"),
    ],
)
def test_a_rotation_not_of_cvat_turns_no_box(
    format: str, written: str, other: str, place: Place
) -> None:
    path = of_cvat(format, place.folder)
    assert written in path.read_text()
    saved(path, path.read_text().replace(written, other))
    (box,) = boxes_in(place, format, path)
    assert box["bbox"] == [X, Y, X + SHIP.width, Y + SHIP.height]
    assert "outline" not in box


OBB = {
    # docs.ultralytics.com/datasets/obb
    "of the docs": "0 0.780811 0.743961 0.782371 0.74686 0.777691 0.752174 0.776131 0.749758",
    "with a corner outside": "1 0.331000 0.019000 0.493000 0.260000 0.776000 0.070000 0.613000"
    " -0.171000",
    "of Roboflow": "0 0.19609375 0.4828125 0.20703125 0.51171875 0.1125 0.5515625 0.1 0.5203125",
    "upright": "2 0.1 0.1 0.5 0.1 0.5 0.4 0.1 0.4",
    "upright, as ultralytics writes it": "2 0.5 0.4 0.5 0.1 0.1 0.1 0.1 0.4",
    "a prediction": "0 0.3 0.3 0.4 0.4 0.3 0.5 0.2 0.4 0.87",
}


@pytest.mark.slow
def test_labels_of_ultralytics(place: Place) -> None:
    folder = source_of(place, "yolo-obb")
    (folder / "labels" / "p01.txt").write_text("".join(f"{line}\n" for line in OBB.values()))
    place.imported(folder, "yolo-obb")
    (row,) = [row for row in place.records() if row["expressions"]]
    outlines = [box.get("outline") for box in instances_of(row)]
    assert outlines.count(None) == 1  # of the upright one that begins at its top left corner
    first = [float(part) for part in OBB["of the docs"].split()[1:]]
    assert outlines[0] == pytest.approx([part * SIZES[1][i % 2] for i, part in enumerate(first)])
    scores = [box["score"] for box in instances_of(row)]
    assert sorted(filter(None, scores)) == [0.87]
    place.exported("yolo-obb", *IN_PLACE)
    assert len((place.out / "labels" / "p01.txt").read_text().splitlines()) == len(OBB) - 1
    names = '0: "ship"\n  1: "plane"\n  2: "large vehicle"\n'
    assert (place.out / "data.yaml").read_text().endswith(names)


# P0000.txt of DOTA v1.0, moved into a small picture; v2.0 has a third line on the whole picture
DOTA = """\
acquisition dates:2018-02-06
imagesource:GoogleEarth
gsd:0.146343590398
753 208 861 185 888 268 805 302 plane 0
445.0 91.0 484.0 109.0 478.0 122.0 437.0 102.0 large-vehicle 1
-3 74 9 72 12 88 -1 91 small-vehicle 2
630 174 628 166 640 154 644 166 storage-tank
"""


def test_labels_of_dota(place: Place) -> None:
    folder = source_of(place, "dota")
    (folder / "labelTxt" / "p01.txt").write_text(DOTA)
    (folder / "labelTxt" / "p02.txt").write_text("imagesource:GoogleEarth\ngsd:null\n")
    place.imported(folder, "dota")
    rows = place.records()
    (row,) = [row for row in rows if row["expressions"]]
    texts = [expression["text"] for expression in row["expressions"]]
    assert texts == ["plane", "large-vehicle", "small-vehicle", "storage-tank"]
    assert instances_of(row)[0]["outline"] == [753, 208, 861, 185, 888, 268, 805, 302]
    assert all(other["background"] for other in rows if other is not row)
    place.exported("dota", *IN_PLACE)
    assert len((place.out / "labelTxt" / "p01.txt").read_text().splitlines()) == 4
    assert (place.out / "labelTxt" / "p02.txt").read_text() == ""


def test_a_class_of_dota_is_a_word(place: Place) -> None:
    """Of another data set, its name is read from classes.yaml."""
    source = source_of(place, "label-studio", SHIP._replace(label="large vehicle"))
    place.imported(source, "label-studio")
    place.exported("dota", *IN_PLACE)
    line = (place.out / "labelTxt" / "p01.txt").read_text()
    corners = " ".join(f"{number:.3f}" for number in SHIP.corners)
    assert line == f"{corners} large-vehicle 0\n"
    texts = [one["text"] for row in place.rows("dota") for one in row["expressions"]]
    assert texts == ["large vehicle"]


# What isn't a rotated box


def rows_with(*instances: dict[str, Any]) -> list[dict[str, Any]]:
    phrase = {"text": "ship", "class": "ship", "instances": [*instances]}
    size = {"width": SIZES[1][0], "height": SIZES[1][1]}
    return [{"image_path": "p01.png", **size, "caption": None, "expressions": [phrase]}]


def written(place: Place, format: str, *instances: dict[str, Any], **options: Any) -> Exported:
    """What an export says of one ship with these boxes."""
    return place.written(*rows_with(*instances), format=format, images="reference", **options)


@pytest.mark.parametrize("format", ["yolo-obb", "dota"])
def test_of_a_polygon_the_smallest_rectangle_is_written(format: str, place: Place) -> None:
    """A diamond with its tip cut off."""
    outline = [100, 50, 190, 140, 190, 160, 100, 250, 0, 150]
    instance = {"bbox": [0, 50, 190, 250], "outline": outline}
    done = written(place, format, instance)
    assert [*done.lost] == [
        "outlines of other than four corners, written as the smallest rectangles around them"
    ]
    (box,) = boxes_in(place, format)
    corners = {*zip(box["outline"][::2], box["outline"][1::2], strict=True)}
    for corner in ((100, 50), (200, 150), (100, 250), (0, 150)):
        assert min(math.dist(corner, other) for other in corners) < DIGITS
    with pytest.raises(Exception, match="smallest rectangles"):
        written(place, format, instance, strict=True)


@pytest.mark.parametrize("format", ["yolo-obb", "dota"])
@pytest.mark.parametrize(
    ("instance", "lost"),
    [
        ({"bbox": [10, 20, 60, 70]}, []),
        (
            {"bbox": [0, 0, 60, 70], "outline": [10, 20, 60, 25, 58, 70, 8, 65]},
            ["outlines of another size than their box, of which the upright box is written"],
        ),
    ],
)
def test_other_boxes_are_written_upright(
    instance: Any, lost: list[str], format: str, place: Place
) -> None:
    """Trainers would take an outline for all of its box, which may have a hidden part."""
    done = written(place, format, instance)
    assert [*done.lost] == lost
    (box,) = boxes_in(place, format)
    assert box["bbox"] == pytest.approx(instance["bbox"], abs=1e-5)
    assert "outline" not in box


@pytest.mark.parametrize("format", ["cvat", "label-studio"])
@pytest.mark.parametrize(
    "outline",
    [
        [10, 20, 60, 20, 60, 70, 10, 70],  # an upright rectangle: its outline is no rotated box
        [10, 40, 40, 20, 60, 40, 30, 70],
        [10, 20, 60, 20, 60, 70],
    ],
)
def test_other_outlines_stay_polygons_in_labelling_tools(
    outline: Corners, format: str, place: Place
) -> None:
    written(place, format, {"bbox": [10, 20, 60, 70], "outline": outline})
    assert outlines_in(place, format) == [pytest.approx(outline)]
    text = "".join(path.read_text() for path in place.out.glob("*.*"))
    assert "polygon" in text


def test_a_rotated_box_of_another_format_is_no_polygon_of_label_studio(place: Place) -> None:
    written(place, "label-studio", {"bbox": SHIP.box, "outline": SHIP.corners})
    (outline,) = outlines_in(place, "label-studio")
    assert outline == pytest.approx(SHIP.corners, abs=DIGITS)
    for name in ("tasks.json", "labels.xml"):
        assert "polygon" not in (place.out / name).read_text().lower()


def test_further_records_of_a_picture_are_added_to_its_label_file(place: Place) -> None:
    ship = {"bbox": SHIP.box, "outline": SHIP.corners}
    rows = rows_with(ship) + rows_with({"bbox": [10, 20, 60, 70]})
    place.written(*rows, format="yolo-obb", images="reference")
    lines = (place.out / "labels" / "p01.txt").read_text().splitlines()
    assert [len(line.split()) for line in lines] == [9, 9]


# Hostile values


def turned_region(folder: Path, **value: Any) -> Path:
    """Two regions of Label Studio, of which the first has these values."""
    area = {"x": 20, "y": 20, "width": 20, "height": 10, "rotation": 30, **value}
    good = {"x": 1, "y": 1, "width": 9, "height": 9, "rotation": 0}
    regions = [region("ship", area, SIZES[1]), region("ship", good, SIZES[1], id="good")]
    return labelled(folder, "label-studio", [Labelled("p01.png", regions)], drawn=False)


@pytest.mark.parametrize(
    ("stated", "degrees"), [(-30, -30), (359.999, 359.999), (1e-7, 1e-7), (390, 30), (-330, 30)]
)
@pytest.mark.parametrize("format", ["label-studio", "cvat"])
def test_any_degrees_are_those_of_a_turn(
    stated: float, degrees: float, format: str, place: Place
) -> None:
    source = source_of(place, format, SHIP._replace(degrees=stated))
    (outline,) = outlines_in(place, format, source)
    assert outline == pytest.approx(SHIP._replace(degrees=degrees).corners, abs=1e-5)


@pytest.mark.parametrize("degrees", [0, 360, -360, 0.0, None])
def test_a_box_that_is_not_turned_has_no_outline(degrees: Any, place: Place) -> None:
    path = turned_region(place.folder, rotation=degrees)
    assert outlines_in(place, "label-studio", path) == [None, None]


def test_a_turned_line_is_a_box_without_an_area(place: Place) -> None:
    path = turned_region(place.folder, width=0)
    left_out = place.imported(path, "label-studio")["left_out"]
    assert left_out["boxes without an area"] == 1


GOOD = {"yolo-obb": "0 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3", "dota": "10 20 60 25 58 70 8 65 ship 0"}


def label_file(format: str, folder: Path, *lines: str) -> Path:
    """A data set with these lines about one picture, after one that is right."""
    picture = Labelled("p01.png", [GOOD[format], *lines], SIZES[1])
    return labelled(folder, format, [picture], classes=CLASSES, drawn=False)


@pytest.mark.parametrize(
    ("format", "line"),
    [
        ("dota", "5 5 5 5 5 5 5 5 ship 0"),
        ("dota", "5 5 9 5 9 5 5 5 ship 0"),
        ("yolo-obb", "0 .5 .1 .5 .1 .5 .3 .5 .3"),
    ],
)
def test_a_rotated_box_without_an_area_is_counted(format: str, line: str, place: Place) -> None:
    """DOTA's labels have some, and the picture's other boxes are right."""
    folder = label_file(format, place.folder / "in", line)
    facts = place.imported(folder, format)
    assert (facts["left_out"]["boxes without an area"], facts["bad"]["count"]) == (1, 0)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("far", [1e200, 1e308])
def test_outlines_far_outside_are_no_rotated_boxes(far: float, format: str, place: Place) -> None:
    outline = [-far, 0, far, 0, far, 1 / far, -far, 1 / far]
    wide = {"bbox": [-far, 0, far, 300], "outline": outline}
    done = written(place, format, wide, {"bbox": [10, 20, 60, 70]})
    assert done.written["boxes"] == 2
    assert outlines_in(place, format) == [None, None]
