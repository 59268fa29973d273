"""An operator: how much of the picture each expression's boxes cover. It asks nothing, so it costs
nothing.

    operator = BoxShare()
    # in a pipeline, after a PhraseGrounder
    operator.run(storage.step(), input_expressions_key="expressions")
    # on one record, a list of them, or a DataFrame
    operator({"expressions": [...], "width": 640, "height": 480})
"""

from __future__ import annotations

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    Ask,
    Operator,
    Record,
    Update,
    area,
    read_expressions,
)


@OPERATOR_REGISTRY.register()
class BoxShare(Operator):
    """Adds `box_share` to each expression: the area of its boxes as a share of the picture's, 0 to
    1.
    """

    name = "box_share"
    input_keys = {"expressions": "expressions", "width": "width", "height": "height"}
    output_keys = {"output": "expressions"}
    descriptions = {"en": "Adds the share of the picture that each expression's boxes cover."}

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Fills in the column. Raises BrokenRow where it holds anything but expressions."""
        picture = record[self.keys.width] * record[self.keys.height]
        rows = []
        for expression in read_expressions(record, self.keys.expressions):
            covered = sum(area(box.bbox) for box in expression.instances)
            rows.append({**expression.to_json(), "box_share": round(covered / picture, 4)})
        return {self.keys.output: rows}
