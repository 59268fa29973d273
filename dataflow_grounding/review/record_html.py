"""One record as HTML: its picture with boxes, its caption in the boxes' colours, and the list of its expressions."""

import html
import io
import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dataflow_grounding.elsewhere import is_elsewhere
from dataflow_grounding.errors import ImageMissing, RecordError
from dataflow_grounding.image_files import decode
from dataflow_grounding.images import url_of
from dataflow_grounding.records import is_number
from dataflow_grounding.review.record_view import Expression, View, describe
from dataflow_grounding.secrets import blotted_message

FindImage = Callable[[Mapping[str, Any]], "str | None"]

_MAX_SIDE = 640  # of an embedded picture, in pixels
_MAX_HEIGHT = 512  # at which it is shown
_MIN_SIDE = 320  # smaller ones are shown enlarged, or their boxes could not be told apart
_MAX_LANES = 4  # phrases over the same text whose lines are told apart
_SHOWN_BY_BROWSERS = (".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_DOUBTFUL = "Doubtful: much of a reply was dropped, moved or missing, or several phrases have the whole picture."
_SUSPECT = "Suspect: the boxes look as if they were in another format than the one they are read in."
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def record_html(view: View, find_image: FindImage, folder: str) -> str:
    """The record as an `article`; its picture opens in full size, by a link that holds for a page in `folder`."""
    picture, size, missing = _picture(view, find_image, folder)
    path = blotted_message(str(view.record.get("image_path") or view.record.get("image") or ""))
    facts = [f"<bdi>{page_text(path)}</bdi>"] if path else []
    facts += [f"{size[0]:,} × {size[1]:,} px"] if size else []
    caption = f'<p class="caption" dir="auto">{_caption_html(view.caption, view.expressions)}</p>\n'
    if not view.caption:
        caption = '<p class="caption absent">No caption</p>\n' if view.kind == "expressions" else ""
    marks = view.marks
    doubts = _note_html(_SUSPECT * ("suspect" in marks)) + _note_html(_DOUBTFUL * (view.record.get("doubtful") is True))
    classes = " ".join(["record", *(f"has-{mark}" for mark in sorted(marks))])
    return (
        f'<article class="{classes}">\n<figure>{picture}{_note_html(missing)}</figure>\n<div class="text">'
        f'<h2 dir="auto">{page_text(view.record.get("image_id") or path or "no id")}</h2>\n'
        f'<p class="facts">{" · ".join(facts)}</p>\n{doubts}{caption}'
        f"{_note_html(view.problem)}{_list_html(view)}</div>\n</article>\n"
    )


def _note_html(note: str) -> str:
    return f'<p class="missing">{page_text(note)}</p>' if note else ""


def _picture(view: View, find_image: FindImage, folder: str) -> tuple[str, tuple[int, int] | None, str]:
    """HTML of the picture or of an empty frame, its true size in pixels if known, and what is wrong if something is."""
    try:
        path = find_image(view.record)
        if path is None:
            raise ImageMissing("")
        image = decode(path)
    except RecordError as error:
        missing = "The image file is not there." if isinstance(error, ImageMissing) else "The image file can't be read."
        width, height = view.record.get("width"), view.record.get("height")
        if not (type(width) is int and type(height) is int and 0 < width < 10**6 and 0 < height < 10**6):
            return "", None, missing
        frame = f'<svg class="frame" viewBox="0 0 {width} {height}" {_fit(width, height)}></svg>'
        overlay = _overlay_html(view.expressions, (width, height))
        return f'<div class="picture">{frame}{overlay}</div>', (width, height), missing
    size = image.size
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), reducing_gap=2.0)
    image.save(out := io.BytesIO(), "JPEG", quality=82, optimize=True)
    source = url_of(out.getvalue(), "image/jpeg").decode()
    shown = f'<img alt="" decoding="async" {_fit(*size)} src="{source}">{_overlay_html(view.expressions, size)}'
    if link := _link(path, folder):
        label = page_text(f"{os.path.basename(path)} in full size")
        opens = f'href="{link}" target="_blank" rel="noopener" aria-label="{label}"'
        return f'<a class="picture" {opens}>{shown}</a>', size, ""
    return f'<div class="picture">{shown}</div>', size, ""


def _link(path: str, folder: str) -> str:
    """The address of a picture for a page in `folder`; empty for no picture.

    It is relative where both are in a folder that may be moved as a whole: the page's, its parent, or that one's.
    """
    if is_elsewhere(path) or not path.lower().endswith(_SHOWN_BY_BROWSERS):
        return ""  # under another name a browser could run what is in it
    path, project = os.path.abspath(path), os.path.dirname(os.path.dirname(folder))
    within = [place for place in (folder, os.path.dirname(folder), project) if os.path.dirname(place) != place]
    if any(path.startswith(os.path.join(place, "")) for place in within):
        return quote(os.fsencode(os.path.relpath(path, folder)))
    return Path(path).as_uri()


def _fit(width: int, height: int) -> str:
    """The attributes of the size at which a picture is shown where there is room."""
    scale = min(max(_MIN_SIDE / max(width, height), 1), _MAX_SIDE / width, _MAX_HEIGHT / height)
    return f'width="{max(1, round(width * scale))}" height="{max(1, round(height * scale))}"'


def _overlay_html(expressions: Sequence[Expression], size: tuple[int, int]) -> str:
    """The boxes as SVG in shares of the picture, so that they stay put at any width; small ones on top."""
    boxes = [(i["bbox"], i, e) for e in expressions if e.color is not None for i in e.instances]
    boxes.sort(key=lambda box: -abs((box[0][2] - box[0][0]) * (box[0][3] - box[0][1])))
    parts: list[str] = []
    tags: list[tuple[float, float]] = []
    for (x1, y1, x2, y2), instance, expression in boxes:
        x, y = 100 * x1 / size[0], 100 * y1 / size[1]
        tags.append((x, y))
        number, up = str(expression.index + 1), 0 if y < 6 else -16
        wide = 10 + 7 * len(number)
        # Boxes that begin in the same corner get their numbers side by side.
        left = (wide + 1) * (sum(abs(x - other[0]) < 8 and abs(y - other[1]) < 8 for other in tags) - 1)
        width, height = max(0, 100 * x2 / size[0] - x), max(0, 100 * y2 / size[1] - y)
        rect = f'x="{x:.3f}%" y="{y:.3f}%" width="{width:.3f}%" height="{height:.3f}%"'
        dashed = " dashed" if instance.get("evidence") == "region" else ""
        parts.append(
            f'<g class="box link e{expression.index} c{expression.color}{dashed}">'
            f"<title>{page_text(expression.text)}\n{page_text(describe(instance))}</title>"
            f'<rect class="halo" {rect}/><rect class="line" {rect}/>'
            f'<svg class="tag" x="{x:.3f}%" y="{y:.3f}%" overflow="visible">'
            f'<rect x="{left}" y="{up}" width="{wide}" height="16"/>'
            f'<text x="{left + wide / 2}" y="{up + 12}">{number}</text></svg></g>'
        )
    return f'<svg class="overlay">{"".join(parts)}</svg>'


def _caption_html(caption: str, expressions: Sequence[Expression]) -> str:
    """The caption cut where a phrase begins or ends, each part marked by the shortest phrase that holds it, nested."""
    spans = sorted(((*e.span, e) for e in expressions if e.span), key=lambda span: (span[1] - span[0], span[0]))
    cuts = sorted({0, len(caption), *(at for start, end, _ in spans for at in (start, end))})
    layers, parts = list(zip(_lanes(spans), spans, strict=True)), []
    for start, end in pairwise(cuts):
        around = [(lane, span) for lane, span in layers if span[0] <= start and end <= span[1]][:_MAX_LANES]
        part = page_text(caption[start:end])
        if around:
            shortest = around[0][1][2]
            part = f'<span class="link e{shortest.index}" title="{page_text(shortest.tooltip)}">{part}</span>'
        for lane, (_, after, e) in around:
            number = f' data-n="{e.index + 1}"' if after == end else ""
            part = f'<span class="mark m{e.index} {e.look} h{min(lane, _MAX_LANES - 1)}"{number}>{part}</span>'
        parts.append(part)
    return "".join(parts)


def _lanes(spans: Sequence[tuple[int, int, Expression]]) -> list[int]:
    """How far below the text each phrase's line runs: further than those of the phrases before it that it meets."""
    lanes: list[int] = []
    for start, end, _ in spans:
        met = (lane for lane, (first, last, _) in zip(lanes, spans, strict=False) if first < end and start < last)
        lanes.append(max(met, default=-1) + 1)
    return lanes


def _list_html(view: View) -> str:
    rows = []
    for e in view.expressions:
        reasons = "".join(f'<span class="reason" dir="auto">{page_text(reason)}</span>' for reason in e.reasons)
        rows.append(
            f'<li class="link e{e.index} {e.look}" tabindex="0" title="{page_text(e.tooltip)}">'
            f'<span class="badge">{e.index + 1}</span><span class="phrase" dir="auto">{page_text(e.text)}</span>'
            f'<span class="detail">{_detail_html(e) if view.kind == "expressions" else ""}</span>{reasons}</li>'
        )
    if rows:
        return f'<ul class="expressions">{"".join(rows)}</ul>'
    return '<p class="facts">No expressions</p>' if view.kind == "expressions" and not view.problem else ""


def _detail_html(e: Expression) -> str:
    """How many boxes, or why there are none; scores, evidence, and what a check said."""
    details = [f"{len(e.instances)} box{'es' * (len(e.instances) > 1)}"] if e.instances else []
    details += [] if e.instances and e.status == "grounded" else [e.status]
    scores = [f"{i['score']:.2f}" for i in e.instances if is_number(i.get("score"))]
    details += [", ".join(scores[:4]) + (" …" if len(scores) > 4 else "")] if scores else []
    details += sorted({str(i["evidence"]) for i in e.instances if i.get("evidence")})
    parts = [page_text(detail) for detail in details]
    for said, warns in (("samples disagree" * e.disputed, True), (e.check, e.check == "not verified")):
        if said:
            parts.append(f'<span class="contradicted">{said}</span>' if warns else said)
    return " · ".join(parts)


def page_text(value: Any) -> str:
    """`value` as text of the page, also inside attributes. Characters that turn the reading direction are spelt out."""
    text = _CONTROLS.sub("\ufffd", str(value))
    text = _BIDI_CONTROLS.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)
    return html.escape(text, quote=True)
