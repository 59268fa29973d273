"""One way under one fault: the job is run, run again where its user would, and looked at."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.side_by_side.planted import BEGINS, Planted
from benchmarks.side_by_side.scene import (
    ABSENT,
    MISSING,
    Model,
    Picture,
    draw,
    is_about_a_probe,
    pictures,
    write_job,
)
from dataflow_grounding.boxes.geometry import box_of, iou
from dataflow_grounding.testing import Fault, LoopbackServer, ReceivedRequest, faults
from tests.support.workplace import REPOSITORY

SCRIPTS = Path(__file__).parent
LATENCY = 0.05
LEAST_IOU = 0.9
WITHIN = 120.0
KEY = "sk-side-by-side"
DISK_BYTES = 2**21


@dataclass(frozen=True)
class Way:
    """A shape of script, and the model that it was written for.

    Args:
        name: That of both files, in `theirs/` and `ours/`.
        title: As the table has it.
        model: The model's name at the endpoint.
        box_format: How that model writes boxes.
        key: What it calls a box where it isn't told.
    """

    name: str
    title: str
    model: str
    box_format: str
    key: str = "bbox_2d"


WAYS = [
    Way(
        "qwen_cookbook",
        "Qwen's cookbook",
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "xyxy_px@smart_resize_28",
    ),
    Way("gemini_cookbook", "Gemini's cookbook", "gemini-2.5-flash", "yxyx_1000", "box_2d"),
    Way("threads_and_regex", "threads, base64, regex", "house-vlm", "xyxy_px"),
    Way("from_vlm", "from_vlm", "Qwen/Qwen3-VL-8B-Instruct", "xyxy_1000"),
    Way("tao_step", "a TAO-like step", "house-vlm", "xyxy_1000"),
]


@dataclass(frozen=True)
class Outcome:
    """What was measured.

    Args:
        wrong: Pictures whose data is wrong, and doesn't say so.
        lost: Pictures without data that nobody was told of.
        twice: Good answers that were paid for again.
        told: Pictures without data that the user was told of.
        words: What the script said, both times.
        codes: How each run ended.
    """

    wrong: int
    lost: int
    twice: int
    told: int = 0
    sent: int = 0
    codes: tuple[int, ...] = ()
    words: str = field(default="", repr=False)

    @property
    def held(self) -> bool:
        """Whether nothing is wrong, lost or paid twice."""
        return not (self.wrong or self.lost or self.twice)

    def __str__(self) -> str:
        if self.held:
            return "told" if self.told else "held"
        counts = {"wrong": self.wrong, "lost": self.lost, "twice": self.twice}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count)


class World:
    """The endpoint and the disk of a trial; faults of the weather go when `clear` is set."""

    def __init__(self, way: Way, fault: Planted, folder: Path) -> None:
        self._fault = fault
        self._folder = folder
        self._lock = threading.Lock()
        self._job_requests = 0
        self._spoilt_once = False
        self._began = 0.0
        self.clear = False
        self.first_run = 0
        self.spoilt: set[int] = set()
        self.struck = threading.Event()
        self.struck_at = 0.0
        model = Model(fault.box_format or way.box_format, way.key, fault.manner, fault.invents)
        self.server = LoopbackServer(
            model, faults=self._rule, latency=LATENCY, key=KEY, keep_bodies=True
        )

    def _rule(self, request: ReceivedRequest) -> Fault | None:
        """What goes wrong with a request."""
        probe = is_about_a_probe(request)
        with self._lock:
            number = self._job_requests
            self._job_requests += not probe
            strike = None if self.clear else self._strike(number, probe)
            if strike is not None:
                self.spoilt.add(request.index)
            return strike

    def _strike(self, number: int, probe: bool) -> Fault | None:
        fault = self._fault
        if fault.spoils is not None and number >= BEGINS and not probe and not self._spoilt_once:
            self._spoilt_once = True
            return fault.spoils
        if number < BEGINS:
            return None
        if not self.struck_at:
            self.struck_at = time.monotonic()
            if fault.fills:
                fill(self._folder / "out")
        if fault.refuses is not None:
            lasts = fault.seconds is None or time.monotonic() - self.struck_at < fault.seconds
            return fault.refuses if lasts else None
        if fault.kills:
            self.struck.set()
            return faults.hang()
        return None

    def paid_twice(self) -> int:
        """Good answers of the first run that the second one asked for again.

        Where a process is killed or its disk is full, nobody can keep what is in flight: as many
        are not counted as the script had in flight at most.
        """
        paid: Counter[tuple[Any, ...]] = Counter()
        for request in self.server.requests[: self.first_run]:
            if request.status_sent == 200 and request.index not in self.spoilt:
                paid[request.text, request.image_digests] += 1
        asked: Counter[tuple[Any, ...]] = Counter()
        for request in self.server.requests[self.first_run :]:
            asked[request.text, request.image_digests] += 1
        again = (asked & paid).total()
        in_flight = self.server.max_in_flight if self._fault.kills or self._fault.fills else 0
        return max(0, again - in_flight)


def fill(folder: Path) -> None:
    """Write until nothing more goes in."""
    with open(folder / "ballast", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass


@contextmanager
def disk(folder: Path, *, small: bool) -> Iterator[None]:
    """`out/` in a folder, on a small disk of its own if wished. Raises CalledProcessError."""
    out = folder / "out"
    out.mkdir()
    if not small:
        yield
        return
    size = f"size={DISK_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(out)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)


def can_mount() -> bool:
    """Whether this user may make a small disk."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with disk(Path(folder), small=True):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def trial(way: Way, whose: str, fault: Planted) -> Outcome:
    """Run a way's script, `theirs` or `ours`, under a fault."""
    script = SCRIPTS / whose / f"{way.name}.py"
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as name:
        folder = Path(name)
        write_job(folder, turned=fault.turned, missing=fault.missing, absent=fault.absent)
        world = World(way, fault, folder)
        with disk(folder, small=fault.fills), world.server:
            return _tried(world, way, script, fault, folder)


def _tried(world: World, way: Way, script: Path, fault: Planted, folder: Path) -> Outcome:
    code, words = _run(world, way, script, folder)
    codes, last_words = [code], words
    if code or _is_told(words, fault):  # the user mends what it is, and runs it again
        world.clear = True
        world.first_run = len(world.server.requests)
        (folder / "out" / "ballast").unlink(missing_ok=True)
        if fault.missing:
            draw(folder, pictures()[MISSING])
        code, last_words = _run(world, way, script, folder)
        codes.append(code)
    wrong, lost, told = _looked_over(folder, fault, last_words)
    twice, sent = world.paid_twice(), world.server.count()
    return Outcome(wrong, lost, twice, told, sent, tuple(codes), f"{words}\n---\n{last_words}")


def _run(world: World, way: Way, script: Path, folder: Path) -> tuple[int, str]:
    """Run the script in the job's folder; its exit code, and what it said there or in a file."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DF_", "OPENAI_", "GOOGLE_"))}
    environment = {
        **kept,
        "HOME": str(folder),
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "DF_BASE_URL": world.server.base_url,
        "DF_ADDRESS": world.server.address,
        "DF_MODEL": way.model,
        "DF_API_KEY": KEY,
    }
    log = folder / "said.txt"
    with open(log, "wb") as said:
        running = subprocess.Popen(
            [sys.executable, str(script)],
            env={**environment, "PYTHONPATH": str(REPOSITORY)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        end = time.monotonic() + WITHIN
        while running.poll() is None:
            if time.monotonic() > end or (world.struck.is_set() and not world.clear):
                running.kill()
                running.wait()
            time.sleep(0.005)
    words = log.read_text("utf-8", "replace")
    for failures in (folder / "out").glob("*failures*.jsonl"):
        words += failures.read_text("utf-8", "replace")
    return running.returncode, words


def _is_told(words: str, fault: Planted) -> bool:
    """Whether anything that was said is about a picture, or about the fault."""
    named = any(picture.path in words for picture in pictures())
    return named or bool(fault.told and re.search(fault.told, words))


def _looked_over(folder: Path, fault: Planted, words: str) -> tuple[int, int, int]:
    """How many pictures are wrong, lost, and told of."""
    written = _written(folder / "out")
    all_told = bool(fault.told and re.search(fault.told, words))
    wrong = lost = told = 0
    for picture in pictures():
        lines = written.get(picture.path, [])
        if lines and (folder / picture.path).exists():
            wrong += not all(_is_right(line, picture, fault) for line in lines)
        elif lines:
            wrong += 1  # nobody can know what is in a picture that is not there
        elif all_told or picture.path in words:
            told += 1
        else:
            lost += 1
    return wrong, lost, told


def _is_right(boxes: list[dict[str, Any]], picture: Picture, fault: Planted) -> bool:
    """Whether a line has each thing that was asked for once, where it is, and nothing else."""
    wanted = picture.phrases
    if fault.absent and picture.number == ABSENT:
        wanted = []
    if sorted(str(box["label"]) for box in boxes) != sorted(wanted):
        return False
    return all(iou(box_of(box["bbox"]), picture.boxes[box["label"]]) >= LEAST_IOU for box in boxes)


def _written(out: Path) -> dict[str, list[list[dict[str, Any]]]]:
    """The boxes of each line of the results, by picture, whichever way wrote them."""
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for name in ("boxes.jsonl", "boxes_step1.jsonl"):
        path = out / name
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # half a line: its picture is lost
            boxes = row["boxes"] if "boxes" in row else _of_record(row)
            found.setdefault(row["image_path"], []).append(boxes)
    return found


def _of_record(record: dict[str, Any]) -> list[dict[str, Any]]:
    boxes = []
    for expression in record["expressions"]:
        for instance in expression["instances"]:
            boxes.append({"label": expression["text"], "bbox": instance["bbox"]})
    return boxes
