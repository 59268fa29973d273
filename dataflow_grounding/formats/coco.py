"""COCO files: one JSON file with `images`, `annotations` (`bbox` as x, y, width, height in pixels), `categories`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from dataflow_grounding.errors import BrokenRow, InputError
from dataflow_grounding.formats.label_lines import Labelled
from dataflow_grounding.records import is_number


@dataclass
class CocoImage:
    """An image of the file: its regions, or what is wrong with one of them."""

    file_name: str
    regions: list[Labelled] = field(default_factory=list)
    error: BrokenRow | None = None


def read_coco(path: str) -> tuple[list[CocoImage], int, int]:
    """Read a COCO file.

    Returns:
        The images with their regions in pixels (corners are decimal sums, free of binary rounding; an annotation's
        fault is its image's `error`), how many crowd regions were left out, how many annotations belong to no image.

    Raises:
        InputError: The file can't be read, or is not a COCO file.
    """
    data = _load(path)
    images = {}
    for item in data["images"]:
        name = item.get("file_name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not name or "id" not in item:
            raise InputError(f"{path}: an image without 'id' and 'file_name'")
        images[str(item["id"])] = CocoImage(name)
    categories = data.get("categories") or []
    names = {str(item.get("id")): str(item.get("name", "")) for item in categories if isinstance(item, dict)}
    crowds = strays = 0
    for number, item in enumerate(data["annotations"]):
        image = images.get(str(item.get("image_id"))) if isinstance(item, dict) else None
        if image is None:
            strays += 1
        elif item.get("iscrowd") in (1, True):
            crowds += 1
        else:
            try:
                image.regions.append(_region(item, names, f"{path}, annotation {item.get('id', number)}"))
            except BrokenRow as error:
                image.error = image.error or error
    return list(images.values()), crowds, strays


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = json.load(file)
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {str(error).splitlines()[0]}") from None
    lists = isinstance(data, dict) and all(isinstance(data.get(key), list) for key in ("images", "annotations"))
    if not lists:
        raise InputError(f"{path} is not a COCO file: it has no lists 'images' and 'annotations'")
    found: dict[str, Any] = data
    return found


def _region(item: dict[str, Any], names: dict[str, str], where: str) -> Labelled:
    box = item.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(is_number(value) for value in box)):
        raise BrokenRow(f"{where}: 'bbox' should be [x, y, width, height]")
    x, y, width, height = box
    if width <= 0 or height <= 0:
        raise BrokenRow(f"{where}: the box {[float(value) for value in box]} has no area")
    return {"bbox": [x, y, _sum(x, width), _sum(y, height)], "type": names.get(str(item.get("category_id")), "")}


def _sum(one: float, other: float) -> float:
    """The sum of two numbers as they are written: 0.1 + 0.2 is 0.3."""
    if isinstance(one, int) and isinstance(other, int):
        return one + other
    return float(Decimal(repr(one)) + Decimal(repr(other)))
