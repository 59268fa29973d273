"""What `workflow.check` of 0.2.0 wrote is read as any file of records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.reviewing import look_at_all
from tests.support.workplace import command


def phrase(number: int, text: str, *instances: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A class of the record, as its check left it."""
    named = {"expression_id": f"a#{number}", "text": text, "class": text, "char_span": None}
    status = "grounded" if instances else "none"
    return {**named, "instances": list(instances), "status": status, **more}


def check(number: int, there: bool, *boxes: dict[str, Any], reason: str | None) -> dict[str, Any]:
    """What the check says of a class, and of each of its boxes."""
    said = [{"bbox_id": f"a#{number}.0", **box} for box in boxes]
    verdict = {"method": "check", "there": there, "count": int(there), "boxes": said}
    return {**verdict, "reason": reason, "second": "crop", "score": 1.0}


DROPPED = {"verdict": "other", "crop": False, "score": 0.0, "decision": "dropped"}
MENDED = {"verdict": "loose", "crop": True, "score": 1.0, "decision": "kept", "mended": True}
FOUND = {"verdict": None, "found_by": "missing_search", "crop": True, "decision": "kept"}
WRONG = "on another thing; crop: no"
# As five operators of 0.2.0 left it: a dropped box, a box without a second look, a mended box, and
# one that the search for missing things found.
CHECKED = [
    phrase(
        0,
        "the black box",
        verified=True,
        verification=check(0, False, DROPPED, reason=f"dropped: {WRONG}"),
        rejected=[{"bbox_id": "a#0.0", "bbox": [26, 48, 253, 136], "score": None, "reason": WRONG}],
    ),
    phrase(
        1,
        "the blue box",
        verified=None,
        verification=check(1, True, reason="no box, though it may be there"),
        doubtful=True,
    ),
    phrase(
        2,
        "the cyan box",
        {"bbox_id": "a#2.0", "bbox": [279, 136, 374, 245], "before": [268, 146, 379, 246]},
        verified=True,
        verification=check(2, True, MENDED, reason=None),
    ),
    phrase(
        3,
        "the green box",
        {"bbox_id": "a#3.0", "bbox": [72, 58, 220, 266], "found_by": "missing_search"},
        verified=True,
        verification=check(3, True, FOUND, reason=None),
    ),
]
STEPS = ["step0_class_list", "step1_grounding", "step2_box_check", "step6_box_mending"]
RUN = {
    "state": "finished",
    "version": "0.2.0",
    "model": "loopback",
    "box_format": {"name": "xyxy_px", "from": "vlm.box_format"},
    "operators": {step: {} for step in STEPS},
    "summary": {"images": 1, "done": 1, "failed": 0, "doubtful_phrases": 1},
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    Image.new("RGB", (400, 300), "gray").save(folder / "a.png")
    record = {"image_path": "a.png", "image_id": "a", "width": 400, "height": 300, "doubtful": True}
    record |= {"expressions": CHECKED, "pipeline_steps": STEPS}
    (folder / "annotations.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    run = {**RUN, "image_folders": [str(folder)]}
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return folder


def told(*arguments: Any) -> dict[str, Any]:
    done = command([*map(str, arguments), "--json"])
    assert done.code == 0, done
    return done.summary


def test_the_report_shows_them(results: Path) -> None:
    told("report", results)
    page = (results / "report.html").read_text(encoding="utf-8")
    assert [row["text"] for row in CHECKED if row["text"] not in page] == []


def test_a_review_shows_them(results: Path) -> None:
    look_at_all(str(results))


@pytest.mark.parametrize("option", ["--verified-only", "--keep-rejected"])
def test_an_export_has_their_boxes(results: Path, tmp_path: Path, option: str) -> None:
    told("export", results, "--format", "coco", "-o", tmp_path / "coco", option)
    [file] = (tmp_path / "coco").rglob("*.json")
    coco = json.loads(file.read_text(encoding="utf-8"))
    # What the check itself dropped is no reviewer's rejected box.
    boxes = sorted(row["bbox"] for row in coco["annotations"])
    assert boxes == [[72, 58, 148, 208], [279, 136, 95, 109]]
