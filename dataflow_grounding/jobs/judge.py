"""The servings of a spec: that of its `vlm`, and of the judge that `vlm.judge` names."""

import re
from typing import Any

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.secrets import names_secret
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import Spec, VlmBlock
from dataflow_grounding.spec.schema import AzureBlock, JudgeBlock, JudgedVlmBlock

_KEYS = {
    "openai": ("base_url", "model_name", "api_key"),
    "gemini": ("base_url", "model", "api_key"),
    "local": ("", "model_name", ""),
}
"""Backend → its own names of `base_url`, `model_name` and `api_key`; "" where it has none."""


def vlms_of(vlm: JudgedVlmBlock, *, judges: bool) -> list[VlmBlock]:
    """Return the blocks of the models that are asked: `vlm`, and its judge where that `judges`."""
    if vlm.judge is None or not judges:
        return [vlm]
    return [vlm, _judge_block(vlm, vlm.judge)]


def _judge_block(vlm: VlmBlock, judge: JudgeBlock) -> VlmBlock:
    # `vlm` with what the judge states. No secret of `vlm` goes to another address.
    backend = judge.backend or vlm.backend
    # Of another backend, what the judge doesn't state is the default.
    block = vlm if backend == vlm.backend else VlmBlock(backend=backend)
    changes: dict[str, Any] = {"box_format": judge.box_format, "prices": judge.prices}
    stated: dict[str, Any] = {}
    for name in ("base_url", "model_name", "api_key"):
        value = getattr(judge, name)
        if value:
            stated[name] = value
    if backend in ("embedded", "auto") and stated:
        first_stated = next(iter(stated))
        raise SpecError(f"vlm.judge.{first_stated}: {backend} has none, leave it out")
    if backend not in _KEYS:  # embedded, auto, or a serving of the user's own
        settings = block.settings
        if judge.base_url:
            settings = _without_secrets(settings)
        changes["settings"] = {**settings, **stated}
        return block.model_copy(update=changes)
    backend_block = getattr(block, backend)
    backend_changes = _in_backends_names(backend, stated)
    if backend == "openai" and judge.model_name:
        # The present one tells replies of `vlm`'s model apart: the judge's aren't among these.
        backend_changes["name"] = ""
    present_address = getattr(backend_block, "base_url", "")
    asks_another_address = bool(judge.base_url) and judge.base_url != present_address
    if asks_another_address:
        backend_changes["api_key"] = judge.api_key  # "" if none is stated: not `vlm`'s
        backend_changes |= _changes_for_another_address(backend, backend_block)
        changes["service_tier"] = None
    changes[backend] = backend_block.model_copy(update=backend_changes)
    return block.model_copy(update=changes)


def _in_backends_names(backend: str, stated: dict[str, Any]) -> dict[str, Any]:
    # What the judge states by the keys of the backend's block, such as `model` for `model_name`.
    # Raises SpecError for what that block doesn't have.
    renamed: dict[str, Any] = {}
    for name, own_name in zip(("base_url", "model_name", "api_key"), _KEYS[backend], strict=True):
        if name in stated and not own_name:
            raise SpecError(f"vlm.judge.{name}: {backend} has none, leave it out")
        if name in stated:
            renamed[own_name] = stated[name]
    return renamed


def _changes_for_another_address(backend: str, backend_block: Any) -> dict[str, Any]:
    # Of a backend's block: leaves out what gives access to the address of `vlm`.
    if backend == "openai":
        extra_body = _without_secrets(backend_block.extra_body)
        no_access = {"endpoints": [], "azure": AzureBlock(), "extra_headers": {}}
        return {**no_access, "extra_body": extra_body}
    return {"extra": _without_secrets(backend_block.extra)}


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        settings = {}
        for key, inner in value.items():
            if not names_secret(str(key)):
                settings[key] = _without_secrets(inner)
        return settings
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    return value


def servings_of(spec: Spec) -> list[Serving]:
    """Return the serving of each of the block's `vlms`: the spec's, and its judge's if it asks one.

    A SpecError names keys of `vlm.judge`.
    """
    vlm, *judges = spec.block.vlms
    workflow = spec.block.workflow
    servings = [serving_of(vlm, workflow, spec.folders)]
    for judge in judges:
        assert isinstance(vlm, JudgedVlmBlock)
        assert vlm.judge is not None
        if vlm.judge.max_workers is not None:
            workflow = workflow.model_copy(update={"max_workers": vlm.judge.max_workers})
        try:
            servings.append(serving_of(judge, workflow, spec.folders))
        except SpecError as error:
            # "vlm.openai.base_url" becomes "vlm.judge.base_url"; a host, as "//vlm.org", stays.
            keys = r"(?<![\w./@-])vlm\.((openai|gemini|local)\.)?"
            raise SpecError(re.sub(keys, "vlm.judge.", str(error))) from error
    return servings
