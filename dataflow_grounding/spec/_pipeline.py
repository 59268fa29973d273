"""Which pipeline a merged spec is of, and which of its keys that one has no use for."""

import difflib
from collections.abc import Collection
from typing import Any

from omegaconf import OmegaConf

from dataflow_grounding.spec.schema import OTHER_KEYS, SpecHead


def endpoint_alone(config: Any, others: Collection[str]) -> Any:
    """Return what a config says of the endpoint, without what only a run needs.

    Where there is a `vlm` at the top, it is taken to be that of the first known pipeline's block,
    and everything else is left out. `data` is left out, and a missing `results_dir` is the current
    folder.
    """
    plain: Any = OmegaConf.to_container(config)
    if "vlm" in plain:
        first_block = next(iter(others))
        plain = {first_block: {"vlm": plain["vlm"]}}
    for block in plain.values():
        if isinstance(block, dict):
            block.pop("data", None)
    if plain.get("results_dir") in (None, "", "???"):
        plain["results_dir"] = "."
    return OmegaConf.create(plain)


def name_pipeline(config: Any, known_pipelines: Collection[str]) -> None:
    """Set `autolabel_type`, where it is missing, to the pipeline that the spec has a block for.

    Without any such block, one whose name is similar counts. It stays unset where there are blocks
    for several pipelines, or for none. The config is changed.
    """
    if config.get("autolabel_type") is not None:
        return
    names = [str(name) for name in config if name not in OTHER_KEYS["blocks"]]
    blocks = [name for name in names if name in known_pipelines]
    if not blocks:
        # The block's name may be misspelt: with the right type, this is reported as a wrong key.
        for name in names:
            blocks += difflib.get_close_matches(name, known_pipelines, n=1, cutoff=0.8)
    if len(blocks) == 1:
        config.update({"autolabel_type": blocks[0]})


def take_out_unused(config: Any, model: type[SpecHead], others: Collection[str]) -> list[str]:
    """Take the keys out of a config that are of other pipelines or tools, and return them.

    Unknown keys stay, to be reported. Where no pipeline is known, blocks that may be the pipeline's
    are taken out, too.
    """
    known = {field.alias or name for name, field in model.model_fields.items()}
    taken_out = []
    for name in list(config):
        if name in known:
            continue
        if name in others or name in OTHER_KEYS["blocks"]:
            taken_out.append(name)
            del config[name]
        elif model is SpecHead and OmegaConf.is_dict(config.get(name)):
            # This may be the block of the pipeline that isn't known. Which keys it may have isn't
            # known either, so it isn't reported.
            del config[name]
    for block in others:
        if block not in config:
            continue
        for inner_block, keys in OTHER_KEYS["keys"].items():
            inside = OmegaConf.select(config, f"{block}.{inner_block}")
            if not OmegaConf.is_dict(inside):
                continue
            for key in keys:
                if key in inside:
                    del inside[key]
                    taken_out.append(f"{block}.{inner_block}.{key}")
    return taken_out
