"""Boxes and points written as plain text, without JSON or tokens: `red mug: 10, 20, 30, 40`."""

from __future__ import annotations

import re

from ..coordinates import Order
from .marks import Mark, Marks, Said

_NUMBER = r"[-+]?(?:\d{1,9}(?:\.\d{1,20})?|\.\d{1,20})"
_SEPARATOR = r"\s{0,3}[,;_|/\s]\s{0,3}"
_FOUR = re.compile(
    rf"(?<![\d.])({_NUMBER}){_SEPARATOR}({_NUMBER}){_SEPARATOR}({_NUMBER}){_SEPARATOR}({_NUMBER})[\s.;|]*$"
)
_NAMED = re.compile(rf"\b([A-Za-z][A-Za-z_]{{0,11}}\d?)\s{{0,3}}[=:]\s{{0,3}}({_NUMBER})(?![\d.]*\w)")
_NAMES: dict[tuple[str, ...], Order] = {
    ("xmin", "ymin", "xmax", "ymax"): "xyxy",
    ("x1", "y1", "x2", "y2"): "xyxy",
    ("x0", "y0", "x1", "y1"): "xyxy",
    ("left", "top", "right", "bottom"): "xyxy",
    ("x", "y", "width", "height"): "xywh",
    ("x", "y", "w", "h"): "xywh",
}
_TALK = re.compile(r"\b(?:box|boxes|bbox|coordinates?|located|answer|json|is|are)\b", re.IGNORECASE)
_MARKUP = " \t\r*\"'`“”|,;.:：=→–—->([{"


def read_plain(text: str, marks: Marks) -> None:
    """Add to `marks` the box or point of each line that ends with four numbers or names its coordinates."""
    for line in text.splitlines():
        named = {key.lower().replace("_", ""): float(value) for key, value in _NAMED.findall(line[:2000])}
        four = _FOUR.search(line[-200:])
        names = next((names for names in _NAMES if all(name in named for name in names)), None)
        if names is not None:
            first = _NAMED.search(line)
            label = label_before(line[: first.start()]) if first else None
            said = Said((label,) if label else ())
            marks.boxes.append(Mark("box", tuple(named[name] for name in names), said, _NAMES[names]))
        elif four is not None:
            label = label_before(line[: len(line) - len(line[-200:]) + four.start()])
            marks.add(list(four.groups()), Said((label,) if label else ()))
        elif "x" in named and "y" in named:
            marks.points.append(Mark("point", (named["x"], named["y"]), order="xyxy"))


def label_before(text: str) -> str | None:
    """Return the label that `text` ends with, as before the brackets of `car[[1, 2, 3, 4]]` and `- red mug: [1, 2, 3, 4]`.

    None for talk: more than eight words, a word such as "box" or "is", or nothing that ties the label to what follows.
    """
    line = text[-200:].rpartition("\n")[2]
    if not line or (line[-1].isspace() and line.rstrip()[-1:] not in set(_MARKUP)):
        return None
    label = re.sub(r"^\d{1,3}[.)]\s+", "", line.strip(_MARKUP + "-•#")).strip(_MARKUP + ")]}")
    if not re.search(r"[^\W\d]", label) or re.search(r"[=({]", label) or len(label.split()) > 8 or _TALK.search(label):
        return None
    return label
