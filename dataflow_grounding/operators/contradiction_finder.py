"""Operator: phrases that their own boxes contradict, found without a model."""

import asyncio
from functools import partial
from typing import Any

from dataflow_grounding._util.extensions import required
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Image, Operator, open_image

CONTRADICTION = "contradiction"
"""The key of an expression that says in words why its boxes can't be what its text says."""


@OPERATOR_REGISTRY.register()
class ContradictionFinder(Operator):
    """Notes where the words of an expression and its boxes contradict each other.

    "Two dogs" with three boxes, "the cup on the left" on the right, "the second cup from the left"
    with two before it, "the largest cup" beside a larger one, "the red cup" in a box without red.
    It asks no model. English is read by closed lists of words: those that aren't known say nothing,
    and what isn't clear isn't told.

    Example:
        >>> from dataflow_grounding import ContradictionFinder
        >>> boxes = [{"bbox": [300, 200, 500, 400]}]
        >>> row = {"image_path": "square.png"}
        >>> row["expressions"] = [{"text": "two red squares", "instances": boxes}]
        >>> ContradictionFinder()(row)["expressions"][0]["contradiction"]
        '2 are said, 1 box is there'
    """

    name = "contradictions"
    input_keys = {"image": "image_path", "expressions": "expressions"}
    output_keys = {"expressions": "expressions"}
    descriptions = {"zh": "不询问模型,标注文字与边界框相互矛盾的指代表达式。"}

    def __init__(self) -> None:
        required("contradictions", "embedded", "ContradictionFinder")  # told now, not a row later

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds `contradiction` to expressions that have one, and `doubtful: true` to their record.

        One that an earlier run has noted goes where there is none any more. Without any,
        `doubtful` isn't set.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image)
        find = required("contradictions", "embedded", "ContradictionFinder")
        found = await asyncio.to_thread(find, expressions, image.size, partial(_pixels_of, image))
        reasons = {contradiction.index: contradiction.reason for contradiction in found}
        noted = []
        for index, expression in enumerate(expressions):
            kept = {name: value for name, value in expression.items() if name != CONTRADICTION}
            if index in reasons:
                kept[CONTRADICTION] = reasons[index]
            noted.append(kept)
        update: Update = {self.keys.expressions: noted}
        if reasons:
            update["doubtful"] = True
        return update


def _pixels_of(image: Image) -> Any:
    """Return an upright picture as a NumPy array of rows x columns x (blue, green, red)."""
    import numpy

    with image.decoded() as picture:
        return numpy.ascontiguousarray(numpy.asarray(picture)[:, :, ::-1])
