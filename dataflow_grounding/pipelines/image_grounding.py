"""Pipeline `image_grounding`: image and caption in, expressions with spans and boxes out."""

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_grounding.operators import BoxRefiner, BoxVerifier, ExpressionExtractor, PhraseGrounder, PhraseLister
from dataflow_grounding.operators.box_operator import BoxOperator
from dataflow_grounding.pipelines.base import Pipeline
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.storage import FileStorage


class ImageGroundingPipeline(Pipeline):
    """Expressions of each caption, then their boxes, asking `samples` times; `zoom` refines them, `verify` checks them.

    With `classes`, as PhraseLister takes them, those are looked for in every image, and no caption is needed.
    `boxes` are the settings that all who ask for boxes share.
    """

    name = "image_grounding"

    def __init__(
        self,
        storage: FileStorage,
        serving: Serving,
        *,
        classes: Sequence[str] | Mapping[str, str] = (),
        samples: int = 1,
        zoom: bool = False,
        verify: bool = False,
        **boxes: Any,
    ) -> None:
        self.storage = storage
        self.lister = PhraseLister(classes) if classes else None
        self.extractor = ExpressionExtractor(serving)
        self.grounder = PhraseGrounder(serving, samples=samples, **boxes)
        self.further: list[BoxOperator] = [BoxRefiner(serving, samples=samples, **boxes)] if zoom else []
        self.further += [BoxVerifier(serving, samples=samples, **boxes)] if verify else []

    def forward(self) -> None:
        """All steps, one after the other."""
        if self.lister is not None:
            self.lister.run(self.storage.step(), input_image_key="image_path")
        else:
            self.extractor.run(self.storage.step(), input_image_key="image_path", input_caption_key="caption")
        for asking in (self.grounder, *self.further):
            asking.run(self.storage.step(), input_image_key="image_path", input_expressions_key="expressions")
