"""Interoperation with the real `open-dataflow`, if DATAFLOW_PYTHON names a Python that has it
(docs/dataflow.md).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from tests.support.workplace import HANGING, REPOSITORY

PYTHON = os.environ.get("DATAFLOW_PYTHON", "")
echo = EchoAnswers()


def answers(request: ReceivedRequest) -> Any:
    """Their operators ask in their own words, and take any text."""
    asks_in_our_words = request.task not in ("", "prompted_vqa")
    return echo(request) if asks_in_our_words else "A navy picture."


@pytest.mark.skipif(not PYTHON, reason="DATAFLOW_PYTHON names no Python with open-dataflow")
def test_operators_servings_and_storages_of_both_libraries_work_together(tmp_path: Path) -> None:
    with LoopbackServer(answers) as server:
        done = subprocess.run(
            [
                PYTHON,
                str(Path(__file__).with_name("with_dataflow.py")),
                server.base_url,
                str(tmp_path),
            ],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "DF_API_KEY": "k"},
            capture_output=True,
            text=True,
            timeout=HANGING,
        )
    # the others are DataFlow's log
    told = [line for line in done.stdout.splitlines() if line and "\x1b" not in line]
    print("\n".join(["", *told]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(told) == 7
