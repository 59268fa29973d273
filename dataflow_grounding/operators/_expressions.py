"""What operators read of expressions and regions, and how expressions come into a record."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dataflow_grounding.boxes.geometry import Bbox, Size, box_of
from dataflow_grounding.boxes.regions import boxes_reach_out
from dataflow_grounding.data.records import DOUBT, Record, expression_id
from dataflow_grounding.data.spans import find_spans
from dataflow_grounding.operators.operator_base import Ask
from dataflow_grounding.tasks.extraction import Extracted
from dataflow_grounding.tasks.grounding import Found

EARLIER = ("reason", "disagreement", "verified", "verification", "doubtful", DOUBT)
"""Keys of an expression that tell of its earlier boxes, and don't hold for new ones."""


def boxes_of(items: Iterable[Mapping[str, Any]]) -> list[Bbox]:
    """Return the boxes of regions or instances, in order."""
    return [box_of(item["bbox"]) for item in items]


def texts_of(expressions: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the texts of expressions, in order."""
    return [expression["text"] for expression in expressions]


def any_has_boxes(expressions: Iterable[Mapping[str, Any]]) -> bool:
    """Whether any of the expressions has a box."""
    return any(expression["instances"] for expression in expressions)


def within_image(expression: dict[str, Any], size: Size) -> dict[str, Any]:
    """Return a checked expression, `verified` false where a box reaches out of the image."""
    if expression.get("verified") is not True:
        return expression
    # A model that is shown such a box sees the part that is inside, and may say that it fits.
    reach = boxes_reach_out(boxes_of(expression["instances"]), size)
    if not reach:
        return expression
    reason = f"a box reaches {reach:g} px out of the image"
    verification = {**expression["verification"], "reason": reason}
    return {**expression, "verified": False, "verification": verification}


def extracted_expressions(
    record: Record, caption: str, extracted: Extracted, ask: Ask
) -> list[dict[str, Any]]:
    """Return the expressions of a caption as they go into its record, in the model's order.

    `char_span` is [start, end) in the cleaned caption, `caption_span` that in the caption as given.
    Either is None where the text doesn't occur, or equal expressions before it have taken all of
    its occurrences.
    """
    texts = [expression.text for expression in extracted.expressions]
    spans = find_spans(texts, extracted.cleaned_caption)
    caption_spans = find_spans(texts, caption)  # in the caption as given
    expressions: list[dict[str, Any]] = []
    for number, (text, noun_chunk) in enumerate(extracted.expressions):
        span = spans[number]
        caption_span = caption_spans[number]
        if span is None and caption_span is None:
            ask.note("not_in_caption", "an expression that the caption doesn't hold")
        elif span is None:
            ask.note("not_in_cleaned_caption", "an expression that only the caption as given holds")
        expressions.append(
            {
                "expression_id": expression_id(record, number),
                "text": text,
                "char_span": list(span) if span else None,
                "caption_span": list(caption_span) if caption_span else None,
                "noun_chunk": noun_chunk,
                "instances": [],
            }
        )
    return expressions


def with_answers(
    expressions: Sequence[Mapping[str, Any]], answers: Sequence[Found], ask: Ask
) -> list[dict[str, Any]]:
    """Return copies of a record's expressions with the boxes and the status of its answers.

    `ask` is told of the answers: where any is doubtful, the engine makes the record `doubtful`.

    Args:
        expressions: All expressions of the record.
        answers: One for each.
        ask: The record's way to a model.
    """
    ask.found(answers)
    return [
        _with_answer(expression, answer)
        for expression, answer in zip(expressions, answers, strict=True)
    ]


def _with_answer(expression: Mapping[str, Any], answer: Found) -> dict[str, Any]:
    grounded = {name: value for name, value in expression.items() if name not in EARLIER}
    grounded["instances"] = with_bbox_ids(expression, answer.instances)
    grounded["status"] = answer.status
    if answer.disagreement is not None:  # there were several answers
        grounded["disagreement"] = answer.disagreement
    if answer.reason:
        grounded["reason"] = answer.reason
    # `own_doubt` is about this expression's boxes. `doubt`, about the whole reply, is the record's.
    if answer.own_doubt:
        grounded |= {"doubtful": True, DOUBT: answer.own_doubt}
    return grounded


def with_bbox_ids(
    expression: Mapping[str, Any], instances: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return copies of instances with a `bbox_id`: their own, or the expression's and a number."""
    own_id = expression["expression_id"]
    with_ids: list[dict[str, Any]] = []
    for number, instance in enumerate(instances):
        with_ids.append({"bbox_id": f"{own_id}.{number}", **instance})
    return with_ids
