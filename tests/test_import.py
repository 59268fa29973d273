"""Importing the package is light: what is heavy is imported when it is used."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HEAVY = [
    "cv2",
    "numpy",
    "pandas",
    "pyarrow",
    "PIL",
    "openai",
    "aiohttp",
    "click",
    "omegaconf",
    "pydantic",
    "rich",
    "yaml",
]


def loaded_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `code`."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/"
    )
    return set(done.stdout.split())


def test_the_package_alone_imports_nothing_heavy() -> None:
    assert loaded_after("import dataflow_grounding").isdisjoint(HEAVY)


@pytest.mark.slow
def test_what_a_script_imports_waits_with_pictures_and_tables() -> None:
    names = "FileStorage, Operator, operator, Pipeline, EmbeddedServing"
    names += ", PhraseGrounder, ExpressionExtractor, BBoxVisualizer"
    modules = loaded_after(f"from dataflow_grounding import {names}")
    assert modules.isdisjoint({"cv2", "pandas", "pyarrow", "openai", "aiohttp", "PIL"})


def test_the_help_of_a_run_waits_for_no_spec() -> None:
    """Each command is a module of its own, so this is all that `generate --help` imports."""
    modules = loaded_after("import dataflow_grounding.cli.main, dataflow_grounding.cli.generate")
    assert modules.isdisjoint({"omegaconf", "aiohttp", "numpy", "PIL", "openai"})


def test_checks_of_boxes_need_no_numpy() -> None:
    """It takes 25 MB and a seventh of a second, which each watched run would pay."""
    modules = loaded_after("import dataflow_grounding.trust.probing")
    assert "PIL" in modules
    assert "numpy" not in modules


def test_every_public_name_is_there() -> None:
    import dataflow_grounding

    for name in dataflow_grounding.__all__:
        assert getattr(dataflow_grounding, name) is not None
    assert set(dataflow_grounding.__all__) <= set(dir(dataflow_grounding))
    with pytest.raises(AttributeError, match="Nobody"):
        _ = dataflow_grounding.Nobody


def test_what_pages_and_files_to_copy_import_is_at_the_door() -> None:
    import dataflow_grounding

    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "skills").rglob("*.md")]
    pages += [*(ROOT / "extensions").glob("*.py"), *(ROOT / "api_pipelines").glob("*.py")]
    imported = {"Summary"}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for names in re.findall(r"from dataflow_grounding import (\([^)]*\)|.*)", text):
            imported |= set(re.findall(r"[A-Za-z]\w*", names))
    assert len(imported) > 30
    assert imported <= set(dataflow_grounding.__all__)


# Of our classes `Name`, of our functions `name_of(…)`, as pages have them in code.
NAMED = re.compile(r"(?<![\w.])([A-Z][a-z]+[A-Z]\w*|[a-z]+_\w+(?=\())")
NOT_OURS = {"OpenAI"}  # a company, and a class of ours in no page


def public_names_in_files() -> set[str]:
    """The names of classes and functions of all of our modules."""
    names = set()
    for file in (ROOT / "dataflow_grounding").rglob("*.py"):
        for part in ast.parse(file.read_text("utf-8")).body:
            if isinstance(part, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                names.add(part.name)
    return {name for name in names if not name.startswith("_")} - NOT_OURS


def test_what_pages_name_can_be_imported() -> None:
    """From the package, or from a module that the page names, too."""
    ours = public_names_in_files()
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "skills").rglob("*.md")]
    pages.remove(ROOT / "docs" / "reading.md")  # it is about the source files
    count = 0
    for page in pages:
        text = page.read_text("utf-8")
        codes = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        codes += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
        modules = {"dataflow_grounding", *re.findall(r"dataflow_grounding(?:\.[a-z_]+)+", text)}
        doors: set[str] = set()
        for name in modules:
            with suppress(ModuleNotFoundError):  # some are groups of entry points
                doors.update(dir(importlib.import_module(name)))
        named = {name for code in codes for name in NAMED.findall(code)} & ours
        assert named <= doors, (page.name, named - doors)
        count += len(named)
    assert count > 50


@pytest.mark.slow
def test_an_error_that_another_process_ships_is_of_the_class_that_is_caught(tmp_path: Path) -> None:
    """Whoever ships a class by its source, as cloudpickle does, looks in loaded modules first."""
    cloudpickle = pytest.importorskip("ray.cloudpickle")
    script = (
        f"import sys; from ray import cloudpickle; sys.path.insert(0, {str(ROOT)!r});"
        " from dataflow_grounding.engine.run import RunStopped;"
        " sys.stdout.buffer.write(cloudpickle.dumps(RunStopped))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd="/")
    from dataflow_grounding.errors import RunStopped

    assert cloudpickle.loads(done.stdout) is RunStopped
