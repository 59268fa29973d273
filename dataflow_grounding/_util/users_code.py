"""Calling a user's own code, and what it raised, and where."""

import asyncio
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
UsersValue: TypeAlias = Any
"""What comes from a user's own code: nothing is known of it."""
UsersFunction: TypeAlias = Callable[..., Any]
"""A function of a user's own: nothing is known of its arguments."""

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_PYTHON = sysconfig.get_path("stdlib")


async def call_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call a user's function in a thread; return what it returns, raise what it raises."""

    def outcome() -> tuple[T | None, BaseException | None]:
        try:
            return function(*arguments), None
        except BaseException as error:
            return None, error

    # The error is handed over as a value, because two errors can't be raised in a thread. A Future
    # refuses a StopIteration, and whoever awaits it would wait for ever. A GeneratorExit would end
    # the task past all that catches it.
    result, error = await asyncio.to_thread(outcome)
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # None is the function's own here


def place_of(error: BaseException) -> str:
    """Return `FILE:LINE` of the last call outside of this package and Python; "" without any."""
    place = ""
    if isinstance(error.__cause__, StopIteration):
        error = error.__cause__  # Python raised a RuntimeError in its place, somewhere further out
    for frame in traceback.extract_tb(error.__traceback__):  # from the outermost call in
        # Installed packages are in a folder of Python's: `…/lib/python3.12/site-packages`.
        is_pythons = frame.filename.startswith(_PYTHON) and "site-packages" not in frame.filename
        if not frame.filename.startswith(_PACKAGE) and not is_pythons:
            place = f"{frame.filename}:{frame.lineno}"
    return place
