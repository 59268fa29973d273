"""Random faults, one after the other, for as long as you like; then the results have to be those of an undisturbed run.

    python -m benchmarks.soak [--minutes 30] [--seed 0] [--rounds N]

A round takes one of the pipelines, streaming or not, against a loopback server that spoils a share of its answers
(429, 500, 503, closed and cut connections, garbage, replies that can't be read or are cut off). Its run is killed,
interrupted, terminated, given a disk that fills up, or a changed input (rows in another order, and some twice) or
another step at random moments, and gone on with each time. In the end its files are compared byte by byte. A question
that was well answered more than once was paid for twice: at most what was in flight at a stop that waits for nothing (a
kill, a full disk).
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.fault_case import Witness, wait_until
from benchmarks.workplace import REPOSITORY, Workplace, caption, ended, process
from dataflow_grounding.testing import FaultRule, faults, on

COUNT = 40
WORKERS = 8
SCRIPT = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from benchmarks.script_faults import ByHand, OpenAIServing, count
from dataflow_grounding.engine.options import RunOptions
url, stream, put_in = sys.argv[1:]
serving = OpenAIServing(url, "loopback", box_format="xyxy_px", max_workers={workers}, timeout=20)
pipeline = ByHand(Path("."), serving, count if put_in == "True" else None)
if stream == "True":
    pipeline.compile()
sys.exit(pipeline.forward(options=RunOptions(max_attempts=50)).exit_code)
"""


def rules(seed: int) -> list[FaultRule]:
    """Whatever an endpoint may do, each to a few in a hundred of its requests."""
    kinds = [
        faults.too_many_requests(0.1),
        faults.too_many_requests(),
        faults.server_error(500),
        faults.server_error(503, 0.1),
        faults.disconnect(),
        faults.cut_body(0.7),
        faults.garbage(),
        faults.html_error(502),
        faults.says("I see a cup."),
        faults.slow(0.3),
    ]
    struck = [on(kind, share=0.02, seed=100 * seed + number) for number, kind in enumerate(kinds)]
    # Phrases that are asked for in halves get other boxes from this server.
    return [*struck, on(faults.truncated(), task="expression_extraction", share=0.02, seed=seed)]


@dataclass
class Job:
    """One pipeline in a folder: how its run is started, and which files it leaves."""

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
            row: dict[str, Any] = {"image_path": name, "image_id": f"r{number}", "caption": caption(number)}
            if self.kind == "image_region_caption":
                row = {"image": name, "image_id": f"r{number}", "bbox": [[number, 3, 10 + number % 7, 20]]}
            self.rows.append(row)
        if self.kind == "image_referring_expression":
            for number in range(COUNT):
                place.picture(f"pictures/{number}.jpg", (64 + number, 48))
                label = place.folder / "labels" / f"{number}.txt"
                label.parent.mkdir(exist_ok=True)
                label.write_text("Car 0 0 0 2 3 22 23 0 0 0 0 0 0 0\nVan 0 0 0 30 10 50 30 0 0 0 0 0 0 0\n")
        place.rows(self.rows)
        if self.kind == "by hand":
            path = [str(REPOSITORY)]
            (place.folder / "script.py").write_text(SCRIPT.format(path=path, workers=WORKERS))

    def start(self, url: str, **options: Any) -> subprocess.Popen[str]:
        """Begin, or go on."""
        if self.kind == "by hand":
            line = [sys.executable, "script.py", url, str(self.stream), str(self.put_in)]
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            return subprocess.Popen(line, cwd=self.place.folder, **pipes, **options)
        data: dict[str, Any] = {"input_jsonl": str(self.place.input)}
        if self.kind == "image_referring_expression":
            data = {"image_dir": str(self.place.folder / "pictures")}
            data["kitti_label_dir"] = str(self.place.folder / "labels")
        openai = {"base_url": url, "model_name": "loopback", "timeout": 20}
        vlm = {"backend": "openai", "box_format": "xyxy_px", "check_every": None, "openai": openai}
        flow = {"max_workers": WORKERS, "max_attempts": 50, "stream": self.stream}
        block = {"vlm": vlm, "workflow": flow, "data": data}
        spec = {"results_dir": str(self.place.results), "autolabel_type": self.kind, self.kind: block}
        path = self.place.folder / "spec.yaml"
        path.write_text(json.dumps(spec))
        return process(["generate", "-e", str(path), "--no-progress"], cwd=self.place.folder, **options)

    def files(self) -> dict[str, bytes]:
        """The step files, the annotations and the failures, by their place."""
        top = self.place.folder / "cache" if self.kind == "by hand" else self.place.results
        paths = sorted(path for path in top.rglob("*.jsonl") if ".ckpt" not in path.parts)
        folder = str(self.place.folder).encode()
        return {str(path.relative_to(top)): path.read_bytes().replace(folder, b"HERE") for path in paths}

    def change_input(self, draw: random.Random) -> None:
        """Other rows, with no new question: in another order, some of them twice."""
        self.place.rows(draw.sample(self.rows, len(self.rows)) + draw.sample(self.rows, 5))


def disturbed(job: Job, witness: Witness, draw: random.Random, stops: Counter[str]) -> int:
    """Let it run for a while and stop it somehow; returns how many questions may be in flight then, unanswered."""
    kind = draw.choice(["kill", "Ctrl-C", "SIGTERM", "full disk", "changed input", "step put in", "nothing"])
    stops[kind] += 1
    if kind == "changed input" and job.kind != "image_referring_expression":
        job.change_input(draw)
    if kind == "step put in":
        job.put_in = not job.put_in
    options: dict[str, Any] = {}
    if kind == "full disk":
        size = draw.randrange(2_000, 60_000)
        options["preexec_fn"] = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
    running = job.start(witness.server.base_url, **options)
    if kind in ("kill", "Ctrl-C", "SIGTERM"):
        most = witness.sent + draw.randrange(1, 3 * COUNT)
        wait_until(lambda: witness.sent >= most or running.poll() is not None, 60)
        time.sleep(draw.uniform(0, 0.05))
        if running.poll() is None:
            running.send_signal({"kill": signal.SIGKILL, "SIGTERM": signal.SIGTERM}.get(kind, signal.SIGINT))
    done = ended(running, 120)
    assert "Traceback" not in done.err or kind == "kill" or job.kind == "by hand", done
    job.place.rows(job.rows)
    return WORKERS if kind in ("kill", "full disk") else 0


def played(job: Job, seed: int, stops: Counter[str]) -> tuple[int, int, int]:
    """One round: requests, questions paid for twice, and how many of them were allowed to be. Asserts the rest."""
    draw = random.Random(seed)
    with Witness(rules(seed), latency=0.02) as witness:
        allowed = sum(disturbed(job, witness, draw, stops) for _ in range(draw.randrange(2, 6)))
        witness.rules.clear()
        job.put_in = False
        done = ended(job.start(witness.server.base_url), 120)
        assert done.code == 0, done
        differing = different(job.files(), expected(job.kind))
        assert not differing, f"other files than an undisturbed run's: {differing}"
        sent = witness.sent
        again = ended(job.start(witness.server.base_url), 120)
        assert (again.code, witness.sent) == (0, sent), again
        assert witness.twice <= allowed, f"{witness.twice} paid for twice, {allowed} were in flight"
        return sent, witness.twice, allowed


def different(found: dict[str, bytes], undisturbed: dict[str, bytes]) -> list[str]:
    """The first line of each file that is not as it should be; files of a step that was put in for a while are left."""
    told = []
    for name, data in undisturbed.items():
        mine, right = found.get(name, b"").splitlines(), data.splitlines()
        if mine != right:
            place = next(
                (n for n, (a, b) in enumerate(zip(mine, right, strict=False)) if a != b), min(len(mine), len(right))
            )
            told.append(
                f"{name} line {place + 1} of {len(mine)} ({len(right)}): "
                f"{mine[place : place + 1]} for {right[place : place + 1]}"
            )
    return told


@functools.cache
def expected(kind: str) -> dict[str, bytes]:
    """The files of a run in which nothing goes wrong."""
    with tempfile.TemporaryDirectory() as folder, Witness() as witness:
        job = Job(Workplace(Path(folder) / "work"), kind, True)
        job.prepare()
        done = ended(job.start(witness.server.base_url), 120)
        assert done.code == 0, done
        return job.files()


KINDS = ("image_grounding", "image_referring_expression", "image_region_caption", "by hand")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=0, help="stop after so many rounds")
    given = parser.parse_args()
    return soak(
        given.seed,
        lambda number, began: (
            time.monotonic() - began < 60 * given.minutes and (not given.rounds or number < given.rounds)
        ),
    )


def soak(seed: int, going_on: Callable[[int, float], bool]) -> int:
    """Rounds until told to end; 1 where one went wrong."""
    began, number, broke = time.monotonic(), 0, 0
    sent = twice = allowed = 0
    stops: Counter[str] = Counter()
    while going_on(number, began):
        kind, stream = KINDS[number % len(KINDS)], number // len(KINDS) % 2 == 0
        with tempfile.TemporaryDirectory() as folder:
            job = Job(Workplace(Path(folder) / "work"), kind, stream)
            job.prepare()
            try:
                figures = played(job, seed + number, stops)
            except AssertionError as error:
                broke += 1
                print(
                    f"BROKE round {number} (seed {seed + number}): {kind}, stream {stream}: {str(error)[:2000]}",
                    flush=True,
                )
            else:
                sent, twice, allowed = sent + figures[0], twice + figures[1], allowed + figures[2]
        number += 1
    minutes = (time.monotonic() - began) / 60
    told = ", ".join(f"{count} {stop}" for stop, count in sorted(stops.items()))
    print(
        f"{number - broke} of {number} rounds with the files of an undisturbed run, in {minutes:.1f} minutes ({told})"
    )
    print(
        f"{sent} requests; {twice} questions paid for twice, "
        f"of at most {allowed} in flight at stops that wait for nothing"
    )
    return 1 if broke else 0


if __name__ == "__main__":
    sys.exit(main())
