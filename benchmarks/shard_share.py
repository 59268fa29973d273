"""How fairly shards of one run share an endpoint's limit without talking: 4 processes, 429 above 16
in flight.

    python -m benchmarks.shard_share [--shards N] [--places N] [--records N] [--json]

The endpoint's use and each shard's part are counted while all shards are at work, after a first
second. Jain's index is 1 where all have the same part, 1/n where one has all.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.rate_limits import work
from dataflow_grounding.testing import EchoAnswers, LoopbackServer

START = 1.0  # seconds, in which the shards find out what the endpoint takes


def measure(shards: int, places: int, records: int, latency: float) -> dict[str, Any]:
    """Run the shards side by side; what the server saw of each, by the picture that it is about."""
    server = LoopbackServer(EchoAnswers(), latency=latency)
    server.capacity = places
    with tempfile.TemporaryDirectory() as folder, server:
        command = work(Path(folder), records, server.base_url, 64)
        rows = [
            json.loads(line) for line in (Path(folder) / "captions.jsonl").read_text().splitlines()
        ]
        for row in rows:  # a picture of its own each: all rows of a picture are in one shard
            os.link(Path(folder) / "a.jpg", Path(folder) / f"{row['image_id']}.jpg")
            row["image_path"] = f"{row['image_id']}.jpg"
        (Path(folder) / "captions.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
        spec = json.loads((Path(folder) / "spec.yaml").read_text())
        running = []
        for number in range(1, shards + 1):  # each says who it is in a header
            headers = {"X-Shard": str(number)}
            spec["image_grounding"]["vlm"]["openai"]["extra_headers"] = headers
            path = Path(folder) / f"spec-{number}.yaml"
            path.write_text(json.dumps(spec))
            mine = [str(path) if word.endswith("spec.yaml") else word for word in command]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            running.append(subprocess.Popen([*mine, "--shard", f"{number}/{shards}"], **quiet))  # type: ignore[call-overload]
        codes = [process.wait(timeout=600) for process in running]
        requests = list(server.requests)
    whose = [request.headers.get("x-shard", "") for request in requests]
    starts = {
        shard: min(r.time for r, w in zip(requests, whose, strict=True) if w == shard)
        for shard in set(whose)
    }
    ends = {
        shard: max(r.time for r, w in zip(requests, whose, strict=True) if w == shard)
        for shard in set(whose)
    }
    begin, end = max(starts.values()) + START, min(ends.values())
    within = [(r, w) for r, w in zip(requests, whose, strict=True) if begin <= r.time < end]
    parts = Counter(w for r, w in within if r.status_sent == 200)
    answered = sum(parts.values())
    return {
        "exit": codes,
        "answered": sum(1 for request in requests if request.status_sent == 200),
        "seconds": round(end - begin, 2),
        "use": round(answered * latency / (places * (end - begin)), 3),
        "parts": [round(parts[shard] / answered, 3) for shard in sorted(starts)],
        "jain": round(answered**2 / (shards * sum(count**2 for count in parts.values())), 3),
        "refused": round(sum(1 for r, _ in within if r.status_sent == 429) / answered, 3),
        "refused_in_all": sum(1 for request in requests if request.status_sent == 429),
    }


def main() -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--places", type=int, default=16)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds for a reply")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    given = parser.parse_args()
    found = measure(given.shards, given.places, given.records, given.latency)
    if given.json:
        print(json.dumps(found))
    else:
        parts = ", ".join(f"{part:.0%}" for part in found["parts"])
        print(
            f"{found['answered']} of {given.records} answered; with all at work for"
            f" {found['seconds']} s: use"
        )
        print(f"{found['use']:.0%} of {given.places} places, parts {parts} (Jain {found['jain']}),")
        print(f"refused {found['refused']:.3f} per answer; {found['refused_in_all']} in all")
    return 0 if found["answered"] == given.records and not any(found["exit"]) else 1


if __name__ == "__main__":
    sys.exit(main())
