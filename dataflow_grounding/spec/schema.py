"""Every key of a spec, with its type and default."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, field_validator
from pydantic_core import PydanticCustomError


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), coerce_numbers_to_str=True, allow_inf_nan=False)


def _jsonable(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise PydanticCustomError(
            "json", "should hold nothing but texts, finite numbers, true, false and null"
        ) from None
    return value


Json = Annotated[dict[str, Any], AfterValidator(_jsonable)]


class GeminiBlock(_Block):
    """`vlm.gemini`: the Gemini API."""

    api_key: str = Field("", repr=False)
    base_url: str = ""
    model: str = "gemini-3.1-flash-lite-preview"
    media_resolution: str = "MEDIA_RESOLUTION_HIGH"
    temperature: float = Field(0.3, ge=0)
    max_output_tokens: int = Field(8192, ge=1)
    timeout: float = Field(120, gt=0)


class AzureBlock(_Block):
    """`vlm.openai.azure`: a deployment on Azure; `token_provider` is `module:function`, which gives an Entra token."""

    endpoint: str = ""
    api_version: str = ""
    token_provider: str = ""


class OpenAIBlock(_Block):
    """`vlm.openai`: any OpenAI-compatible endpoint."""

    client: Literal["direct", "sdk"] = "direct"
    api_key: str = Field("", repr=False)
    base_url: str = ""
    model_name: str = ""
    temperature: float = Field(0.7, ge=0)
    max_tokens: int = Field(4096, ge=1)
    timeout: float = Field(60, gt=0)
    azure: AzureBlock = AzureBlock()
    extra_body: Json = Field({}, repr=False)
    extra_headers: dict[str, str] = Field({}, repr=False)


class PricesBlock(_Block):
    """`vlm.prices`: USD per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0)


class VlmBlock(_Block):
    """`vlm`: which model answers."""

    backend: Literal["gemini", "openai", "embedded"] = "gemini"
    gemini: GeminiBlock = GeminiBlock()
    openai: OpenAIBlock = OpenAIBlock()
    box_format: str = "auto"
    box_formats: list[Json] = []
    on_suspect_boxes: Literal["stop", "warn"] = "stop"
    check_every: int | None = Field(100, ge=1)
    prices: PricesBlock | None = None


class WorkflowBlock(_Block):
    """`workflow`: how a run goes."""

    steps: list[str]
    max_workers: int = Field(4, ge=1, le=10_000)
    force_reprocess: bool = False
    output_format: Literal["unified", "jsonl", "legacy", "both"] = "unified"
    stream: bool = True
    budget_usd: float | None = Field(None, ge=0)
    max_requests: int | None = Field(None, ge=0)
    max_attempts: int = Field(3, ge=1, le=100)
    max_wait: float = Field(600, ge=1, le=1e7)

    @field_validator("steps", mode="before")
    @classmethod
    def _as_texts(cls, value: Any) -> Any:
        """Steps may be written as numbers."""
        items = value if isinstance(value, (list, tuple)) else [value]
        return [str(item) for item in items]


class GroundingWorkflow(WorkflowBlock):
    """`image_grounding.workflow`."""

    steps: list[str] = ["0", "1"]
    samples: int = Field(1, ge=1, le=100)
    zoom: bool = False
    verify: Literal["none", "reground"] = "none"
    merge_iou: float | None = Field(0.9, gt=0, le=1)


class RowsData(_Block):
    """`data` of the pipelines that read the user's rows: `image_grounding`, `image_region_caption`."""

    input_jsonl: str
    image_root: str | None = ""


class ImageGroundingBlock(_Block):
    """`image_grounding`: image and caption in, expressions with boxes out."""

    vlm: VlmBlock = VlmBlock()
    workflow: GroundingWorkflow = GroundingWorkflow()
    data: RowsData


class ReferringWorkflow(WorkflowBlock):
    """`image_referring_expression.workflow`."""

    steps: list[str] = ["0", "1", "2", "3"]
    marks: Literal["none", "outline"] = "none"


class DoubleCheckBlock(_Block):
    """`image_referring_expression.double_check`: how step 3 checks; `vlm` is the model that grounds afresh, if another."""

    method: Literal["ask", "reground", "both"] = "ask"
    iou: float = Field(0.5, gt=0, le=1)
    vlm: VlmBlock | None = None


class ReferringData(_Block):
    """`image_referring_expression.data`: images with one kind of labels, or annotations."""

    image_dir: str | None = ""
    kitti_label_dir: str | None = ""
    coco_json: str | None = ""
    yolo_label_dir: str | None = ""
    yolo_names: str | None = ""
    input_annotations_jsonl: str | None = ""


class ImageReferringExpressionBlock(_Block):
    """`image_referring_expression`: images with boxes in, referring expressions of the boxes out."""

    vlm: VlmBlock = VlmBlock()
    workflow: ReferringWorkflow = ReferringWorkflow()
    double_check: DoubleCheckBlock = DoubleCheckBlock()
    data: ReferringData


class RegionCaptionWorkflow(WorkflowBlock):
    """`image_region_caption.workflow`."""

    steps: list[str] = ["0", "1"]
    max_boxes: int | None = Field(10, ge=1)
    marks: Literal["outline", "tag", "crop"] = "outline"
    proposals: Literal["model", "opencv"] = "model"


class ImageRegionCaptionBlock(_Block):
    """`image_region_caption`: images, with or without boxes, in; a text for each box out."""

    vlm: VlmBlock = VlmBlock()
    workflow: RegionCaptionWorkflow = RegionCaptionWorkflow()
    data: RowsData


PipelineBlock: TypeAlias = ImageGroundingBlock | ImageReferringExpressionBlock | ImageRegionCaptionBlock


class Spec(_Block):
    """A whole spec."""

    results_dir: str
    autolabel_type: Literal["image_grounding", "image_referring_expression", "image_region_caption"]
    image_grounding: ImageGroundingBlock | None = None
    image_referring_expression: ImageReferringExpressionBlock | None = None
    image_region_caption: ImageRegionCaptionBlock | None = None
    _stated: dict[str, Any] = PrivateAttr({})

    def as_stated(self) -> Any:
        """All keys and values, with references (`${oc.env:NAME}`) as they stand in the spec."""
        return _as_stated(self.model_dump(), self._stated)

    @property
    def block(self) -> PipelineBlock:
        """The block of the pipeline that is to run."""
        block: PipelineBlock | None = getattr(self, self.autolabel_type)
        assert block is not None
        return block


def _as_stated(value: Any, stated: Any) -> Any:
    if isinstance(stated, str) and "${" in stated:
        return stated
    if isinstance(value, dict) and isinstance(stated, dict):
        return {name: _as_stated(item, stated.get(name)) for name, item in value.items()}
    if isinstance(value, list) and isinstance(stated, list) and len(value) == len(stated):
        return [_as_stated(item, given) for item, given in zip(value, stated, strict=True)]
    return value


PATH_KEYS = (
    "results_dir",
    "image_grounding.data.input_jsonl",
    "image_grounding.data.image_root",
    *(f"image_referring_expression.data.{name}" for name in ReferringData.model_fields),
    "image_region_caption.data.input_jsonl",
    "image_region_caption.data.image_root",
)
"""Keys whose values are paths."""

PIPELINES = ("image_grounding", "image_referring_expression", "image_region_caption")
"""Names of pipelines, and of their blocks."""

OTHER_BLOCKS = (
    "batch_size",
    "encryption_key",
    "gpu_ids",
    "grounding_dino",
    "mal",
    "model_name",
    "module_name",
    "num_gpus",
    "num_workers",
    "verbose",
    "video_reasoning_annotation",
    "wandb",
)
"""Top-level keys of a TAO auto-label spec that have nothing to say to these pipelines: passed over."""
