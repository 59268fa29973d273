"""Two runs on one folder, where the system's own lock works and where it does not."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from threading import Event

from tests.support.fault_cases.fault_case import (
    REFUSED,
    Case,
    Outcome,
    Witness,
    at_work,
    calm,
    goes_on,
    reached_by,
    until,
)
from tests.support.forking import Forked
from tests.support.waiting import wait_until
from tests.support.workplace import Workplace, command, ended

NO_FLOCK = """
import fcntl
def flock(*arguments):
    raise OSError({number}, "no locks here")
fcntl.flock = flock
"""


def aged(touched: Path) -> None:
    """Make a killed run's lock file two minutes old."""
    os.utime(touched, (os.stat(touched).st_mtime - 120,) * 2)


def no_flock(place: Workplace, full: bool) -> Outcome:
    """A file system that knows no flock: a second run is refused, and a killed one keeps others
    out for a minute.
    """
    count = 60 if full else 20
    sent = twice = lost = 0
    for number in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)[: 3 if full else 1]:
        here = Workplace(place.folder / str(number))
        with at_work(here, count) as witness:
            # longer than the second needs to begin, no matter how busy the machine
            witness.server.latency = lambda request: 60.0 if request.index >= 10 else 0.0
            without = NO_FLOCK.format(number=number)
            first = here.start(first=without)
            reached_by(first, witness, 11)
            during = [ended(here.start(first=without))] if full else []
            os.kill(first.pid, signal.SIGKILL)
            first.communicate()
            after = ended(here.start(first=without))
            touched = here.results / ".ckpt" / "lock.touched"
            for refused in (*during, after):
                calm(refused)
                assert refused.code == 2, refused
                assert f"it touched {touched}" in refused.err
            aged(touched)
            witness.server.latency = 0.0
            before = witness.sent
            assert ended(here.start(first=without)).code == 0
            assert witness.sent > before
            assert not touched.exists()
            outcome = goes_on(here, witness, count)
        sent, twice, lost = sent + outcome.sent, twice + outcome.twice, lost + outcome.lost
    return Outcome(sent, twice, lost, twice_allowed=3 * 8)


def other_labels(place: Workplace, full: bool) -> Outcome:
    """A second run of referring expressions, with other labels, in a first one's folder: it changes
    nothing there.
    """
    with Witness([until(refused := Event())]) as witness:
        names = [place.picture(f"img/{n}.jpg") for n in range(12 if full else 3)]
        specs = []
        for which, box in (("one", "2 3 22 23"), ("other", "30 10 50 30")):
            for name in names:
                label = place.folder / which / f"{Path(name).stem}.txt"
                label.parent.mkdir(exist_ok=True)
                label.write_text(f"Car 0 0 0 {box} 0 0 0 0 0 0 0\n")
            openai = {"base_url": witness.server.base_url, "model_name": "loopback"}
            spec = {
                "results_dir": str(place.results),
                "autolabel_type": "image_referring_expression",
                "image_referring_expression": {
                    "vlm": {"backend": "openai", "box_format": "xyxy_px", "openai": openai},
                    "data": {
                        "image_dir": str(place.folder / "img"),
                        "kitti_label_dir": str(place.folder / which),
                    },
                },
            }
            specs.append(place.folder / f"{which}.yaml")
            specs[-1].write_text(json.dumps(spec))
        first = Forked(["generate", "-e", str(specs[0]), "--no-progress"])
        wait_until(lambda: witness.sent >= 1, first)
        seeds = place.results / "seed_annotations.jsonl"
        before = seeds.read_bytes()
        second = command(["generate", "-e", str(specs[1]), "--no-progress"])
        refused.set()
        assert second.code == 2, second
        assert "another run is working" in second.err
        assert seeds.read_bytes() == before
        assert ended(first).code == 0
        assert seeds.read_bytes() == before
        done = {record["image_id"] for record in place.annotations()}
        return Outcome(witness.sent, witness.twice, len(names) - len(done))


LOCKS: list[Case] = [
    Case(
        "a file system without flock",
        "The run locks its folder by a file. For a minute after kill -9 another start is refused.",
        no_flock,
    ),
    Case("a second run: with other labels", REFUSED, other_labels),
]
