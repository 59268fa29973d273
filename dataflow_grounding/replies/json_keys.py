"""The words that models use as keys for a box, its label, its score and so on."""

from __future__ import annotations

import re
from functools import lru_cache

from dataflow_grounding.frames import Order

# Keys are compared by `plain_key`.
# fmt: off
BOX_KEYS = frozenset([
    "bbox2d", "box2d", "bbox", "box", "boundingbox", "bboxes", "boxes", "boundingboxes", "bboxes2d", "boxes2d", "bboxlist",
    "boxlist", "bboxpixels", "boxpixels", "coordinates", "coords", "coordinate", "location", "position",
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
    "label", "name", "nameen", "phrase", "text", "textcontent", "object", "objectname", "classname", "class", "category",
    "categoryname", "expression", "caption", "description", "entity", "mention", "target", "query", "item", "title", "names",
    "tag", "type", "desc", "element",
)
LABEL_LIST_KEYS = ("labels", "phrases", "names", "classes", "texts", "bboxeslabels")
ID_KEYS = ("id", "phraseid", "expressionid")
SCORE_KEYS = ("score", "bboxscore", "confidence", "confidencescore", "conf", "probability", "prob", "certainty")
FOUND_KEYS = frozenset(["found", "present", "exists", "visible", "detected", "isvisible", "ispresent", "match", "ismatch",
              "matched", "correct", "iscorrect", "valid", "isvalid"])  # fmt: skip
# Keys that hold detections and name nothing; any other key that does is taken as their label.
WRAPPERS = frozenset([
    "objects", "detections", "results", "result", "annotations", "items", "data", "instances", "predictions", "output",
    "outputs", "answer", "response", "grounding", "groundings", "grounded", "regions", "detectedobjects", "arguments",
    "parameters", "value", "list", "elements", "entities", "references", "phrases", "found", "matches", "json",
    "children", "function", "toolcalls", "final", "content", "message", "solution", "verdict",
])
OUTLINE_KEYS = frozenset([
    "polygon", "polygons", "poly", "polys", "segmentation", "segmentations", "mask", "masks", "contour", "contours", "outline",
    "vertices", "corners",
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


@lru_cache(maxsize=1024)
def box_names(plain: str) -> tuple[str, str, str]:
    """Return a key as it is, without a number behind it, and without words such as "final"."""
    return plain, plain.rstrip("0123456789"), REFINED.sub("", plain)


@lru_cache(maxsize=1024)
def plain_key(key: str) -> str:
    """Return a key as keys are compared: lower case, letters and digits only."""
    return re.sub(r"[\W_]", "", key.lower())
