"""`eval` keeps numbers of what it has compared, not the records."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.eval_cost import records
from benchmarks.measuring import COMMAND, run


def test_eval_of_thousands_of_records_takes_little_memory(tmp_path: Path) -> None:
    sides = [*zip(*records(20_000, 4), strict=True)]
    for name, rows in zip(("gold", "found"), sides, strict=True):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    used = run([*COMMAND, "eval", str(tmp_path / "found.jsonl"), "--gold", str(tmp_path / "gold.jsonl"), "--json"])
    assert used.json()["expressions"] == 20_000
    assert used.peak_mb < 200  # 76 MB; 284 MB where all records and COCO's objects were kept
