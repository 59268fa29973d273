"""The pipelines that a spec names: captions grounded, boxes referred to, boxes described."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dataflow_grounding import FileStorage, Operator, Pipeline, Serving, SpecError
from dataflow_grounding import operators as steps


class ImageGroundingPipeline(Pipeline):
    """Expressions of each caption, then their boxes.

    With `fuse`, both are asked for in one request. Otherwise the model is asked for the boxes of
    `phrases_per_request` phrases at once, `samples` times.

    Args:
        storage: The storage, at its first step.
        serving: The model that is asked.
        classes: What to look for in every image, as PhraseLister takes it; then no caption is
            needed.
        fuse: Whether expressions and boxes are asked for at once.
        phrases_per_request: Most phrases of a request for boxes.
        samples: Answers to each question about boxes, merged to one.
        tiles: Settings of tiles in which boxes are looked for, too (TileGrounder): `size`,
            `overlap`. None looks at the whole image alone.
        zoom: Whether small boxes are looked for again in enlarged crops (BoxRefiner).
        check: Whether the judge looks at every box, in one request an image, and what is missing is
            asked for (BoxChecker, MissingFinder).
        judge: The model that judges; None takes `serving`.
        negatives: How many negatives each image should have: phrases of what isn't in it, made up
            from its own phrases and `other_images`, and kept if `serving` finds nothing of them,
            and the judge calls them absent.
        other_images: Phrases of other images.
        proposed: Whether the records have boxes already, such as a detector's: no others are asked
            for but missing ones, and `check` is on.
        **boxes: Settings that all operators that ask for boxes share, such as `box_format`.

    Raises:
        SpecError: `fuse` is next to classes or several samples, `tiles` next to what looks at the
            whole image alone, or a setting is wrong.
    """

    name = "image_grounding"
    questions = {
        "expression_extraction": (
            "Are cleaned_caption and expressions right? Are the phrases those that you want boxed?"
        ),
        "class_list": "Are the expressions the classes, in your words, that you want boxed?",
        "grounding": (
            "Do the boxes in expressions[].instances fit? Are the scores plausible, where there are"
            " any?"
        ),
        "tile_grounding": (
            "Do the boxes in expressions[].instances fit, small ones, too? Is each thing one box?"
        ),
        "caption_grounding": (
            "Are the expressions those that you want boxed, and do the boxes fit as well as with"
            " workflow.fuse: false?"
        ),
        "box_check": "Are the boxes under rejected wrong, and those with verified: true right?",
        "negative_phrases": "Are the expressions with source: negative absent from their images?",
        "missing_search": "Are the instances with found_by things that had been missed?",
    }

    def __init__(
        self,
        storage: FileStorage,
        serving: Serving,
        *,
        classes: Sequence[str] | Mapping[str, str | Mapping[str, object]] = (),
        fuse: bool = False,
        phrases_per_request: int = 16,
        samples: int = 1,
        tiles: Mapping[str, Any] | None = None,
        zoom: bool = False,
        check: bool = False,
        judge: Serving | None = None,
        negatives: int = 0,
        other_images: Sequence[str] = (),
        proposed: bool = False,
        **boxes: Any,
    ) -> None:
        self.storage = storage
        self.proposed = proposed
        if fuse and (classes or samples > 1):
            setting = "data.classes" if classes else "workflow.samples"
            raise SpecError(
                f"workflow.fuse takes captions, and one answer to each: leave out {setting}"
            )
        if tiles is not None:
            _refuse_with_tiles(
                fuse=fuse,
                samples=samples > 1,
                check=check,
                negatives=bool(negatives),
            )
        # With `fuse`, `forward` runs the fused step alone; else the lister or the extractor, then
        # the grounder.
        self.fused = steps.CaptionGrounder(serving, **boxes) if fuse else None
        self.lister = steps.PhraseLister(classes) if classes else None
        self.extractor = steps.ExpressionExtractor(serving)
        self.grounder: Operator
        if tiles is None:
            self.grounder = steps.PhraseGrounder(
                serving, phrases_per_request=phrases_per_request, samples=samples, **boxes
            )
        else:
            self.grounder = steps.TileGrounder(
                serving, phrases_per_request=phrases_per_request, **tiles, **boxes
            )
        # Steps that look at the boxes again, in this order.
        judge = judge or serving
        self.further: list[Operator] = []
        if zoom:
            self.further.append(steps.BoxRefiner(serving, samples=samples, **boxes))
        if negatives:
            self.further.append(steps.NegativePhraser(serving, negatives, other_images, **boxes))
        checks_boxes = check or proposed  # boxes of a detector, say, are always checked
        if checks_boxes:
            self.further.append(steps.BoxChecker(judge))  # judges negatives, too
            self.further.append(steps.MissingFinder(serving, **boxes))
        elif negatives:
            self.further.append(steps.BoxChecker(judge, only_negatives=True))

    def forward(self) -> None:
        """Run the steps: expressions and boxes, then those that look at them again."""
        if self.fused is not None:
            self.fused.run(
                self.storage.step(), input_image_key="image_path", input_caption_key="caption"
            )
        elif not self.proposed:
            self._in_two_steps()
        for step in self.further:
            step.run(
                self.storage.step(),
                input_image_key="image_path",
                input_expressions_key="expressions",
            )

    def _in_two_steps(self) -> None:
        if self.lister is not None:
            self.lister.run(self.storage.step(), input_image_key="image_path")
        else:
            self.extractor.run(
                self.storage.step(), input_image_key="image_path", input_caption_key="caption"
            )
        self.grounder.run(
            self.storage.step(),
            input_image_key="image_path",
            input_expressions_key="expressions",
        )


def _refuse_with_tiles(**is_wanted_by_setting: bool) -> None:
    """Raise SpecError for the first setting of the workflow that is wanted."""
    for name, is_wanted in is_wanted_by_setting.items():
        if is_wanted:
            raise SpecError(
                f"workflow.{name} looks at the whole picture, which doesn't show what tiles find:"
                " leave it out, or workflow.tiles"
            )


class ImageReferringExpressionPipeline(Pipeline):
    """Expressions for the regions of each image.

    Steps 0 and 1, side by side, describe regions and image; step 2 makes expressions of both, step
    3 shows the model their boxes, and corrects what doesn't match (DoubleChecker). Further steps
    make `negatives` up, as in ImageGroundingPipeline, which `judge` judges. `marks` are of all that
    show regions. Raises SpecError where a setting is wrong.
    """

    name = "image_referring_expression"
    questions = {
        "region_expr": "Do type, color and description fit each region, and no other?",
        "image_caption": "Does the caption name what matters, and nothing that is not there?",
        "grounding_expr": "Does each expression mean its regions alone?",
        "negative_phrases": "Are the expressions with source: negative absent from their images?",
        "double_check": (
            "Are the expressions with verified: false wrong, and those with true right?"
        ),
    }

    def __init__(
        self,
        storage: FileStorage,
        serving: Serving,
        *,
        judge: Serving | None = None,
        marks: Literal["none", "outline"] = "none",
        negatives: int = 0,
        other_images: Sequence[str] = (),
    ) -> None:
        judge = judge or serving
        self.storage = storage
        self.describer = steps.RegionExpressionGenerator(serving, marks=marks)
        self.captioner = steps.CaptionForRegions(serving)
        self.merger = steps.Merger(serving, marks=marks)
        self.checker = steps.DoubleChecker(serving)
        self.negating: list[Operator] = []
        if negatives:
            self.negating = [
                steps.NegativePhraser(serving, negatives, other_images),
                steps.BoxChecker(judge, only_negatives=True),
            ]

    def forward(self) -> None:
        """Run the steps: describe regions, caption, merge, check; then those of negatives."""
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
        for step in self.negating:
            step.run(self.storage.step(), input_image_key="image_path")


class ImageRegionCaptionPipeline(Pipeline):
    """Captions of the regions of each image.

    Step 0 draws each image's boxes, numbered, into a picture in `output_dir`; step 1 describes what
    is in each. `proposing` are RegionMarker's further settings, for images without boxes.
    `output_columns` are other names for the steps' columns, by their own: {"prompt":
    "region_prompt"} where the rows have a `prompt`.
    """

    name = "image_region_caption"

    def __init__(
        self,
        storage: FileStorage,
        serving: Serving,
        output_dir: str,
        *,
        max_boxes: int | None = 10,
        marks: Literal["outline", "tag", "crop"] = "outline",
        output_columns: Mapping[str, str] | None = None,
        **proposing: Any,
    ) -> None:
        self.storage = storage
        self.columns = dict(output_columns or {})
        self.marker = steps.RegionMarker(
            output_dir, max_boxes, serving=serving, marks=marks, **proposing
        )
        self.captioner = steps.RegionCaptioner(serving, marks=marks)

    def forward(self) -> None:
        """Run both steps: draw the boxes, then describe them."""
        marker_keys: dict[str, str] = {}  # {"output_prompt_key": "region_prompt"}
        captioner_keys: dict[str, str] = {}
        for name, column in self.columns.items():
            # `answer` is the second step's, all others are the first's
            keys = captioner_keys if name == "answer" else marker_keys
            keys[f"output_{name}_key"] = column
        self.marker.run(
            self.storage.step(), input_image_key="image", input_bbox_key="bbox", **marker_keys
        )
        self.captioner.run(
            self.storage.step(),
            input_image_key="image",
            input_regions_key="regions",
            **captioner_keys,
        )
