"""LabelMe's files, which X-AnyLabeling writes too, and which can only be read.

Sources: labelme's label_file.py and shape.py; X-AnyLabeling's user guide (a rectangle has four
corners, a shape its `score`).
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dataflow_grounding._util.errors import BrokenRow, InputError
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import is_score, stated_size
from dataflow_grounding.formats import outlines
from dataflow_grounding.formats.format import Format
from dataflow_grounding.formats.imported import with_item_number
from dataflow_grounding.formats.reading import (
    check_expression,
    entry_errors,
    files_under,
    object_errors,
    read_whole,
    unite,
)
from dataflow_grounding.images.files import ENDINGS

_AREAS = ("polygon", "rotation", "mask")
"""Shapes of a thing that are no upright box: the box around them is read."""


class LabelMe(Format):
    """A JSON file for each picture, with `shapes` and the picture's name and sides.

    A label is a phrase; a group, or what else a shape says, is left out.
    """

    def read(self, path: str, image_root: str) -> Iterator[dict[str, Any]]:
        """Yield a record for each file, by name; `path` may be one. InputError without any."""
        names = [""]  # `path` itself
        if os.path.isdir(path):
            names = files_under(path, (".json",), "the folder of LabelMe's files")
            if not names:
                raise InputError(f"{path} has no .json files: name the folder of LabelMe's files")
        for name in names:
            file = os.path.join(path, name) if name else path
            with entry_errors(file, self.bad):
                yield self._record(read_whole(file), file, os.path.dirname(name))

    def _record(self, data: Mapping[str, Any], file: str, folder: str) -> dict[str, Any]:
        keyed = []
        size = stated_size({"width": data.get("imageWidth"), "height": data.get("imageHeight")})
        for number, shape in enumerate(data["shapes"], 1):
            where = f"{file}, shape {number}"
            with object_errors(where, self.bad):
                instance = _instance_of(shape, size, where, self.passed_over)
                if instance is not None:
                    if outlines.KEY in instance:  # with its number, a box that was moved is seen
                        instance = with_item_number(instance, number, str(shape["label"]))
                    label = shape["label"]
                    if not isinstance(label, str) or not label.strip():
                        raise BrokenRow("a box without a label")
                    expression = {"text": label, "class": label, "instances": [instance]}
                    check_expression(expression)
                    keyed.append((label, expression))
        picture = data["imagePath"] or _picture_next_to(file)
        picture = str(picture).replace("\\", "/")  # as Windows writes paths
        record = {
            "image_path": os.path.join(folder, picture),
            "width": data["imageWidth"],
            "height": data["imageHeight"],
            "caption": None,
            "expressions": unite(keyed),
        }
        if data["shapes"] and not keyed:
            record["background"] = False
        return self.bad.marked(record)


def _picture_next_to(file: str) -> str:
    # Some tools leave the picture's name out: then it is called as the file is.
    stem, _ = os.path.splitext(file)
    found = [stem + ending for ending in ENDINGS if os.path.exists(stem + ending)]
    if len(found) != 1:
        raise BrokenRow("it names no picture (imagePath), and none of its own name is next to it")
    return os.path.basename(found[0])


def _instance_of(
    shape: Mapping[str, Any], size: Size | None, where: str, passed_over: Counter[str]
) -> dict[str, Any] | None:
    # None for a point, a line or the like. LabelMe's first versions had no type, and some tools
    # write it with a capital.
    kind = str(shape.get("shape_type") or "polygon").lower()
    if kind != "rectangle" and kind not in _AREAS:
        passed_over[f"shapes {kind!r}"] += 1
        return None
    if kind in ("rotation", "mask"):
        passed_over[f"outlines of shapes {kind!r}, of which the box around is read"] += 1
    columns = [float(x) for x, _ in shape["points"]]
    rows = [float(y) for _, y in shape["points"]]
    beyond = 1 if kind == "mask" else 0  # its points are its first and its last pixel
    last = (max(columns) + beyond, max(rows) + beyond)
    instance: dict[str, Any] = {"bbox": [min(columns), min(rows), *last]}
    if kind == "polygon":
        outline = [float(number) for point in shape["points"] for number in point]
        try:
            instance[outlines.KEY] = outlines.checked(outline, size)
        except BrokenRow as error:
            outlines.count_unusable(passed_over, where, error)
    score = shape.get("score")
    if score is not None and is_score(score):
        instance["score"] = score
    return instance
