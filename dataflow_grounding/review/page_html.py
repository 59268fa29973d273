"""A page of the report as HTML: its head with the counts, the filters, and the links to the other pages."""

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from string import Template
from typing import Any
from urllib.parse import quote

from dataflow_grounding.drawing import PALETTE, text_color
from dataflow_grounding.engine.progress import duration
from dataflow_grounding.records import STATUSES, is_number
from dataflow_grounding.review.pages import GENERATOR, Piece, Pieces, page_name
from dataflow_grounding.review.record_html import page_text
from dataflow_grounding.review.record_view import FIRST, MEANING, View
from dataflow_grounding.secrets import blotted_message

_FIGURES = ("images", "failures", "regions", "captions", "expressions", *STATUSES)
_FIGURES_IF_ANY = ("pending", "verified", "unverified", "doubtful", "suspect")
_DASHED = "Dashed: a region of that colour or scene; what it is was not checked."


@dataclass
class Report:
    """What the pages of a report have in common."""

    name: str
    title: str
    summary: Mapping[str, Any]
    failures: Pieces
    records: Pieces
    per_page: int
    counts: Counter[str] = field(default_factory=Counter)
    most_expressions: int = 0
    dashed: bool = False

    def include(self, view: View) -> None:
        """Count a record."""
        self.counts.update(view.counts)
        self.most_expressions = max(self.most_expressions, len(view.expressions))
        self.dashed |= any(i.get("evidence") == "region" for e in view.expressions for i in e.instances)

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-max(self.failures.count, self.records.count) // self.per_page))

    @cached_property
    def style(self) -> str:
        """The style sheet: the file's, the palette, the filters, and what lights up with each place in a record."""
        rules = [resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")]
        for index, color in enumerate(PALETTE):
            rules.append(f".c{index} {{ --c: rgb{color}; --ink: rgb{text_color(color)}; }}\n")
        for mark in MEANING:
            rules.append(f"body:has(#show-{mark}:checked) .record:not(.has-{mark}) {{ display: none; }}\n")
        for n in range(len(self.failures.marks)):
            rules.append(f"body:has(#kind-{n}:checked) .failures tr.kind:not(.kind-{n}) {{ display: none; }}\n")
        mixed = "{{ background: color-mix(in srgb, var(--c, var(--grey)) {}%, var(--card)); }}"
        for n in range(self.most_expressions):
            lit = f".record:has(.link.e{n}:hover, .link.e{n}:focus-visible)"
            rules.append(f"{lit} .box.e{n} {{ opacity: 1; }}\n")
            rules.append(f"{lit} .mark.m{n} {mixed.format(50)}\n{lit} li.e{n} {mixed.format(22)}\n")
        return "".join(rules)


def failure_html(failure: Mapping[str, Any]) -> str:
    """The cells of a failure."""
    cells = [failure.get(key) for key in ("id", "message", "kind", "step")]
    if cells[0] is None and failure.get("line") is not None:
        cells[0] = f"line {failure['line']}"
    texts = (page_text("" if cell is None else blotted_message(str(cell))) for cell in cells)
    return "".join(f'<td dir="auto">{text}</td>' for text in texts)


def page_html(report: Report, number: int, failures: Sequence[Piece], records: Sequence[Piece]) -> Iterator[str]:
    """The parts of page `number`, from 1, with these failures and records."""
    template = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(report.style.encode()).digest()).decode()
    title = page_text(blotted_message(report.title))
    place = [f"page {number:,} of {report.pages:,}"] if report.pages > 1 else []
    page = Template(template).substitute(
        generator=GENERATOR.format(number),
        heading=title,
        title=" · ".join([title, *place]),
        style=report.style,
        style_hash=f"sha256-{digest}",
        facts=" · ".join([*_facts(report.summary), *place]),
        figures=_figures_html({**report.counts, "failures": report.failures.count}),
        bar=_bar_html(report.counts),
        filters=_filters_html("show", "Show images with", {mark: mark for mark in MEANING}, report.records, records),
        note=_note(report, number),
        pages=_links_html(report, number),
    )
    head, rest = page.split("<!-- failures -->")
    middle, tail = rest.split("<!-- records -->")
    yield head
    yield from _failures_html(report.failures, failures)
    yield middle
    yield from (piece.html for piece in records)
    yield tail


def _failures_html(all_of_them: Pieces, here: Sequence[Piece]) -> Iterator[str]:
    if not here:
        return
    kinds = {kind: str(n) for n, kind in enumerate(all_of_them.marks)}
    yield '<section class="failures" aria-labelledby="failures">\n<h2 id="failures">Failures</h2>\n'
    yield _filters_html("kind", "Kind", kinds, all_of_them, here)
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("Record", "Message", "Kind", "Step"))
    yield f'<div tabindex="0" role="group" aria-label="Table of failures"><table><tr>{heads}</tr>\n'
    for cells, marks in here:
        yield f'<tr class="kind kind-{kinds[marks[0]]}">{cells}</tr>\n'
    yield "</table></div>\n</section>\n"


def _filters_html(group: str, legend: str, filters: Mapping[str, str], pieces: Pieces, here: Sequence[Piece]) -> str:
    """Radio buttons for `filters`, mark → id, with how many pieces of the page each shows, and how many there are."""
    on_page = Counter(mark for piece in here for mark in piece.marks)
    parts = []
    for mark, name in [("all", "all"), *filters.items()]:
        count, total = (len(here), pieces.count) if name == "all" else (on_page[mark], pieces.marks[mark])
        if not total:
            continue
        state = " checked" if name == "all" else "" if count else " disabled"
        shown = f"{count:,}" if len(here) == pieces.count else f"{count:,} of {total:,}"
        parts.append(
            f'<input type="radio" name="{group}" id="{group}-{name}"{state}>'
            f'<label for="{group}-{name}" title="{MEANING.get(name, "")}">'
            f"<bdi>{page_text(mark)}</bdi><b>{shown}</b></label>\n"
        )
    inside = f"<legend>{legend}</legend>\n{''.join(parts)}"
    return f'<fieldset class="filters by-{group}">\n{inside}</fieldset>\n' if len(parts) > 1 else ""


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


def _note(report: Report, number: int) -> str:
    parts = []
    if report.pages > 1:
        first = (number - 1) * report.per_page + 1
        for name, count in (("Failures", report.failures.count), ("Images", report.records.count)):
            if first <= count:
                parts.append(f"{name} {first:,} to {min(count, first + report.per_page - 1):,} of {count:,}.")
    if any(report.counts[name] for name in FIRST):
        parts.append(f"{', '.join(FIRST[:-1])} and {FIRST[-1]} images come first.".capitalize())
    return " ".join([*parts, _DASHED] if report.dashed else parts)


def _links_html(report: Report, number: int) -> str:
    """Links to the first, the last and the neighbouring pages; empty with one page."""
    last = report.pages
    numbers = sorted({1, *range(max(1, number - 2), min(last, number + 2) + 1), last})
    links = {"Previous": number - 1, **{f"{n:,}": n for n in numbers}, "Next": number + 1}
    parts = []
    for text, n in links.items():
        if n == number:
            parts.append(f'<b aria-current="page">{text}</b>')
        elif 1 <= n <= last:
            parts.append(f'<a href="{quote(os.fsencode(page_name(report.name, n)))}">{text}</a>')
    return f'<nav class="pages" aria-label="Pages">{" ".join(parts)}</nav>' if last > 1 else ""


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
