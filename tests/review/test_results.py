"""From a results folder to its report: the title, the names it may have, and failures without any
record.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import FileStorage
from dataflow_grounding._util.errors import InputError
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.results_folder import image_folders_of
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.images.files import read_header
from dataflow_grounding.images.image import find_image
from dataflow_grounding.review import publish, report_folder
from dataflow_grounding.testing import LoopbackServer
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import Workplace, command, write_rows

RECORD = {"image_id": "a", "caption": "a mug", "expressions": []}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_rows(tmp_path / "annotations.jsonl", RECORD)
    return tmp_path


def title_of(page: str | os.PathLike[str]) -> str:
    found = re.search("<h1[^>]*>(.*?)</h1>", Path(page).read_text(encoding="utf-8"))
    assert found
    return found[1]


def data_of(page: str | os.PathLike[str]) -> str:
    files = Path(page).parent.glob("report_files/*/*.js")
    return "".join(path.read_text(encoding="utf-8") for path in files)


def spec(pipeline: Any, data: Any) -> dict[str, Any]:
    return {"spec": {"autolabel_type": pipeline, "image_grounding": {"data": data}}}


@pytest.mark.parametrize(
    ("pipeline", "data", "title"),
    [
        ("grounding", {"input_jsonl": "../data/captions.jsonl"}, "grounding · captions.jsonl"),
        ("grounding", {"image_dir": "", "coco_json": "a/<b>.json"}, "grounding · &lt;b&gt;.json"),
        ("grounding", {"image_dir": "photos/"}, "grounding · photos"),
        ("my_module:Mugs", {"input_jsonl": "mugs.csv"}, "my_module:Mugs · mugs.csv"),
        (["odd"], 3, "{folder}"),
        (None, None, "{folder}"),
    ],
)
def test_the_title_says_the_pipeline_and_the_data(
    results: Path, pipeline: Any, data: Any, title: str
) -> None:
    write_rows(results / "run.json", spec(pipeline, data) if pipeline else {})
    page, shown = report_folder(str(results))
    assert shown == 1
    assert title_of(page) == title.format(folder=results.name)


@pytest.mark.slow
def test_the_report_of_a_steps_folder_says_what_ran(results: Path) -> None:
    write_rows(results / "run.json", spec("image_grounding", {"input_jsonl": "captions.jsonl"}))
    step = results / "step_1_grounding"
    write_rows(step / "annotations.jsonl", RECORD)
    assert title_of(report_folder(str(step))[0]) == "image_grounding · captions.jsonl"
    (results / "run.json").unlink()
    assert title_of(report_folder(str(step))[0]) == "step_1_grounding"
    write_rows(step / "annotations.jsonl", {**RECORD, "source": "image_grounding"})
    assert title_of(report_folder(str(step))[0]) == "image_grounding"


def test_the_report_says_how_precise_a_measured_map_is(workplace: Workplace) -> None:
    workplace.rows([{"image_path": workplace.picture(size=(640, 480)), "caption": "A mug."}])
    with LoopbackServer(ProbeModel("xyxy_px")) as server:
        settings = {"vlm.openai.base_url": server.base_url, "vlm.box_format": "auto"}
        done = workplace.run(**settings)
    assert done.code == 0, done
    box_format = json.loads((workplace.results / "run.json").read_text())["box_format"]
    assert "maps precise to 0." in box_format["from"]
    made = command(["report", str(workplace.results)])
    assert made.code == 0, made
    page = (workplace.results / "report.html").read_text()
    assert f"Box format: {box_format['name']} ({box_format['from']})." in page


@pytest.mark.parametrize(
    ("prefix", "source", "first", "title"),
    [
        ("mugs", "", "data/captions.csv", "mugs · captions.csv"),
        ("step_2", "image_grounding", "data/captions.csv", "image_grounding · captions.csv"),
        ("dataflow_cache_step", "", "data/captions.csv", "captions.csv"),
        ("mugs", "", "seed.jsonl", "mugs · photos"),
    ],
)
def test_a_script_titles_its_report_by_its_records_and_its_storage(
    results: Path, prefix: str, source: str, first: str, title: str
) -> None:
    step = results / "mugs_step1.csv"
    step.write_text(f"image_id,caption,source\na,a mug,{source}\n")
    images = str(results / "photos") if first == "seed.jsonl" else None
    storage = FileStorage(str(results / first), str(results), prefix, "csv", image_root=images)
    summary = Summary(done=1, annotations=str(step))
    publish(summary, storage)
    assert title_of(summary.shown.report) == title
    assert "a mug" in data_of(summary.shown.report)


@pytest.mark.slow
def test_a_script_leaves_what_the_command_does(results: Path) -> None:
    """Failures were in the script's report alone, and `run.json` named a step's file."""
    storage = FileStorage(str(results / "captions.jsonl"), str(results), "mugs")
    failure = {"id": "b", "step": "step1", "kind": "refused", "message": "not for us"}
    write_rows(Path(storage.failures_path), failure)
    step = write_rows(results / "mugs_step3.jsonl", RECORD)
    summary = Summary(done=1, annotations=str(step), failures_file=storage.failures_path)
    publish(summary, storage)
    assert "not for us" in data_of(summary.shown.report)
    assert "not for us" in data_of(report_folder(str(results))[0])
    told = json.loads((results / "run.json").read_text())["summary"]["annotations"]
    assert told == summary.annotations == str(results / "annotations.jsonl")


def test_lines_that_cant_be_read_are_failures(results: Path) -> None:
    with (results / "annotations.jsonl").open("a") as file:
        file.write('{"torn')
    page, shown = report_folder(str(results))
    assert shown == 1
    assert "line 2" in data_of(page)
    assert "not JSON" in data_of(page)


@pytest.mark.slow
def test_commands_find_the_pictures_of_a_scripts_run(results: Path, tmp_path: Path) -> None:
    """Wherever they are called, as they find those of a spec's run."""
    (tmp_path / "data").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "data" / "mug.png")
    record = {**RECORD, "image_path": "mug.png", "width": 40, "height": 30, "caption": "a mug"}
    step = write_rows(results / "step1.jsonl", record)
    storage = FileStorage(str(tmp_path / "data" / "captions.jsonl"), str(results))
    publish(Summary(done=1, annotations=str(step)), storage)
    found = find_image(Record(record, image_folders_of(str(results))), "image_path")
    assert read_header(found.path).size == (40, 30)
    of_a_spec = json.dumps(spec("image_grounding", {"input_jsonl": "captions.jsonl"}))
    (results / "run.json").write_text(of_a_spec)
    publish(Summary(done=1, annotations=str(step)), storage)
    assert (results / "run.json").read_text() == of_a_spec


def test_a_run_without_any_record_done_shows_its_failures(tmp_path: Path) -> None:
    failure = {"id": "a", "step": "step0", "kind": "refused", "message": "not for us"}
    write_rows(tmp_path / "failures.jsonl", failure)
    page, shown = report_folder(str(tmp_path))
    assert shown == 0
    assert "not for us" in data_of(page)


@pytest.mark.parametrize("name", ["annotations.jsonl", "run.json"])
def test_the_report_takes_no_name_of_data(results: Path, name: str) -> None:
    before = (results / "annotations.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"call the report something that ends with \.html"):
        report_folder(str(results), str(results / name))
    assert (results / "annotations.jsonl").read_bytes() == before


def test_a_score_of_any_size_ends_no_report(tmp_path: Path) -> None:
    rows = []
    for score in (1e308, -1e308, 10**400):
        boxes = [{"bbox": [1, 2, 30, 40], "score": score}]
        cup = {"text": "a cup", "status": "grounded", "instances": boxes}
        rows.append({"image_path": "a.jpg", "caption": "a cup", "expressions": [cup]})
    write_rows(tmp_path / "annotations.jsonl", *rows)
    done = command(["report", str(tmp_path)])
    assert done.code == 0, done
