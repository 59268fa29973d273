"""Calibrations on disk: one small file an endpoint, model and prompt, in the user's cache folder and beside a run's results."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dataflow_grounding.coordinates import ORDERS, SCALES, BoxFormat, find_box_format
from dataflow_grounding.errors import SpecError
from dataflow_grounding.images import SizeLimits
from dataflow_grounding.prompts import load_prompt
from dataflow_grounding.records import is_number


@dataclass(frozen=True)
class Calibration:
    """What was found out about one model. `error_px` is the mean distance of an edge, in pixels of the probe pictures;
    `error_share` that of the median rectangle's worst edge, in parts of the side. `date` is UTC, `YYYY-MM-DDTHH:MM:SSZ`.
    `limits` are those of SizeLimits within which pixels are those of the picture as sent, None for formats that don't count
    pixels; `sizes` are the sizes, within them, at which that was measured.
    """

    endpoint: str
    model: str
    prompt: str
    box_format: str
    error_px: float
    error_share: float
    found: int
    asked: int
    requests: int
    date: str
    limits: dict[str, float | None] | None = None
    sizes: list[list[int]] = field(default_factory=list)

    @property
    def format(self) -> BoxFormat:
        """The format by its name. Raises SpecError when this version doesn't know it."""
        return find_box_format(self.box_format, "")

    @property
    def size_limits(self) -> SizeLimits | None:
        """The sizes in which a run sends its pictures; None where any will do. Raises TypeError, ValueError for bad ones."""
        if self.limits is None:
            return None
        limits = SizeLimits(**self.limits)  # type: ignore[arg-type]
        if not all(value is None or (type(value) in (int, float) and value >= 0) for value in vars(limits).values()):
            raise ValueError("a limit is no number")
        if limits.max_side < 1 or limits.multiple < 1:
            raise ValueError("a limit is zero")
        return limits

    @property
    def origin(self) -> str:
        """Where a run's format came from, in words."""
        return f"calibrated on {self.date[:10]}, error {self.error_px:.1f} px"

    def save(self, path: str) -> None:
        """Write it whole or not at all. Raises OSError."""
        folder = os.path.dirname(path)
        os.makedirs(folder, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=folder, prefix=".calibration-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")
            os.replace(part, path)
        except BaseException:
            os.unlink(part)
            raise


def cache_folder() -> str:
    """`dataflow-grounding` in `XDG_CACHE_HOME`, or in `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return os.path.join(
        home if os.path.isabs(home) else os.path.expanduser(os.path.join("~", ".cache")), "dataflow-grounding"
    )


def cache_path(endpoint: str, model: str) -> str:
    """The file of the user's cache for this endpoint, model and the prompt of today."""
    name = json.dumps([bare_address(endpoint), model, prompt_version()])
    return os.path.join(cache_folder(), f"calibration-{hashlib.sha256(name.encode()).hexdigest()[:20]}.json")


def bare_address(endpoint: str) -> str:
    """An address without user name, password and query, in which keys are found."""
    try:
        parts = urlsplit(endpoint)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return endpoint


@cache
def prompt_version() -> str:
    """Digest of all words that tell a model how to write boxes: another prompt may bring another format."""
    plain = [find_box_format(f"{order}_{scale}", "") for order in ORDERS for scale in SCALES]
    words = [
        load_prompt("system"),
        load_prompt("phrase_grounding"),
        *(known.instructions((896, 672)) for known in plain),
    ]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def stored_calibration(endpoint: str, model: str, *more_paths: str) -> Calibration | None:
    """The latest calibration of this endpoint, model and prompt in the user's cache or at `more_paths`."""
    found = [load(path, endpoint, model) for path in (cache_path(endpoint, model), *more_paths)]
    return max((one for one in found if one is not None), key=lambda one: one.date, default=None)


def load(path: str, endpoint: str, model: str) -> Calibration | None:
    """The calibration in a file; None for one that is missing, damaged, or of another model, endpoint or prompt."""
    try:
        with open(path, encoding="utf-8") as file:
            row = json.load(file)
        calibration = Calibration(**_checked(row))
        assert calibration.format.boxes
        assert calibration.size_limits is not None or calibration.format.scale != "px"
    except (OSError, ValueError, TypeError, KeyError, AssertionError, RecursionError, SpecError):
        return None
    ours = (bare_address(endpoint), model, prompt_version())
    return calibration if (calibration.endpoint, calibration.model, calibration.prompt) == ours else None


def _checked(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a stored row. Raises KeyError, TypeError, ValueError when one is missing or of another type."""
    values: dict[str, Any] = {}
    kinds: dict[str, Callable[[Any], bool]] = {
        "str": lambda value: isinstance(value, str),
        "int": is_number,
        "float": is_number,
    }
    for one in fields(Calibration):
        value = row[one.name] if one.default is MISSING and one.default_factory is MISSING else row.get(one.name)
        if one.type in kinds and not kinds[one.type](value):
            raise ValueError(f"{one.name} is {type(value).__name__}")
        values[one.name] = value
    return values
