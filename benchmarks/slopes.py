"""What each further record costs: CPU and memory of `generate`, `eval`, `stats`, `lint` and
`estimate` as data grow.

    python -m benchmarks.slopes [--records 30000]

Photographs of 1280 by 960 pixels, each record with a path of its own. CPU time (user and system) a
record is that of the largest size less the smallest, so that starting counts for nothing.
`estimate` works through 20,000 records at the most, so its sizes are smaller.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import inputs
from benchmarks.inputs import SIZE, photos
from benchmarks.process import ServerProcess
from benchmarks.request_cost import REPLY, ours
from tests.support.eval_records import records
from tests.support.measuring import COMMAND, Row, Used, run, show, workplace

FEWEST, MOST = 1_000, 30_000
ESTIMATED = (1_000, 20_000)
EVAL_MB, MOST_MB = 200, 160
OF_RESULTS = {
    "stats": 0.3,
    "stats --no-pictures": 0.3,
    "lint": 0.3,
}
"""Commands that look at a run's results, and CPU ms a record at the most; whoever asks for pixels
pays for decoding.
"""
LONG_AGO = 10**18  # nanoseconds: a file that is younger than two seconds may still change


def slope(
    what: str, runs: Sequence[tuple[int, Used]], goal_ms: float | None, goal_mb: float | None
) -> Iterator[Row]:
    """CPU time a further record, and peak memory at each size."""
    (fewest, small), (most, large) = runs[0], runs[-1]
    each = (large.cpu_s - small.cpu_s) / (most - fewest) * 1000
    goal = f"≤ {goal_ms:g}" if goal_ms else ""
    yield Row(f"{what}: CPU ms a record", f"{each:.2f}", goal, each <= goal_ms if goal_ms else None)
    peaks = ", ".join(f"{used.peak_mb:.0f} MB at {count:,}" for count, used in runs)
    goal = f"≤ {goal_mb:g} MB" if goal_mb else ""
    yield Row(f"{what}: peak memory", peaks, goal, large.peak_mb <= goal_mb if goal_mb else None)


def eval_rows(folder: Path, sizes: Sequence[int]) -> Iterator[Row]:
    """Four phrases a record."""
    runs = []
    for count in sizes:
        gold, found = folder / "gold.jsonl", folder / "found.jsonl"
        with gold.open("w") as gold_file, found.open("w") as found_file:
            for wanted, given in records(4 * count, 4):
                gold_file.write(json.dumps(wanted) + "\n")
                found_file.write(json.dumps(given) + "\n")
        runs.append((count, run([*COMMAND, "eval", str(found), "--gold", str(gold), "--json"])))
    return slope("eval, four phrases a record", runs, None, EVAL_MB)


def estimate_rows(folder: Path, pictures: Sequence[Path], base_url: str) -> Iterator[Row]:
    """Both steps, nothing stored."""
    rows = (
        {"image_path": str(path), "caption": inputs.caption(n)} for n, path in enumerate(pictures)
    )
    given = inputs.write_rows(folder / "captions.jsonl", rows)
    block = "image_grounding."
    settings = [f"results_dir={folder / 'none'}", f"{block}data.input_jsonl={given}"]
    settings += [f"{block}vlm.openai.base_url={base_url}", f"{block}vlm.openai.model_name=loopback"]
    settings += [
        f"{block}vlm.backend=openai",
        f"{block}vlm.openai.api_key=sk-test",
        f"{block}vlm.box_format=qwen3-vl",
    ]
    command = [*COMMAND, "estimate", "-e", str(folder / "spec.yaml"), "--json"]
    runs = [(count, run([*command, "--pilot", str(count), *settings])) for count in ESTIMATED]
    return slope("estimate", runs, 0.8, MOST_MB)


def measure(most: int) -> list[Row]:
    """All rows."""
    sizes = (FEWEST, (FEWEST + most) // 2, most)
    with workplace() as folder, ServerProcess("--answers", "canned", "--text", REPLY) as server:
        pictures = photos(folder / "photos", SIZE, max(most, ESTIMATED[-1]))
        for path in (folder / "photos").glob("*.jpg"):
            os.utime(path, ns=(LONG_AGO, LONG_AGO))
        runs = [
            (count, ours(folder, f"run-{count}", pictures[:count], server.base_url))
            for count in sizes
        ]
        rows = [*slope("generate, one request a record", runs, None, MOST_MB)]
        for command, goal_ms in OF_RESULTS.items():
            runs = []
            for count in sizes:
                results = str(folder / f"run-{count}")
                runs.append(
                    (count, run([*COMMAND, *command.split(), results, "--json"], codes=(0, 1)))
                )
            rows += slope(command, runs, goal_ms, MOST_MB)
        rows += estimate_rows(folder, pictures, server.base_url)
        return [*rows, *eval_rows(folder, sizes)]


if __name__ == "__main__":
    show(measure, MOST)
