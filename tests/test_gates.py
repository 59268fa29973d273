"""The linters and type checks that every commit passes."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "dataflow_grounding").rglob("*.py"))
LONGEST_MODULE, LONGEST_FUNCTION = 300, 50


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


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder with the scripts that users copy: those of `api_pipelines/`, and each of the README and the docs."""
    for path in (ROOT / "api_pipelines").glob("*.py"):
        shutil.copy(path, tmp_path)
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for number, block in enumerate(blocks):
            if re.search(r"^from dataflow_grounding", block, re.MULTILINE):
                (tmp_path / f"{page.stem.lower()}_{number}.py").write_text(block, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            ["mypy", "--strict", "--config-file=", f"--cache-dir={ROOT / '.mypy_cache' / 'scripts'}", "."], id="mypy"
        ),
        pytest.param(["pyright", "--pythonpath", sys.executable, "."], id="pyright"),
    ],
)
def test_types_of_the_scripts_that_users_copy(command: list[str], scripts: Path) -> None:
    assert {"readme_0.py", "pipelines_0.py", "image_grounding_api_pipeline.py"} <= {p.name for p in scripts.iterdir()}
    done = subprocess.run([sys.executable, "-m", *command], cwd=scripts, capture_output=True, text=True)
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
    assert not set().union(*map(too_long, MODULES))
