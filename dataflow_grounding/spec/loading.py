"""Reading a spec from YAML files and `key=value` overrides: `read_spec`.

The files are merged, later over earlier, and the overrides over them. Then references are filled
in, keys that the pipeline has no use for are taken out, paths are made absolute, and the result is
validated by the models of `schema.py`. Every mistake is reported with its file and line.
"""

import difflib
import io
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dataflow_grounding._util.addresses import is_elsewhere
from dataflow_grounding._util.environment import may_be_in_env_file, read_env_files
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.paths import has_scheme, joined, open_file, plain_path
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
"""How deep lists and mappings may be nested: at some thousands libyaml ends the process."""
LONGEST = 4000
"""Characters that a number, or a text with references, may have: long ones take too much time."""
_NUMBER = re.compile(r"[-+.]?[0-9][0-9a-fA-FxXoO_:.]*")  # 12, -1.5, 0x1F, 59:59:59 to the base 60
_HYDRA = re.compile(r"[+~]*hydra[./=]")  # the beginning of hydra.run.dir=x, +hydra/launcher=x
# What OmegaConf says of a variable that isn't set.
_UNSET_VARIABLE = re.compile(r"Environment variable '(\w+)' not found")
_VARIABLE = re.compile(r"\$\{\s*oc\.env\s*:\s*['\"]?(\w+)")  # the beginning of ${oc.env:NAME}
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # that of libyaml, where it is there
# Values of overrides that are texts as they are typed: with what begins a comment, with signs that
# only YAML files have a use for, and numbers that YAML reads as others (007, 12:30).
_TYPED_TEXT = re.compile(
    r"(?![\"'\[{]).*\s#|[#@`%*&!|>]|[-+]?0[0-9]+\Z|[0-9]+(?::[0-9]+)+\Z", re.DOTALL
)
_PART = re.compile(r"[.[]")  # what ends a part of a key, as in a.b[0]
# Keys of `data` whose texts are no paths.
_NO_PATHS = ("split", "allow_http", "allow_hosts", "proposals")

BlockOf: TypeAlias = Callable[[str, Sequence[str]], tuple[str, type[PipelineBlock]]]
"""From an `autolabel_type` and the folders of the spec's files to the pipeline's block.

The block is its key and its model. Raises SpecError for a pipeline that isn't known.
"""


@dataclass(frozen=True)
class _File:
    """A spec's file, read.

    Attributes:
        path: The path as it was given.
        values: Its keys and values, as an OmegaConf mapping.
        root: The same as YAML nodes, which know their lines.
    """

    path: str
    values: Any
    root: Any

    @property
    def folder(self) -> str:
        """The folder that the file is in."""
        return os.path.dirname(self.path) or "."


@dataclass(frozen=True)
class _Overrides:
    """The `key=value` overrides, read.

    Attributes:
        values: Their keys and values, as an OmegaConf mapping.
        whole: The keys, by their parts, whose whole value is given: not one of their items.
        of_hydra: Whether some set Hydra itself (`hydra.…`); these aren't in `values`.
    """

    values: Any
    whole: frozenset[tuple[str, ...]]
    of_hydra: bool


@dataclass(frozen=True)
class _Merged:
    """A spec's files and overrides as one.

    Attributes:
        config: The merged spec with its references, as an OmegaConf mapping, without the keys that
            are passed over; null stands for `???`.
        model: The model of the whole spec, or of its head where no pipeline is known.
        no_pipeline: Why the pipeline that is named isn't known; "" if it is, or none is named.
        passed_over: Keys that the pipeline has no use for.
        missing: Keys that are `???`, as OmegaConf writes them: `a.b[0]`.
        values: The config with its references filled in, as plain dicts and lists.
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
    files = [_read_yaml(path) for path in paths]
    read_overrides = _read_overrides(overrides)
    try:
        merged = _merge(files, read_overrides, block_of, others, whole)
    except (OmegaConfBaseException, RecursionError, TypeError, SpecError) as error:
        raise _why_not_merged(error, files, read_overrides) from None
    # The values as they are stated, with their references.
    stated: Any = OmegaConf.to_container(merged.config)
    _learn_environment(stated)
    plain_overrides: Any = OmegaConf.to_container(read_overrides.values)
    sources = [(file.folder, OmegaConf.to_container(file.values)) for file in files]
    _resolve_paths(merged.values, [*sources, (".", plain_overrides)])
    roots = {file.path: file.root for file in files}
    place = partial(place_of, roots, plain_overrides)
    problems = _take_out_missing(merged, place)
    problems += _empty_variables(stated, place)
    if merged.no_pipeline:
        problems.append(f"{place(['autolabel_type'])}: {merged.no_pipeline}")
    spec, wrong = validated(merged.values, merged.model, place)
    for problem in wrong:
        # A key that is ??? was reported above.
        if not any(f": {key} is missing" in problem for key in merged.missing):
            problems.append(problem)
    if not isinstance(spec, Spec):
        return None, problems
    spec._stated = stated
    spec._folders = folders
    spec._passed_over = sorted(merged.passed_over)
    spec.block.vlm = with_environment(spec.block.vlm)
    return spec, problems


def _why_not_merged(error: Exception, files: Sequence[_File], overrides: _Overrides) -> SpecError:
    variable = _UNSET_VARIABLE.search(str(error))
    if variable:
        return SpecError(_unset_variable(variable[1], error, files, overrides))
    hint = ""
    if isinstance(error, TypeError):
        hint = "; an item of a list can't be overridden alone: give the whole list"
    names = ", ".join(file.path for file in files)
    return SpecError(f"{names}: {_first_line(error)}{hint}")


def _merge(
    files: Sequence[_File],
    overrides: _Overrides,
    block_of: BlockOf,
    others: Collection[str],
    whole: bool,
) -> _Merged:
    config: Any = OmegaConf.create()
    parts = [file.values for file in files]
    parts.append(overrides.values)
    for part in parts:
        if not part:  # most runs override nothing, and merging that takes as long as reading it
            continue
        for path in _changes_of_kind(config, part):
            # OmegaConf doesn't merge a mapping with a list: the new one takes the other's place,
            # which is emptied. In overrides, an item of a list (`endpoints.0`) looks like a
            # mapping here, and is still refused.
            if part is not overrides.values or path in overrides.whole:
                _set_to_null(config, path)
        config = OmegaConf.merge(config, part)
        # References are checked after each part: merging the next one may fill them in.
        check_references(config)
    if not whole:
        config = _endpoint_alone(config, others)
    _name_pipeline(config, others)
    folders = [file.folder for file in files]
    model, no_pipeline = _model_of(config.get("autolabel_type"), block_of, folders)
    passed_over = set(_take_out_unused(config, model, others))
    if overrides.of_hydra:
        passed_over.add("hydra")
    empty_other_backends(config)
    missing = sorted(OmegaConf.missing_keys(config))
    for key in missing:
        OmegaConf.update(config, key, None)
    filled_in: Any = OmegaConf.to_container(config, resolve=True)
    values = {str(name): value for name, value in filled_in.items()}
    return _Merged(config, model, no_pipeline, passed_over, missing, values)


def _changes_of_kind(before: Any, after: Any) -> list[tuple[str, ...]]:
    # Return the keys, by their parts, of which one side has a list and the other a mapping. Both
    # sides are OmegaConf mappings.
    stated_before = OmegaConf.to_container(before)
    stated_after = OmegaConf.to_container(after)
    return list(_paths_of_other_kind(stated_before, stated_after, ()))


def _paths_of_other_kind(
    before: Any, after: Any, path: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before.keys() & after.keys():
            yield from _paths_of_other_kind(before[name], after[name], (*path, name))
    elif {type(before), type(after)} == {dict, list}:
        yield path


def _set_to_null(config: Any, path: tuple[str, ...]) -> None:
    *parents, name = path
    for parent in parents:
        config = config[parent]
    config[name] = None


def _take_out_missing(merged: _Merged, place: Callable[[Sequence[str]], str]) -> list[str]:
    # `place` returns where a key stands.
    problems = []
    for key in merged.missing:
        location = _PART.split(key)
        drop(merged.values, location)
        problems.append(f"{place(location)}: {key} is '???': give it a value")
    return problems


def _unset_variable(
    name: str, error: Exception, files: Sequence[_File], overrides: _Overrides
) -> str:
    # `error` is OmegaConf's, which names the key.
    roots = {file.path: file.root for file in files}
    plain_overrides: Any = OmegaConf.to_container(overrides.values)
    key = str(getattr(error, "full_key", "") or "")
    place = place_of(roots, plain_overrides, _PART.split(key))
    ways = f"export {name}=..., "
    if may_be_in_env_file(name):
        ways += "write it into a .env file, "
    ways += f"or write ${{oc.env:{name},''}} where it may be missing"
    return f"{place}: {key or 'a key'} takes the variable {name}, which is not set: {ways}"


def _empty_variables(stated: Any, place: Callable[[Sequence[str]], str]) -> Iterator[str]:
    # `stated` are the spec's values with their references; `place` returns where a key stands.
    for keys, variable in empty_variables(stated):
        location = [str(key) for key in keys]
        yield (
            f"{place(location)}: {'.'.join(location)} is what {variable} holds, which is empty: set"
            f" it, or write ${{oc.env:{variable},''}} where nothing is meant"
        )


def _endpoint_alone(config: Any, others: Collection[str]) -> Any:
    # Where there is a `vlm` at the top, it is taken to be that of the first known pipeline's block,
    # and everything else is left out. `data` is left out, and a missing `results_dir` is the
    # current folder.
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


def _name_pipeline(config: Any, known_pipelines: Collection[str]) -> None:
    # Set `autolabel_type`, where it is missing, to the pipeline that the spec has a block for.
    # Without any such block, one whose name is similar counts. It stays unset where there are
    # blocks for several pipelines, or for none. The config is changed.
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


def _take_out_unused(config: Any, model: type[SpecHead], others: Collection[str]) -> list[str]:
    # Unknown keys stay, to be reported. Where no pipeline is known, blocks that may be the
    # pipeline's are taken out, too.
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


def _read_yaml(path: str) -> _File:
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8") as file:
            text = file.read()
        _check_events(text)
        values = OmegaConf.load(io.StringIO(text))
        root = yaml.compose(text, Loader=_LOADER)
    except FileNotFoundError:
        raise SpecError(f"no spec file {path}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        hint = ""
        if "\n\t" in f"\n{text}":  # a line begins with a tab
            hint = ": indent with spaces, not with a tab"
        raise SpecError(f"{path}, line {line}: {error.problem or 'not YAML'}{hint}") from None
    except Exception as error:  # PyYAML lets through what its constructors raise
        raise SpecError(f"can't read {path}: {_first_line(error)}") from None
    if not OmegaConf.is_dict(values):
        raise SpecError(f"{path} should be a YAML mapping of keys")
    return _File(path, values, root)


def _check_events(text: str) -> None:
    # The events of the parser are looked at, before any value is made of them.
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent):
            _check_scalar(event)
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} lists and mappings inside each other")


def _check_scalar(event: yaml.ScalarEvent) -> None:
    if len(event.value) <= LONGEST:
        return
    line = event.start_mark.line + 1 if event.start_mark else "?"
    if "${" in event.value:
        raise ValueError(
            f"line {line}: a text of more than {LONGEST:,} characters with ${{…}} in it"
        )
    is_unquoted = event.style in (None, "")
    if is_unquoted and _NUMBER.fullmatch(event.value):
        raise ValueError(
            f"line {line}: a number of {len(event.value):,} characters; put a text in quotes"
        )


def _read_overrides(overrides: Sequence[str]) -> _Overrides:
    # A `+` before a key, as Hydra wants it for a new one, makes no difference. A value is YAML, but
    # for what is a text as it is typed: `results_dir="set #1"` has no comment, 007 keeps its zeros.
    ours: list[str] = []
    for number, override in enumerate(overrides, 1):
        if _HYDRA.match(override):
            continue
        key, equals, _ = override.partition("=")
        if not equals or not key.strip():
            # The override isn't shown: it may be an API key whose name was forgotten.
            raise SpecError(
                f"override {number} has no '=': write key=value, for instance results_dir=./results"
            )
        ours.append(_as_typed(override.lstrip("+")))
    try:
        values = _values_of(ours)
    except Exception as error:
        for override in ours:  # one by one, to name the key
            _check_override(override)
        raise SpecError(f"can't read the overrides: {_first_line(error)}") from None
    whole = set()
    for override in ours:
        key, _, value = override.partition("=")
        if value.lstrip().startswith(("{", "[")):
            whole.add(tuple(_PART.split(key)))
    return _Overrides(values, frozenset(whole), of_hydra=len(ours) < len(overrides))


def _as_typed(override: str) -> str:
    key, _, value = override.partition("=")
    if _TYPED_TEXT.match(value.strip()):
        return f"{key}={json.dumps(value.strip(), ensure_ascii=False)}"
    return override


def _values_of(overrides: Sequence[str]) -> Any:
    for override in overrides:
        _, _, value = override.partition("=")
        _check_events(value)
    return OmegaConf.from_dotlist(list(overrides))


def _check_override(override: str) -> None:
    key, _, _ = override.partition("=")
    try:
        _values_of([override])
    except Exception:
        # the error's words aren't shown: they may repeat a part of the value, which may be a secret
        raise SpecError(
            f"{key}: its value isn't YAML: put a text in quotation marks within those of the shell,"
            f""" as in '{key}="..."'"""
        ) from None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _learn_environment(stated: Any) -> None:
    # A value is secret by the name of its variable, or by that of its key in the spec.
    for text, is_secret in texts_in(stated):
        for variable in _VARIABLE.findall(text):
            learn_fields(os.environ.get(variable), is_secret or is_secret_variable(variable))


def _resolve_paths(values: dict[str, Any], sources: Sequence[tuple[str, Any]]) -> None:
    # A `~` at the beginning of a path becomes the user's folder.
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
    # Return whether the value of a key is a path without a scheme, which starts from some folder.
    # False for an address, also `file://…`, for a data set (`datasets:…`), for an empty text, and
    # for keys of `data` that hold no path. A number is one: a folder may be called 2024.
    if name in _NO_PATHS:
        return False
    if isinstance(value, str):
        return bool(value) and not value.startswith("datasets:") and not has_scheme(value)
    return isinstance(value, int)
