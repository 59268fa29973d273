"""Pipeline `image_grounding`: image and caption in, expressions with spans and boxes out."""

from __future__ import annotations

from typing import Any

from dataflow_grounding.operators import ExpressionExtractor, PhraseGrounder
from dataflow_grounding.pipelines.base import Pipeline
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.storage import ResultsStorage


class ImageGroundingPipeline(Pipeline):
    """Step 0 finds the referring expressions of each caption, step 1 their boxes; `grounding` are PhraseGrounder's settings."""

    name = "image_grounding"

    def __init__(self, storage: ResultsStorage, serving: Serving, **grounding: Any) -> None:
        self.storage = storage
        self.extractor = ExpressionExtractor(serving)
        self.grounder = PhraseGrounder(serving, **grounding)

    def forward(self) -> None:
        """Both steps, one after the other."""
        self.extractor.run(self.storage.step(), input_image_key="image_path", input_caption_key="caption")
        self.grounder.run(self.storage.step(), input_image_key="image_path", input_expressions_key="expressions")
