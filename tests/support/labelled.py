"""Labels as other tools write them: one table of formats, for all tests that read or write them.

    labelled(folder, "yolo", [Labelled("a.png", [Box("cup", 1, 2, 30, 40), "7 .5 .5 .1 .1"])])

writes the picture and its label file, and returns the path that an import is given. What isn't a
Box or a Labelled is written as it is: a test states only what is wrong or special.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image

SIZE = (64, 48)
Size = tuple[int, int]


class Box(NamedTuple):
    """A box in pixels before it is turned about its middle; COCO and LabelMe say its score."""

    label: str
    x1: float
    y1: float
    x2: float
    y2: float
    degrees: float = 0
    score: float | None = None

    @property
    def corners(self) -> list[float]:
        """The four corners of the turned box, from the top left one on."""
        middle_x, middle_y = (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2
        cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        corners = []
        for x, y in (
            (self.x1, self.y1),
            (self.x2, self.y1),
            (self.x2, self.y2),
            (self.x1, self.y2),
        ):
            dx, dy = x - middle_x, y - middle_y
            corners += [middle_x + dx * cos - dy * sin, middle_y + dx * sin + dy * cos]
        return corners


class Labelled(NamedTuple):
    """A picture and what is labelled in it: boxes, or entries as its format writes them."""

    name: str
    entries: Sequence[Any] = ()
    size: Size = SIZE
    caption: str = ""


def pictures_of(records: Iterable[dict[str, Any]], size: Size) -> list[Labelled]:
    """The pictures of records, which are all of one size, with the boxes that were found."""
    pictures = []
    for record in records:
        boxes = []
        for expression in record["expressions"]:
            for found in expression["instances"]:
                boxes.append(Box(expression["text"], *found["bbox"], score=found.get("score")))
        pictures.append(Labelled(Path(record["image_path"]).name, boxes, size))
    return pictures


class Kind(NamedTuple):
    """How a format says a box, and how its files are written."""

    entry: Callable[[Box, Size, Sequence[str]], Any]
    write: Callable[[Path, list[Any], Sequence[str]], Path]
    pictures: str = ""
    """The folder of the pictures, below that of the labels."""


def saved(path: Path, content: Any) -> Path:
    """Write a text, a value as JSON, or a list as lines of JSON where the path ends so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl" and isinstance(content, list):
        content = "".join(f"{json.dumps(row)}\n" for row in content)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def each(pictures: list[Any], made: Callable[[int, Labelled], Any]) -> list[Any]:
    """What is made of each picture and its number; what is none is as it is."""
    return [
        made(number, picture) if isinstance(picture, Labelled) else picture
        for number, picture in enumerate(pictures)
    ]


def scored(entry: dict[str, Any], box: Box) -> dict[str, Any]:
    """The entry with the box's score, where it has one."""
    return entry if box.score is None else {**entry, "score": box.score}


# COCO


def coco_annotation(box: Box, _size: Size, classes: Sequence[str]) -> dict[str, Any]:
    sides = [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1]
    return scored({"category_id": classes.index(box.label) + 1, "bbox": sides}, box)


def coco(folder: Path, pictures: list[Any], classes: Sequence[str]) -> Path:
    """An annotation's keys that are left out are its number, its picture and the first class."""
    annotations: list[dict[str, Any]] = []

    def image(number: int, picture: Labelled) -> dict[str, Any]:
        for entry in picture.entries:
            keys = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": 1}
            annotations.append({**keys, **entry})
        width, height = picture.size
        made = {"id": number + 1, "file_name": picture.name, "width": width, "height": height}
        return {**made, "caption": picture.caption} if picture.caption else made

    images = each(pictures, image)
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    return saved(folder / "annotations.json", data)


# Label Studio


def region(
    label: str, value: dict[str, Any], size: Size = SIZE, kind: str = "rectangle", **more: Any
) -> dict[str, Any]:
    """A region with a label; `value` is its place, in percent of the picture's sides."""
    return {
        "id": "r1",
        "from_name": "kind",
        "to_name": "photo",
        "type": f"{kind}labels",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": {**value, f"{kind}labels": [label]},
        **more,
    }


def label_studio_region(box: Box, size: Size, _classes: Sequence[str]) -> dict[str, Any]:
    width, height = size
    value = {
        "x": box.corners[0] / width * 100,
        "y": box.corners[1] / height * 100,
        "width": (box.x2 - box.x1) / width * 100,
        "height": (box.y2 - box.y1) / height * 100,
        "rotation": box.degrees,
    }
    made = region(box.label, value, size)
    del made["id"]
    return made


def label_studio(folder: Path, pictures: list[Any], _classes: Sequence[str]) -> Path:
    """An export as JSON; regions without an id are called r0, r1, … in each task."""

    def task(number: int, picture: Labelled) -> dict[str, Any]:
        result = [{"id": f"r{own_id}", **entry} for own_id, entry in enumerate(picture.entries)]
        data = {"image": f"/data/local-files/?d={picture.name}"}
        return {"id": number, "data": data, "annotations": [{"id": 1, "result": result}]}

    return saved(folder / "tasks.json", each(pictures, task))


# CVAT


def cvat_box(box: Box, _size: Size, _classes: Sequence[str]) -> str:
    edges = f'xtl="{box.x1!r}" ytl="{box.y1!r}" xbr="{box.x2!r}" ybr="{box.y2!r}"'
    turn = f'rotation="{box.degrees!r}" ' if box.degrees else ""
    return f'<box label="{box.label}" occluded="0" {edges} {turn}z_order="0"></box>\n'


def cvat(folder: Path, pictures: list[Any], classes: Sequence[str]) -> Path:
    """CVAT for images 1.1."""

    def image(number: int, picture: Labelled) -> str:
        width, height = picture.size
        head = f'id="{number}" name="{picture.name}" width="{width}" height="{height}"'
        return f"<image {head}>\n{''.join(picture.entries)}</image>\n"

    labels = "".join(f"<label><name>{name}</name></label>" for name in classes)
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
    head += f"<meta><task><labels>{labels}</labels></task></meta>\n"
    lines = [head, *each(pictures, image), "</annotations>\n"]
    return saved(folder / "annotations.xml", "".join(lines))


# LabelMe


def labelme_shape(box: Box, _size: Size, _classes: Sequence[str]) -> dict[str, Any]:
    """As X-AnyLabeling writes it: a turned box is a rotation."""
    points = list(zip(box.corners[::2], box.corners[1::2], strict=True))
    kind: dict[str, Any] = {"shape_type": "rectangle"}
    if box.degrees:
        kind = {"shape_type": "rotation", "direction": math.radians(box.degrees)}
    return scored({"label": box.label, "points": points, **kind, "attributes": {}}, box)


def labelme(folder: Path, pictures: list[Any], _classes: Sequence[str]) -> Path:
    for picture in pictures:
        data = {"version": "4.0.2", "flags": {}, "shapes": [*picture.entries]}
        data |= {"imagePath": picture.name, "imageData": None}
        data |= {"imageHeight": picture.size[1], "imageWidth": picture.size[0]}
        saved((folder / picture.name).with_suffix(".json"), json.dumps(data, indent=2) + "\n")
    return folder


# VOC


def voc_object(box: Box, _size: Size, _classes: Sequence[str]) -> str:
    names = zip(("xmin", "ymin", "xmax", "ymax"), box[1:5], strict=True)
    corners = "".join(f"<{name}>{value}</{name}>" for name, value in names)
    return f"<object><name>{box.label}</name><bndbox>{corners}</bndbox></object>"


def voc(folder: Path, pictures: list[Any], _classes: Sequence[str]) -> Path:
    for picture in pictures:
        width, height = picture.size
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        head = f"<filename>{picture.name}</filename>{size}"
        text = f"<annotation>{head}{''.join(picture.entries)}</annotation>"
        saved((folder / picture.name).with_suffix(".xml"), text)
    return folder


# A text file for each picture


def yolo_line(box: Box, size: Size, classes: Sequence[str]) -> str:
    (width, height), number = size, classes.index(box.label)
    middle = f"{(box.x1 + box.x2) / 2 / width:.7g} {(box.y1 + box.y2) / 2 / height:.7g}"
    return f"{number} {middle} {(box.x2 - box.x1) / width:.7g} {(box.y2 - box.y1) / height:.7g}"


def yolo_obb_line(box: Box, size: Size, classes: Sequence[str]) -> str:
    parts = [f"{corner / size[i % 2]:.7f}" for i, corner in enumerate(box.corners)]
    return f"{classes.index(box.label)} {' '.join(parts)}"


def kitti(label: str, *corners: Any, score: str = "") -> str:
    """A KITTI label line; corners as they are to be written."""
    edges = " ".join(map(str, corners))
    return f"{label} 0.00 0 -1.57 {edges} 1.57 1.73 4.15 1.00 1.75 13.22 -1.62 {score}".strip()


def kitti_line(box: Box, _size: Size, _classes: Sequence[str]) -> str:
    return kitti(*box[:5])


def dota_line(box: Box, _size: Size, _classes: Sequence[str]) -> str:
    corners = " ".join(f"{corner:.2f}" for corner in box.corners)
    return f"{corners} {box.label.replace(' ', '-')} 1"


def label_files(folder: Path, pictures: list[Any], head: str = "") -> None:
    """A file of lines for each picture; one without entries has an empty one."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        lines = "".join(f"{line}\n" for line in picture.entries)
        saved((folder / picture.name).with_suffix(".txt"), head + lines)


def yolo(folder: Path, pictures: list[Any], classes: Sequence[str]) -> Path:
    label_files(folder / "labels", pictures)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(classes))
    saved(folder / "data.yaml", f"path: .\ntrain: images\nnames:\n{names}")
    return folder


def kitti_files(folder: Path, pictures: list[Any], _classes: Sequence[str]) -> Path:
    label_files(folder / "labels", pictures)
    return folder


def dota(folder: Path, pictures: list[Any], _classes: Sequence[str]) -> Path:
    label_files(folder / "labelTxt", pictures, "imagesource:GoogleEarth\ngsd:0.146343590398\n")
    return folder


# ODVG


def odvg_region(box: Box, _size: Size, _classes: Sequence[str]) -> dict[str, Any]:
    return {"phrase": box.label, "bbox": [*box[1:5]]}


def odvg(folder: Path, pictures: list[Any], _classes: Sequence[str]) -> Path:
    def row(_number: int, picture: Labelled) -> dict[str, Any]:
        width, height = picture.size
        grounding = {"caption": picture.caption or "a cup", "regions": [*picture.entries]}
        sides = {"filename": picture.name, "height": height, "width": width}
        return {**sides, "grounding": grounding}

    return saved(folder / "odvg.jsonl", each(pictures, row))


FORMATS = {
    "coco": Kind(coco_annotation, coco),
    "cvat": Kind(cvat_box, cvat),
    "dota": Kind(dota_line, dota, "images"),
    "kitti": Kind(kitti_line, kitti_files, "images"),
    "label-studio": Kind(label_studio_region, label_studio),
    "labelme": Kind(labelme_shape, labelme),
    "odvg": Kind(odvg_region, odvg),
    "voc": Kind(voc_object, voc),
    "yolo": Kind(yolo_line, yolo, "images"),
    "yolo-obb": Kind(yolo_obb_line, yolo, "images"),
}
"""How each format's labels are written; a new format is one row."""


def labelled(
    folder: Path,
    format: str,
    pictures: Iterable[Any],
    *,
    classes: Sequence[str] = ("cup",),
    drawn: bool = True,
) -> Path:
    """Write labels of a format, and the pictures unless they are drawn already.

    `pictures` are Labelled, or images, tasks and rows as the format writes them. `classes` are the
    data set's, in their order. Returns what an import is given: a file, or the folder.
    """
    kind = FORMATS[format]

    def written(_number: int, picture: Labelled) -> Labelled:
        if drawn:
            path = folder / kind.pictures / picture.name
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.new("RGB", picture.size, "#886644").save(path)
        entries = []
        for entry in picture.entries:
            is_box = isinstance(entry, Box)
            entries.append(kind.entry(entry, picture.size, classes) if is_box else entry)
        return picture._replace(entries=entries)

    return kind.write(folder, each([*pictures], written), classes)
