"""Who answers for the loopback server: a fixed text, made-up answers, or your function.

Made-up answers are valid replies to each task. They depend on nothing but the request, by digests
in place of chance, so that the same request is answered alike each time. Probe pictures of a box
format are answered rightly: a model that failed them would stop the run.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format, format_of_model
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.testing.dialects import Answer
from dataflow_grounding.testing.received import BadRequest, ReceivedRequest
from dataflow_grounding.testing.rectangles import rectangles_in
from dataflow_grounding.trust.probes import COLORS as PROBE_COLORS
from dataflow_grounding.trust.probes import INNER, LAYOUTS, Probe, phrases_of, probe_of

Answers = Callable[[ReceivedRequest], "Answer | str | JsonObject"]

# What answers look at; an attribute `reads` says which. The server reads no more than that.
NOTHING = "nothing"
INPUT = "input"
IMAGES = "images"
# Letters, with hyphens and apostrophes in between: "well-known", "dog's".
WORD = re.compile(r"[^\W\d_]+(?:[-'\u2019][^\W\d_]+)*")
COLORS = ("red", "blue", "green", "white", "black", "yellow", "grey", "brown")
MOST_WORDS = 8  # of a caption that become expressions
LONG_WORD = 4  # letters from which on a word is taken for a thing


class CannedAnswers:
    """The same text for every request.

    The cheapest: with `record=False` bodies are thrown away unread.

    Args:
        text: What the model says each time.

    Example:
        >>> from dataflow_grounding.testing import LoopbackServer
        >>> server = LoopbackServer(CannedAnswers('{"caption": "A cup."}'), record=False)
    """

    reads = NOTHING

    def __init__(self, text: str = '{"objects": []}') -> None:
        self.text = text

    def __call__(self, request: ReceivedRequest) -> Answer:
        """Return the text as an answer that ended by itself."""
        return Answer(self.text)


class EchoAnswers:
    """Valid answers to every task, made up from the request's input.

    The same input has the same answer. Expressions are the capitalised and the longer words of a
    caption. Every phrase gets one box inside the image, whose size the request states; the
    rectangles of probe pictures get the right ones. Images are not looked at.

    Args:
        box_format: How the model writes boxes: a name or a family, or `auto` for that of the model
            that is asked for, pixels where its name tells none.

    Raises:
        BadRequest: When asked for a task that it doesn't know.

    Example:
        >>> path = "/v1/chat/completions"
        >>> request = ReceivedRequest(0, 0.0, path, {}, input={"task": "image_caption"})
        >>> EchoAnswers()(request)
        {'caption': 'A red scene.'}
    """

    reads = INPUT

    def __init__(self, box_format: str = "xyxy_px") -> None:
        self.box_format = box_format

    def __call__(self, request: ReceivedRequest) -> JsonObject | str:
        """Return a made-up answer to the request's task. Raises BadRequest for an unknown task."""
        task_input = request.input
        regions = task_input.get("regions", [])
        match request.task:
            case "expression_extraction":
                return extracted(task_input["caption"])
            case "phrase_grounding" | "caption_grounding":
                return self._grounded(request)
            case "region_expression":
                return {"regions": [described(region) for region in regions]}
            case "image_caption":
                return {"caption": f"A {color_of(request.system)} scene."}
            case "grounding_expression":
                return {"expressions": [named(region) for region in regions]}
            case "double_check":
                return {"checks": [agreed(expression) for expression in task_input["expressions"]]}
            case "region_caption":
                return {"captions": [captioned(region) for region in regions]}
            case "box_check":
                return judgement_of_boxes(task_input)
            case "missing_boxes":
                return {"objects": []}
            case "negative_phrases":
                return in_other_colors(task_input)
            case "prompted_vqa":
                return {"answer": f"A {color_of(str(task_input['prompt']))} scene."}
            case "reply_form":
                return in_form_asked_for(request.settings)
            case _:
                raise unknown_task(request)

    def _format_of(self, request: ReceivedRequest) -> BoxFormat:
        if self.box_format == "auto":
            known = format_of_model(request.model)
            if known is not None and known.verified and known.boxes:
                return known
            return find_box_format("xyxy_px", request.model)
        return find_box_format(self.box_format, request.model)

    def _grounded(self, request: ReceivedRequest) -> JsonObject:
        """`{"objects": [{"id": 1, "label": "a cup", "bbox_2d": […], "score": 0.9}]}`."""
        if request.task == "phrase_grounding":
            probe_answer = answer_to_probe(request, self._format_of(request))
            if probe_answer is not None:
                return probe_answer
            objects = self._objects(request, request.input["phrases"])
            return {"objects": objects, "not_found": []}
        # For a caption, phrases are found first, and counted from 1. Its objects have no label.
        reply = extracted(request.input["caption"])
        phrases = []
        for number, expression in enumerate(reply["expressions"], 1):
            phrases.append({"id": number, "text": expression["text"]})
        objects = []
        for thing in self._objects(request, phrases):
            objects.append({name: value for name, value in thing.items() if name != "label"})
        return {**reply, "objects": objects}

    def _objects(self, request: ReceivedRequest, phrases: Sequence[JsonObject]) -> list[JsonObject]:
        """A made-up box for each phrase, in the format of this model's boxes."""
        box_format = self._format_of(request)
        size = (int(request.input["image"]["width"]), int(request.input["image"]["height"]))
        objects: list[JsonObject] = []
        for phrase in phrases:
            seed = f"{size}/{phrase['id']}/{phrase['text']}"
            width, height = size
            # The upper left corner is in the upper left quarter, the lower right one anywhere below
            # and to the right of it.
            x1 = number_from(seed, 0) % max(1, width // 2)
            y1 = number_from(seed, 1) % max(1, height // 2)
            x2 = x1 + 1 + number_from(seed, 2) % (width - x1)
            y2 = y1 + 1 + number_from(seed, 3) % (height - y1)
            numbers = box_format.from_pixels((x1, y1, x2, y2), original=size, sent=size)
            objects.append(
                {"id": phrase["id"], "label": phrase["text"], box_format.key: numbers, "score": 0.9}
            )
        return objects


def unknown_task(request: ReceivedRequest) -> BadRequest:
    """Return the 400 for a request whose `<input>` names no task of this server."""
    if not request.task:
        return BadRequest('no task is named: the text part must hold <input>{"task": …}</input>')
    return BadRequest(
        f"this testing server knows the shipped tasks only, not {request.task!r}: start it with"
        " --text and the reply to yours, in a script with CannedAnswers or a function"
    )


def number_from(seed: str, part: int) -> int:
    """Return a number from 0 to 65,535 that depends on the seed and `part` (0 to 15) only."""
    digest = hashlib.sha256(seed.encode()).digest()
    return int.from_bytes(digest[2 * part : 2 * part + 2], "big")


def color_of(seed: str) -> str:
    """Return a colour that depends on the seed only."""
    return COLORS[number_from(seed, 0) % len(COLORS)]


def extracted(caption: Any) -> JsonObject:
    """Return the caption in one line, with its first capitalised or longer words as expressions."""
    cleaned_caption = " ".join(str(caption).split())
    words = WORD.findall(cleaned_caption)
    named_things = [word for word in words if word[0].isupper() or len(word) >= LONG_WORD]
    if not named_things:
        named_things = words[:1]
    expressions = [{"text": word, "noun_chunk": word} for word in named_things[:MOST_WORDS]]
    return {"cleaned_caption": cleaned_caption, "expressions": expressions}


def named(region: JsonObject) -> JsonObject:
    """Return an expression that means the region: its description, made up where it has none."""
    return {
        "text": region.get("description") or described(region)["description"],
        "region_ids": [region["id"]],
    }


def described(region: JsonObject) -> JsonObject:
    """Return a region's id, its type, "object" without one, a made-up colour and a description."""
    type_name = str(region.get("type") or "object")
    color = color_of(json.dumps(region, sort_keys=True))
    return {
        "id": region["id"],
        "type": type_name,
        "color": color,
        "description": f"the {color} {type_name}",
    }


def captioned(region: JsonObject) -> JsonObject:
    """Return a caption of the region: its made-up description."""
    return {"id": region["id"], "text": described(region)["description"]}


def agreed(expression: JsonObject) -> JsonObject:
    """Return a check that finds the expression right as it is."""
    return {
        "matches": True,
        "id": expression["id"],
        "region_ids": expression["region_ids"],
        "text": expression["text"],
    }


def judgement_of_boxes(task_input: JsonObject) -> JsonObject:
    """Return a judge's answer that finds all boxes right."""
    presences = []
    for phrase in task_input["phrases"]:
        count = sum(box["text"] == phrase["text"] for box in task_input["boxes"])
        presences.append({"id": phrase["id"], "there": count > 0, "count": count})
    verdicts = []
    for box in task_input["boxes"]:
        verdicts.append({"id": box["id"], "verdict": "right"})
    return {"phrases": presences, "boxes": verdicts}


def in_form_asked_for(settings: JsonObject) -> JsonObject | str:
    """Return an answer to the `doctor`'s question for a colour, in the form that its settings ask
    for: by a schema, as any object, or as a text. It finds out so whether a schema is kept.
    """
    response_format = settings.get("response_format") or {}
    json_schema = response_format.get("json_schema") or {}
    schema = json_schema.get("schema") or settings.get("responseSchema")
    if schema:  # each property of it is an `enum` of one value
        return {name: part["enum"][0] for name, part in schema["properties"].items()}
    any_color = COLORS[1]
    if response_format.get("type") == "json_object":
        return {"color": any_color}
    return any_color


def in_other_colors(task_input: JsonObject) -> JsonObject:
    """Return an answer with as many `negatives` as are asked for: the phrases in other colours."""
    phrases = task_input["phrases"]
    negatives: list[JsonObject] = []
    if not phrases:
        return {"negatives": negatives}
    for number in range(task_input["count"]):
        # in turn 0 each phrase once, in turn 1 each once more, in another colour, and so on
        turn, index = divmod(number, len(phrases))
        phrase = phrases[index]
        text = in_other_color(phrase["text"], turn)
        negatives.append({"id": phrase["id"], "change": "attribute", "text": text})
    return {"negatives": negatives}


def in_other_color(text: str, turn: int) -> str:
    """Return a phrase with another colour before its last word: "the green cup" for "the red cup".
    Each `turn`, from 0, takes a further colour.
    """
    *before, last = text.split()
    words_without_color = [word for word in before if word not in COLORS]
    other_colors = [color for color in COLORS if color not in before]
    if not other_colors:  # it has all of them
        other_colors = list(COLORS)
    color = other_colors[turn % len(other_colors)]
    return " ".join([*words_without_color, color, last])


def probe_in(request: ReceivedRequest) -> Probe | None:
    """Return the probe picture that a request shows, with its right boxes. One on a plain
    background is recognized by its size and the order of its phrases; in a copy of a run's own
    picture the rectangles are looked for.
    """
    if not asks_for_rectangles(request):
        return None
    texts = [phrase["text"] for phrase in request.input["phrases"]]
    size = int(request.input["image"]["width"]), int(request.input["image"]["height"])
    if len(texts) == len(PROBE_COLORS):  # a picture with a plain background shows all colours
        layout = _layouts(size).get(tuple(texts))
        if layout is not None:
            return probe_of(size, layout)
    if not request.encoded_images:
        return None
    picture_asked_about = request.encoded_images[-1]  # pictures of examples come before it
    boxes = rectangles_in(picture_asked_about, texts)
    return Probe(size, boxes) if boxes else None


@lru_cache(maxsize=100)
def _layouts(size: Size) -> dict[tuple[str, ...], int]:
    """The number of each layout of a size, by the order of its phrases."""
    # A run draws its probe pictures by such numbers: from 0 on, and from INNER on where no
    # rectangle is to be at the picture's edge. Boxes aren't made here: that would take ten times
    # as long.
    inner_layouts = range(INNER, INNER + LAYOUTS)
    number_of: dict[tuple[str, ...], int] = {}
    for layout in (*range(LAYOUTS), *inner_layouts):
        # In few sizes, two layouts have their phrases in the same order: the first one is kept.
        number_of.setdefault(tuple(phrases_of(size, layout)), layout)
    return number_of


def asks_for_rectangles(request: ReceivedRequest) -> bool:
    """Return whether a request asks for boxes of rectangles alone; one without phrases counts."""
    if request.task != "phrase_grounding":
        return False
    return all(str(phrase["text"]).endswith(" rectangle") for phrase in request.input["phrases"])


def answer_to_probe(request: ReceivedRequest, box_format: BoxFormat) -> JsonObject | None:
    """Return the right answer to a probe picture, in a box format; None for other requests."""
    if not asks_for_rectangles(request):
        return None
    # If no rectangle is seen in the picture, the answer is that there is none. From boxes that are
    # made up, the run would learn a wrong format.
    probe = probe_in(request)
    if probe is None:
        return {"objects": []}
    objects: list[JsonObject] = []
    for phrase in request.input["phrases"]:
        bbox = probe.boxes.get(phrase["text"])
        if bbox is None:
            continue
        numbers = box_format.from_pixels(bbox, original=probe.size)
        objects.append({"id": phrase["id"], "label": phrase["text"], box_format.key: numbers})
    return {"objects": objects}
