"""The records of one picture joined, as where a picture has several captions."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dataflow_grounding.data.bad_entries import SKIPPED
from dataflow_grounding.data.records import JsonObject, Update, json_value
from dataflow_grounding.data.rejected import MISSED

_IMPORTED = "imported"  # what a file said of the picture, which each of its entries gets back
_TEXT_OF = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=json_value).encode


class _Pictures(Iterable[Update]):
    """Records by picture. Only second and later ones of a picture are kept, as bytes of JSON."""

    def __init__(
        self,
        records: Iterable[JsonObject],
        name_of: Callable[[JsonObject], str],
        apart: str,
    ) -> None:
        can_be_read_again = iter(records) is not records
        self._records = records if can_be_read_again else list(records)
        self._name_of = name_of
        self._apart = apart
        self._further: dict[str | int, list[bytes]] = {}  # by what `_keyed` gives
        keys = set()
        for key, record in self._keyed():
            if key in keys:
                kept = _TEXT_OF(record).encode(errors="surrogatepass")
                self._further.setdefault(key, []).append(kept)
            keys.add(key)

    def _keyed(self) -> Iterator[tuple[str | int, JsonObject]]:
        """Yield each record after its picture's name; one that stays apart after its number."""
        for number, record in enumerate(self._records):
            name = self._name_of(record)
            imported: Any = record.get(_IMPORTED)
            is_of_entry = isinstance(imported, Mapping) and imported.get("format") == self._apart
            yield (number if is_of_entry or not name else name), record

    def __iter__(self) -> Iterator[Update]:
        keys = set()
        for key, record in self._keyed():
            if key not in keys:
                keys.add(key)
                further = self._further.get(key, ())
                others = [json.loads(kept.decode(errors="surrogatepass")) for kept in further]
                yield _joined([dict(record), *others])


def pictures(
    records: Iterable[JsonObject],
    name_of: Callable[[JsonObject], str],
    apart: str = "",
) -> Iterable[Update]:
    """Return one record for each picture, with the expressions of all of its records.

    A picture comes at the place of its first record. Its other columns are those of the first, but
    for what is said of the whole picture: it is a background if all of its records say so. They can
    be gone through more than once.

    Args:
        records: All of a data set. They are read twice; what can be read only once is kept.
        name_of: Returns what a record's picture is called; "" for one that names none.
        apart: A format. Records of its import stay apart, because each goes back to its own entry.

    Example:
        >>> cat = {"image_path": "a.jpg", "expressions": [{"text": "a cat"}]}
        >>> dog = {"image_path": "a.jpg", "expressions": [{"text": "a dog"}]}
        >>> [joined] = pictures([cat, dog], lambda record: record["image_path"])
        >>> [expression["text"] for expression in joined["expressions"]]
        ['a cat', 'a dog']
    """
    return _Pictures(records, name_of, apart)


def _joined(records: list[Update]) -> Update:
    first = records[0]
    if len(records) == 1:
        return first
    joined = {**first, "expressions": []}
    for record in records:
        expressions = record.get("expressions")
        if isinstance(expressions, list):
            joined["expressions"] += expressions
    backgrounds = [record.get("background") for record in records]
    if False in backgrounds:
        joined["background"] = False
    elif not all(backgrounds):
        joined.pop("background", None)
    missed = [phrase for record in records for phrase in record.get(MISSED) or ()]
    if missed:
        joined[MISSED] = missed
    skipped = sum(record.get(SKIPPED) or 0 for record in records)
    if skipped:
        joined[SKIPPED] = skipped
    if any(record.get("suspect_boxes") is True for record in records):
        joined["suspect_boxes"] = True
    return joined
