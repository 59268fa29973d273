"""The pipelines that a spec names: captions grounded, boxes referred to, boxes described."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from dataflow_grounding import operators as steps
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.storage import FileStorage, ResultsStorage
from dataflow_grounding.operators.base import Operator
from dataflow_grounding.pipelines.base import Pipeline
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec.problems import nearest

if TYPE_CHECKING:  # a pipeline imports its own operators alone
    from dataflow_grounding.operators.double_checker import Method
    from dataflow_grounding.operators.region_captioner import CaptionMarks
    from dataflow_grounding.operators.region_operator import RegionMarks

RENAMABLE = (
    "image_with_bbox",
    "type",
    "normalized_bbox",
    "result_file",
    "valid_bboxes_num",
    "prompt",
    "bbox_problems",
    "answer",
)
"""Columns of region captions that may have other names; those of boxes and captions others read."""


class ImageGroundingPipeline(Pipeline):
    """Expressions of each caption, then their boxes.

    With `fuse`, both are asked for in one request. Else the model is asked for
    `phrases_per_request` at once, `samples` times; `zoom` refines the
    boxes, `verify` grounds them again. `check` has the `judge`, by default the same model, look
    at every box: in one request an image with "fast", else with a second one about the crops,
    and what lacks or doesn't fit is asked for again; then the models of a `cascade`, one after the
    other, are asked about what is left in doubt, from `cascade_doubt` on. With `classes`, as
    PhraseLister takes them, those are looked for in every image, and no caption is needed. With
    `contradictions`, a step notes phrases whose words contradict their boxes, without a request.
    `negatives` of each image are made up, out of its own phrases and those of `other_images`, and
    kept where the judge calls them absent. `boxes` are the settings that all who ask for boxes
    share.
    """

    name = "image_grounding"

    def __init__(
        self,
        storage: FileStorage,
        serving: Serving,
        *,
        classes: Sequence[str] | Mapping[str, str | Mapping[str, Any]] = (),
        fuse: bool = False,
        phrases_per_request: int = 16,
        samples: int = 1,
        zoom: bool = False,
        verify: bool = False,
        check: bool | Literal["fast"] = False,
        judge: Serving | None = None,
        cascade: Sequence[Serving] = (),
        cascade_doubt: float = 1.0,
        contradictions: bool = False,
        negatives: int = 0,
        other_images: Sequence[str] = (),
        **boxes: Any,
    ) -> None:
        self.storage = storage
        if fuse and (classes or samples > 1):
            raise SpecError(
                "workflow.fuse is of captions, asked about once: leave out"
                f" {'data.classes' if classes else 'workflow.samples'}"
            )
        self.fused = steps.CaptionGrounder(serving, **boxes) if fuse else None
        self.lister = steps.PhraseLister(classes) if classes else None
        self.extractor = steps.ExpressionExtractor(serving)
        self.grounder = steps.PhraseGrounder(
            serving, phrases_per_request=phrases_per_request, samples=samples, **boxes
        )
        self.further: list[Operator] = []
        if zoom:
            self.further.append(steps.BoxRefiner(serving, samples=samples, **boxes))
        if verify:
            self.further.append(steps.BoxVerifier(serving, samples=samples, **boxes))
        if check:
            self.further += _checking(serving, judge or serving, check == "fast", samples, boxes)
            for further in cascade:
                self.further.append(steps.SecondOpinion(further, from_doubt=cascade_doubt, **boxes))
        if contradictions:
            self.further.append(steps.ContradictionFinder())
        self.negating = _negating(serving, judge or serving, negatives, other_images, boxes)

    def forward(self) -> None:
        """All steps, one after the other."""
        if self.fused is not None:
            self.fused.run(
                self.storage.step(), input_image_key="image_path", input_caption_key="caption"
            )
        else:
            self._in_two_steps()
        for step in self.further:
            step.run(
                self.storage.step(),
                input_image_key="image_path",
                input_expressions_key="expressions",
            )
        for step in self.negating:
            step.run(self.storage.step(), input_image_key="image_path")

    def _in_two_steps(self) -> None:
        """Find the expressions of captions, or take the listed phrases; then find their boxes."""
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


def _negating(
    serving: Serving,
    judge: Serving,
    count: int,
    other_images: Sequence[str],
    boxes: dict[str, Any],
) -> list[Operator]:
    """Return the steps of `negatives`.

    They make phrases up, ask where these would be, have a judge look, and decide by both answers.
    """
    if not count:
        return []
    return [
        steps.NegativePhraser(serving, count, other_images),
        steps.NegativeGrounder(serving, **boxes),
        steps.NegativeChecker(judge),
        steps.NegativeJudge(judge, count),
    ]


def _checking(
    serving: Serving, judge: Serving, is_fast: bool, samples: int, boxes: dict[str, Any]
) -> list[Operator]:
    """Return the steps of `check`.

    They judge boxes, ask for what lacks, judge the boxes' crops, ground again what is in doubt, and
    mend what doesn't fit.
    """
    if is_fast:
        return [steps.BoxChecker(judge)]
    return [
        steps.BoxChecker(judge, decides=False),
        steps.MissingFinder(serving, **boxes),
        steps.CropJudge(judge),
        steps.DoubtGrounder(serving, samples=samples, **boxes),
        steps.BoxMender(serving, **boxes),
    ]


class ProposalPipeline(Pipeline):
    """Boxes of something else, as a detector, verified; then what lacks is asked for.

    The `judge` is the same model unless another is given. `contradictions` and `negatives` are as
    ImageGroundingPipeline has them. `boxes` are MissingFinder's settings.
    """

    name = "image_grounding"

    def __init__(
        self,
        storage: FileStorage,
        serving: Serving,
        *,
        judge: Serving | None = None,
        contradictions: bool = False,
        negatives: int = 0,
        **boxes: Any,
    ) -> None:
        self.storage = storage
        self.verifier = steps.ProposalVerifier(judge or serving)
        self.finder = steps.MissingFinder(serving, **boxes)
        self.further: list[Operator] = []
        if contradictions:
            self.further.append(steps.ContradictionFinder())
        self.negating = _negating(serving, judge or serving, negatives, (), boxes)

    def forward(self) -> None:
        """All steps, one after the other."""
        for step in (self.verifier, self.finder, *self.further):
            step.run(
                self.storage.step(),
                input_image_key="image_path",
                input_expressions_key="expressions",
            )
        for step in self.negating:
            step.run(self.storage.step(), input_image_key="image_path")


class SampleProposalPipeline(ImageGroundingPipeline):
    """Expressions of each caption, or phrases of a list; their boxes, of any of several answers.

    Each box is then verified, and what lacks is asked for, as in ProposalPipeline. `settings` are
    ImageGroundingPipeline's.
    """

    def __init__(
        self,
        storage: FileStorage,
        serving: Serving,
        *,
        samples: int,
        phrases_per_request: int = 16,
        judge: Serving | None = None,
        merge_iou: float | None = 0.9,
        **settings: Any,
    ) -> None:
        super().__init__(storage, serving, judge=judge, merge_iou=merge_iou, **settings)
        self.grounder = steps.BoxProposer(
            serving, phrases_per_request=phrases_per_request, samples=samples, merge_iou=merge_iou
        )
        verifying = [
            steps.ProposalVerifier(judge or serving),
            steps.MissingFinder(serving, merge_iou=merge_iou),
        ]
        self.further = [*verifying, *self.further]


class ImageReferringExpressionPipeline(Pipeline):
    """Expressions for the regions of each image.

    Steps 0 and 1, side by side, describe regions and image; step 2 makes expressions of both, step
    3 checks them. Further ones make `negatives` up, as in ImageGroundingPipeline.
    """

    name = "image_referring_expression"

    def __init__(
        self,
        storage: FileStorage,
        serving: Serving,
        *,
        method: "Method" = "ask",
        reground_serving: Serving | None = None,
        iou: float = 0.5,
        marks: "RegionMarks" = "none",
        negatives: int = 0,
        other_images: Sequence[str] = (),
    ) -> None:
        self.storage = storage
        self.describer = steps.RegionExpressionGenerator(serving, marks=marks)
        self.captioner = steps.CaptionGenerator(serving)
        self.merger = steps.Merger(serving, marks=marks)
        self.checker = steps.DoubleChecker(serving, method, reground_serving, iou)
        self.negating = _negating(serving, serving, negatives, other_images, {})

    def forward(self) -> None:
        """The four steps, and those of `negatives`."""
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
        storage: ResultsStorage,
        serving: Serving,
        output_dir: str,
        *,
        max_boxes: int | None = 10,
        marks: "CaptionMarks" = "outline",
        output_columns: Mapping[str, str] | None = None,
        **proposing: Any,
    ) -> None:
        self.storage = storage
        self.columns = dict(output_columns or {})
        for name in self.columns:
            if name not in RENAMABLE:
                raise SpecError(
                    f"workflow.output_columns: {name!r} is not one of {', '.join(RENAMABLE)}"
                    f"{nearest(name, RENAMABLE)}"
                )
        self.marker = steps.RegionMarker(
            output_dir, max_boxes, serving=serving, marks=marks, **proposing
        )
        self.captioner = steps.RegionCaptioner(serving, marks=marks)

    def forward(self) -> None:
        """Both steps, one after the other."""
        renamed = {f"output_{name}_key": column for name, column in self.columns.items()}
        answer = {key: renamed.pop(key) for key in ("output_answer_key",) if key in renamed}
        self.marker.run(
            self.storage.step(), input_image_key="image", input_bbox_key="bbox", **renamed
        )
        self.captioner.run(
            self.storage.step(), input_image_key="image", input_regions_key="regions", **answer
        )
