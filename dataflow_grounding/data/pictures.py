"""The records of one picture joined, as where a picture has several captions."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dataflow_grounding.data.bad_entries import SKIPPED
from dataflow_grounding.data.records import json_value
from dataflow_grounding.data.rejected import MISSED

_IMPORTED = "imported"  # what a file said of the picture, which each of its entries gets back
_TEXT_OF = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=json_value).encode


class _Pictures(Iterable[dict[str, Any]]):
    """Records by picture, as the bytes of their JSON: objects take six times of that."""

    def __init__(
        self,
        records: Iterable[Mapping[str, Any]],
        name_of: Callable[[Mapping[str, Any]], str],
        apart: str,
    ) -> None:
        self._records_of_key: dict[str | int, list[bytes]] = {}
        for number, record in enumerate(records):
            name = name_of(record)
            imported: Any = record.get(_IMPORTED)
            is_of_entry = isinstance(imported, Mapping) and imported.get("format") == apart
            is_apart = not name or is_of_entry
            kept = _TEXT_OF(record).encode(errors="surrogatepass")
            self._records_of_key.setdefault(number if is_apart else name, []).append(kept)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for kept in self._records_of_key.values():
            yield _joined([json.loads(record.decode(errors="surrogatepass")) for record in kept])


def pictures(
    records: Iterable[Mapping[str, Any]],
    name_of: Callable[[Mapping[str, Any]], str],
    apart: str = "",
) -> Iterable[dict[str, Any]]:
    """Return one record for each picture, with the expressions of all of its records.

    A picture comes at the place of its first record. Its other columns are those of the first, but
    for what is said of the whole picture: it is a background if all of its records say so. They can
    be gone through more than once.

    Args:
        records: All of a data set. They are kept as JSON: 50,000 of five boxes take 50 MB.
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


def _joined(records: list[dict[str, Any]]) -> dict[str, Any]:
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
