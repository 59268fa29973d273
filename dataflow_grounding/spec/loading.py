"""Reading a spec from YAML files and `key=value` overrides: `read_spec`.

The files are merged, later over earlier, and the overrides over them. Then keys that the pipeline
has no use for are taken out, references are filled in, paths are made absolute, and the result is
validated by the models of `schema.py`. Every mistake is reported with its file and line.
"""

import difflib
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.paths import absolute, has_scheme, joined, plain_path
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.spec._parts import Parts, first_line, merge, overridden, read_parts
from dataflow_grounding.spec._references import FilledIn, empty_variables, filled_in
from dataflow_grounding.spec.environment import with_environment
from dataflow_grounding.spec.problems import (
    END_OF_PART,
    at_place,
    has_key,
    take_out_missing_keys,
    validated,
)
from dataflow_grounding.spec.schema import (
    OTHER_BLOCKS,
    OTHER_KEYS,
    PipelineBlock,
    Spec,
    SpecHead,
    spec_with,
)

# What OmegaConf says of a variable that isn't set.
_UNSET_VARIABLE = re.compile(r"Environment variable '(\w+)' not found")
# Keys of `data` whose texts are no paths.
_NO_PATHS = ("split", "allow_http", "allow_hosts", "proposals")

_NO_SPEC = (
    "no spec: give one with -e SPEC. `dataflowgrounding init DIR` writes specs that run on"
    " example data, `dataflowgrounding default_specs` ones to fill in"
)

BlockOf: TypeAlias = Callable[[str, Sequence[str]], tuple[str, type[PipelineBlock]]]
"""From an `autolabel_type` and the folders of the spec's files to the key and the model of the
pipeline's block. Raises SpecError for a pipeline that isn't known.
"""


def read_spec(
    paths: str | Sequence[str],
    overrides: Sequence[str],
    block_of: BlockOf,
    known_blocks: Collection[str],
    whole: bool = True,
    fixed: JsonObject | None = None,
) -> tuple[Spec | None, list[str]]:
    """Read a spec; return it, and what is wrong with it, one line each. A wrong key has its
    default; if it has none, the spec is None.

    Paths in a file are relative to its folder, paths in overrides to the current folder. The `.env`
    files of these folders are read first.

    Args:
        paths: The spec's files; a later one goes over an earlier one.
        overrides: `key=value`, over all files.
        block_of: Finds the pipeline that the spec names.
        known_blocks: The keys of all known pipelines' blocks.
        whole: False to read a spec for its endpoint alone: `data` is left out, and what only a run
            needs may be missing.
        fixed: Values, by their keys, that count in place of the spec's own.

    Raises:
        SpecError: A file or an override can't be read, or a reference can't be filled in.
    """
    if isinstance(paths, str):
        paths = [paths]
    if not paths:
        raise SpecError(_NO_SPEC)
    folders = [os.path.dirname(path) or "." for path in paths]
    read_env_files([*folders, "."])
    parts = read_parts(paths, overrides)
    try:
        config = merge(parts)
        if not whole:
            config = _endpoint_alone(config, known_blocks)
        # Before references are filled in: a fixed key may be ??? or a variable that isn't set.
        _set_fixed(config, fixed or {})
        _name_pipeline(config, known_blocks)
        pipeline = _pipeline_named(config.get("autolabel_type"), block_of, folders)
        passed_over = _take_out_blocks(config, pipeline.model, known_blocks)
        passed_over += _take_out_keys_of_tools(config, known_blocks)
        # Only now: keys that were taken out may have references that can't be filled in.
        filled = filled_in(config)
    except (OmegaConfBaseException, RecursionError, TypeError, SpecError) as error:
        raise _why_not_merged(error, parts) from None
    spec, problems = _spec_of(filled, pipeline, parts)
    if spec is not None:
        spec._stated = filled.stated
        spec._folders = folders
        spec._passed_over = sorted({*passed_over, *parts.of_hydra})
        spec.block.vlm = with_environment(spec.block.vlm)
    return spec, problems


def _endpoint_alone(config: Any, known_blocks: Collection[str]) -> Any:
    """The config for commands that only ask the endpoint: without `data`."""
    plain: Any = OmegaConf.to_container(config)
    if "vlm" in plain:
        # The file names nothing but a model. So that it is a spec, the model is put into the block
        # of some pipeline: which one makes no difference, so it is the first.
        first_block = next(iter(known_blocks))
        plain = {first_block: {"vlm": plain["vlm"]}}
    # These commands need neither `data` nor `results_dir`: both may be missing or unfinished (???).
    for block in plain.values():
        if isinstance(block, dict):
            block.pop("data", None)
    if plain.get("results_dir") in (None, "", "???"):
        plain["results_dir"] = "."
    return OmegaConf.create(plain)


def _set_fixed(config: Any, fixed: JsonObject) -> None:
    for key, value in fixed.items():  # "image_grounding.data.proposals"
        section, _, _ = key.rpartition(".")  # "image_grounding.data", "" for a key at the top
        if not section or _may_have_keys(config, section):
            OmegaConf.update(config, key, value, force_add=True)


def _may_have_keys(config: Any, section: str) -> bool:
    """Whether a section may get a key: it is a block of keys, or is left out."""
    # If it or the block around it is anything else, such as a text, this is reported later.
    name_of_block, _, _ = section.partition(".")
    if not OmegaConf.is_dict(config.get(name_of_block)):
        return False
    inner_block = OmegaConf.select(config, section)
    return inner_block is None or OmegaConf.is_dict(inner_block)


def _name_pipeline(config: Any, known_blocks: Collection[str]) -> None:
    """Set `autolabel_type`, unless it is stated, by the block that is there."""
    if config.get("autolabel_type") is not None:
        return
    names = [str(name) for name in config if name not in OTHER_BLOCKS]
    possible_types = [name for name in names if name in known_blocks]
    if not possible_types:
        # The block's name may be misspelt: with the right type, this is reported as a wrong key.
        for name in names:
            possible_types += difflib.get_close_matches(name, known_blocks, n=1, cutoff=0.8)
    if len(possible_types) == 1:  # else it stays unset
        config.update({"autolabel_type": possible_types[0]})


class _Pipeline(NamedTuple):
    """What is known of the pipeline that a spec names."""

    # of a whole spec for it; where the pipeline isn't known, of the keys that every spec has
    model: type[SpecHead]
    why_unknown: str = ""  # "" also where none is named: that is reported as a missing key


def _pipeline_named(autolabel_type: Any, block_of: BlockOf, folders: Sequence[str]) -> _Pipeline:
    if autolabel_type is None:
        return _Pipeline(SpecHead)
    try:
        name, block = block_of(str(autolabel_type), folders)
    except SpecError as error:
        return _Pipeline(SpecHead, why_unknown=str(error))
    return _Pipeline(spec_with(name, block))


def _take_out_blocks(
    config: Any, model: type[SpecHead], known_blocks: Collection[str]
) -> list[str]:
    """Take blocks of other pipelines or tools out of `config`, and return their names."""
    keys_of_spec = {field.alias or name for name, field in model.model_fields.items()}
    is_pipeline_known = model is not SpecHead
    names_taken_out = []
    for name in list(config):
        if name in keys_of_spec:
            continue
        is_of_others = name in known_blocks or name in OTHER_BLOCKS
        may_be_the_pipelines = not is_pipeline_known and OmegaConf.is_dict(config.get(name))
        # Other unknown keys stay, to be reported.
        if is_of_others:
            names_taken_out.append(name)
            del config[name]
        elif may_be_the_pipelines:
            del config[name]  # the pipeline's name is what is wrong: the block isn't reported, too
    return names_taken_out


def _take_out_keys_of_tools(config: Any, known_blocks: Collection[str]) -> list[str]:
    """Take another tool's keys out of the known blocks, and return their names."""
    names_taken_out = []
    for block in known_blocks:
        if block not in config:
            continue
        for inner_block, keys in OTHER_KEYS.items():
            inside = OmegaConf.select(config, f"{block}.{inner_block}")
            if not OmegaConf.is_dict(inside):
                continue
            for key in keys:
                if key in inside:
                    del inside[key]
                    names_taken_out.append(f"{block}.{inner_block}.{key}")
    return names_taken_out


def _spec_of(filled: FilledIn, pipeline: _Pipeline, parts: Parts) -> tuple[Spec | None, list[str]]:
    """The spec that the values make, and all that is wrong with it."""
    _make_absolute(filled.values, parts)
    problems = take_out_missing_keys(filled.values, filled.missing, parts.place)
    problems += empty_variables(filled.stated, parts.place)
    if pipeline.why_unknown:
        problems.append(at_place(parts.place(["autolabel_type"]), pipeline.why_unknown))
    spec, problems_of_keys = validated(filled.values, pipeline.model, parts.place)
    for problem in problems_of_keys:
        # A key that was ??? is told above, and was taken out: it isn't told again as missing.
        if not any(f": {key} is missing" in problem for key in filled.missing):
            problems.append(problem)
    return spec if isinstance(spec, Spec) else None, problems


def _make_absolute(values: dict[str, object], parts: Parts) -> None:
    """Change paths in `values`: one in a file starts from the file's folder, one in an override
    from the current folder. A `~` at its beginning is the user's own folder.
    """
    sources: list[tuple[str, Any]] = []  # of each part, the folder and what it states
    for file in parts.files:
        sources.append((os.path.dirname(file.path) or ".", file.values))
    sources.append((".", overridden({}, parts.overrides)))
    for block, key, location in _possible_paths(values):
        value = block.get(key)
        if _starts_from_a_folder(value):
            folder = _folder_of_last_that_states(location, sources)
            path = joined(folder, os.path.expanduser(plain_path(str(value))))
            block[key] = absolute(path)


def _folder_of_last_that_states(location: Sequence[str], sources: Sequence[tuple[str, Any]]) -> str:
    folder_of_last = "."  # if none states it
    for folder, stated in sources:
        if has_key(stated, location):
            folder_of_last = folder
    return folder_of_last


def _possible_paths(
    values: dict[str, object],
) -> Iterator[tuple[dict[str, object], str, list[str]]]:
    """Of each value that may be a path: its block, its key, and its location."""
    # ({"input_jsonl": "a.jsonl"}, "input_jsonl", ["image_grounding", "data", "input_jsonl"])
    yield values, "results_dir", ["results_dir"]
    for name, block in values.items():
        if not isinstance(block, dict):
            continue
        data = block.get("data")
        if isinstance(data, dict):
            for key in data:
                if key not in _NO_PATHS:
                    yield data, key, [name, "data", key]
        prompts = block.get("prompts")
        if isinstance(prompts, dict):
            yield prompts, "dir", [name, "prompts", "dir"]


def _starts_from_a_folder(value: Any) -> bool:
    if isinstance(value, str):  # addresses, data sets and empty texts start from none
        return value != "" and not value.startswith("datasets:") and not has_scheme(value)
    return isinstance(value, int)  # a folder may be called 2024


def _why_not_merged(error: Exception, parts: Parts) -> SpecError:
    variable = _UNSET_VARIABLE.search(str(error))
    if variable:
        name = variable[1]
        key = str(getattr(error, "full_key", "") or "")
        ways = f"export {name}=..., write it into a .env file, "
        ways += f"or write ${{oc.env:{name},''}} where it may be missing"
        place = parts.place(END_OF_PART.split(key))
        return SpecError(
            f"{place}: {key or 'a key'} takes the variable {name}, which is not set: {ways}"
        )
    names = ", ".join(file.path for file in parts.files)
    return SpecError(f"{names}: {first_line(error)}")  # OmegaConf's may have many lines
