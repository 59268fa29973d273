"""Without pandas, OpenCV and openai, which a container may leave out: all works that needs none of
them, and what does says which is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Done, Workplace, ended, process

pytestmark = pytest.mark.slow

WITHOUT = "import sys; sys.modules.update(dict.fromkeys(['cv2', 'openai', 'pandas']))"


def run(arguments: Sequence[str]) -> Done:
    return ended(process(arguments, first=WITHOUT))


def test_every_command_of_a_day_runs_without_them(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(2)
    workplace.settings["vlm.openai.base_url"] = server.base_url
    out = str(workplace.results)
    coco = str(workplace.folder / "coco")
    for command in (
        workplace.arguments(),
        ["check", *workplace.arguments()[1:3]],
        ["estimate", *workplace.arguments()[1:3]],
        ["report", out],
        ["stats", out],
        ["lint", out],
        ["eval", out, "--gold", str(workplace.results / "annotations.jsonl")],
        ["export", out, "--format", "coco", "-o", coco],
        ["import", coco, "--format", "coco", "-o", str(workplace.folder / "back")],
        ["cost", out],
        ["doctor"],
    ):
        done = run(command)
        assert done.code == 0, (command, done)


def test_what_needs_one_says_which(workplace: Workplace) -> None:
    picture = str(workplace.folder / workplace.picture())
    workplace.rows([{"image_path": "a.jpg", "caption": "A red cup."}])
    done = run(["ground", picture, "a red cup"])
    assert done.code != 0
    assert done.err == (
        "Error: the embedded grounder needs opencv-python-headless, which isn't installed:"
        " pip install opencv-python-headless\n"
    )
    done = run(workplace.arguments(**{"vlm.backend": "embedded", "vlm.box_format": ""}))
    assert "needs opencv-python-headless" in done.err, done
    assert "Traceback" not in done.err
    done = run(
        workplace.arguments(
            **{"vlm.openai.base_url": "http://127.0.0.1:9", "vlm.openai.client": "sdk"}
        )
    )
    assert (
        "vlm.openai.client sdk needs openai, which isn't installed: pip install openai" in done.err
    )


def test_a_dataframe_needs_pandas(workplace: Workplace, tmp_path: Path) -> None:
    script = "from dataflow_grounding.data.dataframes import to_dataframe\nto_dataframe([])"
    done = ended(process([], first=f"{WITHOUT}\n{script}"))
    assert "a DataFrame needs pandas, which isn't installed: pip install pandas" in done.err
