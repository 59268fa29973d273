"""Memory and resume: peak memory of 1,000, 10,000 and 100,000 records, and what it takes to go on
with 100,000.

    python -m benchmarks.large_runs

One request per record (phrase grounding), 64 in flight, replies at once. Every record has an image
path of its own. The 100,000 paths are hard links to few small files.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import inputs
from benchmarks.process import ServerProcess
from benchmarks.request_cost import REPLY, ours, step_1
from tests.support.measuring import Row, Used, show, under, workplace

RECORDS, MISSING = 100_000, 1_000
OUTPUT = "step_1_grounding"


def forget_last(results: Path, lines: int) -> int:
    """Leave the folder as a run that was killed before its last replies would; returns the bytes of
    a reply's line.
    """
    store = results / ".ckpt" / "replies.jsonl"
    stored = store.read_bytes().splitlines(keepends=True)
    replies = [place for place, line in enumerate(stored) if b'"task": "phrase_grounding"' in line]
    gone = set(replies[-lines:])
    store.write_bytes(b"".join(line for place, line in enumerate(stored) if place not in gone))
    rows = results / ".ckpt" / "finished_rows.jsonl"
    finished = rows.read_bytes().splitlines(keepends=True)
    rows.write_bytes(b"".join(finished[:-lines]))
    (results / ".ckpt" / "finished.json").unlink()
    for left in (results / OUTPUT / "annotations.jsonl", results / "annotations.jsonl"):
        left.unlink()
    return sum(map(len, stored)) // len(stored)


def memory(folder: Path, name: str, pictures: list[Path], records: int, base_url: str) -> Row:
    """A run of this many records."""
    paths = inputs.links(folder / f"{name}-images", pictures, records)
    used = ours(folder, name, paths, base_url)
    kilobytes = pictures[0].stat().st_size // 1000
    figure, goal, reached = under(used.peak_mb, 150, "{:.0f} MB")
    cpu = f", {used.cpu_s / records * 1000:.2f} CPU ms per record, {used.wall_s:.0f} s"
    return Row(
        f"peak memory, {records:,} records, JPEGs of {kilobytes} KB", figure + cpu, goal, reached
    )


def measure() -> list[Row]:
    """Memory and resume: peak memory of 1,000, 10,000 and 100,000 records, and what it takes to go
    on with 100,000.
    """
    with workplace() as folder, ServerProcess("--answers", "canned", "--text", REPLY) as server:
        large = inputs.pictures(folder / "large", 400)
        small = inputs.pictures(folder / "small", 64, 64, 48, 2)
        runs = (
            ("a", small, 1_000),
            ("b", large, 1_000),
            ("c", large, 10_000),
            ("d", small, RECORDS),
        )
        rows = [
            memory(folder, name, pictures, records, server.base_url)
            for name, pictures, records in runs
        ]
        return rows + resume(folder / "d", server.base_url)


def timed(used: Used, goal: float) -> tuple[str, str, bool]:
    """Wall and CPU seconds, the wall seconds against a goal."""
    return f"{used.wall_s:.1f} s ({used.cpu_s:.1f} CPU s)", f"≤ {goal:g} s", used.wall_s <= goal


def resume(results: Path, base_url: str) -> list[Row]:
    """Going on with the folder of the last run."""
    complete = step_1(results, base_url)
    summary = complete.json()
    assert summary["already_complete"], summary
    assert summary["failed"] == 0, summary
    before = (results / OUTPUT / "annotations.jsonl").read_bytes()
    size = forget_last(results, MISSING)
    rest = step_1(results, base_url)
    counts = rest.json()
    assert counts["done"] == RECORDS, counts
    same = (results / OUTPUT / "annotations.jsonl").read_bytes() == before
    sent = counts["requests"] - counts["probes"]
    return [
        Row(
            f"{RECORDS:,} records finished: time to “nothing to do”",
            *timed(complete, 5),
        ),
        Row("the same, peak memory", *under(complete.peak_mb, 150, "{:.0f} MB")),
        Row(f"the last {MISSING:,} missing: time to the end", *timed(rest, 60)),
        Row("the same, requests sent", str(sent), str(MISSING), sent == MISSING),
        Row(
            "the same, results byte for byte those of the undisturbed run",
            "yes" if same else "no",
            "yes",
            same,
        ),
        Row("stored for a reply", f"{size} bytes"),
    ]


if __name__ == "__main__":
    show(measure)
