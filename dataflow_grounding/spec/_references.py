"""References of a spec (`${key}`, `${oc.env:NAME}`), filled in.

A place is where a value is: the keys and list indices from the top of the spec to it.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from dataflow_grounding._util.secrets import is_secret_variable, learn_fields, texts_in
from dataflow_grounding.spec.problems import value_at

# Backends that have a block of their own in `vlm`, and all of the package's that a spec may name
# but `auto`.
_BLOCKS_OF_BACKENDS = ("openai", "gemini", "local")
_NAMES_OF_BACKENDS = (*_BLOCKS_OF_BACKENDS, "embedded")
_VARIABLE_ALONE = re.compile(r"\$\{\s*oc\.env\s*:\s*(\w+)\s*\}")  # `${oc.env:NAME}`, no default
_VARIABLE_BEGUN = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)")  # the beginning of ${oc.env:NAME}

Place = tuple[str | int, ...]  # as ("image_grounding", "workflow", "steps", 0)


class FilledIn(NamedTuple):
    """A spec with its references filled in; keys that were `???` are null."""

    values: dict[str, object]
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
    if len(place) < 4 or place[1] != "vlm" or place[2] not in _BLOCKS_OF_BACKENDS:
        return False
    pipeline, vlm, backend_of_block, *_ = place
    backend = value_at(spec, (pipeline, vlm, "backend"))
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
