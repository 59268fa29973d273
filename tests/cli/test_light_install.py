"""Without pandas, OpenCV and openai, which a container may leave out: all works that needs none of
them, and what does says which is missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace, ended, interpreter, one_after_another

pytestmark = pytest.mark.slow

WITHOUT = "import sys; sys.modules.update(dict.fromkeys(['cv2', 'openai', 'pandas']))"


def test_every_command_of_a_day_runs_without_them_and_what_needs_one_says_which(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(2)
    workplace.settings["vlm.openai.base_url"] = server.base_url
    out = str(workplace.results)
    coco = str(workplace.folder / "coco")
    day = [
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
    ]
    needing = [["ground", str(workplace.folder / "a.jpg"), "a red cup"]]
    for name, settings in (
        ("embedded", {"vlm.backend": "embedded", "vlm.box_format": ""}),
        ("sdk", {"vlm.openai.base_url": "http://127.0.0.1:9", "vlm.openai.client": "sdk"}),
    ):
        spec = workplace.spec(**settings).rename(workplace.folder / f"{name}.yaml")
        needing.append(["generate", "-e", str(spec), "--no-progress"])
    workplace.spec()
    *done, ground, embedded, sdk = one_after_another([*day, *needing], first=WITHOUT)
    for line, one in zip(day, done, strict=True):
        assert one.code == 0, (line, one)
    assert ground.code != 0
    assert ground.err == (
        "Error: the embedded grounder needs opencv-python-headless, which isn't installed:"
        " pip install opencv-python-headless\n"
    )
    assert "needs opencv-python-headless" in embedded.err, embedded
    assert "Traceback" not in embedded.err
    told = "vlm.openai.client sdk needs openai, which isn't installed: pip install openai"
    assert told in sdk.err


def test_a_dataframe_needs_pandas(workplace: Workplace, tmp_path: Path) -> None:
    script = "from dataflow_grounding.data.dataframes import to_dataframe\nto_dataframe([])"
    done = ended(interpreter([], first=f"{WITHOUT}\n{script}"))
    assert "a DataFrame needs pandas, which isn't installed: pip install pandas" in done.err
