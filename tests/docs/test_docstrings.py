"""The examples in the docstrings of servings and storage run, as a user would type them in a clone."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from benchmarks.workplace import REPOSITORY
from dataflow_grounding.serving import GeminiServing, OpenAISdkServing, OpenAIServing, RecordedServing
from dataflow_grounding.storage import FileStorage

PACKAGE = REPOSITORY / "dataflow_grounding"
MODULES = [PACKAGE / "storage.py", *sorted((PACKAGE / "serving").glob("[a-z]*.py"))]
WITH_EXAMPLES = (FileStorage, GeminiServing, OpenAISdkServing, OpenAIServing, RecordedServing)


def examples(module: Path) -> list[doctest.DocTest]:
    """The docstrings of a module that hold examples."""
    name = ".".join(module.relative_to(REPOSITORY).with_suffix("").parts)
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    return [test for test in found if test.examples]


RUNS = [pytest.param(test, id=test.name) for module in MODULES for test in examples(module)]


@pytest.mark.parametrize("test", RUNS)
def test_the_example_runs(test: doctest.DocTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    said: list[str] = []
    assert doctest.DocTestRunner().run(test, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("public", WITH_EXAMPLES)
def test_what_is_public_has_arguments_errors_and_an_example(public: type) -> None:
    assert public.__doc__ is not None
    parts = ("    Args:\n", "    Raises:\n", "    Example:\n        >>> ")
    assert all(part in public.__doc__ for part in parts), public
