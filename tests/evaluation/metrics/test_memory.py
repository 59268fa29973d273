"""`eval` keeps numbers of what it has compared, not the records."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.eval_cost import records
from benchmarks.places.measuring import COMMAND

pytestmark = pytest.mark.slow

# A process that is begun by a large one has that one's peak, so a small one lies between.
MEASURED = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], capture_output=True, text=True, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
print(done.stdout)
"""


def test_eval_of_thousands_of_records_takes_little_memory(tmp_path: Path) -> None:
    sides = [*zip(*records(20_000, 4), strict=True)]
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
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command], capture_output=True, text=True, check=True
    )
    peak_kib, figures = done.stdout.split("\n", 1)
    assert json.loads(figures)["expressions"] == 20_000
    # 76 MB; 284 MB where all records and COCO's objects were kept
    assert int(peak_kib) < 200 * 1024
