"""Operator: where phrases that may be absent would be in the image."""

from typing import Any

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.data.records import Record, Update, read_expressions
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._box_groups import WHOLE
from dataflow_grounding.operators._candidates import BEYOND_A_CROP, COLUMN
from dataflow_grounding.operators._expressions import with_bbox_ids
from dataflow_grounding.operators._nearness import batched
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, facts_of, open_image
from dataflow_grounding.operators.box_operator import BoxOperator

PHRASES_AT_ONCE = 16  # phrases of one request


@OPERATOR_REGISTRY.register()
class NegativeGrounder(BoxOperator):
    """Asks where the candidates of a NegativePhraser are, so that a judge can look there.

    A box is no evidence that a phrase is there, as most models box whatever they are asked for; and
    that there is none is no evidence that it isn't. A candidate without a box gets that of the
    whole image, where the judge says whether its thing is anywhere in there. So does one whose
    relation or number was changed, of which crops tell nothing.

    Args:
        serving: The model that finds boxes.
        box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, NegativeGrounder
        >>> row = {"image_path": "square.png"}
        >>> row["negative_candidates"] = ["the blue square", "the red square"]
        >>> made = NegativeGrounder(EmbeddedServing())(row)["negative_candidates"]
        >>> [candidate["instances"][0]["bbox"] for candidate in made]
        [[0, 0, 800, 600], [300, 200, 500, 400]]
    """

    name = "negative_grounding"
    input_keys = {"image": "image_path", "expressions": COLUMN}
    output_keys = {"output": COLUMN}
    descriptions = {"zh": "定位负样本候选短语可能对应的区域,供评判模型核对。"}

    def asks(self, record: Record) -> bool:
        """Whether a record has candidates."""
        return bool(read_expressions(record, self.keys.expressions))

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds the candidates with `instances`, at least one each.

        The update is Partial where an answer can't be had: then the record has no candidates any
        more.
        """
        candidates = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        facts = facts_of(record, image, ask, self.serving)
        whole: dict[str, Any] = {"bbox": [0, 0, *image.size], WHOLE: True}
        grounded = []
        for batch in batched(candidates, PHRASES_AT_ONCE):
            texts = [candidate["text"] for candidate in batch]
            try:
                answers = await self.ground(image, texts, ask)
            except RecordError as error:
                return Partial({**facts, self.keys.output: []}, error)
            for candidate, answer in zip(batch, answers, strict=True):
                instances = list(answer.instances)
                if not instances or candidate.get("change") in BEYOND_A_CROP:
                    instances.append(whole)
                grounded.append({**candidate, "instances": with_bbox_ids(candidate, instances)})
        return {**facts, self.keys.output: grounded}
