"""What outlives a run in a process stands on one page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dataflow_grounding

pytestmark = pytest.mark.slow

PACKAGE = Path(dataflow_grounding.__file__).parent
PAGE = PACKAGE.parent / "docs" / "decisions" / "process_state.md"
CONSTANTS = ("combined", "partial", "TypeVar", "option", "option_for", "argument", "frozenset")


def named_state(path: Path) -> Iterator[str]:
    """What a module binds to an empty container or an object, unless its name is a constant's; and
    what a function rebinds.
    """
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body:
        value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        empty = isinstance(value, (ast.Dict, ast.List)) and not getattr(
            value, "keys", getattr(value, "elts", None)
        )
        made = isinstance(value, ast.Call) and not ast.unparse(value.func).endswith(CONSTANTS)
        if isinstance(target, ast.Name) and (
            empty or (made and (not target.id.isupper() or "Registry" in ast.unparse(value)))
        ):
            yield target.id
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Global):
            yield from inner.names


def test_the_page_names_all_that_a_process_remembers() -> None:
    part = PAGE.read_text("utf-8")
    listed = re.findall(r"`([\w/]+\.py): (\w+)`", part)
    found = [
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] != "testing"
        for name in named_state(path)
    ]
    assert sorted(listed) == sorted(found)
