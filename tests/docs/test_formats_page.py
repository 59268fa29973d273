"""docs/formats.md has the table of formats.yaml."""

from __future__ import annotations

from dataflow_grounding.formats import FORMATS
from tests.support.workplace import REPOSITORY

COLUMNS = (
    "unplaced",
    "several_boxes",
    "nothing_there",
    "captions",
    "spans",
    "scores",
    "ids",
    "verified",
    "classes",
    "masks",
)


def test_the_table_is_that_of_the_formats() -> None:
    rows = []
    for name, row in FORMATS.items():
        said = " | ".join("yes" if key in row["says"] else "–" for key in COLUMNS)
        way = " (in only)" if row.get("in_only") else ""
        rows.append(
            f"| `{name}`{way} | {row['about']} | `{row['file']}` | {said} | {row.get('numbers') or 'exact'} |"
        )
    page = (REPOSITORY / "docs" / "formats.md").read_text(encoding="utf-8")
    assert [
        line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 15
    ] == rows
