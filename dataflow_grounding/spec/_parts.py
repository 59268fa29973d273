"""What a spec is made of, YAML files and `key=value` overrides: read, and merged."""

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import yaml
from omegaconf import OmegaConf

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.nearest import nearest_file
from dataflow_grounding._util.paths import open_input
from dataflow_grounding.spec.problems import END_OF_PART, Location, place_of

Values: TypeAlias = dict[str, Any]
"""Of a spec, by key: texts, numbers, lists and mappings, as YAML has them."""

_HYDRA = re.compile(r"[+~]*hydra[./=]")  # the beginning of hydra.run.dir=x, +hydra/launcher=x
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # that of libyaml, where it is there
# Values of overrides that are texts as they are typed: those with what begins a comment, those that
# begin with a sign that only YAML files have a use for, and numbers that YAML reads as other ones
# (007, 12:30).
_TYPED_TEXT = re.compile(
    r"(?![\"'\[{]).*\s#|[#@`%*&!|>]|[-+]?0[0-9]+\Z|[0-9]+(?::[0-9]+)+\Z", re.DOTALL
)


class File(NamedTuple):
    """A spec's file, read: its values, and the same as YAML nodes, which know their lines."""

    path: str
    values: Values
    root: Any


class Parts(NamedTuple):
    """The files of a spec, the later over the earlier, and the overrides over them."""

    files: Sequence[File]
    overrides: Sequence[tuple[Sequence[str], object]]  # the parts of a key, and its value
    of_hydra: Sequence[str]  # `hydra` where overrides set Hydra itself (`hydra.…`)

    def place(self, location: Location) -> str:
        """Return where a key of the merged spec is, for a message, as `place_of` does."""
        roots = {file.path: file.root for file in self.files}
        return place_of(roots, overridden({}, self.overrides), location)


def read_parts(paths: Sequence[str], overrides: Sequence[str]) -> Parts:
    """Read a spec's files and overrides. Raises SpecError, naming what can't be read."""
    files = [_read_yaml(path) for path in paths]
    ours = []
    of_hydra = []
    for number, override in enumerate(overrides, 1):
        if _HYDRA.match(override):
            of_hydra = ["hydra"]
            continue
        # A `+` before a key, as Hydra wants it for a new one, makes no difference.
        key, equals_sign, value = override.lstrip("+").partition("=")
        if not equals_sign or not key.strip():
            # The override isn't shown: it may be an API key whose name was forgotten.
            raise SpecError(
                f"override {number} has no '=': write key=value, for instance results_dir=./results"
            )
        ours.append((END_OF_PART.split(key.replace("]", "")), _value_of(key, value)))
    return Parts(files, ours, of_hydra)


def _read_yaml(path: str) -> File:
    try:
        with io.TextIOWrapper(open_input(path), encoding="utf-8") as file:
            text = file.read()
        values = OmegaConf.load(io.StringIO(text))
        root = yaml.compose(text, Loader=_LOADER)  # it knows in which line each key is
    except FileNotFoundError:
        instead = nearest_file(path) or ": dataflowgrounding default_specs writes one"
        raise SpecError(f"no spec file {path}{instead}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        hint = ""
        if "\n\t" in f"\n{text}":  # a line begins with a tab
            hint = ": indent with spaces, not with a tab"
        raise SpecError(f"{path}, line {line}, is not YAML: {error.problem}{hint}") from None
    except Exception as error:  # PyYAML lets through what its constructors raise
        raise SpecError(f"can't read {path}: {first_line(error)}") from None
    if not OmegaConf.is_dict(values):
        raise SpecError(f"{path} should be a YAML mapping of keys")
    return File(path, plain(values), root)


def _value_of(key: str, text: str) -> object:
    """Return the value of an override, which is YAML, or a text as it is typed."""
    typed = text.strip()
    if _TYPED_TEXT.match(typed):  # in `results_dir=set #1` there is no comment
        return typed
    try:
        return plain(OmegaConf.from_dotlist([f"value={text}"]))["value"]
    except Exception:
        # the error's words aren't shown: they may repeat a part of the value, which may be a secret
        raise SpecError(
            f"{key}: its value isn't YAML: put a text in quotation marks within those of the shell,"
            f""" as in '{key}="..."'"""
        ) from None


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its type where it says nothing."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def plain(config: Any) -> Values:
    """Return OmegaConf's values as plain ones, with references as they are stated."""
    values: Any = OmegaConf.to_container(config)
    return dict(values)


def merge(parts: Parts) -> Any:
    """Merge the parts of a spec. Raises SpecError and OmegaConf's errors."""
    values: Values = {}
    for file in parts.files:
        values = _merged(values, file.values)
    return OmegaConf.create(overridden(values, parts.overrides))


def overridden(values: Values, overrides: Sequence[tuple[Sequence[str], object]]) -> Values:
    """Return the values with overrides over them. Raises SpecError for a key in what has none."""
    for (*outer, last), value in overrides:
        values = dict(values)
        block = values
        for name in outer:
            inner = block.get(name)
            if inner is not None and not isinstance(inner, dict):
                why = f"{name} should be a block of keys"
                if isinstance(inner, list):
                    why = "an item of a list can't be overridden alone: give the whole list"
                raise SpecError(f"{'.'.join([*outer, last])}: {why}")
            block[name] = dict(inner) if isinstance(inner, dict) else {}
            block = block[name]
        block[last] = _merged(block.get(last), value)
    return values


def _merged(before: Any, after: Any) -> Any:
    """Return a value over an earlier one: mappings are merged, but an empty one takes all away."""
    if not isinstance(before, dict) or not isinstance(after, dict) or not after:
        return after if after != "???" or before is None else before  # ??? states nothing
    merged = dict(before)
    for name, value in after.items():
        merged[name] = _merged(before.get(name), value)
    return merged
