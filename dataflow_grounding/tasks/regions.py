"""Tasks about regions: `region_expression`, `grounding_expression` and `double_check`.

Each region has an id, counted from 1 within its request, by which replies name it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.data.records import whole_number
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.tasks.request import (
    BOOLEAN,
    INTEGER,
    STRING,
    Request,
    about,
    is_cut_off,
    list_of,
    object_of,
)

T = TypeVar("T")

_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}

Region: TypeAlias = Mapping[str, Any]
"""A region of a record: `bbox` in pixels of the upright image, `type`, and what is known of it."""


def region_items(
    regions: Sequence[Region], image: Image, box_format: BoxFormat, texts: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the regions as a request has them: id, box in the model's format, and the columns
    named in `texts`.
    """
    items = []
    for number, region in enumerate(regions, 1):
        x1, y1, x2, y2 = region["bbox"]
        numbers = box_format.from_pixels(
            (x1, y1, x2, y2), original=image.shown_size, sent=image.sent_size
        )
        items.append(
            {
                "id": number,
                box_format.key: numbers,
                **{name: region.get(name) or "" for name in texts},
            }
        )
    return items


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
    """Read the objects in list `key` by id, 1 to `count`; the first of an id counts, others are
    dropped with a note.

    Returns id → object and notes, and raises what `read_items` raises.

    Example:
        >>> read_by_id('{"regions": [{"id": "2"}, {"id": 9}]}', "regions", 2)
        ({2: {'id': '2'}}, [Note(code='dropped', text="an item with the id '9'")])
    """
    items, notes = read_items(reply, key)
    found: dict[int, dict[str, Any]] = {}
    for item in items:
        number = whole_number(item.get("id"))
        if number is None or not 1 <= number <= count or number in found:
            notes.append(Note("dropped", f"an item with the id {str(item.get('id'))[:20]!r}"))
        else:
            found[number] = item
    return found, notes


def all_of(found: Mapping[int, T], count: int, what: str, notes: Sequence[Note]) -> list[T]:
    """Return what was found for the ids 1 to `count`. Raises UnreadableReply, TruncatedReply for
    any left out.
    """
    missing = [number for number in range(1, count + 1) if number not in found]
    if missing:
        complaint = f"{what} is missing for id {', '.join(map(str, missing[:20]))}."
        raise TruncatedReply(complaint) if is_cut_off(notes) else UnreadableReply(complaint)
    return [found[number] for number in range(1, count + 1)]


def read_places(value: Any, count: int) -> tuple[list[int], list[Note]]:
    """Return the places (from 0) of the region ids 1 to `count` in a value, each once, and notes on
    the others.

    Example:
        >>> read_places([2, "1", 2, 7], 3)
        ([1, 0], [Note(code='dropped', text='a region id that was not asked about')])
    """
    given = [] if value is None else value if isinstance(value, list) else [value]
    numbers = [whole_number(item) for item in given]
    known = [number - 1 for number in numbers if number is not None and 1 <= number <= count]
    unknown = Note("dropped", "a region id that was not asked about")
    return list(dict.fromkeys(known)), [unknown] * (len(numbers) - len(known))


def text_of(value: Any) -> str:
    """Return a text single-spaced, and an empty one for anything else."""
    return " ".join(value.split()) if isinstance(value, str) else ""


class Described(NamedTuple):
    """What a region shows; `type` and `color` are empty where the model didn't say."""

    type: str
    color: str
    description: str


def region_expression(
    image: Image, regions: Sequence[Region], box_format: BoxFormat
) -> Request[list[Described]]:
    """Ask what each region shows; the answer is one Described per region, in their order."""
    size, count = dict(zip(("width", "height"), image.sent_size, strict=True)), len(regions)
    given = {"image": size, "regions": region_items(regions, image, box_format, ("type",))}
    schema = object_of(
        regions=list_of(object_of(id=INTEGER, type=STRING, color=STRING, description=STRING))
    )

    def read(reply: str) -> tuple[list[Described], list[Note]]:
        items, notes = read_by_id(reply, "regions", count)
        names = ("type", "color", "description")
        said = {
            number: Described(*(text_of(item.get(name)) for name in names))
            for number, item in items.items()
        }
        found = {number: described for number, described in said.items() if described.description}
        return all_of(found, count, "the description", notes), notes

    return about("region_expression", image, given, schema, read, box_format, count)


class Merged(NamedTuple):
    """An expression and the regions that it names, as indices into the request's, from 0."""

    text: str
    places: list[int]


def grounding_expression(
    image: Image, caption: str | None, regions: Sequence[Region], box_format: BoxFormat
) -> Request[list[Merged]]:
    """Ask for expressions that each name at least one of `regions`."""
    items = region_items(regions, image, box_format, ("type", "color", "description"))
    schema = object_of(expressions=list_of(object_of(text=STRING, region_ids=list_of(INTEGER))))

    def read(reply: str) -> tuple[list[Merged], list[Note]]:
        items, notes = read_items(reply, "expressions")
        if is_cut_off(notes):
            raise TruncatedReply("the reply is cut off before its last expression.")
        found = []
        for item in items:
            places, more = read_places(item.get("region_ids"), len(regions))
            notes += more
            text = text_of(item.get("text"))
            if text and places:
                found.append(Merged(text, places))
            else:
                notes.append(
                    Note("dropped", f"an expression without {'a region' if text else 'text'}")
                )
        if not found:
            raise UnreadableReply(
                'no item of "expressions" has a "text" and the id of a region in "region_ids".'
            )
        return found, notes

    given = {"caption": caption, "regions": items}
    return about("grounding_expression", image, given, schema, read, box_format, len(regions))


class Check(NamedTuple):
    """A judgement: `matches` is None if the model can't tell; `text` and `places` are what should
    be there instead.
    """

    matches: bool | None
    text: str
    places: list[int]
    reason: str


def double_check(
    image: Image,
    expressions: Sequence[Merged],
    regions: Sequence[Region],
    box_format: BoxFormat,
    texts: Sequence[str] = (),
) -> Request[list[Check]]:
    """Ask whether each expression is right; the answer is one Check per expression, in their order.

    Args:
        image: The image that the expressions describe.
        expressions: The expressions, each with the regions that it names.
        regions: The regions of the image.
        box_format: How the model writes boxes.
        texts: Columns of the regions to tell a serving that can't see what things are.
    """
    asked = [
        {
            "id": number,
            "text": expression.text,
            "region_ids": [place + 1 for place in expression.places],
        }
        for number, expression in enumerate(expressions, 1)
    ]
    given = {"expressions": asked, "regions": region_items(regions, image, box_format, texts)}
    item = object_of(
        id=INTEGER, matches=BOOLEAN, region_ids=list_of(INTEGER), text=STRING, reason=STRING
    )

    def read(reply: str) -> tuple[list[Check], list[Note]]:
        items, notes = read_by_id(reply, "checks", len(asked))
        found = {}
        for n, item in items.items():
            places, more = read_places(item.get("region_ids"), len(regions))
            notes += more
            found[n] = Check(
                _matches(item, n), text_of(item.get("text")), places, text_of(item.get("reason"))
            )
        return all_of(found, len(asked), "the check", notes), notes

    return about(
        "double_check", image, given, object_of(checks=list_of(item)), read, box_format, len(asked)
    )


def _matches(item: Mapping[str, Any], number: int) -> bool | None:
    value = item.get("matches", "")
    if isinstance(value, str):
        value = _TRUTHS.get(value.strip().lower(), "")
    if value is not None and not isinstance(value, bool):
        raise UnreadableReply(f'"matches" of id {number} is neither true nor false.')
    return value
