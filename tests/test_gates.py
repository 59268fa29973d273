"""The linters and type checks that every commit passes."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.readability import refused_in_package

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "dataflow_grounding").rglob("*.py")
)
Function = ast.FunctionDef | ast.AsyncFunctionDef
MOST_BRANCHES = 15
BRANCHES = (
    ast.If,
    ast.IfExp,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.match_case,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["-m", "ruff", "check", "."], id="ruff finds nothing"),
        pytest.param(["-m", "ruff", "format", "--check", "."], id="the code is formatted"),
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
    """A folder with what users copy: `api_pipelines/`, `extensions/`, and each whole script of the
    README and the docs.
    """
    for path in (*(ROOT / "api_pipelines").glob("*.py"), *(ROOT / "extensions").glob("*.py")):
        shutil.copy(path, tmp_path)
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        blocks = re.findall(
            r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        )
        for number, block in enumerate(blocks):
            if re.search(r"^from dataflow_grounding", block, re.MULTILINE):
                (tmp_path / f"{page.stem.lower()}_{number}.py").write_text(block, encoding="utf-8")
    return tmp_path


def check_types(folder: Path, *command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_mypy_strict_finds_nothing_in_the_package_and_the_scripts_that_users_copy(
    scripts: Path,
) -> None:
    assert {"readme_0.py", "pipelines_0.py", "image_grounding_api_pipeline.py"} <= {
        p.name for p in scripts.iterdir()
    }
    check_types(ROOT, "mypy", "dataflow_grounding", str(scripts))


@pytest.mark.slow
def test_pyright_finds_nothing_in_the_scripts_that_users_copy(scripts: Path) -> None:
    # It would read all of transformers for that one; mypy checks it.
    (scripts / "masks_of_your_own.py").unlink()
    check_types(scripts, "pyright", "--pythonpath", sys.executable, ".")


def functions_of(module: str) -> Iterator[Function]:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def branches_of(function: Function) -> int:
    """The ways through a function and what is defined in it: one, and one more wherever it may go
    on otherwise.
    """
    count = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            count += 1
        if isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


@pytest.mark.slow
def test_functions_have_15_branches_at_most() -> None:
    counts = {
        f"{module}:{function.lineno} {function.name}": branches_of(function)
        for module in MODULES
        for function in functions_of(module)
    }
    assert not {name: count for name, count in counts.items() if count > MOST_BRANCHES}


@pytest.mark.slow
def test_the_package_does_without_the_shapes_that_pack_code() -> None:
    """Each line names the file, the line and the shape."""
    places = refused_in_package()
    assert not places, "\n".join(places)


def private_imports(module: str) -> Iterator[str]:
    """What a module imports of another room's private modules."""
    room = module.rpartition("/")[0].replace("/", ".")
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        for alias in node.names:
            home, _, private = f"{node.module}.{alias.name}".partition("._")
            is_module = (ROOT / f"{home}._{private}".replace(".", "/")).with_suffix(".py").exists()
            is_within = (ROOT / node.module.replace(".", "/")).with_suffix(".py").exists()
            if private and (is_module or is_within) and home not in (room, "dataflow_grounding"):
                yield f"{module}:{node.lineno}: {home}._{private}"


@pytest.mark.slow
def test_private_modules_are_imported_by_their_own_room_alone() -> None:
    assert not [line for module in MODULES for line in private_imports(module)]


@pytest.mark.slow
def test_no_file_has_the_marks_of_an_unfinished_merge() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    marks = re.compile(rb"^(<{7} |>{7} )", re.MULTILINE)
    marked = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and marks.search(path.read_bytes()):
            marked.append(name)
    assert listed.stdout
    assert not marked
