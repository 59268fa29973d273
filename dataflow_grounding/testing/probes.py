"""Right answers to the probe pictures that runs and calibrations send, from their size and phrases alone."""

from functools import lru_cache
from typing import Any

from dataflow_grounding.box_formats import find_box_format
from dataflow_grounding.calibration.checking import LAYOUTS
from dataflow_grounding.calibration.probes import Probe, probe_of
from dataflow_grounding.geometry import Size
from dataflow_grounding.testing.received import ReceivedRequest


def probe_in(request: ReceivedRequest) -> Probe | None:
    """The probe picture that a request shows, known by its size and the order in which its rectangles are asked for."""
    if not asks_for_rectangles(request):
        return None
    texts = tuple(str(phrase["text"]) for phrase in request.input["phrases"])
    image = request.input["image"]
    return _probe_with((int(image["width"]), int(image["height"])), texts)


def asks_for_rectangles(request: ReceivedRequest) -> bool:
    """Whether a request shows a probe picture."""
    if request.task != "phrase_grounding":
        return False
    return all(str(phrase["text"]).endswith(" rectangle") for phrase in request.input["phrases"])


@lru_cache(maxsize=64)
def _probe_with(size: Size, texts: tuple[str, ...]) -> Probe | None:
    probes = (probe_of(size, layout) for layout in range(LAYOUTS))
    return next((probe for probe in probes if tuple(probe.boxes) == texts), None)


def rectangles(request: ReceivedRequest, box_format: str) -> dict[str, Any] | None:
    """A right answer to a probe picture; no boxes for a padded one, of unknown size; None for other requests."""
    probe = probe_in(request)
    if probe is None:
        return {"objects": []} if asks_for_rectangles(request) else None
    known = find_box_format(box_format, request.model)
    objects = [
        {"id": phrase["id"], "label": phrase["text"], known.key: known.from_pixels(bbox, original=probe.size)}
        for phrase, bbox in zip(request.input["phrases"], probe.boxes.values(), strict=True)
    ]
    return {"objects": objects}
