"""The page of a report: what it says without scripts, its style and its scripts, and what they may do."""

import base64
import hashlib
import html
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any

from dataflow_grounding.drawing import PALETTE, text_color
from dataflow_grounding.engine.progress import duration
from dataflow_grounding.engine.summary import WARNINGS
from dataflow_grounding.records import STATUSES, is_number
from dataflow_grounding.review.record_view import MEANING
from dataflow_grounding.review.report_files import GENERATOR, script_json
from dataflow_grounding.secrets import blotted_message
from dataflow_grounding.terminal import counted

SCRIPTS = ("record.js", "report.js")
_FIGURES = ("images", "failures", "regions", "captions", "expressions", *STATUSES)
_FIGURES_IF_ANY = ("pending", "verified", "unverified", "doubtful", "suspect", "changed")
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_BIDI_CONTROLS = re.compile("[\u202a-\u202e\u2066-\u2069]")


def page_text(value: Any) -> str:
    """`value` as text of the page, also inside attributes. Characters that turn the reading direction are spelt out."""
    text = _CONTROLS.sub("\ufffd", str(value))
    text = _BIDI_CONTROLS.sub(lambda match: f"[U+{ord(match[0]):04X}]", text)
    return html.escape(text, quote=True)


def style_sheet() -> str:
    """The style of a page with records: the file's, and the colours of the palette as `.c0` and on."""
    colors = (f".c{n} {{ --c: rgb{color}; --ink: rgb{text_color(color)}; }}\n" for n, color in enumerate(PALETTE))
    return "".join([_file("report.css"), *colors])


def door_html(
    counts: Mapping[str, int],
    kinds: Mapping[str, int],
    about: Mapping[str, Any],
    inline: Iterable[str],
    *,
    title: str,
    summary: Mapping[str, Any],
    plots: Sequence[str] = (),
) -> Iterator[str]:
    """The parts of the page.

    Args:
        counts, kinds: The figures by name, and how many failures there are of each kind.
        about: What the scripts need to begin.
        inline: Data that are part of the page, as HTML.
        title: The heading.
        summary: Shown of it: `model`, `seconds`, and `notes` that people should read.
        plots: HTML of the figures of the data set.
    """
    style, nonce = style_sheet(), secrets.token_urlsafe(16)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    heading = page_text(blotted_message(title))
    page = Template(_file("report.html")).substitute(
        generator=GENERATOR.format(1),
        title=heading,
        style=style,
        style_hash=f"sha256-{digest}",
        nonce=nonce,
        facts=" · ".join(_facts(summary)),
        figures=_figures_html(counts),
        bar=_bar_html(counts),
        notes=_notes_html(summary, kinds),
        about=script_json(about),
    )
    head, rest = page.split("<!-- plots -->")
    middle, tail = rest.split("<!-- data -->")
    yield head
    if plots:
        yield '<details class="plots"><summary>Figures of the data set</summary>\n<div>'
        yield from plots
        yield "</div></details>\n"
    yield middle
    yield from inline
    yield from (f'<script nonce="{nonce}">\n{_file(name)}</script>\n' for name in SCRIPTS)
    yield tail


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _facts(summary: Mapping[str, Any]) -> list[str]:
    facts = [f"<bdi>{page_text(summary['model'])}</bdi>"] if summary.get("model") else []
    if is_number(summary.get("seconds")) and not summary.get("already_complete"):
        seconds = summary["seconds"]
        facts.append(f"{seconds:.1f} s" if seconds < 60 else duration(seconds))
    return facts


def _figures_html(counts: Mapping[str, int]) -> str:
    return "".join(
        f'<div class="s-{name if counts[name] else "zero"}" title="{MEANING.get(name, "")}">'
        f"<dt>{name}</dt><dd>{counts[name]:,}</dd></div>"
        for name in (*_FIGURES, *_FIGURES_IF_ANY)
        if counts.get(name) or (name in counts and name in _FIGURES)
    )


def _notes_html(summary: Mapping[str, Any], kinds: Mapping[str, int]) -> str:
    """What the run noted, and why records failed, in words."""
    found = summary.get("notes")
    noted = found if isinstance(found, Mapping) else {}
    said = [f"{counted(noted[n], what)} {why}" for n, (what, why) in WARNINGS.items() if type(noted.get(n)) is int]
    failed = ", ".join(f"{page_text(kind)} {n:,}" for kind, n in Counter(kinds).most_common())
    lines = [*(f"{page_text(line)}." for line in said), *([f"Failed: {failed}."] if failed else [])]
    return "".join(f'<p class="facts" dir="auto">{line}</p>\n' for line in lines)


def _bar_html(counts: Mapping[str, int]) -> str:
    total = sum(counts.get(status, 0) for status in STATUSES)
    if not total:
        return ""
    parts, x = [], 0.0
    for status in STATUSES:
        share = 100 * counts.get(status, 0) / total
        parts.append(f'<rect class="s-{status}" x="{x:.3f}%" width="{share:.3f}%" height="100%"/>')
        x += share
    return f'<svg class="bar" aria-hidden="true">{"".join(parts)}</svg>'
