"""The lines that docs/last_lines.md shows are those that such a run prints."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from dataflow_grounding.engine.summary import REMARKS, WARNINGS
from dataflow_grounding.testing.answers import EchoAnswers
from tests.support.endpoint import Serves
from tests.support.pages import marked
from tests.support.workplace import REPOSITORY, command

PAGE = REPOSITORY / "docs" / "last_lines.md"
SPEC = {
    "results_dir": "results",
    "autolabel_type": "image_grounding",
    "image_grounding": {
        "vlm": {"backend": "auto", "prices": {"input": 0.25, "output": 1.5}},
        "data": {
            "input_jsonl": "captions.csv",
            "image_root": "photos",
            "columns": {"image": "file", "caption": "text"},
        },
    },
}


def shape(line: str) -> str:
    """A line without its numbers; of a box only that it is one."""
    line = re.sub(r"\d+(?:[.,]\d+)*", "N", line)
    return "a box" if re.match(r"  .*\[N, N, N, N\]", line) else line


@pytest.mark.slow
def test_a_run_prints_the_lines_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serves: Serves
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = REPOSITORY / "example_data"
    shutil.copytree(examples / "images", "photos")
    Path("photos/cat.jpg").unlink()
    with open("captions.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "text"])
        for row in map(json.loads, (examples / "captions.jsonl").read_text("utf-8").splitlines()):
            table.writerow([Path(row["image_path"]).name, row["caption"]])
    Path("captions.yaml").write_text(yaml.safe_dump(SPEC))
    server = serves(EchoAnswers("xyxy_1000"))
    monkeypatch.setenv("DF_BASE_URL", server.base_url)
    monkeypatch.setenv("DF_MODEL", "Qwen/Qwen3-VL-8B-Instruct")
    done = command(["generate", "-e", "captions.yaml"])
    assert done.code == 1, done
    told = (
        done.err.replace(f"file://{tmp_path}", "file://").replace(f"{tmp_path}/", "").splitlines()
    )
    printed = list(dict.fromkeys(map(shape, told)))
    assert printed[1:] == list(map(shape, marked(PAGE, "run").splitlines()))


def test_the_page_has_lines_of_warnings_as_runs_print_them() -> None:
    told = [what for _, what in [*WARNINGS.values(), *REMARKS.values()]]
    lines = re.findall(
        r"^\| `(?:Warning|Note): \d+ \w+ ([^`…]*)", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert len(lines) >= 4
    for line in lines:
        assert any(what.startswith(line.strip()) for what in told), line
