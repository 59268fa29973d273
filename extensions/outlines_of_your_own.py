"""An operator: the outline of each box, by SAM 2 in this process. It asks nothing of a serving.

    operator = BoxOutlines("facebook/sam2.1-hiera-tiny")
    operator.run(storage.step())  # in a pipeline, after a PhraseGrounder
    operator({"expressions": [...], "image_path": "a.jpg"})  # one record, a list or a DataFrame

It needs torch, torchvision and transformers: pip install 'dataflow-grounding[local]'.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    Ask,
    Instance,
    Operator,
    Record,
    Update,
    open_image,
    read_expressions,
)


@OPERATOR_REGISTRY.register()
class BoxOutlines(Operator):
    """Sets `outline` of each box, a polygon in pixels of the upright picture: that of the largest
    part that the model finds. A box for which it finds nothing has none.
    """

    name = "box_outlines"
    input_keys = {"image": "image_path", "expressions": "expressions"}
    output_keys = {"output": "expressions"}
    descriptions = {"en": "Sets the outline of each box, by SAM 2."}

    def __init__(self, model: str, device: str = "cpu") -> None:
        self.model = model
        self.device = device
        self._loaded: Any = None
        self._turn = threading.Lock()  # one picture at a time

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Fills in the column. Raises BrokenRow where it holds anything but expressions."""
        expressions = read_expressions(record, self.keys.expressions)
        boxes = [box for expression in expressions for box in expression.instances]
        if not boxes:
            return {self.keys.output: expressions}
        image = open_image(record, self.keys.image)
        found = await asyncio.to_thread(self._in_turn, image, [box.bbox for box in boxes])
        masks = iter(found)
        for expression in expressions:
            expression.instances = [_with_outline(box, next(masks)) for box in expression.instances]
        return {self.keys.output: expressions}

    def _in_turn(self, image: Any, boxes: list[Any]) -> list[Any]:
        with self._turn:
            return self._masks(image, boxes)

    def _masks(self, image: Any, boxes: list[Any]) -> list[Any]:
        # These take seconds to import, and few runs need them.
        import torch  # pyright: ignore[reportMissingImports]
        from transformers import (  # pyright: ignore[reportMissingImports]
            Sam2Model,
            Sam2Processor,
        )

        if self._loaded is None:
            loaded: Any = Sam2Model.from_pretrained(self.model)
            model = loaded.to(self.device).eval()
            self._loaded = (Sam2Processor.from_pretrained(self.model), model)
        processor, model = self._loaded
        with image.decoded() as picture:
            corners = [[[float(edge) for edge in box] for box in boxes]]
            inputs = processor(images=picture, input_boxes=corners, return_tensors="pt")
        with torch.inference_mode():
            outputs = model(**inputs.to(self.device), multimask_output=False)
        masks = processor.post_process_masks(outputs.pred_masks.cpu(), inputs["original_sizes"])
        return [mask[0].numpy() for mask in masks[0]]


def _with_outline(box: Instance, inside: Any) -> Instance:
    box = box.without("outline")  # an earlier one may be of an earlier box
    outline = _outline(inside)
    if len(outline) >= 6:
        box.outline = outline
    return box


def _outline(inside: Any) -> list[int]:
    """x and y in turn, around the largest part of an array that is true inside."""
    import cv2
    import numpy as np

    pixels = np.ascontiguousarray(inside, dtype=np.uint8)
    parts, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest = max(parts, key=cv2.contourArea, default=np.empty(0))
    outline: list[int] = largest.reshape(-1).tolist()
    return outline
