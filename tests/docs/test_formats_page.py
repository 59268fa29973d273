"""docs/formats.md has the table of formats.yaml."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dataflow_grounding.formats import FORMATS
from tests.support.workplace import REPOSITORY, command

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
        line for line in page.splitlines() if line.startswith("| `") and line.count("|") == 14
    ] == rows


def test_the_import_that_goes_on_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (REPOSITORY / "docs" / "formats.md").read_text(encoding="utf-8")
    section = page.partition("## An import that goes on")[2]
    blocks = re.findall(r"```\w+\n(.*?)```", section, re.DOTALL)
    echo, run = blocks[0].splitlines()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example_data").symlink_to(REPOSITORY / "example_data")
    _, text, _, file = shlex.split(echo)
    Path(file).write_text(text + "\n")
    assert command(shlex.split(run)[1:]).out == blocks[1]
