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
    access = {"base_url": judge.base_url, "model_name": judge.model_name, "api_key": judge.api_key}
    stated = {name: value for name, value in access.items() if value}
    own_names = _OWN_NAMES.get(backend)
    if own_names is None:
        own_names = {} if backend in ("embedded", "auto") else {name: name for name in access}
    for name in stated:
        if name not in own_names:  # `auto` takes all from the environment
            raise SpecError(f"vlm.judge.{name}: {backend} has none, leave it out")
    if backend in _OWN_NAMES:
        inner = getattr(block, backend)  # such as vlm.openai
        inner_changes: dict[str, object] = {own_names[name]: stated[name] for name in stated}
        if backend == "openai" and judge.model_name:
            # `name`, by which stored replies are told apart, is of `vlm`'s model
            inner_changes["name"] = ""
        if judge.base_url and judge.base_url != inner.base_url:
            inner_changes |= {"api_key": judge.api_key, **_without_access(backend, inner)}
            changes["service_tier"] = None  # the server at that address may have no tiers
        changes[backend] = inner.model_copy(update=inner_changes)
    else:  # a serving of the user's own
        settings = _without_secrets(block.settings) if judge.base_url else block.settings
        changes["settings"] = {**settings, **stated}
    return block.model_copy(update=changes)


def _without_access(backend: str, block: Any) -> JsonObject:
    """Return changes that take away what gives a block access to the address of `vlm`."""
    if backend == "openai":
        extra_body = _without_secrets(block.extra_body)
        return {"endpoints": [], "extra_headers": {}, "extra_body": extra_body}
    return {"extra": _without_secrets(block.extra)}


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
