"""Calling an operator: its columns and arguments, as `help()` shows them."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar, cast

from dataflow_grounding._util.errors import SpecError

OnError: TypeAlias = Literal["drop", "raise", "keep"]
"""What becomes of records in memory that fail, as `Operator.__call__` says."""
Rows: TypeAlias = "Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]]"
"""Several records in memory that an operator is called on."""
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Columns:
    """The columns of an operator: `columns.caption` is the column of the role `caption`.

    Args:
        by_role: Role → column.
    """

    by_role: Mapping[str, str]

    def __getattr__(self, role: str) -> str:
        """Return the column of a role. Raises AttributeError for a role that isn't there."""
        # pickling and copying look for methods before there are any columns
        by_role: Mapping[str, str] = self.__dict__.get("by_role", {})
        if role not in by_role:
            raise AttributeError(f"no role {role!r}: there are {', '.join(by_role) or 'none'}")
        return by_role[role]


class _WithColumns:
    """A method that takes any `**columns`, but whose signature lists those that there are.

    It is a descriptor, which learns with each access whose columns to list: some operators have
    columns of the object's own, other than the class's.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, operator: Any, owner: type[Any]) -> Callable[..., Any]:
        """Return the method, bound to an operator, with the signature that lists its columns.

        Args:
            operator: The operator; None where the method is taken from its class, which leaves it
                unbound.
            owner: The class.
        """
        method = self._method
        bound_to = () if operator is None else (operator,)

        @functools.wraps(method)
        def call(*arguments: Any, **columns: Any) -> Any:
            """Call the method, on the operator if there is one."""
            return method(*bound_to, *arguments, **columns)

        parameters = [
            parameter.replace(annotation=parameter.empty)
            for parameter in inspect.signature(method).parameters.values()
        ]
        # a bound method shows no `self`
        other_parameters = parameters[len(bound_to) : -1]
        column_parameters = _column_parameters(owner if operator is None else operator)
        if column_parameters is None:
            column_parameters = parameters[-1:]  # `**columns`, as the method has it
        signature = inspect.Signature([*other_parameters, *column_parameters])
        call.__signature__ = signature  # type: ignore[attr-defined]
        return call


def _column_parameters(operator: Any) -> list[inspect.Parameter] | None:
    """Return the parameters that name an operator's columns, each with the column as its default.

    A role that is both an input and an output has the output's column. None where a role can't be a
    part of a parameter's name, such as one with a space.
    """
    defaults = {**operator.input_keys, **operator.output_keys}
    parameters: list[inspect.Parameter] = []
    for argument, role in roles_of(operator).items():
        if not argument.isidentifier():
            return None
        parameters.append(
            inspect.Parameter(argument, inspect.Parameter.KEYWORD_ONLY, default=defaults[role])
        )
    return parameters


def with_columns(method: F) -> F:
    """Decorator: `method(self, …, **columns)` shows its operator's columns in `help()`."""
    return cast(F, _WithColumns(method))


def roles_of(operator: Any) -> dict[str, str]:
    """Return the roles of an operator's columns by the argument that names the column.

    For the input role `caption` that is `input_caption_key`, for an input role `input` (or an
    output role `output`) it is `input_key` (`output_key`).
    """
    roles: dict[str, str] = {}
    for prefix, columns in (("input", operator.input_keys), ("output", operator.output_keys)):
        for role in columns:
            argument = f"{prefix}_key" if role == prefix else f"{prefix}_{role}_key"
            roles[argument] = role
    return roles


def arguments_by_name(
    cls: type[Any], args: tuple[Any, ...], settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call of an operator's class by their names, without defaults.

    Args:
        cls: The class.
        args: The arguments without names.
        settings: Those with names.

    Returns:
        The arguments; nothing for arguments that its `__init__` doesn't take, which raises later.

    Raises:
        TypeError: The class has no `__init__`, and there are arguments.
        SpecError: `serving` of one of the package's own classes is no serving.
    """
    if cls.__init__ is object.__init__ and (args or settings):
        raise TypeError(f"{cls.__name__}() takes no arguments")
    signature = inspect.signature(cls.__init__)
    try:
        arguments = dict(signature.bind(None, *args, **settings).arguments)
    except TypeError:  # called next, the class's `__init__` raises a better one
        return {}
    del arguments[next(iter(arguments))]  # self
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name, {}))
    # a user's own operator may take what it likes for a serving
    if getattr(cls.__init__, "__module__", "").startswith(f"{__package__}."):
        parameter_of_serving = signature.parameters.get("serving")
        optional = (
            parameter_of_serving is None
            or parameter_of_serving.default is not inspect.Parameter.empty
        )
        _check_serving(cls.__name__, arguments.get("serving"), optional)
    return arguments


def _check_serving(class_name: str, serving: Any, optional: bool) -> None:
    """Raise SpecError for a `serving` that can't answer; None will do where it is optional."""
    if serving is None and optional:
        return
    if callable(getattr(serving, "answer", None)):
        return
    shown = type(serving).__name__
    if serving is None or isinstance(serving, str):
        shown = repr(serving)
    wanted = "OpenAIServing(api_url, model_name) or EmbeddedServing()"
    raise SpecError(f"{class_name} needs a serving, such as {wanted}, not {shown}")
