"""Labels that were drawn on pictures as they are stored: read upright, and written back.

Pictures are JPEGs with each of EXIF's eight orientations. A red rectangle is drawn where the label
says; Pillow's own `exif_transpose` tells where it is in the upright picture.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageOps
import pytest
from faster_coco_eval.core import mask as coco_mask

from tests.formats.data import command, runs, succeeds

Box = tuple[float, float, float, float]
SIZES = {"wide": (64, 48), "tall": (48, 64)}
BOX: Box = (10, 6, 34, 20)  # in each picture as it is stored; not in the middle of anything
# Numbers that subtracting from a side, and back, changes in binary; the last are of a detector.
FINE: Box = (10.1, 6.3, 34.123456789012344, 20.700000000000003)


class Labelled(NamedTuple):
    """A picture and its label: the sizes that the label's file states, and its box."""

    name: str
    size: tuple[int, int]
    box: Box


def pictures(folder: Path, box: Box = BOX) -> list[Labelled]:
    """Sixteen pictures, one for each orientation and form, with a red rectangle at the box."""
    folder.mkdir(parents=True, exist_ok=True)
    labelled = []
    for form, size in SIZES.items():
        for orientation in range(1, 9):
            name = f"{form}_{orientation}.jpg"
            picture = PIL.Image.new("RGB", size, "black")
            x1, y1, x2, y2 = map(round, box)
            PIL.ImageDraw.Draw(picture).rectangle((x1, y1, x2 - 1, y2 - 1), "#ff0000")
            exif = PIL.Image.Exif()
            exif[0x0112] = orientation
            picture.save(folder / name, exif=exif, quality=100, subsampling=0)
            labelled.append(Labelled(name, size, box))
    return labelled


def red_box(path: Path) -> tuple[tuple[int, int], list[int]]:
    """The size of a picture that Pillow has turned upright, and where it is red."""
    with PIL.Image.open(path) as stored:
        upright = PIL.ImageOps.exif_transpose(stored)
    box = upright.getchannel("R").point(lambda value: 255 * (value > 127)).getbbox()
    assert box is not None
    return upright.size, list(box)


# The label files of formats, as other tools write them.


def coco(folder: Path, labelled: list[Labelled]) -> Path:
    images = []
    annotations = []
    for number, (name, (width, height), (x1, y1, x2, y2)) in enumerate(labelled, 1):
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        outline = [[x1, y1, x2, y1, x2, y2]]
        box = [x1, y1, x2 - x1, y2 - y1]
        facts = {"image_id": number, "category_id": 5, "bbox": box, "segmentation": outline}
        annotations.append({"id": 100 + number, "iscrowd": 0, "area": 1.5, **facts})
    data = {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "cup"}]}
    path = folder / "annotations.json"
    path.write_text(json.dumps(data), "utf-8")
    return path


def yolo(folder: Path, labelled: list[Labelled]) -> Path:
    (folder / "labels").mkdir()
    for name, (width, height), (x1, y1, x2, y2) in labelled:
        middle = f"{(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height}"
        sides = f"{(x2 - x1) / width} {(y2 - y1) / height}"
        label = folder / "labels" / name.replace(".jpg", ".txt")
        label.write_text(f"0 {middle} {sides}\n")
    (folder / "data.yaml").write_text("names: {0: cup}\n")
    return folder


def kitti(folder: Path, labelled: list[Labelled]) -> Path:
    (folder / "labels").mkdir()
    for name, _, box in labelled:
        corners = " ".join(map(str, box))
        label = folder / "labels" / name.replace(".jpg", ".txt")
        label.write_text(f"cup 0.00 0 0.00 {corners} 0 0 0 0 0 0 0\n")
    return folder


def voc(folder: Path, labelled: list[Labelled]) -> Path:
    (folder / "Annotations").mkdir()
    for name, (width, height), (x1, y1, x2, y2) in labelled:
        box = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        size = f"<width>{width}</width><height>{height}</height><depth>3</depth>"
        thing = f"<object><name>cup</name><bndbox>{box}</bndbox></object>"
        text = f"<filename>{name}</filename><size>{size}</size>{thing}"
        label = folder / "Annotations" / name.replace(".jpg", ".xml")
        label.write_text(f"<annotation>{text}</annotation>")
    return folder


def cvat(folder: Path, labelled: list[Labelled]) -> Path:
    images = []
    for number, (name, (width, height), (x1, y1, x2, y2)) in enumerate(labelled):
        corners = f'xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"'
        box = f'<box label="cup" source="manual" occluded="0" {corners} z_order="0"></box>'
        image = f'id="{number}" name="{name}" width="{width}" height="{height}"'
        images.append(f"<image {image}>{box}</image>")
    path = folder / "annotations.xml"
    path.write_text(f"<annotations><version>1.1</version>{''.join(images)}</annotations>")
    return path


def label_studio(folder: Path, labelled: list[Labelled]) -> Path:
    tasks = []
    for number, (name, (width, height), (x1, y1, x2, y2)) in enumerate(labelled):
        value = {"x": x1 / width * 100, "y": y1 / height * 100, "rotation": 0}
        value |= {"width": (x2 - x1) / width * 100, "height": (y2 - y1) / height * 100}
        facts = {"id": "r", "from_name": "label", "to_name": "image", "type": "rectanglelabels"}
        facts |= {"original_width": width, "original_height": height, "image_rotation": 0}
        region = {**facts, "value": {**value, "rectanglelabels": ["cup"]}}
        annotation = {"id": number, "result": [region]}
        tasks.append({"id": number, "data": {"image": name}, "annotations": [annotation]})
    path = folder / "tasks.json"
    path.write_text(json.dumps(tasks), "utf-8")
    return path


def labelme(folder: Path, labelled: list[Labelled]) -> Path:
    for name, (width, height), (x1, y1, x2, y2) in labelled:
        shapes: list[dict[str, Any]] = [
            {"label": "cup", "shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]},
            {"label": "quad", "shape_type": "polygon", "points": [[x1, y2], [x2, y1], [x2, y2]]},
        ]
        data = {"imagePath": name, "imageWidth": width, "imageHeight": height, "shapes": shapes}
        (folder / name.replace(".jpg", ".json")).write_text(json.dumps(data))
    return folder


def tao(folder: Path, labelled: list[Labelled]) -> Path:
    lines = []
    for name, (width, height), box in labelled:
        instance = {"bbox_id": "b", "bbox": box, "bbox_score": 0.5}
        thing = {"expression_id": "e", "text": "cup", "char_span": [0, 3], "instances": [instance]}
        row = {"image_id": name, "image_path": name, "width": width, "height": height}
        facts = {"caption": "cup", "cleaned_caption": "cup", "source": "image_grounding"}
        lines.append({**row, **facts, "expressions": [thing]})
    path = folder / "annotations.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


Writer = Callable[[Path, list[Labelled]], Path]
READ: dict[str, Writer] = {
    "coco": coco,
    "yolo": yolo,
    "kitti": kitti,
    "voc": voc,
    "cvat": cvat,
    "label-studio": label_studio,
    "labelme": labelme,
    "tao": tao,
}


def source_of(folder: Path, format: str, box: Box) -> Path:
    """Pictures and their labels in a format, in the frame of the stored pictures."""
    labelled = pictures(folder / "images", box)
    return READ[format](folder, labelled)


def imported(source: Path, format: str, out: Path, *more: object) -> list[dict[str, Any]]:
    folder = source if source.is_dir() else source.parent
    offset = ("--set", "offset=0") if format == "voc" else ()
    root = ("--image-root", folder / "images")
    if format in ("yolo", "kitti"):
        root = ()
    succeeds("import", source, "--format", format, "-o", out, *root, *offset, *more)
    return records_of(out)


def records_of(out: Path) -> list[dict[str, Any]]:
    lines = (out / "annotations.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("format", READ)
def test_boxes_are_turned_upright_with_their_pictures(tmp_path: Path, format: str) -> None:
    source = source_of(tmp_path / "data", format, BOX)
    records = imported(source, format, tmp_path / "results", "--frame", "stored")
    assert len(records) == 16
    for record in records:
        size, red = red_box(tmp_path / "data" / "images" / Path(record["image_path"]).name)
        assert (record["width"], record["height"]) == size
        for expression in record["expressions"]:
            [box] = [instance["bbox"] for instance in expression["instances"]]
            assert box == pytest.approx(red, abs=1e-9), record["image_path"]


def labels_in(folder: Path, format: str) -> Any:
    """What the label files of a folder say of boxes, letter by letter."""
    if format == "coco":
        return json.loads((folder / "annotations.json").read_text("utf-8"))["annotations"]
    if format == "cvat":
        text = (folder / "annotations.xml").read_text("utf-8")
        return re.findall(r"<(?:image|box) [^>]*>", text.replace('"images/', '"'))
    if format == "label-studio":
        tasks = json.loads((folder / "tasks.json").read_text("utf-8"))
        return [task["annotations"] for task in tasks]
    labels = folder / ("Annotations" if format == "voc" else "labels")
    text = {path.name: path.read_text("utf-8") for path in sorted(labels.iterdir())}
    return {name: re.findall(r"\d+\.?\d*", label) for name, label in text.items()}


@pytest.mark.parametrize("box", [BOX, FINE], ids=["whole", "fine"])
@pytest.mark.parametrize("format", ["coco", "yolo", "kitti", "voc", "cvat", "label-studio"])
def test_labels_and_pictures_come_back_to_the_last_digit(
    tmp_path: Path, format: str, box: Box
) -> None:
    data, back = tmp_path / "data", tmp_path / "back"
    imported(source_of(data, format, box), format, tmp_path / "results", "--frame", "stored")
    export = ("export", tmp_path / "results", "--format", format, "-o", back)
    succeeds(*export, "--frame", "stored")
    assert labels_in(back, format) == labels_in(data, format)
    for picture in (data / "images").iterdir():
        assert (back / "images" / picture.name).read_bytes() == picture.read_bytes()


@pytest.mark.parametrize("tenth", range(10))
def test_decimals_stay_short(tmp_path: Path, tenth: int) -> None:
    """48 - 6.3 is 41.7 upright, and nothing has to be kept for the way back."""
    box = (10 + tenth / 10, 6 + tenth / 10, 34.2, 20.3)
    source = source_of(tmp_path / "data", "coco", box)
    text = source.read_text("utf-8")
    source.write_text(re.sub(r"(\.\d)9{5,}\d*|(\.\d)0{5,}\d*", r"\1\2", text), "utf-8")
    for record in imported(source, "coco", tmp_path / "results", "--frame", "stored"):
        [instance] = record["expressions"][0]["instances"]
        assert "as_stored" not in instance
        assert [round(edge, 1) for edge in instance["bbox"]] == instance["bbox"]


def test_any_number_of_json_lines_comes_back(tmp_path: Path) -> None:
    """Numbers that no subtraction gives back, too, and outlines; the file keeps no source."""
    chance = random.Random(5)
    labelled = pictures(tmp_path / "data" / "images")
    shapes: dict[str, Any] = {}
    for index, (name, size, _) in enumerate(labelled):
        x1, y1 = chance.random() * size[0] / 2, chance.random() * 1e-7
        box = (x1, y1, size[0] / 2 + chance.random(), size[1] / 3 + chance.random())
        labelled[index] = Labelled(name, size, box)
        outline = [[x1, y1, box[2], y1, box[2], box[3], x1, box[3]], [x1, y1, *box[2:], x1, box[3]]]
        shapes[name] = {"bbox": [*box], "segmentation": outline, "quad": [[x1, 1], [2, 3.3]]}
    source = tao(tmp_path / "data", labelled)
    lines = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    for line in lines:
        line["expressions"][0]["instances"][0] |= shapes[line["image_path"]]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    imported(source, "tao", tmp_path / "results", "--frame", "stored")
    export = ("export", tmp_path / "results", "--format", "webdataset", "-o", tmp_path / "back")
    succeeds(*export, "--frame", "stored")
    again = ("import", tmp_path / "back", "--format", "webdataset", "-o", tmp_path / "again")
    succeeds(*again)
    upright = ("-o", tmp_path / "upright", "--frame", "stored")
    succeeds(*again[:-2], *upright)
    boxes = [record["expressions"] for record in records_of(tmp_path / "results")]
    assert [record["expressions"] for record in records_of(tmp_path / "upright")] == boxes
    came_back = records_of(tmp_path / "again")
    assert len(came_back) == 16
    for record in came_back:
        [instance] = record["expressions"][0]["instances"]
        written = shapes[record["image_id"]]
        assert {name: instance[name] for name in written} == written
        assert "as_stored" not in instance


def test_outlines_are_turned_with_their_boxes(tmp_path: Path) -> None:
    source = source_of(tmp_path / "data", "tao", BOX)
    x1, y1, x2, y2 = BOX
    lines = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    for line in lines:
        instance = line["expressions"][0]["instances"][0]
        instance["segmentation"] = [[x1, y1, x2, y1, x2, y2, x1, y2]]
        instance["quad"] = [[x1, y2], [x2, y1]]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    for record in imported(source, "tao", tmp_path / "results", "--frame", "stored"):
        _, (x1, y1, x2, y2) = red_box(tmp_path / "data" / "images" / record["image_path"])
        [instance] = record["expressions"][0]["instances"]
        [outline] = instance["segmentation"]
        corners = {(x1, y1), (x2, y1), (x2, y2), (x1, y2)}
        assert set(zip(outline[::2], outline[1::2], strict=True)) == corners
        assert {tuple(point) for point in instance["quad"]} < corners


@pytest.mark.parametrize("images", ["copy", "link", "reference"])
def test_pictures_go_out_as_stored(tmp_path: Path, images: str) -> None:
    data, back = tmp_path / "data", tmp_path / "back"
    imported(source_of(data, "coco", BOX), "coco", tmp_path / "results", "--frame", "stored")
    export = ("export", tmp_path / "results", "--format", "coco", "-o", back, "--images", images)
    done = succeeds(*export, "--frame", "stored", "--json")
    assert (done.summary["records"], done.summary["left_out"]) == (16, 0)
    assert labels_in(back, "coco") == labels_in(data, "coco")
    said = "of the pictures as stored" if images == "reference" else "as stored, and so are"
    assert said in (back / "README.md").read_text("utf-8")
    exported = json.loads((back / "annotations.json").read_text("utf-8"))
    root = data / "images" if images == "reference" else back
    for name in [image["file_name"] for image in exported["images"]]:
        assert (root / name).read_bytes() == (data / "images" / Path(name).name).read_bytes()


def test_an_upright_export_has_upright_boxes_and_says_what_stays_behind(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    imported(source_of(data, "coco", BOX), "coco", tmp_path / "results", "--frame", "stored")
    done = succeeds("export", tmp_path / "results", "--format", "coco", "-o", out)
    assert "what the source said of pictures in another frame, besides boxes (14)" in done.err
    exported = json.loads((out / "annotations.json").read_text("utf-8"))
    names = {image["id"]: image["file_name"] for image in exported["images"]}
    assert len(exported["annotations"]) == 16
    for annotation in exported["annotations"]:
        x, y, width, height = annotation["bbox"]
        with PIL.Image.open(out / names[annotation["image_id"]]) as picture:
            assert picture.getexif().get(0x0112, 1) == 1
        assert [x, y, x + width, y + height] == red_box(out / names[annotation["image_id"]])[1]
        [outline] = annotation["segmentation"]
        xs, ys = outline[::2], outline[1::2]
        assert [min(xs), min(ys), max(xs), max(ys)] == [x, y, x + width, y + height]


def test_upright_labels_can_be_written_in_the_stored_frame(tmp_path: Path) -> None:
    data = tmp_path / "data"
    results = tmp_path / "results"
    imported(source_of(data, "labelme", BOX), "labelme", results, "--frame", "stored")
    succeeds("export", results, "--format", "kitti", "-o", tmp_path / "out", "--frame", "stored")
    for label in (tmp_path / "out" / "labels").iterdir():
        for line in label.read_text().splitlines():
            assert [float(number) for number in line.split()[4:8]] == [*BOX]


def test_a_box_that_was_moved_is_turned_back_where_it_is_now(tmp_path: Path) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    records = imported(source_of(data, "coco", FINE), "coco", results, "--frame", "stored")
    for record in records:
        record["expressions"][0]["instances"][0]["bbox"] = [1, 2, 11, 22]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (results / "annotations.jsonl").write_text(text, "utf-8")
    export = ("export", results, "--format", "coco", "-o", tmp_path / "back")
    succeeds(*export, "--frame", "stored")
    boxes = [tuple(one["bbox"]) for one in labels_in(tmp_path / "back", "coco")]
    width, height = SIZES["wide"]  # upright it is height x width where it lies on its side
    assert boxes[:8] == [
        (1, 2, 10, 20),
        (width - 11, 2, 10, 20),
        (width - 11, height - 22, 10, 20),
        (1, height - 22, 10, 20),
        (2, 1, 20, 10),
        (2, height - 11, 20, 10),
        (width - 22, height - 11, 20, 10),
        (width - 22, 1, 20, 10),
    ]


def test_convert_writes_upright_labels(tmp_path: Path) -> None:
    source = source_of(tmp_path / "data", "coco", BOX)
    root = ("--image-root", tmp_path / "data" / "images", "--frame", "stored")
    out = tmp_path / "out"
    succeeds("convert", source, "--from", "coco", "--to", "kitti", "-o", out, *root)
    labels = sorted((out / "labels").iterdir())
    assert len(labels) == 16
    for label in labels:
        corners = [float(number) for number in label.read_text().split()[4:8]]
        assert corners == red_box(out / "images" / f"{label.stem}.jpg")[1]


def test_parts_of_1000_are_those_of_the_stored_sides(tmp_path: Path) -> None:
    labelled = pictures(tmp_path / "data" / "images")
    lines = []
    for name, size, box in labelled:
        part = [round(edge * 1000 / size[number % 2]) for number, edge in enumerate(box)]
        thing = {"text": "cup", "instances": [{"bbox": part, "bbox_score": 0.5}]}
        row = {"image_id": name, "image_path": name, "source": "image_referring_expression"}
        row |= {"kitti_bboxes": [[*box, "cup"]], "regions": [{"bbox": part, "type": "cup"}]}
        lines.append({**row, "cleaned_caption": "A cup.", "expressions": [thing]})
    source = tmp_path / "data" / "annotations.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    for record in imported(source, "tao", tmp_path / "results", "--frame", "stored"):
        size, red = red_box(tmp_path / "data" / "images" / record["image_path"])
        assert (record["width"], record["height"]) == size
        for item in (record["regions"][0], record["expressions"][0]["instances"][0]):
            assert item["bbox"] == pytest.approx(red, abs=0.05)


# Both frames, and what can't be known.


def with_upright_sizes(source: Path, *names: str) -> None:
    """State the upright size of these pictures of a COCO file."""
    data = json.loads(source.read_text("utf-8"))
    for image in data["images"]:
        if image["file_name"] in names:
            image |= {"width": image["height"], "height": image["width"]}
    source.write_text(json.dumps(data), "utf-8")


TURNED = [f"{form}_{orientation}.jpg" for form in SIZES for orientation in range(5, 9)]


def refused(tmp_path: Path, source: Path, *more: object) -> str:
    root = ("--image-root", tmp_path / "data" / "images")
    out = tmp_path / "results"
    done = command("import", source, "--format", "coco", "-o", out, *root, *more)
    assert done.code == 2, done
    assert not out.exists()
    [line] = done.err.strip().splitlines()
    convert = ("convert", source, "--from", "coco", "--to", "yolo", "-o", out, *root, *more)
    converted = command(*convert)
    assert (converted.code, converted.err[:200]) == (2, done.err[:200])
    assert not out.exists()
    return line


def test_a_data_set_of_both_frames_is_refused_with_the_pictures_names(tmp_path: Path) -> None:
    source = source_of(tmp_path / "data", "coco", BOX)
    with_upright_sizes(source, "wide_6.jpg", "tall_8.jpg")
    line = refused(tmp_path, source, "--frame", "stored")
    assert "labels of two frames: of the stored picture in tall_5.jpg (48 x 64 px), " in line
    assert (
        "wide_8.jpg (64 x 48 px), of the upright one in tall_8.jpg (64 x 48 px), wide_6.jpg (48 x"
        in line
    )


def test_labels_that_are_upright_already_are_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path / "data", "coco", BOX)
    with_upright_sizes(source, *TURNED)
    line = refused(tmp_path, source, "--frame", "stored")
    assert "the labels are upright already, by the stated sizes of tall_5.jpg (64 x 48 px)" in line
    assert "read them without `stored`" in line


def test_labels_of_another_size_are_not_turned(tmp_path: Path) -> None:
    source = source_of(tmp_path / "data", "coco", BOX)
    data = json.loads(source.read_text("utf-8"))
    data["images"][2] |= {"width": 32, "height": 24}
    source.write_text(json.dumps(data), "utf-8")
    line = refused(tmp_path, source, "--strict", "--frame", "stored")
    assert "wide_3.jpg (32 x 24 px) has 64 x 48 px as it is stored" in line


def test_a_missing_picture_is_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path / "data", "coco", BOX)
    (tmp_path / "data" / "images" / "tall_3.jpg").unlink()
    line = refused(tmp_path, source, "--strict", "--frame", "stored")
    assert "tall_3.jpg" in line
    assert "name the folder of the pictures" in line


def with_masks(source: Path) -> None:
    """Give each annotation of a COCO file an RLE: its counts as a list, or as pycocotools' text."""
    data = json.loads(source.read_text("utf-8"))
    for image, label in zip(data["images"], data["annotations"], strict=True):
        mask = PIL.Image.new("L", (image["width"], image["height"]))
        x, y, width, height = map(int, label["bbox"])
        drawing = PIL.ImageDraw.Draw(mask)
        drawing.polygon([(x, y), (x + width - 1, y + 3), (x + 2, y + height - 1)], 1)
        packed = coco_mask.encode(np.asfortranarray(mask))
        label["segmentation"] = {"size": packed["size"], "counts": packed["counts"].decode()}
        label["bbox"] = coco_mask.toBbox(packed).tolist()
        if label["id"] % 2:
            label["segmentation"] = runs(np.asarray(mask))
    source.write_text(json.dumps(data), "utf-8")


def test_masks_are_turned_as_pillow_turns_them_and_come_back(tmp_path: Path) -> None:
    source = source_of(tmp_path / "data", "coco", BOX)
    with_masks(source)
    labels = json.loads(source.read_text("utf-8"))["annotations"]
    records = imported(source, "coco", tmp_path / "results", "--frame", "stored")
    for record, label in zip(records, labels, strict=True):
        stored = label["segmentation"]
        if isinstance(stored["counts"], list):
            stored = coco_mask.frPyObjects(stored, *stored["size"])
        picture = PIL.Image.fromarray(coco_mask.decode(stored))
        exif = PIL.Image.Exif()
        exif[0x0112] = int(record["image_path"].rpartition("_")[2].removesuffix(".jpg"))
        picture.info["exif"] = exif.tobytes()
        [instance] = record["expressions"][0]["instances"]
        turned = instance["segmentation"]
        if isinstance(turned["counts"], list):
            turned = coco_mask.frPyObjects(turned, *turned["size"])
        upright = np.asarray(PIL.ImageOps.exif_transpose(picture))
        assert np.array_equal(coco_mask.decode(turned), upright), record["image_path"]
    back = tmp_path / "back"
    export = ("export", tmp_path / "results", "--format", "coco", "-o", back, "--frame", "stored")
    succeeds(*export)
    assert labels_in(back, "coco") == labels


@pytest.mark.parametrize("frame", ["stored", "upright"])
def test_the_mask_of_a_box_that_was_moved_is_lost_in_either_frame(
    tmp_path: Path, frame: str
) -> None:
    source = source_of(tmp_path / "data", "coco", BOX)
    with_masks(source)
    results = tmp_path / "results"
    records = imported(source, "coco", results, "--frame", "stored")
    export = ("export", results, "--format", "coco", "--frame", frame, "--json")
    kept = json.loads(succeeds(*export, "-o", tmp_path / "kept").out)["lost"]
    for record in records:
        box = record["expressions"][0]["instances"][0]["bbox"]
        box[0], box[2] = box[0] + 1, box[2] + 1
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (results / "annotations.jsonl").write_text(lines, "utf-8")
    lost = json.loads(succeeds(*export, "-o", tmp_path / "lost").out)["lost"]
    why = "masks that don't fit their box"
    assert (kept.get(why), lost.get(why)) == (None, len(records))


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        ({"size": [48, 64], "counts": "abc"}, "no text of COCO's"),
        ({"size": [48, 64], "counts": [5, 6]}, "don't fill 64 x 48 px"),
        ({"size": [64, 48], "counts": [0, 48 * 64]}, "is of 48 x 64 px, the picture of 64 x 48"),
        ("4 5 6 7", "should be a list of points, or a mask with counts and size"),
    ],
)
def test_a_mask_of_another_picture_is_refused(tmp_path: Path, mask: Any, why: str) -> None:
    source = source_of(tmp_path / "data", "tao", BOX)
    lines = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    lines[1]["expressions"][0]["instances"][0]["segmentation"] = mask
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    out = ("-o", tmp_path / "results", "--image-root", tmp_path / "data" / "images")
    done = command("import", source, "--format", "tao", *out, "--frame", "stored", "--strict")
    assert done.code == 2
    assert "wide_2.jpg: " in done.err
    assert why in done.err


def test_pictures_without_an_orientation_have_nothing_to_turn(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    PIL.Image.new("RGB", (64, 48)).save(tmp_path / "data" / "images" / "a.png")
    source = coco(tmp_path / "data", [Labelled("a.png", (64, 48), FINE)])
    upright = imported(source, "coco", tmp_path / "upright")
    assert imported(source, "coco", tmp_path / "stored", "--frame", "stored") == upright


def test_without_the_option_swapped_sizes_are_told_with_it(tmp_path: Path) -> None:
    source = source_of(tmp_path / "data", "coco", BOX)
    root = ("--image-root", tmp_path / "data" / "images")
    done = succeeds("import", source, "--format", "coco", "-o", tmp_path / "results", *root)
    assert "(64 x 48 px stated, 48 x 64 px found)" in done.out
    assert "--frame stored" in done.out


def test_swapped_sizes_of_pictures_that_nothing_turns_are_sizes_of_others(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    PIL.Image.new("RGB", (64, 48)).save(tmp_path / "data" / "images" / "a.png")
    source = coco(tmp_path / "data", [Labelled("a.png", (48, 64), FINE)])
    root = ("--image-root", tmp_path / "data" / "images")
    done = succeeds("import", source, "--format", "coco", "-o", tmp_path / "results", *root)
    assert "(48 x 64 px stated, 64 x 48 px found)" in done.out
    assert "--frame stored" not in done.out


def test_labels_that_were_not_turned_are_left_out_of_an_export(tmp_path: Path) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    imported(source_of(data, "coco", BOX), "coco", results)
    export = ("export", results, "--format", "coco", "-o", tmp_path / "back")
    done = command(*export, "--frame", "stored")
    assert (done.code, "left out: 8 records" in done.err) == (1, True)
    assert "isn't of the upright picture: import its labels with --frame stored" in done.err


@pytest.mark.parametrize("ending", ["png", "webp", "tiff"])
def test_other_files_than_jpegs_are_turned_too(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "data" / "images"
    labelled = []
    for name, size, box in pictures(folder):
        with PIL.Image.open(folder / name) as picture:
            changed = f"{Path(name).stem}.{ending}"
            picture.save(folder / changed, exif=picture.getexif(), lossless=True)
        labelled.append(Labelled(changed, size, box))
    source = coco(tmp_path / "data", labelled)
    for record in imported(source, "coco", tmp_path / "results", "--frame", "stored"):
        size, red = red_box(folder / record["image_path"])
        assert (record["width"], record["height"]) == size
        assert record["expressions"][0]["instances"][0]["bbox"] == red


def test_many_pictures_of_both_frames_are_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    labelled = []
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    for number in range(60):
        size = (64, 48) if number % 2 else (48, 64)
        name = f"{number:02}.jpg"
        PIL.Image.new("RGB", (64, 48)).save(tmp_path / "data" / "images" / name, exif=exif)
        labelled.append(Labelled(name, size, BOX))
    line = refused(tmp_path, coco(tmp_path / "data", labelled), "--frame", "stored")
    assert "01.jpg (64 x 48 px)" in line
    assert "00.jpg (48 x 64 px)" in line
    assert line.count(".jpg") == 20
    assert line.count(" and more") == 2


def test_a_missing_picture_is_left_out_of_an_export(tmp_path: Path) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    imported(source_of(data, "coco", BOX), "coco", results, "--frame", "stored")
    (data / "images" / "tall_3.jpg").unlink()
    export = ("export", results, "--format", "coco", "--images", "reference", "--frame", "stored")
    done = command(*export, "-o", tmp_path / "out")
    assert done.code == 1
    assert "left out: 1 record, for example record 11: no image 'tall_3.jpg'" in done.err
