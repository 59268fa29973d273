"""The certificate as a page that can be handed over: one file, which prints well."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from string import Template
from typing import Any

from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.extras.review._door_html import page_file
from dataflow_grounding.images.display import page_text

_MOST_FILES = 500
"""Digests of so many files are listed; the JSON file has them all."""
# what groups of boxes are called in the certificate → in a heading
_HEADINGS = {
    "class": "By class",
    "size": "By size of the box",
    "status": "By status",
    "check": "By what the run's own check said",
    "model": "By model",
}
_MOST_GROUPS = 200
"""So many groups of a kind are listed, those with the most boxes."""


def certificate_page(certificate: Mapping[str, Any], results: str) -> str:
    """Return the page of a certificate.

    What comes from data is escaped, and keys are blotted out.

    Args:
        certificate: As `certify` returns it.
        results: What the certified results are called.
    """
    boxes = certificate["boxes"]
    missed = certificate["phrases_missed"]
    run = certificate["run"]
    rows = [
        _row("Wrong boxes", boxes, boxes["of"]),
        _row("Missed phrases", missed, missed["phrases"]),
    ]
    if certificate["gold"]:
        rows.append(_row("Reviewers wrong, on gold", certificate["gold"], None))
    sections = [_table("What was found", "", rows)]
    sections.extend(_group_tables(certificate["by"]))
    if certificate["checks"]:
        sections.append(_checks(certificate["checks"]))
    sections.append(_facts("The sample", _about_samples(certificate)))
    sections.append(_facts("The run", _about_run(certificate)))
    sections.append(_files(certificate["files"]))
    return Template(page_file("certificate.html")).substitute(
        title=_safe(f"Certificate of {os.path.basename(os.path.abspath(results))}"),
        model=_safe(run.get("model") or "a model that run.json doesn't name"),
        when=_safe(_readable_time(certificate.get("when", ""))),
        verdict=_verdict(certificate["target"], certificate["boxes"]),
        sentence=_safe(_sentence_without_verdict(certificate)),
        sections="\n".join(sections),
        results=_safe(results),
        version=_safe(certificate["version"]),
    )


def _sentence_without_verdict(certificate: Mapping[str, Any]) -> str:
    """Return a certificate's sentence without the verdict, which has a line of its own."""
    sentence: str = certificate["sentence"]
    target = certificate["target"]
    if target:
        sentence = sentence.removesuffix(f"; {verdict_of(target, certificate['boxes'])}")
    return f"{sentence}."


def _readable_time(when: str) -> str:
    """Return a time in UTC as people write it.

    Example:
        >>> _readable_time("2026-11-24T07:06:24Z")
        '2026-11-24 07:06 UTC'
    """
    day, _, clock = when.partition("T")
    return f"{day} {clock[:5]} UTC" if clock.endswith("Z") else when


def _group_tables(by: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a table for each kind of group; none for a kind that all boxes are one group of."""
    for name in sorted(by, key=[*_HEADINGS, *by].index):
        groups = by[name]
        if len(groups) < 2:
            continue
        largest = sorted(groups, key=lambda group: -groups[group]["of"])[:_MOST_GROUPS]
        note = "Share of boxes that are wrong."
        if len(groups) > len(largest):
            note += f" The largest {len(largest)} of {len(groups):,}; certificate.json has all."
        rows = [_row(group, groups[group], groups[group]["of"]) for group in largest]
        yield _table(_HEADINGS.get(name, f"By {name}"), note, rows)


def widened_bounds(figure: Mapping[str, Any]) -> tuple[float, float]:
    """Return a figure's bounds in percent, rounded so that they only widen."""
    low = math.floor(round(1000 * figure["low"], 3)) / 10
    high = math.ceil(round(1000 * figure["high"], 3)) / 10
    return low, high


def _safe(value: Any) -> str:
    """Return a value as text of a page, without keys."""
    return page_text(blotted_message(str(value)))


def verdict_of(target: Mapping[str, Any], boxes: Mapping[str, Any]) -> str:
    """Return in words whether the target is met by the figure of the boxes, and why."""
    _, high = widened_bounds(boxes)
    verdict = "accepted" if target["accepted"] else "not accepted"
    most = f"{100 * target['max_error']:g}%"
    return f"{verdict}: up to {high:.1f}% of boxes may be wrong, {most} are allowed"


def _verdict(target: Mapping[str, Any] | None, boxes: Mapping[str, Any]) -> str:
    """Return whether the target is met, as a line of the page; empty without one."""
    if not target:
        return ""
    look = "good" if target["accepted"] else "bad"
    text = verdict_of(target, boxes)
    return f'<p class="verdict {look}">{_safe(text[0].upper() + text[1:])}</p>'


def _row(name: str, figure: Mapping[str, Any], total: int | None) -> list[str]:
    """Return a figure as the cells of a row, in the order of `_table`'s heads.

    Args:
        name: What the row is of.
        figure: A figure as `_sampling.figure` gives it. `looked_at` counts the sample's items,
            judged or not; `unsettled` those that nobody has decided, or two reviewers differently.
        total: How many there are in all, in the sample or not; None leaves the cell blank.
    """
    judged = figure["looked_at"] - figure["unsettled"]
    share = "not judged"
    if judged:
        share = f"{100 * figure['share']:.1f}%"
    return [
        name,
        share,
        "{:.1f} to {:.1f}%".format(*widened_bounds(figure)),
        f"{figure['wrong']:,}",
        f"{judged:,} of {figure['looked_at']:,}",
        "" if total is None else f"{total:,}",
    ]


def _table(heading: str, note: str, rows: Sequence[Sequence[str]]) -> str:
    """Return figures as a table under a heading."""
    heads = ("", "share", "95% certain", "wrong", "judged", "in all")
    return _section(
        heading,
        (f"<p>{_safe(note)}</p>" if note else "") + _html_table(heads, rows),
    )


def _checks(checks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what the pipeline's own checks said of phrases."""
    rows = [
        [name, f"{100 * counts['share']:.1f}%", f"{counts['phrases']:,}"]
        for name, counts in checks.items()
    ]
    return _section("What the run's own checks said", _html_table(("", "share", "phrases"), rows))


def _html_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first cell of each row is its head."""
    head = "".join(f'<th scope="col">{_safe(text)}</th>' for text in heads)
    lines = []
    for name, *cells in rows:
        numbers = ""
        for label, cell in zip(heads[1:], cells, strict=True):
            # where the screen is narrow, each number stands beside what it is
            numbers += f'<td data-label="{_safe(label)}">{_safe(cell)}</td>'
        lines.append(f'<tr><th scope="row">{_safe(name)}</th>{numbers}</tr>')
    body = "\n".join(lines)
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _about_samples(certificate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is known of the samples and of who judged them, with what it is called."""
    for sample in certificate["samples"]:
        size = counted(sample["size"], "item")
        stated = f"stated {_readable_time(sample['when'])} by {sample['who']}"
        text = f"{size}, seed {sample['seed']}, {stated}"
        if sample["gold"]:
            text += ", with gold mixed in"
        yield "drawn", text
    for who, items in certificate["reviewers"].items():
        name = "nobody" if who == "None" else who
        yield f"judged by {name}", counted(items, "item")
    if certificate["gold"]:
        yield "gold", certificate["gold"]["file"]


def _about_run(certificate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is known of the run, with what it is called."""
    run = certificate["run"]
    yield "model", str(run.get("model") or "not stated")
    box_format = run.get("box_format")
    if isinstance(box_format, Mapping) and box_format.get("name"):
        yield "box format", str(box_format["name"])
    if run.get("started"):
        yield "started", _readable_time(str(run["started"]))
    if run.get("version"):
        yield "version", str(run["version"])
    for status, count in certificate["statuses"].items():
        yield f"phrases of status {status}", f"{count:,}"


def _facts(heading: str, facts: Iterable[tuple[str, str]]) -> str:
    """Return facts as a list of terms under a heading."""
    lines = [f"<div><dt>{_safe(name)}</dt><dd>{_safe(text)}</dd></div>" for name, text in facts]
    return _section(heading, f"<dl>{''.join(lines)}</dl>")


def _files(files: Mapping[str, str | None]) -> str:
    """Return the digests of the files that the certificate rests on."""
    rows = []
    for name, digest in list(files.items())[:_MOST_FILES]:
        rows.append([name, digest or "not found"])
    note = f"SHA-256 of {counted(len(files), 'file')}."
    if len(files) > _MOST_FILES:
        note += f" The first {_MOST_FILES} of them; certificate.json has all."
    table = _html_table(("file", "SHA-256"), rows)
    return _section(
        "What it rests on", f"<details><summary>{_safe(note)}</summary>{table}</details>"
    )


def _section(heading: str, content: str) -> str:
    """Return a section of the page; `content` is HTML."""
    return f"<section><h2>{_safe(heading)}</h2>{content}</section>"
