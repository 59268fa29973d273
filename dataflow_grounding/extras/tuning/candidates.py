"""The ways of asking that are tried, each a set of spec keys."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.paths import absolute, joined

SHIPPED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "candidates.yaml")
DEFAULT = "as it is"
"""What the spec's own way of asking is called."""
_KEYS = {"name", "set", "backend"}  # of a row of the table
_LONGEST = 1_000_000  # characters of a table that are read; more is no table but a mistake
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Candidate:
    """A way of asking.

    Attributes:
        name: What people call it.
        keys: Keys of the pipeline's block, dotted, with their values; none for the spec's own way.
        backend: The `vlm.backend` that has these keys; empty for any.

    Example:
        >>> Candidate("one at a time", {"workflow.phrases_per_request": 1}).overrides("pipeline")
        ['pipeline.workflow.phrases_per_request=1']
    """

    name: str
    keys: Mapping[str, Any]
    backend: str = ""

    def overrides(self, block: str) -> list[str]:
        """Return the keys as `key=value`, the values as JSON, as a command line takes them."""
        return [
            f"{block}.{key}={json.dumps(value, ensure_ascii=False)}"
            for key, value in self.keys.items()
        ]

    def as_spec(self, block: str) -> dict[str, Any]:
        """Return the keys as a spec has them, nested under the pipeline's block.

        Example:
            >>> Candidate("lines", {"vlm.asking": "lines"}).as_spec("pipeline")
            {'pipeline': {'vlm': {'asking': 'lines'}}}
        """
        spec: dict[str, Any] = {block: {}}
        for key, value in self.keys.items():
            inner = spec[block]
            *parents, last = key.split(".")
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[last] = value
        return spec


def candidates_for(backend: str, path: str | None = None) -> list[Candidate]:
    """Return the candidates that suit a backend: those of a file, else the shipped ones.

    Raises SpecError, which names the file and the candidate, for a table that can't be used.
    """
    table = read_candidates(path or SHIPPED)
    return [candidate for candidate in table if candidate.backend in ("", backend)]


def read_candidates(path: str) -> list[Candidate]:
    """Return the candidates of a YAML file, a list of `{name, set}` or `{name, set, backend}`.

    Raises SpecError, which names the file and the candidate, where it can't be read, is no such
    list, is empty, or names two candidates alike.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(_LONGEST)
        table = yaml.safe_load(text)
    except OSError as error:
        raise SpecError(f"can't read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        raise SpecError(f"{path} is not YAML: {first_line}") from None
    if not isinstance(table, list) or not table:
        raise SpecError(f"{path}: write a list of ways: - {{name: …, set: {{key: value}}}}")
    candidates = []
    for number, row in enumerate(table, 1):
        candidates.append(_candidate(row, f"{path}, way {number}", os.path.dirname(path)))
    _refuse_equal_names(candidates, path)
    return candidates


def _candidate(row: Any, where: str, folder: str) -> Candidate:
    """Return the candidate in a row of the table. Raises SpecError, which begins with `where`.

    A relative `prompts.dir` is meant from `folder`, the table's own, and becomes absolute.
    """
    if not isinstance(row, dict) or not row.keys() <= _KEYS:
        raise SpecError(f"{where}: should have name and set, and no keys but {sorted(_KEYS)}")
    name = row.get("name")
    keys = row.get("set")
    backend = row.get("backend", "")
    if not isinstance(name, str) or not _is_own_name(name):
        raise SpecError(
            f"{where}: needs a name of its own, a text of at most {_LONGEST_NAME} characters"
        )
    if not isinstance(keys, dict) or not keys or not all(isinstance(key, str) for key in keys):
        raise SpecError(f"{where} ({name}): set should be spec keys: {{vlm.box_format: auto}}")
    if not isinstance(backend, str):
        raise SpecError(f"{where} ({name}): backend should be a text, as in vlm.backend")
    try:
        json.dumps(keys, allow_nan=False)
    except (TypeError, ValueError):
        raise SpecError(f"{where} ({name}): set holds something that is no plain value") from None
    prompts = keys.get("prompts.dir")
    if isinstance(prompts, str) and prompts:
        keys = {**keys, "prompts.dir": absolute(joined(folder, prompts))}
    return Candidate(name.strip(), keys, backend)


def _is_own_name(name: str) -> bool:
    """Return whether a candidate may be called so: not empty, not too long, not the spec's way."""
    return name.strip() != "" and name != DEFAULT and len(name) <= _LONGEST_NAME


def _refuse_equal_names(candidates: Sequence[Candidate], path: str) -> None:
    """Raise SpecError where two candidates have the same name and some backend would have both.

    One without a backend is for any, so no other may have its name, before it or after it. Two for
    different backends may have the same: a spec has one backend.
    """
    backends_of = defaultdict[str, list[str]](list)
    for candidate in candidates:
        for backend in backends_of[candidate.name]:
            if backend == candidate.backend or "" in (backend, candidate.backend):
                raise SpecError(f"{path}: two ways are called {candidate.name!r}: rename one")
        backends_of[candidate.name].append(candidate.backend)
