"""How packed the code is, room by room; and the constructs that the package does without.

    python -m benchmarks.readability            # the table, a thermometer
    python -m benchmarks.readability --refused  # every place of a construct that the gate refuses
    python -m benchmarks.readability --draw 1   # forty functions, drawn by that seed, for a reader

Tokens are Python's without comments, docstrings and line ends, over all lines of a file; the other
figures are per 1,000 lines that hold code. Vague names are those that say nothing about what they
hold.
"""

from __future__ import annotations

import ast
import io
import random
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "dataflow_grounding"
VAGUE = {"found", "one", "said", "given", "place", "kind", "other"}
SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
GOALS = {
    "tokens a line": 6,
    "comprehensions": 40,
    "conditional expressions": 20,
    "tuple assignments": 5,
    "vague names, %": 4,
}


def room_of(path: Path) -> str:
    """The room that a module is in."""
    parts = path.relative_to(PACKAGE).parts
    if len(parts) == 1:
        return "(top)"
    return parts[0]


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines of strings that stand by themselves."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        stands_alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if stands_alone and isinstance(node.value.value, str):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def is_tuple_assignment(node: ast.AST) -> bool:
    """Whether it binds several names to several values at once: `a, b = 1, 2`."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
    )


def counts_of(path: Path) -> Counter[str]:
    """What a module holds, counted."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    documented = docstring_lines(tree)
    counts: Counter[str] = Counter()
    code_lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if token.type in SILENT or line in documented:
            continue
        counts["tokens"] += 1
        code_lines.update(range(line, token.end[0] + 1))
    counts["lines"] = source.count("\n")
    counts["code lines"] = len(code_lines)
    for node in ast.walk(tree):
        counts["comprehensions"] += isinstance(node, COMPREHENSIONS)
        counts["conditional expressions"] += isinstance(node, ast.IfExp)
        counts["tuple assignments"] += is_tuple_assignment(node)
        if isinstance(node, (ast.Name, ast.arg)):
            name = node.id if isinstance(node, ast.Name) else node.arg
            counts["names"] += 1
            counts["vague"] += name in VAGUE
    return counts


def row_of(counts: Counter[str]) -> dict[str, float]:
    """The table's figures of some modules together."""
    per_thousand = 1000 / max(1, counts["code lines"])
    return {
        "tokens a line": counts["tokens"] / max(1, counts["lines"]),
        "comprehensions": counts["comprehensions"] * per_thousand,
        "conditional expressions": counts["conditional expressions"] * per_thousand,
        "tuple assignments": counts["tuple assignments"] * per_thousand,
        "vague names, %": 100 * counts["vague"] / max(1, counts["names"]),
    }


def table() -> str:
    """The thermometer, as text."""
    rooms: dict[str, Counter[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        rooms.setdefault(room_of(path), Counter()).update(counts_of(path))
    total: Counter[str] = Counter()
    for counts in rooms.values():
        total.update(counts)
    lines = ["room                lines  " + "  ".join(GOALS)]
    for room, counts in [*sorted(rooms.items()), ("all", total)]:
        figures = row_of(counts)
        cells = "  ".join(f"{figures[name]:{len(name)}.1f}" for name in GOALS)
        lines.append(f"{room:18}{counts['lines']:7}  {cells}")
    goals = "  ".join(f"{'≤ ' + str(goal):>{len(name)}}" for name, goal in GOALS.items())
    lines.append(f"{'goal':18}{'':7}  {goals}")
    return "\n".join(lines)


def refused(source: str) -> Iterator[tuple[int, str]]:
    """The line and the name of each construct that the package does without."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for reason in reasons_against(node):
            yield node.lineno, reason  # type: ignore[attr-defined]
    for number, line in enumerate(source.splitlines(), 1):
        if "# fmt:" in line:
            yield number, "a switch for the formatter"


def reasons_against(node: ast.AST) -> Iterator[str]:
    """Why a syntax node is refused; nothing for most."""
    if isinstance(node, ast.IfExp):
        yield from reasons_against_choice(node)
    if isinstance(node, COMPREHENSIONS):
        yield from reasons_against_comprehension(node)
    if isinstance(node, ast.Assign):
        yield from reasons_against_assignment(node)
    if isinstance(node, (ast.For, ast.AsyncFor)):
        yield from reasons_against_loop(node)
    if isinstance(node, ast.Starred) and isinstance(node.value, ast.GeneratorExp):
        yield "a generator unpacked"
    if isinstance(node, ast.Starred) and isinstance(node.value, ast.Tuple):
        yield "a tuple unpacked in place"
    if isinstance(node, ast.Call) and is_split_literal(node):
        yield "a literal that is split"
    if is_arithmetic_with_truth(node):
        yield "arithmetic with truth values"


def reasons_against_choice(node: ast.IfExp) -> Iterator[str]:
    """Why a conditional expression is refused."""
    if any(isinstance(part, ast.IfExp) for part in (node.test, node.body, node.orelse)):
        yield "a conditional expression within another"
    if node.end_lineno != node.lineno:
        yield "a conditional expression over several lines"


def reasons_against_loop(node: ast.For | ast.AsyncFor) -> Iterator[str]:
    """Why a loop's head is refused."""
    targets = ast.walk(node.target)
    if any(isinstance(part, (ast.Attribute, ast.Subscript)) for part in targets):
        yield "an attribute or item as a loop's target"
    if isinstance(node.iter, ast.IfExp):
        yield "a conditional expression to loop over"


def is_arithmetic_with_truth(node: ast.AST) -> bool:
    """Whether a comparison or a negation is added, subtracted or multiplied."""
    if isinstance(node, ast.BinOp):
        operands = [node.left, node.right]
    elif isinstance(node, ast.AugAssign):
        operands = [node.value]
    else:
        return False
    return isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)) and any(map(is_truth, operands))


def reasons_against_comprehension(node: ast.AST) -> Iterator[str]:
    """Why a comprehension is refused."""
    loops: list[ast.comprehension] = node.generators  # type: ignore[attr-defined]
    conditions = sum(len(loop.ifs) for loop in loops)
    for loop in loops:
        for condition in loop.ifs:
            if isinstance(condition, ast.BoolOp):
                conditions += len(condition.values) - 1
        if isinstance(loop.iter, ast.IfExp):
            yield "a conditional expression to loop over"
    if len(loops) > 1 and conditions >= 2:
        yield "a nested comprehension with two conditions"
    if any(isinstance(part, ast.NamedExpr) for part in ast.walk(node)):
        yield "a walrus in a comprehension"


def reasons_against_assignment(node: ast.Assign) -> Iterator[str]:
    """Why an assignment is refused."""
    if len(node.targets) > 1:
        yield "one value for several names"
    if is_tuple_assignment(node):
        values = node.value.elts  # type: ignore[attr-defined]
        if len(values) >= 3:
            yield "three or more assignments in one"
        elif len({type(value) for value in values}) > 1:
            yield "two unlike things assigned in one"


def is_split_literal(node: ast.Call) -> bool:
    """Whether a call splits a string that is written there."""
    call = node.func
    return (
        isinstance(call, ast.Attribute)
        and call.attr == "split"
        and isinstance(call.value, ast.Constant)
        and isinstance(call.value.value, str)
    )


def is_truth(node: ast.AST) -> bool:
    """Whether an expression is a comparison, a negation, or a choice between truth values."""
    if isinstance(node, ast.BoolOp):
        return all(is_truth(value) for value in node.values)
    return isinstance(node, ast.Compare) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )


def refused_in_package() -> list[str]:
    """Every construct that is refused, as `file:line: what it is`."""
    lines = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for line, reason in sorted(refused(path.read_text(encoding="utf-8"))):
            lines.append(f"{name}:{line}: {reason}")
    return lines


def drawn(seed: int, count: int = 40) -> list[str]:
    """Functions of five lines or more for a reading test, as `file:line: name`.

    They are shown with their file and nothing else to somebody who hasn't seen the code, and who
    says what each does.
    """
    functions = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            if is_function and (node.end_lineno or 0) - node.lineno >= 5:
                functions.append(f"{name}:{node.lineno}: {node.name}")
    return sorted(random.Random(seed).sample(functions, count))


if __name__ == "__main__":
    if "--draw" in sys.argv:
        print("\n".join(drawn(int(sys.argv[-1]))))
    elif "--refused" in sys.argv:
        print("\n".join(refused_in_package()))
    else:
        print(table())
