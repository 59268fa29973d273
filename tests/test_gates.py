"""The linters and type checks that every commit passes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "dataflow_grounding").rglob("*.py"))
LONGEST_MODULE, LONGEST_FUNCTION = 300, 50
TOO_LONG = {  # still to be shortened: none may be added
    "dataflow_grounding/images.py",
    "dataflow_grounding/rows.py",
    "dataflow_grounding/serving/openai_compatible.py __init__",
}


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


def too_long(module: str) -> set[str]:
    """The module, where it has too many lines, and those of its functions that have."""
    source = (ROOT / module).read_text(encoding="utf-8")
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lines = {f"{module} {node.name}": (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    long = {name for name, count in lines.items() if count > LONGEST_FUNCTION}
    return long | ({module} if len(source.splitlines()) > LONGEST_MODULE else set())


def test_modules_have_300_lines_and_functions_50_at_most() -> None:
    assert MODULES
    assert not set().union(*map(too_long, MODULES)) - TOO_LONG
