"""YOLO label files: one text file per image, lines of `class cx cy width height [score]`, in parts of its sides."""

import os

from dataflow_grounding.errors import BrokenRow, InputError
from dataflow_grounding.formats.label_lines import NOT_UTF8, Labelled, label_lines, number_of, score_of
from dataflow_grounding.geometry import Size

# 1/10,000 px: far below what six decimals of a side can tell, so that they come out again.
DECIMALS = 4
SLACK = 1e-3  # of a side: rounding may push a box this far over the edge


def read_yolo(path: str, names: list[str], size: Size) -> list[Labelled]:
    """Read the label file of an image of `size` (width, height) in px. Raises BrokenRow with file and line, OSError."""
    regions = []
    for where, fields in label_lines(path):
        if fields == [NOT_UTF8]:
            raise BrokenRow(f"{where}: is not UTF-8")
        if len(fields) not in (5, 6):
            raise BrokenRow(f"{where}: has {len(fields)} fields, a YOLO label has 5 or 6 (class cx cy width height)")
        if not fields[0].isdecimal() or int(fields[0]) >= len(names):
            raise BrokenRow(f"{where}: class {fields[0][:40]!r} is not one of the {len(names)} names")
        cx, cy, width, height = parts = [number_of(text, where) for text in fields[1:5]]
        if not (all(-SLACK <= part <= 1 + SLACK for part in parts) and width > 0 and height > 0):
            raise BrokenRow(f"{where}: {' '.join(fields[1:5])} should be parts of the image's sides, from 0 to 1")
        corners = (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2)
        bbox = [round(corner * size[n % 2], DECIMALS) for n, corner in enumerate(corners)]
        regions.append({"bbox": bbox, "type": names[int(fields[0])], **score_of(fields, 6, where)})
    return regions


def read_names(path: str) -> list[str]:
    """Read class names: one per line, or a data set's YAML with `names` as a list or a mapping. Raises InputError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read the class names in {path}: {error}") from None
    if os.path.splitext(path)[1].lower() not in (".yaml", ".yml"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    import yaml

    try:
        data = yaml.safe_load(text)
        names = data["names"]
        items = [names[key] for key in range(len(names))] if isinstance(names, dict) else list(names)
    except Exception:  # PyYAML lets through what its constructors raise
        raise InputError(f"{path} has no 'names' with the names of classes 0, 1, 2 ...") from None
    return [str(item) for item in items]
