"""Every key of a spec, with its type and default: a pydantic model for each block."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    create_model,
    field_validator,
)
from pydantic_core import PydanticCustomError

from dataflow_grounding._util.entry_points import targets_of
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.nearest import nearest
from dataflow_grounding.data.records import JsonObject


class Block(BaseModel):
    """A block of a spec. Any key that it doesn't declare is an error."""

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=(),
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
        defer_build=True,  # a spec is built once, not each of its blocks by itself as well
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes true for 1: `negatives: true` would silently be one a picture.
        if isinstance(value, bool) and info.field_name:
            annotation = cls.model_fields[info.field_name].annotation
            types = {annotation, *get_args(annotation)}  # of `int | None`: int and NoneType, too
            takes_numbers = int in types or float in types
            if takes_numbers and bool not in types:
                wrong = "give it a number, not {value}"
                raise PydanticCustomError("number", wrong, {"value": str(value).lower()})
        return value


def _checked_json(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        wrong = "should hold nothing but texts, finite numbers, true, false and null"
        raise PydanticCustomError("json", wrong) from None
    return {} if value is None else value


def _checked_folder(value: Any) -> Any:
    # TAO's default spec leaves it empty: nobody chose the current folder.
    if value in (None, ""):
        raise PydanticCustomError("folder", "give it a folder for the results")
    return value


def _checked_backend(value: str) -> str:
    # `module:Class` is looked up later, as is the name of an entry point.
    if value not in BACKENDS and ":" not in value and value not in targets_of("servings"):
        names = ", ".join(f"'{name}'" for name in BACKENDS)
        wrong = "should be {names} or module:Class, a serving of your own{near}"
        near = nearest(value, BACKENDS)
        raise PydanticCustomError("backend", wrong, {"names": names, "near": near})
    return value


def _checked_host(value: str) -> str:
    # the form alone: `images.lan:8080`, `[fe80::1]:8080`
    if not re.fullmatch(r"[\w.-]+(:[0-9]{1,5})?|\[[0-9a-fA-F:.]+\](:[0-9]{1,5})?", value):
        wrong = (
            "should be the name or the IP address of a host, perhaps with a port: images.lan:8080"
        )
        raise PydanticCustomError("host", wrong)
    return value.lower()


MOST_NEGATIVES = 100
"""The highest number of negatives for an image, in `workflow.negatives`."""
BACKENDS = ("gemini", "openai", "local", "embedded", "auto")
"""The package's own values of `vlm.backend`; a user's own is `module:Class`."""
Json = Annotated[dict[str, Any], BeforeValidator(_checked_json)]
"""Any JSON object; a key that is left empty (`settings:`) means one with nothing in it."""


class GeminiBlock(Block):
    """`vlm.gemini`: the Gemini API."""

    api_key: str = Field("", repr=False)
    base_url: str = ""
    model: str = "gemini-3.1-flash-lite-preview"
    media_resolution: str = "MEDIA_RESOLUTION_HIGH"
    temperature: float = Field(0.3, ge=0)
    max_output_tokens: int = Field(8192, ge=1)
    timeout: float | None = Field(None, gt=0)
    extra: Json = Field({}, repr=False)


class EndpointBlock(Block):
    """One of `vlm.openai.endpoints`: an address, and its share of requests where all have room."""

    base_url: str = Field(min_length=1)
    weight: float = Field(1, gt=0)
    api_key: str = Field("", repr=False)


class OpenAIBlock(Block):
    """`vlm.openai`: any OpenAI-compatible endpoint."""

    client: Literal["direct", "sdk"] = "direct"
    api_key: str = Field("", repr=False)
    base_url: str = ""
    endpoints: list[EndpointBlock] = []
    model_name: str = ""
    name: str = ""
    temperature: float = Field(0.7, ge=0)
    max_tokens: int = Field(4096, ge=1)
    timeout: float | None = Field(None, gt=0)
    extra_body: Json = Field({}, repr=False)
    extra_headers: dict[str, str] = Field({}, repr=False)

    @field_validator("endpoints", mode="before")
    @classmethod
    def _addresses(cls, value: Any) -> Any:
        """In `endpoints: [http://a/v1]` the text becomes a block with this address."""
        if not isinstance(value, list):  # pydantic refuses it
            return value
        endpoints = []
        for endpoint in value:
            if isinstance(endpoint, str):
                endpoint = {"base_url": endpoint}
            endpoints.append(endpoint)
        return endpoints


class LocalBlock(Block):
    """`vlm.local`: a model of Hugging Face transformers', in the run's own process."""

    model_name: str = ""
    revision: str = "main"
    device: str = "auto"
    dtype: str = "auto"
    processor: Json = {}
    temperature: float = Field(0.3, ge=0)
    max_tokens: int = Field(2048, ge=1)
    num_gpus: float = Field(1, ge=0)


class PricesBlock(Block):
    """`vlm.prices`: USD per million tokens; `flex` is what part of them that tier costs."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(None, ge=0)
    flex: float | None = Field(None, ge=0, le=1)


class VlmBlock(Block):
    """`vlm`: which model answers; `settings` are those of a serving of the user's own."""

    backend: Annotated[str, AfterValidator(_checked_backend)] = "gemini"
    settings: Json = Field({}, repr=False)
    gemini: GeminiBlock = GeminiBlock()
    openai: OpenAIBlock = OpenAIBlock()
    local: LocalBlock = LocalBlock()
    box_format: str = "auto"
    box_formats: list[Json] = []
    on_suspect_boxes: Literal["stop", "warn"] = "stop"
    check_every: int | None = Field(100, ge=1)
    asking: str | Json = "auto"
    prices: PricesBlock | None = None
    service_tier: Literal["flex"] | None = None
    picture_bytes: int | None = Field(None, ge=20_000)


class JudgeBlock(Block):
    """`vlm.judge`: who judges boxes and grounds again, if another model is to.

    All else is as `vlm` has it, or as the backend's defaults are where backends differ.
    """

    backend: Annotated[str, AfterValidator(_checked_backend)] | None = None
    base_url: str = ""
    model_name: str = ""
    api_key: str = Field("", repr=False)
    max_workers: int | None = Field(None, ge=1, le=10_000)
    box_format: str = "auto"
    prices: PricesBlock | None = None


class JudgedVlmBlock(VlmBlock):
    """`vlm` of a pipeline that may have a judge."""

    judge: JudgeBlock | None = None


class WorkflowBlock(Block):
    """`workflow`: how a run goes."""

    steps: list[str]
    max_workers: int = Field(4, ge=1, le=10_000)
    force_reprocess: bool = False
    output_format: str = "unified"
    stream: bool = True
    budget_usd: float | None = Field(None, ge=0)
    max_requests: int | None = Field(None, ge=0)
    max_attempts: int = Field(3, ge=1, le=100)
    max_wait: float | None = Field(None, ge=1, le=1e7)
    guidance: str = ""

    def own(self) -> JsonObject:
        """Return the settings that not every workflow has: those of the pipeline itself."""
        return self.model_dump(exclude=set(WorkflowBlock.model_fields))

    @field_validator("steps", mode="before")
    @classmethod
    def _as_texts(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return [str(value)]
        return [str(step) for step in value]


class RowsData(Block):
    """`data` of a pipeline that reads the user's rows."""

    input_jsonl: str
    image_root: str | None = ""
    columns: dict[str, str] = {}  # role → column, where the user has other names
    split: str = ""
    allow_http: bool = False  # pictures from all public hosts
    # and from these, wherever they are
    allow_hosts: list[Annotated[str, AfterValidator(_checked_host)]] = []
    glossary: dict[str, str] = {}  # what counts as a term or phrase

    @field_validator("glossary")
    @classmethod
    def _defines_something(cls, glossary: dict[str, str]) -> dict[str, str]:
        # The error has the wrong term in `inside`, by which `problems.validated` names its line.
        for term, definition in glossary.items():
            if not term.strip() or not definition.strip():
                wrong = "a term and what counts as it should be texts, as {pallet jack: low trucks}"
                raise PydanticCustomError(
                    "glossary", "{wrong}", {"wrong": wrong, "inside": (term,)}
                )
        return glossary

    @property
    def fetches(self) -> bool:
        """Whether pictures at http(s) addresses may be fetched, from some hosts at least."""
        return self.allow_http or bool(self.allow_hosts)


_OF_TAO = load_table(__package__, "other_keys.yaml")  # what only TAO's auto-label specs have
OTHER_BLOCKS: Sequence[str] = _OF_TAO["blocks"]  # at the top
OTHER_KEYS: Mapping[str, Sequence[str]] = _OF_TAO["keys"]  # in inner blocks, such as `data`


class ReferringData(Block):
    """`image_referring_expression.data`: images with one kind of labels, or annotations."""

    image_dir: str | None = ""
    kitti_label_dir: str | None = ""
    coco_json: str | None = ""
    yolo_label_dir: str | None = ""
    yolo_names: str | None = ""
    input_annotations_jsonl: str | None = ""


class PromptsBlock(Block):
    """`prompts`: a folder of prompts of the user's own."""

    dir: str | None = ""


class PipelineBlock(Block):
    """What every pipeline's block holds; its own has further keys, or others in these blocks."""

    vlm: VlmBlock = VlmBlock()
    workflow: WorkflowBlock
    prompts: PromptsBlock = PromptsBlock()
    data: Block

    @property
    def vlms(self) -> list[VlmBlock]:
        """The settings of all models that a run asks; the first answers most requests."""
        return [self.vlm]


class SpecHead(Block):
    """The keys that every spec has, no matter what its pipeline is."""

    results_dir: Annotated[str, BeforeValidator(_checked_folder)]
    autolabel_type: str


class Spec(SpecHead):
    """A whole spec; `block` is that of the pipeline to run, in the YAML under its name."""

    block: SerializeAsAny[PipelineBlock]
    # set by `read_spec`
    _stated: JsonObject = {}
    _folders: list[str] = []
    _passed_over: list[str] = []

    @property
    def block_name(self) -> str:
        """The key of the pipeline's block."""
        return str(type(self).model_fields["block"].alias)

    @property
    def folders(self) -> list[str]:
        return self._folders

    @property
    def remarks(self) -> list[str]:
        """One line on the keys that the pipeline doesn't use, if any."""
        names = ", ".join(self._passed_over)
        if not names:
            return []
        return [f"keys that {self.autolabel_type} doesn't use are passed over: {names}"]

    def as_stated(self) -> Any:
        """Return all keys and values, with references (`${oc.env:NAME}`) as the spec has them."""
        return _as_stated(self.model_dump(by_alias=True), self._stated)


def spec_with(name: str, block: type[PipelineBlock]) -> type[Spec]:
    """Return the model of a spec whose pipeline has its block under `name`."""
    return create_model("Spec", __base__=Spec, block=(block, Field(alias=name)))


def _as_stated(value: Any, stated: Any) -> Any:
    """The value, with the stated references in place of what they were filled in with."""
    if isinstance(stated, str) and "${" in stated:
        return stated
    if isinstance(value, dict) and isinstance(stated, dict):
        return {name: _as_stated(item, stated.get(name)) for name, item in value.items()}
    if isinstance(value, list) and isinstance(stated, list) and len(value) == len(stated):
        return [_as_stated(*items) for items in zip(value, stated, strict=True)]
    return value
