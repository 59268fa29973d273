"""Pictures with gold: what is asked about them, and how right an answer is."""

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import absolute, joined
from dataflow_grounding.boxes.geometry import Bbox, box_of
from dataflow_grounding.boxes.matching import match_boxes
from dataflow_grounding.data.classes import class_of
from dataflow_grounding.data.rejected import not_rejected
from dataflow_grounding.data.results_folder import image_folders_of
from dataflow_grounding.extras.evaluation.metrics import read_annotations
from dataflow_grounding.extras.evaluation.metrics.annotations import as_gold, names_of

LEAST = 8
"""The least number of pictures: fewer tell nothing of a way of asking."""


@dataclass(frozen=True)
class Phrase:
    """A phrase of a picture, its class, and the boxes that are right, in its pixels."""

    text: str
    label: str
    boxes: Sequence[Bbox]


@dataclass(frozen=True)
class GoldPicture:
    """A picture with the phrases whose boxes are known.

    Attributes:
        path: Where it is.
        caption: Its caption, or "".
        phrases: What is asked about it; a phrase without boxes is absent from it.
    """

    path: str
    caption: str
    phrases: Sequence[Phrase]

    def row(self, number: int) -> dict[str, Any]:
        """Return what is asked, without what is right, as the grounding step reads it."""
        expressions = [{"text": phrase.text, "class": phrase.label} for phrase in self.phrases]
        return {
            "image_path": self.path,
            "image_id": str(number),
            "caption": self.caption,
            "expressions": expressions,
        }


def gold_pictures(
    source: str, image_folders: Sequence[str] = (), most: int | None = None
) -> list[GoldPicture]:
    """Return the pictures of a gold file, always in the same order, which is drawn by lot.

    Of a file that a person has reviewed, what was found right counts; the rest isn't asked. Of
    several records of one picture, the first counts. Pictures that aren't there, or have no phrase
    with known boxes, are left out.

    Args:
        source: A file of records, or a results folder.
        image_folders: Where relative paths are looked for besides where the run looked.
        most: So many pictures, and no more.

    Raises:
        InputError: It can't be read, or fewer than LEAST pictures are left.
    """
    folders = [*image_folders, *image_folders_of(source)]
    by_path: dict[str, GoldPicture] = {}
    missing = ""
    for number, record in enumerate(as_gold(read_annotations(source, keep_rejected=False)), 1):
        phrases = list(_phrases_of(record))
        if not phrases:
            continue
        name, _ = names_of(record, f"{source}, record {number}")
        path = _find_picture(name, folders)
        if not path:
            missing = missing or name  # the first one is named in the error
            continue
        caption = record.get("cleaned_caption") or record.get("caption") or ""
        by_path.setdefault(path, GoldPicture(path, caption, phrases))
    pictures = [by_path[path] for path in sorted(by_path)]
    if len(pictures) < LEAST:
        lacking = f"; {missing} isn't there" if missing else ""
        raise InputError(
            f"{source} has {len(pictures)} pictures with gold: tune needs at least {LEAST},"
            f" better 20 to 40{lacking}"
        )
    random.Random(0).shuffle(pictures)
    return pictures[:most]


def _phrases_of(record: Mapping[str, Any]) -> Iterator[Phrase]:
    """Yield the phrases whose boxes are known, each text once: that which comes first counts."""
    seen = set()
    for expression in record["expressions"]:
        text = expression["text"]
        if expression.get("status") == "pending" or text in seen:
            continue
        seen.add(text)
        boxes = [box_of(instance["bbox"]) for instance in expression["instances"]]
        yield Phrase(text, class_of(expression), boxes)


def _find_picture(name: str, folders: Sequence[str]) -> str:
    """Return the path of a picture in the first folder that has it; "" where none has."""
    for folder in folders:
        path = joined(folder, name)
        if os.path.isfile(path):
            return absolute(path)
    return ""


def score_of(picture: GoldPicture, record: Mapping[str, Any] | None) -> float:
    """Return how right an answer about a picture is: its phrases' mean F1, from 0 to 1.

    A phrase's F1 is that of its boxes at IoU 0.5; of an absent one it is 1 without boxes, else 0.
    No answer (None) is worth 0. What is answered about other phrases doesn't count.

    Example:
        >>> picture = GoldPicture("a.jpg", "", [Phrase("a dog", "dog", [(0, 0, 9, 9)])])
        >>> answer = {"expressions": [{"text": "a dog", "instances": [{"bbox": [0, 0, 9, 8]}]}]}
        >>> score_of(picture, answer), score_of(picture, None)
        (1.0, 0.0)
    """
    if record is None:
        return 0.0
    answered_boxes = boxes_by_text(record)
    scores = []
    for phrase in picture.phrases:
        scores.append(f1_of(answered_boxes.get(phrase.text, []), phrase.boxes))
    return sum(scores) / len(scores)


def boxes_by_text(record: Mapping[str, Any]) -> dict[str, list[Bbox]]:
    """Return each phrase's boxes in a record that a run left, without rejected ones.

    A phrase without boxes is left out; expressions with the same text are taken together.
    """
    boxes: dict[str, list[Bbox]] = {}
    for expression in record["expressions"]:
        instances = not_rejected(expression) or []  # None where all boxes were rejected
        for instance in instances:
            boxes.setdefault(expression["text"], []).append(box_of(instance["bbox"]))
    return boxes


def f1_of(answered: Sequence[Bbox], right: Sequence[Bbox]) -> float:
    """Return the F1 of boxes against the right ones, at IoU 0.5.

    1 where there are neither, 0 where there are only the ones or the others.
    """
    if not answered and not right:
        return 1.0
    return 2 * len(match_boxes(answered, right)) / (len(answered) + len(right))
