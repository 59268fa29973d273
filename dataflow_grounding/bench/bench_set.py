"""The pictures that come with the package, and what should be found in them."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.files import within
from dataflow_grounding.data.records import dump_line, parse_line

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "set")
"""Where the set is: `gold.jsonl`, and `pictures/` that it names."""


@dataclass(frozen=True)
class PictureSet:
    """Pictures below `folder` that are asked about, and the gold record of each."""

    folder: str
    records: list[dict[str, Any]]

    def digest(self) -> str:
        """SHA-256, in hex, of the gold records and of the pictures' bytes."""
        digest = sha256()
        for record in self.records:
            digest.update(dump_line(record).encode())
            with open(within(self.folder, record["image_path"]), "rb") as file:
                digest.update(file.read())
        return digest.hexdigest()


def shipped_set(pictures: int | None = None) -> PictureSet:
    """Return the pictures that come with the package, as `gold_records` selects; InputError."""
    return PictureSet(FOLDER, gold_records(FOLDER, pictures))


def gold_records(folder: str = FOLDER, pictures: int | None = None) -> list[dict[str, Any]]:
    """Return gold records in order; with `pictures` only the first that many of each kind."""
    path = os.path.join(folder, "gold.jsonl")
    try:
        with open(path, encoding="utf-8") as file:
            records = [parse_line(line) for line in file]
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"can't read {path}: {why}: install dataflow-grounding again") from None
    if pictures is None:
        return records
    count_of_kind: Counter[str] = Counter()
    selected = []
    for record in records:
        count_of_kind[record["kind"]] += 1
        if count_of_kind[record["kind"]] <= pictures:
            selected.append(record)
    return selected


def captions(gold: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row of each picture with its caption, without the right answers."""
    names = ("image_path", "image_id", "caption")
    return [{name: record[name] for name in names} for record in gold]


def questions(gold: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row of each picture with its phrases, in alphabetical order."""
    # The gold's order would be a hint: phrases that are in the picture come first there.
    rows = captions(gold)
    for row, record in zip(rows, gold, strict=True):
        row["expressions"] = sorted(expression["text"] for expression in record["expressions"])
    return rows
