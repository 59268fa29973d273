"""What variables of the environment say of the endpoint, where a spec or script leaves it open.

Our own variables (`DF_BASE_URL`, `DF_MODEL`, …) go before the providers' (`OPENAI_API_KEY`, …).
"""

import os
from typing import Literal

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.spec.schema import VlmBlock

GEMINI_KEYS = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
"""Where Google's own client looks for a key, in this order (ai.google.dev/gemini-api/docs/api-key,
2026-11).
"""
# Where the providers' own clients look for an address, and OpenAI's also for a key.
_GEMINI_ADDRESS = "GOOGLE_GEMINI_BASE_URL"
_OPENAI_NAMES = ("OPENAI_API_KEY", "OPENAI_BASE_URL")

Backend = Literal["gemini", "openai", "local", "embedded"]


def _first_set(*names: str) -> str:
    for name in names:
        value = os.environ.get(name, "").strip()
        if value:
            return value
    return ""


def _address_in(*names: str) -> str:
    """The first address that is set, or ""."""
    for name in names:
        address = _first_set(name)
        # A check of the spec would name the setting, which the user didn't write.
        if address and not address.startswith(("http://", "https://")):
            raise SpecError(f"{name} should begin with http:// or https://")
        if address:
            return address
    return ""


def backend_named() -> Backend | None:
    """Return the backend that our own variables name, if any of them is set."""
    if _first_set("DF_BASE_URL", "DF_API_KEY"):
        return "openai"
    model = _first_set("DF_MODEL")
    if not model:
        # A provider's key alone names none: nobody means to pay for a script because a key is set
        # for something else.
        return None
    # With DF_MODEL alone, the provider whose variables are set is asked.
    has_openai = bool(_first_set(*_OPENAI_NAMES))
    has_gemini = bool(_first_set(*GEMINI_KEYS))
    if has_openai and not has_gemini:
        return "openai"  # compatible endpoints may serve a model called gemini, too
    if has_gemini and not has_openai:
        return "gemini"
    # If both are set, or neither is, the model's name tells.
    return "gemini" if model.startswith("gemini") else "openai"


def backend_of_keys() -> Backend | None:
    """Return `backend_named`, else the backend of the provider whose variables are set."""
    # This is for a spec that is written, not run: nothing is paid for by mistake.
    backend = backend_named()
    if backend is None and _first_set(*_OPENAI_NAMES):
        backend = "openai"
    if backend is None and _first_set(*GEMINI_KEYS):
        backend = "gemini"
    return backend


def note_on_unused_keys() -> str:
    """Return a sentence on the providers' keys that are set, with a space after it, or ""."""
    keys = [name for name in ("OPENAI_API_KEY", *GEMINI_KEYS) if _first_set(name)]
    if not keys:
        return ""
    return f"{' and '.join(keys)} set, but no model: name one in DF_MODEL to use it. "


def _backend_of_blocks(vlm: VlmBlock) -> Backend | None:
    """The backend whose block the spec fills in; of several, the first in this order."""
    openai = vlm.openai
    if openai.base_url or openai.endpoints:
        return "openai"
    if openai.model_name or openai.api_key:
        return "openai"
    if vlm.local.model_name:
        return "local"
    if vlm.gemini.api_key or vlm.gemini.base_url:  # its model has a default
        return "gemini"
    return None


def with_environment(vlm: VlmBlock) -> VlmBlock:
    """Return a `vlm` block with what the environment says where the block leaves it open."""
    backend: str = vlm.backend
    if backend == "auto" or "backend" not in vlm.model_fields_set:
        # the one whose block the spec fills in, else the one that the environment names
        backend = _backend_of_blocks(vlm) or backend_named() or backend
    changes = _block_filled_in(vlm, backend)
    if backend != vlm.backend:
        changes["backend"] = backend
    # The embedded grounder and a user's own serving say which format they have.
    if vlm.box_format == "auto" and backend in ("openai", "gemini", "local"):
        changes["box_format"] = _first_set("DF_BOX_FORMAT") or "auto"
    return vlm.model_copy(update=changes)


def check_public_is_meant(vlm: VlmBlock) -> None:
    """Raise SpecError where pictures would go to a public service that may not be meant."""
    is_gemini_by_default = vlm.backend == "gemini" and "backend" not in vlm.model_fields_set
    for name in _address_variables(vlm, is_gemini_by_default):
        is_set_to_nothing = name in os.environ and not _first_set(name)
        if is_set_to_nothing:
            raise SpecError(
                f"{name} is set to nothing, and the spec names no address: give it the address, or"
                " unset it where a public service is meant"
            )
    if not is_gemini_by_default:
        return
    # The spec doesn't say who is asked. The environment doesn't, either, if it has Gemini's key and
    # also OpenAI's key or address.
    names_of_openai = [name for name in _OPENAI_NAMES if _first_set(name)]
    takes_key_of_environment = not vlm.gemini.api_key and bool(_first_set(*GEMINI_KEYS))
    if names_of_openai and takes_key_of_environment:
        raise SpecError(
            f"it isn't said who is asked: Gemini's key is set, and so is {names_of_openai[0]}. Set"
            " vlm.backend to gemini or to openai"
        )


def _address_variables(vlm: VlmBlock, is_gemini_by_default: bool) -> tuple[str, ...]:
    """The variables that may name the address; () where the spec names one itself."""
    openai = vlm.openai
    has_address = openai.base_url or openai.endpoints
    if vlm.backend == "openai" and not has_address:
        return ("DF_BASE_URL", "OPENAI_BASE_URL")
    if vlm.backend == "gemini" and not vlm.gemini.base_url:
        if is_gemini_by_default:
            return ("DF_BASE_URL", _GEMINI_ADDRESS)
        # A spec that names Gemini doesn't mean DF_BASE_URL's server.
        return (_GEMINI_ADDRESS,)
    return ()


def _block_filled_in(vlm: VlmBlock, backend: str) -> dict[str, object]:
    """The backend's block with the environment's model and address, as a change of `vlm`."""
    model = _first_set("DF_MODEL")
    if backend == "openai":
        openai = vlm.openai
        base_url = openai.base_url
        # Several endpoints have addresses of their own.
        if not (base_url or openai.endpoints):
            base_url = _address_in("DF_BASE_URL", "OPENAI_BASE_URL")
        changes = {"base_url": base_url, "model_name": openai.model_name or model}
        return {"openai": openai.model_copy(update=changes)}
    if backend == "local":
        local = vlm.local
        return {"local": local.model_copy(update={"model_name": local.model_name or model})}
    if backend == "gemini" and "model" not in vlm.gemini.model_fields_set:
        gemini = vlm.gemini
        return {"gemini": gemini.model_copy(update={"model": model or gemini.model})}
    return {}
