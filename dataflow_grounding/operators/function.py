"""A custom step from one function."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import overload

from dataflow_grounding._util.errors import OperatorFailed
from dataflow_grounding._util.users_code import UsersFunction, call_in_thread
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.operators._settings import CantTell, function_settings
from dataflow_grounding.operators.operator_base import Operator
from dataflow_grounding.serving.serving import Serving


class FunctionOperator(Operator):
    """Calls a function with each record; what it returns is the update.

    A function that requires two positional arguments gets `ask` as the second.

    Args:
        function: The function, or another callable; it may be async or return an awaitable.
        reads: The columns that it reads; each is the role of its own name.
        writes: The columns that it adds, likewise. If it names any, the function may return no
            others.
        serving: What answers its requests; None if it asks nothing.
    """

    sees_all = True  # what a function reads and returns isn't known before
    looks_at_image = False

    def __init__(
        self,
        function: UsersFunction,
        reads: Iterable[str],
        writes: Iterable[str],
        serving: Serving | None = None,
    ) -> None:
        self.function = function
        self.serving = serving
        self.name: str = getattr(function, "__name__", type(function).__name__)  # type: ignore[misc]
        self.input_keys: Mapping[str, str] = {column: column for column in reads}  # type: ignore[misc]
        self.output_keys: Mapping[str, str] = {column: column for column in writes}  # type: ignore[misc]
        self._takes_ask = _required_arguments(function) > 1  # the record, and `ask`
        self.__doc__ = function.__doc__

    def __repr__(self) -> str:
        """Return the name and the columns, as the decorator was given them."""
        return (
            f"operator({self.name}, reads={list(self.input_keys)}, writes={list(self.output_keys)})"
        )

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds what the function returns. Raises OperatorFailed where that is no mapping, or a
        column of `writes` is missing.

        A function that isn't async is called in a thread, because it may take long.
        """
        arguments = (record, ask) if self._takes_ask else (record,)
        if inspect.iscoroutinefunction(self.function):
            update = await self.function(*arguments)
        else:
            update = await call_in_thread(self.function, *arguments)
            # an object whose `__call__` is async, or a function that calls an async one
            if inspect.isawaitable(update):
                update = await update
        if not isinstance(update, Mapping):
            raise OperatorFailed(
                f"{self.name} should return a dict of columns, not {type(update).__name__}"
            )
        for column in self.writes().values():
            is_given = column in update or column in record  # one of the record may stay as it is
            if not is_given:
                raise OperatorFailed(f"{self.name} returned no column {column!r}: `writes` has it")
        return dict(update)

    def settings(self) -> dict[str, object] | None:
        """Return what the function's updates depend on, to tell whether it has changed.

        That is a digest of its source, the values of the global names that it uses (but functions,
        classes and modules), and its defaults. None where nobody can tell: for what is no plain
        function, has no source, or takes variables from a function around it.
        """
        try:
            return function_settings(self.function)
        except CantTell:
            return None


def _required_arguments(function: UsersFunction) -> int:
    """Return how many positional arguments a call has to give."""
    count = 0
    for parameter in inspect.signature(function).parameters.values():
        is_positional = parameter.kind in (
            parameter.POSITIONAL_ONLY,
            parameter.POSITIONAL_OR_KEYWORD,
        )
        if is_positional and parameter.default is parameter.empty:
            count += 1
    return count


@overload
def operator(function: UsersFunction) -> FunctionOperator: ...


@overload
def operator(
    *, reads: Iterable[str] = (), writes: Iterable[str] = (), serving: Serving | None = None
) -> Callable[[UsersFunction], FunctionOperator]: ...


def operator(
    function: UsersFunction | None = None,
    *,
    reads: Iterable[str] = (),
    writes: Iterable[str] = (),
    serving: Serving | None = None,
) -> FunctionOperator | Callable[[UsersFunction], FunctionOperator]:
    """Decorator that makes a function from record to update a step of a pipeline.

    Args:
        function: Takes a record, or a record and `ask`, and returns a dict of columns; may be
            async. None where the decorator is called with names of columns alone.
        reads: The columns that it reads, so that the plan can be checked before anything is spent;
            may be left out.
        writes: The columns that it adds, all of them; if left out, it may add any.
        serving: Who answers what an async function asks with `await ask(request)`.

    Returns:
        A FunctionOperator, or a decorator that makes one.

    Example:
        >>> from dataflow_grounding import operator
        >>> @operator(reads=["expressions"], writes=["count"])
        ... def count(record):
        ...     return {"count": len(record["expressions"])}
        >>> count({"expressions": ["a dog", "a cat"]})["count"]
        2
    """
    if function is None:
        return lambda f: FunctionOperator(f, reads, writes, serving)
    return FunctionOperator(function, reads, writes, serving)
