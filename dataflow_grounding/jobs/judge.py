"""The servings of a spec: that of its `vlm`, and of the judge that `vlm.judge` names."""

import re
from typing import Any

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.secrets import names_secret
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import Spec, VlmBlock
from dataflow_grounding.spec.schema import JudgeBlock, JudgedVlmBlock

_OWN_NAMES = {
    "openai": {"base_url": "base_url", "model_name": "model_name", "api_key": "api_key"},
    "gemini": {"base_url": "base_url", "model_name": "model", "api_key": "api_key"},
    "local": {"model_name": "model_name"},
}
"""Backend → by a key of `vlm.judge`, what the backend's own block calls it."""


def vlms_of(vlm: JudgedVlmBlock, *, judges: bool) -> list[VlmBlock]:
    """Return the blocks of the models that are asked: `vlm`, and its judge where that `judges`."""
    if vlm.judge is None or not judges:
        return [vlm]
    return [vlm, _judge_block(vlm, vlm.judge)]


def _judge_block(vlm: VlmBlock, judge: JudgeBlock) -> VlmBlock:
    """Return `vlm` with what the judge states. No secret of `vlm` goes to another address."""
    backend = judge.backend or vlm.backend
    block = vlm
    if backend != vlm.backend:
        # what `vlm` states is for another backend, so this one has its defaults
        block = VlmBlock(backend=backend)
    changes: dict[str, object] = {"box_format": judge.box_format, "prices": judge.prices}
    if backend in _OWN_NAMES:
        backend_block = getattr(block, backend)  # such as vlm.openai
        changes[backend] = _backend_block_of_judge(backend, backend_block, judge)
        if _asks_another_address(judge, backend_block):
            changes["service_tier"] = None  # the server at that address may have no tiers
    else:
        changes["settings"] = _settings_of_judge(backend, block.settings, judge)
    return block.model_copy(update=changes)


def _backend_block_of_judge(backend: str, backend_block: Any, judge: JudgeBlock) -> Any:
    """Return a shipped backend's block with what the judge states."""
    changes: dict[str, object] = {}
    for name, value in _stated_access(judge).items():
        own_name = _OWN_NAMES[backend].get(name)
        if own_name is None:
            raise SpecError(f"vlm.judge.{name}: {backend} has none, leave it out")
        changes[own_name] = value
    if backend == "openai" and judge.model_name:
        # `name` is that by which stored replies are told apart. It is of `vlm`'s model: without it,
        # the judge's replies go by the judge's own model name.
        changes["name"] = ""
    if _asks_another_address(judge, backend_block):
        changes["api_key"] = judge.api_key  # "" if none is stated: not `vlm`'s
        changes |= _changes_for_another_address(backend, backend_block)
    return backend_block.model_copy(update=changes)


def _asks_another_address(judge: JudgeBlock, backend_block: Any) -> bool:
    address_of_vlm = getattr(backend_block, "base_url", "")
    return bool(judge.base_url) and judge.base_url != address_of_vlm


def _changes_for_another_address(backend: str, backend_block: Any) -> JsonObject:
    """Return what leaves out a block's access to the address of `vlm`."""
    if backend == "openai":
        extra_body = _without_secrets(backend_block.extra_body)
        no_access: JsonObject = {"endpoints": [], "extra_headers": {}}
        return {**no_access, "extra_body": extra_body}
    return {"extra": _without_secrets(backend_block.extra)}


def _settings_of_judge(backend: str, settings: Any, judge: JudgeBlock) -> JsonObject:
    """Return the settings of a serving of the user's own, with what the judge states."""
    stated = _stated_access(judge)
    if backend in ("embedded", "auto") and stated:  # `auto` takes all from the environment
        first_stated = next(iter(stated))
        raise SpecError(f"vlm.judge.{first_stated}: {backend} has none, leave it out")
    if judge.base_url:
        settings = _without_secrets(settings)
    return {**settings, **stated}


def _stated_access(judge: JudgeBlock) -> dict[str, str]:
    """Return which endpoint and model to ask, and by which key, as far as the judge states it."""
    access = {"base_url": judge.base_url, "model_name": judge.model_name, "api_key": judge.api_key}
    return {name: value for name, value in access.items() if value}


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
    """Return the serving of each of the block's `vlms`: the spec's, and that of a judge."""
    vlm, *judges = spec.block.vlms
    servings = [serving_of(vlm, spec.block.workflow, spec.folders)]
    for judge in judges:  # one at the most
        servings.append(_serving_of_judge(spec, judge))
    return servings


def _serving_of_judge(spec: Spec, judge: VlmBlock) -> Serving:
    """Return the serving of `judge`, the block that `_judge_block` has made."""
    vlm = spec.block.vlm
    assert isinstance(vlm, JudgedVlmBlock)
    assert vlm.judge is not None
    workflow = spec.block.workflow
    if vlm.judge.max_workers is not None:
        workflow = workflow.model_copy(update={"max_workers": vlm.judge.max_workers})
    try:
        return serving_of(judge, workflow, spec.folders)
    except SpecError as error:
        # "vlm.openai.base_url" becomes "vlm.judge.base_url"; a host, as "//vlm.org", stays.
        keys = r"(?<![\w./@-])vlm\.((openai|gemini|local)\.)?"
        raise SpecError(re.sub(keys, "vlm.judge.", str(error))) from error
