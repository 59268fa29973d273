"""What a client of `benchmarks.peers` is given, and what it writes: the same for all clients."""

from __future__ import annotations

import json
import sys
from typing import Any


def given() -> dict[str, Any]:
    """The job whose file the command names.

    It has `base_url`, `model`, `in_flight`, `system`, `schema`, `results` (a folder that exists)
    and `rows`, each an `image` (a path) and a `prompt`.
    """
    with open(sys.argv[1], encoding="utf-8") as file:
        job: dict[str, Any] = json.load(file)
    return job


def write(job: dict[str, Any], replies: list[str]) -> None:
    """A line for each reply, read as JSON."""
    with open(f"{job['results']}/annotations.jsonl", "w", encoding="utf-8") as file:
        for row, reply in zip(job["rows"], replies, strict=True):
            file.write(json.dumps({"image": row["image"], **json.loads(reply)}) + "\n")
