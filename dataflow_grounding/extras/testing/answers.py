"""Who answers behind the loopback server: a fixed text, valid answers that are made up, or a
function of yours.
"""

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.calibration.checking import LAYOUTS
from dataflow_grounding.calibration.probes import Probe, probe_of
from dataflow_grounding.extras.testing.dialects import Answer
from dataflow_grounding.extras.testing.received import BadRequest, ReceivedRequest

Answers = Callable[[ReceivedRequest], "Answer | str | dict[str, Any]"]

NOTHING, INPUT, IMAGES = "nothing", "input", "images"
WORD = re.compile(r"[^\W\d_]+(?:[-'\u2019][^\W\d_]+)*")
COLORS = ("red", "blue", "green", "white", "black", "yellow", "grey", "brown")
MOST_WORDS = 8


class CannedAnswers:
    """The same text for every request. The cheapest: with `record=False` bodies are thrown away
    unread.

    Args:
        text: What the model says each time.

    Example:
        >>> from dataflow_grounding.extras.testing import LoopbackServer
        >>> server = LoopbackServer(CannedAnswers('{"caption": "A cup."}'), record=False)
    """

    reads = NOTHING

    def __init__(self, text: str = '{"objects": []}') -> None:
        self.text = text

    def __call__(self, request: ReceivedRequest) -> Answer:
        """Give the text."""
        return Answer(self.text)


class EchoAnswers:
    """Valid answers to every task, made up from the request's input: the same input, the same
    answer.

    Expressions are the capitalised and the longer words of a caption. Every phrase gets one box
    inside the image, whose size the request states; the rectangles of probe pictures get the right
    ones. Images are not looked at.

    Args:
        box_format: How the model writes boxes: a name or family that `find_box_format` knows.

    Raises:
        BadRequest: When asked for a task that it doesn't know.

    Example:
        >>> path = "/v1/chat/completions"
        >>> request = ReceivedRequest(0, 0.0, "openai", path, {}, task="image_caption")
        >>> EchoAnswers()(request)
        {'caption': 'A red scene.'}
    """

    reads = INPUT

    def __init__(self, box_format: str = "xyxy_px") -> None:
        self.box_format = box_format

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        """Answer by task."""
        given = request.input
        regions = given.get("regions", [])
        answers: dict[str, Callable[[], dict[str, Any]]] = {
            "expression_extraction": lambda: extracted(" ".join(str(given["caption"]).split())),
            "phrase_grounding": lambda: (
                rectangles(request, self.box_format) or {"objects": self._objects(request)}
            ),
            "region_expression": lambda: {"regions": [described(region) for region in regions]},
            "image_caption": lambda: {
                "caption": f"A {COLORS[drawn(request.system, 0) % len(COLORS)]} scene."
            },
            "grounding_expression": lambda: {"expressions": [named(region) for region in regions]},
            "double_check": lambda: {
                "checks": [agreed(expression) for expression in given["expressions"]]
            },
            "region_caption": lambda: {
                "captions": [{"id": r["id"], "text": described(r)["description"]} for r in regions]
            },
            "prompted_vqa": lambda: {
                "answer": f"A {COLORS[drawn(str(given['prompt']), 0) % len(COLORS)]} scene."
            },
        }
        if request.task not in answers:
            raise unknown_task(request)
        return answers[request.task]()

    def _objects(self, request: ReceivedRequest) -> list[dict[str, Any]]:
        box_format = find_box_format(self.box_format, request.model)
        size = (int(request.input["image"]["width"]), int(request.input["image"]["height"]))
        objects = []
        for phrase in request.input["phrases"]:
            seed = f"{size}/{phrase['id']}/{phrase['text']}"
            x1, y1 = (drawn(seed, part) % max(1, side // 2) for part, side in enumerate(size))
            x2 = x1 + 1 + drawn(seed, 2) % (size[0] - x1)
            y2 = y1 + 1 + drawn(seed, 3) % (size[1] - y1)
            numbers = box_format.from_pixels((x1, y1, x2, y2), original=size, sent=size)
            objects.append(
                {"id": phrase["id"], "label": phrase["text"], box_format.key: numbers, "score": 0.9}
            )
        return objects


def unknown_task(request: ReceivedRequest) -> BadRequest:
    """The 400 for a request whose `<input>` names no task of this server."""
    return BadRequest(
        f'no answer for task {request.task!r}: the text part must hold <input>{{"task": …}}</input>'
    )


def drawn(seed: str, part: int) -> int:
    """A number from 0 to 65,535 that depends on the seed only; `part` is 0 to 15."""
    digest = hashlib.sha256(seed.encode()).digest()
    return int.from_bytes(digest[2 * part : 2 * part + 2], "big")


def extracted(caption: str) -> dict[str, Any]:
    """The caption with its capitalised and longer words as expressions."""
    words = WORD.findall(caption)
    told = [word for word in words if word[0].isupper() or len(word) >= 4][:MOST_WORDS] or words[:1]
    return {
        "cleaned_caption": caption,
        "expressions": [{"text": word, "noun_chunk": word} for word in told],
    }


def named(region: dict[str, Any]) -> dict[str, Any]:
    """An expression that means the region: its description, made up where it has none."""
    return {
        "text": region.get("description") or described(region)["description"],
        "region_ids": [region["id"]],
    }


def described(region: dict[str, Any]) -> dict[str, Any]:
    """Id, type, colour and description of a region, from its type and a digest of its numbers."""
    kind = str(region.get("type") or "object")
    color = COLORS[drawn(json.dumps(region, sort_keys=True), 0) % len(COLORS)]
    return {"id": region["id"], "type": kind, "color": color, "description": f"the {color} {kind}"}


def agreed(expression: dict[str, Any]) -> dict[str, Any]:
    """A check that finds the expression right as it is."""
    return {
        "matches": True,
        "reason": "",
        **{key: expression[key] for key in ("id", "region_ids", "text")},
    }


def probe_in(request: ReceivedRequest) -> Probe | None:
    """The probe picture that a request shows, known by its size and the order in which its
    rectangles are asked for.
    """
    if not asks_for_rectangles(request):
        return None
    texts = [phrase["text"] for phrase in request.input["phrases"]]
    size = int(request.input["image"]["width"]), int(request.input["image"]["height"])
    probes = (probe_of(size, layout) for layout in range(LAYOUTS))
    return next((probe for probe in probes if list(probe.boxes) == texts), None)


def asks_for_rectangles(request: ReceivedRequest) -> bool:
    """Whether a request shows a probe picture."""
    if request.task != "phrase_grounding":
        return False
    return all(str(phrase["text"]).endswith(" rectangle") for phrase in request.input["phrases"])


def rectangles(request: ReceivedRequest, box_format: str) -> dict[str, Any] | None:
    """A right answer to a probe picture; no boxes for a padded one, of unknown size; None for other
    requests.
    """
    probe = probe_in(request)
    if probe is None:
        return {"objects": []} if asks_for_rectangles(request) else None
    known = find_box_format(box_format, request.model)
    objects = [
        {
            "id": phrase["id"],
            "label": phrase["text"],
            known.key: known.from_pixels(bbox, original=probe.size),
        }
        for phrase, bbox in zip(request.input["phrases"], probe.boxes.values(), strict=True)
    ]
    return {"objects": objects}
