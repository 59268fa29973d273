"""Region captions side by side: this package, and DataFlow's way (a pool of 10 threads, one barrier
per step).

    python -m benchmarks.dataflow_way --python PYTHON [--records N]

PYTHON is that of an environment with `open-dataflow` (see docs/dataflow.md), whose storage and
serving are used. Each run is a process of its own against a loopback server that takes 0.1 s for an
answer; both have at most 10 requests in flight. "lost" counts rows without a text of the model when
the run is over; after a kill the same command is given once more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataflow_grounding.data.rows import read_records
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest

HERE = Path(__file__).resolve().parent
LATENCY = 0.1
PICTURES = 20
echo = EchoAnswers()


def answers(request: ReceivedRequest) -> Any:
    return (
        echo(request)
        if request.task
        else "In <region1> there is a thing. In <region2> there is another."
    )


@dataclass
class Case:
    """`capacity`: requests that the server takes at once; `kill_at`: share of rows after which the
    run is killed.
    """

    name: str
    capacity: int | None = None
    kill_at: float | None = None


@dataclass
class Cost:
    """What the processes of one run used together."""

    cpu: float = 0.0
    memory: int = 0
    codes: list[int] = field(default_factory=list)

    def add(self, process: subprocess.Popen[bytes]) -> None:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu += used.ru_utime + used.ru_stime
        self.memory = max(self.memory, used.ru_maxrss // 1024)
        self.codes.append(process.returncode)


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has; what it used can still be asked for, which `poll` would take away."""
    how = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, how) is not None


CASES = [
    Case("no fault"),
    Case("429 above 4 in flight", capacity=4),
    Case("kill -9 at half", kill_at=0.5),
]


def make_rows(folder: Path, count: int) -> Path:
    """Rows with two boxes each, no two rows alike."""
    from PIL import Image

    chance = random.Random(1)
    for number in range(PICTURES):
        noise = Image.frombytes("RGB", (80, 60), chance.randbytes(80 * 60 * 3))
        noise.resize((640, 480)).save(folder / f"{number}.jpg", quality=88)
    rows = []
    for number in range(count):
        boxes = [
            [chance.randrange(300), chance.randrange(200), 60 + number % 200, 80 + number // 200]
            for _ in range(2)
        ]
        rows.append({"image": str(folder / f"{number % PICTURES}.jpg"), "bbox": boxes})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ours(url: str, rows: Path, out: Path, python: str) -> tuple[list[str], Path]:
    vlm = {
        "backend": "openai",
        "box_format": "xyxy_px",
        "openai": {"base_url": url, "model_name": "loopback"},
    }
    block = {"vlm": vlm, "workflow": {"max_workers": 10}, "data": {"input_jsonl": str(rows)}}
    spec = {
        "results_dir": str(out),
        "autolabel_type": "image_region_caption",
        "image_region_caption": block,
    }
    path = out.with_suffix(".yaml")
    path.write_text(json.dumps(spec))
    command = [
        sys.executable,
        "-m",
        "dataflow_grounding",
        "generate",
        "-e",
        str(path),
        "--no-progress",
    ]
    return command, out / "annotations.jsonl"


def theirs(url: str, rows: Path, out: Path, python: str) -> tuple[list[str], Path]:
    out.mkdir(exist_ok=True)
    return [
        python,
        str(HERE / "dataflow_child.py"),
        url,
        str(rows),
        str(out),
    ], out / "region_caption_step2.jsonl"


Way = Callable[[str, Path, Path, str], "tuple[list[str], Path]"]


def measure(case: Case, way: Way, folder: Path, count: int, python: str) -> dict[str, Any]:
    rows = make_rows(folder, count)
    cost = Cost()
    start = time.monotonic()
    with LoopbackServer(answers, latency=LATENCY, capacity=case.capacity, record=False) as server:
        command, result = way(server.base_url, rows, folder / "out", python)

        def begin() -> subprocess.Popen[bytes]:
            log = open(folder / "log", "ab")  # noqa: SIM115
            environment = {**os.environ, "DF_API_KEY": "k", "OPENAI_API_KEY": "k"}
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

        process = begin()
        if case.kill_at is not None:
            while server.paid < case.kill_at * count and not has_ended(process):
                time.sleep(0.02)
            process.kill()
            cost.add(process)
            process = begin()
        cost.add(process)
        if not server.count():
            last_line = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise SystemExit(f"{command[0]} asked nothing: {' '.join(last_line)}")
        found = read_records(str(result)) if result.exists() else []
        done = sum(bool(row.get("answer")) and "Error" not in row["answer"] for row in found)
        return {
            "case": case.name,
            "way": "this package" if way is ours else "DataFlow's",
            "lost": count - done,
            "requests": server.count(),
            "answered": server.paid,
            "exit": "/".join(map(str, cost.codes)),
            "CPU s": round(cost.cpu, 1),
            "MB": cost.memory,
            "wall s": round(time.monotonic() - start, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--python", required=True, help="a Python that has open-dataflow and opencv-python-headless"
    )
    parser.add_argument("--records", type=int, default=1000)
    arguments = parser.parse_args()
    names: list[str] = []
    for case in CASES:
        for way in (theirs, ours):
            with tempfile.TemporaryDirectory(prefix="dataflow-way-") as folder:
                row = measure(case, way, Path(folder), arguments.records, arguments.python)
            if not names:
                names = list(row)
                print(f"{arguments.records} rows\n" + " | ".join(names), flush=True)
            print(" | ".join(str(row[name]) for name in names), flush=True)


if __name__ == "__main__":
    main()
