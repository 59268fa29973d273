"""Resuming: CPU of `generate` for a record that an earlier run has answered, and for a new one.

    python -m benchmarks.resume [--records N]

One request a record (phrase grounding), 64 in flight, replies at once; probe pictures go
unanswered. The step's file is removed, and the run goes on from the stored replies. What a record
takes is that of the larger run less that of one with a tenth of its records.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import inputs
from benchmarks.process import ServerProcess
from benchmarks.request_cost import REPLY, ours, step_1
from tests.support.measuring import Row, Used, show, workplace

RECORDS = 20_000
GOAL = 2.0  # CPU milliseconds a record
OUTPUT = "step_1_grounding/annotations.jsonl"


def remove_outputs(results: Path) -> None:
    """Remove what a run puts in place at its end."""
    for name in (".ckpt/facts.json", OUTPUT, "annotations.jsonl"):
        (results / name).unlink(missing_ok=True)


def resumed(results: Path, base_url: str, records: int) -> Used:
    """Go on with the folder; no record is asked about, and the step's file is what it was."""
    before = (results / OUTPUT).read_bytes()
    remove_outputs(results)
    used = step_1(results, base_url)
    counts = used.json()
    assert (counts["done"], counts["requests"]) == (records, counts["probes"]), counts
    assert (results / OUTPUT).read_bytes() == before
    return used


def measure(most: int) -> list[Row]:
    """Resuming: CPU of `generate` for a record that an earlier run has answered."""
    sizes = (most // 10, most)
    first, again = [], []
    with workplace() as folder, ServerProcess("--answers", "canned", "--text", REPLY) as server:
        small = inputs.pictures(folder / "small", 64, 64, 48, 2)
        for records in sizes:
            paths = inputs.links(folder / f"images-{records}", small, records)
            results = folder / f"run-{records}"
            first.append(ours(folder, results.name, paths, server.base_url))
            again.append(resumed(results, server.base_url, records))
    more = sizes[1] - sizes[0]
    asked, row = (
        (larger.cpu_s - smaller.cpu_s) / more * 1000 for smaller, larger in (first, again)
    )
    return [
        Row("asking: CPU ms a record", f"{asked:.2f}"),
        Row("going on: CPU ms a record", f"{row:.3f}", f"≤ {GOAL}", row <= GOAL),
        Row(f"going on, {most:,} records: wall", f"{again[1].wall_s:.1f} s"),
        Row(f"going on, {most:,} records: peak memory", f"{again[1].peak_mb:.0f} MB"),
    ]


if __name__ == "__main__":
    show(measure, RECORDS)
