"""Write the lists of docs/reliability.md: what is promised of each fault.

python -m benchmarks.fault_tables
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import SECTIONS
from tests.support.fault_cases.fault_case import Case

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
WIDTH = 120
MARK = "<!-- What follows is written by benchmarks/fault_tables.py -->\n"


def lists() -> str:
    """A heading and a list for each section."""
    return "\n".join(f"### {heading}\n\n{listed(cases)}" for heading, cases in SECTIONS.items())


def listed(cases: Sequence[Case]) -> str:
    """A line for each promise, in the order of the cases: its faults, then the promise."""
    names: dict[str, list[str]] = {}
    for case in cases:
        names.setdefault(case.promise, []).append(case.name)
    return "".join(line_of(joined(same), promise) for promise, same in names.items())


def line_of(faults: str, promise: str) -> str:
    """An item of the list, in lines of at most WIDTH columns."""
    item = textwrap.wrap(
        f"- {faults}. **{promise}**", WIDTH, subsequent_indent="  ", break_on_hyphens=False
    )
    return "\n".join(item) + "\n"


def joined(names: Sequence[str]) -> str:
    """The names in one text, in which those that begin alike, up to a colon, share it."""
    ends: dict[str, list[str]] = {}
    for name in names:
        start, _, end = name.partition(": ")
        ends.setdefault(start, []).append(end)
    return "; ".join(": ".join(filter(None, [start, ", ".join(ends[start])])) for start in ends)


def with_lists(page: str) -> str:
    """The page with its lists as the cases have them now."""
    before, mark, _ = page.partition(MARK)
    return f"{before}{mark}\n{lists()}"


def main() -> None:
    """Write them into the page."""
    PAGE.write_text(with_lists(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
