"""The embedded grounder as a serving."""

import asyncio
import functools
import json
import os
from importlib.util import find_spec
from typing import Any

from dataflow_grounding._util.errors import MissingPackage, RequestRefused, needs_package
from dataflow_grounding._util.terminal import say
from dataflow_grounding.embedded.captions import extract_expressions
from dataflow_grounding.images.image import Image
from dataflow_grounding.serving.serving import Reply, Serving
from dataflow_grounding.tasks import Request

VERSION = 6
"""Counts changes to its answers, so that stored ones are not taken for them."""

_say_once = functools.cache(say)

EMBEDDED, OPENCV = "the embedded grounder", "opencv-python-headless"  # and what it needs
ABOUT_REGIONS = (
    "region_expression",
    "image_caption",
    "grounding_expression",
    "double_check",
    "region_caption",
)
"""The tasks that are answered from the request's regions."""


class EmbeddedServing(Serving):
    """A deterministic grounder with a small closed vocabulary.

    It sees faces and the people around them, sky, grass, leaves, clear colours and shapes. What it
    can't look for it calls unsupported, several equal candidates ambiguous. Never a box that it is
    not sure of. Given regions it describes by their labels, colours, sizes and places.
    """

    model = "embedded-opencv"
    endpoint = f"embedded:{VERSION}"
    box_format = "xyxy_px"
    tasks = ("expression_extraction", "phrase_grounding", *ABOUT_REGIONS)
    # a description is compared with all other regions, so they are seen together
    regions_per_request = 1000
    needs_labels = True
    exact_boxes = True
    is_vlm = False
    free = True

    def __init__(self, notice: str = "") -> None:
        self.max_workers = min(8, os.cpu_count() or 1)
        self._notice = notice  # said with the first answer of a process; "" says nothing

    def obstacles(self) -> list[str]:
        """Return what prevents it from answering: OpenCV is missing."""
        if find_spec("cv2") is None:
            return [str(MissingPackage(EMBEDDED, OPENCV))]
        return []

    async def answer(self, request: Request[Any]) -> Reply:
        """Return the answer to a task, as the text that a model would reply with.

        Raises RequestRefused for a task that isn't among `tasks`.
        """
        reply = Reply(await asyncio.to_thread(_answer, request))
        if self._notice:
            _say_once(self._notice)
        return reply


def _answer(request: Request[Any]) -> str:
    if request.task == "expression_extraction":
        answer: object = extract_expressions(request.input["caption"])
    elif request.task == "phrase_grounding":
        with needs_package(EMBEDDED, OPENCV):
            from dataflow_grounding.embedded._grounder import ground_phrases

        answer = ground_phrases(_bgr(request.images[0]), list(request.input["phrases"]))
    elif request.task in ABOUT_REGIONS:
        with needs_package(EMBEDDED, OPENCV):
            from dataflow_grounding.embedded._descriptions import answer_about_regions

        answer = answer_about_regions(request.task, _bgr(request.images[0]), request.input)
    else:
        raise RequestRefused(f"the embedded grounder has no answer to {request.task}")
    return json.dumps(answer, ensure_ascii=False)


def _bgr(image: Image) -> Any:
    import numpy

    with image.decoded() as picture:
        if picture.size != image.sent_size:
            picture = picture.resize(image.sent_size, reducing_gap=2.0)
    return numpy.ascontiguousarray(numpy.asarray(picture)[:, :, ::-1])
