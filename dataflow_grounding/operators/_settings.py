"""Settings as JSON that differs where they differ, to tell whether an operator has changed.

Where nobody can tell, a step is done again, with the replies that are stored. So a setting that
looks changed though it isn't costs a little time; one that looks the same though it has changed
would leave old results in the files.
"""

import inspect
import pickle
import types
from hashlib import sha256

from dataflow_grounding._util.users_code import UsersValue
from dataflow_grounding.engine.plan import source_digest
from dataflow_grounding.operators.operator_base import Operator
from dataflow_grounding.serving.serving import Serving


class CantTell(Exception):
    """Nobody can tell whether a setting has changed."""


def distinct_setting(value: UsersValue) -> UsersValue:
    """Return a setting as JSON that differs where the setting differs, else raise CantTell."""
    try:
        return _distinct(value)
    except Exception:  # anything that a class of the user's raises when it is asked, or pickled
        raise CantTell from None


def _distinct(value: UsersValue) -> UsersValue:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_distinct(item) for item in value]
    if isinstance(value, dict):  # pairs, because its keys may be of any type
        return [[_distinct(key), _distinct(item)] for key, item in value.items()]
    if isinstance(value, (set, frozenset)):  # in an order that doesn't depend on hashes
        return sorted((_distinct(item) for item in value), key=repr)
    if hasattr(type(value), "as_setting"):  # a class of ours that states itself
        return value.as_setting()
    stated = _stated_by(value)
    if stated is not None:
        return stated
    # Of any other object a digest of all that pickle would store of it: a `repr` may show a part
    # alone, as NumPy's does.
    digest = _Digest()
    _Pickler(digest, protocol=5).dump(value)
    return [type(value).__qualname__, digest.sha.hexdigest()]


def function_settings(function: UsersValue) -> dict[str, object]:
    """Return what the results of a function depend on, as JSON, else raise CantTell."""
    source = source_digest(function)
    if source is None or not inspect.isfunction(function):
        raise CantTell
    if function.__closure__:  # variables of a function around it, which may change
        raise CantTell
    values: dict[str, object] = {}
    for name in sorted(_names_in(function.__code__)):
        is_global = name in function.__globals__  # else it is a builtin's, or an attribute's
        if not is_global:
            continue
        value = function.__globals__[name]
        is_code = inspect.isroutine(value) or inspect.isclass(value) or inspect.ismodule(value)
        if not is_code:
            values[name] = distinct_setting(value)
    name_of_defaults = ""  # which no global has
    values[name_of_defaults] = distinct_setting([function.__defaults__, function.__kwdefaults__])
    return {"function": function.__qualname__, "source": source, "values": values}


def _names_in(code: types.CodeType) -> set[str]:
    """Return the names that code uses, also those in functions defined within it."""
    names = set(code.co_names)
    for constant in code.co_consts:  # among them is the code of such functions
        if isinstance(constant, types.CodeType):
            names |= _names_in(constant)
    return names


def _stated_by(value: UsersValue) -> UsersValue:
    """Return what functions, operators and servings state of themselves; None for other values."""
    if inspect.isfunction(value):
        return function_settings(value)
    if isinstance(value, Operator):
        settings = value.settings()
        if settings is None:
            raise CantTell
        serving = value.serving.identity() if value.serving else None
        return [settings, value.reads(), value.writes(), serving]
    if isinstance(value, Serving):
        return value.identity()
    return None


class _Digest:
    """A file that keeps a digest of what is written, and nothing else."""

    def __init__(self) -> None:
        self.sha = sha256()

    def write(self, data: UsersValue) -> int:
        self.sha.update(data)
        return len(data)


class _Pickler(pickle.Pickler):
    """Writes functions, operators and servings as what they state of themselves."""

    def reducer_override(self, value: UsersValue) -> UsersValue:
        # Pickle stores the name alone of a function, and attributes of the others that change with
        # each run.
        stated = _stated_by(value)
        if stated is None:
            return NotImplemented
        return str, (repr(stated),)  # the text is stored in place of the value
