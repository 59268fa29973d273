"""What the environment says of an endpoint that a spec or script leaves open: `DF_*`, else the
provider's names.
"""

import os
from typing import Any, Literal

from dataflow_grounding.spec.schema import VlmBlock

GEMINI_KEYS = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
"""Where Google's own client looks for a key, in this order: ai.google.dev/gemini-api/docs/api-key
(2026-11).
"""

Backend = Literal["gemini", "openai", "local", "embedded"]


def _given(*names: str) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


def backend_named() -> Backend | None:
    """The backend of the endpoint that the environment names; None where it names neither an
    address nor a model.

    A provider's key alone names none: nobody means to pay for a script because a key is set for
    something else.
    """
    if _given("DF_BASE_URL", "DF_API_KEY"):
        return "openai"
    model = _given("DF_MODEL")
    if not model:
        return None
    for_google = model.startswith("gemini") + bool(_given(*GEMINI_KEYS))
    return "gemini" if for_google > bool(_given("OPENAI_API_KEY", "OPENAI_BASE_URL")) else "openai"


def backend_of_keys() -> Backend | None:
    """`backend_named`, or the backend whose key is set: for a spec that is written, not run."""
    if named := backend_named():
        return named
    return (
        "openai"
        if _given("OPENAI_API_KEY", "OPENAI_BASE_URL")
        else "gemini"
        if _given(*GEMINI_KEYS)
        else None
    )


def unused_keys() -> str:
    """A sentence on providers' keys that are set and not used, as nothing names a model; empty
    where there are none.
    """
    keys = [name for name in ("OPENAI_API_KEY", *GEMINI_KEYS) if _given(name)]
    return (
        f"{' and '.join(keys)} set, but no model: name one in DF_MODEL to use it. " if keys else ""
    )


def _stated(vlm: VlmBlock) -> Backend | None:
    """The backend whose block the spec fills in."""
    openai = vlm.openai
    if (
        openai.base_url
        or openai.endpoints
        or openai.model_name
        or openai.api_key
        or openai.azure.endpoint
    ):
        return "openai"
    if vlm.local.model_name:
        return "local"
    return "gemini" if vlm.gemini.api_key or vlm.gemini.base_url else None


def with_environment(vlm: VlmBlock) -> VlmBlock:
    """`vlm` with what it leaves open taken from the environment. `auto` stays where nothing is
    named there.
    """
    backend: str = vlm.backend
    if backend == "auto" or "backend" not in vlm.model_fields_set:
        backend = _stated(vlm) or backend_named() or backend
    found: dict[str, Any] = {"backend": backend, **_filled_in(vlm, backend)}
    if vlm.box_format == "auto" and backend in ("openai", "gemini", "local"):
        found["box_format"] = _given("DF_BOX_FORMAT") or "auto"
    return vlm.model_copy(update=found)


def _filled_in(vlm: VlmBlock, backend: str) -> dict[str, Any]:
    model = _given("DF_MODEL")
    if backend == "openai":
        block = vlm.openai
        address = (
            ""
            if any((block.azure.endpoint, block.endpoints))
            else _given("DF_BASE_URL", "OPENAI_BASE_URL")
        )
        filled = {"base_url": block.base_url or address, "model_name": block.model_name or model}
        return {"openai": block.model_copy(update=filled)}
    if backend == "local":
        return {"local": vlm.local.model_copy(update={"model_name": vlm.local.model_name or model})}
    if backend == "gemini" and "model" not in vlm.gemini.model_fields_set:
        return {"gemini": vlm.gemini.model_copy(update={"model": model or vlm.gemini.model})}
    return {}
