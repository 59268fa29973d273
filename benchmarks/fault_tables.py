"""Print what is promised of each fault, as tables.

python -m benchmarks.fault_tables
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.faults import SECTIONS
from tests.support.fault_cases.fault_case import Case


def tables() -> str:
    """A heading and a table for each section."""
    return "\n".join(f"### {heading}\n\n{table_of(cases)}" for heading, cases in SECTIONS.items())


def table_of(cases: Sequence[Case]) -> str:
    """A row for each promise, in the order of the cases: its faults, then the promise."""
    names: dict[str, list[str]] = {}
    for case in cases:
        names.setdefault(case.promise, []).append(case.name)
    rows = [f"| {joined(same)} | {promise} |\n" for promise, same in names.items()]
    return "".join(["| what goes wrong | what happens then |\n", "| --- | --- |\n", *rows])


def joined(names: Sequence[str]) -> str:
    """The names in one text, in which those that begin alike, up to a colon, share it."""
    ends: dict[str, list[str]] = {}
    for name in names:
        start, _, end = name.partition(": ")
        ends.setdefault(start, []).append(end)
    return "; ".join(": ".join(filter(None, [start, ", ".join(ends[start])])) for start in ends)


def main() -> None:
    """Print them."""
    print(tables(), end="")


if __name__ == "__main__":
    main()
