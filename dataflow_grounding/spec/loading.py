"""Reading a spec from YAML files and `key=value` overrides: `read_spec`.

The files are merged, later over earlier, and the overrides over them. Then references are filled
in, keys that the pipeline has no use for are taken out, paths are made absolute, and the result is
validated by the models of `schema.py`. Every mistake is reported with its file and line.
"""

import os
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dataflow_grounding._util.environment import may_be_in_env_file, read_env_files
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.spec._parts import Parts, first_line, merge, read_parts
from dataflow_grounding.spec._paths import make_absolute
from dataflow_grounding.spec._pipeline import endpoint_alone, name_pipeline, take_out_unused
from dataflow_grounding.spec._references import empty_variables, filled_in, learn_variables
from dataflow_grounding.spec.environment import with_environment
from dataflow_grounding.spec.problems import END_OF_PART, missing_keys, validated
from dataflow_grounding.spec.schema import PipelineBlock, Spec, SpecHead, spec_with

# What OmegaConf says of a variable that isn't set.
_UNSET_VARIABLE = re.compile(r"Environment variable '(\w+)' not found")

BlockOf: TypeAlias = Callable[[str, Sequence[str]], tuple[str, type[PipelineBlock]]]
"""From an `autolabel_type` and the folders of the spec's files to the pipeline's block.

The block is its key and its model. Raises SpecError for a pipeline that isn't known.
"""


def read_spec(
    paths: str | Sequence[str],
    overrides: Sequence[str],
    block_of: BlockOf,
    others: Collection[str],
    whole: bool,
) -> tuple[Spec | None, list[str]]:
    """Read a spec from YAML files, with all that is wrong with it.

    Paths in a file are relative to its folder, paths in overrides to the current folder. The `.env`
    files of both are read first.

    Args:
        paths: One YAML file or several, the later over the earlier.
        overrides: `key=value` texts, over the files.
        block_of: Returns the block of the pipeline that is to run.
        others: The keys of all known pipelines' blocks, which may stand beside that one.
        whole: Whether the spec is for a run. If not, it is read for its endpoint: `data` is left
            out, and what only a run needs may be missing.

    Returns:
        The spec, in which wrong keys have their defaults, or None where it can't be made; and what
        is wrong, one line each, none where all is right.

    Raises:
        SpecError: There is no path, a file can't be read as YAML, an override not as `key=value`,
            or a reference can't be filled in.
    """
    if isinstance(paths, str):
        paths = [paths]
    if not paths:
        raise SpecError(
            "no spec: give one with -e SPEC. `dataflowgrounding init DIR` writes specs that run on"
            " example data, `dataflowgrounding default_specs` complete ones to fill in"
        )
    folders = [os.path.dirname(path) or "." for path in paths]
    read_env_files([*folders, "."])
    parts = read_parts(paths, overrides)
    try:
        config = merge(parts)
        if not whole:
            config = endpoint_alone(config, others)
        name_pipeline(config, others)
        model, unknown = _model_of(config.get("autolabel_type"), block_of, folders)
        passed_over = take_out_unused(config, model, others)
        values, missing = filled_in(config)
    except (OmegaConfBaseException, RecursionError, TypeError, SpecError) as error:
        raise _why_not_merged(error, parts) from None
    # The values as they are stated, with their references.
    stated: Any = OmegaConf.to_container(config)
    learn_variables(stated)
    make_absolute(values, parts.sources())
    problems = missing_keys(values, missing, parts.place)
    problems += empty_variables(stated, parts.place)
    if unknown:
        problems.append(f"{parts.place(['autolabel_type'])}: {unknown}")
    spec, wrong = validated(values, model, parts.place)
    for problem in wrong:
        # A key that is ??? was reported above.
        if not any(f": {key} is missing" in problem for key in missing):
            problems.append(problem)
    if not isinstance(spec, Spec):
        return None, problems
    spec._stated = stated
    spec._folders = folders
    spec._passed_over = sorted({*passed_over, *parts.overrides.of_hydra})
    spec.block.vlm = with_environment(spec.block.vlm)
    return spec, problems


def _model_of(
    autolabel_type: Any, block_of: BlockOf, folders: Sequence[str]
) -> tuple[type[SpecHead], str]:
    # Where the pipeline isn't known, or none is named, it is the model of the spec's head alone.
    # The reason is "" otherwise, and where none is named.
    if autolabel_type is None:
        return SpecHead, ""
    try:
        name, block = block_of(str(autolabel_type), folders)
    except SpecError as error:
        return SpecHead, str(error)
    return spec_with(name, block), ""


def _why_not_merged(error: Exception, parts: Parts) -> SpecError:
    variable = _UNSET_VARIABLE.search(str(error))
    if variable:
        name = variable[1]
        key = str(getattr(error, "full_key", "") or "")
        ways = f"export {name}=..., "
        if may_be_in_env_file(name):
            ways += "write it into a .env file, "
        ways += f"or write ${{oc.env:{name},''}} where it may be missing"
        place = parts.place(END_OF_PART.split(key))
        return SpecError(
            f"{place}: {key or 'a key'} takes the variable {name}, which is not set: {ways}"
        )
    hint = ""
    if isinstance(error, TypeError):
        hint = "; an item of a list can't be overridden alone: give the whole list"
    names = ", ".join(file.path for file in parts.files)
    return SpecError(f"{names}: {first_line(error)}{hint}")
