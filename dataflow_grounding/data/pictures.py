"""The records of one picture joined, as where a picture has several captions."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dataflow_grounding.data.bad_entries import SKIPPED
from dataflow_grounding.data.rejected import MISSED

_IMPORTED = "imported"  # what a file said of the picture, which each of its entries gets back


def pictures(
    records: Iterable[Mapping[str, Any]],
    name_of: Callable[[Mapping[str, Any]], str],
    apart: str = "",
) -> Iterator[Mapping[str, Any]]:
    """Yield one record for each picture, with the expressions of all of its records.

    A picture comes at the place of its first record. Its other columns are those of the first, but
    for what is said of the whole picture: it is a background if all of its records say so.

    Args:
        records: All of a data set, each as a dict in memory.
        name_of: Returns what a record's picture is called; "" for one that names none.
        apart: A format. Records of its import stay apart, because each goes back to its own entry.

    Example:
        >>> cat = {"image_path": "a.jpg", "expressions": [{"text": "a cat"}]}
        >>> dog = {"image_path": "a.jpg", "expressions": [{"text": "a dog"}]}
        >>> [joined] = pictures([cat, dog], lambda record: record["image_path"])
        >>> [expression["text"] for expression in joined["expressions"]]
        ['a cat', 'a dog']
    """
    records_of_key: dict[Any, list[Mapping[str, Any]]] = {}
    for number, record in enumerate(records):
        name = name_of(record)
        imported: Any = record.get(_IMPORTED)
        is_of_entry = isinstance(imported, Mapping) and imported.get("format") == apart
        is_apart = not name or is_of_entry
        records_of_key.setdefault(number if is_apart else name, []).append(record)
    while records_of_key:  # each is let go of, so that the whole isn't there twice
        key = next(iter(records_of_key))
        yield _joined(records_of_key.pop(key))


def _joined(records: list[Mapping[str, Any]]) -> Mapping[str, Any]:
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
