"""The examples in the operators' docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import dataflow_grounding.operators as operators

MODULES = [name for _, name, _ in pkgutil.iter_modules(operators.__path__, f"{operators.__name__}.")]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name))
    assert found.failed == 0


def test_who_asks_for_boxes_has_one() -> None:
    for cls in (operators.PhraseGrounder, operators.BoxRefiner, operators.BoxVerifier):
        assert ">>>" in (cls.__doc__ or "")
