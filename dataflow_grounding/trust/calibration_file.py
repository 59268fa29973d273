"""A calibration, what was found out about one model, and the JSON file that stores it.

There is a file for each endpoint, model and prompt in the user's cache, and one beside a run's
results. A file may be damaged or edited by hand: what isn't sound is read as if it weren't there.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from typing import Any

from dataflow_grounding._util.environment import cache_folder
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.files import within
from dataflow_grounding._util.paths import bare_address
from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat, FrameMap
from dataflow_grounding.boxes.formats import find_box_format, map_of
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import is_number, read_object, write_bytes
from dataflow_grounding.data.working_folder import CALIBRATION
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.tasks.prompts import load_prompt
from dataflow_grounding.trust.maps import MEASURED, format_in_frames

PRECISE_ENOUGH = 0.01  # of the side, by which edges may be off
LEAST_SIDE, MOST_SIDE = 16, 100_000  # px of pictures, of which a calibration can speak
SAMPLE_SIZE = (1000, 700)  # of a picture, in which a stored format's numbers are tried out
NEARLY_AS_ELONGATED = 0.95  # share of another size's aspect from which on one is as elongated


@dataclass(frozen=True)
class Calibration:
    """What was found out about one model.

    Attributes:
        endpoint, model, prompt: Whom it is about; `prompt` is a digest, see `prompt_version`.
        box_format: The format's name.
        error_px: The mean distance of an edge, in pixels of the probe pictures.
        error_share: How far the median rectangle's worst edge is off, in parts of the side.
        found: How many of the rectangles that were `asked` for are where the format says.
        requests: How many it took.
        date: In UTC, `YYYY-MM-DDTHH:MM:SSZ`.
        limits: The sizes within which pixels are the sent picture's; None for formats that don't
            count pixels.
        sizes: The sizes, within the limits, at which that was measured.
        poor: Elongated sizes in which boxes are wrong however they are asked for: width, height,
            and how far off boxes are as a share of the side.
        maps: What numbers mean in each frame, where they were measured; none for other formats.
        refused: Frames that the endpoint doesn't take.
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
    maps: list[FrameMap] = field(default_factory=list)
    refused: list[Size] = field(default_factory=list)

    @property
    def format(self) -> BoxFormat:
        """The format by its name. Raises SpecError when this version doesn't know it."""
        plain, _, frame = self.box_format.partition("@")
        if frame != MEASURED or not plain.endswith("_px"):
            return find_box_format(self.box_format, "")
        return format_in_frames(find_box_format(plain, "").order, self.maps)

    @property
    def is_inferred(self) -> bool:
        """Whether pixels are known by a rule of the server, as versions before frames inferred."""
        return self.format.scale == "px" and not self.maps

    @property
    def origin(self) -> str:
        """Where a run's format came from, in words, with how precise its maps are."""
        words = f"calibrated on {self.date[:10]}, error {self.error_px:.1f} px"
        return f"{words}, maps precise to {self.precision:.1%} of the side" if self.maps else words

    @property
    def precision(self) -> float:
        """How far off its maps are at most at an edge (95%), as a share of the side; 0 without.

        That is two standard errors of the least exact one.
        """
        return 2 * max((one.error for one in self.maps), default=0.0)

    def covers(self, size: Size) -> bool:
        """Whether it is known how boxes turn out in elongated pictures of this size.

        It is where such pictures are padded to an aspect, where boxes are known to be poor in ones
        no more elongated, and where they were measured in ones at least about as elongated. `size`
        counts as tall where it is square.
        """
        limits = self.limits or SizeLimits()
        padded_to = limits.max_wide if size[0] > size[1] else limits.max_tall
        is_padded = padded_to is not None
        is_poor = self.off_in(size) is not None
        is_measured = any(_is_as_elongated(measured, than=size) for measured in self.sizes)
        return is_padded or is_poor or is_measured

    def off_in(self, size: Size) -> float | None:
        """Return how far off boxes are in elongated pictures of this size, as a share of the side.

        It is what was measured in the first `poor` size that is about as elongated, or less. None
        where boxes aren't known to be poor.
        """
        for width, height, off in self.poor:
            if _is_as_elongated(size, than=(width, height)):
                return off
        return None

    def with_shape(self, size: Size, aspect: float | None, off: float | None) -> "Calibration":
        """Return this calibration, dated now, with what was found out about an elongated size.

        Args:
            size: Width and height of the pictures in pixels.
            aspect: The aspect to which they are to be padded; None for no padding.
            off: How far off boxes are even so, as a share of the side; None where they are right.
                `aspect` isn't stored where this is given.
        """
        if off is not None:
            return replace(self, date=utc_timestamp(), poor=[*self.poor, [*size, off]])
        limits = self.limits or SizeLimits()
        if size[0] > size[1]:
            limits = replace(limits, max_wide=aspect)
        else:
            limits = replace(limits, max_tall=aspect)
        return replace(self, date=utc_timestamp(), limits=limits, sizes=[*self.sizes, list(size)])

    def save(self, path: str) -> None:
        """Write the file at `path`, whole or not at all, and its folder. Raises OSError."""
        os.makedirs(os.path.dirname(path), exist_ok=True)
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        write_bytes(path, text.encode(), alone=False)


# Calibrations that couldn't be written to disk, by the path of the cache's file; they last as long
# as this process.
_unsaved: dict[str, Calibration] = {}


def cache_path(endpoint: str, model: str, elongated: str = "") -> str:
    """Return the path of the user's cached file for this endpoint, model and the present prompt.

    Args:
        endpoint: The serving's address.
        model: The model's name.
        elongated: The name of a box format, for the separate file that says how elongated pictures
            are to be sent in that format; "" for the usual file.
    """
    parts = [bare_address(endpoint), model, prompt_version()]
    if elongated:
        parts.append(elongated)
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]
    return within(cache_folder(), f"calibration-{digest}.json")


@cache
def prompt_version() -> str:
    """Return a digest of all words that tell a model how to write boxes.

    A calibration holds for these words alone: other ones may bring another format.
    """
    words = [load_prompt("system"), load_prompt("phrase_grounding")]
    for order in ORDERS:
        for scale in SCALES:
            words.append(find_box_format(f"{order}_{scale}", "").instructions((896, 672)))
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def stored_calibration(
    endpoint: str, model: str, folder: str | None = None, elongated: str = ""
) -> Calibration | None:
    """Return what was stored last about a model: by the user, or by the run in `folder`.

    What this process found out later, and couldn't write to disk, comes first; None where there is
    nothing.

    Args:
        endpoint, model: Whom it is about.
        folder: The folder in which a run keeps its state; None for the user's cache alone.
        elongated: The name of a box format, for what was found out about elongated pictures in that
            format; "" for the usual calibration.
    """
    cached = cache_path(endpoint, model, elongated)
    paths = [cached]
    if folder:
        paths.append(run_file(folder))
    stored = latest_calibration(endpoint, model, *paths)
    unsaved = _unsaved.get(cached)
    if unsaved is not None and (stored is None or unsaved.date > stored.date):
        return unsaved
    return stored


def latest_calibration(endpoint: str, model: str, *paths: str) -> Calibration | None:
    """Return the latest calibration of this endpoint, model and prompt at these paths.

    None where no file holds one; of equal dates, the first path's.
    """
    latest: Calibration | None = None
    for path in paths:
        calibration = load_calibration(path, endpoint, model)
        if calibration is not None and (latest is None or calibration.date > latest.date):
            latest = calibration
    return latest


def load_calibration(path: str, endpoint: str, model: str) -> Calibration | None:
    """Return the calibration in a file.

    None for one that is missing, damaged, or of another model, endpoint or prompt.
    """
    row = read_object(path)
    try:
        calibration = _calibration_of(row)
    except (ValueError, TypeError, AttributeError, ArithmeticError, SpecError):
        return None
    is_of_this_model = (
        calibration.endpoint == bare_address(endpoint)
        and calibration.model == model
        and calibration.prompt == prompt_version()
    )
    return calibration if is_of_this_model else None


def _calibration_of(row: dict[str, Any]) -> Calibration:
    """Return the calibration that a file's JSON object stands for.

    Raises ValueError if its values are of wrong types or out of range, SpecError for a format that
    isn't known, and whatever else wrong values bring about: `load_calibration` takes all of that
    for damage.
    """
    # Keys that this version doesn't know are left out: a later version may have added them.
    values: dict[str, Any] = {}
    for column in fields(Calibration):
        if column.name in row:
            values[column.name] = row[column.name]
    values["limits"] = None
    if row.get("limits") is not None:
        values["limits"] = _limits_of(row["limits"])
    values["maps"] = [map_of(one) for one in row.get("maps", ())]
    values["refused"] = [(int(width), int(height)) for width, height in row.get("refused", ())]
    calibration = Calibration(**values)
    is_sound = (
        _are_of_their_types(values)
        and _has_sound_limits(calibration)
        and _has_sound_sizes(calibration)
        and _is_usable(calibration.format)
    )
    if not is_sound:
        raise ValueError
    return calibration


def _limits_of(row: dict[str, Any]) -> SizeLimits:
    """Return the limits that a file's JSON object is. Raises ValueError and TypeError."""
    frames = tuple((int(width), int(height)) for width, height in row.get("frames", ()))
    return SizeLimits(**{**row, "frames": frames})


def _are_of_their_types(values: dict[str, Any]) -> bool:
    """Whether the fields that should be text are text, and those that should be numbers numbers.

    Other fields, and those that aren't among the values, aren't looked at.
    """
    for column in fields(Calibration):
        if column.name not in values:
            continue
        value = values[column.name]
        if column.type is str and not isinstance(value, str):
            return False
        if column.type in (int, float) and not is_number(value):
            return False
    return True


def _has_sound_sizes(calibration: Calibration) -> bool:
    """Whether `sizes` and `poor` are of pictures: positive, and of the right count."""
    for size in calibration.sizes:
        if not (len(size) == 2 and 0 < min(size) <= max(size) <= MOST_SIDE):
            return False
    return all(len(size) == 3 and min(size) > 0 for size in calibration.poor)


def _is_usable(known: BoxFormat) -> bool:
    """Whether a format is one of boxes, and its highest numbers are possible ones."""
    sample = known.maps[0].size if known.maps else SAMPLE_SIZE
    return known.boxes and all(0 < most <= MOST_SIDE**2 for most in known.limits(sample))


def _has_sound_limits(calibration: Calibration) -> bool:
    """Whether limits are such as calibrations find; none do for a format that counts no pixels.

    A file may be damaged, or edited by hand.
    """
    limits = calibration.limits
    if limits is None:
        return calibration.format.scale != "px"
    if sorted(limits.frames) != sorted(one.size for one in calibration.maps):
        return False
    for whole in (limits.max_side, limits.multiple, limits.min_pixels):
        if type(whole) is not int:  # isinstance would let true and false pass
            return False
    for side in (limits.max_side, limits.max_short_side):
        if side is not None and not _is_between(LEAST_SIDE, side, MOST_SIDE):
            return False
    for aspect in (limits.max_wide, limits.max_tall):
        if aspect is not None and not _is_between(1, aspect, MOST_SIDE):
            return False
    most_pixels = limits.max_pixels
    if most_pixels is not None and not LEAST_SIDE**2 <= most_pixels <= MOST_SIDE**2:
        return False
    return 1 <= limits.multiple <= MOST_SIDE and 0 <= limits.min_pixels <= MOST_SIDE**2


def _is_between(low: int, value: float, high: int) -> bool:
    """Whether a value from a file is a number, not a bool, and in this range, ends included."""
    return type(value) in (int, float) and low <= value <= high


def _is_as_elongated(size: Sequence[float], *, than: Sequence[float]) -> bool:
    """Whether a size is elongated the same way as another (wide or tall), and about as much.

    It may be more elongated, or a little less (NEARLY_AS_ELONGATED). A square counts as tall.
    """
    is_wide = size[0] > size[1]
    is_other_wide = than[0] > than[1]
    aspect = max(size) / min(size)
    return is_wide == is_other_wide and aspect >= NEARLY_AS_ELONGATED * max(than) / min(than)


def store_calibration(
    calibration: Calibration, folder: str | None = None, elongated: str = ""
) -> str | None:
    """Store a calibration in the user's cache and in a run's folder.

    If either can't be written, the user is told, and this process keeps it in memory.

    Args:
        calibration: What to store.
        folder: The folder in which a run keeps its state; None for the cache alone.
        elongated: The name of a box format, for the separate file about elongated pictures in that
            format; "" for the usual file.

    Returns:
        The path of the cache's file, None if it couldn't be written.
    """
    cached = cache_path(calibration.endpoint, calibration.model, elongated)
    is_cached = _save(calibration, cached)
    is_in_folder = _save(calibration, run_file(folder)) if folder else True
    if not (is_cached and is_in_folder):
        _unsaved[cached] = calibration
    return cached if is_cached else None


def _save(calibration: Calibration, path: str) -> bool:
    """Write a calibration's file. Tells the user, and returns False, where that fails."""
    try:
        calibration.save(path)
    except OSError as error:
        say(f"The calibration can't be saved to {path}: {error.strerror or error}")
        return False
    return True


def run_file(folder: str) -> str:
    """Return the path of the calibration that a run keeps in the folder of its state."""
    return os.path.join(folder, CALIBRATION)


def utc_timestamp() -> str:
    """Return the present time in UTC as `YYYY-MM-DDTHH:MM:SSZ`, the form of `date`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
