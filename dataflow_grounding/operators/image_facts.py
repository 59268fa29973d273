"""What operators that look at an image add to a record besides their answer."""

from typing import Any

from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images import Image
from dataflow_grounding.records import ROW_OF_IMAGE, Record, Update, has_id
from dataflow_grounding.serving.base import Serving


def facts_of(record: Record, image: Image, ask: Ask, serving: Serving | None) -> Update:
    """`image_id` where there is none, the file's size (noted where the row differs), and a non-VLM serving's name."""
    width, height = image.size
    update: Update = {}
    if record.occurrence:
        update[ROW_OF_IMAGE] = record.occurrence + 1
    if record.image_id is not None and not has_id(record.get("image_id")):
        update["image_id"] = record.image_id
    update |= {"width": width, "height": height}
    for name, value in (("width", width), ("height", height)):
        if name in record and not _same(record[name], value):
            ask.note("size_differs", "the row states another width or height than the file has")
    if serving is not None and not serving.is_vlm:
        update["model"] = serving.model
    return update


def _same(stated: Any, value: int) -> bool:
    try:
        return stated is None or stated == "" or float(stated) == value
    except (TypeError, ValueError, OverflowError):
        return False
