"""Which row of a file is the one that was decided on, however the file was written since.

A decision keeps facts of its row. `row` digests the image's id and the caption, or the phrases
without one: a later run leaves it as it is. `written` digests all that the reviewer saw: the
picture's path, caption and boxes. `rows` counts the rows of the image, and `alike` those of them
with the same `row`: where these counts have changed, the place of a row proves nothing. `picture`
tells what the reviewer saw: a decision goes to no row of another picture, whatever its id.
"""

import hashlib
import os
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dataflow_grounding._util.number_table import NumberTable
from dataflow_grounding.data.records import Record, annotated_column, dump_line, path_of
from dataflow_grounding.extras.review._judged_pictures import JudgedPicture, path_here, value_of
from dataflow_grounding.extras.review._record_view import picture_column


class DecidedRow(NamedTuple):
    """What the last decision on a row says of it; None for what earlier versions didn't keep."""

    row: str | None
    written: str | None = None
    rows: int | None = None
    alike: int | None = None
    picture: JudgedPicture = JudgedPicture()

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> "DecidedRow":
        """Return what a line of the file of decisions says; what it says wrongly is None."""
        return cls(
            value_of(line, "row", str),
            value_of(line, "written", str),
            value_of(line, "rows", int),
            value_of(line, "alike", int),
            JudgedPicture.of_line(line),
        )


class PlacedRow(NamedTuple):
    """A row of the file as it is now.

    Attributes:
        key: What its place among its image's rows makes its key.
        image_id: Its image's id.
        row: Its `row_digest`.
        written: Its `written_digest`.
        picture: The path of its picture, as the row states it.
        column: The column that has the path.
    """

    key: str
    image_id: str
    row: str
    written: str
    picture: str
    column: str


def row_digest(record: Record) -> str:
    """Return 16 digits that tell a row from others of its image, wherever it stands in its file.

    They are made of the image's id and the caption; without a caption, of the texts of its
    expressions or regions. Rows of one image and text have the same.
    """
    text = record.get("caption") or record.get("cleaned_caption")
    if not isinstance(text, str):
        text = dump_line({"rows": _texts_of(record)})
    return _digest(f"{record.image_id}\0{text}")


def written_digest(record: Record) -> str:
    """Return 16 digits that tell what a reviewer saw of a row.

    They are made of the image's id and path, the caption, and the expressions or regions.
    """
    column = annotated_column(record)
    seen = {
        "id": record.image_id,
        "path": path_of(record),
        "caption": record.get("caption") or record.get("cleaned_caption"),
        "boxes": record.get(column) if column else None,
    }
    return _digest(dump_line(seen))


def _digest(text: str) -> str:
    """Return the first 16 digits of a text's SHA-256, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _texts_of(record: Record) -> list[str]:
    """Return what a record's expressions or regions say; nothing where they are no list."""
    column = annotated_column(record)
    rows = record.get(column) if column else None
    if not isinstance(rows, list):
        return []
    texts = []
    for row in rows:
        text = row
        if isinstance(row, dict):
            text = row.get("text") or row.get("type")
        texts.append(str(text))
    return texts


class RowCounts:
    """Counts the rows of each image, and of each `row` digest. Only hashes are kept."""

    def __init__(self) -> None:
        self._rows = NumberTable()
        self._alike = NumberTable()

    def add(self, image_id: str, row: str) -> None:
        """Count a row."""
        self._rows.set(hash(image_id), (self._rows.get(hash(image_id)) or 0) + 1)
        self._alike.set(int(row, 16), (self._alike.get(int(row, 16)) or 0) + 1)

    def rows(self, image_id: str) -> int:
        """Return how many rows the image has."""
        return self._rows.get(hash(image_id)) or 0

    def alike(self, row: str) -> int:
        """Return how many rows have this digest."""
        return self._alike.get(int(row, 16)) or 0


def moved_keys(
    placed: Iterable[tuple[str, Record]],
    decided: Mapping[str, DecidedRow],
    folders: Sequence[str] = (),
) -> dict[str, str]:
    """Return, by the key of its place, the key that a row is to have instead.

    A decided key goes to the row that is written as it was; else to the only row with its caption
    or phrases; else it stays with its place, if the image has as many rows as it had. Otherwise no
    row gets it, and its decision is of none. Rows whose key is taken so get one that is free. A row
    of another picture than was judged gets no decided key.

    Args:
        placed: The file's rows with the keys of their places.
        decided: What was decided on, by key.
        folders: Where relative paths of pictures are looked for, in this order.
    """

    candidates, counts = _candidates_of(placed, decided)
    # key of the place → decided key
    key_of = dict(_pairs_by("written", candidates, decided, folders))
    left = [row for row in candidates if row.key not in key_of]
    granted = set(key_of.values())
    for place_key, key in _pairs_by("row", left, decided, folders):
        if key not in granted and decided[key].alike in (None, 1):
            key_of[place_key] = key
    granted = set(key_of.values())
    for row in left:
        if row.key in key_of or row.key in granted or row.key not in decided:
            continue
        facts = decided[row.key]
        if _is_in_its_place(row, facts, counts) and _may_be_of_picture(row, facts, folders):
            key_of[row.key] = row.key
    moved = {place_key: key for place_key, key in key_of.items() if place_key != key}
    return moved | _free_keys(candidates, decided, key_of, counts)


def _may_be_of_picture(row: PlacedRow, facts: DecidedRow, folders: Sequence[str]) -> bool:
    """Return whether the picture of a row may be the one that was judged, as far as that is known.

    `folders` are where relative paths of pictures are looked for.
    """
    if facts.picture == JudgedPicture():  # nothing is known of it
        return True
    return facts.picture.may_be(row.picture, path_here(row.picture, folders, row.column))


def _is_in_its_place(row: PlacedRow, facts: DecidedRow, counts: RowCounts) -> bool:
    """Return whether the image has as many rows as it had, and as many that are like this one.

    Then the place tells the row. A count that the decision didn't keep is taken for the same.
    """
    as_many_rows = facts.rows in (None, counts.rows(row.image_id))
    as_many_alike = facts.alike in (None, 1, counts.alike(row.row))
    return as_many_rows and as_many_alike


def _free_keys(
    candidates: Iterable[PlacedRow],
    decided: Mapping[str, DecidedRow],
    key_of: Mapping[str, str],
    counts: RowCounts,
) -> dict[str, str]:
    """Return, by the keys of their places, new keys for rows whose own key is another row's by now.

    That is a key that was decided on, and that `key_of`, the decided keys by those of the places,
    gives to another row or to none. A row that got a decided key leaves its own to these rows,
    unless that is decided on, too: then its decisions would come with it. Further rows get keys
    behind the last one of their image.
    """
    granted = set(key_of.values())
    free = deque(key for key in key_of if key not in granted and key not in decided)
    further = Counter[str]()  # by image, rows that got a key behind its last one
    keys: dict[str, str] = {}
    for row in candidates:
        if row.key not in decided or row.key in key_of:
            continue
        if free:
            keys[row.key] = free.popleft()
        else:
            further[row.image_id] += 1
            number = counts.rows(row.image_id) + further[row.image_id]
            keys[row.key] = f"{row.image_id}@{number}"
    return keys


def _candidates_of(
    placed: Iterable[tuple[str, Record]], decided: Mapping[str, DecidedRow]
) -> tuple[list[PlacedRow], RowCounts]:
    """Return the rows that a decided key may go to, or that stand where one was; and all counts.

    The counts are of all rows with an id. A row whose digests are decided on only under the name
    that earlier versions gave it comes with that name's digests.
    """
    digests = {digest for facts in decided.values() for digest in (facts.row, facts.written)}
    counts = RowCounts()
    candidates = []
    for key, record in placed:
        if record.image_id is None:
            continue
        row = PlacedRow(
            key,
            record.image_id,
            row_digest(record),
            written_digest(record),
            path_of(record),
            picture_column(record),
        )
        earlier = _as_named_earlier(row, record)
        if earlier is not None and digests.isdisjoint((row.row, row.written)):
            row = earlier
        counts.add(row.image_id, row.row)
        if key in decided or row.row in digests or row.written in digests:
            candidates.append(row)
    return candidates, counts


def _as_named_earlier(row: PlacedRow, record: Record) -> PlacedRow | None:
    """Return a row whose image's id is `x.png` with the digests of the id `x`.

    Earlier versions called it so, as a second row of `x.jpg`. None for a row that is not called
    like its picture's file.
    """
    stem, ending = os.path.splitext(row.image_id)
    if not ending or not path_of(record).endswith(os.path.basename(row.image_id)):
        return None
    named = record.updated({"image_id": stem})
    return row._replace(row=row_digest(named), written=written_digest(named))


def _pairs_by(
    name: str,
    candidates: Iterable[PlacedRow],
    decided: Mapping[str, DecidedRow],
    folders: Sequence[str],
) -> Iterator[tuple[str, str]]:
    """Yield pairs of a place's key and a decided key with the same digest and picture.

    A digest that several decided keys have, or several rows of the picture, tells nothing.

    Args:
        name: The digest's name, `row` or `written`.
        candidates: Rows of the file.
        decided: What was decided on, by key.
        folders: Where relative paths of pictures are looked for.
    """
    keys_then: dict[str, str] = {}
    times_decided = Counter[str]()
    for key, facts in decided.items():
        digest = getattr(facts, name)
        if digest is not None:
            keys_then[digest] = key
            times_decided[digest] += 1
    rows_now = defaultdict[str, list[PlacedRow]](list)
    for row in candidates:
        rows_now[getattr(row, name)].append(row)
    for digest, key in keys_then.items():
        if times_decided[digest] > 1:
            continue
        rows = []
        for row in rows_now.get(digest, []):
            if _may_be_of_picture(row, decided[key], folders):
                rows.append(row)
        if len(rows) == 1:
            yield rows[0].key, key
