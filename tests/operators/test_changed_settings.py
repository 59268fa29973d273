"""A step is done again where what its results depend on has changed, and only then."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataflow_grounding import FileStorage, Operator, Pipeline
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.engine.summary import Summary
from tests.support.workplace import ended, process

SCORES = (0.0, 0.25, 0.5, 0.75, 1.0)


class Rule:
    def __init__(self, limit: float) -> None:
        self.limit = limit


class Keep(Operator):
    """Says which scores are above the limit, in whatever way that is given."""

    name, needs_image = "keep", False
    input_keys, output_keys = {"score": "score"}, {"keep": "keep"}
    limit: Any = 0.1

    def __init__(self, rule: Any = None) -> None:
        self.rule = rule

    async def annotate(self, record: Record, ask: Ask) -> Update:
        limit = self.limit
        if isinstance(self.rule, np.ndarray):
            limit = float(self.rule[len(self.rule) // 2])
        elif isinstance(self.rule, (Keep, Rule)):
            limit = self.rule.limit
        elif isinstance(self.rule, dict):
            limit = self.rule["at"]["limit"]
        return {self.keys.keep: bool(record[self.keys.score] > limit)}


class Unhelpful:
    """Looks like something that says what counts, and says nothing."""

    def settings(self, name: str) -> str:
        return name

    def __reduce__(self) -> Any:
        raise ValueError("not today")


class Keeping(Pipeline):
    def __init__(self, folder: Path, keep: Keep) -> None:
        self.storage = FileStorage(str(folder / "in.jsonl"), str(folder / "cache"), "x")
        self.keep = keep

    def forward(self) -> None:
        self.keep.run(self.storage.step())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [json.dumps({"score": score}) for score in SCORES]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def kept(folder: Path) -> list[bool]:
    lines = (folder / "cache" / "x_step1.jsonl").read_text().splitlines()
    return [json.loads(line)["keep"] for line in lines]


def above(limit: float) -> list[bool]:
    return [score > limit for score in SCORES]


def run(folder: Path, keep: Keep) -> Summary:
    return Keeping(folder, keep).run()


def long_array(limit: float) -> Any:
    """More numbers than NumPy shows: the limit is none of those at the ends."""
    array = np.zeros(2001)
    array[1000] = limit
    return array


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule_of",
    [
        pytest.param(long_array, id="a long array"),
        pytest.param(Rule, id="an object"),
        pytest.param(lambda limit: {"at": {"limit": limit}}, id="a dict"),
    ],
)
def test_a_changed_setting_is_seen(folder: Path, rule_of: Callable[[float], Any]) -> None:
    run(folder, Keep(rule_of(0.1)))
    assert kept(folder) == above(0.1)
    assert run(folder, Keep(rule_of(0.1))).already_complete
    assert not run(folder, Keep(rule_of(0.9))).already_complete
    assert kept(folder) == above(0.9)


def test_a_digit_that_is_not_shown_counts(folder: Path) -> None:
    run(folder, Keep(np.array([0.25])))
    assert kept(folder) == above(0.25)
    run(folder, Keep(np.array([0.2499999999])))
    assert kept(folder) == above(0.2499999999) != above(0.25)


@pytest.mark.slow
def test_what_is_changed_in_place_is_seen(folder: Path) -> None:
    rule = Rule(0.1)
    inner = Keep()
    for setting, change in ((rule, rule), (inner, inner)):
        keep = Keep(setting)
        run(folder, keep)
        change.limit = 0.9
        run(folder, keep)
        assert kept(folder) == above(0.9)


@pytest.mark.slow
def test_an_attribute_of_the_class_counts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(folder, Keep())
    assert run(folder, Keep()).already_complete
    monkeypatch.setattr(Keep, "limit", 0.9)
    run(folder, Keep())
    assert kept(folder) == above(0.9)


@pytest.mark.slow
def test_what_can_not_be_compared_is_done_again(folder: Path) -> None:
    holds_itself: list[Any] = []
    holds_itself.append(holds_itself)
    lock = threading.Lock()
    for rule in (lock, {"at": {"limit": 0.1}, "lock": lock}, holds_itself, Unhelpful()):
        keep = Keep(rule)
        for _ in range(2):
            assert not run(folder, keep).already_complete


def test_an_attribute_of_any_name_leaves_the_source_alone() -> None:
    keep: Any = Keep()
    plain = keep.settings()
    keep.source = "elsewhere"
    assert keep.settings()["source"] == plain["source"]
    assert keep.settings() != plain


@pytest.mark.slow
@pytest.mark.parametrize("is_compiled", [False, True])
def test_an_operator_may_be_changed_or_exchanged(folder: Path, is_compiled: bool) -> None:
    pipeline = Keeping(folder, Keep(Rule(0.1)))
    if is_compiled:
        pipeline.compile()
    pipeline.run()
    assert kept(folder) == above(0.1)
    pipeline.keep.rule = Rule(0.5)
    assert not pipeline.run().already_complete
    assert kept(folder) == above(0.5)
    pipeline.keep = Keep(Rule(0.9))
    assert not pipeline.run().already_complete
    assert kept(folder) == above(0.9)
    assert pipeline.run().already_complete


SCRIPT = """
from config import LIMIT
from dataflow_grounding import FileStorage, operator

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

for number, step in enumerate([in_a_loop, in_a_generator, in_a_list, in_a_lambda]):
    step.run(FileStorage("in.jsonl", f"cache_{number}", "x").step())
"""


OWN_PROCESS = """
import runpy, sys
sys.dont_write_bytecode = True
runpy.run_path("script.py", run_name="__main__")
raise SystemExit
"""


@pytest.mark.slow
def test_a_global_counts_wherever_in_a_function_it_is_used(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"scores": [0.2, 0.5, 0.8]}) + "\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    for limit, count in ((0.1, 3), (0.6, 1)):
        (tmp_path / "config.py").write_text(f"LIMIT = {limit}\n")
        assert ended(process([], first=OWN_PROCESS, cwd=tmp_path)).code == 0
        for number in range(4):
            text = (tmp_path / f"cache_{number}" / "x_step1.jsonl").read_text()
            assert json.loads(text)["n"] == count, number
