"""How much the references of a spec (`${key}`) would fill in, reckoned before any of it is filled
in.

Ten keys, each with ten references to the next, are 400 bytes of YAML and forty gigabytes of text.
"""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import OmegaConf

from dataflow_grounding._util.errors import SpecError

MOST = 5_000_000
"""Characters that references may fill in, with PER_REFERENCE for each."""
PER_REFERENCE = 500
_ESCAPED = re.compile(r"\\\\|\\\$\{")
# stands as \0. What isn't OmegaConf's own, such as Hydra's ${now:…}, can't be filled in here
_VARIABLE = re.compile(
    r"\$\{\s*(?:oc\.env|(?!oc\.)[\w.]+)\s*:[^${}]*\}|\$\{\s*oc\.decode\s*:\s*\0\s*\}"
)
_VARIABLE_ALONE = re.compile(r"\$\{\s*oc\.env\s*:\s*(\w+)\s*\}")
# stands as \1: a key that another one's value is part of is none
_KEY = re.compile(r"\$\{\s*([^${}:\0\1\s]+)\s*\}")

Place = tuple[str | int, ...]


def check_references(config: Any) -> None:
    """Raises SpecError for references that would fill in too much, or whose key can't be told
    before they do.
    """
    spec: Any = OmegaConf.to_container(config)
    filled = _Filled(spec)
    total = sum(filled.size(place) - len(text) for place, text in _texts(spec, ()) if "${" in text)
    if total > MOST:
        raise SpecError(
            f"its references (${{…}}) would fill in more than {MOST:,} characters: write some"
            " values out"
        )


def empty_variables(stated: Any) -> Iterator[tuple[Place, str]]:
    """The keys whose value is a variable of the environment that is set to nothing, with no
    default, and its name.

    An address that is left empty so would be a provider's own, and pictures would go there.
    """
    for place, text in _texts(stated, ()):
        variable = _VARIABLE_ALONE.fullmatch(text.strip())
        if variable and not os.environ.get(variable[1], "set").strip():
            yield place, variable[1]


class _Filled:
    """Sizes of a spec's values, in characters, with all that their references fill in; each is
    reckoned once.
    """

    def __init__(self, spec: Any) -> None:
        self._spec, self._sizes = spec, dict[Place, int]()

    def size(self, place: Place) -> int:
        """That of the value at a place; 0 of one that refers to itself, which is refused when it is
        filled in.
        """
        if place not in self._sizes:
            self._sizes[place] = 0
            # no number of a thousand digits
            self._sizes[place] = min(self._reckoned(place), 2 * MOST)
        return self._sizes[place]

    def _reckoned(self, place: Place) -> int:
        value = _value_at(self._spec, place)
        if isinstance(value, dict):
            return sum(self.size((*place, key)) for key in value)
        if isinstance(value, list):
            return sum(self.size((*place, index)) for index in range(len(value)))
        if not isinstance(value, str) or "${" not in value:
            return len(value) if isinstance(value, str) else 1
        targets = (self.size(_target(self._spec, place, key)) for key in _keys_in(value, place))
        return len(value) + sum(PER_REFERENCE + size for size in targets)


def _texts(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(item, (*place, key))


def _keys_in(text: str, place: Place) -> list[str]:
    """The keys that a text refers to, also within the default of a variable."""
    keys: list[str] = []

    def noted(found: re.Match[str]) -> str:
        keys.append(found[1])
        return "\1"

    left, before = _ESCAPED.sub("", text), ""
    while left != before:  # the innermost references first
        before = left
        left = _KEY.sub(noted, _VARIABLE.sub("\0", left))
    if "${" in left:
        name = ".".join(map(str, place))
        raise SpecError(
            f"{name}: a reference should name a key, ${{key}}, or a variable, ${{oc.env:NAME}}"
        )
    return keys


def _target(spec: Any, place: Place, key: str) -> Place:
    """The place that a key names, or the innermost above it that is no block; one dot before it is
    the own block.
    """
    dots = len(key) - len(key.lstrip("."))
    parts: Sequence[str] = [part for part in re.split(r"[.\[\]]+", key) if part]
    found: Place = place[: len(place) - dots] if dots else ()
    for part in parts:
        block = _value_at(spec, found)
        if isinstance(block, list) and part.isdecimal() and int(part) < len(block):
            found = (*found, int(part))
        elif isinstance(block, dict):
            found = (*found, int(part) if part not in block and part.isdecimal() else part)
        else:
            break
    return found


def _value_at(value: Any, place: Place) -> Any:
    for part in place:
        inside = isinstance(value, dict) and part in value
        value = (
            value[part] if inside or (isinstance(value, list) and isinstance(part, int)) else None
        )
    return value
