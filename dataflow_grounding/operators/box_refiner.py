"""Operator: small boxes looked for again in enlarged crops."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from dataflow_grounding.boxes.geometry import Bbox, Size, without_duplicates
from dataflow_grounding.boxes.regions import check_stated_size
from dataflow_grounding.data.expressions import Expression, Instance, read_expressions
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.workers import all_done
from dataflow_grounding.images.shown import ImageCrop, crop_around
from dataflow_grounding.operators._agreement import ask_until_agreed
from dataflow_grounding.operators._expressions import boxes_of, with_bbox_ids
from dataflow_grounding.operators._nearness import middle_of
from dataflow_grounding.operators.box_operator import BoxOperator
from dataflow_grounding.operators.operator_base import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    open_image,
)
from dataflow_grounding.tasks.grounding import Found

SMALL = 0.03
"""A box is small where its width and height are both under this share of the image's."""
SMALL_OF_SEVERAL = 0.035
"""SMALL where several answers are asked for: noise makes the boxes of some small things that large.
"""


@OPERATOR_REGISTRY.register()
class BoxRefiner(BoxOperator):
    """Looks again for small boxes in an enlarged part of the image.

    A box is small where both of its sides are under 3% of the image's. With several `samples` it is
    3.5%, and answers that find something are merged as by PhraseGrounder; the first, just over
    half, suffice where they agree. A box whose part shows no such thing stays. Raises SpecError for
    a wrong setting, or a model that draws no boxes.

    Args:
        serving, samples, box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Example:
        >>> from dataflow_grounding import BoxRefiner, EmbeddedServing, PhraseGrounder
        >>> serving = EmbeddedServing()
        >>> row = {"image_path": "small.png", "expressions": ["the red square"]}
        >>> record = PhraseGrounder(serving)(row)
        >>> [instance] = BoxRefiner(serving)(record)["expressions"][0]["instances"]
        >>> instance["bbox"], instance["zoomed"]
        ([300, 200, 334, 234], True)
    """

    name = "box_refinement"
    uncounted = "requests about small boxes"
    descriptions = {"zh": "在图像的局部放大区域中重新定位较小的边界框。"}

    def asks(self, record: Record) -> bool:
        """Whether a record has small boxes."""
        boxes = []
        for expression in read_expressions(record, self.keys.expressions):
            boxes += boxes_of(expression.instances)
        if not boxes:
            return False
        size = open_image(record, self.keys.image).size
        return any(_is_small(bbox, size, self.samples) for bbox in boxes)

    def requests_for(self, record: Record) -> int:
        """Return 0: how many boxes are small is known once a model has found them."""
        return 0

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the expressions, with `zoomed: true` in `instances` found in a crop.

        Raises RecordError where an answer can't be had, or the record states another size than its
        image has.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        check_stated_size(record, image.size, image.file.path)
        refined: list[Expression] = []
        for expression in expressions:
            refined.append(await self._refine(expression, image, ask))
        return {self.keys.output: refined}

    async def _refine(self, expression: Expression, image: Image, ask: Ask) -> Expression:
        # Ids number an expression's boxes, and `closer` may merge some of these.
        before = [instance.without("bbox_id") for instance in expression.instances]
        refined = await self._closer(image, expression.text, before, ask)
        if all(instance in before for instance in refined):  # nothing is new
            return expression
        # A verdict, if there is one, is on the former boxes.
        unverified = expression.without("verified", "verification")
        return replace(unverified, instances=with_bbox_ids(expression, refined))

    async def _closer(
        self,
        image: Image,
        phrase: str,
        instances: Sequence[Instance],
        ask: Ask,
    ) -> list[Instance]:
        """Return instances with the small ones asked for again in an enlarged part of the image.
        Where some are nearly the same then, by `merge_iou`, the one with the best score stays.
        """
        look_closer = partial(self._look_closer, image, phrase, ask)
        results = await all_done(map(look_closer, instances))
        # Two boxes of one thing may become the very same. One is enough, also where `merge_iou` is
        # None, which keeps those that are nearly the same.
        different: list[Instance] = []
        for result in results:
            if result not in different:
                different.append(result)
        staying = without_duplicates(different, self.merge_iou)
        for _ in range(len(different) - len(staying)):
            ask.note("merged", "small boxes that are nearly the same when enlarged")
        return staying

    async def _look_closer(
        self,
        image: Image,
        phrase: str,
        ask: Ask,
        instance: Instance,
    ) -> Instance:
        if not _is_small(instance.bbox, image.size, self.samples):
            return instance
        crop = crop_around(image, instance.bbox)

        async def ask_once(index: int) -> Found:
            [answer] = await self.ground(crop, [phrase], ask, index)
            return answer

        answer = await ask_until_agreed(ask_once, self.samples, crop.size)
        return _with_nearest_box(instance, crop, answer)


def _is_small(bbox: Bbox, size: Size, samples: int) -> bool:
    largest_share = SMALL if samples == 1 else SMALL_OF_SEVERAL
    x1, y1, x2, y2 = bbox
    width, height = size
    share_of_width = (x2 - x1) / width
    share_of_height = (y2 - y1) / height
    return share_of_width < largest_share and share_of_height < largest_share


def _with_nearest_box(instance: Instance, crop: ImageCrop, answer: Found) -> Instance:
    """Return the instance with the answer's box nearest to its own."""
    if not answer.instances:
        return instance
    # The crop may show other things that the phrase fits, too.
    boxes = [crop.to_image(candidate.bbox) for candidate in answer.instances]
    own_middle = middle_of(instance.bbox)
    distances = [math.dist(middle_of(box), own_middle) for box in boxes]
    nearest = distances.index(min(distances))  # its index among the answer's boxes
    score = instance.score  # it stays, if there is one
    if score is None:
        score = answer.instances[nearest].score
    x1, y1, x2, y2 = [int(edge) for edge in boxes[nearest]]
    return replace(instance.moved((x1, y1, x2, y2)), score=score, zoomed=True)
