"""The columns that the engine adds to those that an operator returns."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dataflow_grounding.data.expressions import read_expressions
from dataflow_grounding.data.records import (
    DOUBT,
    REMARK,
    ROW_OF_IMAGE,
    JsonObject,
    Record,
    Update,
    has_id,
    whole_number,
)
from dataflow_grounding.data.remarks import joined_remarks
from dataflow_grounding.engine.plan import SUSPECT, Ask

if TYPE_CHECKING:
    from dataflow_grounding.boxes.geometry import Size
    from dataflow_grounding.serving.serving import Serving
    from dataflow_grounding.tasks.grounding import Found


def image_columns(record: Record, size: "Size", ask: Ask, serving: "Serving | None") -> Update:
    """Return the columns that say which picture a record has, and who answers if no VLM does."""
    update: Update = {}
    if record.occurrence:
        update[ROW_OF_IMAGE] = record.occurrence + 1
    if record.image_id is not None and not has_id(record.get("image_id")):
        update["image_id"] = record.image_id
    for name, pixels in zip(("width", "height"), size, strict=True):
        update[name] = pixels
        stated = record.get(name)
        if stated not in (None, "") and whole_number(stated) != pixels:
            ask.note("size_differs", "the row states another width or height than the file has")
    if serving is not None and not serving.is_vlm:
        update["model"] = serving.model
    return update


def doubt_columns(record: JsonObject, answers: "Iterable[Found]") -> Update:
    """Return `doubtful` and `doubt` (why); those of earlier answers are cleared."""
    of_reply = ""  # the first doubt about a whole reply
    of_boxes = ""  # the first one about a phrase's own boxes
    for answer in answers:
        of_reply = of_reply or answer.doubt
        of_boxes = of_boxes or answer.own_doubt
    doubt = of_reply or of_boxes
    cleared: Update = {"doubtful": False, DOUBT: None}
    update = {name: value for name, value in cleared.items() if name in record}
    if doubt:
        update |= {"doubtful": True, DOUBT: doubt}
    if SUSPECT in record:  # of earlier boxes: if these are suspect, too, the run sets it at its end
        update[SUSPECT] = False
    return update


def remark_column(
    record: Record, remarks: Sequence[str], earlier: str, *, is_found: bool
) -> Update:
    """Return `remark`: what replies say next to their answers, with that of `earlier` steps.

    Where the record's phrases are looked for again, it replaces an earlier run's.
    """
    if not remarks and REMARK not in record:
        return {}
    stated = record.get(REMARK)
    is_replaced = is_found and not earlier and _was_grounded(record)
    kept = [stated] if isinstance(stated, str) and not is_replaced else []
    if remarks:
        return {REMARK: joined_remarks([*kept, *remarks])}
    return {REMARK: None} if is_replaced else {}


def _was_grounded(record: Record) -> bool:
    """Return whether a step has looked for some expression before: then it has a status."""
    if not isinstance(record.get("expressions"), list):
        return False
    return any(each.status is not None for each in read_expressions(record, "expressions"))
