"""The examples in the operators' docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import dataflow_grounding.operators as operators
from benchmarks.seeing_model import draw

MODULES = [name for _, name, _ in pkgutil.iter_modules(operators.__path__, f"{operators.__name__}.")]
PUBLIC = [cls for _, cls in operators.OPERATOR_REGISTRY if cls.__module__.startswith(operators.__name__)]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the examples look at: a red square that is large, and one under 3% of the sides."""
    monkeypatch.chdir(tmp_path)
    draw("square.png", (800, 600), {"red": [(300, 200, 500, 400)]})
    draw("small.png", (1600, 1200), {"red": [(300, 200, 334, 234)]})


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("cls", [*PUBLIC, operators.Operator], ids=lambda cls: cls.__name__)
def test_every_operator_has_an_example(cls: type[operators.Operator]) -> None:
    assert "    Example:\n        >>> " in (cls.__doc__ or "")
