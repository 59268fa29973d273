"""References of a spec (`${key}`, `${oc.env:NAME}`): checked, and filled in.

Ten keys, each with ten references to the next, are 400 bytes of YAML and forty gigabytes of text.
So `check_references` counts how much they would fill in. A place is where a value is: the keys
and list indices from the top of the spec to it.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.secrets import is_secret_variable, learn_fields, texts_in

MOST = 5_000_000
"""Characters that all references of a spec may fill in."""
PER_REFERENCE = 500
"""Characters that each reference counts as besides, as OmegaConf takes time for it."""
# Backends that have a block of their own in `vlm`, and all of the package's that a spec may name
# but `auto`.
_BLOCKS_OF_BACKENDS = ("openai", "gemini", "local")
_NAMES_OF_BACKENDS = (*_BLOCKS_OF_BACKENDS, "embedded")
_ESCAPED = re.compile(r"\\\\|\\\$\{")  # \\ and \${, which begins no reference
# Each reference that was counted is replaced by one of these. The innermost ones come first, so
# that those around them can be read then.
_VARIABLE_COUNTED = "\0"
_KEY_COUNTED = "\1"
# Variables, `${oc.env:NAME}` and `${oc.env:NAME,default}`; resolvers of others, such as Hydra's
# `${now:%Y}`, which can't be filled in here; `${oc.decode:…}` around a variable that was counted.
_VARIABLE = re.compile(
    r"\$\{\s*(?:oc\.env|(?!oc\.)[\w.]+)\s*:[^${}]*\}|\$\{\s*oc\.decode\s*:\s*\0\s*\}"
)
_VARIABLE_ALONE = re.compile(r"\$\{\s*oc\.env\s*:\s*(\w+)\s*\}")  # `${oc.env:NAME}`, no default
_VARIABLE_BEGUN = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)")  # the beginning of ${oc.env:NAME}
# Keys, `${workflow.steps}`. A key that has another reference within its name doesn't match: which
# key it is isn't known before that is filled in.
_KEY = re.compile(r"\$\{\s*([^${}:\0\1\s]+)\s*\}")

Place = tuple[str | int, ...]  # as ("image_grounding", "workflow", "steps", 0)


def check_references(config: Any) -> None:
    """Raise SpecError where references would fill in more than MOST characters together.

    It also raises where one can't be counted: it names neither a key nor a variable, or its key
    isn't known before it is filled in.
    """
    spec: Any = OmegaConf.to_container(config)
    sizes = _FilledSizes(spec)
    total = 0  # characters that the references fill in, without the texts that they are in
    for place, text in _texts(spec, ()):
        if "${" in text:
            total += sizes.size(place) - len(text)
    if total > MOST:
        raise SpecError(
            f"its references (${{…}}) would fill in more than {MOST:,} characters: write some"
            " values out"
        )


class FilledIn(NamedTuple):
    """A spec with its references filled in; keys that were `???` are null."""

    values: dict[str, Any]
    stated: Any  # the same with references as they are stated
    missing: list[str]  # the keys that were `???`, as OmegaConf writes them: a.b[0]


def filled_in(config: Any) -> FilledIn:
    """Fill in a spec's references. Values of secret variables are masked from now on.

    In `config`, keys that were `???` become null, and references of blocks not in use "". Raises
    OmegaConf's errors for references that can't be filled in.
    """
    _empty_other_backends(config)
    missing = sorted(OmegaConf.missing_keys(config))
    for key in missing:
        OmegaConf.update(config, key, None)
    values: Any = OmegaConf.to_container(config, resolve=True)
    stated: Any = OmegaConf.to_container(config)
    for text, is_of_secret_key in texts_in(stated):
        for variable in _VARIABLE_BEGUN.findall(text):
            # A secret is masked as a whole, of others only what looks like a key in them.
            is_secret = is_of_secret_key or is_secret_variable(variable)  # `api_key: ${oc.env:X}`
            learn_fields(os.environ.get(variable), is_secret)
    return FilledIn({str(name): value for name, value in values.items()}, stated, missing)


def _empty_other_backends(config: Any) -> None:
    """In blocks of backends not in use, make variables that are empty or not set ""."""
    # A spec may name its server by variables, which needn't be set where `vlm.backend` is
    # `embedded`. Nothing is replaced where the backend is `auto`, a user's own or not stated.
    stated: Any = OmegaConf.to_container(config)
    for place, text in _texts(stated, ()):
        variable = _VARIABLE_ALONE.fullmatch(text.strip())
        if variable is None:
            continue
        has_value = os.environ.get(variable[1], "").strip() != ""
        if not has_value and _is_of_other_backend(stated, place):
            set_at(config, place, "")


def set_at(config: Any, place: Place, value: Any) -> None:
    *outer, key = place
    block = config
    for part in outer:
        block = block[part]
    block[key] = value


def _is_of_other_backend(spec: Any, place: Place) -> bool:
    """Whether a place is in the block of a backend that isn't in use."""
    # `image_grounding.vlm.openai.base_url` is, if `image_grounding.vlm.backend` is "gemini".
    if len(place) < 4:  # it has fewer parts than this one
        return False
    pipeline, vlm, backend_of_block, *_ = place
    if vlm != "vlm" or backend_of_block not in _BLOCKS_OF_BACKENDS:
        return False
    backend = _value_at(spec, (pipeline, vlm, "backend"))
    return backend in _NAMES_OF_BACKENDS and backend != backend_of_block


def empty_variables(stated: Any, place_of: Callable[[Sequence[str]], str]) -> Iterator[str]:
    """Yield a line for each value that is a variable set to nothing."""
    for place, text in _texts(stated, ()):
        reference = _VARIABLE_ALONE.fullmatch(text.strip())
        if reference is None:
            continue
        variable = reference[1]
        value = os.environ.get(variable)  # None if it isn't set, which OmegaConf refuses
        is_set_to_nothing = value is not None and not value.strip()
        # An address that is empty by mistake would be the provider's own: pictures would go there.
        if is_set_to_nothing:
            key = [str(part) for part in place]
            yield (
                f"{place_of(key)}: {'.'.join(key)} is what {variable} holds, which is empty: set"
                f" it, or write ${{oc.env:{variable},''}} where nothing is meant"
            )


class _FilledSizes:
    """Sizes of a spec's values, in characters, with all that their references fill in."""

    def __init__(self, spec: Any) -> None:
        self._spec = spec
        self._sizes: dict[Place, int] = {}

    def size(self, place: Place) -> int:
        """Return the size of the value at a place, twice MOST at the most."""
        if place not in self._sizes:
            # A reference back to this place, met while `_size_at` counts, finds 0 and ends there:
            # OmegaConf refuses it when it fills it in.
            self._sizes[place] = 0
            # Without a limit, sums would grow to numbers of a thousand digits.
            self._sizes[place] = min(self._size_at(place), 2 * MOST)
        return self._sizes[place]

    def _size_at(self, place: Place) -> int:
        value = _value_at(self._spec, place)
        if isinstance(value, dict):
            return sum(self.size((*place, key)) for key in value)
        if isinstance(value, list):
            return sum(self.size((*place, index)) for index in range(len(value)))
        if not isinstance(value, str):  # a number, a truth value or null
            return 1
        size = len(value)
        if "${" in value:
            for key in _keys_in(value, place):
                size += PER_REFERENCE + self.size(_target(self._spec, place, key))
        return size


def _texts(value: Any, place: Place) -> Iterator[tuple[Place, str]]:
    """Each text in a value that is at `place`, with the text's own place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*place, index))


def _keys_in(text: str, place: Place) -> list[str]:
    """The keys that the references in a text name. Raises SpecError for other references."""
    keys: list[str] = []
    # Each round replaces the innermost references, until none is left that can be read. So
    # `${oc.decode:${oc.env:A}}` becomes `${oc.decode:\0}`, and then `\0`.
    remaining = _ESCAPED.sub("", text)
    before = ""
    while remaining != before:
        before = remaining
        remaining = _VARIABLE.sub(_VARIABLE_COUNTED, remaining)  # a variable names no key
        keys += _KEY.findall(remaining)
        remaining = _KEY.sub(_KEY_COUNTED, remaining)
    if "${" in remaining:
        name = ".".join(map(str, place))
        raise SpecError(
            f"{name}: a reference should name a key, ${{key}}, or a variable, ${{oc.env:NAME}}"
        )
    return keys


def _target(spec: Any, place: Place, key: str) -> Place:
    """Return the place that the key of a reference, which is at `place`, names."""
    # With the reference at a.b.c:
    #   d.e -> d.e, from the top
    #   .d  -> a.b.d, from the reference's own block
    #   ..d -> a.d, from the block around that
    dots = len(key) - len(key.lstrip("."))
    target: Place = ()
    if dots:
        target = place[: len(place) - dots]
    for part in re.split(r"[.\[\]]+", key):
        if not part:  # before a dot at the beginning, or after a bracket at the end
            continue
        name = _name_in(_value_at(spec, target), part)
        if name is None:  # the place so far has a value, or a list without such an item
            break
        target = (*target, name)
    return target


def _name_in(block: Any, part: str) -> str | int | None:
    """What a part of a key names in a block or list; None if it can name nothing there."""
    if isinstance(block, list) and part.isdecimal() and int(part) < len(block):
        return int(part)
    if not isinstance(block, dict):
        return None
    if part not in block and part.isdecimal():
        return int(part)  # YAML reads a key of digits as a number
    return part


def _value_at(value: Any, place: Place) -> Any:
    """None where a block has no such key, or the place leads into a value that is no block."""
    for part in place:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        else:
            return None
    return value
