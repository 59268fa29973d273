"""The user's rows as records have them: columns renamed, pictures that are no files made files.

A role is what a step reads a column as, such as `image` or `caption`. Which of the user's columns
has it is guessed from the column's name and from what its values look like.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

from dataflow_grounding._util.addresses import is_web
from dataflow_grounding._util.errors import BrokenRow
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding.data.dataframes import plain_row
from dataflow_grounding.data.records import is_box
from dataflow_grounding.data.rows import Row
from dataflow_grounding.images.files import ENDINGS
from dataflow_grounding.images.picture_folder import picture_name, put_picture

AT_ONCE = 256  # rows whose addresses are fetched together
MOSTLY = 0.5  # more than this share of a column's values have to look right

Fetch = Callable[[Iterable[str]], Mapping[str, "str | BrokenRow"]]
"""Returns for each address the picture's path, relative to `results_dir`, or what went wrong."""
NAMES: dict[str, list[str]] = load_table(__package__, "input_columns.yaml")
"""Role → what people call its column, the likeliest first."""


def renamed(row: Mapping[str, object], sources: Mapping[str, str]) -> dict[str, object]:
    """Return a row with columns renamed by `sources` (new name → column of the row). No column is
    lost: one whose name another column gets is called `original_…`.

    Example:
        >>> renamed({"text": "a cup", "caption": "7"}, {"caption": "text"})
        {'caption': 'a cup', 'original_caption': '7'}
    """
    new_row: dict[str, object] = {}
    for column, value in row.items():
        new_names = [name for name, source in sources.items() if source == column]
        for name in new_names:
            new_row[name] = value
        if new_names:
            continue
        # The column isn't renamed by the user. It still has to give way if another gets its name.
        column_that_gets_this_name = sources.get(column)  # None for none, which isn't in `row`
        name = column
        if column_that_gets_this_name in row:
            name = _original_name(column, row.keys() | sources.keys() | new_row.keys())
        new_row[name] = value
    return new_row


def _original_name(column: str, taken: Collection[str]) -> str:
    """Return "original_caption", or "original_original_caption" where that is taken."""
    name = f"original_{column}"
    while name in taken:
        name = f"original_{name}"
    return name


def record_rows(
    rows: Iterator[Row],
    sources: Mapping[str, str],
    image_column: str,
    results_dir: str,
    fetch: Fetch | None,
    is_wanted: Callable[[int], bool],
) -> Iterator[Row]:
    """Yield rows with columns renamed, and with files made of the wanted rows' pictures."""
    make_file = partial(put_picture, results_dir=results_dir)
    numbered = enumerate(_renamed_row(row, sources) for row in rows)
    rows_at_a_time = AT_ONCE if fetch else 1  # pictures of several rows are fetched together
    while chunk := list(islice(numbered, rows_at_a_time)):
        fetched: Mapping[str, str | BrokenRow] = {}
        if fetch:
            wanted = [row for place, row in chunk if is_wanted(place)]
            fetched = fetch(_addresses_in(wanted, image_column))
        for place, row in chunk:
            if is_wanted(place):
                yield _with_file(row, image_column, make_file, fetched)
            else:
                # `picture_name` makes no file: it only tells what one would be called.
                yield _with_file(row, image_column, picture_name, fetched)


def _addresses_in(rows: Iterable[Row], image_column: str) -> Iterable[str]:
    addresses: dict[str, None] = {}  # each once
    for row in rows:
        picture = (row.data or {}).get(image_column)
        if is_web(picture):
            addresses[str(picture)] = None
    return addresses


def _renamed_row(row: Row, sources: Mapping[str, str]) -> Row:
    if row.data is None:
        return row
    return row._replace(data=renamed(row.data, sources))


def _with_file(
    row: Row,
    image_column: str,
    name_of_bytes: Callable[[bytes], str],
    fetched: Mapping[str, str | BrokenRow],
) -> Row:
    """Return the row with its picture as the path of a file, or a broken row."""
    if row.data is None:
        return row
    if image_column not in row.data:
        return Row(row.line, plain_row(row.data))
    stated = row.data[image_column]
    picture = stated
    origin: dict[str, str] = {}  # columns that say where the picture is from
    if isinstance(stated, str) and stated in fetched:  # an address
        picture = fetched[stated]
        if isinstance(picture, BrokenRow):
            return Row(row.line, data=None, error=picture)
        origin = {"image_url": stated}
    elif _is_of_hugging_face(stated):
        picture = stated.get("bytes") or stated.get("path")
        if stated.get("path"):
            origin = {"image_file": stated["path"]}
    if isinstance(picture, bytes):
        picture = name_of_bytes(picture)
    data = {**origin, **row.data, image_column: picture}  # the user's own columns come before
    return Row(row.line, plain_row(data))


def _is_of_hugging_face(picture: Any) -> bool:
    """Return whether it is {"bytes": b"…", "path": "a.jpg"}, where one may be None."""
    return isinstance(picture, dict) and picture.keys() <= {"bytes", "path"}


def guess_column(
    role: str, rows: Sequence[Mapping[str, object]], taken: Sequence[str] = ()
) -> str | None:
    """Return the column of which more than half of the values look right for a role, if any."""
    if role not in LOOKS:
        return None
    likely = []
    columns = dict.fromkeys(chain.from_iterable(rows))  # of any row, each once
    for column in columns:
        if column in taken:
            continue
        values = [row[column] for row in rows if row.get(column) not in (None, "")]
        count_looking_right = sum(map(LOOKS[role], values))
        if count_looking_right > MOSTLY * len(values):
            likely.append(column)
    return min(likely, key=lambda column: _rank(column, role, rows), default=None)


def _rank(column: str, role: str, rows: Sequence[Mapping[str, object]]) -> tuple[int, int]:
    """Return what sorts columns: the likeliest name first; of equal ones, the longest captions."""
    usual_names = NAMES[role]
    place = len(usual_names)
    if column.lower() in usual_names:
        place = usual_names.index(column.lower())
    length = 0
    if role == "caption":
        length = sum(len(str(row.get(column))) for row in rows)
    return place, -length


def _is_picture(value: Any) -> bool:
    if isinstance(value, dict):  # in Hugging Face's data sets
        return "bytes" in value
    return isinstance(value, bytes) or is_web(value) or str(value).lower().endswith(ENDINGS)


def _is_caption(value: Any) -> bool:
    return isinstance(value, str) and len(value.split()) > 1 and not _is_picture(value)


def _is_list_of_boxes(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_box, value))


LOOKS: dict[str, Callable[[Any], bool]] = {
    "image": _is_picture,
    "caption": _is_caption,
    "bbox": _is_list_of_boxes,
}
"""Role → whether a value looks right for its column."""
