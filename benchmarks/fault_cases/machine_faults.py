"""Faults of the machine, of pictures, rows and scripts that rooms show, or that take long."""

from __future__ import annotations

import contextlib
import errno
import functools
import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Event
from typing import Any

from dataflow_grounding.testing import Answer, EchoAnswers, Usage
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.fault_cases import script_faults
from tests.support.fault_cases.fault_case import (
    IN_FLIGHT,
    LOCAL_CLOCK,
    REFUSED,
    UNTIL_ROOM,
    WHOLE_PARTS,
    Case,
    Outcome,
    Witness,
    at_work,
    calm,
    goes_on,
    lost_rows,
    reached_by,
    until,
)
from tests.support.fault_cases.image_faults import WORKS
from tests.support.fault_cases.script_faults import CLUMSY, clumsy
from tests.support.fault_cases.shortage_faults import SLOWER, few_files, files_run_out
from tests.support.fault_cases.signal_faults import ONCE, interrupted
from tests.support.waiting import wait_until
from tests.support.workplace import (
    REPOSITORY,
    Workplace,
    caption,
    command,
    ended,
    interpreter,
    rows_of,
)


def two_at_once(place: Workplace, full: bool) -> Outcome:
    count = 20 if full else 3
    with at_work(place, count) as witness:
        witness.rules.append(until(refused := Event()))
        running = place.start()
        reached_by(running, witness, 1)
        second = place.run()
        refused.set()
        calm(second)
        assert second.code == 2, second
        assert "another run is working" in second.err
        assert ended(running).code == 0
        assert witness.sent == 2 * count
        return goes_on(place, witness, count)


def torn_store(place: Workplace, full: bool) -> Outcome:
    """The store of replies ends in the middle of a line, at random places."""
    twice = sent = 0
    with at_work(place, 10, 0) as witness:
        assert place.run().code == 0
        for number in range(20 if full else 2):
            store = place.replies
            whole = store.read_bytes()
            cut = random.Random(number).randrange(1, len(whole))
            store.write_bytes(whole[:cut])
            lost = 20 - whole[:cut].count(b"\n")
            (place.results / ".ckpt" / "facts.json").unlink()
            before = witness.sent
            outcome = goes_on(place, witness, 10)
            assert witness.sent - before == lost, "what is whole in it is not asked again"
            sent, twice = outcome.sent, outcome.twice
        return Outcome(sent, twice, 0, twice_allowed=twice)


def old_store(place: Workplace, full: bool) -> Outcome:
    with at_work(place, 10, 0) as witness:
        assert place.run().code == 0
        lines = [json.loads(line) for line in place.replies.read_text().splitlines()]
        kept = [{"reply": line["reply"], "v": 0, "key": line["key"]} for line in lines]
        place.replies.write_text("".join(json.dumps(line) + "\n" for line in kept))
        (place.results / ".ckpt" / "facts.json").unlink()
        outcome = goes_on(place, witness, 10)
        assert outcome.sent == 20
        return outcome


WITHOUT_FLOCK = """
import fcntl
def flock(*arguments):
    raise OSError({number}, "no locks here")
fcntl.flock = flock
"""


def no_flock(place: Workplace, full: bool) -> Outcome:
    """A file system that knows no flock: a second run is refused, and a killed one keeps nobody
    out.
    """
    count = 60 if full else 20
    measured = Outcome()
    for number in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)[: 3 if full else 1]:
        here = Workplace(place.folder / str(number))
        with at_work(here, count) as witness:
            # longer than the second needs to begin, no matter how busy the machine
            witness.server.latency = lambda request: 60.0 if request.index >= 10 else 0.0
            without = WITHOUT_FLOCK.format(number=number)
            first = here.start(first=without)
            reached_by(first, witness, 11)
            refused = ended(here.start(first=without))
            calm(refused)
            assert refused.code == 2, refused
            assert "another run is working in" in refused.err
            os.kill(first.pid, signal.SIGKILL)
            first.communicate()
            witness.server.latency = 0.0
            before = witness.sent
            assert ended(here.start(first=without)).code == 0
            assert witness.sent > before
            assert not (here.results / ".ckpt" / "claim").exists()
            measured += goes_on(here, witness, count, IN_FLIGHT)
    return measured


JUMPS = """
import random, time
_true, _chance = time.time_ns, random.Random(3)
time.time_ns = lambda: _true() + _chance.choice((0, 1, -1)) * 86400 * 10**9 * _chance.randrange(400)
time.time = lambda: time.time_ns() / 1e9
"""


def clock_that_jumps(no_flock: bool, place: Workplace, full: bool) -> Outcome:
    """The clock jumps by up to a year with each look at it; pictures are of the next year; a run is
    killed.
    """
    count = 40 if full else 20
    with at_work(place, count, 0.02) as witness:
        os.utime(place.folder / "a.jpg", (time.time() + 3e7,) * 2)
        code = JUMPS + (WITHOUT_FLOCK.format(number=38) if no_flock else "")
        running = place.start(first=code)
        reached_by(running, witness, 20)
        running.kill()
        running.communicate()
        done = ended(place.start(first=code))
        calm(done)
        assert done.code == 0, done
        again = ended(place.start(first=code))
        assert again.summary["requests"] == 0, again
        return goes_on(place, witness, count, allowed=8)


def long_input(place: Workplace, full: bool) -> Outcome:
    """Very many lines: memory doesn't grow with them. Their images are missing, so that no request
    takes time.
    """
    peaks = []
    for count in (1_000, 1_000_000 if full else 20_000):
        row = '{"image_path": "gone/%d.jpg", "caption": "A cup"}\n'
        with open(place.input, "w") as file:
            file.writelines(row % n for n in range(count))
        line = [
            sys.executable,
            "-m",
            "dataflow_grounding",
            *place.arguments(**{"vlm.openai.base_url": "http://127.0.0.1:9"}),
        ]
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        with tempfile.TemporaryFile() as out:
            running = subprocess.Popen(line, env=env, stdout=out, stderr=out)
            _, status, used = os.wait4(running.pid, 0)
            running.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            assert running.returncode == 4, out.read()
        assert (place.results / "failures.jsonl").read_bytes().count(b"\n") == count
        peaks.append(used.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 30, f"{peaks} MB"
    return Outcome()


def swapped(place: Workplace, full: bool) -> Outcome:
    """Of six pictures one is replaced by another of the same size and time."""
    with at_work(place, 0) as witness:
        names = [f"{number}.bmp" for number in range(6)]
        for number, name in enumerate(names):
            painted(place.folder / name, 30 * number)
        place.rows(
            {"image_path": name, "image_id": f"r{n}", "caption": caption(n)}
            for n, name in enumerate(names)
        )
        assert place.run().code == 0
        painted(place.folder / names[3], 240)
        before = witness.sent
        done = ended(place.start())
        calm(done)
        assert done.code == 0, done
        shown = [set(request.image_digests) for request in witness.server.requests]
        new = set().union(*shown[before:])
        assert len(new) == 1, "the new picture alone"
        assert new.isdisjoint(set().union(*shown[:before]))
        again = place.run().summary
        assert (again["requests"], again["already_complete"]) == (0, True)
        return Outcome(witness.sent, 0, lost_rows(place, 6))


def painted(path: Path, level: int) -> None:
    """A picture of one colour. All have the same size and time."""
    from PIL import Image

    Image.new("RGB", (64, 48), (level, 9, 9)).save(path)
    os.utime(path, (1e9, 1e9))


NOTICED = "The run notices it and asks about the new picture."


def peak_kib(pid: int) -> int:
    """The most memory that a process had since it began its program: what wait4 tells counts its
    parent's too.
    """
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return 0


def many_pixels(place: Workplace, full: bool) -> Outcome:
    """Four pictures that four threads could decode at once: memory stays far under what they take
    together.
    """
    from PIL import Image

    side = 19_000 if full else 7_200
    for number in range(4):
        Image.new("1", (side + number, side)).save(place.folder / f"{number}.png")
    place.rows(
        {"image_path": f"{n}.png", "image_id": f"r{n}", "caption": caption(n)} for n in range(4)
    )
    with Witness() as witness, tempfile.TemporaryFile() as out:
        settings = {"vlm.openai.base_url": witness.server.base_url, "vlm.openai.timeout": 300}
        line = [sys.executable, "-m", "dataflow_grounding", *place.arguments(**settings)]
        running = subprocess.Popen(
            line, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=out, stderr=out
        )
        peak = 0
        while running.poll() is None:
            peak = max(peak, peak_kib(running.pid))
            time.sleep(0.01)
        out.seek(0)
        assert running.returncode == 0, out.read()
        # MiB: Pillow takes a byte a pixel for black and white, and four for RGB
        one = 5 * side * side / 2**20
        assert 0 < peak / 1024 < 150 + 2.5 * one, (
            f"{peak / 1024:.0f} MiB, one picture has {one:.0f}"
        )
        return Outcome(witness.sent, witness.twice, lost_rows(place, 4))


COUNTED = "They are clamped, and `cost` shows their sum."


NOT_IMPORTED = "The import is refused with exit 2."


USAGES = (Usage(10**400, 10**400), Usage(-5, -5), Usage(8, 8, 10**30))


def counts(place: Workplace, full: bool) -> Outcome:
    """Answers that claim more tokens than there are numbers for, or fewer than none."""
    echo = EchoAnswers()

    def answer(request: ReceivedRequest) -> Answer:
        return Answer(json.dumps(echo(request)), usage=USAGES[request.index % len(USAGES)])

    place.many(6)
    with Witness(answers=answer) as witness:
        settings = {
            "vlm.openai.base_url": witness.server.base_url,
            "vlm.prices": {"input": 1.0, "output": 1.0},
        }
        done = place.run(**settings)
        assert done.code == 0, done
        again = place.run(**settings, **{"workflow.max_workers": 2})
        told = command(["cost", str(place.results)])
        assert (again.code, told.code) == (0, 0), (again, told)
        return Outcome(witness.sent, witness.twice, lost_rows(place, 6))


def packed(place: Workplace, full: bool) -> Outcome:
    """A megabyte that unpacks to a gigabyte, where a process may have 900 MB."""
    path = place.folder / "packed.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 2**20) * 1024)
    limited = functools.partial(resource.setrlimit, resource.RLIMIT_AS, (900 * 2**20, 900 * 2**20))
    line = ["import", str(path), "--format", "odvg", "-o", str(place.folder / "out")]
    done = ended(interpreter(line, preexec_fn=limited, cwd=place.folder))
    calm(done)
    assert (done.code, str(path) in done.err) == (2, True), done
    assert not (place.folder / "out" / "annotations.jsonl").exists()
    return Outcome()


CELL = """
import asyncio, sys
sys.path[:0] = {path!r}
from pathlib import Path
from threading import Event
from tests.support.fault_cases.script_faults import ByHand, OpenAIServing

def cell():
    serving = OpenAIServing({url!r}, "loopback", box_format="xyxy_px", max_workers=8)
    pipeline = ByHand(Path("."), serving)
    pipeline.compile()
    return pipeline.forward()

async def notebook():
    for _ in range(2):  # the cell is run, interrupted, and run again
        try:
            print(cell().done, flush=True)
            break
        except BaseException as error:
            print(type(error).__name__, flush=True)

asyncio.new_event_loop().run_until_complete(notebook())
"""


def notebook(place: Workplace, full: bool) -> Outcome:
    """A cell is interrupted while a loop is running, as a notebook's is, and run again at once."""
    place.many(script_faults.COUNT)
    with Witness(latency=0.4) as witness:
        path = [str(REPOSITORY)]
        (place.folder / "cell.py").write_text(CELL.format(path=path, url=witness.server.base_url))
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        running = subprocess.Popen([sys.executable, "cell.py"], cwd=place.folder, **pipes)
        wait_until(lambda: witness.sent >= 12, running)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
        assert out.split() == ["Interrupted", str(script_faults.COUNT)], out + err
        assert witness.sent == 2 * script_faults.COUNT, witness.sent
        done = {row["image_id"] for row in rows_of(place.folder / "cache" / "step_step2.jsonl")}
        return Outcome(witness.sent, witness.twice, script_faults.COUNT - len(done))


FAILS = "Only the record fails."
WITHOUT = functools.partial(clock_that_jumps, True)
NEXT_YEAR = functools.partial(clock_that_jumps, False)
LOCKED = "A claim in the folder keeps a second run out: it ends with exit 2 at its start."
FOR_GOOD = functools.partial(files_run_out, 1000)
OF_MACHINE: list[Case] = [
    Case("SIGTERM", ONCE, functools.partial(interrupted, signal.SIGTERM)),
    Case("a second run: in the same folder", REFUSED, two_at_once),
    Case("damaged: torn replies", WHOLE_PARTS, torn_store),
    Case("damaged: old replies", WHOLE_PARTS, old_store),
    Case("a file system without flock", LOCKED, no_flock),
    Case("a clock: jumps (pictures of next year)", LOCAL_CLOCK, NEXT_YEAR),
    Case("a clock: jumps (no flock)", LOCAL_CLOCK, WITHOUT),
    Case("a million-line input", "The run takes no more memory.", long_input),
    Case("ulimit -n 64 and 100 workers", SLOWER, few_files),
    Case("open files: run out for good", UNTIL_ROOM, FOR_GOOD),
    Case("a picture replaced: same size and time", NOTICED, swapped),
]
OF_PICTURES: list[Case] = [
    Case("image: four of 361 million pixels", WORKS, many_pixels),
    Case("huge and negative token counts", COUNTED, counts),
    Case("an import that unpacks beyond memory", NOT_IMPORTED, packed),
]
OF_SCRIPTS: list[Case] = [
    *(
        Case(f"an operator: {what}", FAILS, functools.partial(clumsy, [way]))
        for what, way in CLUMSY.items()
    ),
    Case("the interrupt of a notebook", "The run ends, and the same cell resumes it.", notebook),
]
