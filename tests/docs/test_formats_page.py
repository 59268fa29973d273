"""docs/formats.md has the table of formats.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from dataflow_grounding.formats import FORMATS
from dataflow_grounding.formats.format import Carries
from tests.support.workplace import REPOSITORY

ABOVE = "Every format holds boxes, several for a phrase."
"""The page's sentence on what no row names."""
HELD = {
    "captions": "captions",
    "spans": "spans",
    "nothing_there": "absent",
    "scores": "scores",
    "ids": "ids",
    "verified": "verified",
    "classes": "classes",
    "masks": "masks",
}
ALL = {field.name for field in fields(Carries)} - {"numbers"}


def what_it_holds(row: Mapping[str, Any]) -> str:
    """The last cell of a format's line."""
    says = set(row["says"])
    if says == ALL:
        held = ["everything"]
    else:
        held = [word for key, word in HELD.items() if key in says]
        held += ["phrases of the caption only"] * ("unplaced" not in says)
    return ", ".join([*held, *(["rounded boxes"] if row.get("numbers") else [])])


def test_the_table_is_that_of_the_formats() -> None:
    rows = []
    for name, row in FORMATS.items():
        way = " (in only)" if row.get("in_only") else ""
        rows.append(f"| `{name}`{way} | {row['about']} | `{row['file']}` | {what_it_holds(row)} |")
    page = (REPOSITORY / "docs" / "formats.md").read_text(encoding="utf-8")
    table = page.partition("\n## The formats\n")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    assert lines == rows, "\n".join(["docs/formats.md should have:", *rows])
    assert ABOVE in " ".join(table.split())
    assert all("several_boxes" in row["says"] for row in FORMATS.values())
