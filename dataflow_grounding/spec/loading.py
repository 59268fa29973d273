"""Reading a spec: YAML, `key=value` overrides, interpolation, paths; every mistake named with its key."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dataflow_grounding.errors import SpecError
from dataflow_grounding.spec.schema import OTHER_BLOCKS, PATH_KEYS, PIPELINES, Spec


def load_spec(path: str, overrides: Sequence[str] = ()) -> Spec:
    """The spec in a YAML file, with `key=value` overrides on top.

    Paths in the file are relative to its folder, paths in overrides to the current folder. Raises SpecError with all that is
    wrong, a line each.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    base = _read_yaml(path)
    if not OmegaConf.is_dict(base):
        raise SpecError(f"{path} should be a YAML mapping of keys")
    given = _read_overrides(overrides)
    try:
        merged = OmegaConf.merge(base, given)
        missing = sorted(OmegaConf.missing_keys(merged))
        values: Any = OmegaConf.to_container(merged, resolve=not missing)
    except OmegaConfBaseException as error:
        raise SpecError(f"{path}: {str(error).splitlines()[0]}") from None
    wanted = values.get("autolabel_type") if isinstance(values, dict) else None
    passed_over = {*OTHER_BLOCKS, *(name for name in PIPELINES if name != wanted)}  # a spec may have every pipeline's block
    missing = [key for key in missing if key.split(".")[0] not in passed_over]
    if missing:
        raise SpecError("\n".join(f"{path}: {key} is '???': give it a value" for key in missing))
    values = {str(name): value for name, value in values.items() if name not in passed_over}
    _resolve_paths(values, OmegaConf.to_container(given), os.path.dirname(os.path.abspath(path)))
    return _validated(values, path)


def _read_yaml(path: str) -> Any:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.load(path)
    except FileNotFoundError:
        raise SpecError(f"no spec file {path}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise SpecError(f"{path}, line {line}: {error.problem or 'no YAML'}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise SpecError(f"can't read {path}: {str(error).splitlines()[0]}") from None


def _read_overrides(overrides: Iterable[str]) -> Any:
    from omegaconf import OmegaConf

    cleaned = []
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key.strip():
            raise SpecError(f"{override!r} is no override: write key=value, for instance results_dir=./results")
        cleaned.append(override.lstrip("+"))
    try:
        return OmegaConf.from_dotlist(cleaned)
    except Exception as error:  # omegaconf lets YAML's own errors through
        raise SpecError(f"can't read the overrides: {str(error).splitlines()[0]}") from None


def _resolve_paths(values: dict[str, Any], given: Any, spec_folder: str) -> None:
    for key in PATH_KEYS:
        block, name = _find(values, key)
        if block is None or not isinstance(block.get(name), (str, int)) or block[name] == "":
            continue
        overridden, _ = _find(given, key)
        folder = os.getcwd() if overridden is not None and name in overridden else spec_folder
        block[name] = os.path.normpath(os.path.join(folder, os.path.expanduser(str(block[name]))))


def _find(values: Any, key: str) -> tuple[dict[str, Any] | None, str]:
    *blocks, name = key.split(".")
    for block in blocks:
        values = values.get(block) if isinstance(values, dict) else None
    return (values if isinstance(values, dict) else None), name


def _validated(values: dict[str, Any], path: str) -> Spec:
    try:
        spec = Spec.model_validate(values)
    except ValidationError as error:
        raise SpecError("\n".join(f"{path}: {_explain(problem)}" for problem in error.errors())) from None
    if getattr(spec, spec.autolabel_type) is None:
        raise SpecError(
            f"{path}: autolabel_type is {spec.autolabel_type!r}, and there is no block {spec.autolabel_type}"
        )
    return spec


def _explain(problem: Any) -> str:
    """One line for one thing wrong; values are left out, they may be keys."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(location[-1], _keys_beside(location), 1, 0.5)
        return f"{key} is not a key of the spec" + (f"; is it {close[0]!r}?" if close else "")
    if problem["type"] == "missing":
        return f"{key} is missing: give it a value"
    return f"{key}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"


def _keys_beside(location: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Spec
    for name in location[:-1]:
        field = model.model_fields.get(name)
        inner = [t for t in (field.annotation, *get_args(field.annotation)) if _is_block(t)] if field else []
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _is_block(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
