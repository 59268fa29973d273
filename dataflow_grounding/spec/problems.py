"""What is wrong with a spec: all of it at once, each with its file, line and nearest known key.

A location is a key of a spec with the blocks that it is in, from the outermost on.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from dataflow_grounding._util.nearest import nearest
from dataflow_grounding.data.records import JsonObject

Location = Sequence[str | int]
# What a value should be, by pydantic's kind of a wrong one, where its own words are a parser's.
_SHOULD_BE = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a text",
    "list_type": "a list",
    "dict_type": "a mapping of keys",
}
_OF_OVERRIDE = "=…"  # ends the place of a key that an override states
END_OF_PART = re.compile(r"[.[]")
"""What ends a part of a key, as in `a.b[0]`."""


def place_of(roots: Mapping[str, object], overrides: JsonObject, location: Location) -> str:
    """Return where a key is, as `FILE, line N`, or as `KEY=…` for an override.

    Of several files that have the key, the last counts. For a key that is missing, it is the line
    of the innermost block around it that is there.
    """
    if has_key(overrides, location):
        return f"{'.'.join(map(str, location))}{_OF_OVERRIDE}"
    found_in = {path: _deepest_key(root, location) for path, root in roots.items()}
    if not found_in:
        return ""
    # Of files that have equally many of the keys, the last counts. max() takes the first of equal
    # ones, hence reversed().
    path = max(reversed(found_in), key=lambda path: found_in[path].keys_there)
    line = found_in[path].line
    return f"{path}, line {line}" if line else path


def take_out_missing_keys(
    values: dict[str, object], keys: Sequence[str], place: Callable[[Location], str]
) -> list[str]:
    """Take the `keys` that are `???`, such as `a.b[0]`, out; return a line for each."""
    problems = []
    for key in keys:
        location = END_OF_PART.split(key)
        drop(values, location)
        problems.append(f"{place(location)}: {key} is '???': give it a value")
    return problems


def validated(
    values: dict[str, object], model: type[BaseModel], place: Callable[[Location], str]
) -> tuple[BaseModel | None, list[str]]:
    """Return the spec that the values make, and what is wrong with them, one line each.

    Wrong keys are taken out of `values`: the spec has their defaults, or is None where one has no
    default.
    """
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        problems = error.errors()
    is_key_misspelt = any(
        problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1 for problem in problems
    )
    lines = []
    for problem in problems:
        # A misspelt name of a block is told once, and not as a missing block as well.
        is_block_missing = problem["type"] == "missing" and problem["loc"] == _name_of_block(model)
        if is_key_misspelt and is_block_missing:
            continue
        lines.append(at_place(_place_of_problem(problem, place), explain(problem, model)))
    # Once what is wrong is taken out, the rest is a spec, unless a key without a default is
    # missing.
    for problem in problems:
        drop(values, problem["loc"])
    try:
        return model.model_validate(values), lines
    except ValidationError:
        return None, lines


def _place_of_problem(problem: Any, place: Callable[[Location], str]) -> str:
    where = place(problem["loc"])
    # keys within the value, where a validator of ours names them: the wrong term of a glossary
    inside = problem.get("ctx", {}).get("inside", ())
    # An override of the command line states its value in one piece, so it is named as a whole.
    if inside and not where.endswith(_OF_OVERRIDE):
        return place([*problem["loc"], *inside])
    return where


def at_place(place: str, explanation: str) -> str:
    """Return an explanation with its place before it: `spec.yaml, line 3: a.b is missing`."""
    # Of an override, the place is the key (`a.b=…`), which isn't named twice.
    key = place.removesuffix(_OF_OVERRIDE)
    if explanation.startswith(f"{key} "):
        return explanation
    return f"{place}: {explanation.removeprefix(f'{key}: ')}"


def explain(problem: Any, model: type[BaseModel]) -> str:
    """Return one of `ValidationError.errors()` as a line that names the key."""
    # Values are left out of it: they may be secret keys.
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        return f"{key} is not a key of the spec{_known_key_near(location, model)}"
    if problem["type"] == "missing":
        if problem["loc"] == _name_of_block(model):
            return f"there is no block {key}, which the pipeline needs"
        return f"{key} is missing: give it a value"
    if problem["type"] == "model_type":
        return f"{key} should be a block of keys, {{key: value}} or in the lines below it"
    if problem["type"] in _SHOULD_BE:
        return f"{key} should be {_SHOULD_BE[problem['type']]}"
    message = _message_of_pydantic(problem)
    if message.startswith("should "):
        return f"{key} {message}"
    return f"{key}: {message}"


def _name_of_block(model: type[BaseModel]) -> Location:
    """Return where a `Spec` has its pipeline's block: ("image_grounding",)."""
    return (getattr(model.model_fields.get("block"), "alias", ""),)


def _message_of_pydantic(problem: Any) -> str:
    """Make "should be 'stop' or 'warn'" of "Input should be 'stop' or 'warn'"."""
    words = problem["msg"]
    message = f"{words[:1].lower()}{words[1:]}".removeprefix("input ")
    if problem["type"] == "literal_error":
        allowed_values = re.findall("'([^']*)'", message)
        message += nearest(str(problem["input"]), allowed_values)
    return message


def _known_key_near(location: Sequence[str], model: type[BaseModel]) -> str:
    """What to say after "is not a key of the spec"."""
    key = ".".join(location)
    *_, name = location
    block = key.removesuffix(name)  # "image_grounding.vlm.", "" at the top
    known_keys = list(keys_of(model))  # such as "image_grounding.vlm.openai.base_url"
    # A misspelt key is one of the same block with a similar name: more alike than by default, so
    # that vlm.check isn't vlm.check_every.
    in_block = [known.removeprefix(block) for known in known_keys if known.startswith(block)]
    near = nearest(name, {known.partition(".")[0] for known in in_block}, 0.65)
    if near:
        return near
    # Or blocks around it may have been left out: `vlm` is `image_grounding.vlm`. Of several such
    # keys the one with the fewest blocks is the likeliest.
    keys_with_blocks = []
    for known in known_keys:
        start = f"{known}.".find(f".{key}.")
        if start > 0:
            keys_with_blocks.append(known[: start + 1 + len(key)])
    if not keys_with_blocks:
        return ""
    fewest_blocks = min(keys_with_blocks, key=lambda known: known.count("."))
    return f"; is it {fewest_blocks!r}?"


def keys_of(model: type[BaseModel], key_prefix: str = "") -> Iterator[str]:
    """Yield a model's keys, with dots between blocks: `vlm.openai.model_name`."""
    for name, field in model.model_fields.items():
        key = f"{key_prefix}{field.alias or name}"
        block = _block_in(field.annotation)
        if block is None:
            yield key
        else:
            yield from keys_of(block, f"{key}.")


def _block_in(annotation: Any) -> type[BaseModel] | None:
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def drop(values: Any, location: Location) -> None:
    """Take a key out of values, in place; where it is within a list, the whole list."""
    key, *inside = location
    if inside and isinstance(values.get(key), dict):
        drop(values[key], inside)
    else:
        values.pop(key, None)


def has_key(values: Any, location: Location) -> bool:
    for key in location:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def value_at(values: Any, location: Location) -> Any:
    """Return None where there is no such key."""
    for key in location:
        values = values.get(key) if isinstance(values, dict) else None
    return values


class _DeepestKey(NamedTuple):
    keys_there: int  # how many keys of a location there are, from the outermost on
    line: int  # of the last of these; 0 without any


def _deepest_key(node: Any, location: Location) -> _DeepestKey:
    """How much of a location a file has, whose outermost YAML node is given."""
    keys_there = 0
    line = 0
    for part in location:
        key_and_value = _entry_of(node, str(part))
        if key_and_value is None:
            break
        key, node = key_and_value
        keys_there += 1
        line = key.start_mark.line + 1
    return _DeepestKey(keys_there, line)


def _entry_of(node: Any, name: str) -> tuple[Any, Any] | None:
    """The entry `name` of a YAML node: a mapping's key and value, or a list's item twice."""
    kind = getattr(node, "id", "")
    if kind == "sequence":
        is_index = name.isdecimal() and int(name) < len(node.value)
        if not is_index:
            return None
        item = node.value[int(name)]
        return item, item
    if kind != "mapping":
        return None
    for key, value in node.value:
        if key.value == name:
            return key, value
    return None
