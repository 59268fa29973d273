"""One record as HTML: its picture with boxes, its caption in the boxes' colours, and the list of its expressions."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dataflow_grounding.drawing import PALETTE
from dataflow_grounding.errors import BrokenRow, ImageMissing, RecordError
from dataflow_grounding.image_files import decode
from dataflow_grounding.records import STATUSES, Record, is_number, read_expressions

FindImage = Callable[[Mapping[str, Any]], "str | None"]

_MAX_SIDE = 640  # of an embedded picture, in pixels
_MAX_HEIGHT = 512  # at which it is shown
_MIN_SIDE = 320  # smaller ones are shown enlarged, or their boxes could not be told apart
_MAX_LANES = 4  # phrases over the same text whose lines are told apart
STATUS_MEANING = {
    "grounded": "found in the image",
    "none": "looked for, nothing there",
    "ambiguous": "several things fit equally",
    "unsupported": "not a thing that this grounder can look for",
    "pending": "not looked for yet",
}
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Expression:
    """An expression as the page shows it.

    `index` is its place among the record's expressions, from 0; `color` is that in the palette, None without boxes;
    `span` is `[start, end)` in the caption, in code points.
    """

    index: int
    text: str
    status: str
    color: int | None
    instances: Sequence[Mapping[str, Any]]
    span: tuple[int, int] | None
    verified: Any
    reason: str

    @property
    def look(self) -> str:
        """The classes that colour it."""
        return f"grey s-{self.status}" if self.color is None else f"c{self.color}"

    @property
    def tooltip(self) -> str:
        """What there is to know of it, in lines."""
        if self.color is None:
            return f"{self.text}: {self.status} ({STATUS_MEANING[self.status]})"
        return "\n".join([self.text, *(_describe(instance) for instance in self.instances)])


def read_record(record: Mapping[str, Any]) -> tuple[list[Expression], str]:
    """The record's expressions, or its region captions, and what is wrong with them if they can't be read."""
    given = record.get("expressions")
    given = _region_texts(record) if given is None else given
    if given is None:
        return [], ""
    try:
        rows = read_expressions(Record({**record, "expressions": given}), "expressions")
    except BrokenRow as error:
        return [], str(error)
    caption, found, expressions = _caption(record), 0, []
    for index, row in enumerate(rows):
        instances = row["instances"]
        status = row.get("status")
        if status not in STATUSES:
            status = "grounded" if instances else "pending"
        span, verification = row.get("char_span"), row.get("verification")
        expressions.append(
            Expression(
                index,
                row["text"],
                status,
                found % len(PALETTE) if instances else None,
                instances,
                _span(span, len(caption)),
                row.get("verified"),
                str(verification.get("reason") or "") if isinstance(verification, Mapping) else "",
            )
        )
        found += bool(instances)
    return expressions, ""


def _region_texts(record: Mapping[str, Any]) -> list[Any] | None:
    """Region captions as expressions, each with its own box."""
    given = record.get("region_captions")
    if not isinstance(given, list):
        return None
    return [
        {"text": item.get("text"), "instances": [{"bbox": item.get("bbox")}]} if isinstance(item, Mapping) else item
        for item in given
    ]


def _span(value: Any, length: int) -> tuple[int, int] | None:
    if not (isinstance(value, (list, tuple)) and len(value) == 2 and all(type(n) is int for n in value)):
        return None
    return (value[0], value[1]) if 0 <= value[0] < value[1] <= length else None


def _caption(record: Mapping[str, Any]) -> str:
    for key in ("cleaned_caption", "caption"):
        if isinstance(record.get(key), str):
            return str(record[key])
    return ""


def record_html(
    record: Mapping[str, Any], expressions: Sequence[Expression], problem: str, find_image: FindImage
) -> str:
    """The record as an `article`; `problem` says why its expressions can't be read, if so."""
    picture, size, missing = _picture(record, find_image)
    if size:
        picture = f'<div class="picture">{picture}{_overlay_html(expressions, size)}</div>'
    path = record.get("image_path") or record.get("image") or ""
    facts = [page_text(path)] if path else []
    facts += [f"{size[0]:,} × {size[1]:,} px"] if size else []
    caption = f'<p class="caption" dir="auto">{_caption_html(_caption(record), expressions)}</p>'
    if not _caption(record):
        caption = '<p class="caption absent">No caption</p>'
    classes = " ".join(["record", *(f"has-{status}" for status in sorted({e.status for e in expressions}))])
    return (
        f'<article class="{classes}">\n<figure>{picture}{_note_html(missing)}</figure>\n'
        f'<div class="text"><h2>{page_text(record.get("image_id") or path or "no id")}</h2>\n'
        f'<p class="facts">{" · ".join(facts)}</p>\n{caption}\n{_note_html(problem)}'
        f"{'' if problem else _list_html(expressions)}</div>\n</article>\n"
    )


def _note_html(note: str) -> str:
    return f'<p class="missing">{page_text(note)}</p>' if note else ""


def _picture(record: Mapping[str, Any], find_image: FindImage) -> tuple[str, tuple[int, int] | None, str]:
    """HTML of the picture or of an empty frame, its true size in pixels if known, and what is wrong if something is."""
    try:
        path = find_image(record)
        if path is None:
            raise ImageMissing("")
        image = decode(path)
    except RecordError as error:
        missing = "The image file is not there." if isinstance(error, ImageMissing) else "The image file can't be read."
        width, height = record.get("width"), record.get("height")
        if not (type(width) is int and type(height) is int and 0 < width < 10**6 and 0 < height < 10**6):
            return "", None, missing
        shown = _fit(width, height)
        frame = f'<svg class="frame" viewBox="0 0 {width} {height}" width="{shown[0]}" height="{shown[1]}"></svg>'
        return frame, (width, height), missing
    size = image.size
    image.thumbnail((_MAX_SIDE, _MAX_SIDE), reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=82, optimize=True)
    shown = _fit(*size)
    source = base64.b64encode(out.getvalue()).decode()
    return (
        f'<img alt="" decoding="async" width="{shown[0]}" height="{shown[1]}" src="data:image/jpeg;base64,{source}">',
        size,
        "",
    )


def _fit(width: int, height: int) -> tuple[int, int]:
    """The size at which a picture is shown where there is room."""
    scale = min(max(_MIN_SIDE / max(width, height), 1), _MAX_SIDE / width, _MAX_HEIGHT / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _overlay_html(expressions: Sequence[Expression], size: tuple[int, int]) -> str:
    """The boxes as SVG in shares of the picture, so that they stay put at any width; small ones on top."""
    boxes = [(i["bbox"], i, e) for e in expressions if e.color is not None for i in e.instances]
    boxes.sort(key=lambda box: -abs((box[0][2] - box[0][0]) * (box[0][3] - box[0][1])))
    parts: list[str] = []
    tags: list[tuple[float, float]] = []
    for (x1, y1, x2, y2), instance, expression in boxes:
        x, y = 100 * x1 / size[0], 100 * y1 / size[1]
        # Boxes that begin in the same corner get their numbers side by side.
        beside = sum(abs(x - other[0]) < 8 and abs(y - other[1]) < 8 for other in tags)
        tags.append((x, y))
        number = str(expression.index + 1)
        wide = 10 + 7 * len(number)
        up = 0 if y < 6 else -16
        rect = f'x="{x:.3f}%" y="{y:.3f}%" width="{max(0, 100 * x2 / size[0] - x):.3f}%" '
        rect += f'height="{max(0, 100 * y2 / size[1] - y):.3f}%"'
        dashed = " dashed" if instance.get("evidence") == "region" else ""
        parts.append(
            f'<g class="box link e{expression.index} c{expression.color}{dashed}">'
            f"<title>{page_text(expression.text)}\n{page_text(_describe(instance))}</title>"
            f'<rect class="halo" {rect}/><rect class="line" {rect}/>'
            f'<svg class="tag" x="{x:.3f}%" y="{y:.3f}%" overflow="visible">'
            f'<rect x="{beside * (wide + 1)}" y="{up}" width="{wide}" height="16"/>'
            f'<text x="{beside * (wide + 1) + wide / 2}" y="{up + 12}">{number}</text></svg></g>'
        )
    return f'<svg class="overlay">{"".join(parts)}</svg>'


def _describe(instance: Mapping[str, Any]) -> str:
    """Score, evidence and bbox of an instance in a line."""
    parts = [f"score {instance['score']:.2f}"] if is_number(instance.get("score")) else ["no score"]
    parts += [f"evidence: {instance['evidence']}"] if instance.get("evidence") else []
    return " · ".join([*parts, "[" + ", ".join(f"{n:g}" for n in instance["bbox"]) + "]"])


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
    """How far below the text each phrase's line runs: further than those of the phrases it holds."""
    lanes: list[int] = []
    for k, (start, end, _) in enumerate(spans):
        lanes.append(max((lanes[j] + 1 for j in range(k) if spans[j][0] < end and start < spans[j][1]), default=0))
    return lanes


def _list_html(expressions: Sequence[Expression]) -> str:
    rows = []
    for e in expressions:
        details = [f"{len(e.instances)} box{'es' * (len(e.instances) > 1)}"] if e.instances else []
        details += [] if e.instances and e.status == "grounded" else [e.status]
        scores = [f"{i['score']:.2f}" for i in e.instances if is_number(i.get("score"))]
        details += [", ".join(scores[:4]) + (" …" if len(scores) > 4 else "")] if scores else []
        details += sorted({str(i["evidence"]) for i in e.instances if i.get("evidence")})
        detail = page_text(" · ".join(details))
        if e.verified is True:
            detail += " · verified"
        elif e.verified is False:
            detail += f' · <span class="contradicted" title="{page_text(e.reason)}">not verified</span>'
        rows.append(
            f'<li class="link e{e.index} {e.look}" tabindex="0" title="{page_text(e.tooltip)}">'
            f'<span class="badge">{e.index + 1}</span><span class="phrase" dir="auto">{page_text(e.text)}</span>'
            f'<span class="detail">{detail}</span></li>'
        )
    return f'<ul class="expressions">{"".join(rows)}</ul>' if rows else '<p class="facts">No expressions</p>'


def page_text(value: Any) -> str:
    """`value` as text of the page, also inside attributes. Characters that turn the reading direction are spelt out."""
    text = _CONTROLS.sub("\ufffd", str(value))
    text = _BIDI_CONTROLS.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)
    return html.escape(text, quote=True)
