"""Rows of an input as the record has them: columns renamed, pictures that are no files made files.

Which column is which is told by the names that people use and by what the values look like.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from dataflow_grounding.dataframes import plain_row
from dataflow_grounding.errors import BrokenRow
from dataflow_grounding.formats.pictures import is_address, put_picture
from dataflow_grounding.formats.reading import ENDINGS
from dataflow_grounding.records import is_box
from dataflow_grounding.rows import Row
from dataflow_grounding.tables import load_table

AT_ONCE = 256  # rows whose addresses are fetched together

Fetch = Callable[[Iterable[str]], Mapping[str, "str | BrokenRow"]]
"""Of addresses: the paths of their pictures, relative to `results_dir`, or what went wrong."""


def renamed(row: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, Any]:
    """The row with the columns of `sources` (name wanted → name that it has) renamed.

    A column that stands in the way of a new name keeps its values, as `original_` and its name.

    Example:
        >>> renamed({"file_name": "a.jpg", "text": "A cat.", "id": 7}, {"image_path": "file_name", "caption": "text"})
        {'image_path': 'a.jpg', 'caption': 'A cat.', 'id': 7}
        >>> renamed({"caption": "cat", "recaption": "A black cat."}, {"caption": "recaption"})
        {'original_caption': 'cat', 'caption': 'A black cat.'}
    """
    found: dict[str, Any] = {}
    for column, value in row.items():
        own = f"original_{column}" if sources.get(column) in row else column
        found |= dict.fromkeys([name for name, source in sources.items() if source == column] or [own], value)
    return found


def record_rows(
    rows: Iterator[Row], sources: Mapping[str, str], image: str, results_dir: str, fetch: Fetch | None
) -> Iterator[Row]:
    """The rows as the record has them, a few at a time; those that can't be had come with their error.

    Args:
        rows: As an input gives them.
        sources: Column of the record → column of the rows, where that is another.
        image: The record's column of the picture.
        results_dir: Where pictures are put.
        fetch: Gets pictures from addresses; None where that is not allowed.
    """
    while some := list(islice(rows, AT_ONCE if fetch else 1)):
        mapped = [row if row.data is None else row._replace(data=renamed(row.data, sources)) for row in some]
        addresses = (row.data[image] for row in mapped if row.data and is_address(row.data.get(image)))
        fetched = fetch(dict.fromkeys(addresses)) if fetch else {}
        yield from (_with_file(row, image, results_dir, fetched) for row in mapped)


def _with_file(row: Row, image: str, results_dir: str, fetched: Mapping[str, str | BrokenRow]) -> Row:
    if row.data is None:
        return row
    given = row.data.get(image)
    added: dict[str, Any] = {}
    if isinstance(given, str) and given in fetched:
        added = {"image_url": given}
        given = fetched[given]
        if isinstance(given, BrokenRow):
            return Row(row.line, None, given)
    if isinstance(given, dict) and given.keys() <= {"bytes", "path"}:
        added = {"image_file": given["path"]} if given.get("path") else {}
        given = given.get("bytes") or given.get("path")
    if isinstance(given, bytes):
        given = put_picture(given, results_dir)
    data = {name: given if name == image else value for name, value in row.data.items()}
    return Row(row.line, plain_row({**added, **data}))


NAMES: dict[str, list[str]] = load_table(__package__, "input_columns.yaml")
"""Role → what people call its column, the likeliest first."""


def guessed(role: str, rows: Sequence[Mapping[str, Any]], taken: Sequence[str] = ()) -> str | None:
    """The column of `rows` that most likely is the one for `role`; None where none looks like it.

    Example:
        >>> rows = [{"id": 7, "file_name": "a.jpg", "text": "A cat on a rug."}]
        >>> guessed("image", rows), guessed("caption", rows), guessed("bbox", rows)
        ('file_name', 'text', None)
    """
    if role not in LOOKS:
        return None
    columns = [name for name in dict.fromkeys(chain.from_iterable(rows)) if name not in taken]
    given = {name: [row[name] for row in rows if row.get(name) not in (None, "")] for name in columns}
    likely = [name for name, values in given.items() if sum(map(LOOKS[role], values)) > len(values) / 2]

    def later(name: str) -> tuple[int, int]:
        known = NAMES[role].index(name.lower()) if name.lower() in NAMES[role] else len(NAMES[role])
        return known, -sum(len(str(row.get(name))) for row in rows) if role == "caption" else 0  # the longest texts

    return min(likely, key=later, default=None)


def _is_picture(value: Any) -> bool:
    if isinstance(value, dict):
        return "bytes" in value
    return isinstance(value, bytes) or is_address(value) or str(value).lower().endswith(ENDINGS)


LOOKS: dict[str, Callable[[Any], bool]] = {
    "image": _is_picture,
    "caption": lambda value: isinstance(value, str) and len(value.split()) > 1 and not _is_picture(value),
    "bbox": lambda value: isinstance(value, list) and bool(value) and all(map(is_box, value)),
}
