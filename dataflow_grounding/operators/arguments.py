"""What an operator is made with and called with, as `help()`, completion and `repr()` show it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from dataflow_grounding.errors import SpecError
from dataflow_grounding.secrets import blotted_message, masked

if TYPE_CHECKING:
    from dataflow_grounding.operators.base import Operator

F = TypeVar("F", bound=Callable[..., Any])
_Parameter = inspect.Parameter


class _WithColumns(Generic[F]):
    """A method that takes any `**columns`; its signature lists those that its operator has."""

    def __init__(self, method: F) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, operator: Operator | None, kind: type[Operator]) -> Callable[..., Any]:
        @functools.wraps(self._method)
        def method(*arguments: Any, **columns: Any) -> Any:
            return self._method(*(arguments if operator is None else (operator, *arguments)), **columns)

        source = kind if operator is None else operator
        defaults = {**source.input_keys, **source.output_keys}
        *own, columns = (p.replace(annotation=p.empty) for p in inspect.signature(self._method).parameters.values())
        named = [columns]
        if all(map(str.isidentifier, roles := roles_of(source))):
            named = [_Parameter(n, _Parameter.KEYWORD_ONLY, default=defaults[role]) for n, role in roles.items()]
        method.__signature__ = inspect.Signature([*own[operator is not None :], *named])  # type: ignore[attr-defined]
        return method


def with_columns(method: F) -> F:
    """Decorator: `method(self, …, **columns)` shows the columns of its operator in `help()` and in completion."""
    return cast(F, _WithColumns(method))


def roles_of(operator: Operator | type[Operator]) -> dict[str, str]:
    """Argument that names a column → its role."""
    given = (("input", operator.input_keys), ("output", operator.output_keys))
    return {
        f"{prefix}_key" if role == prefix else f"{prefix}_{role}_key": role for prefix, roles in given for role in roles
    }


def made_with(kind: type[Operator], args: tuple[Any, ...], settings: dict[str, Any]) -> dict[str, Any]:
    """What an operator is made with, by name. Raises SpecError for a `serving` that is not one."""
    if kind.__init__ is object.__init__ and (args or settings):
        raise TypeError(f"{kind.__name__}() takes no arguments")
    signature = inspect.signature(kind.__init__)
    try:
        given = signature.bind(None, *args, **settings).arguments
    except TypeError:  # its __init__ tells it better
        return {}
    for name, parameter in signature.parameters.items():
        if parameter.kind is _Parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    given.pop(next(iter(given)))  # self
    serving, known = given.get("serving"), signature.parameters.get("serving")
    ours = getattr(kind.__init__, "__module__", "").startswith(f"{__package__}.")  # a user's own may take what it likes
    wrong = serving is not None or (known is not None and known.default is _Parameter.empty)
    if ours and wrong and not callable(getattr(serving, "answer", None)):
        kind_given = repr(serving) if serving is None or isinstance(serving, str) else type(serving).__name__
        wanted = "OpenAIServing(api_url, model_name) or EmbeddedServing()"
        raise SpecError(f"{kind.__name__} needs a serving, such as {wanted}, not {kind_given}")
    return dict(given)


def as_made(operator: Operator, given: Mapping[str, Any]) -> str:
    """The operator as it is made, without what is as it is by default, and without secrets."""
    known = inspect.signature(type(operator).__init__).parameters
    given = masked(given, ours=False)
    told = [f"{name}={v!r}" for name, v in given.items() if name not in known or repr(v) != repr(known[name].default)]
    return blotted_message(f"{type(operator).__name__}({', '.join(told)})")
