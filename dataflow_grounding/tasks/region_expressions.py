"""Tasks `region_expression` and `grounding_expression`: regions described, and made into referring expressions."""

from collections.abc import Sequence
from dataclasses import dataclass

from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.images import Image
from dataflow_grounding.replies import Note
from dataflow_grounding.tasks.regions import (
    Region,
    all_of,
    read_by_id,
    read_ids,
    read_items,
    region_items,
    region_prompt,
    text_of,
)
from dataflow_grounding.tasks.request import INTEGER, STRING, Request, is_cut_off, list_of, object_of


@dataclass(frozen=True)
class Described:
    """What a region shows; `type` and `color` are empty where the model didn't say."""

    type: str
    color: str
    description: str


def region_expression(image: Image, regions: Sequence[Region], box_format: BoxFormat) -> Request[list[Described]]:
    """Ask what each region shows; the answer is one Described per region, in their order."""
    width, height = image.sent_size
    item = object_of(id=INTEGER, type=STRING, color=STRING, description=STRING)
    return Request(
        task="region_expression",
        input={
            "image": {"width": width, "height": height},
            "regions": region_items(regions, image, box_format, ("type",)),
        },
        images=(image,),
        instructions=region_prompt("region_expression", image, box_format),
        schema=object_of(regions=list_of(item)),
        read=lambda reply: _read_described(reply, len(regions)),
        divisible=len(regions) > 1,
    )


def _read_described(reply: str, count: int) -> tuple[list[Described], list[Note]]:
    items, notes = read_by_id(reply, "regions", count)
    found = {}
    for number, item in items.items():
        description = text_of(item.get("description"))
        if description:
            found[number] = Described(text_of(item.get("type")), text_of(item.get("color")), description)
    return all_of(found, count, "the description", notes), notes


@dataclass(frozen=True)
class Merged:
    """An expression and the regions that it names, as indices into the request's, from 0."""

    text: str
    places: list[int]


def grounding_expression(
    image: Image, caption: str | None, regions: Sequence[Region], box_format: BoxFormat
) -> Request[list[Merged]]:
    """Ask for expressions that each name at least one of `regions`."""
    item = object_of(text=STRING, region_ids=list_of(INTEGER))
    return Request(
        task="grounding_expression",
        input={
            "caption": caption,
            "regions": region_items(regions, image, box_format, ("type", "color", "description")),
        },
        images=(image,),
        instructions=region_prompt("grounding_expression", image, box_format),
        schema=object_of(expressions=list_of(item)),
        read=lambda reply: _read_merged(reply, len(regions)),
        divisible=len(regions) > 1,
    )


def _read_merged(reply: str, count: int) -> tuple[list[Merged], list[Note]]:
    items, notes = read_items(reply, "expressions")
    if is_cut_off(notes):
        raise TruncatedReply("the reply is cut off before its last expression.")
    found = []
    for item in items:
        ids, more = read_ids(item.get("region_ids"), count)
        notes += more
        text = text_of(item.get("text"))
        if text and ids:
            found.append(Merged(text, [number - 1 for number in ids]))
        else:
            notes.append(Note("dropped", f"an expression without {'a region' if text else 'text'}"))
    if not found:
        raise UnreadableReply('no item of "expressions" has a "text" and the id of a region in "region_ids".')
    return found, notes
