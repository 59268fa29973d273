"""Objects as bytes for another process, without the keys in them: these are taken from its own environment."""

import io
import os
import pickle
import re
import socket
from collections.abc import Mapping
from typing import Any

from dataflow_grounding.errors import SpecError, needs_extra
from dataflow_grounding.secrets import blotted, is_secret_variable, learn

_REFERENCE = re.compile("\0(\\w+)\0")


def shipped(thing: Any) -> bytes:
    """`thing` pickled, with the classes of `__main__`; in its texts, a key's variable stands in place of the key.

    Raises:
        SpecError: For a key that no variable of the environment holds, and for what can't be pickled.
        MissingExtra: Ray isn't installed.
    """
    with needs_extra("Ray", "ray"):
        from ray import cloudpickle

    keys = {name: text for name, text in os.environ.items() if is_secret_variable(name) or blotted(text) != text}

    class Pickler(cloudpickle.CloudPickler):
        def persistent_id(self, part: object) -> str | None:
            if type(part) is not str:
                return None
            reference = _with_names(part, keys)
            if blotted(reference) != reference:
                where = "set it in a variable such as DF_API_KEY, here and on the workers"
                raise SpecError(f"a key that is not in the environment can't be had by Ray's workers: {where}")
            return None if reference == part else reference

    pickler: Any = Pickler  # Ray's has no types
    try:
        pickler(file := io.BytesIO()).dump(thing)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        way = "what holds a lock, a file or a connection should make it when it is first asked"
        raise SpecError(f"the steps can't be sent to Ray's workers: {error}; {way}") from None
    return file.getvalue()


def unshipped(data: bytes) -> Any:
    """What was pickled. Raises SpecError where this machine lacks a key."""

    class Unpickler(pickle.Unpickler):
        def persistent_load(self, reference: str) -> str:
            return _REFERENCE.sub(lambda found: _key(found[1]), reference)

    return Unpickler(io.BytesIO(data)).load()


def _with_names(text: str, keys: Mapping[str, str]) -> str:
    for name, key in keys.items():
        if len(key) >= 4 and (key == text or (len(key) >= 12 and key in text)):  # a short one may be a word
            text = text.replace(key, f"\0{name}\0")
    return text


def _key(name: str) -> str:
    if not (key := os.environ.get(name)):
        raise SpecError(f"{name} is not set on {socket.gethostname()}: workers take keys from their own environment")
    learn(key)
    return key
