"""How busy each of several endpoints is kept: requests answered in the run's time, against what its
places could take.

    python -m benchmarks.several_endpoints [--json]

Each case is one `generate` in a process of its own against loopback servers that answer 429 to what
comes while they serve as many requests as they have places. Counted is the time from the first
request to where 5% of them are left.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rate_limits import work
from dataflow_grounding.testing import EchoAnswers, LoopbackServer

GOAL = 0.85
BASE = "http://127.0.0.1:9/v1"


class Case(NamedTuple):
    """`endpoints` are (places, seconds for a reply, weight)."""

    name: str
    endpoints: list[tuple[int, float, float]]
    records: int = 1500
    max_workers: int = 128


CASES = [
    Case("8 and 24 places", [(8, 0.2, 1), (24, 0.2, 1)]),
    Case("8 and 24 places, weights 1:3", [(8, 0.2, 1), (24, 0.2, 3)]),
    Case("8 and 8 places, one slow", [(8, 0.2, 1), (8, 0.8, 1)], records=800),
    Case("8, 16 and 16 places, one slow", [(8, 0.2, 1), (16, 0.4, 1), (16, 0.2, 2)]),
]


def measure(case: Case) -> dict[str, Any]:
    """Run one case; one row of the table."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = []
        for places, latency, _ in case.endpoints:
            server = stack.enter_context(LoopbackServer(EchoAnswers(), latency=latency))
            server.capacity = places
            servers.append(server)
        command = work(Path(folder), case.records, BASE, case.max_workers)
        spec = json.loads((Path(folder) / "spec.yaml").read_text())
        openai = spec["image_grounding"]["vlm"]["openai"]
        openai.pop("base_url")
        openai["endpoints"] = [
            {"base_url": server.base_url, "weight": weight}
            for server, (_, _, weight) in zip(servers, case.endpoints, strict=True)
        ]
        spec["image_grounding"]["vlm"]["check_every"] = None
        (Path(folder) / "spec.yaml").write_text(json.dumps(spec))
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    answered = sorted(
        r.time_sent or 0.0 for server in servers for r in server.requests if r.status_sent == 200
    )
    first = min(server.requests[0].time for server in servers)
    end = answered[int(0.95 * len(answered))]
    busy = []
    for server, (places, latency, _) in zip(servers, case.endpoints, strict=True):
        there = sum(
            1 for r in server.requests if r.status_sent == 200 and (r.time_sent or end) < end
        )
        busy.append(round(there * latency / (places * (end - first)), 3))
    return {
        "case": case.name,
        "exit": done.returncode,
        "answered": len(answered),
        "of": case.records,
        "refused": sum(server.count(429) for server in servers),
        "seconds": round(end - first, 2),
        "busy": busy,
        "reached": done.returncode == 0 and len(answered) == case.records and min(busy) >= GOAL,
    }


def main() -> int:
    """Print the table; exits with 1 when an endpoint was less busy than the goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object per case")
    arguments = parser.parse_args()
    missed = 0
    for case in CASES:
        row = measure(case)
        missed += not row["reached"]
        busy = ", ".join(f"{share:.0%}" for share in row["busy"])
        line = (
            f"{row['case']:32} answered {row['answered']}/{row['of']}, refused {row['refused']},"
            f" busy {busy}"
        )
        print(
            (
                json.dumps(row)
                if arguments.json
                else f"{line}  {'reached' if row['reached'] else 'missed'}"
            ),
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
