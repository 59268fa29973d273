"""What a spec is made of, YAML files and `key=value` overrides: read, and merged."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from omegaconf import OmegaConf

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.nearest import nearest_file
from dataflow_grounding._util.paths import open_input
from dataflow_grounding.spec._references import set_at
from dataflow_grounding.spec.problems import END_OF_PART, Location, place_of

_HYDRA = re.compile(r"[+~]*hydra[./=]")  # the beginning of hydra.run.dir=x, +hydra/launcher=x
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # that of libyaml, where it is there
# Values of overrides that are texts as they are typed: those with what begins a comment, those that
# begin with a sign that only YAML files have a use for, and numbers that YAML reads as other ones
# (007, 12:30).
_TYPED_TEXT = re.compile(
    r"(?![\"'\[{]).*\s#|[#@`%*&!|>]|[-+]?0[0-9]+\Z|[0-9]+(?::[0-9]+)+\Z", re.DOTALL
)


@dataclass(frozen=True)
class File:
    """A spec's file, read: its values, and the same as YAML nodes, which know their lines."""

    path: str
    values: Any
    root: Any

    def gives_whole(self, key: tuple[str, ...]) -> bool:
        """Whether it gives a key, by its parts, a whole list or mapping: a file always does."""
        return True


@dataclass(frozen=True)
class Overrides:
    """The `key=value` overrides, read."""

    values: Any
    # the keys, by their parts, that are given a whole list or mapping, not one of its items
    whole: frozenset[tuple[str, ...]]
    # `hydra` where some set Hydra itself (`hydra.…`); these aren't in `values`
    of_hydra: Sequence[str]

    def gives_whole(self, key: tuple[str, ...]) -> bool:
        """Whether one gives the key a whole list or mapping, rather than one of its items."""
        return key in self.whole


@dataclass(frozen=True)
class Parts:
    """The files of a spec, the later over the earlier, and the overrides over them."""

    files: Sequence[File]
    overrides: Overrides

    def place(self, location: Location) -> str:
        """Return where a key of the merged spec is, for a message, as `place_of` does."""
        roots = {file.path: file.root for file in self.files}
        overrides: Any = OmegaConf.to_container(self.overrides.values)
        return place_of(roots, overrides, location)


def read_parts(paths: Sequence[str], overrides: Sequence[str]) -> Parts:
    """Read a spec's files and overrides. Raises SpecError, naming what can't be read."""
    return Parts([_read_yaml(path) for path in paths], _read_overrides(overrides))


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
    return File(path, values, root)


def _read_overrides(overrides: Sequence[str]) -> Overrides:
    _refuse_without_key(overrides)
    ours = []
    of_hydra = []
    for override in overrides:
        if _HYDRA.match(override):
            of_hydra = ["hydra"]
        else:
            # A `+` before a key, as Hydra wants it for a new one, makes no difference.
            ours.append(_as_typed(override.lstrip("+")))
    try:
        values = OmegaConf.from_dotlist(ours)
    except Exception as error:
        for override in ours:  # one by one, to name the key
            _refuse_if_unreadable(override)
        # Each can be read alone, and not all together: `a=[1]` and `a.b=2`.
        raise SpecError(f"can't read the overrides: {first_line(error)}") from None
    return Overrides(values, _keys_given_whole(ours), of_hydra)


def _refuse_without_key(overrides: Sequence[str]) -> None:
    for number, override in enumerate(overrides, 1):
        key, equals_sign, _ = override.partition("=")
        if _HYDRA.match(override) or (equals_sign and key.strip()):
            continue
        # The override isn't shown: it may be an API key whose name was forgotten.
        raise SpecError(
            f"override {number} has no '=': write key=value, for instance results_dir=./results"
        )


def _keys_given_whole(overrides: Sequence[str]) -> frozenset[tuple[str, ...]]:
    keys = set()
    for override in overrides:
        key, _, value = override.partition("=")
        if value.lstrip().startswith(("{", "[")):  # a mapping or a list
            keys.add(tuple(END_OF_PART.split(key)))
    return frozenset(keys)


def _as_typed(override: str) -> str:
    """Quote a value that is a text as typed: `results_dir=set #1` has no comment."""
    key, _, value = override.partition("=")
    if _TYPED_TEXT.match(value.strip()):
        return f"{key}={json.dumps(value.strip(), ensure_ascii=False)}"
    return override


def _refuse_if_unreadable(override: str) -> None:
    key, _, _ = override.partition("=")
    try:
        OmegaConf.from_dotlist([override])
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


def merge(parts: Parts) -> Any:
    """Merge the parts of a spec. Raises OmegaConf's errors."""
    config: Any = OmegaConf.create()
    all_parts: list[File | Overrides] = [*parts.files, parts.overrides]
    for part in all_parts:
        if not part.values:  # most runs override nothing, and merging that takes as long as reading
            continue
        stated = OmegaConf.to_container(part.values)
        for key in _keys_taken_out(OmegaConf.to_container(config), stated, ()):
            # OmegaConf doesn't merge a mapping with a list, so the earlier one is taken out:
            #   endpoints={…} over a list -> the mapping takes the list's place
            #   endpoints.0=… over a list -> it looks like a mapping, {"0": …}, but sets an item.
            #                                The list stays, and `OmegaConf.merge` refuses it.
            if part.gives_whole(key):
                set_at(config, key, None)
        config = OmegaConf.merge(config, part.values)
    return config


def _keys_taken_out(before: Any, after: Any, key: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The keys, by their parts, whose earlier value goes: for a list or a mapping in place of the
    other, or for an empty mapping.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        for name in before.keys() & after.keys():
            yield from _keys_taken_out(before[name], after[name], (*key, name))
        if key and not after:  # key={}
            yield key
    elif {type(before), type(after)} == {dict, list}:
        yield key
