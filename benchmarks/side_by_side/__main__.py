"""What scripts as people have them hold and lose under planted faults, and what ours do:
`python -m benchmarks.side_by_side`.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.side_by_side.planted import BEYOND, NO_FAULT, PLANTED, Planted
from benchmarks.side_by_side.trial import WAYS, Outcome, Way, can_mount, trial

WHOSE = ("theirs", "ours")
Cell = tuple[str, str, str]
"""Fault, way, and whose script."""
OR = " or "
"""Between what ours have in one cell."""


def measured(
    ways: Sequence[Way],
    planted: Sequence[Planted],
    workers: int,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[Cell, Outcome]:
    """The outcome of each cell; `tell` gets the table's lines as they come."""
    cells: dict[Cell, Outcome] = {}
    heads = " | ".join(way.title for way in ways)
    tell(f"| fault | {heads} | with this library |\n|---|{'---|' * (len(ways) + 1)}")
    jobs = [(fault, way, whose) for fault in planted for way in ways for whose in WHOSE]
    with ThreadPoolExecutor(workers) as pool:
        outcomes = pool.map(lambda job: trial(job[1], job[2], job[0]), jobs)
        for fault in planted:
            for way in ways:
                for whose in WHOSE:
                    cells[fault.name, way.name, whose] = next(outcomes)
            theirs, ours = (
                [str(cells[fault.name, way.name, whose]) for way in ways] for whose in WHOSE
            )
            tell(line(fault.name, theirs, ours))
    return cells


def line(name: str, theirs: Sequence[str], ours: Sequence[str]) -> str:
    """A line of the table: a cell for each of theirs, and one for what ours have all together."""
    return f"| {' | '.join([name, *theirs, OR.join(dict.fromkeys(ours))])} |"


def totals(
    ways: Sequence[Way], planted: Sequence[Planted], cells: dict[Cell, Outcome]
) -> Iterator[str]:
    """How many of the planted faults each way holds, and what it sends without any."""
    counted = [fault for fault in planted if fault in PLANTED]
    held: dict[str, list[str]] = {}
    sent: dict[str, list[str]] = {}
    for whose in WHOSE:
        counts = [sum(cells[fault.name, way.name, whose].held for fault in counted) for way in ways]
        held[whose] = [f"{count} of {len(counted)}" for count in counts]
        if NO_FAULT in planted:
            sent[whose] = [str(cells[NO_FAULT.name, way.name, whose].sent) for way in ways]
    yield line("**held**", held["theirs"], held["ours"])
    if sent:
        yield line("requests without a fault", sent["theirs"], [", ".join(sent["ours"])])


def main() -> int:
    """Print the table; exits with 1 where something fails although nothing goes wrong."""
    parser = argparse.ArgumentParser(prog="side_by_side", description=__doc__)
    parser.add_argument("--way", action="append", choices=[way.name for way in WAYS])
    parser.add_argument("--fault", action="append", metavar="NAME")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--words", action="store_true", help="print what each script said")
    given = parser.parse_args()
    ways = [way for way in WAYS if given.way is None or way.name in given.way]
    planted = [NO_FAULT, *PLANTED, *BEYOND]
    if given.fault:
        planted = [fault for fault in planted if fault.name in given.fault]
    if not can_mount():
        print("No small disk can be mounted here: 'disk full' is left out.", file=sys.stderr)
        planted = [fault for fault in planted if not fault.fills]
    cells = measured(ways, planted, given.workers, functools.partial(print, flush=True))
    for total in totals(ways, planted, cells):
        print(total)
    if given.words:
        for cell, outcome in cells.items():
            print(f"\n{' / '.join(cell)}: {outcome!r}\n{outcome.words[-3000:]}")
    clean = [outcome for (fault, *_), outcome in cells.items() if fault == NO_FAULT.name]
    return 0 if all(outcome.held for outcome in clean) else 1


if __name__ == "__main__":
    raise SystemExit(main())
