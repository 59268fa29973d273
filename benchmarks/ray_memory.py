"""Memory of a run's driver on Ray: the same for 1,000,000 rows as for 100,000, until their files
are put together.

    python -m benchmarks.ray_memory [--rows N [N ...]] [--workers N]

Rows of a caption pass one operator that asks nothing, so that all of the time goes into what a run
does with each row. For each number of rows: peak memory of the driver, as the system reports it,
wall seconds, and whether what was put together has all rows in the order of the input.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dataflow_grounding import FileStorage, Pipeline, operator


@operator(reads=["caption"], writes=["words"])
def count(record):
    """Words of the caption."""
    return {"words": len(record["caption"].split())}


class Counted(Pipeline):
    """One step."""

    def __init__(self, rows: str, results: str) -> None:
        self.storage = FileStorage(rows, results, file_name_prefix="counted", cache_type="jsonl")

    def forward(self) -> None:
        """Count the words."""
        count.run(self.storage.step())


def drive(folder: Path, workers: int) -> None:
    """Be the driver; print what it took."""
    began = time.monotonic()
    summary = Counted(str(folder / "rows.jsonl"), str(folder / "results")).run_on_ray(None, workers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {"done": summary.done, "mb": round(peak), "seconds": round(time.monotonic() - began)}
        )
    )


def measure(rows: int, workers: int) -> str:
    """A line about a run with this many rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open(folder / "rows.jsonl", "w") as file:
            file.writelines(
                f'{{"image_id": "{n}", "caption": "{"a " * (n % 9)}cup"}}\n' for n in range(rows)
            )
        command = [
            sys.executable,
            "-m",
            "benchmarks.ray_memory",
            "--drive",
            name,
            "--workers",
            str(workers),
        ]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            return f"{rows:>9,} rows: ended with {ran.returncode}: {ran.stderr[-500:]}"
        found = json.loads(ran.stdout.splitlines()[-1])
        with open(folder / "results" / "counted_step1.jsonl") as file:
            whole = all(
                (row["image_id"], row["words"]) == (str(n), n % 9 + 1)
                for n, row in enumerate(map(json.loads, file))
            )
        same = "all in order" if whole and found["done"] == rows else "NOT what went in"
        return f"{rows:>9,} rows: {found['mb']} MB, {found['seconds']} s, {same}"


def main() -> None:
    """Measure as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        drive(given.drive, given.workers)
        return
    for rows in given.rows:
        print(measure(rows, given.workers), flush=True)


if __name__ == "__main__":
    main()
