"""Which box format an operator asks for: by name, by the model's name, as calibrated, or to be calibrated first."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from dataflow_grounding.calibration.stored import Calibration, cache_path, stored_calibration
from dataflow_grounding.coordinates import BoxFormat, find_box_format, format_of_model
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.errors import SpecError
from dataflow_grounding.serving.base import Serving

if TYPE_CHECKING:
    from dataflow_grounding.calibration.asking import Calibrated

STATED = "xyxy_1000"
"""What an unknown model is asked for: models that follow instructions can, and a resize on the way changes nothing."""

RUN_FILE = "calibration.json"
"""Where a run keeps its calibration, in its `.ckpt`."""

_settled: dict[str, Calibration] = {}
"""What could not be written to the cache, for the rest of this process."""


class FormatChoice:
    """The box format of a serving's model, and how it is known.

    `wanted` is a name as in `vlm.box_format`; None takes the serving's. While `pending`, `format` is only what will be
    stated in the first question: `settle` has to come before any box is asked for. Raises SpecError for a name that isn't
    known, a model that draws no boxes, and `calibrated` without a stored calibration.
    """

    def __init__(self, serving: Serving, wanted: str | None = None) -> None:
        self._serving = serving
        self._given = wanted is not None
        wanted = wanted or serving.box_format
        self.pending = False
        name = wanted.strip().lower()
        if name not in ("auto", "calibrated"):
            self.format = find_box_format(wanted, serving.model, serving.box_formats)
            self.origin = self._stated_by()
            return
        candidate = format_of_model(serving.model, serving.box_formats)
        if name == "auto" and candidate is not None and (candidate.verified or not candidate.boxes):
            self.format = find_box_format("auto", serving.model, serving.box_formats)
            self.origin = "the model's name"
            return
        self.format = stated_format(serving.model)
        self.origin = "not known before it is calibrated"
        self.pending = True
        self.recall()
        if self.pending and name == "calibrated":
            raise SpecError(
                f"vlm.box_format is 'calibrated', but no calibration of {serving.model!r} at {serving.endpoint} is stored: "
                "run dataflowgrounding calibrate first"
            )

    def __repr__(self) -> str:
        return repr(self.format)

    def _stated_by(self) -> str:
        from_serving = not self._given and type(self._serving).box_format == self._serving.box_format
        return "the serving's own" if from_serving else "vlm.box_format"

    def recall(self, *more_paths: str) -> None:
        """Take a stored calibration, if there is one. Sends nothing."""
        serving = self._serving
        path = cache_path(serving.endpoint, serving.model)
        found = stored_calibration(serving.endpoint, serving.model, *more_paths) or _settled.get(path)
        if found is not None:
            self.format, self.origin, self.pending = found.format, found.origin, False

    def recall_beside(self, folder: str) -> None:
        """Take the calibration that a run keeps in its own folder, if one is wanted."""
        if self.pending:
            self.recall(os.path.join(folder, RUN_FILE))

    def settle(self, options: RunOptions, budget: Budget, folder: str | None = None) -> Counter[str]:
        """Calibrate if that is still to do; returns counts of requests and tokens. Says on standard error what it does.

        `folder` is a run's own, where the result is kept beside the user's cache, so that the same run goes on in the same
        format wherever it is resumed. Raises CalibrationUnclear, RunStopped.
        """
        if folder:
            self.recall_beside(folder)
        if not self.pending:
            return Counter()
        from dataflow_grounding.calibration.asking import announce, calibrate

        serving = self._serving
        announce(f"It is not known how {serving.model} writes boxes: calibrating, with 1 to 3 requests.")
        done = calibrate(serving, self.format, options, budget)
        found = done.calibration
        announce(f"{serving.model} writes {found.box_format}: {summary(done)}.")
        keep(found, *([os.path.join(folder, RUN_FILE)] if folder else []))
        self.format, self.origin, self.pending = found.format, found.origin, False
        return done.counts


def stated_format(model: str) -> BoxFormat:
    """What a model is asked for to calibrate it: the table's candidate for it, else xyxy_1000."""
    candidate = format_of_model(model)
    return candidate if candidate is not None and candidate.boxes else find_box_format(STATED, model)


def summary(done: Calibrated) -> str:
    """How well it fits, in words."""
    found = done.calibration
    share = f"{100 * found.error_share:.1f}% of the side"
    counted = f"{found.found} of {found.asked} rectangles found, {found.requests} requests"
    return f"error {found.error_px:.1f} px ({share} for the median rectangle's worst edge), {counted}"


def keep(found: Calibration, *more_paths: str) -> str | None:
    """Store a calibration in the user's cache and at `more_paths`; returns the cache's file, None where it can't be written."""
    from dataflow_grounding.calibration.asking import announce

    cached = cache_path(found.endpoint, found.model)
    written = None
    for path in (cached, *more_paths):
        try:
            found.save(path)
            written = cached if path == cached else written
        except OSError as error:
            _settled[cached] = found
            announce(f"The calibration can't be kept in {path}: {error.strerror or error}")
    return written
