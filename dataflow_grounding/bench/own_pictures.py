"""A user's own pictures with gold, as a set that `bench` asks about."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding.bench.bench_set import PictureSet
from dataflow_grounding.boxes.geometry import Bbox, box_of
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.data.rejected import not_rejected
from dataflow_grounding.evaluation.metrics import read_annotations
from dataflow_grounding.evaluation.metrics.annotations import as_gold, names_of

OWN_KIND = "own"
"""The `kind` of a user's own pictures."""
LEAST = 8
"""The least number of pictures: fewer say nothing about a way of asking."""


def own_set(folder: str, gold: str) -> PictureSet:
    """Return the pictures of a folder for which `gold` has phrases. Raises InputError for few."""
    if not os.path.isdir(folder):
        raise InputError(f"no folder {folder}: name that of your pictures with --pictures")
    records, missing = _records_of(folder, gold)
    if not records:
        why = f"{gold} names {missing[0]}" if missing else f"{gold} has no phrases"
        raise InputError(f"{gold} and {folder} have no picture in common: {why}")
    if len(records) < LEAST:
        pictures = counted(len(records), "picture")
        raise InputError(
            f"{gold} has phrases for {pictures} of {folder}: a comparison needs {LEAST} or more,"
            " better 20 to 40"
        )
    if missing:
        say(f"Note: {counted(len(missing), 'picture')} of {gold} not in {folder}: {missing[0]}, ….")
    return PictureSet(folder, records)


def _records_of(folder: str, gold: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return records of the pictures that folder and gold have, and names of those not found."""
    record_by_path: dict[str, dict[str, Any]] = {}
    missing: list[str] = []
    annotations = as_gold(read_annotations(gold, keep_rejected=False))
    for number, record in enumerate(annotations, 1):
        expressions = _expressions_of(record)
        if not expressions:
            continue
        name, _ = names_of(record, f"{gold}, record {number}")
        path = _found_in(folder, name)
        if not path:
            missing.append(name)
        elif path not in record_by_path:
            record_by_path[path] = {
                "image_path": path,
                "image_id": str(len(record_by_path)),
                "kind": OWN_KIND,
                "caption": record.get("cleaned_caption") or record.get("caption") or "",
                "expressions": expressions,
            }
    return list(record_by_path.values()), missing


def _expressions_of(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a record's phrases as the set's gold has them, each text once."""
    by_text: dict[str, dict[str, Any]] = {}
    for expression in record["expressions"]:
        text = expression["text"]
        is_right_unknown = expression.get("status") == "pending"  # nobody has looked for it
        if is_right_unknown or text in by_text:
            continue
        instances = [{"bbox": list(item["bbox"])} for item in expression["instances"]]
        by_text[text] = {"text": text, "instances": instances, "char_span": None}
    return list(by_text.values())


def _found_in(folder: str, name: str) -> str:
    """Return the folder's path of the picture that gold calls `name`; "" where it isn't there."""
    is_absolute = os.path.isabs(name)
    path_in_folder = os.path.relpath(name, folder) if is_absolute else os.path.normpath(name)
    for path in (path_in_folder, os.path.basename(name)):  # gold may be of another folder
        leads_out = path.split(os.sep)[0] == os.pardir  # ../a.jpg
        if not leads_out and os.path.isfile(os.path.join(folder, path)):
            return path.replace(os.sep, "/")
    return ""


def mean_f1(expressions: Sequence[Mapping[str, Any]], answer: Mapping[str, Any]) -> float:
    """Return the mean F1 of a picture's phrases, at IoU 0.5; one that isn't answered has 0.

    A phrase that names nothing in the picture has 1 if it is answered without boxes, else 0.
    Further phrases in the answer don't count.
    """
    boxes_by_text: dict[str, list[Bbox]] = {}
    for expression in answer["expressions"]:
        boxes = boxes_by_text.setdefault(expression["text"], [])
        for instance in not_rejected(expression) or []:  # None where all of it is rejected
            boxes.append(box_of(instance["bbox"]))
    total = 0.0
    for expression in expressions:
        gold_boxes = [box_of(instance["bbox"]) for instance in expression["instances"]]
        answered_boxes = boxes_by_text.get(expression["text"])
        if answered_boxes is not None:
            total += _f1(answered_boxes, gold_boxes)
    return total / len(expressions)


def _f1(answered: Sequence[Bbox], gold: Sequence[Bbox]) -> float:
    if not answered and not gold:
        return 1.0
    pairs = match_boxes(answered, gold)
    return 2 * len(pairs) / (len(answered) + len(gold))
