"""Objects as bytes for a process of another machine, without the API keys in them.

In place of a key the name of the environment's variable is sent that holds it: each machine takes
keys from its own environment.
"""

import io
import pickle
from typing import Any

from dataflow_grounding._util.errors import SpecError, needs_extra
from dataflow_grounding._util.key_names import key_variables, text_with_keys, text_with_names


def shipped(thing: Any) -> bytes:
    """Return an object as bytes, with the code of `__main__`'s classes, and without API keys."""
    with needs_extra("Ray", "ray"):
        from ray import cloudpickle

    keys = key_variables()

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # Ray's has no types
        def persistent_id(self, part: object) -> str | None:
            """Return what is pickled in place of a text with keys; None for any other part."""
            if type(part) is not str:
                return None
            reference = text_with_names(part, keys)
            return None if reference == part else reference

    file = io.BytesIO()
    try:
        Pickler(file).dump(thing)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        way = "what holds a lock, a file or a connection should make it when it is first asked"
        raise SpecError(f"the steps can't be sent to Ray's workers: {error}; {way}") from None
    return file.getvalue()


def unshipped(data: bytes) -> Any:
    """Return the object that `shipped` made bytes of. Raises SpecError for a key missing here."""
    return _Unpickler(io.BytesIO(data)).load()


class _Unpickler(pickle.Unpickler):
    """Unpickles what `shipped` has pickled."""

    def persistent_load(self, reference: str) -> str:
        """Return a text with the keys of this machine in place of their variables' names."""
        return text_with_keys(reference)
