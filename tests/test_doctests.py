"""The examples in docstrings run and show what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import dataflow_grounding.replies
import dataflow_grounding.tasks

ROOMS = (dataflow_grounding.replies, dataflow_grounding.tasks)
MODULES = ["dataflow_grounding.geometry", "dataflow_grounding.spans"]
MODULES += [f"{room.__name__}.{found.name}" for room in ROOMS for found in pkgutil.iter_modules(room.__path__)]
EXAMPLES = [
    test for name in MODULES for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples
]


@pytest.mark.parametrize("test", [pytest.param(test, id=test.name) for test in EXAMPLES])
def test_an_example_shows_what_it_says(test: doctest.DocTest) -> None:
    said: list[str] = []
    assert doctest.DocTestRunner().run(test, out=said.append).failed == 0, "".join(said)


@pytest.mark.parametrize("name", dataflow_grounding.replies.__all__)
def test_a_public_reader_says_what_it_takes_and_gives(name: str) -> None:
    reader = getattr(dataflow_grounding.replies, name)
    wanted = ("Attributes:",) if isinstance(reader, type) else ("Args:", "Returns:", "Raises:", "Example:")
    assert all(section in (reader.__doc__ or "") for section in wanted), reader.__doc__
