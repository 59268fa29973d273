"""How long `dataflowgrounding bench` takes, what it says beforehand that it costs, and what it
measures of a model whose errors are planted.

    python -m benchmarks.bench_time [--latency SECONDS] [--json]

The usual ways are asked of a loopback server whose model takes the latency (1 s) for each answer.
It is a stand-in that knows the gold and errs (`stand_ins/bench_model.py`); at most eight requests
are in flight, which is what the command does by itself. The crops of `zoom` are pictures that it
doesn't know: it answers as for the whole, so that way's figures say nothing here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from dataflow_grounding.testing import LoopbackServer
from tests.support.stand_ins.bench_model import BenchModel
from tests.support.workplace import REPOSITORY

MODEL = "gemini-2.5-flash-lite"  # a small model with a known price
GOAL_SECONDS = 300
GOAL_USD = 0.15
GOAL_SET_BYTES = 6_000_000
SHOWN = ("recall_at_iou_0.5", "n_acc", "il_mcc", "span_exact_f1")
SET = REPOSITORY / "dataflow_grounding/bench/set"


def measure(latency: float) -> dict[str, Any]:
    """Run the estimate, then the bench, each in a process of its own; return the figures.

    Raises SystemExit with what the command said where it doesn't end well.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        LoopbackServer(BenchModel(), latency=latency) as server,
    ):
        estimate = json.loads(_bench(server.base_url, folder, "--estimate", "--json"))
        began = time.perf_counter()
        document = json.loads(_bench(server.base_url, folder, "--json"))
        seconds = time.perf_counter() - began
        requests = len(server.requests)
    return {
        "latency": latency,
        "ways": list(document["ways"]),
        "requests": requests,
        "seconds": round(seconds, 1),
        "estimated_requests": estimate["requests"],
        "estimated_usd": round(estimate["cost_usd"], 3),
        "measured": {way: of_way["figures"]["all"] for way, of_way in document["ways"].items()},
        "set_bytes": sum(path.stat().st_size for path in SET.rglob("*") if path.is_file()),
    }


def _bench(base_url: str, folder: str, *arguments: str) -> str:
    """Run the command in the folder; return what it printed. Raises SystemExit where it fails."""
    environment = {
        **os.environ,
        "DF_BASE_URL": base_url,
        "DF_MODEL": MODEL,
        "DF_API_KEY": "sk-of-the-benchmark",
        "DF_BOX_FORMAT": "xyxy_1000",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, "-m", "dataflow_grounding", "bench", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    if done.returncode:
        raise SystemExit(f"bench ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def _with_interval(figure: dict[str, Any]) -> str:
    """Return a figure and its interval as text: `.861 (.81-.91)`."""
    text = f"{figure['value']:.3f}"
    if figure["interval"]:
        low, high = figure["interval"]
        text += f" ({low:.2f}-{high:.2f})"
    return text


def main() -> int:
    """Print the figures and their goals; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--latency", type=float, default=1.0)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    arguments = parser.parse_args()
    figures = measure(arguments.latency)
    goals = [
        (f"bench, {len(figures['ways'])} ways, s", figures["seconds"], GOAL_SECONDS),
        ("estimated USD", figures["estimated_usd"], GOAL_USD),
        ("the set, bytes", figures["set_bytes"], GOAL_SET_BYTES),
    ]
    if arguments.json:
        print(json.dumps(figures))
    else:
        _show(figures, goals)
    return 1 if any(value > goal for _, value, goal in goals) else 0


def _show(figures: dict[str, Any], goals: list[tuple[str, float, float]]) -> None:
    """Print the figures for people; `goals` are a name, what was measured, and the most."""
    for name, value, goal in goals:
        mark = "  **missed**" if value > goal else ""
        print(f"{name:24} {value:>12,}  goal {goal:,}{mark}")
    estimated = figures["estimated_requests"]
    print(f"{'requests':24} {figures['requests']:>12,}  estimated {estimated:,}")
    for way, of_way in figures["measured"].items():
        shown = [f"{name} {_with_interval(of_way[name])}" for name in SHOWN if name in of_way]
        print(f"{way:12} {', '.join(shown)}")


if __name__ == "__main__":
    sys.exit(main())
