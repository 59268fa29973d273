"""How much the references of a spec (`${key}`) would fill in, counted before they do.

Ten keys, each with ten references to the next, are 400 bytes of YAML and forty gigabytes of text.
"""

import os
import re
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from dataflow_grounding._util.errors import SpecError

MOST = 5_000_000
"""Characters that references may fill in, with PER_REFERENCE for each."""
PER_REFERENCE = 500
_BLOCKS_OF_BACKENDS = ("openai", "gemini", "local")
_NAMES_OF_BACKENDS = (*_BLOCKS_OF_BACKENDS, "embedded")
_ESCAPED = re.compile(r"\\\\|\\\$\{")
# What is counted is replaced, the innermost first, so that the reference around it can be told.
_VARIABLE_COUNTED = "\0"
_KEY_COUNTED = "\1"
# What isn't OmegaConf's own, such as Hydra's ${now:…}, can't be filled in here.
_VARIABLE = re.compile(
    r"\$\{\s*(?:oc\.env|(?!oc\.)[\w.]+)\s*:[^${}]*\}|\$\{\s*oc\.decode\s*:\s*\0\s*\}"
)
_VARIABLE_ALONE = re.compile(r"\$\{\s*oc\.env\s*:\s*(\w+)\s*\}")
# A key that another one's value is part of can't be told.
_KEY = re.compile(r"\$\{\s*([^${}:\0\1\s]+)\s*\}")

Place = tuple[str | int, ...]


def check_references(config: Any) -> None:
    """Refuse references that would fill in too much.

    Raises SpecError; also for references whose key can't be told before they are filled in.
    """
    spec: Any = OmegaConf.to_container(config)
    sizes = _FilledSizes(spec)
    total = 0
    for place, text in _texts(spec, ()):
        if "${" in text:
            total += sizes.size(place) - len(text)
    if total > MOST:
        raise SpecError(
            f"its references (${{…}}) would fill in more than {MOST:,} characters: write some"
            " values out"
        )


def empty_variables(stated: Any) -> Iterator[tuple[Place, str]]:
    """The keys whose value is a variable of the environment that is set to nothing; and its name.

    Those alone that give no default. An address that is left empty so would be a provider's own,
    and pictures would go there.
    """
    for place, text in _texts(stated, ()):
        variable = _VARIABLE_ALONE.fullmatch(text.strip())
        if variable and not os.environ.get(variable[1], "set").strip():
            yield place, variable[1]


def empty_other_backends(config: Any) -> None:
    """Leave variables that hold nothing empty in blocks of backends that aren't asked.

    A spec names its server by variables; with `vlm.backend=embedded` over it, none is needed.
    """
    stated: Any = OmegaConf.to_container(config)
    for place, text in _texts(stated, ()):
        variable = _VARIABLE_ALONE.fullmatch(text.strip())
        if variable is None or os.environ.get(variable[1], "").strip():
            continue
        if len(place) < 4 or place[1] != "vlm" or place[2] not in _BLOCKS_OF_BACKENDS:
            continue
        backend = _value_at(stated, (*place[:2], "backend"))
        if backend in _NAMES_OF_BACKENDS and backend != place[2]:
            block = config
            for part in place[:-1]:
                block = block[part]
            block[place[-1]] = ""


class _FilledSizes:
    """Sizes of a spec's values, in characters, with all that their references fill in.

    Each is counted once.
    """

    def __init__(self, spec: Any) -> None:
        self._spec = spec
        self._sizes: dict[Place, int] = {}

    def size(self, place: Place) -> int:
        """The size of the value at a place.

        0 of one that refers to itself, which is refused when it is filled in.
        """
        if place not in self._sizes:
            # What a reference back to this place, met on the way, is told.
            self._sizes[place] = 0
            # Not above what is refused anyway, as sums would grow to a thousand digits.
            self._sizes[place] = min(self._counted(place), 2 * MOST)
        return self._sizes[place]

    def _counted(self, place: Place) -> int:
        """Return the characters of the value at a place, with those that its references fill in."""
        value = _value_at(self._spec, place)
        if isinstance(value, dict):
            return sum(self.size((*place, key)) for key in value)
        if isinstance(value, list):
            return sum(self.size((*place, index)) for index in range(len(value)))
        if not isinstance(value, str):
            return 1
        size = len(value)
        if "${" in value:
            for key in _keys_in(value, place):
                size += PER_REFERENCE + self.size(_target(self._spec, place, key))
        return size


def _texts(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """Yield each text in a value, with its place from `place` on."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*place, index))


def _keys_in(text: str, place: Place) -> list[str]:
    """The keys that a text refers to, also within the default of a variable."""
    keys: list[str] = []

    def count_key(reference: re.Match[str]) -> str:
        keys.append(reference[1])
        return _KEY_COUNTED

    left = _ESCAPED.sub("", text)
    before = ""
    while left != before:
        before = left
        left = _VARIABLE.sub(_VARIABLE_COUNTED, left)
        left = _KEY.sub(count_key, left)
    if "${" in left:
        name = ".".join(map(str, place))
        raise SpecError(
            f"{name}: a reference should name a key, ${{key}}, or a variable, ${{oc.env:NAME}}"
        )
    return keys


def _target(spec: Any, place: Place, key: str) -> Place:
    """The place that a key names, or the innermost above it that is no block.

    One dot before the key is the own block, two the one around that.
    """
    dots = len(key) - len(key.lstrip("."))
    target: Place = place[: len(place) - dots] if dots else ()
    for part in re.split(r"[.\[\]]+", key):
        if not part:
            continue
        block = _value_at(spec, target)
        if isinstance(block, list) and part.isdecimal() and int(part) < len(block):
            target = (*target, int(part))
        elif isinstance(block, dict):
            key_of_part: str | int = part
            if part not in block and part.isdecimal():
                # YAML reads a key of digits as a number.
                key_of_part = int(part)
            target = (*target, key_of_part)
        else:
            break
    return target


def _value_at(value: Any, place: Place) -> Any:
    """The value at a place of a spec; None where there is none."""
    for part in place:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        else:
            return None
    return value
