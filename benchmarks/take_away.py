"""Each room of extras is deleted in turn: what do all other tests say?

    python -m benchmarks.take_away [ROOM …] [--workers N] [-m MARKERS]

A copy of this checkout loses the room and its tests; the quick tests run there. A test that fails
because the room is missing, and says so, uses the room; any other failure is one of the package's.
Takes a minute and a half for each room on two cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.places.workplace import REPOSITORY

ROOMS = ("compat", "embedded", "evaluation", "formats", "review", "scale", "testing")
SAYS_SO = "isn't installed"  # what a command says that is of the missing room


@dataclass
class Outcome:
    """What the tests said without a room."""

    passed: int = 0
    skipped: int = 0
    of_the_room: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def copy_without(room: str, folder: Path) -> None:
    """Copy the files that git knows of, without a room and its tests."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for name in listed.split("\0"):
        source = REPOSITORY / name
        if name and source.is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    shutil.rmtree(folder / "dataflow_grounding" / "extras" / room)
    shutil.rmtree(folder / "tests" / room, ignore_errors=True)


def test_without(room: str, folder: Path, workers: int, markers: str) -> Outcome:
    """Run the tests in a copy without the room."""
    copy_without(room, folder)
    report = folder / "report.xml"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-m", markers),
            *("--continue-on-collection-errors", "-p", "no:cacheprovider", f"--junitxml={report}"),
        ],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return outcome_of(report, room)


def outcome_of(report: Path, room: str) -> Outcome:
    """Count what a report of pytest says."""
    outcome = Outcome()
    names = (SAYS_SO, f"extras.{room}", f"extras/{room}", f"tests.{room}")
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        problems = [*case.iter("failure"), *case.iter("error")]
        said = "".join(f"{problem.get('message')} {problem.text}" for problem in problems)
        if not problems:
            if case.find("skipped") is None:
                outcome.passed += 1
            else:
                outcome.skipped += 1
        elif any(word in said for word in names):
            outcome.of_the_room.append(name)
        else:
            outcome.failed.append(name)
    return outcome


def main() -> int:
    """Print a line for each room, and what failed for another reason."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", default=ROOMS, metavar="ROOM")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-m", dest="markers", default="not slow", help="pytest's")
    options = parser.parse_args()
    failed = False
    print(f"{'without':12}{'passed':>8}{'use it':>8}{'skipped':>9}{'failed':>8}")
    for room in options.rooms:
        with tempfile.TemporaryDirectory() as folder:
            outcome = test_without(room, Path(folder), options.workers, options.markers)
        using = len(outcome.of_the_room)
        print(
            f"{room:12}{outcome.passed:8}{using:8}{outcome.skipped:9}{len(outcome.failed):8}",
            flush=True,
        )
        for name in outcome.failed:
            print(f"  {name}")
        failed = failed or bool(outcome.failed) or not outcome.passed
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
