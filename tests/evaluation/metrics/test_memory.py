"""`eval` keeps numbers of what it has compared, not the records."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.eval_records import records
from tests.support.measuring import COMMAND, run
from tests.support.workplace import write_rows

pytestmark = pytest.mark.slow


def test_eval_of_thousands_of_records_takes_little_memory(tmp_path: Path) -> None:
    sides = [*zip(*records(4_000, 4), strict=True)]
    for name, rows in zip(("gold", "found"), sides, strict=True):
        write_rows(tmp_path / f"{name}.jsonl", *rows)
    found, gold = (str(tmp_path / f"{name}.jsonl") for name in ("found", "gold"))
    used = run([*COMMAND, "eval", found, "--gold", gold, "--json"])
    assert used.json()["expressions"] == 4_000
    # 20,000 take 76 MB, and took 284 where all records and COCO's objects were kept
    assert used.peak_mb < 80
