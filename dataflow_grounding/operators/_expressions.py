"""What operators read of expressions and regions, and how expressions come into a record."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.boxes.regions import boxes_reach_out
from dataflow_grounding.data.expressions import Expression, Instance, Region
from dataflow_grounding.data.records import Record, expression_id
from dataflow_grounding.english.spans import find_spans
from dataflow_grounding.operators.operator_base import Ask
from dataflow_grounding.tasks.extraction import Extracted
from dataflow_grounding.tasks.grounding import Found

EXTRACTED = ("expression_id", "text", "char_span", "caption_span", "noun_chunk", "instances")
"""The keys of an expression that was found in a caption, null where it has no value for one."""


def boxes_of(items: Iterable[Instance | Region]) -> list[Bbox]:
    """Return the boxes of regions or instances, in order."""
    return [item.bbox for item in items]


def texts_of(expressions: Iterable[Expression]) -> list[str]:
    """Return the texts of expressions, in order."""
    return [expression.text for expression in expressions]


def any_has_boxes(expressions: Iterable[Expression]) -> bool:
    """Whether any of the expressions has a box."""
    return any(expression.instances for expression in expressions)


def within_image(expression: Expression, size: Size) -> Expression:
    """Return a checked expression, `verified` false where a box reaches out of the image."""
    if expression.verified is not True or expression.verification is None:
        return expression
    # A model that is shown such a box sees the part that is inside, and may say that it fits.
    reach = boxes_reach_out(boxes_of(expression.instances), size)
    if not reach:
        return expression
    reason = f"a box reaches {reach:g} px out of the image"
    verification = replace(expression.verification, reason=reason)
    return replace(expression, verified=False, verification=verification)


def extracted_expressions(
    record: Record, caption: str, extracted: Extracted, ask: Ask
) -> list[Expression]:
    """Return the expressions of a caption as they go into its record, in the model's order.

    `char_span` is [start, end) in the cleaned caption, `caption_span` that in the caption as given.
    Either is None where the text doesn't occur, or equal expressions before it have taken all of
    its occurrences.
    """
    texts = [expression.text for expression in extracted.expressions]
    spans = find_spans(texts, extracted.cleaned_caption)
    caption_spans = find_spans(texts, caption)  # in the caption as given
    expressions: list[Expression] = []
    for number, (text, noun_chunk) in enumerate(extracted.expressions):
        span = spans[number]
        caption_span = caption_spans[number]
        if span is None and caption_span is None:
            ask.note("not_in_caption", "an expression that the caption doesn't hold")
        elif span is None:
            ask.note("not_in_cleaned_caption", "an expression that only the caption as given holds")
        expressions.append(
            Expression(
                text,
                expression_id(record, number),
                char_span=span,
                caption_span=caption_span,
                noun_chunk=noun_chunk,
                keys=EXTRACTED,
            )
        )
    return expressions


def with_answers(
    expressions: Sequence[Expression], answers: Sequence[Found], ask: Ask
) -> list[Expression]:
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


def _with_answer(expression: Expression, answer: Found) -> Expression:
    grounded = expression.with_new_boxes(with_bbox_ids(expression, answer.instances))
    grounded.status = answer.status
    grounded.disagreement = answer.disagreement
    grounded.reason = answer.reason or None
    # `own_doubt` is about this expression's boxes. `doubt`, about the whole reply, is the record's.
    if answer.own_doubt:
        grounded.doubtful, grounded.doubt = True, answer.own_doubt
    return grounded


def with_bbox_ids(expression: Expression, instances: Iterable[Instance]) -> list[Instance]:
    """Return copies of instances with a `bbox_id`: their own, or the expression's and a number."""
    with_ids: list[Instance] = []
    for number, instance in enumerate(instances):
        with_id = instance.copy()
        with_id.bbox_id = instance.bbox_id or f"{expression.expression_id}.{number}"
        with_ids.append(with_id)
    return with_ids
