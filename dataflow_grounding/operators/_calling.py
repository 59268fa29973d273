"""Calling an operator: what it is made and called with, as `help()` shows it; rows in, rows and
failures out.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast, get_args

from dataflow_grounding._util.errors import (
    GroundingError,
    InputError,
    PlanError,
    RecordError,
    SpecError,
)
from dataflow_grounding._util.terminal import say
from dataflow_grounding.data.dataframes import plain_row
from dataflow_grounding.engine.plan import NO_MODEL, for_want_of_a_model
from dataflow_grounding.images.display import ShownRecord, table

if TYPE_CHECKING:
    from pandas import DataFrame

    from dataflow_grounding.engine.plan import Annotator

OnError: TypeAlias = Literal["drop", "raise", "keep"]
Rows: TypeAlias = "Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]]"
F = TypeVar("F", bound=Callable[..., Any])
_Parameter = inspect.Parameter


class _WithColumns:
    """A method that takes any `**columns`; its signature lists those that its operator has."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, operator: Any, kind: type[Any]) -> Callable[..., Any]:
        @functools.wraps(self._method)
        def method(*arguments: Any, **columns: Any) -> Any:
            return self._method(
                *(arguments if operator is None else (operator, *arguments)), **columns
            )

        source = kind if operator is None else operator
        defaults = {**source.input_keys, **source.output_keys}
        *own, columns = (
            p.replace(annotation=p.empty)
            for p in inspect.signature(self._method).parameters.values()
        )
        named = [columns]
        if all(map(str.isidentifier, roles := roles_of(source))):
            named = [
                _Parameter(n, _Parameter.KEYWORD_ONLY, default=defaults[role])
                for n, role in roles.items()
            ]
        method.__signature__ = inspect.Signature([*own[operator is not None :], *named])  # type: ignore[attr-defined]
        return method


def with_columns(method: F) -> F:
    """Decorator: `method(self, …, **columns)` shows the columns of its operator in `help()` and in
    completion.
    """
    return cast(F, _WithColumns(method))


def roles_of(operator: Any) -> dict[str, str]:
    """Argument that names a column → its role."""
    given = (("input", operator.input_keys), ("output", operator.output_keys))
    return {
        f"{prefix}_key" if role == prefix else f"{prefix}_{role}_key": role
        for prefix, roles in given
        for role in roles
    }


def made_with(kind: type[Any], args: tuple[Any, ...], settings: dict[str, Any]) -> dict[str, Any]:
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
    # a user's own may take what it likes
    ours = getattr(kind.__init__, "__module__", "").startswith(f"{__package__}.")
    wrong = serving is not None or (known is not None and known.default is _Parameter.empty)
    if ours and wrong and not callable(getattr(serving, "answer", None)):
        kind_given = (
            repr(serving) if serving is None or isinstance(serving, str) else type(serving).__name__
        )
        wanted = "OpenAIServing(api_url, model_name) or EmbeddedServing()"
        raise SpecError(f"{kind.__name__} needs a serving, such as {wanted}, not {kind_given}")
    return dict(given)


class Annotated(list[ShownRecord]):
    """The records that an operator gives back, in order; `failures` has (place, error) of those
    that failed.
    """

    def __init__(
        self, records: Iterable[ShownRecord], failures: Sequence[tuple[int, RecordError]]
    ) -> None:
        super().__init__(records)
        self.failures = list(failures)

    def _repr_html_(self) -> str:
        done = table(
            ("record", "phrases", "boxes"),
            [(record.unique_id, *record.counts()) for record in self],
        )
        failed = [(place, error.kind, error) for place, error in self.failures]
        return done + (table(("failed row", "kind", "why"), failed) if failed else "")


def record_of(data: Any) -> Mapping[str, Any] | None:
    """A record, or a row of a DataFrame as one; None for anything else."""
    if (
        hasattr(data, "iloc")
        and not hasattr(data, "columns")
        and all(isinstance(name, str) for name in data.index)
    ):
        data = data.to_dict()
    return data if isinstance(data, Mapping) else None


def check_columns(
    operator: Any, rows: Sequence[Mapping[str, Any]], error: type[GroundingError]
) -> None:
    """Raises `error`, before anything is sent, for columns that `operator` needs and that none of
    the rows has.
    """
    there = list(dict.fromkeys(str(name) for row in rows for name in row))
    if not (lacking := operator.lacking(there)):
        return
    for role in (role for role in lacking if for_want_of_a_model(operator, role)):
        raise error(f"{operator.name} {NO_MODEL.format(operator.reads()[role])}")
    arguments, reads = (
        {role: argument for argument, role in roles_of(operator).items()},
        operator.reads(),
    )
    others = [name for name in there if name not in reads.values()]
    near = {arguments[role]: difflib.get_close_matches(reads[role], others, 1) for role in lacking}
    wanted = " and ".join(repr(reads[role]) for role in lacking)
    known = (
        f"only {', '.join(map(repr, there[:12]))}{', …' * (len(there) > 12)}" if there else "none"
    )
    yours = ", ".join(
        f"{argument}={repr(found[0]) if found else '…'}" for argument, found in near.items()
    )
    raise error(
        f"{type(operator).__name__} needs column {wanted}, and there is {known}: name yours with"
        f" {yours}"
    )


def annotated_rows(operator: "Annotator", data: Any, on_error: OnError) -> "Annotated | DataFrame":
    """A list's or a DataFrame's rows with the operator's columns. Raises the first failure if
    `on_error` is "raise".
    """
    from dataflow_grounding.engine.in_memory import annotate_all

    if on_error not in get_args(OnError):
        raise PlanError(f"on_error should be 'drop', 'raise' or 'keep', not {on_error!r}")
    frame: DataFrame | None = data if hasattr(data, "iloc") and hasattr(data, "columns") else None
    rows = _rows_of_list(
        operator, data if frame is None else frame.rename(columns=str).to_dict("records")
    )
    if rows:
        check_columns(operator, rows, InputError)
    results = annotate_all(operator, rows, until_failure=on_error == "raise")
    failures = [(place, error) for place, (_, error) in results.items() if error is not None]
    if failures:
        _tell(failures, len(rows), on_error)
    nulls = dict.fromkeys(operator.writes().values())
    kept = {
        place: record if error is None else record.updated(nulls)
        for place, (record, error) in results.items()
        if error is None or on_error == "keep"
    }
    return (
        Annotated(kept.values(), failures)
        if frame is None
        else _frame(operator, frame, rows, kept, failures)
    )


def _tell(failures: Sequence[tuple[int, RecordError]], count: int, on_error: OnError) -> None:
    place, error = failures[0]
    if on_error == "raise":
        error.args = (f"row {place}: {error}",)
        raise error
    if on_error == "drop":
        said = (
            f"Warning: {len(failures)} of {count} rows failed and are left out. Row {place}:"
            f" {error}"
        )
        say(f"{said} (on_error='keep' keeps them; .failures or .attrs['failures'] has all)")


def _rows_of_list(operator: "Annotator", data: Any) -> list[Mapping[str, Any]]:
    wanted = f"{type(operator).__name__} takes a record (a dict), a list of records or a DataFrame"
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise InputError(f"{wanted}, not {'None' if data is None else type(data).__name__}")
    rows = [record_of(row) or row for row in data]
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"{wanted}: row {place} is {type(row).__name__}")
    return rows


def _frame(
    operator: "Annotator",
    frame: "DataFrame",
    rows: Sequence[Mapping[str, Any]],
    kept: Mapping[int, ShownRecord],
    failures: Sequence[tuple[int, RecordError]],
) -> "DataFrame":
    """The rows of `frame` that are kept, with its index; only columns that the operator set are
    new.
    """
    done: DataFrame = frame.iloc[list(kept)].copy()
    missing = object()
    changed = (
        n
        for at, record in kept.items()
        for n in record
        if record[n] is not rows[at].get(n, missing)
    )
    for name in dict.fromkeys([*operator.writes().values(), *changed]):
        done[name] = _column([record.get(name) for record in kept.values()])
    failed = [
        plain_row({"place": at, "index": frame.index[at], "kind": e.kind, "error": str(e)})
        for at, e in failures
    ]
    done.attrs = {**frame.attrs, "failures": failed}
    return done


def _column(values: list[Any]) -> Any:
    """The values as pandas keeps them, as they are where it would change them: 2**53 + 1 beside
    null would be 2**53.
    """
    import pandas

    column = pandas.Series(values, dtype=object)
    return (column.infer_objects() if len(set(map(type, values))) == 1 else column).array
