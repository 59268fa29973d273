"""What is of other libraries in a pipeline: their operators as steps, and looks at their files."""

import functools
import inspect
from typing import Any

from dataflow_grounding._util.errors import PlanError
from dataflow_grounding.data.storage import (
    STORAGE_ATTRIBUTES,
    FileStorage,
    is_storage,
    run_noted_steps,
)
from dataflow_grounding.engine.plan import Step, WholeFile, note_step


def stand_in_for(value: Any) -> Any:
    """Return what replaces an operator or a storage of another library while `forward()` runs."""
    if callable(getattr(value, "run", None)):
        return ForeignOperator(value)
    return ForeignStorage(value) if is_storage(value) else None


class ForeignOperator:
    """Replaces an operator of another library while `forward()` is called: `run` becomes a step."""

    # None, too, while a copy is made: `__getattr__` is then asked for before `__init__` has run.
    _operator: Any = None

    def __init__(self, operator: Any) -> None:
        object.__setattr__(self, "_operator", operator)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._operator, name, value)

    def __call__(self, *arguments: Any, **keys: Any) -> Any:
        return self._operator(*arguments, **keys)

    def run(self, *arguments: Any, **keys: Any) -> Any:
        """Note a step in which the operator runs, and return the name of its output column.

        Where no `forward()` is running, or no storage is among the arguments, it runs now.
        """
        storage = _storage_in([*arguments, *keys.values()])
        if storage is None:
            return self._operator.run(*arguments, **keys)
        # The operator gets the storages themselves, not what replaces them.
        own_arguments = [_unwrapped(argument) for argument in arguments]
        own_keys = {name: _unwrapped(value) for name, value in keys.items()}
        work = functools.partial(self._operator.run, *own_arguments, **own_keys)
        step = Step(WholeFile(type(self._operator).__name__, work), storage)
        if not note_step(step):  # no `forward()` is running
            return work()
        # Where `strays` is a list, a step of the storage that is called in another thread is an
        # error. But this operator may use its storage in any thread.
        storage.strays = None
        return _output_column(self._operator, arguments, keys)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operator, name)


class ForeignStorage:
    """Replaces a storage of another library while `forward()` is called.

    Where it is asked for anything but its next step, such as a file, the steps so far are run.
    """

    _storage: Any = None  # None, too, while a copy is made, as in ForeignOperator

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def step(self) -> "ForeignStorage":
        return ForeignStorage(self._storage.step())

    def __getattr__(self, name: str) -> Any:
        if name not in STORAGE_ATTRIBUTES:
            run_noted_steps()
        return getattr(self._storage, name)


def _unwrapped(value: Any) -> Any:
    return value._storage if isinstance(value, ForeignStorage) else value


def _storage_in(arguments: list[Any]) -> FileStorage | None:
    for argument in arguments:
        if isinstance(argument, (FileStorage, ForeignStorage)):
            return FileStorage.like(argument)
    return None


def _output_column(operator: Any, arguments: tuple[Any, ...], keys: dict[str, object]) -> Any:
    """Return what the operator's `run` would return: its first argument named `output…`."""
    for name, value in _arguments_of_run(operator, arguments, keys).items():
        if name.startswith("output"):
            return value
    return ""


def _arguments_of_run(
    operator: Any, arguments: tuple[Any, ...], keys: dict[str, object]
) -> dict[str, object]:
    """Return all arguments of the operator's `run` by name, defaults too. Raises PlanError."""
    try:
        signature = inspect.signature(operator.run)
    except ValueError:  # not every callable tells its arguments
        return keys
    try:
        bound = signature.bind(*arguments, **keys)
    except TypeError as error:
        raise PlanError(f"{type(operator).__name__}.run(): {error}") from None
    bound.apply_defaults()
    return {**keys, **bound.arguments}
