"""The linters and type checks that every commit passes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["-m", "ruff", "check", "."], id="ruff finds nothing"),
        pytest.param(["-m", "ruff", "format", "--check", "."], id="the code is formatted"),
        pytest.param(["-m", "mypy"], id="mypy --strict finds nothing in the package"),
        pytest.param(
            ["-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"],
            id="rooms import downwards only",
        ),
    ],
)
def test_gate(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
