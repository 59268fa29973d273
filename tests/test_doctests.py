"""The examples in docstrings run and show what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import dataflow_grounding.compat
import dataflow_grounding.evaluation.metrics
import dataflow_grounding.operators
import dataflow_grounding.replies
import dataflow_grounding.serving
import dataflow_grounding.tasks
import dataflow_grounding.testing
from dataflow_grounding.operators import OPERATOR_REGISTRY, Operator
from tests.support.stand_ins.seeing_model import draw
from tests.support.workplace import REPOSITORY

ROOMS = (
    dataflow_grounding.compat,
    dataflow_grounding.evaluation.metrics,
    dataflow_grounding.operators,
    dataflow_grounding.replies,
    dataflow_grounding.serving,
    dataflow_grounding.tasks,
    dataflow_grounding.testing,
)
MODULES = [
    "dataflow_grounding.boxes.geometry",
    "dataflow_grounding.boxes.tiling",
    "dataflow_grounding.english.spans",
    "dataflow_grounding.data.storage",
]
MODULES += [room.__name__ for room in ROOMS]
MODULES += [
    f"{room.__name__}.{found.name}"
    for room in ROOMS
    for found in pkgutil.iter_modules(room.__path__)
]
EXAMPLES = [
    test
    for name in MODULES
    for test in doctest.DocTestFinder().find(importlib.import_module(name))
    if test.examples
]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the examples look at: example data, a red square that is large, and one under 3% of the
    sides.
    """
    monkeypatch.chdir(tmp_path)
    Path("example_data").symlink_to(REPOSITORY / "example_data")
    draw("square.png", (800, 600), {"red": [(300, 200, 500, 400)]})
    draw("small.png", (1600, 1200), {"red": [(300, 200, 334, 234)]})


@pytest.mark.slow
@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("test", [pytest.param(test, id=test.name) for test in EXAMPLES])
def test_an_example_shows_what_it_says(test: doctest.DocTest) -> None:
    said: list[str] = []
    assert doctest.DocTestRunner().run(test, out=said.append).failed == 0, "".join(said)


OPERATORS = [
    cls for _, cls in OPERATOR_REGISTRY if cls.__module__.startswith("dataflow_grounding.operators")
]


@pytest.mark.parametrize("cls", [*OPERATORS, Operator], ids=lambda cls: cls.__name__)
def test_every_operator_has_an_example(cls: type[Operator]) -> None:
    assert "    Example:\n        >>> " in (cls.__doc__ or "")
