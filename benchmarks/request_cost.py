"""Cost of a request: CPU of `generate`, the whole process, against bare clients that send as many
bytes.

    python -m benchmarks.request_cost [--by-part]

1,500 records, each its own 120 KB JPEG and one request (phrase grounding), replies after 20 ms, 64
in flight. With --by-part: where the CPU of a request goes, start included, by parts of the package
and libraries.
"""

from __future__ import annotations

import json
import pstats
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks import inputs
from benchmarks.bare_client import ALLOCATOR
from benchmarks.places.measuring import (
    COMMAND,
    Row,
    Used,
    generate,
    median,
    run,
    show,
    under,
    workplace,
)
from benchmarks.process import ServerProcess

REQUESTS, MORE, IN_FLIGHT, ROUNDS = 1500, 3000, 64, 3
LEAST_SHARE = 0.005  # of a part that has a row of its own
REPLY = json.dumps(
    {
        "objects": [
            {"id": 1, "label": "wooden table", "bbox_2d": [0, 520, 1000, 980], "score": 0.9},
            {"id": 2, "label": "mug", "bbox_2d": [100, 120, 300, 420], "score": 0.8},
        ]
    }
)
STEP = "step_0_expression_extraction"


def rows_to_ground(results: Path, pictures: list[Path]) -> None:
    """What step 0 would have left: two expressions per image, one of them unique."""
    texts = (["wooden table", f"mug number {number}"] for number in range(len(pictures)))
    rows = (
        {"image_path": str(path), "caption": "", "expressions": [{"text": text} for text in pair]}
        for path, pair in zip(pictures, texts, strict=True)
    )
    inputs.write_rows(results / STEP / "annotations.jsonl", rows)


def ours(
    folder: Path, name: str, pictures: list[Path], base_url: str, command: Sequence[str] = COMMAND
) -> Used:
    """`generate` for step 1 alone: one request per record."""
    rows_to_ground(folder / name, pictures)
    used = step_1(folder / name, base_url, command=command)
    counts = used.json()
    assert counts["done"] == counts["requests"] - counts["probes"] == len(pictures), counts
    return used


def step_1(
    results: Path, base_url: str, in_flight: int = IN_FLIGHT, command: Sequence[str] = COMMAND
) -> Used:
    """`generate` for step 1 of a results folder that has step 0."""
    overrides = ('workflow.steps=["1"]', f"workflow.max_workers={in_flight}")
    return generate(results, results / "none.jsonl", base_url, *overrides, command=command)


def bare(client: str, folder: Path, requests: int, base_url: str) -> Used:
    """A bare client in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.bare_client",
        base_url,
        "--client",
        client,
        "--image",
        str(folder),
    ]
    return run(
        [*command, "--requests", str(requests), "--in-flight", str(IN_FLIGHT)], settings=ALLOCATOR
    )


def measure() -> list[Row]:
    """Cost of a request: CPU of `generate`, the whole process, against bare clients that send as
    many bytes.
    """
    whole: dict[str, list[float]] = {"generate": [], "hand": [], "aiohttp": []}
    extra: dict[str, list[float]] = {name: [] for name in whole}
    ratios: dict[str, list[float]] = {
        "hand": [],
        "aiohttp": [],
        "hand more": [],
        "aiohttp more": [],
    }
    with (
        workplace() as folder,
        ServerProcess("--answers", "canned", "--text", REPLY, "--latency", "0.02") as server,
    ):
        pictures = inputs.pictures(folder / "pictures", MORE)
        for turn in range(ROUNDS):
            few: dict[str, float] = {}
            more: dict[str, float] = {}
            for name in whole:
                cpu = []
                for count in (REQUESTS, MORE):
                    if name == "generate":
                        used = ours(folder, f"{turn}-{count}", pictures[:count], server.base_url)
                    else:
                        used = bare(name, folder / "pictures", count, server.base_url)
                    cpu.append(used.cpu_s * 1000)
                few[name], more[name] = cpu[0] / REQUESTS, (cpu[1] - cpu[0]) / (MORE - REQUESTS)
                whole[name].append(few[name])
                extra[name].append(more[name])
            for name in ("hand", "aiohttp"):
                ratios[name].append(few["generate"] / few[name])
                ratios[f"{name} more"].append(more["generate"] / more[name])
    rows = [
        Row(
            f"{name}: CPU ms per request, whole process of {REQUESTS:,}; each request beyond them",
            f"{median(whole[name]):.2f}; {median(extra[name]):.2f}",
        )
        for name in whole
    ]
    for name in ("aiohttp", "hand"):
        rows.append(
            Row(f"generate / bare {name}, whole processes", *under(median(ratios[name]), 1.5))
        )
        rows.append(
            Row(
                f"generate / bare {name}, requests beyond the first",
                *under(median(ratios[f"{name} more"]), 1.5),
            )
        )
    return rows


def measure_parts() -> list[Row]:
    """Where the CPU of a request goes: the shares of a profile, of what a run without one takes."""
    with (
        workplace() as folder,
        ServerProcess("--answers", "canned", "--text", REPLY, "--latency", "0.02") as server,
    ):
        pictures = inputs.pictures(folder / "pictures", REQUESTS)
        used = ours(folder, "bare", pictures, server.base_url)
        profile = folder / "profile"
        command = [sys.executable, "-m", "cProfile", "-o", str(profile), "-m", "dataflow_grounding"]
        ours(folder, "profiled", pictures, server.base_url, command)
        seconds = by_part(profile)
    each = used.cpu_s / REQUESTS * 1e6
    rows = [Row("all: CPU µs per request, whole process", f"{each:.0f}")]
    for part, spent in seconds.most_common():
        share = spent / seconds.total()
        if share >= LEAST_SHARE:
            rows.append(Row(part, f"{share * each:.0f}"))
    return rows


def by_part(profile: Path) -> Counter[str]:
    """Seconds of a cProfile file by part; what is built in counts for whoever called it, but for
    waiting.
    """
    seconds = Counter[str]()
    stats = pstats.Stats(str(profile)).stats  # type: ignore[attr-defined]
    for (file, _, name), (_, _, own, _, callers) in stats.items():
        if file != "~":
            seconds[part_of(file)] += own
        elif "poll" not in name:
            for (caller, _, _), (_, _, own_of_caller, _) in callers.items():
                seconds[part_of(caller)] += own_of_caller
    return seconds


def part_of(file: str) -> str:
    """The package's room or module that a source file is of, or the library, or Python's own."""
    parts = Path(file).with_suffix("").parts
    if "dataflow_grounding" in parts:
        return "dataflow_grounding." + parts[parts.index("dataflow_grounding") + 1]
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    if file.startswith("<frozen importlib"):
        return "imports"
    return (
        "Python:"
        f" {parts[-2] if parts[-2:-1] and parts[-2] in ('asyncio', 'json', 're') else 'other'}"
    )


if __name__ == "__main__":
    by_parts = "--by-part" in sys.argv
    if by_parts:
        sys.argv.remove("--by-part")
    show(measure_parts if by_parts else measure)
