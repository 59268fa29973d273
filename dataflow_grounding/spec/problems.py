"""What is wrong with a spec: all of it at once, each with its file, line and nearest known key."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

Location = Sequence[str | int]


def place_of(roots: dict[str, Any], overrides: dict[str, Any], location: Location) -> str:
    """Where a key of a merged spec stands: among the overrides, or `FILE, line N`, by the files'
    YAML nodes.

    The last file that has it counts; of a key that is missing, the block that it should be in.
    """
    if block_with(overrides, location) is not None:
        return f"{'.'.join(map(str, location))}=…"
    found = [(*_line(root, location), path) for path, root in reversed(roots.items())]
    _, line, path = max(found, key=lambda one: one[0])
    return f"{path}, line {line}" if line else path


def validated(
    values: dict[str, Any], model: type[BaseModel], place: Callable[[Location], str]
) -> tuple[BaseModel | None, list[str]]:
    """The spec, with defaults for wrong keys (None where one has no default), and what is wrong,
    one line each.
    """
    problems: list[str] = []
    for _ in range(2):
        try:
            return model.model_validate(values), problems
        except ValidationError as error:
            found = error.errors()
        problems = problems or [
            f"{place(problem['loc'])}: {explain(problem, model)}" for problem in found
        ]
        for problem in found:
            drop(values, problem["loc"])
    return None, problems


def explain(problem: Any, model: type[BaseModel]) -> str:
    """One line for one thing wrong; values are left out, they may be keys."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        before = key.removesuffix(location[-1])
        beside = {
            known.removeprefix(before).partition(".")[0]
            for known in keys_of(model)
            if known.startswith(before)
        }
        near = nearest(location[-1], beside, 0.5)
        # with more blocks before it
        inside = [known for known in keys_of(model) if f".{known}.".find(f".{key}.") > 0]
        if not near and inside:
            near = f"; is it {inside[0][: inside[0].rindex(key) + len(key)]!r}?"
        return f"{key} is not a key of the spec{near}"
    if problem["type"] == "missing":
        if location == [getattr(model.model_fields.get("block"), "alias", None)]:
            return f"there is no block {key}, which the pipeline needs"
        return f"{key} is missing: give it a value"
    if problem["type"] == "model_type":
        return f"{key} should be a block, with keys of its own in the lines below it"
    return f"{key}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def nearest(word: str, known: Iterable[str], least: float = 0.6) -> str:
    """The end of a message about a word that isn't known: which one it may be."""
    found = difflib.get_close_matches(word, list(known), 1, least)
    return f"; is it {found[0]!r}?" if found else ""


def keys_of(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Every key of a block that holds a value, with dots between the blocks that it is in."""
    for name, field in model.model_fields.items():
        key = f"{before}{field.alias or name}"
        # of a block, perhaps in a list or optionally
        kinds = (field.annotation, *get_args(field.annotation))
        inner = next(
            (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None
        )
        if inner is not None:
            yield from keys_of(inner, f"{key}.")
        else:
            yield key


def drop(values: Any, location: Location) -> None:
    """Take out a key; of a place in a list, the whole list."""
    key, *inside = location
    if inside and isinstance(values.get(key), dict):
        drop(values[key], inside)
    else:
        values.pop(key, None)


def block_with(values: Any, location: Location) -> dict[str, Any] | None:
    """The block that a key stands in; None where it isn't there."""
    for part in location[:-1]:
        values = values.get(part) if isinstance(values, dict) else None
    return values if isinstance(values, dict) and location[-1] in values else None


def _line(node: Any, location: Location) -> tuple[int, int]:
    """How many of a location's keys a YAML node has, and the line of the innermost of them."""
    line = depth = 0
    for part in location:
        pairs = node.value if getattr(node, "id", "") == "mapping" else []
        found = next(((key, value) for key, value in pairs if key.value == str(part)), None)
        if found is None:
            break
        depth, line, node = depth + 1, found[0].start_mark.line + 1, found[1]
    return depth, line
