"""What `workflow.check` of 0.2.0 wrote is read as any file of records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.reviewing import look_at_all
from tests.support.workplace import command

# As five operators of 0.2.0 left it: a dropped box, a box without a second look, a mended box, and
# one that the search for missing things found.
CHECKED = [
    {
        "expression_id": "a#0",
        "text": "the black box",
        "class": "the black box",
        "char_span": None,
        "instances": [],
        "status": "none",
        "verified": True,
        "verification": {
            "method": "check",
            "there": False,
            "count": 0,
            "boxes": [
                {
                    "bbox_id": "a#0.0",
                    "verdict": "other",
                    "crop": False,
                    "score": 0.0,
                    "decision": "dropped",
                }
            ],
            "reason": "dropped: on another thing; crop: no",
            "second": "crop",
            "score": 1.0,
        },
        "rejected": [
            {
                "bbox_id": "a#0.0",
                "bbox": [26, 48, 253, 136],
                "score": None,
                "reason": "on another thing; crop: no",
            }
        ],
    },
    {
        "expression_id": "a#1",
        "text": "the blue box",
        "class": "the blue box",
        "char_span": None,
        "instances": [],
        "status": "none",
        "verified": None,
        "verification": {
            "method": "check",
            "there": True,
            "count": 1,
            "boxes": [],
            "reason": "no box, though it may be there",
            "second": "crop",
            "score": 0.0,
        },
        "doubtful": True,
    },
    {
        "expression_id": "a#2",
        "text": "the cyan box",
        "class": "the cyan box",
        "char_span": None,
        "instances": [
            {
                "bbox_id": "a#2.0",
                "bbox": [279, 136, 374, 245],
                "score": None,
                "before": [268, 146, 379, 246],
            }
        ],
        "status": "grounded",
        "verified": True,
        "verification": {
            "method": "check",
            "there": True,
            "count": 1,
            "boxes": [
                {
                    "bbox_id": "a#2.0",
                    "verdict": "loose",
                    "crop": True,
                    "score": 1.0,
                    "decision": "kept",
                    "mended": True,
                }
            ],
            "reason": None,
            "second": "crop",
            "score": 1.0,
        },
    },
    {
        "expression_id": "a#3",
        "text": "the green box",
        "class": "the green box",
        "char_span": None,
        "instances": [
            {
                "bbox_id": "a#3.0",
                "bbox": [72, 58, 220, 266],
                "score": None,
                "found_by": "missing_search",
            }
        ],
        "status": "grounded",
        "verified": True,
        "verification": {
            "method": "check",
            "there": True,
            "count": 1,
            "boxes": [
                {
                    "bbox_id": "a#3.0",
                    "verdict": None,
                    "found_by": "missing_search",
                    "crop": True,
                    "score": 1.0,
                    "decision": "kept",
                }
            ],
            "reason": None,
            "second": "crop",
            "score": 1.0,
        },
    },
]
STEPS = [
    "step0_class_list",
    "step1_grounding",
    "step2_box_check",
    "step3_missing_search",
    "step4_crop_judgement",
    "step5_doubt_grounding",
    "step6_box_mending",
]
RUN = {
    "state": "finished",
    "stopped_by": None,
    "version": "0.2.0",
    "model": "loopback",
    "box_format": {"name": "xyxy_px", "from": "vlm.box_format"},
    "operators": {step: {} for step in STEPS},
    "summary": {"images": 1, "done": 1, "failed": 0, "doubtful_phrases": 1},
    "steps": [],
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    Image.new("RGB", (400, 300), "gray").save(folder / "a.png")
    record = {
        "image_path": "a.png",
        "source": "image_grounding",
        "expressions": CHECKED,
        "regions": [],
        "pipeline_steps": STEPS,
        "image_id": "a",
        "width": 400,
        "height": 300,
        "doubtful": True,
    }
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
    for row in CHECKED:
        assert row["text"] in page


def test_a_review_shows_them(results: Path) -> None:
    look_at_all(str(results))


@pytest.mark.parametrize("options", [[], ["--verified-only"], ["--keep-rejected"]])
def test_an_export_has_their_boxes(results: Path, tmp_path: Path, options: list[str]) -> None:
    told("export", results, "--format", "coco", "-o", tmp_path / "coco", *options)
    [file] = (tmp_path / "coco").rglob("*.json")
    coco = json.loads(file.read_text(encoding="utf-8"))
    # What the check itself dropped is no reviewer's rejected box.
    boxes = sorted(row["bbox"] for row in coco["annotations"])
    assert boxes == [[72, 58, 148, 208], [279, 136, 95, 109]]


def test_eval_compares_them(results: Path, tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    rows = [
        {"text": row["text"], "instances": [{"bbox": box["bbox"]} for box in row["instances"]]}
        for row in CHECKED
    ]
    record = {"image_path": "a.png", "width": 400, "height": 300, "expressions": rows}
    gold.write_text(json.dumps(record) + "\n", encoding="utf-8")
    figures = told("eval", results, "--gold", gold)
    assert (figures["boxes"], figures["gold_boxes"]) == (2, 2)
    assert (figures["macc"], figures["il_mcc"]) == (1.0, 1.0)
