"""Task `double_check`: whether expressions mean the regions that they are said to mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.errors import UnreadableReply
from dataflow_grounding.images import Image
from dataflow_grounding.replies import Note
from dataflow_grounding.tasks.regions import Region, all_of, read_by_id, read_ids, region_items, region_prompt, text_of
from dataflow_grounding.tasks.request import BOOLEAN, INTEGER, STRING, Request, list_of, object_of

_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True)
class Asked:
    """An expression to judge; `places` are the indices of its regions in the request, from 0."""

    text: str
    places: Sequence[int]


@dataclass(frozen=True)
class Check:
    """A judgement: `matches` is None if the model can't tell; `text` and `places` are what should be there instead."""

    matches: bool | None
    text: str
    places: list[int]
    reason: str


def double_check(
    image: Image,
    expressions: Sequence[Asked],
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
        {"id": number, "text": expression.text, "region_ids": [place + 1 for place in expression.places]}
        for number, expression in enumerate(expressions, 1)
    ]
    item = object_of(id=INTEGER, matches=BOOLEAN, region_ids=list_of(INTEGER), text=STRING, reason=STRING)
    return Request(
        task="double_check",
        input={"expressions": asked, "regions": region_items(regions, image, box_format, texts)},
        images=(image,),
        instructions=region_prompt("double_check", image, box_format),
        schema=object_of(checks=list_of(item)),
        read=lambda reply: _read(reply, len(expressions), len(regions)),
        divisible=len(expressions) > 1,
    )


def _read(reply: str, count: int, regions: int) -> tuple[list[Check], list[Note]]:
    items, notes = read_by_id(reply, "checks", count)
    found = {}
    for number, item in items.items():
        ids, more = read_ids(item.get("region_ids"), regions)
        notes += more
        places = [i - 1 for i in ids]
        found[number] = Check(_matches(item, number), text_of(item.get("text")), places, text_of(item.get("reason")))
    return all_of(found, count, "the check", notes), notes


def _matches(item: Mapping[str, Any], number: int) -> bool | None:
    value = item.get("matches", "")
    if isinstance(value, str):
        value = _TRUTHS.get(value.strip().lower(), "")
    if value is not None and not isinstance(value, bool):
        raise UnreadableReply(f'"matches" of id {number} is neither true nor false.')
    return value
