"""The serving that a spec's `vlm` block, or the environment, names."""

from collections.abc import Sequence
from dataclasses import replace

from dataflow_grounding import serving as servings  # each is imported when it is named
from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.secrets import learn_fields, masked, names_secret
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.embedded import EmbeddedServing
from dataflow_grounding.serving.serving import Serving, check_serving
from dataflow_grounding.spec import VlmBlock, WorkflowBlock
from dataflow_grounding.spec.environment import (
    check_public_is_meant,
    note_on_unused_keys,
    with_environment,
)
from dataflow_grounding.spec.schema import BACKENDS, GeminiBlock, OpenAIBlock
from dataflow_grounding.spec.user_code import in_one_line, named

WITH_TIERS = ("openai", "gemini")
# Settings of a user's serving that change no reply.
_CHANGE_NO_REPLY = frozenset(
    ["timeout", "max_workers", "concurrency", "retries", "max_retries", "host", "port", "verbose"]
)
# the message if `auto` found no endpoint
NOTICE = (
    "Running on the embedded OpenCV grounder, which is not a VLM: it finds faces, people by"
    " their faces, blue sky, greenery, and drawn shapes, balls and boxes of a clear color; other"
    " phrases get status unsupported."
)


def serving_of(vlm: VlmBlock, workflow: WorkflowBlock, folders: Sequence[str] = ()) -> Serving:
    """Return the serving that a `vlm` block names. Raises SpecError, MissingExtra."""
    check_public_is_meant(vlm)
    serving = _backend(vlm, workflow, folders)
    serving.box_formats = tuple(vlm.box_formats)
    if vlm.picture_bytes is not None:
        serving.image_limits = replace(serving.image_limits, picture_bytes=vlm.picture_bytes)
    return serving


def serving_from_environment(max_workers: int = 16, timeout: float = 60) -> Serving:
    """Return the endpoint that the environment names, else the embedded grounder.

    It is that of a spec with `vlm.backend: auto`.

    Args:
        max_workers: Most requests in flight.
        timeout: Seconds, for one request.

    Returns:
        With `DF_BASE_URL` or `DF_API_KEY`: the OpenAI-compatible endpoint, with the model
        `DF_MODEL`. With `DF_MODEL` alone: Gemini or OpenAI, by `GOOGLE_API_KEY` or
        `OPENAI_API_KEY`. Without these: the embedded grounder, which says so when it first
        answers. `DF_BOX_FORMAT` states the model's box format where it isn't known by name. Names
        that aren't set are taken from a `.env` file in the current folder.

    Raises:
        SpecError: The model isn't named.
    """
    read_env_files()
    vlm = VlmBlock(
        backend="auto", openai=OpenAIBlock(timeout=timeout), gemini=GeminiBlock(timeout=timeout)
    )
    return serving_of(with_environment(vlm), WorkflowBlock(steps=[], max_workers=max_workers))


def _backend(vlm: VlmBlock, workflow: WorkflowBlock, folders: Sequence[str]) -> Serving:
    if vlm.service_tier and vlm.backend not in WITH_TIERS:
        raise SpecError(
            f"vlm.service_tier is for {' and '.join(WITH_TIERS)}, not for vlm.backend"
            f" {vlm.backend}: leave it out"
        )
    if vlm.backend == "embedded":
        return EmbeddedServing()
    if vlm.backend == "auto":  # `with_environment` found no endpoint to put in its place
        why = note_on_unused_keys() or "No DF_API_KEY, DF_BASE_URL or DF_MODEL set. "
        return EmbeddedServing(notice=why + NOTICE)
    if vlm.backend == "gemini":
        return servings.GeminiServing(
            max_workers=workflow.max_workers,
            box_format=vlm.box_format,
            **vlm.gemini.model_dump(),
            service_tier=vlm.service_tier or "",
        )
    if vlm.backend == "local":
        return servings.LocalServing(
            max_workers=workflow.max_workers, box_format=vlm.box_format, **vlm.local.model_dump()
        )
    if vlm.backend not in BACKENDS:  # module:Class
        return _users_own(vlm, workflow, folders)
    # Only `openai` is left.
    if vlm.openai.endpoints:
        return _several_endpoints(vlm, workflow, folders)
    return _openai(vlm, workflow, folders)


def _users_own(vlm: VlmBlock, workflow: WorkflowBlock, folders: Sequence[str]) -> Serving:
    key = f"vlm.backend {vlm.backend}"
    serving_class = named(vlm.backend, "vlm.backend", BACKENDS, [*folders, "."], group="servings")
    learn_fields(vlm.settings)  # so that secrets among them are masked where they would be shown
    if not callable(serving_class):
        raise SpecError(f"{key} is no class of a serving, but {type(serving_class).__name__}")
    with in_one_line(f"{key} can't be made with vlm.settings"):
        serving = serving_class(**vlm.settings)
    if not isinstance(serving, Serving):
        raise SpecError(
            f"{key} makes {type(serving).__name__}, which is no Serving: derive the class from"
            " dataflow_grounding.Serving"
        )
    check_serving(serving, key)
    # The class may allow fewer requests in flight than the spec: then that counts.
    serving.max_workers = min(serving.max_workers, workflow.max_workers)
    serving.stated_settings = _settings_that_count(vlm.settings)
    if vlm.box_format != "auto":  # else that of the class stays
        serving.box_format = vlm.box_format
    return serving


def _settings_that_count(settings: JsonObject) -> JsonObject:
    """Return the settings by which stored replies are told apart, without secrets."""
    settings_that_count = {}
    # `ours=False`: a user's class names the settings, so a secret is told by how its name sounds.
    for name, value in masked(settings, ours=False).items():
        is_address = isinstance(value, str) and "://" in value
        changes_no_reply = is_address or names_secret(name) or name in _CHANGE_NO_REPLY
        if not changes_no_reply:
            settings_that_count[name] = value
    return settings_that_count


def _openai(vlm: VlmBlock, workflow: WorkflowBlock, folders: Sequence[str]) -> Serving:
    block = vlm.openai
    # Both classes of servings take these settings.
    settings = block.model_dump(exclude={"client", "base_url", "endpoints"})
    settings["api_url"] = block.base_url
    settings["max_workers"] = workflow.max_workers
    settings["box_format"] = vlm.box_format
    settings["service_tier"] = vlm.service_tier or ""
    if block.client == "sdk":
        return servings.OpenAISdkServing(**settings)
    return servings.OpenAIServing(**settings)


def _several_endpoints(vlm: VlmBlock, workflow: WorkflowBlock, folders: Sequence[str]) -> Serving:
    block = vlm.openai
    if block.base_url:
        raise SpecError("vlm.openai.endpoints excludes base_url: leave one of them out")
    parts = []
    for endpoint in block.endpoints:
        # Each endpoint's serving is made as if the spec named this one alone.
        changes = {
            "endpoints": [],
            "base_url": endpoint.base_url,
            "api_key": endpoint.api_key or block.api_key,
        }
        vlm_of_part = vlm.model_copy(update={"openai": block.model_copy(update=changes)})
        parts.append(_backend(vlm_of_part, workflow, folders))
    return servings.SeveralEndpoints(parts, [endpoint.weight for endpoint in block.endpoints])
