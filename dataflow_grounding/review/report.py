"""The static report: one HTML file with each picture, its boxes, and its caption in the boxes' colours."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from string import Template
from typing import IO, Any

from dataflow_grounding.drawing import PALETTE, text_color
from dataflow_grounding.records import STATUSES, is_number
from dataflow_grounding.review.record_html import STATUS_MEANING, FindImage, page_text, read_record, record_html


def write_report(
    records: Iterable[Mapping[str, Any]],
    *,
    find_image: FindImage,
    out_path: str | os.PathLike[str],
    title: str,
    summary: Mapping[str, Any],
    failures: Iterable[Mapping[str, Any]] = (),
    max_records: int = 500,
) -> int:
    """Write one self-contained HTML page to `out_path`, whole or not at all, and return how many records it shows.

    The page loads nothing, runs no script, and shows all text as text.

    Args:
        records: Read one at a time; after `max_records` they are only counted, and the page says so.
        find_image: Gives the path of a record's image file, or None. An image that can't be opened is left out.
        summary: Shown of it: `images`, `expressions`, `grounded`, `none`, `ambiguous`, `unsupported`, `failed`
            (counts), `seconds` and `model`.
        failures: Rows with `id`, `step`, `kind` and `message`.

    Raises:
        OSError: The page can't be written.
    """
    folder, name = os.path.split(os.path.abspath(out_path))
    unfinished = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        with tempfile.TemporaryFile("w+", encoding="utf-8", dir=folder) as body:
            shown = _write_records(body, records, find_image, max_records)
            body.seek(0)
            with open(unfinished, "w", encoding="utf-8", newline="\n") as page:
                head, tail = _frame(title, summary, shown).split("<!-- records -->")
                page.write(head)
                shutil.copyfileobj(body, page)
                before, after = tail.split("<!-- failures -->")
                page.write(before)
                _write_failures(page, failures, max_records)
                page.write(after)
        os.replace(unfinished, os.path.join(folder, name))
    finally:
        if os.path.exists(unfinished):
            os.unlink(unfinished)
    return shown.records


@dataclass
class _Shown:
    """What the page shows, for its head."""

    records: int = 0
    total: int = 0
    most_expressions: int = 0
    dashed: bool = False
    with_status: Counter[str] = field(default_factory=Counter)


def _write_records(body: IO[str], records: Iterable[Mapping[str, Any]], find_image: FindImage, most: int) -> _Shown:
    shown = _Shown()
    for record in records:
        shown.total += 1
        if shown.records >= most:
            continue
        shown.records += 1
        expressions, problem = read_record(record)
        shown.with_status.update({expression.status for expression in expressions})
        shown.most_expressions = max(shown.most_expressions, len(expressions))
        shown.dashed |= any(i.get("evidence") == "region" for e in expressions for i in e.instances)
        body.write(record_html(record, expressions, problem, find_image))
    return shown


def _write_failures(page: IO[str], failures: Iterable[Mapping[str, Any]], most: int) -> None:
    count = 0
    for failure in failures:
        if not count:
            heads = "".join(f'<th scope="col">{name}</th>' for name in ("Record", "Step", "Kind", "Message"))
            page.write(f'<section class="failures"><h2>Failed</h2>\n<div><table><tr>{heads}</tr>\n')
        count += 1
        if count <= most:
            cells = (failure.get(key) for key in ("id", "step", "kind", "message"))
            page.write("<tr>" + "".join(f"<td>{page_text('' if c is None else c)}</td>" for c in cells) + "</tr>\n")
    if count:
        page.write("</table></div>\n")
        page.write(f'<p class="note">The first {most:,} of {count:,}.</p>\n' if count > most else "")
        page.write("</section>\n")


def _frame(title: str, summary: Mapping[str, Any], shown: _Shown) -> str:
    """The page without its records and failures."""
    style = _style(shown.most_expressions)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    facts = [page_text(summary["model"])] if summary.get("model") else []
    facts += [_duration(summary["seconds"])] if is_number(summary.get("seconds")) else []
    names = ("images", "expressions", *STATUSES, "failed")
    counts = {name: summary[name] for name in names if is_number(summary.get(name))}
    figures = "".join(
        f'<div class="s-{name if count else "zero"}" title="{STATUS_MEANING.get(name, "")}">'
        f"<dt>{name}</dt><dd>{count:,}</dd></div>"
        for name, count in counts.items()
    )
    note = f"The first {shown.records:,} of {shown.total:,} images." if shown.total > shown.records else ""
    if shown.dashed:
        note += " Dashed: a region of that colour or scene; what it is was not checked."
    page = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    return Template(page).substitute(
        title=page_text(title),
        style=style,
        style_hash=f"sha256-{digest}",
        facts=" · ".join(facts),
        figures=figures,
        bar=_bar_html(counts),
        filters=_filters_html(shown),
        note=note,
    )


def _style(expressions: int) -> str:
    """The style sheet: the file's, the palette, and for each place in a record what lights up together."""
    rules = [resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")]
    for index, color in enumerate(PALETTE):
        rules.append(f".c{index} {{ --c: rgb{color}; --ink: rgb{text_color(color)}; }}\n")
    for status in STATUS_MEANING:
        rules.append(f"body:has(#show-{status}:checked) .record:not(.has-{status}) {{ display: none; }}\n")
    for n in range(expressions):
        lit = f".record:has(.link.e{n}:hover, .link.e{n}:focus-visible)"
        rules.append(f"{lit} .box.e{n} {{ opacity: 1; }}\n")
        rules.append(
            f"{lit} .mark.m{n} {{ background: color-mix(in srgb, var(--c, var(--grey)) 50%, var(--card)); }}\n"
        )
        rules.append(f"{lit} li.e{n} {{ background: color-mix(in srgb, var(--c, var(--grey)) 22%, var(--card)); }}\n")
    return "".join(rules)


def _bar_html(counts: Mapping[str, float]) -> str:
    total = sum(counts.get(status, 0) for status in STATUSES)
    if not total:
        return ""
    parts, x = [], 0.0
    for status in STATUSES:
        share = 100 * counts.get(status, 0) / total
        parts.append(f'<rect class="s-{status}" x="{x:.3f}%" width="{share:.3f}%" height="100%"/>')
        x += share
    return f'<svg class="bar" aria-hidden="true">{"".join(parts)}</svg>'


def _filters_html(shown: _Shown) -> str:
    parts = []
    for name in ("all", *STATUS_MEANING):
        count = shown.records if name == "all" else shown.with_status[name]
        if name == "pending" and not count:
            continue
        state = " checked" if name == "all" else "" if count else " disabled"
        parts.append(
            f'<input type="radio" name="show" id="show-{name}"{state}>'
            f'<label for="show-{name}" title="{STATUS_MEANING.get(name, "")}">{name}<b>{count:,}</b></label>'
        )
    return "\n".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
