"""The jobs of the soak: each pipeline on this machine, on Ray, and with its results in a bucket."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, ClassVar

from benchmarks.fault_cases.ray_faults import RAY, family
from benchmarks.fault_cases.store_faults import QUICK, objects
from benchmarks.places.store import BUCKET, FaultyStore, environment
from benchmarks.places.workplace import REPOSITORY, Workplace, caption, process

COUNT = 40
WORKERS = 8
SIGNALS = {"kill": signal.SIGKILL, "Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}
SCRIPT = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from benchmarks.fault_cases.script_faults import ByHand, OpenAIServing, count
from dataflow_grounding.engine.options import RunOptions
url, stream, put_in = sys.argv[1:]
serving = OpenAIServing(url, "loopback", box_format="xyxy_px", max_workers={workers}, timeout=20)
pipeline = ByHand(Path("."), serving, count if put_in == "True" else None)
if stream == "True":
    pipeline.compile()
sys.exit(pipeline.forward(options=RunOptions(max_attempts=50)).exit_code)
"""


@dataclass
class Job:
    """One pipeline in a folder: how its run is started and stopped, and which files it leaves.

    `stops` are the ways to disturb it, and `at_once` is how many requests may be in flight.
    """

    stops: ClassVar[tuple[str, ...]] = (
        *SIGNALS,
        "full disk",
        "changed input",
        "step put in",
        "nothing",
    )
    at_once: ClassVar[int] = WORKERS

    place: Workplace
    kind: str
    stream: bool
    put_in: bool = False
    """Whether a free step stands between the others (pipelines by hand)."""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def prepare(self) -> None:
        """Write the input."""
        place = self.place
        name = place.picture("img/a.jpg")
        for number in range(COUNT):
            row: dict[str, Any] = {
                "image_path": name,
                "image_id": f"r{number}",
                "caption": caption(number),
            }
            if self.kind == "image_region_caption":
                row = {
                    "image": name,
                    "image_id": f"r{number}",
                    "bbox": [[number, 3, 10 + number % 7, 20]],
                }
            self.rows.append(row)
        if self.kind == "image_referring_expression":
            for number in range(COUNT):
                place.picture(f"pictures/{number}.jpg", (64 + number, 48))
                label = place.folder / "labels" / f"{number}.txt"
                label.parent.mkdir(exist_ok=True)
                label.write_text(
                    "Car 0 0 0 2 3 22 23 0 0 0 0 0 0 0\nVan 0 0 0 30 10 50 30 0 0 0 0 0 0 0\n"
                )
        place.rows(self.rows)
        if self.kind == "by hand":
            path = [str(REPOSITORY)]
            (place.folder / "script.py").write_text(SCRIPT.format(path=path, workers=WORKERS))

    def start(self, url: str, **options: Any) -> subprocess.Popen[str]:
        """Begin, or go on."""
        if self.kind == "by hand":
            line = [sys.executable, "script.py", url, str(self.stream), str(self.put_in)]
            pipes: dict[str, Any] = {
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                "text": True,
            }
            return subprocess.Popen(line, cwd=self.place.folder, **pipes, **options)
        data: dict[str, Any] = {"input_jsonl": str(self.place.input)}
        if self.kind == "image_referring_expression":
            data = {"image_dir": str(self.place.folder / "pictures")}
            data["kitti_label_dir"] = str(self.place.folder / "labels")
        openai = {"base_url": url, "model_name": "loopback", "timeout": 20}
        vlm = {"backend": "openai", "box_format": "xyxy_px", "check_every": None, "openai": openai}
        flow = {"max_workers": WORKERS, "max_attempts": 50, "stream": self.stream}
        block = {"vlm": vlm, "workflow": flow, "data": data}
        spec = {
            "results_dir": str(self.place.results),
            "autolabel_type": self.kind,
            self.kind: block,
        }
        path = self.place.folder / "spec.yaml"
        path.write_text(json.dumps(spec))
        return self.started(["generate", "-e", str(path), "--no-progress"], **options)

    def started(self, arguments: list[str], **options: Any) -> subprocess.Popen[str]:
        """The command as a process of its own."""
        return process(arguments, cwd=self.place.folder, **options)

    def stop(self, kind: str, running: subprocess.Popen[str]) -> None:
        """Stop a run in one of the ways."""
        if kind in SIGNALS:
            running.send_signal(SIGNALS[kind])

    def disturb(self, draw: random.Random) -> None:
        """Let what lies between the run and its files go wrong."""

    def heal(self) -> None:
        """Nothing goes wrong any more."""

    def files(self) -> dict[str, bytes]:
        """The step files, the annotations and the failures, by their place."""
        top = self.place.folder / "cache" if self.kind == "by hand" else self.place.results
        paths = sorted(path for path in top.rglob("*.jsonl") if ".ckpt" not in path.parts)
        folder = str(self.place.folder).encode()
        return {
            str(path.relative_to(top)): path.read_bytes().replace(folder, b"HERE") for path in paths
        }

    def change_input(self, draw: random.Random) -> None:
        """Other rows, with no new question: in another order, some of them twice."""
        self.place.rows(draw.sample(self.rows, len(self.rows)) + draw.sample(self.rows, 5))


@dataclass
class OnRay(Job):
    """By two workers on a Ray of its own; a worker may be killed, or freeze."""

    stops: ClassVar[tuple[str, ...]] = (*SIGNALS, "worker killed", "changed input", "nothing")
    at_once: ClassVar[int] = 2 * WORKERS

    def started(self, arguments: list[str], **options: Any) -> subprocess.Popen[str]:
        return process([*arguments, *RAY], cwd=self.place.folder, **options)

    def stop(self, kind: str, running: subprocess.Popen[str]) -> None:
        super().stop(kind, running)
        if kind == "worker killed":
            workers = [
                pid
                for pid, called in family(running.pid).items()
                if called.startswith("ray::Worker")
            ]
            for pid in workers[:1]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@dataclass
class InABucket(Job):
    """With a store that refuses, tears, lists late, and loses answers."""

    store: FaultyStore | None = None
    name: str = field(default_factory=lambda: token_hex(6))

    @property
    def there(self) -> FaultyStore:
        """The store."""
        assert self.store is not None
        return self.store

    def prepare(self) -> None:
        super().prepare()
        self.place.results = f"s3://{BUCKET}/{self.name}"  # type: ignore[assignment]

    def started(self, arguments: list[str], **options: Any) -> subprocess.Popen[str]:
        where = {"PYTHONPATH": str(REPOSITORY), "DF_WORK_FOLDER": str(self.place.folder / "work")}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        env = {**os.environ, **environment(self.there), **where}
        return subprocess.Popen(
            [sys.executable, "-c", QUICK, *arguments],
            env=env,
            cwd=self.place.folder,
            **pipes,
            **options,
        )

    def files(self) -> dict[str, bytes]:
        found = {
            name: data
            for name, data in objects(self.there, self.name).items()
            if ".ckpt/" not in name
        }
        folder = str(self.place.folder).encode()
        return {
            name: data.replace(folder, b"HERE")
            for name, data in found.items()
            if name.endswith(".jsonl")
        }

    def disturb(self, draw: random.Random) -> None:
        self.heal()
        faults: list[dict[str, Any]] = [
            *(
                {},
                {"refuse_every": 4},
                {"tear": "jsonl|lock|run.json"},
                {"lists_late": 1.0},
                {"loses": True},
            ),
            *({"late": 0.2}, {"denies": (403, "AccessDenied", "Access Denied")}, {"down": True}),
        ]
        vars(self.there).update(draw.choice(faults))

    def heal(self) -> None:
        self.there.heal()
