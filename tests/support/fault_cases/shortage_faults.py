"""Faults of a machine short of something, and of pictures that change unseen: no record is to blame
for them.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.fault_cases.fault_case import (
    UNTIL_ROOM,
    Case,
    Outcome,
    at_work,
    calm,
    lost_rows,
)
from tests.support.waiting import wait_until
from tests.support.workplace import Running, Workplace, caption, ended

HOG = """
import os, threading, time
from dataflow_grounding.engine import workers
workers.BUSY_SECONDS = {patience}
def hog():  # takes all files that the process may open, and each that it closes
    while not os.path.exists({go!r}):
        time.sleep(0.005)
    taken, end = [], time.monotonic() + {seconds}
    while time.monotonic() < end:
        try:
            taken.append(os.dup(0))
        except OSError:
            os.makedirs({taken!r}, exist_ok=True)  # this takes none
            time.sleep(0.005)
    for handle in taken:
        os.close(handle)
threading.Thread(target=hog, daemon=True).start()
"""


def pictures(place: Workplace, count: int) -> None:
    """Rows with a picture each."""
    names = [place.picture(f"{number}.jpg", (64 + number, 48)) for number in range(count)]
    place.rows(
        {"image_path": name, "image_id": f"r{n}", "caption": caption(n)}
        for n, name in enumerate(names)
    )


def limited(place: Workplace, files: int, hog: str = "") -> Running:
    """A run that may open this many files."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))\n"
    return place.start(first=limit + hog)


def few_files(place: Workplace, full: bool) -> Outcome:
    """Far more workers than connections can be open."""
    count = 500 if full else 110
    with at_work(place, 0, 0.1) as witness:
        pictures(place, count)
        place.settings["workflow.max_workers"] = 100
        for files in (64, 40) if full else (40,):
            place.results = place.folder / str(files)
            done = ended(limited(place, files))
            calm(done)
            assert done.code == 0, done
            assert not place.failures()
        return Outcome(witness.sent, 0, lost_rows(place, count))


def files_run_out(seconds: float, place: Workplace, full: bool) -> Outcome:
    """Something in the process takes all files, and gives them back after a while, or later than
    anybody waits.
    """
    count = 200 if full else 40
    with at_work(place, 0, 0.1) as witness:
        pictures(place, count)
        go, taken = place.folder / "go", place.folder / "taken"

        def rule(request: ReceivedRequest) -> None:
            if request.index == 20:  # nothing is answered until they are taken
                go.touch()
                wait_until(taken.exists)

        witness.rules = [rule]
        patience = 1 if seconds > 60 else 60
        hog = HOG.format(patience=patience, go=str(go), taken=str(taken), seconds=seconds)
        done = ended(limited(place, 64, hog))
        witness.rules = []
        calm(done)
        if seconds > 60:
            assert done.code == 130, done
            assert "Too many open files" in done.err
            assert "run the same command again" in done.err
            assert not list(place.results.glob("*/annotations.jsonl"))
        else:
            assert done.code == 0, done
        assert place.run().code == 0
        assert not place.failures()
        return Outcome(witness.sent, witness.twice, lost_rows(place, count))


# A disk's answer, where Python asks the system to open that one file.
BAD_SECTOR = """import errno, os
opened = os.open

def open_but_one(path, *arguments, **more):
    if str(path).endswith("sector.jpg"):
        raise OSError(errno.EIO, "Input/output error")
    return opened(path, *arguments, **more)

os.open = open_but_one
"""


def bad_sector(place: Workplace, full: bool) -> Outcome:
    """One file that the disk can't read, among good ones."""
    with at_work(place, 0) as witness:
        pictures(place, 6)
        bad = {"image_path": "sector.jpg", "image_id": "r6", "caption": caption(6)}
        place.picture("sector.jpg")
        place.rows([*place.input.read_text().splitlines(), str(bad).replace("'", '"')])
        sooner = "from dataflow_grounding.engine import workers; workers.BUSY_SECONDS = 1"
        done = ended(place.start(first=BAD_SECTOR + ("" if full else sooner)))
        calm(done)
        assert done.code == 1, done
        [failure] = place.failures()
        assert (failure["kind"], failure["retry"]) == ("machine_busy", True), failure
        assert "sector.jpg" in failure["message"]
        return Outcome(witness.sent, witness.twice, lost_rows(place, 7))


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


SLOWER = "The run is slower, but no record fails."
NOTICED = "The run notices it and asks about the new picture."

SHORTAGES: list[Case] = [
    Case(
        "ulimit -n 64 and 100 workers",
        SLOWER,
        few_files,
    ),
    Case(
        "open files: run out for a while",
        SLOWER,
        functools.partial(files_run_out, 2),
    ),
    Case(
        "open files: run out for good",
        UNTIL_ROOM,
        functools.partial(files_run_out, 1000),
    ),
    Case(
        "an image that the disk can't read",
        "The run tries it for a minute. Then its record fails.",
        bad_sector,
    ),
    Case("a picture replaced: same size and time", NOTICED, swapped),
]
