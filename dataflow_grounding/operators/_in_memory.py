"""An operator called on records: rows in, rows out, without files.

Only a call needs this, so that a run of a spec doesn't import how records show themselves.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from dataflow_grounding._util.errors import (
    BrokenRow,
    GroundingError,
    InputError,
    PlanError,
    RecordError,
)
from dataflow_grounding._util.terminal import counted, say
from dataflow_grounding._util.users_code import UsersValue
from dataflow_grounding.data.dataframes import plain_row
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.engine.in_memory import annotate_all
from dataflow_grounding.engine.plan import NO_MODEL, needed_without_model
from dataflow_grounding.images.display import ShownRecord, table
from dataflow_grounding.operators._calling import OnError, roles_by_role_argument

if TYPE_CHECKING:
    from pandas import DataFrame

    from dataflow_grounding.engine.plan import Annotator
    from dataflow_grounding.operators.operator_base import Operator

_NO_PHRASES = (
    ', or set {!r} to a list of what to look for, ["a red cup"]; ExpressionExtractor and'
    " CaptionGrounder find it in captions"
)
MOST_COLUMNS = 12  # that a message names of those that are there


class Annotated(list[ShownRecord]):
    """The records that an operator gives back, in order."""

    def __init__(
        self, records: Iterable[ShownRecord], failures: Sequence[tuple[int, RecordError]]
    ) -> None:
        super().__init__(records)
        # (place, error) of each row that failed, in this operator or one before it. A place is the
        # row's index in the list that the first operator was given.
        self.failures = list(failures)

    def _repr_html_(self) -> str:
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


def record_of(data: UsersValue) -> JsonObject | None:
    """Return a record as it is, and a row of a DataFrame as a dict; None for anything else."""
    if isinstance(data, Mapping):
        return data
    is_series = hasattr(data, "iloc") and not hasattr(data, "columns")  # pandas isn't imported
    # A row's index has the names of columns, a column's mostly numbers.
    is_row = is_series and all(isinstance(name, str) for name in data.index)
    return data.to_dict() if is_row else None


def check_columns(
    operator: "Operator", rows: Sequence[JsonObject], error: type[GroundingError]
) -> None:
    """Raise an `error`, with columns that may be meant, where no row has what is needed."""
    columns = list(dict.fromkeys(str(name) for row in rows for name in row))  # each once
    lacking_roles = operator.lacking(columns)
    if not lacking_roles:
        return
    column_of_role = operator.reads()
    for role in lacking_roles:
        if needed_without_model(operator, role):
            # the error says that a model, which sees the picture, doesn't need this column
            raise error(f"{operator.name} {NO_MODEL.format(column_of_role[role])}")
    unused = [name for name in columns if name not in column_of_role.values()]
    meant_by_role: dict[str, str | None] = {}  # None where no column is like the one needed
    for role in lacking_roles:
        meant_by_role[role] = _column_meant(rows, unused, column_of_role[role], role)
    more = ", …" if len(columns) > MOST_COLUMNS else ""
    there = "none"
    if columns:
        there = f"only {', '.join(repr(name) for name in columns[:MOST_COLUMNS])}{more}"
    needed = " and ".join(repr(column_of_role[role]) for role in lacking_roles)
    raise error(
        f"{type(operator).__name__} needs column {needed}, and there is {there}:"
        f" {_advice(operator, meant_by_role)}"
    )


def _advice(operator: "Operator", meant_by_role: Mapping[str, str | None]) -> str:
    """Return "name yours with input_expressions_key='phrases'", or with … if no column is meant."""
    argument_of_role = {}
    for argument, role in roles_by_role_argument(operator).items():
        argument_of_role[role] = argument
    arguments = []
    for role, column in meant_by_role.items():
        shown_column = "…" if column is None else repr(column)
        arguments.append(f"{argument_of_role[role]}={shown_column}")
    advice = f"name yours with {', '.join(arguments)}"
    has_no_phrases = "expressions" in meant_by_role and meant_by_role["expressions"] is None
    if has_no_phrases:
        advice += _NO_PHRASES.format(operator.reads()["expressions"])
    return advice


def _column_meant(
    rows: Sequence[JsonObject], unused: Sequence[str], column: str, role: str
) -> str | None:
    """Return the column that the user may mean: of a similar name, or with lists of texts."""
    candidates = difflib.get_close_matches(column, unused, 1)
    if not candidates and role == "expressions":
        candidates = [name for name in unused if _lists_texts(rows, name)]
    return candidates[0] if candidates else None


def _lists_texts(rows: Sequence[JsonObject], name: str) -> bool:
    """Return whether each value of a column, but missing and empty ones, is a list of texts."""
    values = [row[name] for row in rows if row.get(name)]
    for value in values:
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            return False
    return bool(values)


def annotated_record(operator: "Operator", given: JsonObject) -> ShownRecord:
    check_columns(operator, [given], BrokenRow)
    (row,) = annotate_all(operator, [given])
    if row.error is not None:
        raise row.error
    return row.shown()


def annotated_rows(
    operator: "Operator", data: UsersValue, on_error: OnError
) -> "Annotated | DataFrame":
    """Run an operator on a list or a DataFrame, and return its rows with the operator's columns."""
    if on_error not in get_args(OnError):
        raise PlanError(f"on_error should be 'drop', 'raise' or 'keep', not {on_error!r}")
    is_frame = hasattr(data, "iloc") and hasattr(data, "columns")  # pandas isn't imported
    given: list[JsonObject]
    if is_frame:
        given = data.rename(columns=str).to_dict("records")
    else:
        given = _rows_of_list(operator, data)
    if given:
        check_columns(operator, given, InputError)
    rows = annotate_all(operator, given, until_failure=on_error == "raise")
    places = _places_in_first_list(data, len(rows))
    failures = [
        (place, row.error) for place, row in zip(places, rows, strict=True) if row.error is not None
    ]
    if failures:
        _raise_or_warn(failures, len(rows), on_error)
    null_by_column = dict.fromkeys(operator.writes().values())  # column → None
    record_by_number: dict[int, ShownRecord] = {}
    for number, row in enumerate(rows):
        if row.error is None:
            record_by_number[number] = row.shown()
        elif on_error == "keep":
            record_by_number[number] = row.shown().updated(null_by_column)
    if is_frame:
        return _annotated_frame(operator, data, given, record_by_number, failures)
    earlier_failures = data.failures if isinstance(data, Annotated) else []
    return Annotated(record_by_number.values(), [*earlier_failures, *failures])


def _places_in_first_list(data: UsersValue, count: int) -> Sequence[int]:
    """Return each row's index in the list that the first of several operators was given."""
    # The operators before this one may have left rows out; the rows know their places. A row that a
    # caller has added since knows none, and its index in this list counts.
    if isinstance(data, Annotated):
        return [getattr(row, "place", number) for number, row in enumerate(data)]
    return range(count)


def _raise_or_warn(
    failures: Sequence[tuple[int, RecordError]], count: int, on_error: OnError
) -> None:
    if on_error == "keep":  # the rows that failed are returned with the others
        return
    place, error = failures[0]  # the row's place in the first operator's list
    if on_error == "raise":
        # the error itself is raised, so that its class and what it carries stay
        error.args = (f"row {place}: {error}",)
        raise error
    have_all_failed = len(failures) == count
    if have_all_failed:
        advice = "on_error='keep' keeps them" if count > 1 else "on_error='keep' keeps it"
        error.args = (f"all {counted(count, 'row')} failed. Row {place}: {error} ({advice})",)
        raise error
    say(
        f"Warning: {len(failures)} of {count} rows failed and are left out. Row {place}:"
        f" {error} (on_error='keep' keeps them; .failures or .attrs['failures'] has all)"
    )


def _rows_of_list(operator: "Operator", data: UsersValue) -> list[JsonObject]:
    wanted = f"{type(operator).__name__} takes a record (a dict), a list of records or a DataFrame"
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise InputError(f"{wanted}, not {'None' if data is None else type(data).__name__}")
    rows = []
    for number, item in enumerate(data):
        row = record_of(item)
        if row is None:
            raise InputError(f"{wanted}: row {number} is {type(item).__name__}")
        rows.append(row)
    return rows


def _annotated_frame(
    operator: "Annotator",
    frame: "DataFrame",
    rows: Sequence[JsonObject],
    record_by_number: Mapping[int, ShownRecord],
    failures: Sequence[tuple[int, RecordError]],
) -> "DataFrame":
    """Return the frame's rows of these numbers, with the columns that the operator has set."""
    # Other columns stay as pandas has them: converted to Python and back, they could change types.
    result: DataFrame = frame.iloc[list(record_by_number)].copy()
    for name in _columns_set(operator, rows, record_by_number):
        result[name] = _column([record.get(name) for record in record_by_number.values()])
    # Rows that failed in an operator before this one come first: pandas hands `attrs` on.
    failed_rows: list[dict[str, object]] = list(frame.attrs.get("failures", ()))
    for number, error in failures:
        index = frame.index[number]
        failed_row = {"place": number, "index": index, "kind": error.kind, "error": str(error)}
        failed_rows.append(plain_row(failed_row))
    result.attrs = {**frame.attrs, "failures": failed_rows}
    return result


def _columns_set(
    operator: "Annotator",
    rows: Sequence[JsonObject],
    record_by_number: Mapping[int, ShownRecord],
) -> Iterable[str]:
    """Return the columns that the operator writes, then others that it has set in any record."""
    columns = dict.fromkeys(operator.writes().values())  # a set that keeps its order
    no_value = object()  # for a column that the row doesn't have: it equals no record's value
    for number, record in record_by_number.items():
        row = rows[number]
        for name, value in record.items():
            if value is not row.get(name, no_value):  # no more the very object that the row had
                columns[name] = None
    return columns


def _column(values: list[UsersValue]) -> UsersValue:
    import pandas

    # Values of several types stay objects: as numbers, 2**53 + 1 next to null would become the
    # float 2**53.
    column = pandas.Series(values, dtype=object)
    types = {type(value) for value in values}
    if len(types) == 1:
        column = column.infer_objects()
    return column.array
