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

_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}  # word → whether it matches
_MOST_IDS = 20  # in a complaint

Region: TypeAlias = Mapping[str, Any]
"""A region of a record: `bbox` in pixels of the upright image, `type`, and what is known of it."""


def region_items(
    regions: Sequence[Region], image: Image, box_format: BoxFormat, texts: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the regions as a request has them: each with its id, its box and some texts.

    Args:
        regions: The regions.
        image: The image that they are in.
        box_format: How the model writes boxes; it names the key of the box.
        texts: The columns of a region that the request has, too; "" where a region lacks one.
    """
    items: list[dict[str, Any]] = []
    for number, region in enumerate(regions, 1):
        x1, y1, x2, y2 = region["bbox"]
        item: dict[str, Any] = {"id": number}
        item[box_format.key] = box_format.from_pixels(
            (x1, y1, x2, y2), original=image.shown_size, sent=image.sent_size
        )
        for name in texts:
            item[name] = region.get(name) or ""
        items.append(item)
    return items


def read_items(reply: str, key: str) -> tuple[list[dict[str, Any]], list[Note]]:
    """Read the objects in the list `key` of a reply, all but the last if the reply is cut off.

    Returns:
        The objects, none for an empty list; and notes on what was done to read them. Items that are
        no objects are left out with a note; in a reply that is cut off, without.

    Raises:
        UnreadableReply: There is no such list, or it has items, none of them an object.
        TruncatedReply: The reply is cut off before the list.

    Example:
        >>> read_items('{"regions": [{"id": 1}, 7]}', "regions")
        ([{'id': 1}], [Note(code='dropped', text='not an object')])
    """
    data, notes = read_object(reply, required=key)
    values = data[key]
    if not isinstance(values, list):
        raise UnreadableReply(f'"{key}" is not a list.')
    items = [value for value in values if isinstance(value, dict)]
    if is_cut_off(notes):
        return items[:-1], notes
    if values and not items:
        raise UnreadableReply(f'"{key}" has no objects in it.')
    for _ in range(len(values) - len(items)):
        notes.append(Note("dropped", "not an object"))
    return items, notes


def read_by_id(reply: str, key: str, count: int) -> tuple[dict[int, dict[str, Any]], list[Note]]:
    """Read the objects in the list `key` of a reply by their ids, 1 to `count`.

    An object that comes twice counts once. Those of no such id are dropped with a note. An id
    without an object is left out.

    Returns:
        Id → object, and notes on what was done to read them.

    Raises:
        UnreadableReply, TruncatedReply: As `read_items`; also where an id has objects that differ.

    Example:
        >>> read_by_id('{"regions": [{"id": "2"}, {"id": 9}]}', "regions", 2)
        ({2: {'id': '2'}}, [Note(code='dropped', text="an item with the id '9'")])
    """
    items, notes = read_items(reply, key)
    item_by_id: dict[int, dict[str, Any]] = {}
    for item in items:
        number = whole_number(item.get("id"))
        if number is None or not 1 <= number <= count:
            notes.append(Note("dropped", f"an item with the id {str(item.get('id'))[:20]!r}"))
        elif item_by_id.setdefault(number, item) != item:
            raise UnreadableReply(f"id {number} has two answers that differ.", "several answers")
    return item_by_id, notes


def all_of(answer_by_id: Mapping[int, T], count: int, what: str, notes: Sequence[Note]) -> list[T]:
    """Return the answers for the ids 1 to `count`, in this order.

    Args:
        answer_by_id: The answers that were read.
        count: How many were asked for.
        what: What an answer is called in a complaint, such as "the description".
        notes: Notes on reading them.

    Raises:
        UnreadableReply: There is no answer for some ids.
        TruncatedReply: There is none, and the reply is cut off.
    """
    ids = range(1, count + 1)
    missing = [number for number in ids if number not in answer_by_id]
    if not missing:
        return [answer_by_id[number] for number in ids]
    complaint = f"{what} is missing for id {', '.join(map(str, missing[:_MOST_IDS]))}."
    if is_cut_off(notes):
        raise TruncatedReply(complaint)
    raise UnreadableReply(complaint)


def read_region_indices(value: Any, count: int) -> tuple[list[int], list[Note]]:
    """Read the regions that a reply names.

    Args:
        value: A region's id, a list of ids, or None.
        count: How many regions there are; their ids are 1 to `count`.

    Returns:
        The regions' indices, from 0, each once and in the reply's order; and a note on each id that
        no region has.

    Example:
        >>> read_region_indices([2, "1", 2, 7], 3)
        ([1, 0], [Note(code='dropped', text='a region id that was not asked about')])
    """
    if value is None:
        return [], []
    items = value if isinstance(value, list) else [value]
    indices: list[int] = []
    notes: list[Note] = []
    for item in items:
        number = whole_number(item)
        if number is not None and 1 <= number <= count:
            indices.append(number - 1)
        else:
            notes.append(Note("dropped", "a region id that was not asked about"))
    return list(dict.fromkeys(indices)), notes


def text_of(value: Any) -> str:
    """Return a string single-spaced; "" for a value that is no string."""
    return " ".join(value.split()) if isinstance(value, str) else ""


class Described(NamedTuple):
    """What a region shows; `type` and `color` are "" where the model doesn't say."""

    type: str
    color: str
    description: str


def region_expression(
    image: Image, regions: Sequence[Region], box_format: BoxFormat
) -> Request[list[Described]]:
    """Make the request for what each region shows; the answer has a Described for each."""
    count = len(regions)
    width, height = image.sent_size
    question = {
        "image": {"width": width, "height": height},
        "regions": region_items(regions, image, box_format, ("type",)),
    }
    schema = object_of(
        regions=list_of(object_of(id=INTEGER, type=STRING, color=STRING, description=STRING))
    )

    def read(reply: str) -> tuple[list[Described], list[Note]]:
        """Return what a reply says of each region.

        Raises:
            UnreadableReply, TruncatedReply: A region has no description.
        """
        item_by_id, notes = read_by_id(reply, "regions", count)
        described_by_id: dict[int, Described] = {}
        for number, item in item_by_id.items():
            description = text_of(item.get("description"))
            if description:
                described_by_id[number] = Described(
                    text_of(item.get("type")), text_of(item.get("color")), description
                )
        return all_of(described_by_id, count, "the description", notes), notes

    return about(
        "region_expression", image, question, schema, read, box_format, divisible=count > 1
    )


class Merged(NamedTuple):
    """An expression and the regions that it names, as indices into the request's, from 0."""

    text: str
    places: list[int]


def grounding_expression(
    image: Image, caption: str | None, regions: Sequence[Region], box_format: BoxFormat
) -> Request[list[Merged]]:
    """Make the request for expressions that each name at least one of `regions`.

    Args:
        image: The image that the regions are in.
        caption: A caption of it, for the model to go by.
        regions: The regions, with what is known of them.
        box_format: How the model writes boxes.
    """
    question = {
        "caption": caption,
        "regions": region_items(regions, image, box_format, ("type", "color", "description")),
    }
    schema = object_of(expressions=list_of(object_of(text=STRING, region_ids=list_of(INTEGER))))

    def read(reply: str) -> tuple[list[Merged], list[Note]]:
        """Return the expressions in a reply that have a text and name a region; others are noted.

        Raises:
            TruncatedReply: The reply is cut off.
            UnreadableReply: There is no such expression.
        """
        items, notes = read_items(reply, "expressions")
        if is_cut_off(notes):
            raise TruncatedReply("the reply is cut off before its last expression.")
        expressions: list[Merged] = []
        for item in items:
            places, notes_on_ids = read_region_indices(item.get("region_ids"), len(regions))
            notes += notes_on_ids
            text = text_of(item.get("text"))
            if not text:
                notes.append(Note("dropped", "an expression without text"))
            elif not places:
                notes.append(Note("dropped", "an expression without a region"))
            else:
                expressions.append(Merged(text, places))
        if not expressions:
            raise UnreadableReply(
                'no item of "expressions" has a "text" and the id of a region in "region_ids".'
            )
        return expressions, notes

    return about(
        "grounding_expression",
        image,
        question,
        schema,
        read,
        box_format,
        divisible=len(regions) > 1,
    )


class Check(NamedTuple):
    """What a model says of an expression.

    Attributes:
        matches: Whether the expression is right; None if the model can't tell.
        text: The expression as it should be; "" where the reply has none.
        places: The regions that it should name, as indices into the request's, from 0.
        reason: Why the model says so; "" where it doesn't.
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
    """Make the request whether each expression is right; the answer has a Check for each, in order.

    Args:
        image: The image that the expressions describe.
        expressions: The expressions, each with the regions that it names.
        regions: The regions of the image.
        box_format: How the model writes boxes.
        texts: Columns of the regions to tell a serving that can't see what things are.
    """
    count = len(expressions)
    items: list[dict[str, Any]] = []
    for number, expression in enumerate(expressions, 1):
        region_ids = [place + 1 for place in expression.places]
        items.append({"id": number, "text": expression.text, "region_ids": region_ids})
    question = {
        "expressions": items,
        "regions": region_items(regions, image, box_format, texts),
    }
    check = object_of(
        id=INTEGER, matches=BOOLEAN, region_ids=list_of(INTEGER), text=STRING, reason=STRING
    )

    def read(reply: str) -> tuple[list[Check], list[Note]]:
        """Return what a reply says of each expression.

        Raises:
            UnreadableReply, TruncatedReply: A check is missing, or "matches" is neither true nor
                false.
        """
        item_by_id, notes = read_by_id(reply, "checks", count)
        check_by_id: dict[int, Check] = {}
        for number, item in item_by_id.items():
            places, notes_on_ids = read_region_indices(item.get("region_ids"), len(regions))
            notes += notes_on_ids
            check_by_id[number] = Check(
                _read_matches(item, number),
                text_of(item.get("text")),
                places,
                text_of(item.get("reason")),
            )
        return all_of(check_by_id, count, "the check", notes), notes

    schema = object_of(checks=list_of(check))
    return about("double_check", image, question, schema, read, box_format, divisible=count > 1)


def _read_matches(item: Mapping[str, Any], number: int) -> bool | None:
    # Words such as "yes" count, too.
    value = item.get("matches", "")
    if isinstance(value, str):
        value = _TRUTHS.get(value.strip().lower(), "")
    if value is not None and not isinstance(value, bool):
        raise UnreadableReply(f'"matches" of id {number} is neither true nor false.')
    return value
