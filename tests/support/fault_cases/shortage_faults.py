"""Faults of a machine short of something, and of pictures that change unseen: no record is to blame
for them.
"""

from __future__ import annotations

import functools

from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.fault_cases.fault_case import Case, Outcome, at_work, calm, lost_rows
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
    names = [place.picture(f"{number}.jpg", (64 + number, 48)) for number in range(count)]
    place.rows(
        {"image_path": name, "image_id": f"r{n}", "caption": caption(n)}
        for n, name in enumerate(names)
    )


def limited(place: Workplace, files: int, hog: str = "") -> Running:
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))\n"
    return place.start(first=limit + hog)


def few_files(place: Workplace, full: bool) -> Outcome:
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


SLOWER = "The run is slower, but no record fails."

SHORTAGES: list[Case] = [
    Case("open files: run out for a while", SLOWER, functools.partial(files_run_out, 2)),
    Case(
        "an image that the disk can't read",
        "The run tries it for a minute. Then its record fails.",
        bad_sector,
    ),
]
