"""Rows that wait for nothing don't keep the event loop to themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import FileStorage, Operator

ROWS, MOST_AT_ONCE = 200, 20


class Turns(Operator):
    """Waits for nothing, and writes down how many turns another task has had before each row."""

    name = "turns"
    output_keys = {"turns": "turns"}

    def __init__(self) -> None:
        super().__init__()
        self._others = 0
        self._other: asyncio.Task[None] | None = None

    async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
        if self._other is None:
            self._other = asyncio.create_task(self._count())
        return {"turns": self._others}

    async def _count(self) -> None:
        while True:
            self._others += 1
            await asyncio.sleep(0)


def most_at_once(rows: Iterable[Mapping[str, Any]]) -> int:
    """How many rows were worked on before another task had its next turn."""
    turns = [row["turns"] for row in rows]
    assert len(turns) == ROWS
    return max(turns.count(one) for one in turns)


def test_rows_in_memory_give_others_a_turn() -> None:
    rows = [{"image_path": f"{number}.jpg"} for number in range(ROWS)]
    assert most_at_once(Turns()(rows)) <= MOST_AT_ONCE


@pytest.mark.slow
def test_rows_of_a_file_give_others_a_turn(tmp_path: Path) -> None:
    given = tmp_path / "in.jsonl"
    given.write_text("".join(f'{{"image_path": "{number}.jpg"}}\n' for number in range(ROWS)))
    storage = FileStorage(str(given), str(tmp_path / "cache"))
    Turns().run(storage.step())
    written = Path(storage.path_of(1)).read_text().splitlines()
    assert most_at_once([json.loads(line) for line in written]) <= MOST_AT_ONCE
