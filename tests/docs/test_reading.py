"""The reading path is as short as the page says, and what it points at is there."""

from __future__ import annotations

import re

from tests.support.workplace import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reading.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| (\w*) ?\| \[[^]]*\]\(\.\./(dataflow_grounding/[^)]*\.py)\) \| (.*?) \| (.*) \|$",
    PAGE,
    re.MULTILINE,
)


def test_the_path_has_at_most_12_files() -> None:
    files = [REPOSITORY / path for _, path, _, _ in ROWS]
    assert 6 <= len(set(files)) == len(files) <= 12


def test_each_file_has_what_the_page_says_and_names_where_to_go_next() -> None:
    for _, path, there, next_one in ROWS:
        source = (REPOSITORY / path).read_text(encoding="utf-8")
        for name in re.findall(r"`([\w.]+)`", f"{there} {next_one}"):
            last = name.removesuffix(".py").rpartition(".")[2]
            assert re.search(rf"\b{last}\b", source) or name.endswith((".py", ".jsonl")), (
                f"{path}: {name}"
            )
