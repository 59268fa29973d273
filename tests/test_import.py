"""Importing the package is light: what is heavy is imported when it is used."""

from __future__ import annotations

import importlib
import pickle
import re
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
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


def loaded_after(*lines: str) -> list[set[str]]:
    """The top-level modules that a new interpreter holds after each line."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    for line in lines:
        script += f"{line}\nprint(*{{m.partition('.')[0] for m in sys.modules}})\n"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/"
    )
    return [set(line.split()) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_what_is_heavy_is_imported_when_it_is_used() -> None:
    """In one interpreter, one import after the other."""
    names = "FileStorage, Operator, operator, Pipeline, EmbeddedServing"
    names += ", PhraseGrounder, ExpressionExtractor, BBoxVisualizer"
    package, script, help_of_a_run, checks_of_boxes = loaded_after(
        "import dataflow_grounding",
        f"from dataflow_grounding import {names}",
        # Each command is a module of its own, so this is all that `generate --help` imports.
        "import dataflow_grounding.cli.main, dataflow_grounding.cli.generate",
        "import dataflow_grounding.trust.probing",
    )
    assert package.isdisjoint(HEAVY)
    assert script.isdisjoint({"cv2", "pandas", "pyarrow", "openai", "aiohttp", "PIL"})
    assert help_of_a_run.isdisjoint({"omegaconf", "aiohttp", "numpy", "PIL", "openai"})
    assert help_of_a_run.isdisjoint({"pydantic", "dataflow_grounding.engine.run"})
    # NumPy takes 25 MB and a seventh of a second, which each watched run would pay.
    assert "PIL" in checks_of_boxes
    assert "numpy" not in checks_of_boxes


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
    names: set[str] = set()
    for file in (ROOT / "dataflow_grounding").rglob("*.py"):
        names.update(re.findall(r"^(?:class|def|async def) (\w+)", file.read_text("utf-8"), re.M))
    return {name for name in names if not name.startswith("_")} - NOT_OURS


@pytest.mark.slow
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
        doors = []
        for name in modules:
            with suppress(ModuleNotFoundError):  # some are groups of entry points
                doors.append(importlib.import_module(name))
        named = {name for code in codes for name in NAMED.findall(code)} & ours
        unknown = {name for name in named if not any(hasattr(door, name) for door in doors)}
        assert not unknown, (page.name, unknown)
        count += len(named)
    assert count > 50


@pytest.mark.slow
def test_an_error_that_another_process_ships_is_of_the_class_that_is_caught() -> None:
    """Whoever ships a class by its source, as cloudpickle does, looks in loaded modules first."""
    ray = find_spec("ray")
    if ray is None or ray.origin is None:
        pytest.skip("Ray is not installed")
    file = Path(ray.origin).parent / "cloudpickle" / "cloudpickle.py"  # alone: all of Ray is heavy
    script = (
        f"import importlib.util as files, sys; sys.path.insert(0, {str(ROOT)!r});"
        f" spec = files.spec_from_file_location('cloudpickle', {str(file)!r});"
        " sys.modules['cloudpickle'] = cloudpickle = files.module_from_spec(spec);"
        " spec.loader.exec_module(cloudpickle);"
        " from dataflow_grounding.engine.run import RunStopped;"
        " sys.stdout.buffer.write(cloudpickle.dumps(RunStopped))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, cwd="/")
    from dataflow_grounding.errors import RunStopped

    assert pickle.loads(done.stdout) is RunStopped
