"""Calling an operator: its columns and arguments, as `help()` shows them; rows in, rows out."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, cast, get_args

from dataflow_grounding._util.errors import (
    GroundingError,
    InputError,
    PlanError,
    RecordError,
    SpecError,
)
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding.data.dataframes import plain_row
from dataflow_grounding.engine.plan import NO_MODEL, for_want_of_a_model
from dataflow_grounding.images.display import ShownRecord, table

if TYPE_CHECKING:
    from pandas import DataFrame

    from dataflow_grounding.engine.plan import Annotator

OnError: TypeAlias = Literal["drop", "raise", "keep"]
Rows: TypeAlias = "Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]]"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Columns:
    """The columns of an operator: `columns.caption` is the column of the role `caption`.

    Args:
        by_role: Role → column.
    """

    by_role: Mapping[str, str]

    def __getattr__(self, role: str) -> str:
        # pickling and copying look for methods before there are any columns
        by_role: Mapping[str, str] = self.__dict__.get("by_role", {})
        if role not in by_role:
            raise AttributeError(f"no role {role!r}: there are {', '.join(by_role) or 'none'}")
        return by_role[role]


class _WithColumns:
    """A method that takes any `**columns`, but whose signature lists those that there are.

    It is a descriptor, because some operators have columns of the object, and not of the class.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, operator: Any, owner: type[Any]) -> Callable[..., Any]:
        method = self._method
        bound_to = () if operator is None else (operator,)

        @functools.wraps(method)
        def call(*arguments: Any, **columns: Any) -> Any:
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

    Returns None where a role can't be a part of a parameter's name.
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
    """Return the roles of an operator's columns by the argument that names the column."""
    roles: dict[str, str] = {}
    for prefix, columns in (("input", operator.input_keys), ("output", operator.output_keys)):
        for role in columns:
            argument = f"{prefix}_key" if role == prefix else f"{prefix}_{role}_key"
            roles[argument] = role
    return roles


def arguments_by_name(
    cls: type[Any], args: tuple[Any, ...], settings: dict[str, Any]
) -> dict[str, Any]:
    """Return the arguments of a call of an operator's class by their names.

    Args:
        cls: The class.
        args: The arguments without names.
        settings: Those with names.

    Raises:
        TypeError: The class takes no arguments.
        SpecError: `serving` is no serving.
    """
    if cls.__init__ is object.__init__ and (args or settings):
        raise TypeError(f"{cls.__name__}() takes no arguments")
    signature = inspect.signature(cls.__init__)
    try:
        arguments = dict(signature.bind(None, *args, **settings).arguments)
    except TypeError:  # its __init__ tells it better
        return {}
    del arguments[next(iter(arguments))]  # self
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments.update(arguments.pop(name, {}))
    # a user's own may take what it likes
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


class Annotated(list[ShownRecord]):
    """The records that an operator gives back, in order.

    Attributes:
        failures: (place, error) of each record that failed.
    """

    def __init__(
        self, records: Iterable[ShownRecord], failures: Sequence[tuple[int, RecordError]]
    ) -> None:
        super().__init__(records)
        self.failures = list(failures)

    def _repr_html_(self) -> str:
        """Return tables of the records and of the failures, for notebooks."""
        html = table(
            ("record", "phrases", "boxes"),
            [(record.unique_id, *record.counts()) for record in self],
        )
        if self.failures:
            html += table(
                ("failed row", "kind", "why"),
                [(place, error.kind, error) for place, error in self.failures],
            )
        return html


def record_of(data: Any) -> Mapping[str, Any] | None:
    """Return a record, or a row of a DataFrame as a record; None for anything else."""
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
    """Check, before anything is sent, that the rows have the columns that an operator needs.

    Args:
        operator: The operator.
        rows: The rows; a column is there if any of them has it.
        error: The class of what is raised where a column is missing.
    """
    names: dict[str, None] = {}  # a set that keeps its order
    for row in rows:
        names.update(dict.fromkeys(map(str, row)))
    columns = list(names)
    lacking = operator.lacking(columns)
    if not lacking:
        return
    reads = operator.reads()
    for role in lacking:
        if for_want_of_a_model(operator, role):
            raise error(f"{operator.name} {NO_MODEL.format(reads[role])}")
    argument_of = {role: argument for argument, role in roles_of(operator).items()}
    unused = [name for name in columns if name not in reads.values()]
    hints: list[str] = []
    for role in lacking:
        similar = difflib.get_close_matches(reads[role], unused, 1)
        hints.append(f"{argument_of[role]}={repr(similar[0]) if similar else '…'}")
    wanted = " and ".join(repr(reads[role]) for role in lacking)
    known = "none"
    if columns:
        known = f"only {', '.join(repr(name) for name in columns[:12])}"
        if len(columns) > 12:
            known += ", …"
    raise error(
        f"{type(operator).__name__} needs column {wanted}, and there is {known}: name yours with"
        f" {', '.join(hints)}"
    )


def annotated_rows(operator: "Annotator", data: Any, on_error: OnError) -> "Annotated | DataFrame":
    """Run an operator on a list or a DataFrame, and return its rows with the operator's columns.

    Args:
        operator: The operator.
        data: The records.
        on_error: What becomes of rows that fail; "raise" raises the first failure.
    """
    from dataflow_grounding.engine.in_memory import annotate_all

    if on_error not in get_args(OnError):
        raise PlanError(f"on_error should be 'drop', 'raise' or 'keep', not {on_error!r}")
    frame: DataFrame | None = None
    if hasattr(data, "iloc") and hasattr(data, "columns"):
        frame = data
        data = frame.rename(columns=str).to_dict("records")
    rows = _rows_of_list(operator, data)
    if rows:
        check_columns(operator, rows, InputError)
    results = annotate_all(operator, rows, until_failure=on_error == "raise")
    nulls = dict.fromkeys(operator.writes().values())
    failures: list[tuple[int, RecordError]] = []
    kept: dict[int, ShownRecord] = {}
    for number, (record, error) in results.items():
        if error is None:
            kept[number] = record
            continue
        failures.append((number, error))
        if on_error == "keep":
            kept[number] = record.updated(nulls)
    if failures:
        _report_failures(failures, len(rows), on_error)
    if frame is None:
        return Annotated(kept.values(), failures)
    return _annotated_frame(operator, frame, rows, kept, failures)


def _report_failures(
    failures: Sequence[tuple[int, RecordError]], count: int, on_error: OnError
) -> None:
    """Raise the first failure, or say that rows are left out, or do neither.

    Args:
        failures: (place, error) of each row that failed.
        count: How many rows there are.
        on_error: "raise" raises the first failure, and so does "drop" where no row is left.
    """
    number, error = failures[0]
    if on_error == "raise":
        error.args = (f"row {number}: {error}",)
        raise error
    if on_error == "drop" and len(failures) == count:
        left = "on_error='keep' keeps them" if count > 1 else "on_error='keep' keeps it"
        error.args = (f"all {counted(count, 'row')} failed. Row {number}: {error} ({left})",)
        raise error
    if on_error == "drop":
        say(
            f"Warning: {len(failures)} of {count} rows failed and are left out. Row {number}:"
            f" {error} (on_error='keep' keeps them; .failures or .attrs['failures'] has all)"
        )


def _rows_of_list(operator: "Annotator", data: Any) -> list[Mapping[str, Any]]:
    """Return a list's records. Raises InputError for what is no list of records."""
    wanted = f"{type(operator).__name__} takes a record (a dict), a list of records or a DataFrame"
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise InputError(f"{wanted}, not {'None' if data is None else type(data).__name__}")
    rows = [record_of(row) or row for row in data]
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"{wanted}: row {number} is {type(row).__name__}")
    return rows


def _annotated_frame(
    operator: "Annotator",
    frame: "DataFrame",
    rows: Sequence[Mapping[str, Any]],
    kept: Mapping[int, ShownRecord],
    failures: Sequence[tuple[int, RecordError]],
) -> "DataFrame":
    """Return a copy of a DataFrame's rows with the columns that an operator set in their records.

    Args:
        operator: The operator.
        frame: The DataFrame. Its index, and columns that weren't set, stay as they are.
        rows: The frame's rows as they were before.
        kept: Place of a row → its record, for those that go into the copy.
        failures: (place, error) of each row that failed, for `.attrs`.
    """
    result: DataFrame = frame.iloc[list(kept)].copy()
    names = dict.fromkeys(operator.writes().values())  # a set that keeps its order
    missing = object()
    for number, record in kept.items():
        for name, value in record.items():
            if value is not rows[number].get(name, missing):
                names[name] = None
    for name in names:
        result[name] = _column([record.get(name) for record in kept.values()])
    failed_rows: list[dict[str, Any]] = []
    for number, error in failures:
        index = frame.index[number]
        failed_row = {"place": number, "index": index, "kind": error.kind, "error": str(error)}
        failed_rows.append(plain_row(failed_row))
    result.attrs = {**frame.attrs, "failures": failed_rows}
    return result


def _column(values: list[Any]) -> Any:
    """Return values as a column for pandas, in a type of its own if that doesn't change them.

    Values of several types stay objects: 2**53 + 1 beside null would become the float 2**53.
    """
    import pandas

    column = pandas.Series(values, dtype=object)
    types = {type(value) for value in values}
    if len(types) == 1:
        column = column.infer_objects()
    return column.array
