"""A run holds up its event loop for no long time at once: whatever takes long is done in parts, or
by a thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support.workplace import HANGING, REPOSITORY, Workplace

pytestmark = pytest.mark.slow

RECORDS, PHRASES = 210, 40  # once 200 replies have come, they are judged once more
MOST = 4  # of the CPU time of a million turns of an empty loop, measured in the same process


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "alike", [False, True], ids=["replies are reviewed", "all but one are answered from the store"]
)
def test_nothing_holds_up_the_event_loop(tmp_path: Path, alike: bool) -> None:
    with LoopbackServer(EchoAnswers(), record=False) as server:
        place = Workplace(
            tmp_path, server.base_url, **{"vlm.check_every": 100, "workflow.steps": ["1"]}
        )
        place.picture(size=(640, 480))
        before = place.results / "step_0_expression_extraction" / "annotations.jsonl"
        before.parent.mkdir(parents=True)
        with before.open("w") as file:
            for number in range(RECORDS):
                texts = [f"thing {n} of {0 if alike else number}" for n in range(PHRASES)]
                row = {"image_path": "a.jpg", "image_id": f"r{number}", "caption": ""}
                file.write(
                    json.dumps({**row, "expressions": [{"text": text} for text in texts]}) + "\n"
                )
        place.rows([])
        child = [sys.executable, "-m", "benchmarks.turns_child", str(tmp_path / "turns.json")]
        done = subprocess.run(
            [*child, *place.arguments()],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=HANGING,
        )
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "turns.json").read_text())
    assert max(measured["turns"])[0] < MOST * measured["yardstick_ms"], measured
