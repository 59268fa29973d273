"""Calibrations on disk: a small file per endpoint, model and prompt, in the user's cache and beside
a run's results.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dataflow_grounding._util.environment import cache_folder
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.files import within
from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import is_number, read_object, write_bytes
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.tasks.prompts import load_prompt

LEAST_SIDE, MOST_SIDE = 16, 100_000  # px of pictures, of which a calibration can speak


@dataclass(frozen=True)
class Calibration:
    """What was found out about one model. `error_px` is the mean distance of an edge, in pixels of
    the probe pictures; `error_share` that of the median rectangle's worst edge, in parts of the
    side. `date`: UTC, `YYYY-MM-DDTHH:MM:SSZ`. `limits` are those of SizeLimits within which pixels
    are the sent picture's, None for formats that don't count pixels; `sizes` are the sizes, within
    them, at which that was measured. `poor` are elongated sizes in which boxes are wrong however
    they are asked for: width, height, and how far off boxes are as a share of the side. `untried`,
    in a run's own file, are sizes of its pictures that nothing covers and that it went on with.
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
    limits: SizeLimits | None = None
    sizes: list[list[int]] = field(default_factory=list)
    poor: list[list[float]] = field(default_factory=list)
    untried: list[list[int]] = field(default_factory=list)

    @property
    def format(self) -> BoxFormat:
        """The format by its name. Raises SpecError when this version doesn't know it."""
        return find_box_format(self.box_format, "")

    @property
    def origin(self) -> str:
        """Where a run's format came from, in words."""
        return f"calibrated on {self.date[:10]}, error {self.error_px:.1f} px"

    def covers(self, size: Size) -> bool:
        """Whether it is known how boxes turn out in elongated pictures of this size."""
        limits = self.limits or SizeLimits()
        limit = limits.max_wide if size[0] > size[1] else limits.max_tall
        measured = any(_is_beyond(one, size) for one in self.sizes)
        return limit is not None or measured or self.off_in(size) is not None

    def off_in(self, size: Size) -> float | None:
        """How far off boxes are in elongated pictures of this size, as a share of the side; None if
        not poor.
        """
        return next((off for *one, off in self.poor if _is_beyond(size, one)), None)

    def with_shape(self, size: Size, aspect: float | None, off: float | None) -> "Calibration":
        """This, with an elongated size: that it is to be padded to an aspect, or that boxes in it
        are `off`.
        """
        if off is not None:
            return replace(self, date=now(), poor=[*self.poor, [*size, off]])
        shape: dict[str, Any] = {"max_wide" if size[0] > size[1] else "max_tall": aspect}
        limits = replace(self.limits or SizeLimits(), **shape)
        return replace(self, date=now(), limits=limits, sizes=[*self.sizes, list(size)])

    def save(self, path: str) -> None:
        """Write it whole or not at all. Raises OSError."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        write_bytes(path, text.encode(), alone=False)


def cache_path(endpoint: str, model: str, elongated: str = "") -> str:
    """The user's cached file of this endpoint, model and today's prompt: its format, or how
    `elongated` pictures do.
    """
    name = json.dumps(
        [bare_address(endpoint), model, prompt_version(), *([elongated] if elongated else [])]
    )
    return within(
        cache_folder(), f"calibration-{hashlib.sha256(name.encode()).hexdigest()[:20]}.json"
    )


def bare_address(endpoint: str) -> str:
    """An address without user name, password and query, in which keys are found."""
    try:
        parts = urlsplit(endpoint)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return endpoint


@cache
def prompt_version() -> str:
    """Digest of all words that tell a model how to write boxes: another prompt may bring another
    format.
    """
    plain = [find_box_format(f"{order}_{scale}", "") for order in ORDERS for scale in SCALES]
    words = [load_prompt("system"), load_prompt("phrase_grounding")]
    words += [known.instructions((896, 672)) for known in plain]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def stored_calibration(endpoint: str, model: str, *paths: str) -> Calibration | None:
    """The latest calibration of this endpoint, model and prompt at these paths."""
    found = [load(path, endpoint, model) for path in paths]
    return max((one for one in found if one is not None), key=lambda one: one.date, default=None)


def load(path: str, endpoint: str, model: str) -> Calibration | None:
    """The calibration in a file; None for one that is missing, damaged, or of another model,
    endpoint or prompt.
    """
    row = read_object(path)
    try:
        calibration = _read(row)
    except (ValueError, TypeError, AttributeError, ArithmeticError, SpecError):
        return None
    ours = (bare_address(endpoint), model, prompt_version())
    return (
        calibration
        if (calibration.endpoint, calibration.model, calibration.prompt) == ours
        else None
    )


def _read(row: dict[str, Any]) -> Calibration:
    """The calibration that a file holds. Raises what `load` takes for damage."""
    known = {one.name: one.type for one in fields(Calibration) if one.name in row}
    limits = None if row.get("limits") is None else SizeLimits(**row["limits"])
    calibration = Calibration(**{**{name: row[name] for name in known}, "limits": limits})
    is_sound = [
        *(isinstance(row[name], str) for name, kind in known.items() if kind is str),
        *(is_number(row[name]) for name, kind in known.items() if kind in (int, float)),
        *(_are_sizes(limits) if limits else [calibration.format.scale != "px"]),
    ]
    if not (all(is_sound) and _has_sizes(calibration) and _is_usable(calibration.format)):
        raise ValueError
    return calibration


def _has_sizes(calibration: Calibration) -> bool:
    """Whether what should be sizes is."""
    measured = all(
        len(size) == 2 and 0 < min(size) <= max(size) <= MOST_SIDE for size in calibration.sizes
    )
    return measured and all(len(size) == 3 and min(size) > 0 for size in calibration.poor)


def _is_usable(known: BoxFormat) -> bool:
    """Whether it is a format of boxes, in a frame that can be."""
    return known.boxes and all(1 <= side <= MOST_SIDE**2 for side in known.limits((1000, 700)))


def _are_sizes(limits: SizeLimits) -> list[bool]:
    """Whether limits are such as calibrations find: a file may be damaged, or edited by hand."""
    whole = [limits.max_side, limits.multiple, limits.min_pixels]
    sides = [limits.max_side, *(side for side in (limits.max_short_side,) if side is not None)]
    aspects = [aspect for aspect in (limits.max_wide, limits.max_tall) if aspect is not None]
    return [
        *(type(number) is int for number in whole),
        *(type(number) in (int, float) for number in (*sides, *aspects)),
        *(LEAST_SIDE <= side <= MOST_SIDE for side in sides),
        1 <= limits.multiple <= MOST_SIDE,
        0 <= limits.min_pixels <= MOST_SIDE**2,
        limits.max_pixels is None or LEAST_SIDE**2 <= limits.max_pixels <= MOST_SIDE**2,
        *(1 <= aspect <= MOST_SIDE for aspect in aspects),
    ]


def _is_beyond(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether a size is wide or tall as the other one is, and about as much or more."""
    wide = other[0] > other[1]
    return (one[0] > one[1]) == wide and max(one) / min(one) >= 0.95 * max(other) / min(other)


def now() -> str:
    """The time as `date` has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
