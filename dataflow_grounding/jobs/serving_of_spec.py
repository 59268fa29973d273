"""The serving that a spec's `vlm` block, or the environment, names."""

from collections.abc import Sequence

from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.extensions import required
from dataflow_grounding.serving import (
    GeminiServing,
    LocalServing,
    OpenAISdkServing,
    OpenAIServing,
    Serving,
    SeveralEndpoints,
)
from dataflow_grounding.serving.openai_sdk import provider_named
from dataflow_grounding.spec import VlmBlock, WorkflowBlock
from dataflow_grounding.spec.environment import unused_keys, with_environment
from dataflow_grounding.spec.schema import AzureBlock, GeminiBlock, OpenAIBlock

NOTICE = (
    "Running on the embedded OpenCV grounder, which is not a VLM: it finds faces, eyes, people and"
    " cats by their faces, license plates, sky, greenery, clearly colored things and drawn shapes;"
    " other phrases get status unsupported."
)


def serving_of(vlm: VlmBlock, workflow: WorkflowBlock, folders: Sequence[str] = ()) -> Serving:
    """The serving that `vlm` of a spec in `folders` names. Raises SpecError."""
    serving = _backend(vlm, workflow, folders)
    serving.box_formats = tuple(vlm.box_formats)
    return serving


def serving_from_environment(max_workers: int = 16, timeout: float = 60) -> Serving:
    """The endpoint that the environment names, as a spec with `vlm.backend: auto` has it; else the
    embedded grounder.

    Args:
        max_workers: Most requests in flight.
        timeout: Seconds, for one request.

    Returns:
        With `DF_BASE_URL` or `DF_API_KEY`: the OpenAI-compatible endpoint, with the model
            `DF_MODEL`. With `DF_MODEL`
        alone: Gemini or OpenAI, by `GOOGLE_API_KEY` or `OPENAI_API_KEY`. Without these: the
            embedded grounder, which
        says so when it first answers. `DF_BOX_FORMAT` states the model's box format where it isn't
        known by name. Names that aren't set are taken from a `.env` file in the current folder.

    Raises:
        SpecError: The model isn't named.
    """
    read_env_files()
    vlm = VlmBlock(
        backend="auto", openai=OpenAIBlock(timeout=timeout), gemini=GeminiBlock(timeout=timeout)
    )
    return serving_of(with_environment(vlm), WorkflowBlock(steps=[], max_workers=max_workers))


def _backend(vlm: VlmBlock, workflow: WorkflowBlock, folders: Sequence[str]) -> Serving:
    if vlm.backend in ("embedded", "auto"):
        return _embedded(vlm.backend)
    if vlm.backend == "gemini":
        return GeminiServing(
            max_workers=workflow.max_workers, box_format=vlm.box_format, **vlm.gemini.model_dump()
        )
    if vlm.backend == "local":
        return LocalServing(
            max_workers=workflow.max_workers, box_format=vlm.box_format, **vlm.local.model_dump()
        )
    block, azure = vlm.openai, vlm.openai.azure
    if block.endpoints:
        return _several(vlm, workflow, folders)
    settings = block.model_dump(exclude={"client", "azure", "base_url", "endpoints"})
    settings |= {
        "api_url": block.base_url,
        "max_workers": workflow.max_workers,
        "box_format": vlm.box_format,
    }
    settings["key_name_of_api_key"] = "AZURE_OPENAI_API_KEY" if azure.endpoint else "DF_API_KEY"
    if block.client == "sdk":
        settings |= {"azure_endpoint": azure.endpoint, "api_version": azure.api_version}
        provider = (
            provider_named(azure.token_provider, [*folders, "."]) if azure.token_provider else None
        )
        return OpenAISdkServing(token_provider=provider, **settings)
    if azure != AzureBlock():
        raise SpecError("vlm.openai.azure needs OpenAI's client: set vlm.openai.client to sdk")
    return OpenAIServing(**settings)


def _embedded(backend: str) -> Serving:
    kind = required("servings", "embedded", f"vlm.backend {backend} without an endpoint")
    notice = ""
    if backend == "auto":
        why = unused_keys() or "No DF_API_KEY, DF_BASE_URL or DF_MODEL set. "
        notice = why + NOTICE
    serving: Serving = kind(notice=notice)
    return serving


def _several(vlm: VlmBlock, workflow: WorkflowBlock, folders: Sequence[str]) -> Serving:
    block = vlm.openai
    if block.base_url or block.azure != AzureBlock():
        raise SpecError(
            "vlm.openai.endpoints stands beside base_url or azure: leave one of them out"
        )
    own = (
        {"base_url": one.base_url, "api_key": one.api_key or block.api_key}
        for one in block.endpoints
    )
    blocks = [block.model_copy(update={"endpoints": [], **one}) for one in own]
    servings = [
        _backend(vlm.model_copy(update={"openai": one}), workflow, folders) for one in blocks
    ]
    return SeveralEndpoints(servings, [one.weight for one in block.endpoints])
