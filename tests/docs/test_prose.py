"""Pages are read in editors and diffs too: their prose keeps to 120 columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "example_data", "init_template", "skills")
LONGEST = 120
FRONT_MATTER = "---"
FENCE, TABLE_OR_HEADING, MARKER = ("```", "~~~"), ("|", "#"), re.compile(r"^\s*(?:[-*+>]|\d+\.)\s+")
CODE = re.compile(r"(`+)[^`]+\1")


def too_long(page: str) -> Iterator[int]:
    """Numbers of the lines of prose that are too long and have several words, a span of code being
    one.
    """
    fence = ""
    for number, line in enumerate(page.splitlines(), 1):
        start = line.lstrip()[:3]
        if fence or start in FENCE or (number == 1 and start == FRONT_MATTER):
            fence = "" if fence == start else fence or start
        elif len(line) > LONGEST and not start.startswith(TABLE_OR_HEADING):
            text = CODE.sub(lambda code: code[0].replace(" ", "_"), MARKER.sub("", line))
            if len(text.split()) > 1:
                yield number


def test_prose_keeps_to_120_columns() -> None:
    pages = [
        *REPOSITORY.glob("*.md"),
        *(page for folder in FOLDERS for page in (REPOSITORY / folder).rglob("*.md")),
    ]
    assert {"README.md", "docs", "SKILL.md"} <= {
        name for page in pages for name in (page.name, page.parent.name)
    }
    long = [
        f"{page}:{number}"
        for page in pages
        for number in too_long(page.read_text(encoding="utf-8"))
    ]
    assert not long, f"longer than {LONGEST} columns: {', '.join(long)}"
