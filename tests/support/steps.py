"""Operators over a file of rows, without a spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataflow_grounding import FileStorage, Operator, Pipeline
from dataflow_grounding.data.rows import read_records


def storage_in(folder: Path, *rows: Mapping[str, Any]) -> FileStorage:
    """A storage of these rows, and of what steps make of them, in this folder."""
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "in.jsonl").write_text("".join(lines), encoding="utf-8")
    return FileStorage(str(folder / "in.jsonl"), str(folder / "cache"), "x")


class Steps(Pipeline):
    """These operators, one after the other."""

    def __init__(self, storage: FileStorage, *steps: Operator) -> None:
        self.storage = storage
        self.operators = [*steps]

    def forward(self) -> None:
        for step in self.operators:
            step.run(self.storage.step())

    def records(self) -> list[dict[str, Any]]:
        """What the last of them has left."""
        return read_records(self.storage.path_of(len(self.operators)))
