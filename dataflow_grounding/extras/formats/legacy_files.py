"""The files of TAO's old layout: one text file per image and step, boxes in 0-1000 of the image's
sides.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from dataflow_grounding._util.errors import StorageFailed, told_as
from dataflow_grounding._util.files import new_file, portable, within
from dataflow_grounding._util.paths import state_of
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.data.records import name_within, read_object
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.engine.plan import Step

# changes where the same annotations give other files: those of before are then written anew
LAYOUT = 2


def write_legacy(step: Step) -> None:
    """Write TAO's old label files beside a step's annotations, all or none, if changed. Raises
    StorageFailed.
    """
    text_of = TEXTS.get(step.operator.name)
    if text_of is None:
        return
    annotations = step.storage.output_path
    folder, stamp = _places(step)
    part = f"{folder}.part"
    with told_as(StorageFailed, f"can't write {folder}", again=True):
        state = {"layout": LAYOUT, "annotations": state_of(annotations)}
        if os.path.isdir(folder) and read_object(stamp) == state:
            return
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
        stems: Counter[str] = Counter()
        for row in read_rows(annotations):
            if row.data is not None:
                stem = name_within(
                    str(row.data.get("image_path")).replace("\\", "/"),
                    step.storage.image_folders[0],
                )
                stems[stem] += 1
                numbered = stem if stems[stem] == 1 else f"{stem}~{stems[stem]}"
                name = portable(f"{numbered}.txt.step{step.storage.operator_step}")
                _write(within(part, name), text_of(row.data))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
        _write(stamp, json.dumps(state))


def remove_legacy(step: Step) -> None:
    """Remove the label files that `write_legacy` wrote beside a step's annotations. Raises
    StorageFailed.
    """
    folder, stamp = _places(step)
    with told_as(StorageFailed, f"can't remove {folder}", again=True):
        if os.path.exists(stamp):
            shutil.rmtree(folder, ignore_errors=True)
            os.remove(stamp)


def _places(step: Step) -> tuple[str, str]:
    """The folder of a step's label files, and the file that says of which annotations they are."""
    beside = os.path.dirname(step.storage.output_path)
    return os.path.join(beside, "labels"), os.path.join(beside, ".ckpt", "labels.json")


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with new_file(path, "w", encoding="utf-8", newline="\n", errors="backslashreplace") as file:
        file.write(text)


def _regions(record: Mapping[str, Any]) -> str:
    said = ("type", "color", "description")
    found = ((_in_1000(region, record), region) for region in record.get("regions") or [])
    items = [
        {"bbox_2d": b, **{name: region.get(name) or "" for name in said}}
        for b, region in found
        if b is not None
    ]
    return json.dumps(items, ensure_ascii=False)


def _expressions(record: Mapping[str, Any]) -> str:
    lines = []
    for expression in record.get("expressions") or []:
        found = (_in_1000(instance, record) for instance in expression.get("instances") or [])
        if boxes := [bbox for bbox in found if bbox is not None]:
            # TAO's readers know no phrase without a box
            lines.append(f"{' '.join(expression['text'].split())}: {json.dumps(boxes)}\n")
    return "".join(lines)


def _in_1000(item: Mapping[str, Any], record: Mapping[str, Any]) -> list[float | int] | None:
    """A box as TAO writes it; None for one outside of the picture, which 0 to 1000 can't say."""
    size, box = (int(record["width"]), int(record["height"])), box_of(item["bbox"])
    if box[0] >= size[0] or box[1] >= size[1] or box[2] <= 0 or box[3] <= 0:
        return None
    return find_box_format("xyxy_1000", "").from_pixels(box, original=size)


TEXTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "region_expr": _regions,
    "image_caption": lambda record: str(record.get("caption") or ""),
    "grounding_expr": _expressions,
    "double_check": _expressions,
}
"""What a record's file of each step says, by its operator's name."""
