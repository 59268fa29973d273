"""The examples in the docstrings of `dataflow_grounding.testing` run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

from dataflow_grounding import testing

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    "dataflow_grounding.testing",
    *(f"{testing.__name__}.{each.name}" for each in pkgutil.iter_modules(testing.__path__)),
]


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    module = importlib.import_module(name)
    names = {public: getattr(testing, public) for public in testing.__all__}
    assert doctest.testmod(module, extraglobs=names).failed == 0
