"""Reading a spec: YAML files, `key=value` overrides, interpolation, paths; every mistake named with
its place.
"""

import difflib
import io
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, TypeAlias

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.paths import has_scheme, is_elsewhere, joined, plain_path
from dataflow_grounding._util.secrets import is_secret_variable, learn_fields, texts_in
from dataflow_grounding.spec._references import check_references, empty_variables
from dataflow_grounding.spec.environment import with_environment
from dataflow_grounding.spec.problems import block_with, drop, place_of, validated
from dataflow_grounding.spec.schema import OTHER_KEYS, PipelineBlock, Spec, SpecHead, spec_with

DEEPEST = 50
"""Lists and mappings inside each other that a spec may have: at some thousands libyaml ends the
process silently.
"""
LONGEST = 4000
"""Characters of a number, or of a text with references."""
_NUMBER = re.compile(r"[-+.]?[0-9][0-9a-fA-FxXoO_:.]*")
_HYDRA = re.compile(r"[+~]*hydra[./=]")
_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)")

BlockOf: TypeAlias = Callable[[str, Sequence[str]], tuple[str, type[PipelineBlock]]]
"""Of an `autolabel_type` and the folders of the spec's files: the pipeline's block key and its
model, or SpecError.
"""


def read_spec(
    paths: str | Sequence[str],
    overrides: Sequence[str],
    block_of: BlockOf,
    others: Collection[str],
    whole: bool,
) -> tuple[Spec | None, list[str]]:
    """The spec in one YAML file or several, the later over the earlier, with `key=value` overrides
    on top; and all that is wrong with it, one line each.

    Paths in a file are relative to its folder, paths in overrides to the current folder. `.env` of
    both is read first. The wrong keys have their defaults in the spec, and it is None where there
    is none. `others` are blocks of pipelines that may stand beside the one that is to run. One that
    is not read `whole` may lack what only a run needs. Raises SpecError for what can't be read as
    YAML.
    """
    paths = [paths] if isinstance(paths, str) else list(paths)
    if not paths:
        ways = (
            "`dataflowgrounding init DIR` writes specs that run on example data, `dataflowgrounding"
            " default_specs`"
        )
        raise SpecError(f"no spec: give one with -e SPEC. {ways} complete ones to fill in")
    folders = [os.path.dirname(path) or "." for path in paths]
    read_env_files([*folders, "."])
    files, roots = zip(*map(_read_yaml, paths), strict=True)
    given, of_hydra = _read_overrides(overrides)
    try:
        everything = _merged([*files, given])
        merged: Any = everything if whole else _endpoint_alone(everything, others)
        model, unknown = _model_of(merged, block_of, folders, others)
        passed_over = {*of_hydra, *_passed_over(merged, model, others)}
        missing = sorted(OmegaConf.missing_keys(merged))
        for key in missing:
            OmegaConf.update(merged, key, None)
        resolved: Any = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, RecursionError, TypeError, SpecError) as error:
        hint = "; an item of a list can't be overridden alone: give the whole list" * isinstance(
            error, TypeError
        )
        raise SpecError(f"{', '.join(paths)}: {_first_line(error)}{hint}") from None
    values = {str(name): value for name, value in resolved.items()}
    stated: Any = OmegaConf.to_container(merged)
    _learn_environment(stated)
    plain_given: Any = OmegaConf.to_container(given)
    _resolve_paths(
        values, [*zip(folders, map(OmegaConf.to_container, files), strict=True), (".", plain_given)]
    )
    place, asked = partial(place_of, dict(zip(paths, roots, strict=True)), plain_given), []
    for key in missing:
        location = re.split(r"[.[]", key)
        drop(values, location)
        asked.append(f"{place(location)}: {key} is '???': give it a value")
    asked += _held_nothing(stated, place)
    asked += [f"{place(['autolabel_type'])}: {unknown}"] if unknown else []
    spec, problems = validated(values, model, place)
    asked += [
        problem
        for problem in problems
        if not any(f": {key} is missing" in problem for key in missing)
    ]
    if not isinstance(spec, Spec):
        return None, asked
    spec._stated, spec._folders, spec._passed_over = stated, folders, sorted(passed_over)
    spec.block.vlm = with_environment(spec.block.vlm)
    return spec, asked


def _merged(parts: Sequence[Any]) -> Any:
    """The later over the earlier. Each is looked at before the next goes over it, which may fill in
    references.
    """
    merged: Any = OmegaConf.create()
    for part in parts:
        check_references(merged := OmegaConf.merge(merged, part))
    return merged


def _held_nothing(stated: Any, place: Callable[[Sequence[str]], str]) -> Iterator[str]:
    """A line for each key whose variable is set to nothing."""
    for at, variable in empty_variables(stated):
        key, way = (
            ".".join(map(str, at)),
            f"set it, or write ${{oc.env:{variable},''}} where nothing is meant",
        )
        yield f"{place(list(map(str, at)))}: {key} is what {variable} holds, which is empty: {way}"


def _endpoint_alone(merged: Any, others: Collection[str]) -> Any:
    """The spec without what only a run needs; a `vlm` that stands outside a block is taken as in
    the first.
    """
    plain: Any = OmegaConf.to_container(merged)
    plain = {next(iter(others)): {"vlm": plain["vlm"]}} if "vlm" in plain else plain
    for block in plain.values():
        if isinstance(block, dict):
            block.pop("data", None)
    if plain.get("results_dir") in (None, "", "???"):
        plain["results_dir"] = "."
    return OmegaConf.create(plain)


def _model_of(
    merged: Any, block_of: BlockOf, folders: Sequence[str], others: Collection[str]
) -> tuple[type[SpecHead], str]:
    """The model of the whole spec; where no pipeline is named (by a lone block, too), of its head,
    and why.
    """
    if merged.get("autolabel_type") is None:
        ours = [str(name) for name in merged if name not in OTHER_KEYS["blocks"]]
        near = [close for name in ours for close in difflib.get_close_matches(name, others, 1, 0.8)]
        blocks = [name for name in ours if name in others] or near
        merged.update({"autolabel_type": blocks[0]} if len(blocks) == 1 else {})
    wanted = merged.get("autolabel_type")
    try:
        return (SpecHead if wanted is None else spec_with(*block_of(str(wanted), folders))), ""
    except SpecError as error:
        return SpecHead, str(error)


def _passed_over(merged: Any, model: type[SpecHead], others: Collection[str]) -> list[str]:
    """Take out blocks of other pipelines and keys of TAO's that ours have no use for; returns what
    they are called.
    """
    known = {field.alias or name for name, field in model.model_fields.items()}
    unknown = [name for name in merged if name not in known]
    names = [name for name in unknown if name in others or name in OTHER_KEYS["blocks"]]
    for name in unknown:
        if name in names or (model is SpecHead and OmegaConf.is_dict(merged.get(name))):
            del merged[name]
    for block, (place, keys) in product(others, OTHER_KEYS["keys"].items()):
        inside = OmegaConf.select(merged, f"{block}.{place}")
        for key in filter(inside.__contains__, keys) if OmegaConf.is_dict(inside) else ():
            del inside[key]
            names.append(f"{block}.{place}.{key}")
    return names


def _read_yaml(path: str) -> tuple[Any, Any]:
    """What the file says, and as nodes, which know their lines."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        _check_events(text)
        read, root = OmegaConf.load(io.StringIO(text)), yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise SpecError(f"no spec file {path}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        tab = ": indent with spaces, not with a tab" if "\n\t" in f"\n{text}" else ""
        raise SpecError(f"{path}, line {line}: {error.problem or 'not YAML'}{tab}") from None
    except Exception as error:  # PyYAML lets through what its constructors raise
        raise SpecError(f"can't read {path}: {_first_line(error)}") from None
    if not OmegaConf.is_dict(read):
        raise SpecError(f"{path} should be a YAML mapping of keys")
    return read, root


def _check_events(text: str) -> None:
    """Raises ValueError for YAML that is nested too deeply, or with a text that it takes too long
    to make sense of.
    """
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(
            event, yaml.CollectionEndEvent
        )
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} lists and mappings inside each other")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > LONGEST:
            line = event.start_mark.line + 1 if event.start_mark else "?"
            if "${" in event.value:
                raise ValueError(
                    f"line {line}: a text of more than {LONGEST:,} characters with ${{…}} in it"
                )
            if event.style in (None, "") and _NUMBER.fullmatch(event.value):
                # 59:59:59 is one, to the base 60
                raise ValueError(
                    f"line {line}: a number of {len(event.value):,} characters; put a text in"
                    " quotes"
                )


def _read_overrides(overrides: Sequence[str]) -> tuple[Any, list[str]]:
    """The overrides; and `hydra` where some are Hydra's own, which are not read."""
    ours = {number: one for number, one in enumerate(overrides, 1) if not _HYDRA.match(one)}
    for number, override in ours.items():
        key, equals, _ = override.partition("=")
        if not equals or not key.strip():  # not shown: it may be a key that lost its name
            raise SpecError(
                f"override {number} has no '=': write key=value, for instance results_dir=./results"
            )
    try:
        for override in ours.values():
            _check_events(override.partition("=")[2])
        read = OmegaConf.from_dotlist([override.lstrip("+") for override in ours.values()])
        return read, ["hydra"] * (len(ours) < len(overrides))
    except Exception as error:
        raise SpecError(f"can't read the overrides: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _learn_environment(stated: Any) -> None:
    """Remember the secrets a spec takes from the environment, told by the variable's name, or the
    key's.
    """
    for text, secret in texts_in(stated):
        for variable in _VARIABLE.findall(text):
            learn_fields(os.environ.get(variable), secret or is_secret_variable(variable))


def _resolve_paths(values: dict[str, Any], sources: Iterable[tuple[str, Any]]) -> None:
    """Make `results_dir` and the paths in `data` absolute: by the last folder whose source states
    them.
    """
    blocks = [
        (name, block.get("data")) for name, block in values.items() if isinstance(block, dict)
    ]
    in_data = [
        (name, "data", key) for name, data in blocks if isinstance(data, dict) for key in data
    ]
    for location in [("results_dir",), *in_data]:
        block, name = block_with(values, location), location[-1]
        if block is None or not _is_path(name, block[name]):
            continue
        folder = [
            ".",
            *(folder for folder, stated in sources if block_with(stated, location) is not None),
        ][-1]
        path = joined(folder, os.path.expanduser(plain_path(str(block[name]))))
        block[name] = path if is_elsewhere(path) else os.path.abspath(path)


def _is_path(name: str, value: Any) -> bool:
    named = isinstance(value, str) and (
        value == "" or value.startswith("datasets:") or has_scheme(value)
    )
    return isinstance(value, (str, int)) and not named and name not in ("split", "allow_http")
