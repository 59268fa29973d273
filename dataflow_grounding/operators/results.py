"""Lists and DataFrames through an operator, and what becomes of rows that fail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from dataflow_grounding.dataframes import plain_row
from dataflow_grounding.display import ShownRecord, table
from dataflow_grounding.errors import InputError, PlanError, RecordError
from dataflow_grounding.memory_pictures import is_picture
from dataflow_grounding.terminal import say

if TYPE_CHECKING:
    from pandas import DataFrame

    from dataflow_grounding.operators.base import Operator

OnError: TypeAlias = Literal["drop", "raise", "keep"]


class Annotated(list[ShownRecord]):
    """The records that an operator gives back, in order; `failures` has (place, error) of those that failed."""

    def __init__(self, records: Iterable[ShownRecord], failures: Sequence[tuple[int, RecordError]]) -> None:
        super().__init__(records)
        self.failures = list(failures)

    def _repr_html_(self) -> str:
        done = table(("record", "phrases", "boxes"), [(record.unique_id, *record.counts()) for record in self])
        failed = [(place, error.kind, error) for place, error in self.failures]
        return done + (table(("failed row", "kind", "why"), failed) if failed else "")


def annotated_rows(operator: Operator, data: Any, on_error: OnError) -> Annotated | DataFrame:
    """A list's or a DataFrame's rows with the operator's columns. Raises the first failure if `on_error` is "raise"."""
    from dataflow_grounding.engine.in_memory import annotate_all

    if on_error not in get_args(OnError):
        raise PlanError(f"on_error should be 'drop', 'raise' or 'keep', not {on_error!r}")
    frame: DataFrame | None = data if hasattr(data, "iloc") and hasattr(data, "columns") else None
    rows = _rows_of_list(operator, data) if frame is None else _rows_of_frame(operator, frame)
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
    return Annotated(kept.values(), failures) if frame is None else _frame(operator, frame, rows, kept, failures)


def _tell(failures: Sequence[tuple[int, RecordError]], count: int, on_error: OnError) -> None:
    place, error = failures[0]
    if on_error == "raise":
        error.args = (f"row {place}: {error}",)
        raise error
    if on_error == "drop":
        said = f"Warning: {len(failures)} of {count} rows failed and are left out. Row {place}: {error}"
        say(f"{said} (on_error='keep' keeps them; .failures or .attrs['failures'] has all)")


def _rows_of_list(operator: Operator, data: Any) -> list[Mapping[str, Any]]:
    wanted = f"{type(operator).__name__} takes a record (a dict), a list of records or a DataFrame"
    if isinstance(data, (str, bytes)) or not isinstance(data, Iterable):
        raise InputError(f"{wanted}, not {'None' if data is None else type(data).__name__}")
    rows = list(data)
    for place, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"{wanted}: row {place} is {type(row).__name__}")
    return rows


def _rows_of_frame(operator: Operator, frame: DataFrame) -> list[Mapping[str, Any]]:
    """The rows as JSON has them, but for pictures in memory."""
    image_key = operator.reads().get("image", "image_path")
    rows: list[Mapping[str, Any]] = []
    for given in frame.to_dict("records"):
        picture = {image_key: given.pop(image_key)} if is_picture(given.get(image_key)) else {}
        rows.append({**plain_row(given), **picture})
    return rows


def _frame(
    operator: Operator,
    frame: DataFrame,
    rows: Sequence[Mapping[str, Any]],
    kept: Mapping[int, ShownRecord],
    failures: Sequence[tuple[int, RecordError]],
) -> DataFrame:
    """The rows of `frame` that are kept, with its index; only columns that the operator set are new."""
    done: DataFrame = frame.iloc[list(kept)].copy()
    missing = object()
    touched = [
        name for at, record in kept.items() for name in record if record[name] is not rows[at].get(name, missing)
    ]
    for name in dict.fromkeys([*operator.writes().values(), *touched]):
        done[name] = _column([record.get(name) for record in kept.values()])
    failed = [plain_row({"place": at, "index": frame.index[at], "kind": e.kind, "error": str(e)}) for at, e in failures]
    done.attrs = {**frame.attrs, "failures": failed}
    return done


def _column(values: list[Any]) -> Any:
    """The values as pandas keeps them, as they are where it would change them: 2**53 + 1 beside null would be 2**53."""
    import pandas

    column = pandas.Series(values, dtype=object)
    return (column.infer_objects() if len(set(map(type, values))) == 1 else column).array
