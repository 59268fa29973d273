"""Who answers behind the loopback server: a fixed text, made-up answers, or your function."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.calibration.checking import LAYOUTS
from dataflow_grounding.calibration.probes import Probe, probe_of
from dataflow_grounding.extras.testing.dialects import Answer
from dataflow_grounding.extras.testing.received import BadRequest, ReceivedRequest
from dataflow_grounding.watch.judge_watch import KnownPicture, crops_of, known_picture

Answers = Callable[[ReceivedRequest], "Answer | str | dict[str, Any]"]

# What answers look at.
NOTHING = "nothing"
INPUT = "input"
IMAGES = "images"
WORD = re.compile(r"[^\W\d_]+(?:[-'\u2019][^\W\d_]+)*")
COLORS = ("red", "blue", "green", "white", "black", "yellow", "grey", "brown")
MOST_WORDS = 8


class CannedAnswers:
    """The same text for every request.

    The cheapest: with `record=False` bodies are thrown away unread.

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
    """Valid answers to every task, made up from the request's input.

    The same input has the same answer. Expressions are the capitalised and the longer words of a
    caption. Every phrase gets one box inside the image, whose size the request states; the
    rectangles of probe pictures get the right ones. Images are not looked at.

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
        asked = request.input
        regions = asked.get("regions", [])
        match request.task:
            case "expression_extraction":
                return extracted(" ".join(str(asked["caption"]).split()))
            case "phrase_grounding" | "caption_grounding":
                return self._grounded(request)
            case "region_expression":
                return {"regions": [described(region) for region in regions]}
            case "image_caption":
                return {"caption": f"A {color_of(request.system)} scene."}
            case "grounding_expression":
                return {"expressions": [named(region) for region in regions]}
            case "double_check":
                return {"checks": [agreed(expression) for expression in asked["expressions"]]}
            case "region_caption":
                return {"captions": [captioned(region) for region in regions]}
            case "box_check":
                return all_right(asked)
            case "crop_check":
                return all_yes(asked)
            case "missing_boxes":
                return {"objects": []}
            case "negative_phrases":
                return recolored(asked)
            case "prompted_vqa":
                return {"answer": f"A {color_of(str(asked['prompt']))} scene."}
            case _:
                raise unknown_task(request)

    def _grounded(self, request: ReceivedRequest) -> dict[str, Any]:
        """A box for each phrase; where a caption is asked about, also its phrases."""
        if request.task == "phrase_grounding":
            drawn_rectangles = rectangles(request, self.box_format)
            phrases = request.input["phrases"]
            return drawn_rectangles or {"objects": self._objects(request, phrases)}
        reply = extracted(" ".join(str(request.input["caption"]).split()))
        phrases = []
        for number, expression in enumerate(reply["expressions"], 1):
            phrases.append({"id": number, "text": expression["text"]})
        objects = self._objects(request, phrases)
        for thing in objects:
            del thing["label"]
        return {**reply, "objects": objects}

    def _objects(
        self, request: ReceivedRequest, phrases: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """A box inside the image for each phrase, an `id` and a `text`."""
        box_format = find_box_format(self.box_format, request.model)
        size = (int(request.input["image"]["width"]), int(request.input["image"]["height"]))
        objects = []
        for phrase in phrases:
            seed = f"{size}/{phrase['id']}/{phrase['text']}"
            width, height = size
            x1 = drawn(seed, 0) % max(1, width // 2)
            y1 = drawn(seed, 1) % max(1, height // 2)
            x2 = x1 + 1 + drawn(seed, 2) % (width - x1)
            y2 = y1 + 1 + drawn(seed, 3) % (height - y1)
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


def color_of(seed: str) -> str:
    """A colour that depends on the seed only."""
    return COLORS[drawn(seed, 0) % len(COLORS)]


def extracted(caption: str) -> dict[str, Any]:
    """The caption with its capitalised and longer words as expressions."""
    words = WORD.findall(caption)
    telling = [word for word in words if word[0].isupper() or len(word) >= 4]
    if not telling:
        telling = words[:1]
    expressions = [{"text": word, "noun_chunk": word} for word in telling[:MOST_WORDS]]
    return {"cleaned_caption": caption, "expressions": expressions}


def named(region: dict[str, Any]) -> dict[str, Any]:
    """An expression that means the region: its description, made up where it has none."""
    return {
        "text": region.get("description") or described(region)["description"],
        "region_ids": [region["id"]],
    }


def described(region: dict[str, Any]) -> dict[str, Any]:
    """Id, type, colour and description of a region, from its type and a digest of its numbers."""
    kind = str(region.get("type") or "object")
    color = color_of(json.dumps(region, sort_keys=True))
    return {"id": region["id"], "type": kind, "color": color, "description": f"the {color} {kind}"}


def captioned(region: dict[str, Any]) -> dict[str, Any]:
    """A caption of the region: its made-up description."""
    return {"id": region["id"], "text": described(region)["description"]}


def agreed(expression: dict[str, Any]) -> dict[str, Any]:
    """A check that finds the expression right as it is."""
    return {
        "matches": True,
        "reason": "",
        "id": expression["id"],
        "region_ids": expression["region_ids"],
        "text": expression["text"],
    }


def all_right(given: dict[str, Any]) -> dict[str, Any]:
    """A check that finds all boxes right, and of each phrase as many things as it has boxes. In a
    judge's test, where colours are asked for that aren't there, it finds these wrong.
    """
    tested = judges_test([phrase["text"] for phrase in given["phrases"]])
    known = None if tested is None else tested.probe.boxes
    presences, verdicts = [], []
    for phrase in given["phrases"]:
        count = sum(box["text"] == phrase["text"] for box in given["boxes"])
        count = count if known is None else int(phrase["text"] in known)
        presences.append({"id": phrase["id"], "there": count > 0, "count": count})
    for box in given["boxes"]:
        right = known is None or box["text"] in known
        verdicts.append({"id": box["id"], "verdict": "right" if right else "other", "reason": ""})
    return {"phrases": presences, "boxes": verdicts}


def all_yes(given: dict[str, Any]) -> dict[str, Any]:
    """A check that finds all crops right; in a judge's test, those that are."""
    texts = [crop["text"] for crop in given["crops"]]
    tested = judges_test(texts[: len(texts) // 2])
    right = [True] * len(texts) if tested is None else crops_of(tested)[1]
    crops = []
    for crop, is_right in zip(given["crops"], right, strict=True):
        crops.append({"id": crop["id"], "answer": "yes" if is_right else "no"})
    return {"crops": crops}


def recolored(given: dict[str, Any]) -> dict[str, Any]:
    """Each phrase with another colour before its last word, as often as asked."""
    negatives = []
    for number in range(given["count"]):
        phrase = given["phrases"][number % len(given["phrases"])]
        color = COLORS[number // len(given["phrases"]) % len(COLORS)]
        *before, last = phrase["text"].split()
        text = " ".join([*before, color, last])
        negatives.append({"id": phrase["id"], "change": "attribute", "text": text})
    return {"negatives": negatives}


def judges_test(texts: list[str]) -> KnownPicture | None:
    """The picture of known answers that a judge is tested with, known by its phrases; None where
    it isn't one.
    """
    if not all(text.endswith(" rectangle") for text in texts):
        return None
    pictures = map(known_picture, range(LAYOUTS))
    return next((picture for picture in pictures if picture.phrases == texts), None)


def probe_in(request: ReceivedRequest) -> Probe | None:
    """The probe picture that a request shows.

    It is known by its size and the order in which its rectangles are asked for.
    """
    if not asks_for_rectangles(request):
        return None
    texts = [phrase["text"] for phrase in request.input["phrases"]]
    size = int(request.input["image"]["width"]), int(request.input["image"]["height"])
    for layout in range(LAYOUTS):
        probe = probe_of(size, layout)
        if list(probe.boxes) == texts:
            return probe
    return None


def asks_for_rectangles(request: ReceivedRequest) -> bool:
    """Whether a request shows a probe picture."""
    if request.task != "phrase_grounding":
        return False
    return all(str(phrase["text"]).endswith(" rectangle") for phrase in request.input["phrases"])


def rectangles(request: ReceivedRequest, box_format: str) -> dict[str, Any] | None:
    """A right answer to a probe picture; None for other requests.

    It has no boxes for a padded one, whose size is unknown.
    """
    probe = probe_in(request)
    if probe is None:
        return {"objects": []} if asks_for_rectangles(request) else None
    known = find_box_format(box_format, request.model)
    objects = []
    for phrase, bbox in zip(request.input["phrases"], probe.boxes.values(), strict=True):
        numbers = known.from_pixels(bbox, original=probe.size)
        objects.append({"id": phrase["id"], "label": phrase["text"], known.key: numbers})
    return {"objects": objects}
