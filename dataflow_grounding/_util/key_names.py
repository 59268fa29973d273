"""Texts for another process, with the name of a key's variable in place of the key.

That process, perhaps on another machine, takes the key from its own environment.
"""

import os
import re
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.secrets import blotted, is_secret_variable, learn

# What replaces a key: its variable between two zero characters, `\0DF_API_KEY\0`.
_REFERENCE = re.compile("\0(\\w+)\0")
_SHORTEST_KEY = 4  # characters of a text that is a key; shorter values are none
# characters of a key that is looked for within a text, where a short one may be a word
_SHORTEST_WITHIN = 12


def key_variables() -> dict[str, str]:
    """Return the variables of the environment that hold a key, with all that they hold."""
    return {
        name: text
        for name, text in os.environ.items()
        if is_secret_variable(name) or blotted(text) != text
    }


def with_names(value: Any) -> Any:
    """`{"api_key": "abc"}` → `{"api_key": "\\0DF_API_KEY\\0"}`. SpecError if no variable has it."""
    return _with_texts(value, partial(text_with_names, keys=key_variables()))


def with_keys(value: Any) -> Any:
    """Undo `with_names`, with the keys of this process; SpecError if one is missing."""
    return _with_texts(value, text_with_keys)


def _with_texts(value: Any, changed: Callable[[str], str]) -> Any:
    if type(value) is dict:
        return {name: _with_texts(item, changed) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)([_with_texts(item, changed) for item in value])
    return changed(value) if type(value) is str else value


def text_with_names(text: str, keys: Mapping[str, str]) -> str:
    """Return a text with references for keys; a short key counts only as the whole text."""
    for name, key in keys.items():
        is_within = len(key) >= _SHORTEST_WITHIN and key in text
        is_whole_text = len(key) >= _SHORTEST_KEY and key == text
        if is_within or is_whole_text:
            text = text.replace(key, f"\0{name}\0")
    if blotted(text) != text:
        where = "set it in a variable such as DF_API_KEY, here and there"
        raise SpecError(
            f"a key that is not in the environment can't be had by another process: {where}"
        )
    return text


def text_with_keys(text: str) -> str:
    return _REFERENCE.sub(lambda reference: _key(reference[1]), text)


def _key(name: str) -> str:
    key = os.environ.get(name)
    if not key:
        raise SpecError(
            f"{name} is not set on {socket.gethostname()}: workers take keys from their own"
            " environment"
        )
    learn(key)
    return key
