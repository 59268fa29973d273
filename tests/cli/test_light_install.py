"""In a small container: without pandas, OpenCV and openai all works that needs none of them, and what
does says which is missing; and commands under `ulimit -v`.
"""

from __future__ import annotations

import resource
import sys
from functools import partial
from pathlib import Path

import pytest

from dataflow_grounding._util.errors import MissingExtra
from dataflow_grounding.data.dataframes import to_dataframe
from tests.support.workplace import Workplace, one_after_another

pytestmark = pytest.mark.slow

WITHOUT = "import sys; sys.modules.update(dict.fromkeys(['cv2', 'openai', 'pandas']))"


OPENCV = "opencv-python-headless, which isn't installed: pip install opencv-python-headless"


def test_every_command_of_a_day_runs_without_them_and_what_needs_one_says_which(
    workplace: Workplace,
) -> None:
    workplace.many(2)
    spec, out = ["-e", str(workplace.spec())], str(workplace.results)
    coco = str(workplace.folder / "coco")
    day = [
        ["generate", *spec, "--no-progress", "--no-report"],
        ["check", *spec],
        ["estimate", *spec],
        ["report", out],
        ["stats", out],
        ["lint", out],
        ["eval", out, "--gold", str(workplace.results / "annotations.jsonl")],
        ["export", out, "--format", "coco", "-o", coco],
        ["import", coco, "--format", "coco", "-o", str(workplace.folder / "back")],
        ["cost", out],
        ["doctor"],
    ]
    start = ["generate", *spec, "--no-progress", f"results_dir={workplace.folder / 'new'}"]
    vlm = "image_grounding.vlm"
    needing = [
        ["ground", str(workplace.folder / "a.jpg"), "a red cup"],
        [*start, f"{vlm}.backend=embedded", f"{vlm}.box_format=auto"],
        [*start, f"{vlm}.openai.client=sdk"],
    ]
    *done, ground, embedded, sdk = one_after_another([*day, *needing], first=WITHOUT)
    for line, one in zip(day, done, strict=True):
        assert one.code == 0, (line, one)
    assert ground.code != 0
    assert ground.err == f"Error: the embedded grounder needs {OPENCV}\n"
    assert f"needs {OPENCV}" in embedded.err, embedded
    assert "Traceback" not in embedded.err
    told = "vlm.openai.client sdk needs openai, which isn't installed: pip install openai"
    assert told in sdk.err


def test_a_dataframe_needs_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match=r"a DataFrame needs pandas, .*: pip install pandas"):
        to_dataframe([])


BYTES = 700 * 2**20  # of which 64 threads that wait for stores took more than there was


def test_a_limit_of_memory_is_kept_to(workplace: Workplace, tmp_path: Path) -> None:
    workplace.many(12)
    results, out = str(workplace.results), str(tmp_path / "out")
    lines = [
        workplace.arguments(),
        ["lint", results],
        ["export", results, "--format", "coco", "-o", out],
    ]
    limited = partial(resource.setrlimit, resource.RLIMIT_AS, (BYTES, BYTES))
    for line, done in zip(lines, one_after_another(lines, preexec_fn=limited), strict=True):
        assert done.code == 0, (line, done)
