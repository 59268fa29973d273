"""The script of docs/better_boxes.md, as it is, and the spec next to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from tests.support.pages import blocks, marked
from tests.support.scripts import printed_by
from tests.support.stand_ins.erring_model import ErringModel, Errors
from tests.support.stand_ins.limited_model import LimitedModel
from tests.support.stand_ins.phrasing_model import PhrasingModel
from tests.support.stand_ins.seeing_model import draw
from tests.support.workplace import REPOSITORY, Workplace, command

PAGE = REPOSITORY / "docs" / "better_boxes.md"
RED = (100, 120, 480, 600)


def run_script(
    mark: str, model: Callable[[ReceivedRequest], Any], folder: Path, **changes: str
) -> list[str]:
    """Run a script of the page, with some of its text replaced; returns the lines it prints."""
    script = marked(PAGE, mark)
    script = script.replace(changes.get("old", ""), changes.get("new", "")) if changes else script
    with LoopbackServer(model, keep_bodies=True) as server:
        environment = {"DF_MODEL": "loopback", "DF_BOX_FORMAT": "xyxy_1000"}
        script += changes.get("more", "")
        return printed_by(script, folder, DF_BASE_URL=server.base_url, **environment).splitlines()


@pytest.mark.slow
def test_the_script_drops_what_is_not_there(tmp_path: Path) -> None:
    draw(str(tmp_path / "photo.png"), (1200, 900), {"red": [RED]})
    assert run_script("check", ErringModel(Errors(absent=1.0)), tmp_path) == [
        "the red box grounded True",
        "the green box none True",
        "dropped: [100, 120, 480, 600] on another thing; presence: no",
    ]


SHOWN = """
[expression] = record["expressions"]
print(expression["rejected"][0]["bbox"], expression["rejected"][0]["reason"])
for box in expression["instances"]:
    print(box["bbox"])
"""


@pytest.mark.slow
def test_the_script_about_proposals_drops_what_is_false(tmp_path: Path) -> None:
    draw(str(tmp_path / "photo.png"), (1200, 900), {"red": [RED], "blue": [(300, 650, 500, 800)]})
    two = '[300.25, 650, 500, 800]}, {"bbox": [100, 120, 480, 600]'
    changes = {"old": "[300.25, 200, 500, 400]", "new": two, "more": SHOWN}
    assert run_script("proposals", ErringModel(Errors()), tmp_path, **changes) == [
        "[300.25, 650, 500, 800] on another thing; presence: no",
        "[100, 120, 480, 600]",
    ]


@pytest.mark.slow
def test_the_script_about_tiles_finds_a_thing_once(tmp_path: Path) -> None:
    draw(str(tmp_path / "photo.png"), (1200, 900), {"red": [RED]})
    [line] = run_script("tiles", LimitedModel(), tmp_path)
    assert line.startswith("2 [{'bbox_id': 'photo#0.0', 'bbox': [100, 120, 480, 600]")


@pytest.mark.slow
def test_the_script_about_negatives_keeps_what_is_absent(tmp_path: Path) -> None:
    boxes = {"red": [RED], "blue": [(300, 650, 500, 800)], "green": [(700, 100, 900, 300)]}
    draw(str(tmp_path / "photo.png"), (1200, 900), boxes)
    lines = run_script("negatives", PhrasingModel(Errors()), tmp_path)
    assert lines[:2] == ["the red box grounded ", "the blue box grounded "]
    absent = [line.split(" none ") for line in lines[2:5]]
    assert len({change for _, change in absent}) == 3
    assert not any(text.startswith("the green box") for text, _ in absent)
    assert "not kept: the green box - it was found" in lines


def test_the_spec_of_another_model_is_one(workplace: Workplace) -> None:
    specs = [yaml.safe_load(text)["image_grounding"] for _, text in blocks(PAGE, "yaml")]
    [block] = [spec for spec in specs if "judge" in spec.get("vlm", {})]
    workplace.picture()
    workplace.rows([{"image_path": "a.jpg", "caption": "A cup."}])
    settings = {"vlm.openai": block["vlm"]["openai"], "vlm.judge": block["vlm"]["judge"]}
    for name in ("vlm.openai.base_url", "vlm.openai.model_name", "vlm.openai.timeout"):
        del workplace.settings[name]
    spec = workplace.spec(**settings, **{"workflow.check": True})
    done = command(["estimate", "-e", str(spec), "--json"])
    assert done.code == 0, done
    steps = [step["step"] for step in done.summary["steps"]]
    expected = ["box_check", "missing_search"]
    assert [step.partition("_")[2] for step in steps][-len(expected) :] == expected
