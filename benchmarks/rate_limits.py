"""How well a run keeps to an endpoint's limit: answered, requests sent, and wall time against the
ideal.

    python -m benchmarks.rate_limits [--only NAME] [--json] [--repeat N]

Each case is one `generate` in a process of its own against a loopback server that answers 429 to
what comes while it serves `capacity` requests. Ideal is the time in which that many always busy
places answer them all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataflow_grounding.testing import EchoAnswers, Fault, LoopbackServer
from tests.support import faults
from tests.support.pacing import lognormal

NEVER = float("inf")
PLAIN = faults.too_many_requests()


@dataclass(frozen=True)
class Case:
    """`capacity` holds (seconds since the first request, places) in order; `latency`
    is in seconds.
    """

    name: str
    capacity: Sequence[tuple[float, int]]
    records: int = 200
    latency: float = 0.1
    sigma: float = 0.0
    max_workers: int = 128
    limit: Fault = PLAIN
    least_answered_per_sent: float = 1 / 1.1
    least_use: float = 0.0
    """Goal for ideal wall / wall."""

    @property
    def ideal(self) -> float:
        """Seconds in which all records are answered when every place is always busy."""
        left, ends = float(self.records), [start for start, _ in self.capacity[1:]] + [NEVER]
        for (start, places), end in zip(self.capacity, ends, strict=True):
            rate = places / self.latency
            if left <= (end - start) * rate:
                return start + left / rate
            left -= (end - start) * rate
        raise AssertionError("unreachable")


def limited(name: str, places: int, records: int) -> Case:
    """An endpoint that takes far fewer requests than are wanted."""
    return Case(
        name,
        [(0, places)],
        records=records,
        max_workers=64,
        least_use=1 / 1.07,
        least_answered_per_sent=1 / 1.05,
    )


CASES = [
    Case("4 places", [(0, 4)]),
    Case("4 places, lognormal", [(0, 4)], sigma=0.7),
    Case("4 places, Retry-After 1 s", [(0, 4)], limit=faults.too_many_requests(1)),
    Case(
        "4 places, Retry-After a date", [(0, 4)], limit=faults.too_many_requests(2, http_date=True)
    ),
    limited("8 places, 64 wanted", 8, records=400),
    limited("16 places, 64 wanted", 16, records=800),
    Case("16 places", [(0, 16)], records=800, least_use=0.85),
    Case("48 places", [(0, 48)], records=2400, least_use=0.85),
    Case("48 places, lognormal", [(0, 48)], records=2400, sigma=0.7, least_use=0.85),
    Case("48, then 12 after 3 s", [(0, 48), (3, 12)], records=2000, least_use=0.85),
    Case("8, then 48 after 4 s", [(0, 8), (4, 48)], records=2000, least_use=0.7),
    Case("32, 8, 32, each 4 s", [(0, 32), (4, 8), (8, 32)], records=3000, least_use=0.7),
    Case("no limit, 64 workers", [(0, 64)], records=2000, max_workers=64, least_use=0.9),
]


def work(folder: Path, records: int, base_url: str, max_workers: int) -> list[str]:
    """Write input and spec; returns the command."""
    from PIL import Image

    Image.new("RGB", (64, 48), "navy").save(folder / "a.jpg")
    rows = [
        {"image_path": "a.jpg", "image_id": str(n), "caption": f"a cup number {n}"}
        for n in range(records)
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    openai = {"base_url": base_url, "model_name": "loopback", "timeout": 30}
    block = {
        "vlm": {"backend": "openai", "box_format": "xyxy_px", "openai": openai},
        "workflow": {"steps": ["0"], "max_workers": max_workers},
        "data": {"input_jsonl": "captions.jsonl"},
    }
    spec = {"results_dir": "results", "autolabel_type": "image_grounding", "image_grounding": block}
    (folder / "spec.yaml").write_text(json.dumps(spec))  # JSON is YAML
    command = [
        sys.executable,
        "-m",
        "dataflow_grounding",
        "generate",
        "-e",
        str(folder / "spec.yaml"),
    ]
    return [*command, "--json", "--no-progress"]


def measure(case: Case) -> dict[str, Any]:
    """Run one case; one row of the table."""
    latency = lognormal(case.latency, case.sigma) if case.sigma else case.latency
    unlimited = case.name.startswith("no limit")
    server = LoopbackServer(EchoAnswers(), latency=latency, limit_fault=case.limit)
    server.capacity = None if unlimited else case.capacity[0][1]
    with tempfile.TemporaryDirectory() as folder, server:
        over = threading.Event()
        mover = threading.Thread(target=_move, args=(server, case.capacity[1:], over))
        mover.start()
        command = work(Path(folder), case.records, server.base_url, case.max_workers)
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        over.set()
        mover.join()
    answered = [request.time_sent for request in server.requests if request.status_sent == 200]
    wall = max(filter(None, answered), default=0.0) - server.requests[0].time
    sent = server.count()
    return {
        "case": case.name,
        "exit": done.returncode,
        "answered": len(answered),
        "of": case.records,
        "sent": sent,
        "sent_per_answer": round(sent / max(len(answered), 1), 3),
        "max_in_flight": server.max_in_flight,
        "wall": round(wall, 2),
        "ideal": round(case.ideal, 2),
        "use": round(case.ideal / wall, 3) if wall else 0.0,
        "reached": (
            done.returncode == 0
            and len(answered) == case.records
            and len(answered) / sent >= case.least_answered_per_sent
            and case.ideal / wall >= case.least_use
        ),
    }


def _move(
    server: LoopbackServer, schedule: Sequence[tuple[float, int]], over: threading.Event
) -> None:
    while not server.requests and not over.is_set():
        time.sleep(0.005)
    for at, capacity in schedule:
        over.wait(max(0.0, server.requests[0].time + at - time.monotonic()))
        server.capacity = capacity


def main() -> int:
    """Print the table; exits with 1 when a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object per case")
    arguments = parser.parse_args()
    chosen = [
        case for case in CASES if arguments.only in case.name for _ in range(arguments.repeat)
    ]
    head = (
        f"{'case':30} {'answered':>11} {'sent':>6} {'sent/ans.':>9} {'in flight':>9} {'wall s':>7}"
    )
    head += f" {'ideal':>6} {'use':>6}"
    if not arguments.json:
        print(head)
    missed = 0
    for case in chosen:
        row = measure(case)
        missed += not row["reached"]
        answered = f"{row['answered']}/{row['of']}"
        line = (
            f"{row['case']:30} {answered:>11} {row['sent']:6} {row['sent_per_answer']:9.3f}"
            f" {row['max_in_flight']:9}"
        )
        line += (
            f" {row['wall']:7.2f} {row['ideal']:6.2f} {row['use']:6.0%} "
            f" {'reached' if row['reached'] else 'missed'}"
        )
        print(json.dumps(row) if arguments.json else line, flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
