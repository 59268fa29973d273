"""What variables of the environment say of the endpoint, where a spec or script leaves it open.

Our own variables (`DF_BASE_URL`, `DF_MODEL`, …) go before the providers' (`OPENAI_API_KEY`, …).
"""

import os
from typing import Any, Literal

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.spec.schema import VlmBlock

GEMINI_KEYS = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
"""Where Google's own client looks for a key, in this order.

Source: ai.google.dev/gemini-api/docs/api-key (2026-11).
"""
_GEMINI_ADDRESS = "GOOGLE_GEMINI_BASE_URL"
_OPENAI_NAMES = ("OPENAI_API_KEY", "OPENAI_BASE_URL")

Backend = Literal["gemini", "openai", "local", "embedded"]


def _variable(*names: str) -> str:
    """Return the value of the first of these variables that isn't empty; "" where all are."""
    for name in names:
        value = os.environ.get(name, "").strip()
        if value:
            return value
    return ""


def backend_named() -> Backend | None:
    """Return the backend of the endpoint that the environment names.

    None where it names neither an address nor a model. A provider's key alone names none: nobody
    means to pay for a script because a key is set for something else.
    """
    if _variable("DF_BASE_URL", "DF_API_KEY"):
        return "openai"
    model = _variable("DF_MODEL")
    if not model:
        return None
    openai_set = bool(_variable(*_OPENAI_NAMES))
    gemini_set = bool(_variable(*GEMINI_KEYS))
    # Where both keys are set, the model's name says which is meant.
    if gemini_set and openai_set:
        return "gemini" if model.startswith("gemini") else "openai"
    if gemini_set:
        return "gemini"
    # OpenAI-compatible endpoints may serve models called gemini, too.
    if openai_set:
        return "openai"
    return "gemini" if model.startswith("gemini") else "openai"


def backend_of_keys() -> Backend | None:
    """Return `backend_named`, or else the backend whose key is set; None without either.

    It is for a spec that is written, not run, where nothing is paid for by mistake.
    """
    backend = backend_named()
    if backend is None and _variable(*_OPENAI_NAMES):
        backend = "openai"
    if backend is None and _variable(*GEMINI_KEYS):
        backend = "gemini"
    return backend


def unused_keys() -> str:
    """Return a sentence on providers' keys that are set, but not used as nothing names a model.

    It is "" where there are none.
    """
    keys = [name for name in ("OPENAI_API_KEY", *GEMINI_KEYS) if _variable(name)]
    if not keys:
        return ""
    return f"{' and '.join(keys)} set, but no model: name one in DF_MODEL to use it. "


def _backend_of_blocks(vlm: VlmBlock) -> Backend | None:
    """Return the backend whose block the spec fills in; None where it fills in none."""
    openai = vlm.openai
    if openai.base_url or openai.endpoints or openai.azure.endpoint:
        return "openai"
    if openai.model_name or openai.api_key:
        return "openai"
    if vlm.local.model_name:
        return "local"
    if vlm.gemini.api_key or vlm.gemini.base_url:
        return "gemini"
    return None


def with_environment(vlm: VlmBlock) -> VlmBlock:
    """Return a copy of `vlm` with what it leaves open taken from the environment.

    The backend `auto` stays where neither the spec's blocks nor the environment name one.
    """
    backend: str = vlm.backend
    if backend == "auto" or "backend" not in vlm.model_fields_set:
        backend = _backend_of_blocks(vlm) or backend_named() or backend
    changes = _block_filled_in(vlm, backend)
    if backend != vlm.backend:
        changes["backend"] = backend
    if vlm.box_format == "auto" and backend in ("openai", "gemini", "local"):
        changes["box_format"] = _variable("DF_BOX_FORMAT") or "auto"
    return vlm.model_copy(update=changes)


def check_public_is_meant(vlm: VlmBlock) -> None:
    """Raises SpecError where pictures would go to a public service that may not be meant.

    They would where nobody names the service, and the environment has an address that is empty, or
    another provider's key.
    """
    is_default = vlm.backend == "gemini" and "backend" not in vlm.model_fields_set
    for name in _address_variables(vlm, is_default):
        if name in os.environ and not _variable(name):
            raise SpecError(
                f"{name} is set to nothing, and the spec names no address: give it the address, or"
                " unset it where a public service is meant"
            )
    others = [name for name in _OPENAI_NAMES if _variable(name)]
    if is_default and others and not vlm.gemini.api_key and _variable(*GEMINI_KEYS):
        raise SpecError(
            f"it isn't said who is asked: Gemini's key is set, and so is {others[0]}. Set"
            " vlm.backend to gemini or to openai"
        )


def _address_variables(vlm: VlmBlock, is_default: bool) -> tuple[str, ...]:
    """Return the variables that may name another address than the public one."""
    openai = vlm.openai
    if vlm.backend == "openai" and not (
        openai.base_url or openai.endpoints or openai.azure.endpoint
    ):
        return "DF_BASE_URL", "OPENAI_BASE_URL"
    if vlm.backend == "gemini" and not vlm.gemini.base_url:
        # who names Gemini doesn't mean DF_BASE_URL's server
        return ("DF_BASE_URL", _GEMINI_ADDRESS) if is_default else (_GEMINI_ADDRESS,)
    return ()


def _block_filled_in(vlm: VlmBlock, backend: str) -> dict[str, Any]:
    """Return the backend's block, under its name, with what the environment names filled in.

    That is the model and, for `openai`, the address, where the spec leaves them open. It is empty
    for a backend without such.
    """
    model = _variable("DF_MODEL")
    if backend == "openai":
        openai = vlm.openai
        base_url = openai.base_url
        # Azure's and several endpoints' addresses stand elsewhere.
        if not (base_url or openai.azure.endpoint or openai.endpoints):
            base_url = _variable("DF_BASE_URL", "OPENAI_BASE_URL")
        changes = {"base_url": base_url, "model_name": openai.model_name or model}
        return {"openai": openai.model_copy(update=changes)}
    if backend == "local":
        local = vlm.local
        return {"local": local.model_copy(update={"model_name": local.model_name or model})}
    if backend == "gemini" and "model" not in vlm.gemini.model_fields_set:
        gemini = vlm.gemini
        return {"gemini": gemini.model_copy(update={"model": model or gemini.model})}
    return {}
