"""A step is done again where what its results depend on has changed, and only then."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataflow_grounding import Operator
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.plan import Ask
from tests.support.steps import Steps, storage_in

SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Rule:
    def __init__(self, limit: float) -> None:
        self.limit = limit


class Keep(Operator):
    """Says which scores are above the limit of its rule."""

    name, needs_image = "keep", False
    input_keys, output_keys = {"score": "score"}, {"keep": "keep"}
    factor = 1.0

    def __init__(self, rule: Any = None) -> None:
        self.rule = rule

    async def annotate(self, record: Record, ask: Ask) -> Update:
        return {self.keys.keep: bool(record[self.keys.score] > self.factor * self.rule.limit)}


class Unhelpful:
    """Looks like something that says what counts, and says nothing."""

    def settings(self, name: str) -> str:
        return name

    def __reduce__(self) -> Any:
        raise ValueError("not today")


class Keeping(Steps):
    """The step over SCORES."""

    def __init__(self, folder: Path, keep: Keep) -> None:
        super().__init__(storage_in(folder, *({"score": score} for score in SCORES)), keep)

    def is_done_again(self) -> bool:
        return not self.run().already_complete

    def kept(self) -> list[bool]:
        return [row["keep"] for row in self.records()]


def above(limit: float) -> list[bool]:
    return [score > limit for score in SCORES]


def long_array(limit: float) -> Any:
    """More numbers than NumPy shows: the limit is none of those at the ends."""
    array = np.zeros(2001)
    array[1000] = limit
    return array


RULES: dict[str, Callable[[float], Any]] = {
    "a long array": long_array,
    "digits that are not shown": lambda limit: np.array([0.25 + limit * 1e-10]),
    "an object": Rule,
    "a dict": lambda limit: {"at": {"limit": limit}},
    "another operator": lambda limit: Keep(Rule(limit)),
}


@pytest.mark.parametrize("rule_of", RULES.values(), ids=RULES)
def test_a_changed_setting_is_seen(rule_of: Callable[[float], Any]) -> None:
    settings, same, other = (Keep(rule_of(limit)).settings() for limit in (0.1, 0.1, 0.9))
    assert settings is not None
    assert settings == same != other


def test_an_attribute_of_the_class_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Keep(0.1).settings()
    monkeypatch.setattr(Keep, "factor", 0.9)
    assert Keep(0.1).settings() != before


def test_an_attribute_of_any_name_leaves_the_source_alone() -> None:
    keep: Any = Keep()
    plain = keep.settings()
    keep.source = "elsewhere"
    assert keep.settings()["source"] == plain["source"]
    assert keep.settings() != plain


def test_what_can_not_be_compared_states_nothing_and_is_done_again(tmp_path: Path) -> None:
    holds_itself: list[Any] = []
    holds_itself.append(holds_itself)
    lock = threading.Lock()
    for rule in (lock, {"at": {"limit": 0.1}, "lock": lock}, holds_itself, Unhelpful()):
        assert Keep(rule).settings() is None
    locked: Any = Rule(0.1)
    locked.lock = lock
    pipeline = Keeping(tmp_path, Keep(locked))
    assert [pipeline.is_done_again() for _ in range(2)] == [True, True]


@pytest.mark.parametrize("is_compiled", [False, True])
def test_an_operator_may_be_changed_or_exchanged(tmp_path: Path, is_compiled: bool) -> None:
    rule = Rule(0.1)
    pipeline = Keeping(tmp_path, Keep(rule))
    if is_compiled:
        pipeline.compile()
    assert pipeline.is_done_again()
    assert pipeline.kept() == above(0.1)
    rule.limit = 0.5
    assert pipeline.is_done_again()
    assert pipeline.kept() == above(0.5)
    pipeline.operators = [Keep(Rule(0.9))]
    assert pipeline.is_done_again()
    assert pipeline.kept() == above(0.9)
    assert not pipeline.is_done_again()


FUNCTIONS = """
from dataflow_grounding import operator

@operator(reads=["scores"], writes=["n"])
def in_a_loop(record):
    n = 0
    for score in record["scores"]:
        if score > LIMIT:
            n += 1
    return {"n": n}

@operator(reads=["scores"], writes=["n"])
def in_a_generator(record):
    return {"n": sum(1 for score in record["scores"] if score > LIMIT)}

@operator(reads=["scores"], writes=["n"])
def in_a_list(record):
    return {"n": len([score for score in record["scores"] if score > LIMIT])}

@operator(reads=["scores"], writes=["n"])
def in_a_lambda(record):
    return {"n": len(list(filter(lambda score: score > LIMIT, record["scores"])))}
"""


@pytest.mark.parametrize("name", ["in_a_loop", "in_a_generator", "in_a_list", "in_a_lambda"])
def test_a_global_counts_wherever_in_a_function_it_is_used(tmp_path: Path, name: str) -> None:
    path = tmp_path / "script.py"
    path.write_text(FUNCTIONS)
    one, same, other = (
        runpy.run_path(str(path), {"LIMIT": limit})[name].settings() for limit in (0.1, 0.1, 0.6)
    )
    assert one is not None
    assert one == same != other
