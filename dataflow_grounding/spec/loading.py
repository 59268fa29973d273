"""Reading a spec: YAML files, `key=value` overrides, references, paths.

Every mistake is named with its place.
"""

import difflib
import io
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.paths import has_scheme, is_elsewhere, joined, plain_path
from dataflow_grounding._util.secrets import is_secret_variable, learn_fields, texts_in
from dataflow_grounding.spec._references import (
    check_references,
    empty_other_backends,
    empty_variables,
)
from dataflow_grounding.spec.environment import with_environment
from dataflow_grounding.spec.problems import block_with, drop, place_of, validated
from dataflow_grounding.spec.schema import OTHER_KEYS, PipelineBlock, Spec, SpecHead, spec_with

DEEPEST = 50
"""Lists and mappings inside each other that a spec may have.

At some thousands libyaml ends the process silently.
"""
LONGEST = 4000
"""Characters of a number, or of a text with references."""
_NUMBER = re.compile(r"[-+.]?[0-9][0-9a-fA-FxXoO_:.]*")
_HYDRA = re.compile(r"[+~]*hydra[./=]")
_UNSET_VARIABLE = re.compile(r"Environment variable '(\w+)' not found")
_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)")

BlockOf: TypeAlias = Callable[[str, Sequence[str]], tuple[str, type[PipelineBlock]]]
"""Of an `autolabel_type` and the folders of the spec's files: the pipeline's block.

Its key and its model, or SpecError.
"""


@dataclass(frozen=True)
class _File:
    """A spec's file, read.

    Attributes:
        path: As it was named.
        values: What it says, for OmegaConf.
        root: The same as YAML nodes, which know their lines.
    """

    path: str
    values: Any
    root: Any

    @property
    def folder(self) -> str:
        """The folder that it is in."""
        return os.path.dirname(self.path) or "."


@dataclass(frozen=True)
class _Overrides:
    """What `key=value` overrides say; `of_hydra` where some are Hydra's own, which aren't read."""

    values: Any
    of_hydra: bool


@dataclass(frozen=True)
class _Merged:
    """A spec's files and overrides as one.

    Attributes:
        config: Without the keys that are passed over; a `???` is null.
        model: Of the whole spec, or of its head where no pipeline is known.
        no_pipeline: Why none is known, where a name is given.
        passed_over: Keys that the pipeline has no use for.
        missing: Keys that are `???`.
        values: The config with its references filled in.
    """

    config: Any
    model: type[SpecHead]
    no_pipeline: str
    passed_over: set[str]
    missing: list[str]
    values: dict[str, Any]


def read_spec(
    paths: str | Sequence[str],
    overrides: Sequence[str],
    block_of: BlockOf,
    others: Collection[str],
    whole: bool,
) -> tuple[Spec | None, list[str]]:
    """The spec in YAML files, and all that is wrong with it, one line each.

    Paths in a file are relative to its folder, paths in overrides to the current folder. `.env` of
    both is read first. The wrong keys have their defaults in the spec.

    Args:
        paths: One YAML file or several, the later over the earlier.
        overrides: `key=value`, over the files.
        block_of: The block of the pipeline that is to run.
        others: Blocks of pipelines that may stand beside that one.
        whole: Whether what only a run needs may not be missing.

    Returns:
        The spec, None where there is none; and the problems.

    Raises SpecError for what can't be read as YAML.
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
    files = [_read_yaml(path) for path in paths]
    given = _read_overrides(overrides)
    try:
        merged = _merge(files, given, block_of, others, whole)
    except (OmegaConfBaseException, RecursionError, TypeError, SpecError) as error:
        hint = ""
        if isinstance(error, TypeError):
            hint = "; an item of a list can't be overridden alone: give the whole list"
        variable = _UNSET_VARIABLE.search(str(error))
        if variable:
            raise SpecError(_unset(variable[1], error, files, given)) from None
        raise SpecError(f"{', '.join(paths)}: {_first_line(error)}{hint}") from None
    stated: Any = OmegaConf.to_container(merged.config)
    _learn_environment(stated)
    plain_overrides: Any = OmegaConf.to_container(given.values)
    sources = [(file.folder, OmegaConf.to_container(file.values)) for file in files]
    _resolve_paths(merged.values, [*sources, (".", plain_overrides)])
    roots = {file.path: file.root for file in files}
    place = partial(place_of, roots, plain_overrides)
    problems = _missing_keys(merged, place)
    problems += _held_nothing(stated, place)
    if merged.no_pipeline:
        problems.append(f"{place(['autolabel_type'])}: {merged.no_pipeline}")
    spec, wrong = validated(merged.values, merged.model, place)
    for problem in wrong:
        # What is ??? was told above.
        if not any(f": {key} is missing" in problem for key in merged.missing):
            problems.append(problem)
    if not isinstance(spec, Spec):
        return None, problems
    spec._stated = stated
    spec._folders = folders
    spec._passed_over = sorted(merged.passed_over)
    spec.block.vlm = with_environment(spec.block.vlm)
    return spec, problems


def _merge(
    files: Sequence[_File],
    overrides: _Overrides,
    block_of: BlockOf,
    others: Collection[str],
    whole: bool,
) -> _Merged:
    """The files and overrides as one, with their references filled in; see `read_spec`."""
    config: Any = OmegaConf.create()
    parts = [file.values for file in files]
    parts.append(overrides.values)
    for part in parts:
        config = OmegaConf.merge(config, part)
        # Before the next goes over it, as merging may fill in references.
        check_references(config)
    if not whole:
        config = _endpoint_alone(config, others)
    _name_pipeline(config, others)
    folders = [file.folder for file in files]
    model, no_pipeline = _model_of(config.get("autolabel_type"), block_of, folders)
    passed_over = set(_passed_over(config, model, others))
    if overrides.of_hydra:
        passed_over.add("hydra")
    empty_other_backends(config)
    missing = sorted(OmegaConf.missing_keys(config))
    for key in missing:
        OmegaConf.update(config, key, None)
    filled_in: Any = OmegaConf.to_container(config, resolve=True)
    values = {str(name): value for name, value in filled_in.items()}
    return _Merged(config, model, no_pipeline, passed_over, missing, values)


def _missing_keys(merged: _Merged, place: Callable[[Sequence[str]], str]) -> list[str]:
    """A line for each key that is `???`; it is taken out of the values."""
    problems = []
    for key in merged.missing:
        location = re.split(r"[.[]", key)
        drop(merged.values, location)
        problems.append(f"{place(location)}: {key} is '???': give it a value")
    return problems


def _unset(name: str, error: Exception, files: Sequence[_File], given: _Overrides) -> str:
    """Say that a variable isn't set, and at which line a key takes it."""
    roots = {file.path: file.root for file in files}
    overrides: Any = OmegaConf.to_container(given.values)
    key = str(getattr(error, "full_key", "") or "")
    place = place_of(roots, overrides, re.split(r"[.[]", key))
    return (
        f"{place}: {key or 'a key'} takes the variable {name}, which is not set: export"
        f" {name}=..., write it into a .env file, or ${{oc.env:{name},''}} where it may be missing"
    )


def _held_nothing(stated: Any, place: Callable[[Sequence[str]], str]) -> Iterator[str]:
    """A line for each key whose variable is set to nothing."""
    for keys, variable in empty_variables(stated):
        location = [str(key) for key in keys]
        yield (
            f"{place(location)}: {'.'.join(location)} is what {variable} holds, which is empty: set"
            f" it, or write ${{oc.env:{variable},''}} where nothing is meant"
        )


def _endpoint_alone(merged: Any, others: Collection[str]) -> Any:
    """The spec without what only a run needs.

    A `vlm` that stands outside a block is taken as in the first.
    """
    plain: Any = OmegaConf.to_container(merged)
    if "vlm" in plain:
        first_block = next(iter(others))
        plain = {first_block: {"vlm": plain["vlm"]}}
    for block in plain.values():
        if isinstance(block, dict):
            block.pop("data", None)
    if plain.get("results_dir") in (None, "", "???"):
        plain["results_dir"] = "."
    return OmegaConf.create(plain)


def _name_pipeline(config: Any, others: Collection[str]) -> None:
    """Name the pipeline by its block, where none is named and there is one block alone."""
    if config.get("autolabel_type") is not None:
        return
    names = [str(name) for name in config if name not in OTHER_KEYS["blocks"]]
    blocks = [name for name in names if name in others]
    if not blocks:
        # Perhaps misspelt: what is wrong with the block is told then.
        for name in names:
            blocks += difflib.get_close_matches(name, others, 1, 0.8)
    if len(blocks) == 1:
        config.update({"autolabel_type": blocks[0]})


def _model_of(
    autolabel_type: Any, block_of: BlockOf, folders: Sequence[str]
) -> tuple[type[SpecHead], str]:
    """The model of the whole spec; of its head where no pipeline is known, and why."""
    if autolabel_type is None:
        return SpecHead, ""
    try:
        name, block = block_of(str(autolabel_type), folders)
    except SpecError as error:
        return SpecHead, str(error)
    return spec_with(name, block), ""


def _passed_over(merged: Any, model: type[SpecHead], others: Collection[str]) -> list[str]:
    """Take out what ours have no use for: blocks of other pipelines and keys of TAO's.

    Returns what they are called.
    """
    known = {field.alias or name for name, field in model.model_fields.items()}
    passed_over = []
    for name in list(merged):
        if name in known:
            continue
        if name in others or name in OTHER_KEYS["blocks"]:
            passed_over.append(name)
            del merged[name]
        elif model is SpecHead and OmegaConf.is_dict(merged.get(name)):
            # The pipeline's own block, perhaps: which keys it may have isn't known.
            del merged[name]
    for block in others:
        for place, keys in OTHER_KEYS["keys"].items():
            inside = OmegaConf.select(merged, f"{block}.{place}")
            if not OmegaConf.is_dict(inside):
                continue
            for key in keys:
                if key in inside:
                    del inside[key]
                    passed_over.append(f"{block}.{place}.{key}")
    return passed_over


def _read_yaml(path: str) -> _File:
    """Read a spec's file. Raises SpecError that names the file and, of wrong YAML, the line."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        _check_events(text)
        values = OmegaConf.load(io.StringIO(text))
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise SpecError(f"no spec file {path}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        hint = ""
        if "\n\t" in f"\n{text}":
            hint = ": indent with spaces, not with a tab"
        raise SpecError(f"{path}, line {line}: {error.problem or 'not YAML'}{hint}") from None
    except Exception as error:  # PyYAML lets through what its constructors raise
        raise SpecError(f"can't read {path}: {_first_line(error)}") from None
    if not OmegaConf.is_dict(values):
        raise SpecError(f"{path} should be a YAML mapping of keys")
    return _File(path, values, root)


def _check_events(text: str) -> None:
    """Refuse YAML that is nested too deeply, or has a text that it takes too long to make sense of.

    Raises ValueError.
    """
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent):
            _check_scalar(event)
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} lists and mappings inside each other")


def _check_scalar(event: yaml.ScalarEvent) -> None:
    """Raises ValueError for a text with references, or a number, that is too long."""
    if len(event.value) <= LONGEST:
        return
    line = event.start_mark.line + 1 if event.start_mark else "?"
    if "${" in event.value:
        raise ValueError(
            f"line {line}: a text of more than {LONGEST:,} characters with ${{…}} in it"
        )
    unquoted = event.style in (None, "")
    # As a number YAML reads 59:59:59, too, which is one to the base 60.
    if unquoted and _NUMBER.fullmatch(event.value):
        raise ValueError(
            f"line {line}: a number of {len(event.value):,} characters; put a text in quotes"
        )


def _read_overrides(overrides: Sequence[str]) -> _Overrides:
    """Read `key=value` overrides; those of Hydra's own settings are passed over.

    Raises SpecError for one without "=", or whose value isn't YAML.
    """
    ours = []
    for number, override in enumerate(overrides, 1):
        if _HYDRA.match(override):
            continue
        key, equals, _ = override.partition("=")
        if not equals or not key.strip():  # not shown: it may be a key that lost its name
            raise SpecError(
                f"override {number} has no '=': write key=value, for instance results_dir=./results"
            )
        ours.append(override)
    try:
        for override in ours:
            _, _, value = override.partition("=")
            _check_events(value)
        values = OmegaConf.from_dotlist([override.lstrip("+") for override in ours])
    except Exception as error:
        raise SpecError(f"can't read the overrides: {_first_line(error)}") from None
    return _Overrides(values, of_hydra=len(ours) < len(overrides))


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _learn_environment(stated: Any) -> None:
    """Remember the secrets that a spec takes from the environment.

    They are told by the variable's name, or the key's.
    """
    for text, secret in texts_in(stated):
        for variable in _VARIABLE.findall(text):
            learn_fields(os.environ.get(variable), secret or is_secret_variable(variable))


def _resolve_paths(values: dict[str, Any], sources: Sequence[tuple[str, Any]]) -> None:
    """Make `results_dir`, `prompts.dir` and the paths in `data` absolute.

    Args:
        values: The spec's.
        sources: Folders, with what is stated there; the last that states a path counts.
    """
    locations: list[tuple[str, ...]] = [("results_dir",)]
    for name, block in values.items():
        data = block.get("data") if isinstance(block, dict) else None
        if isinstance(data, dict):
            locations += [(name, "data", key) for key in data]
        if isinstance(block, dict) and isinstance(block.get("prompts"), dict):
            locations.append((name, "prompts", "dir"))
    for location in locations:
        name = location[-1]
        block = block_with(values, location)
        if block is None or not _is_path(name, block[name]):
            continue
        folder = "."
        for source_folder, stated in sources:
            if block_with(stated, location) is not None:
                folder = source_folder
        path = joined(folder, os.path.expanduser(plain_path(str(block[name]))))
        block[name] = path if is_elsewhere(path) else os.path.abspath(path)


def _is_path(name: str, value: Any) -> bool:
    """Whether the value of a key of `data` is a path in a folder."""
    if name in ("split", "allow_http", "allow_hosts", "proposals") or not isinstance(
        value, (str, int)
    ):
        return False
    if isinstance(value, str):
        return bool(value) and not value.startswith("datasets:") and not has_scheme(value)
    return True
