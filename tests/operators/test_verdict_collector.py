"""VerdictCollector: BoxChecker's question, and every box kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from dataflow_grounding import BoxChecker, OpenAIServing, VerdictCollector
from dataflow_grounding.testing import CannedAnswers, LoopbackServer

DENIES = {
    "phrases": [{"id": 1, "there": False, "count": 0}],
    "boxes": [{"id": 1, "verdict": "other", "reason": "a blue one"}],
}


def test_it_asks_what_the_checker_asks_and_keeps_every_box(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 48), "red").save(path)
    expression = {"text": "the cup", "instances": [{"bbox": [2, 2, 30, 20]}], "status": "grounded"}
    row = {"image_path": str(path), "expressions": [expression]}
    results: dict[type, Any] = {}
    with LoopbackServer(CannedAnswers(json.dumps(DENIES)), keep_bodies=True) as server:
        serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_px")
        for kind in (BoxChecker, VerdictCollector):
            [results[kind]] = kind(serving, check_every=None)(row)["expressions"]
        first, second = server.requests
    assert first.body == second.body
    collected = results[VerdictCollector]
    assert results[BoxChecker]["instances"] == []
    assert [instance["bbox"] for instance in collected["instances"]] == [[2, 2, 30, 20]]
    assert "rejected" not in collected
    assert collected["verification"]["there"] is False
