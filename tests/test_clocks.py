"""No test decides by how long something took: a busy machine would fail it.

What is to take little is counted (`benchmarks/places/bytecode.py`), or is so much that the wrong
way would not come to an end: pytest's `faulthandler_timeout` then ends it, and names the test. What
is waited for is waited for by `wait_until`. That something took at least so long may be said.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLOCKS = {
    f"{name}{unit}"
    for name in ("monotonic", "perf_counter", "process_time", "thread_time", "time")
    for unit in ("", "_ns")
}
WAITS = "benchmarks/places/waiting.py"
"""The one place that gives up after some time."""
# Beyond what is seen here: fixed pauses after which something has to have happened.
FOLDERS = ("tests", "benchmarks/fault_cases", "benchmarks/places", "benchmarks/stand_ins")
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if path.relative_to(ROOT).as_posix() != WAITS
)
Function = ast.FunctionDef | ast.AsyncFunctionDef
SHORT = 10
"""A timeout of fewer seconds is met on a busy machine by what is only slow."""
WAITED_FOR = {
    "benchmarks/fault_cases/endpoint_faults.py": 2,
    "tests/trust/test_refused_pictures.py": 1,
    "tests/engine/test_several_endpoints.py": 1,
    "tests/serving/test_gemini.py": 1,
    "tests/serving/test_openai_compatible.py": 1,
    "tests/serving/test_openai_sdk.py": 1,
    "tests/serving/test_service_tier.py": 2,
    "tests/testing/test_faults.py": 3,
}
"""Files with timeouts that a test has to wait for, as what meets them never ends; and how many. A
request that is answered must not have one of them, unless it may be asked again as often as it likes.
"""
NEVER_SENT = {
    "tests/cli/test_doors.py": 1,
    "tests/docs/test_extensions.py": 1,
    "tests/scale/test_shards.py": 1,
    "tests/serving/test_gemini.py": 1,
}
"""Files with timeouts that are settings to be compared alone."""


def short_timeouts(source: str) -> Iterator[int]:
    """The lines of numbers below SHORT that are called a timeout: as argument, key or variable."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword):
            named = [(node.arg or "", node.value)]
        elif isinstance(node, ast.Dict):
            keys = [getattr(key, "value", "") for key in node.keys]
            named = list(zip(keys, node.values, strict=True))
        elif isinstance(node, ast.Assign):
            named = [(getattr(target, "id", ""), node.value) for target in node.targets]
        else:
            continue
        for name, value in named:
            if not str(name).endswith("timeout"):
                continue
            for part in ast.walk(value):
                number = getattr(part, "value", None)
                if type(number) in (int, float) and 0 < number < SHORT:
                    yield part.lineno


def reads_a_clock(node: ast.AST, names: set[str]) -> bool:
    """Whether an expression calls a clock, or has one of the names that hold what a clock said."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in names:
            return True
        if isinstance(part, ast.Call):
            function = part.func
            if isinstance(function, ast.Attribute) and function.attr in CLOCKS:
                return True
            if isinstance(function, ast.Name) and function.id in CLOCKS:
                return True
    return False


def returns_a_clock(function: Function, names: set[str]) -> bool:
    """Whether a function returns what a clock said, or something reckoned from it."""
    for part in ast.walk(function):
        if isinstance(part, ast.Return) and part.value and reads_a_clock(part.value, names):
            return True
    return False


def assigned_by(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Each target of an assignment, and what it gets."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield target, node.value
    if isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value:
        yield node.target, node.value


def names_of_times(tree: ast.AST) -> set[str]:
    """The names that hold what a clock said, or what was reckoned from it; and functions that
    return it.
    """
    names: set[str] = set()
    before = -1
    while before < len(names):
        before = len(names)
        for node in ast.walk(tree):
            for target, value in assigned_by(node):
                if reads_a_clock(value, names):
                    names.update(part.id for part in ast.walk(target) if isinstance(part, ast.Name))
            if isinstance(node, Function) and returns_a_clock(node, names):
                names.add(node.name)
    return names


def compares_a_time(comparison: ast.Compare, names: set[str]) -> bool:
    """Whether a clock's time, or what was reckoned from it, is on either side."""
    return any(reads_a_clock(side, names) for side in (comparison.left, *comparison.comparators))


def is_bound_from_above(comparison: ast.Compare, names: set[str]) -> bool:
    """Whether it says that a time is less than something, or the same."""
    sides = [comparison.left, *comparison.comparators]
    for left, operator, right in zip(sides[:-1], comparison.ops, sides[1:], strict=True):
        if isinstance(operator, ast.Lt | ast.LtE) and reads_a_clock(left, names):
            return True
        if isinstance(operator, ast.Gt | ast.GtE) and reads_a_clock(right, names):
            return True
    return False


def fails(body: list[ast.stmt]) -> bool:
    """Whether a branch raises an error, or calls `pytest.fail`."""
    for statement in body:
        for part in ast.walk(statement):
            if isinstance(part, ast.Raise) or getattr(part, "attr", "") == "fail":
                return True
    return False


def decisions_by_time(source: str) -> Iterator[int]:
    """The lines of assertions that something took no longer, and of loops and errors by a clock."""
    tree = ast.parse(source)
    names = names_of_times(tree)
    for node in ast.walk(tree):
        is_failing = isinstance(node, ast.If) and fails(node.body)
        if not isinstance(node, ast.Assert | ast.While) and not is_failing:
            continue
        decides = is_bound_from_above if isinstance(node, ast.Assert) else compares_a_time
        for part in ast.walk(node.test):
            if isinstance(part, ast.Compare) and decides(part, names):
                yield node.lineno


@pytest.mark.slow
def test_no_test_decides_by_time() -> None:
    places = [
        f"{name}:{line}: it decides by a clock: see {Path(__file__).name}"
        for name in FILES
        for line in decisions_by_time((ROOT / name).read_text(encoding="utf-8"))
    ]
    assert not places, "\n".join(places)


@pytest.mark.slow
def test_timeouts_are_short_only_where_they_have_to_be_waited_for() -> None:
    counts = Counter(WAITED_FOR) + Counter(NEVER_SENT)
    for name in FILES:
        lines = list(short_timeouts((ROOT / name).read_text(encoding="utf-8")))
        assert len(lines) == counts[name], f"{name}: short timeouts in lines {lines}"


def test_what_counts_as_a_short_timeout() -> None:
    source = (
        'f(timeout=0.3)\nd = {"vlm.openai.timeout": 2}\ntimeout = 5 if a else 60\ng(timeout=60)'
    )
    assert sorted(short_timeouts(source)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        ("begun = time.monotonic()\nassert time.monotonic() - begun < 5", [2]),
        ("assert perf_counter() <= end", [1]),
        ("took = process_time()\nassert 5 > took", [2]),
        ("def seconds():\n  return time.time()\nassert seconds() < 10 * seconds()", [3]),
        ("begun = time.time()\ntook = time.time() - begun\nassert max(told) <= 2 * took", []),
        ("begun = time.time()\ntook = time.time() - begun\nassert 0 < took < 2", [3]),
        ("end = time.time() + 9\nwhile time.time() < end: pass", [2]),
        ("took = time.time() - begun\nif took > 5: pytest.fail()", [2]),
        ("begun = time.monotonic()\nassert time.monotonic() - begun >= 0.8", []),
        ("assert 1 < count < 5", []),
    ],
)
def test_what_counts_as_deciding_by_time(body: str, lines: list[int]) -> None:
    assert list(decisions_by_time(body)) == lines
