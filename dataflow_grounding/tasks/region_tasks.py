"""Tasks about regions: `region_expression`, `grounding_expression` and `double_check`.

Each region has an id, counted from 1 within its request, by which replies name it.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern
from dataflow_grounding.data.expressions import Instance, Region
from dataflow_grounding.data.records import whole_number
from dataflow_grounding.images.image import Image
from dataflow_grounding.replies import Note, read_object
from dataflow_grounding.replies.labels import fits_phrase, folded
from dataflow_grounding.replies.nothing import says_none
from dataflow_grounding.tasks.request import (
    BOOLEAN,
    INTEGER,
    STRING,
    Request,
    is_cut_off,
    list_of,
    object_of,
    request_about,
    size_of,
)
from dataflow_grounding.tasks.texts import is_no_phrase, is_no_text, without_markup

T = TypeVar("T")

_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}  # word → whether it matches
_MOST_IDS = 20  # in a complaint
# "2", "region_2"
_ID = lazy_pattern(r"\s*(?:(?:region|expression|id|box)[\s_#]*)?(\d{1,9})\s*", re.IGNORECASE)


def read_items(reply: str, key: str) -> tuple[list[dict[str, object]], list[Note]]:
    """Return the objects of the list under `key`, but not one that may be cut off, and notes."""
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


def read_by_id(
    reply: str,
    key: str,
    count: int,
    other_name: str = "id",  # a further key under which models write the id
) -> tuple[dict[int, dict[str, object]], list[Note]]:
    """Return the objects of the list under `key` by their ids, from 1 to `count`, and notes."""
    items, notes = read_items(reply, key)
    item_by_id: dict[int, dict[str, object]] = {}
    for item in items:
        stated_id = item.get("id", item.get(other_name))
        number = _number_of(stated_id)
        if number is None or not 1 <= number <= count:
            notes.append(Note("dropped", f"an item with the id {str(stated_id)[:20]!r}"))
            continue
        first_of_id = item_by_id.setdefault(number, item)
        if first_of_id != item:
            raise UnreadableReply(f"id {number} has two answers that differ.", "several answers")
    return item_by_id, notes


def all_of(
    answer_by_id: Mapping[int, T],
    count: int,
    what: str,  # an answer's name in the error's text
    notes: Sequence[Note],
) -> list[T]:
    """Return the answers in the order of their ids, from 1 to `count`. None may be missing."""
    ids = range(1, count + 1)
    missing = [number for number in ids if number not in answer_by_id]
    if not missing:
        return [answer_by_id[number] for number in ids]
    complaint = f"{what} is missing for id {', '.join(map(str, missing[:_MOST_IDS]))}."
    if is_cut_off(notes):
        raise TruncatedReply(complaint)
    raise UnreadableReply(complaint)


def read_region_indices(value: object, count: int) -> tuple[list[int], list[Note]]:
    """Return the indices of the regions that ids name: [2, 0] for [3, 1, 1]; and notes."""
    if value is None:
        return [], []
    items = value if isinstance(value, list) else [value]
    indices: list[int] = []
    notes: list[Note] = []
    for item in items:
        number = _number_of(item)
        if number is not None and 1 <= number <= count:
            indices.append(number - 1)
        else:
            notes.append(Note("dropped", "a region id that was not asked about"))
    return list(dict.fromkeys(indices)), notes


def _number_of(stated_id: object) -> int | None:
    match = _ID.fullmatch(stated_id) if isinstance(stated_id, str) else None
    return whole_number(stated_id if match is None else match[1])


def text_of(value: object) -> str:
    """Return a string single-spaced; "" for a value that is none."""
    return " ".join(value.split()) if isinstance(value, str) else ""


def data_text(value: object) -> str:
    """Return a text as a column has it, without markup; "" for a value such as a refusal."""
    text = without_markup(text_of(value))
    return "" if is_no_text(text) else text


def data_phrase(value: object) -> str:
    """Return a phrase as a column has it; "" for a value that names nothing."""
    text = data_text(value)
    return "" if is_no_phrase(text) else text


class Described(NamedTuple):
    """What a region shows; `type` and `color` are "" where the model doesn't say."""

    type: str
    color: str
    description: str


def region_expression(image: Image, regions: Sequence[Region]) -> Request[list[Described]]:
    """Make the request for what each region shows; the answer has a Described for each."""
    question = {
        "image": size_of(image),
        "regions": [Region(region.bbox, region.type) for region in regions],
    }
    schema = object_of(
        regions=list_of(object_of(id=INTEGER, type=STRING, color=STRING, description=STRING))
    )

    return request_about(
        "region_expression",
        image,
        question,
        schema,
        partial(_read_described, count=len(regions)),
        divisible=len(regions) > 1,
    )


def _read_described(reply: str, count: int) -> tuple[list[Described], list[Note]]:
    item_by_id, notes = read_by_id(reply, "regions", count, "region_id")
    described_by_id: dict[int, Described] = {}
    for number, item in item_by_id.items():
        description = data_phrase(item.get("description"))
        if description:
            region_type = data_text(item.get("type"))
            described_by_id[number] = Described(region_type, _color_of(item), description)
    return all_of(described_by_id, count, "the description", notes), notes


def _color_of(item: Mapping[str, object]) -> str:
    color = item.get("color")
    if isinstance(color, list):
        return " and ".join(filter(None, map(data_text, color)))
    return data_text(color)


class Merged(NamedTuple):
    """An expression and the regions that it names, as indices into the request's, from 0."""

    text: str
    places: list[int]


def grounding_expression(
    image: Image, caption: str | None, regions: Sequence[Region]
) -> Request[list[Merged]]:
    """Make the request for expressions that each name at least one of `regions`."""
    described: list[Region] = []
    for region in regions:
        color, description = region.color or "", region.description or ""
        described.append(Region(region.bbox, region.type, color, description))
    question = {"caption": caption, "regions": described}
    schema = object_of(expressions=list_of(object_of(text=STRING, region_ids=list_of(INTEGER))))

    return request_about(
        "grounding_expression",
        image,
        question,
        schema,
        partial(_read_merged, region_count=len(regions)),
        divisible=len(regions) > 1,
    )


def _read_merged(reply: str, region_count: int) -> tuple[list[Merged], list[Note]]:
    items, notes = read_items(reply, "expressions")
    if is_cut_off(notes):
        raise TruncatedReply("the reply is cut off before its last expression.")
    expressions: list[Merged] = []
    for item in items:
        stated_ids = item.get("region_ids", item.get("region_id"))
        places, notes_on_ids = read_region_indices(stated_ids, region_count)
        notes += notes_on_ids
        text = data_phrase(item.get("text"))
        if not text:
            notes.append(Note("dropped", "an expression without text"))
        elif not places:
            notes.append(Note("dropped", "an expression without a region"))
        else:
            expressions.append(Merged(text, places))
    _check_no_region_is_lost(expressions, len(items), region_count)
    return expressions, notes


def _check_no_region_is_lost(
    expressions: Sequence[Merged], item_count: int, region_count: int
) -> None:
    if not expressions:
        raise UnreadableReply(
            'no item of "expressions" has a "text" and the id of a region in "region_ids".'
        )
    # An item that can't be used may have named any region. Where each region is named by another
    # item, none is lost.
    has_useless_items = len(expressions) < item_count
    named_places = {place for expression in expressions for place in expression.places}
    if has_useless_items and len(named_places) < region_count:
        raise UnreadableReply('an item of "expressions" has no "text", or names no region.')


class Check(NamedTuple):
    """What a model says of an expression."""

    matches: bool | None  # None if the model can't tell
    text: str  # as it should be; "" where the reply has none
    places: list[int]  # as indices into the request's regions, from 0


def double_check(
    image: Image,
    expressions: Sequence[Merged],
    regions: Sequence[Instance | Region],
) -> Request[list[Check]]:
    """Make the request whether each expression is right; the answer has a Check for each.

    A serving that sees no pictures is given the regions' types; other regions are boxes alone.
    """
    items: list[dict[str, object]] = []
    for number, expression in enumerate(expressions, 1):
        region_ids = [place + 1 for place in expression.places]
        items.append({"id": number, "text": expression.text, "region_ids": region_ids})
    question = {"expressions": items, "regions": regions}
    check = object_of(id=INTEGER, matches=BOOLEAN, region_ids=list_of(INTEGER), text=STRING)

    schema = object_of(checks=list_of(check))
    return request_about(
        "double_check",
        image,
        question,
        schema,
        partial(_read_checks, expressions=expressions, region_count=len(regions)),
        divisible=len(expressions) > 1,
    )


def _read_checks(
    reply: str, expressions: Sequence[Merged], region_count: int
) -> tuple[list[Check], list[Note]]:
    count = len(expressions)
    item_by_id, notes = read_by_id(reply, "checks", count)
    check_by_id: dict[int, Check] = {}
    for number, item in item_by_id.items():
        expression = expressions[number - 1]
        check_by_id[number], notes_on_check = _check_of(item, number, expression, region_count)
        notes += notes_on_check
    for number in _ids_with_text_of_another(check_by_id, expressions):
        check_by_id[number] = check_by_id[number]._replace(matches=None)
        notes.append(Note("contradiction", "one text is given for different regions"))
    return all_of(check_by_id, count, "the check", notes), notes


def _read_matches(item: Mapping[str, object], number: int) -> bool | None:
    """True for "yes"; None for null: the model can't tell."""
    value = item.get("matches", "")
    if isinstance(value, str):
        value = _TRUTHS.get(value.strip().lower(), "")
    if value is not None and not isinstance(value, bool):
        raise UnreadableReply(f'"matches" of id {number} is neither true nor false.')
    return value


def _check_of(
    item: Mapping[str, object], number: int, expression: Merged, region_count: int
) -> tuple[Check, list[Note]]:
    stated_ids = item.get("region_ids")
    places, notes = read_region_indices(stated_ids, region_count)
    text = data_phrase(item.get("text"))
    if says_none(text, [expression.text]):  # "no red car" is no better text for "the red car"
        text = ""
    check = Check(_read_matches(item, number), text, places)
    if check.matches and _is_contradicted(check, stated_ids, expression):
        notes.append(Note("contradiction", "an expression matches, and should be another"))
        check = check._replace(matches=None)
    return check, notes


def _is_contradicted(check: Check, stated_ids: object, expression: Merged) -> bool:
    """Whether the rest of a check denies that the expression matches."""
    # It names other regions. A model that mends nothing may leave ids and text empty.
    is_empty = stated_ids == [] and not check.text
    names_regions = stated_ids is not None and not is_empty
    if names_regions and set(check.places) != set(expression.places):
        return True
    # It names another thing.
    is_same_text = not check.text or folded(check.text) == folded(expression.text)
    return not is_same_text and not fits_phrase(check.text, expression.text)


def _ids_with_text_of_another(
    check_by_id: Mapping[int, Check], expressions: Sequence[Merged]
) -> list[int]:
    """The checks that mend texts to one for other regions: "the blue car" for two cars."""
    places_by_text: dict[str, set[frozenset[int]]] = {}  # of all expressions, once mended
    mended_texts: dict[int, str] = {}
    for number, check in check_by_id.items():
        text, places = expressions[number - 1]
        if check.matches is False:
            if check.text and folded(check.text) != folded(text):
                mended_texts[number] = folded(check.text)
            # The check has only what it mends.
            text = check.text or text
            places = check.places or places
        places_by_text.setdefault(folded(text), set()).add(frozenset(places))
    return [number for number, text in mended_texts.items() if len(places_by_text[text]) > 1]
