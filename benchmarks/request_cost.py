"""Cost of a request: CPU of `generate`, the whole process, against bare clients that send as many
bytes.

    python -m benchmarks.request_cost [--by-part]

3,000 records, each its own 120 KB JPEG and one request (phrase grounding), replies after 20 ms, 64
in flight; and 1,500, which tells further requests from the start. The server answers probe pictures
rightly, so that `generate` checks it to the end; at the other server, which has no box for them,
checks end after two. What starting and ending takes is what a run of 500 records takes beyond their
requests: from the long runs it would be a small difference of large figures. "Keeping" are bare
clients that store replies by digests and write records, as `bare_client.Keeper` does: the least
that takes. With --by-part: where the CPU of a request goes, start included, by parts of the package
and libraries.
"""

from __future__ import annotations

import json
import pstats
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import inputs
from benchmarks.bare_client import ALLOCATOR
from benchmarks.process import ServerProcess
from tests.support.measuring import (
    BOX_FORMAT,
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

FEWER, REQUESTS, IN_FLIGHT, ROUNDS = 1500, 3000, 64, 3
SHORT, SHORT_ROUNDS = 500, 7  # records of a short run; rounds of those and of runs of one record
WHOLE_GOAL = 1.8  # whole processes of REQUESTS, against sockets by hand
SHORT_GOAL = 1.9  # whole processes of SHORT, against aiohttp that keeps replies
FURTHER_GOAL = 1.2  # further requests, against aiohttp that keeps replies
START_GOAL = 0.6
OURS, UNANSWERED = "generate", "generate, probes unanswered"
BY_SDK = "generate, client: sdk"
KEEPING = ", keeping"
HAND, AIOHTTP = "hand", "aiohttp"
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
UNANSWERING = ("--answers", "canned", "--text", REPLY, "--latency", "0.02")
ANSWERING = (*UNANSWERING, "--probes", BOX_FORMAT)
"""Arguments of servers that reply alike, but for probe pictures."""


def rows_to_ground(results: Path, pictures: list[Path]) -> None:
    """What step 0 would have left: two expressions per image, one of them unique."""
    texts = (["wooden table", f"mug number {number}"] for number in range(len(pictures)))
    rows = (
        {"image_path": str(path), "caption": "", "expressions": [{"text": text} for text in pair]}
        for path, pair in zip(pictures, texts, strict=True)
    )
    inputs.write_rows(results / STEP / "annotations.jsonl", rows)


def ours(
    folder: Path,
    name: str,
    pictures: list[Path],
    base_url: str,
    *overrides: str,
    command: Sequence[str] = COMMAND,
) -> Used:
    """`generate` for step 1 alone: one request per record."""
    rows_to_ground(folder / name, pictures)
    used = step_1(folder / name, base_url, *overrides, command=command)
    counts = used.json()
    assert counts["done"] == counts["requests"] - counts["probes"] == len(pictures), counts
    return used


def step_1(
    results: Path,
    base_url: str,
    *overrides: str,
    in_flight: int = IN_FLIGHT,
    command: Sequence[str] = COMMAND,
) -> Used:
    """`generate` for step 1 of a results folder that has step 0."""
    overrides = ('workflow.steps=["1"]', f"workflow.max_workers={in_flight}", *overrides)
    return generate(results, results / "none.jsonl", base_url, *overrides, command=command)


def bare(
    client: str, folder: Path, requests: int, base_url: str, kept_in: Path | None = None
) -> Used:
    """A bare client in a process of its own; with `kept_in` it keeps what it gets there."""
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
    if kept_in is not None:
        kept_in.mkdir()
        command += ["--keep", str(kept_in)]
    return run(
        [*command, "--requests", str(requests), "--in-flight", str(IN_FLIGHT)], settings=ALLOCATOR
    )


def sent_by(client: str, folder: Path, turn: int, pictures: list[Path], base_url: str) -> Used:
    """What a client used in a round, with a request for each of the pictures."""
    count = len(pictures)
    if client in (OURS, UNANSWERED):
        return ours(folder, f"{turn}-{count}-{client}", pictures, base_url)
    if client == BY_SDK:
        return ours(folder, f"{turn}-{count}-sdk", pictures, base_url, "vlm.openai.client=sdk")
    kept_in = folder / f"{turn}-{count}-{client}" if client.endswith(KEEPING) else None
    return bare(client.removesuffix(KEEPING), folder / "pictures", count, base_url, kept_in)


@dataclass(frozen=True)
class Cost:
    """CPU milliseconds of one client's processes, with REQUESTS requests and with FEWER."""

    fewer: float
    all: float

    @property
    def whole(self) -> float:
        """Milliseconds a request, of the whole process with REQUESTS."""
        return self.all / REQUESTS

    @property
    def further(self) -> float:
        """Milliseconds of each request beyond the first FEWER."""
        return (self.all - self.fewer) / (REQUESTS - FEWER)


def measure() -> list[Row]:
    """Cost of a request: CPU of `generate`, the whole process, against bare clients that send as
    many bytes.
    """
    bare_clients = (AIOHTTP, HAND, AIOHTTP + KEEPING, HAND + KEEPING)
    costs: dict[str, list[Cost]] = {
        client: [] for client in (OURS, UNANSWERED, BY_SDK, *bare_clients)
    }
    of_one: list[float] = []
    short: dict[str, list[float]] = {client: [] for client in (OURS, UNANSWERED, AIOHTTP + KEEPING)}
    with (
        workplace() as folder,
        ServerProcess(*ANSWERING) as answering,
        ServerProcess(*UNANSWERING) as unanswering,
    ):
        pictures = inputs.pictures(folder / "pictures", REQUESTS)

        def cpu_of(client: str, turn: int, count: int) -> float:
            server = unanswering if client == UNANSWERED else answering
            return sent_by(client, folder, turn, pictures[:count], server.base_url).cpu_s

        for turn in range(ROUNDS):
            for client, of_client in costs.items():
                cpu = [cpu_of(client, turn, count) * 1000 for count in (FEWER, REQUESTS)]
                of_client.append(Cost(*cpu))
        for turn in range(SHORT_ROUNDS):
            of_one.append(cpu_of(OURS, turn, 1))
            for client, of_short in short.items():
                of_short.append(cpu_of(client, turn, SHORT))
    rows = []
    for client, of_client in costs.items():
        whole = median([cost.whole for cost in of_client])
        further = median([cost.further for cost in of_client])
        what = f"{client}: CPU ms a request, whole process of {REQUESTS:,}; further ones"
        rows.append(Row(what, f"{whole:.2f}; {further:.2f}"))
    rows.append(Row("generate: CPU s of a run of one record", f"{median(of_one):.2f}"))
    start = median(short[OURS]) - SHORT * median([cost.further for cost in costs[OURS]]) / 1000
    rows.append(Row("generate: CPU s of its start and end", *under(start, START_GOAL)))
    for ours_there in (OURS, UNANSWERED):
        rounds = zip(short[ours_there], short[AIOHTTP + KEEPING], strict=True)
        ratio = median([mine / other for mine, other in rounds])
        what = f"{ours_there} / bare {AIOHTTP + KEEPING}, whole processes of {SHORT}"
        rows.append(ratio_row(what, ratio, SHORT_GOAL))
        for client, whole_goal, further_goal in (
            (AIOHTTP, None, None),
            (AIOHTTP + KEEPING, None, FURTHER_GOAL),
            (HAND, WHOLE_GOAL, None),
        ):
            whole, further = ratios(costs[ours_there], costs[client])
            what = f"{ours_there} / bare {client}"
            rows.append(ratio_row(f"{what}, whole processes", whole, whole_goal))
            rows.append(ratio_row(f"{what}, further ones", further, further_goal))
    for client in (AIOHTTP, AIOHTTP + KEEPING, HAND + KEEPING):
        whole, further = ratios(costs[client], costs[HAND])
        rows.append(ratio_row(f"bare {client} / bare {HAND}, whole processes", whole, None))
        rows.append(ratio_row(f"bare {client} / bare {HAND}, further ones", further, None))
    return rows


def ratios(costs: list[Cost], others: list[Cost]) -> tuple[float, float]:
    """How many times as much one client takes as another: whole processes, and further requests.

    Clients take turns: the medians of ratios within a round say more than ratios of medians.
    """
    rounds = list(zip(costs, others, strict=True))
    whole = median([cost.whole / other.whole for cost, other in rounds])
    further = median([cost.further / other.further for cost, other in rounds])
    return whole, further


def ratio_row(what: str, ratio: float, goal: float | None) -> Row:
    """A ratio's row, with a goal or without."""
    return Row(what, f"{ratio:.2f}") if goal is None else Row(what, *under(ratio, goal))


def measure_parts() -> list[Row]:
    """Where the CPU of a request goes: the shares of a profile, of what a run without one takes."""
    with (
        workplace() as folder,
        ServerProcess(*ANSWERING) as server,
    ):
        pictures = inputs.pictures(folder / "pictures", REQUESTS)
        used = ours(folder, "bare", pictures, server.base_url)
        profile = folder / "profile"
        command = [sys.executable, "-m", "cProfile", "-o", str(profile), "-m", "dataflow_grounding"]
        ours(folder, "profiled", pictures, server.base_url, command=command)
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
