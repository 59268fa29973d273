"""The pipelines that a spec names: captions grounded, boxes referred to, boxes described."""

from collections.abc import Mapping, Sequence
from typing import Any

from dataflow_grounding import operators as steps
from dataflow_grounding.data.storage import FileStorage, ResultsStorage
from dataflow_grounding.operators.box_operator import BoxOperator, RegionMarks
from dataflow_grounding.operators.double_checker import Method
from dataflow_grounding.operators.region_captioner import CaptionMarks
from dataflow_grounding.pipelines.base import Pipeline
from dataflow_grounding.serving.base import Serving


class ImageGroundingPipeline(Pipeline):
    """Expressions of each caption, then their boxes, asking `samples` times; `zoom` refines them,
    `verify` checks them.

    With `classes`, as PhraseLister takes them, those are looked for in every image, and no caption
    is needed. `boxes` are the settings that all who ask for boxes share.
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
        self.lister = steps.PhraseLister(classes) if classes else None
        self.extractor = steps.ExpressionExtractor(serving)
        self.grounder = steps.PhraseGrounder(serving, samples=samples, **boxes)
        self.further: list[BoxOperator] = (
            [steps.BoxRefiner(serving, samples=samples, **boxes)] if zoom else []
        )
        self.further += [steps.BoxVerifier(serving, samples=samples, **boxes)] if verify else []

    def forward(self) -> None:
        """All steps, one after the other."""
        if self.lister is not None:
            self.lister.run(self.storage.step(), input_image_key="image_path")
        else:
            self.extractor.run(
                self.storage.step(), input_image_key="image_path", input_caption_key="caption"
            )
        for asking in (self.grounder, *self.further):
            asking.run(
                self.storage.step(),
                input_image_key="image_path",
                input_expressions_key="expressions",
            )


class ImageReferringExpressionPipeline(Pipeline):
    """Steps 0 and 1, side by side, describe regions and image; step 2 makes expressions of both,
    step 3 checks them.
    """

    name = "image_referring_expression"

    def __init__(
        self,
        storage: FileStorage,
        serving: Serving,
        *,
        method: Method = "ask",
        reground_serving: Serving | None = None,
        iou: float = 0.5,
        marks: RegionMarks = "none",
    ) -> None:
        self.storage = storage
        self.describer = steps.RegionExpressionGenerator(serving, marks=marks)
        self.captioner = steps.CaptionGenerator(serving)
        self.merger = steps.Merger(serving, marks=marks)
        self.checker = steps.DoubleChecker(serving, method, reground_serving, iou)

    def forward(self) -> None:
        """The four steps."""
        self.describer.run(
            self.storage.step(), input_image_key="image_path", input_regions_key="regions"
        )
        self.captioner.run(self.storage.step(), input_image_key="image_path")
        self.merger.run(
            self.storage.step(), input_regions_key="regions", input_caption_key="cleaned_caption"
        )
        self.checker.run(
            self.storage.step(), input_regions_key="regions", input_expressions_key="expressions"
        )


class ImageRegionCaptionPipeline(Pipeline):
    """Step 0 draws each image's boxes, numbered, into a picture in `output_dir`; step 1 describes
    what is in each.

    `proposing` are RegionMarker's further settings, for images without boxes.
    """

    name = "image_region_caption"

    def __init__(
        self,
        storage: ResultsStorage,
        serving: Serving,
        output_dir: str,
        *,
        max_boxes: int | None = 10,
        marks: CaptionMarks = "outline",
        **proposing: Any,
    ) -> None:
        self.storage = storage
        self.marker = steps.RegionMarker(
            output_dir, max_boxes, serving=serving, marks=marks, **proposing
        )
        self.captioner = steps.RegionCaptioner(serving, marks=marks)

    def forward(self) -> None:
        """Both steps, one after the other."""
        self.marker.run(self.storage.step(), input_image_key="image", input_bbox_key="bbox")
        self.captioner.run(
            self.storage.step(), input_image_key="image", input_regions_key="regions"
        )
