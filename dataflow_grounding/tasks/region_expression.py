"""Task `region_expression`: type, colour and description of each region."""

from collections.abc import Sequence
from dataclasses import dataclass

from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.images import Image
from dataflow_grounding.replies import Note
from dataflow_grounding.tasks.regions import Region, all_of, read_by_id, region_items, region_prompt, text_of
from dataflow_grounding.tasks.request import INTEGER, STRING, Request, list_of, object_of


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
        read=lambda reply: _read(reply, len(regions)),
        divisible=len(regions) > 1,
    )


def _read(reply: str, count: int) -> tuple[list[Described], list[Note]]:
    items, notes = read_by_id(reply, "regions", count)
    found = {}
    for number, item in items.items():
        description = text_of(item.get("description"))
        if description:
            found[number] = Described(text_of(item.get("type")), text_of(item.get("color")), description)
    return all_of(found, count, "the description", notes), notes
