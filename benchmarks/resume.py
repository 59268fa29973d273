"""Resuming: CPU of `generate` for a record that an earlier run has answered, and for a new one.

    python -m benchmarks.resume [--records N]

One request a record (phrase grounding), 64 in flight, replies at once; probe pictures go
unanswered. The step's file is removed, and the run goes on: with its finished rows, also as a kill
before the end would leave them, where nothing says that the run has finished, and without them from
the stored replies alone. What a record takes is that of the larger run less that of one with a
tenth of its records.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from benchmarks import inputs
from benchmarks.process import ServerProcess
from benchmarks.request_cost import REPLY, ours, step_1
from tests.support.measuring import Row, Used, show, workplace

RECORDS = 20_000
GOAL = 0.15  # CPU milliseconds a record
HOUR = 3600.0
OUTPUT = "step_1_grounding/annotations.jsonl"


def leave_as_killed(results: Path) -> None:
    """Remove what a run puts in place at its end, and that it has finished."""
    remove_outputs(results)
    store = results / ".ckpt" / "replies.jsonl"
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(b"".join(line for line in lines if b'"verdict": "finished"' not in line))


def remove_outputs(results: Path) -> None:
    """Remove what a run puts in place at its end."""
    for name in (".ckpt/finished.json", OUTPUT, "annotations.jsonl"):
        (results / name).unlink(missing_ok=True)


def resumed(
    results: Path, base_url: str, records: int, leave: Callable[[Path], None] = remove_outputs
) -> Used:
    """Go on with the folder as `leave` leaves it; no record is asked about, and the step's file is
    what it was.
    """
    before = (results / OUTPUT).read_bytes()
    leave(results)
    used = step_1(results, base_url)
    counts = used.json()
    assert (counts["done"], counts["requests"]) == (records, counts["probes"]), counts
    assert (results / OUTPUT).read_bytes() == before
    return used


def measure(most: int) -> list[Row]:
    """Resuming: CPU of `generate` for a record that an earlier run has answered."""
    sizes = (most // 10, most)
    first, rows, killed, replies = [], [], [], []
    with workplace() as folder, ServerProcess("--answers", "canned", "--text", REPLY) as server:
        small = inputs.pictures(folder / "small", 64, 64, 48, 2)
        for picture in small:
            state = picture.stat()  # rows of a picture that has changed just now aren't kept
            os.utime(picture, (state.st_atime, state.st_mtime - HOUR))
        for records in sizes:
            paths = inputs.links(folder / f"images-{records}", small, records)
            results = folder / f"run-{records}"
            first.append(ours(folder, results.name, paths, server.base_url))
            rows.append(resumed(results, server.base_url, records))
            killed.append(resumed(results, server.base_url, records, leave_as_killed))
            (results / ".ckpt" / "finished_rows.jsonl").unlink()
            replies.append(resumed(results, server.base_url, records))
    more = sizes[1] - sizes[0]
    asked, row, of_killed, reply = (
        (larger.cpu_s - smaller.cpu_s) / more * 1000
        for smaller, larger in (first, rows, killed, replies)
    )
    return [
        Row("asking: CPU ms a record", f"{asked:.2f}"),
        Row("finished rows taken: CPU ms a record", f"{row:.3f}", f"≤ {GOAL}", row <= GOAL),
        Row("the same of a killed run: CPU ms a record", f"{of_killed:.3f}"),
        Row(f"finished rows taken, {most:,} records: wall", f"{rows[1].wall_s:.1f} s"),
        Row(f"the same, {most:,} records: peak memory", f"{rows[1].peak_mb:.0f} MB"),
        Row("without them, from stored replies: CPU ms a record", f"{reply:.3f}"),
    ]


if __name__ == "__main__":
    show(measure, RECORDS)
