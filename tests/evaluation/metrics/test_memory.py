"""`eval` keeps numbers of what it has compared, not the records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.eval_records import records
from tests.support.measuring import COMMAND, run

pytestmark = pytest.mark.slow


def test_eval_of_thousands_of_records_takes_little_memory(tmp_path: Path) -> None:
    sides = [*zip(*records(4_000, 4), strict=True)]
    for name, rows in zip(("gold", "found"), sides, strict=True):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        *COMMAND,
        "eval",
        str(tmp_path / "found.jsonl"),
        "--gold",
        str(tmp_path / "gold.jsonl"),
        "--json",
    ]
    used = run(command)
    assert used.json()["expressions"] == 4_000
    # 20,000 take 76 MB, and took 284 where all records and COCO's objects were kept
    assert used.peak_mb < 80
