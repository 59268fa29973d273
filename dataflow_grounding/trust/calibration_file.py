"""A calibration, what was found out about one model, and the JSON file that stores it.

There is a file for each endpoint, model and prompt in the user's cache, and one next to a run's
results. A file may be damaged or edited by hand: what isn't sound is read as if it weren't there.

Where a model counts pixels, pictures are sent in a few exact sizes alone, called frames, and a map
says what numbers mean in each.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cache

from pydantic import TypeAdapter

from dataflow_grounding._util.environment import cache_folder
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.files import within, write_bytes
from dataflow_grounding._util.paths import bare_address
from dataflow_grounding._util.results_names import CALIBRATION
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat, FrameMap
from dataflow_grounding.boxes.formats import find_box_format, map_of
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import JsonObject, read_object
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.tasks.prompts import load_prompt
from dataflow_grounding.trust.maps import MEASURED, format_in_frames

# px of pictures: the least in which anything is seen, and more than any file format in use has.
LEAST_SIDE, MOST_SIDE = 16, 100_000
# Pictures in which a stored format and limits are tried out: a lying and an upright one.
SAMPLE_SIZES = ((1000, 700), (700, 1000))


@dataclass(frozen=True)
class Calibration:
    """What was found out about one model."""

    endpoint: str
    model: str
    prompt: str
    """A digest, see `prompt_version`."""
    box_format: str
    error_px: float
    """The mean distance of an edge, in pixels of the probe pictures."""
    error_share: float
    """How far the median rectangle's worst edge is off, in parts of the side."""
    found: int
    """How many of the rectangles that were `asked` for are where the format says."""
    asked: int
    requests: int
    date: str
    """In UTC, `YYYY-MM-DDTHH:MM:SSZ`."""
    limits: SizeLimits | None = None
    """The sizes in which pictures are sent; None for all."""
    sizes: list[Size] = field(default_factory=list)
    """The sizes, as sent, of the probe pictures that all of this rests on."""
    maps: list[FrameMap] = field(default_factory=list)
    """What numbers mean in each frame, where they were measured."""
    refused: list[Size] = field(default_factory=list)
    """Sizes that the endpoint doesn't take."""

    @property
    def format(self) -> BoxFormat:
        """Raises SpecError when this version doesn't know it."""
        plain, _, frame = self.box_format.partition("@")
        if frame != MEASURED or not plain.endswith("_px"):
            return find_box_format(self.box_format, model="")
        return format_in_frames(find_box_format(plain, model="").order, self.maps)

    @property
    def frames(self) -> tuple[Size, ...]:
        return self.limits.frames if self.limits else ()

    @property
    def origin(self) -> str:
        """Where a run's format came from, in words, with how precise its maps are."""
        words = f"calibrated on {self.date[:10]}, error {self.error_px:.1f} px"
        return f"{words}, maps precise to {self.precision:.1%} of the side" if self.maps else words

    @property
    def precision(self) -> float:
        """How far off its maps are at most at an edge (95%), as a share of the side; 0 without."""
        return 2 * max((frame_map.error for frame_map in self.maps), default=0.0)

    def save(self, path: str) -> None:
        """Write the file, whole or not at all, and its folder. Raises OSError."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        write_bytes(path, text.encode(), alone=False)


# Calibrations that couldn't be written to disk, by the path of the cache's file; they last as long
# as this process.
_unsaved: dict[str, Calibration] = {}


def cache_path(endpoint: str, model: str) -> str:
    parts = [bare_address(endpoint), model, prompt_version()]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
    return within(cache_folder(), f"calibration-{digest}.json")


@cache
def prompt_version() -> str:
    # A calibration holds for these words alone: other ones may bring another format.
    words = [load_prompt("system"), load_prompt("phrase_grounding")]
    for order in ORDERS:
        for scale in SCALES:
            words.append(find_box_format(f"{order}_{scale}", model="").instructions((896, 672)))
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def stored_calibration(endpoint: str, model: str, folder: str | None = None) -> Calibration | None:
    """Return what was found out last about a model, by anybody or by the run in `folder`."""
    cached = cache_path(endpoint, model)
    loaded = [load_calibration(cached, endpoint, model)]
    if folder:
        loaded.append(load_calibration(run_file(folder), endpoint, model))
    loaded.append(_unsaved.get(cached))
    sound = [calibration for calibration in loaded if calibration is not None]
    # dates compare as texts, because they are in UTC and of one form
    return max(sound, key=lambda calibration: calibration.date, default=None)


def load_calibration(path: str, endpoint: str, model: str) -> Calibration | None:
    """Return the calibration in a file, if it is sound and of this model, endpoint and prompt."""
    row = read_object(path)
    try:
        calibration = _calibration_of(row)
    except (ValueError, TypeError, AttributeError, ArithmeticError, SpecError):
        return None  # somebody may have edited the file
    is_of_this_model = (
        calibration.endpoint == bare_address(endpoint)
        and calibration.model == model
        and calibration.prompt == prompt_version()
    )
    return calibration if is_of_this_model else None


def _calibration_of(row: JsonObject) -> Calibration:
    """Make a Calibration; raise ValueError, or what a wrong type causes, if the row isn't sound."""
    if row.keys() != Calibration.__dataclass_fields__.keys():
        raise ValueError("another version's calibration")
    row = {**row, "maps": [map_of(stored) for stored in row["maps"]]}
    calibration = TypeAdapter(Calibration).validate_python(row)
    box_format = calibration.format
    limits = calibration.limits or SizeLimits()
    measured = [frame_map.size for frame_map in box_format.maps]
    has_map_of_each_frame = bool(measured) and set(measured) == set(limits.frames)
    if box_format.scale == "px" and not has_map_of_each_frame:
        raise ValueError("pixels mean nothing in a size without a map")
    # Somebody may have edited the file by hand, so its limits are tried on sample sizes.
    _try_limits(limits, [*calibration.sizes, *limits.frames])
    # a size in which numbers mean something: with maps, only their sizes
    sample = measured[0] if measured else SAMPLE_SIZES[0]
    largest_numbers = box_format.limits(sample)  # for x and for y
    are_numbers_sound = all(0 < largest <= MOST_SIDE**2 for largest in largest_numbers)
    if not box_format.boxes or not are_numbers_sound:
        raise ValueError("the format is not one of boxes in pictures")
    return calibration


def _try_limits(limits: SizeLimits, stored_sizes: Sequence[Size]) -> None:
    """Raise ValueError where sizes that are stored, or that the limits make, are no pictures'."""
    sizes = [*SAMPLE_SIZES, *stored_sizes]
    for sample_size in SAMPLE_SIZES:
        sizes += [limits.padded(sample_size), limits.sent(sample_size)]
    if not LEAST_SIDE <= limits.max_side <= MOST_SIDE:
        raise ValueError("pictures have no such side")
    if not all(1 <= min(size) <= max(size) <= MOST_SIDE for size in sizes):
        raise ValueError("a size is not one of pictures")
    if any(min(limits.sent(size)) < LEAST_SIDE for size in SAMPLE_SIZES):
        raise ValueError("pictures would be sent too small to see anything")


def store_calibration(calibration: Calibration, folder: str | None = None) -> str | None:
    """Store a calibration in the user's cache and a run's folder; return the cache's file.

    If either can't be written, the user is told, and this process keeps the calibration in memory.
    """
    cached = cache_path(calibration.endpoint, calibration.model)
    is_cached = _save(calibration, cached)
    is_in_folder = _save(calibration, run_file(folder)) if folder else True
    if not (is_cached and is_in_folder):
        _unsaved[cached] = calibration
    return cached if is_cached else None


def _save(calibration: Calibration, path: str) -> bool:
    try:
        calibration.save(path)
    except OSError as error:
        say(f"The calibration can't be saved to {path}: {error.strerror or error}")
        return False
    return True


def run_file(folder: str) -> str:
    return os.path.join(folder, CALIBRATION)


def utc_timestamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
