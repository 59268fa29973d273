"""Words that models use: keys for a box, its label or score; the order and unit that a reply states for its numbers."""

import re
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from dataflow_grounding.errors import UnreadableReply
from dataflow_grounding.frames import Order

# What replies say in words: patterns of sentences, and lists of words.
WORDINGS: dict[str, Any] = yaml.load(
    resources.files(__package__).joinpath("wordings.yaml").read_text(encoding="utf-8"),
    Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),
)
# Keys are compared by `plain_key`.
# fmt: off
BOX_KEYS = frozenset([
    "bbox2d", "box2d", "bbox", "box", "boundingbox", "bboxes", "boxes", "boundingboxes", "bboxes2d", "boxes2d",
    "bboxlist", "boxlist", "bboxpixels", "boxpixels", "coordinates", "coords", "coordinate", "location", "position",
    "region", "rect", "rectangle", "startbox",
])
# Box keys whose name settles the order, whatever the format says.
_ORDERS: tuple[tuple[str, Order], ...] = (
    ("xyxy", "xyxy"), ("ltrb", "xyxy"), ("yxyx", "yxyx"), ("xywh", "xywh"), ("ltwh", "xywh"), ("cxcywh", "cxcywh"),
)
ORDER_KEYS = {prefix + name: order for name, order in _ORDERS for prefix in ("", "bbox", "box")}
QUAD_KEYS = frozenset(["quad", "quads", "quadbox", "quadboxes", "quad2d"])
POINT_KEYS = frozenset(["point", "points", "point2d", "points2d", "keypoint", "click", "center", "centre"])
# In order of preference.
LABEL_KEYS = (
    "label", "name", "nameen", "phrase", "text", "textcontent", "object", "objectname", "classname", "class",
    "category", "categoryname", "expression", "caption", "description", "entity", "mention", "target", "query", "item",
    "title", "names", "tag", "type", "desc", "element",
)
LABEL_LIST_KEYS = ("labels", "phrases", "names", "classes", "texts", "bboxeslabels")
ID_KEYS = ("id", "phraseid", "expressionid")
EVIDENCE = (None, "seen", "inferred", "region")
SCORE_KEYS = ("score", "bboxscore", "confidence", "confidencescore", "conf", "probability", "prob", "certainty")
FOUND_KEYS = frozenset(["found", "present", "exists", "visible", "detected", "isvisible", "ispresent", "match",
              "ismatch", "matched", "correct", "iscorrect", "valid", "isvalid"])  # fmt: skip
# Keys that hold detections and name nothing; any other key that does is taken as their label.
WRAPPERS = frozenset([
    "objects", "detections", "results", "result", "annotations", "items", "data", "instances", "predictions", "output",
    "outputs", "answer", "response", "grounding", "groundings", "grounded", "regions", "detectedobjects", "arguments",
    "parameters", "value", "list", "elements", "entities", "references", "phrases", "found", "matches", "json",
    "children", "function", "toolcalls", "final", "content", "message", "solution", "verdict",
])
OUTLINE_KEYS = frozenset([
    "polygon", "polygons", "poly", "polys", "segmentation", "segmentations", "mask", "masks", "contour", "contours",
    "outline", "vertices", "corners",
])
# What a model considered, and what an endpoint complains of: nothing there is an answer.
THINKING_KEYS = frozenset([
    "thinking", "think", "thought", "thoughts", "reasoning", "reasoningcontent", "analysis", "scratchpad", "reflection",
    "rationale", "cot", "chainofthought", "draft", "drafts", "considered", "rejected", "initialguess", "firstguess",
])
FAULT_KEYS = frozenset(["error", "errors", "detail", "code", "exception", "fault"])
# Before or behind a box key: its box comes instead of the others in its object.
REFINED = re.compile(r"refined|final|corrected|adjusted|revised|improved")
# Coordinates that have a key each, and the order that these keys settle.
CORNERS: tuple[tuple[tuple[str, str, str, str], Order], ...] = (
    (("xmin", "ymin", "xmax", "ymax"), "xyxy"),
    (("minx", "miny", "maxx", "maxy"), "xyxy"),
    (("x1", "y1", "x2", "y2"), "xyxy"),
    (("x0", "y0", "x1", "y1"), "xyxy"),
    (("left", "top", "right", "bottom"), "xyxy"),
    (("xtl", "ytl", "xbr", "ybr"), "xyxy"),
    (("startx", "starty", "endx", "endy"), "xyxy"),
    (("topleftx", "toplefty", "bottomrightx", "bottomrighty"), "xyxy"),
    (("xcenter", "ycenter", "width", "height"), "cxcywh"),
    (("centerx", "centery", "width", "height"), "cxcywh"),
    (("cx", "cy", "width", "height"), "cxcywh"),
    (("cx", "cy", "w", "h"), "cxcywh"),
    (("x", "y", "width", "height"), "xywh"),
    (("x", "y", "w", "h"), "xywh"),
    (("left", "top", "width", "height"), "xywh"),
)
CORNER_PAIRS = (("topleft", "bottomright"), ("lefttop", "rightbottom"), ("min", "max"), ("start", "end"))
IMAGE_SIZE_KEYS = frozenset(["image", "imagesize", "imageshape", "originalsize", "resolution"])
# Keys that are read apart, or not at all.
NO_CHILDREN = POINT_KEYS | OUTLINE_KEYS | THINKING_KEYS | IMAGE_SIZE_KEYS | frozenset([
    "statuses", "size", "shape", "scores", "confidences", "ids", "phraseids", "color", "colors", "colour", "colours",
]).union(*CORNER_PAIRS)
# fmt: on

_NAME = r"(?:[xy]_?(?:min|max|\d|center)?|(?:min|max|center|c)_?[xy]|left|top|right|bottom|w(?:idth)?|h(?:eight)?)"
LEGEND = re.compile(
    rf"[\[(]?(?<![\w.])({_NAME}(?:(?:\s*[,/;|]\s*|\s+){_NAME}){{3}})(?!\w|\s*[=:]\s*[\d.])[\])]?"
    r"|\b(?:bbox_|box_)?(xyxy|yxyx|xywh|cxcywh|ltrb|ltwh|tlbr|tlwh)\b",
    re.IGNORECASE,
)
_WORD = r"(?:(px|pixels?)|%|per ?cent(?:ages?)?)(?!\w)"
_UNIT = re.compile(rf"(?:absolute\s+)?{_WORD}(?:[\s_-]+coord\w*)?", re.IGNORECASE)
_IN_UNIT = re.compile(
    rf"(?:\b(?:in|as|are|absolute)\s+(?:[a-z]+\s+)?|[(\[]\s*){_WORD}|\b(pixel) coordinates", re.IGNORECASE
)


@lru_cache(maxsize=1024)
def box_names(plain: str) -> tuple[str, str, str]:
    """Return a key as it is, without a number behind it, and without words such as "final"."""
    return plain, plain.rstrip("0123456789"), REFINED.sub("", plain)


@lru_cache(maxsize=1024)
def plain_key(key: str) -> str:
    """Return a key as keys are compared: lower case, letters and digits only."""
    return re.sub(r"[\W_]", "", key.lower())


def stated_order(text: str) -> Order | None:
    """Return the order of the numbers that a text states, or None. Raises UnreadableReply for several or others."""
    stated = {_order(match[1], match[2]) for match in LEGEND.finditer(text)}
    if len(stated) > 1 or None in stated:
        raise UnreadableReply("the reply states an order of coordinates that is not clear")
    return next(iter(stated), None)


def stated_unit(text: str, *, alone: bool = False) -> str | None:
    """Return the unit that a text states for boxes, "px" or "%"; None for none. `alone`: it says nothing else."""
    match = _UNIT.fullmatch(text.strip()) if alone else _IN_UNIT.search(text)
    return None if match is None else "px" if any(match.groups()) else "%"


def _order(names: str | None, word: str | None) -> Order | None:
    if names is None:
        return ORDER_KEYS.get((word or "").lower())
    four = [plain_key(name) for name in re.findall(_NAME, names, re.IGNORECASE)]
    for corners, order in CORNERS:
        if four == list(corners):
            return order
        if order == "xyxy" and four == [corners[i] for i in (1, 0, 3, 2)]:
            return "yxyx"
    return None
