"""Regions in requests and replies: each has an id, counted from 1 within its request, by which replies name it."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.images import Image
from dataflow_grounding.prompts import load_prompt
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.tasks.request import is_cut_off

T = TypeVar("T")

Region: TypeAlias = Mapping[str, Any]
"""A region of a record: `bbox` in pixels of the upright image, `type`, and what is known of it."""


def region_items(
    regions: Sequence[Region], image: Image, box_format: BoxFormat, texts: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the regions as a request has them: id, box in the model's format, and the columns named in `texts`."""
    items = []
    for number, region in enumerate(regions, 1):
        x1, y1, x2, y2 = region["bbox"]
        numbers = box_format.from_pixels((x1, y1, x2, y2), original=image.shown_size, sent=image.sent_size)
        items.append({"id": number, box_format.key: numbers, **{name: region.get(name) or "" for name in texts}})
    return items


def region_prompt(name: str, image: Image, box_format: BoxFormat) -> str:
    """Return the instructions of a task that shows boxes."""
    return load_prompt(name).replace("{box_format}", box_format.instructions(image.sent_size))


def read_items(reply: str, key: str) -> tuple[list[dict[str, Any]], list[Note]]:
    """Read the objects in the list `key` of a reply, all but the last if it is cut off.

    Returns:
        The objects, and notes on what was done to read them.

    Raises:
        UnreadableReply: There is no such list, or no object in it.
        TruncatedReply: The reply is cut off before the list.

    Example:
        >>> read_items('{"regions": [{"id": 1}, 7]}', "regions")
        ([{'id': 1}], [Note(code='dropped', text='not an object')])
    """
    data, notes = read_object(reply, required=key)
    if not isinstance(data[key], list):
        raise UnreadableReply(f'"{key}" is not a list.')
    items = [item for item in data[key] if isinstance(item, dict)]
    if is_cut_off(notes):
        return items[:-1], notes
    if data[key] and not items:
        raise UnreadableReply(f'"{key}" has no objects in it.')
    return items, [*notes, *[Note("dropped", "not an object")] * (len(data[key]) - len(items))]


def read_by_id(reply: str, key: str, count: int) -> tuple[dict[int, dict[str, Any]], list[Note]]:
    """Read the objects in list `key` by id, 1 to `count`; the first of an id counts, others are dropped with a note.

    Returns:
        Id → object, and notes on what was done to read them.

    Raises:
        UnreadableReply: There is no such list, or no object in it.
        TruncatedReply: The reply is cut off before the list.

    Example:
        >>> read_by_id('{"regions": [{"id": "2"}, {"id": 9}]}', "regions", 2)
        ({2: {'id': '2'}}, [Note(code='dropped', text="an item with the id '9'")])
    """
    items, notes = read_items(reply, key)
    found: dict[int, dict[str, Any]] = {}
    for item in items:
        number = id_of(item.get("id"))
        if number is None or not 1 <= number <= count or number in found:
            notes.append(Note("dropped", f"an item with the id {str(item.get('id'))[:20]!r}"))
        else:
            found[number] = item
    return found, notes


def all_of(found: Mapping[int, T], count: int, what: str, notes: Sequence[Note]) -> list[T]:
    """Return what was found for the ids 1 to `count`. Raises UnreadableReply, TruncatedReply for any left out."""
    missing = [number for number in range(1, count + 1) if number not in found]
    if missing:
        complaint = f"{what} is missing for id {', '.join(map(str, missing[:20]))}."
        raise TruncatedReply(complaint) if is_cut_off(notes) else UnreadableReply(complaint)
    return [found[number] for number in range(1, count + 1)]


def id_of(value: Any) -> int | None:
    """Return an id as a whole number, however it is written; None for anything else.

    Example:
        >>> id_of("3"), id_of(3.0), id_of("three")
        (3, 3, None)
    """
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value.strip()[:9])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_ids(value: Any, count: int) -> tuple[list[int], list[Note]]:
    """Return the region ids 1 to `count` in a value, each once, in order, and notes on the others.

    Example:
        >>> read_ids([2, "1", 2, 7], 3)
        ([2, 1], [Note(code='dropped', text='a region id that was not asked about')])
    """
    given = [] if value is None else value if isinstance(value, list) else [value]
    numbers = [id_of(item) for item in given]
    known = list(dict.fromkeys(n for n in numbers if n is not None and 1 <= n <= count))
    unknown = sum(n is None or not 1 <= n <= count for n in numbers)
    return known, [Note("dropped", "a region id that was not asked about")] * unknown


def text_of(value: Any) -> str:
    """Return a text single-spaced, and an empty one for anything else."""
    return " ".join(value.split()) if isinstance(value, str) else ""
