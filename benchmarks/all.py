"""Every figure of the documentation, measured again by one command.

    python -m benchmarks.all                      # every page's, some hours on two idle cores
    python -m benchmarks.all --page measurements  # one page's
    python -m benchmarks.all --list               # page and command

Each benchmark is a command, too; here they run one after the other. What a benchmark prints goes to
FOLDER/NAME.txt (`-o`, by default benchmark_results). FOLDER/summary.md has a line for each: how
long it took, how it ended, and how many goals it missed. A benchmark that ended well is skipped the
next time, until its file is removed. Measure on an idle machine: wall times say little on a busy
one.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Measured:
    """A command that prints figures of a page.

    Args:
        page: The page of docs/ that has them, without `.md`.
        arguments: After `python -m benchmarks.`.
    """

    page: str
    arguments: str

    @property
    def name(self) -> str:
        """The command as a file's name."""
        return self.arguments.replace(" --", "-").replace(" ", "-").replace("/", "-")

    @property
    def command(self) -> list[str]:
        """What is run."""
        module, *rest = self.arguments.split()
        return [sys.executable, "-m", f"benchmarks.{module}", *rest]


FIGURES = (
    Measured("measurements", "request_cost"),
    Measured("measurements", "request_cost --by-part"),
    Measured("measurements", "clients"),
    Measured("measurements", "resume"),
    Measured("measurements", "start"),
    Measured("measurements", "image_cost"),
    Measured("measurements", "slopes --records 100000"),
    Measured("measurements", "serve_cost"),
    Measured("measurements", "faults"),
    Measured("measurements", "rate_limits"),
    Measured("measurements", "damaged_replies"),
    Measured("measurements", "ray_cost"),
    Measured("measurements", "calibration"),
    Measured("measurements", "resize_rules --runs 3"),
    Measured("measurements", "box_watch --seeds 4 --right 100"),
    Measured("measurements", "odd_servers"),
    Measured("better_boxes", "box_quality"),
    Measured("better_boxes", "box_quality --part checks --seeds 0 1"),
)
"""All but `peers`, which installs others in a folder: --install."""


def chosen(page: str | None) -> list[Measured]:
    """The commands of a page, or all. Raises SystemExit for a page that has none."""
    if page is None:
        return list(FIGURES)
    of_page = [one for one in FIGURES if one.page.split("/")[-1] == page.split("/")[-1]]
    if not of_page:
        pages = ", ".join(sorted({one.page.split("/")[-1] for one in FIGURES}))
        raise SystemExit(f"no figures of {page}: there are {pages}")
    return of_page


def measure(one: Measured, folder: Path) -> str:
    """Run a command, unless it ended well before; return its line of the summary."""
    path = folder / f"{one.name}.txt"
    if path.exists():
        return f"| {one.page} | {one.arguments} | kept from before | |"
    began = time.perf_counter()
    partial = path.with_suffix(".part")
    with open(partial, "w", encoding="utf-8") as file:
        code = subprocess.run(one.command, stdout=file, stderr=subprocess.STDOUT).returncode
    minutes = (time.perf_counter() - began) / 60
    text = partial.read_text("utf-8", "replace")
    missed = text.count("**missed**") + text.count("  misses ")
    if code:
        return f"| {one.page} | {one.arguments} | exit code {code}: see {partial} | |"
    partial.replace(path)
    return f"| {one.page} | {one.arguments} | {minutes:.1f} min | {missed} missed |"


def lines(figures: list[Measured], folder: Path) -> Iterator[str]:
    """The lines of the summary, each as soon as it is known."""
    load = os.getloadavg()[0]
    yield f"{os.cpu_count()} cores, load average {load:.1f} before the start, Python"
    yield f"{platform.python_version()}, {platform.system()}, {time.strftime('%Y-%m-%d')}"
    yield ""
    yield "| page | python -m benchmarks. | | goals |"
    yield "|---|---|---|---|"
    for one in figures:
        yield measure(one, folder)


def main() -> None:
    """Measure, and say what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", help="only this page's figures")
    parser.add_argument("--list", action="store_true", help="say what would run")
    parser.add_argument("-o", dest="folder", type=Path, default=Path("benchmark_results"))
    arguments = parser.parse_args()
    figures = chosen(arguments.page)
    if arguments.list:
        for one in figures:
            print(f"{one.page:28} {one.arguments}")
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with open(arguments.folder / "summary.md", "w", encoding="utf-8") as summary:
        for line in lines(figures, arguments.folder):
            print(line, flush=True)
            summary.write(line + "\n")
            summary.flush()


if __name__ == "__main__":
    main()
