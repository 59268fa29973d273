"""From a results folder to its report: the title, the names it may have, and failures without any record."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import FileStorage
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.errors import InputError
from dataflow_grounding.review import publish, report_folder

RECORD = {"image_id": "a", "caption": "a mug", "expressions": []}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "annotations.jsonl").write_text(json.dumps(RECORD) + "\n")
    return tmp_path


def title_of(page: str | os.PathLike[str]) -> str:
    found = re.search("<h1[^>]*>(.*?)</h1>", Path(page).read_text(encoding="utf-8"))
    assert found
    return found[1]


def spec(pipeline: Any, data: Any) -> dict[str, Any]:
    return {"spec": {"autolabel_type": pipeline, "image_grounding": {"data": data}}}


@pytest.mark.parametrize(
    ("run", "title"),
    [
        (spec("image_grounding", {"input_jsonl": "../data/captions.jsonl"}), "image_grounding · captions.jsonl"),
        (spec("image_grounding", {"image_dir": "", "coco_json": "a/<b>.json"}), "image_grounding · &lt;b&gt;.json"),
        (spec("image_grounding", {"image_dir": "photos/"}), "image_grounding · photos"),
        (spec("image_grounding", None), "image_grounding"),
        (spec(["odd"], 3), "{folder}"),
        ({"spec": "odd"}, "{folder}"),
        ({}, "{folder}"),
    ],
)
def test_the_title_says_the_pipeline_and_the_data(results: Path, run: dict[str, Any], title: str) -> None:
    (results / "run.json").write_text(json.dumps(run))
    page, shown = report_folder(str(results))
    assert shown == 1
    assert title_of(page) == title.format(folder=results.name)


def test_a_script_titles_its_report_by_its_storage(results: Path) -> None:
    step = results / "mugs_step1.csv"
    step.write_text("image_id,caption\na,a mug\n")
    storage = FileStorage(str(results / "data" / "captions.csv"), str(results), "mugs", "csv")
    summary = Summary(done=1, annotations=str(step))
    publish(summary, storage)
    assert title_of(summary.report) == "mugs · captions.csv"
    assert "a mug" in Path(summary.report).read_text()


def test_a_run_without_any_record_done_shows_its_failures(tmp_path: Path) -> None:
    failure = {"id": "a", "step": "step0", "kind": "refused", "message": "not for us"}
    (tmp_path / "failures.jsonl").write_text(json.dumps(failure) + "\n")
    page, shown = report_folder(str(tmp_path))
    assert shown == 0
    assert "not for us" in Path(page).read_text()


@pytest.mark.parametrize("name", ["annotations.jsonl", "run.json"])
def test_the_report_takes_no_name_of_data(results: Path, name: str) -> None:
    before = (results / "annotations.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"call the report something that ends with \.html"):
        report_folder(str(results), str(results / name))
    assert (results / "annotations.jsonl").read_bytes() == before
