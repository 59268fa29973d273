"""The files of TAO's old layout: one text file per image and step.

Boxes are in 0-1000 of the image's sides.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable

from dataflow_grounding._util.errors import StorageFailed, errors_as
from dataflow_grounding._util.files import new_file, portable, within
from dataflow_grounding._util.paths import state_of
from dataflow_grounding._util.results_names import LEGACY_STATE
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import box_of
from dataflow_grounding.data.records import JsonObject, name_within, read_object
from dataflow_grounding.data.rows import read_rows
from dataflow_grounding.engine.plan import Step

LAYOUT = 2  # raise it when the same annotations give other files: then all are written again


def write_legacy(step: Step) -> None:
    """Write TAO's old label files into `labels/` next to a step's annotations, all or none."""
    text_of = TEXTS.get(step.operator.name)
    if text_of is None:
        return
    annotations = step.storage.output_path
    folder, state_file = _folder_and_state_file(step)
    new_folder = f"{folder}.part"  # is filled first, so that `labels/` is never half written
    with errors_as(StorageFailed, f"can't write {folder}", again=True):
        state = {"layout": LAYOUT, "annotations": state_of(annotations)}
        if os.path.isdir(folder) and read_object(state_file) == state:
            return
        shutil.rmtree(new_folder, ignore_errors=True)
        os.makedirs(new_folder)
        _write_all(step, new_folder, text_of)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new_folder, folder)
        _write(state_file, json.dumps(state))


def _write_all(step: Step, folder: str, text_of: Callable[[JsonObject], str]) -> None:
    """Write `a/x.txt.step0` for the image a/x.jpg, and `a/x~2.txt.step0` for its second record."""
    records_of_stem: Counter[str] = Counter()
    for row in read_rows(step.storage.output_path):
        if row.data is None:
            continue
        path = str(row.data.get("image_path")).replace("\\", "/")
        stem = name_within(path, step.storage.image_folders[0])
        records_of_stem[stem] += 1
        number = records_of_stem[stem]
        numbered = stem if number == 1 else f"{stem}~{number}"
        name = portable(f"{numbered}.txt.step{step.storage.operator_step}")
        _write(within(folder, name), text_of(row.data))


def remove_legacy(step: Step) -> None:
    """Remove the label files that `write_legacy` wrote for a step; another `labels/` stays."""
    folder, state_file = _folder_and_state_file(step)
    with errors_as(StorageFailed, f"can't remove {folder}", again=True):
        if os.path.exists(state_file):  # else the folder is somebody else's
            shutil.rmtree(folder, ignore_errors=True)
            os.remove(state_file)


def _folder_and_state_file(step: Step) -> tuple[str, str]:
    folder = os.path.dirname(step.storage.output_path)
    return os.path.join(folder, "labels"), os.path.join(folder, LEGACY_STATE)


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with new_file(path, "w", encoding="utf-8", newline="\n", errors="backslashreplace") as file:
        file.write(text)


def _regions_text(record: JsonObject) -> str:
    items = []
    for region in record.get("regions") or []:
        bbox = _cut_to_1000(region, record)
        if bbox is not None:
            facts = {name: region.get(name) or "" for name in ("type", "color", "description")}
            items.append({"bbox_2d": bbox, **facts})
    return json.dumps(items, ensure_ascii=False)


def _expressions_text(record: JsonObject) -> str:
    lines = ""
    for expression in record.get("expressions") or []:
        instances = expression.get("instances") or []
        boxes = [_cut_to_1000(instance, record) for instance in instances]
        inside = [box for box in boxes if box is not None]
        if inside:  # TAO's readers know no phrase without a box
            lines += f"{' '.join(expression['text'].split())}: {json.dumps(inside)}\n"
    return lines


def _cut_to_1000(item: JsonObject, record: JsonObject) -> list[float | int] | None:
    """Return a box in 0-1000, cut to the picture; None for one outside, which would be an edge."""
    size = (int(record["width"]), int(record["height"]))
    box = box_of(item["bbox"])
    x1, y1, x2, y2 = box
    if x1 >= size[0] or y1 >= size[1] or x2 <= 0 or y2 <= 0:
        return None
    return find_box_format("xyxy_1000", model="").from_pixels(box, original=size)


TEXTS: dict[str, Callable[[JsonObject], str]] = {
    "region_expr": _regions_text,
    "image_caption": lambda record: str(record.get("caption") or ""),
    "grounding_expr": _expressions_text,
    "double_check": _expressions_text,
}
"""Makes the text of a record's file, by the name of the step's operator."""
