"""The certificate as a page that can be handed over: one file, which prints well."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dataflow_grounding._util.terminal import counted
from dataflow_grounding.boxes.geometry import COCO_SIZES
from dataflow_grounding.engine.summary import PROBE_AS_ASKED, what_probes_prove
from dataflow_grounding.images.document import (
    TableRow,
    definitions,
    document_page,
    facts,
    readable_time,
    safe,
    section,
    table,
)

_MOST_FILES = 500
"""How many files' digests are listed; the JSON file has all of them."""
# Kind of group, as the certificate calls it → the heading of its table.
_HEADINGS = {
    "class": "By class",
    "size": "By size of the box",
    "status": "By status",
    "check": "By what the run's own check said",
    "model": "By model",
}
_MOST_NAMED = 3  # items that are not settled
_MOST_GROUPS = 200
"""How many groups of a kind are listed, those with the most boxes."""


def certificate_page(certificate: Mapping[str, Any], results: str, file_name: str) -> str:
    """Return the page of a certificate.

    What comes from data is escaped, and keys are blotted out.

    Args:
        certificate: As `certify` returns it.
        results: What the certified results are called.
        file_name: What the certificate's file is called.
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
    sections = [_figures("What was found", "error", rows)]
    sections.extend(_group_tables(certificate["by"]))
    if certificate["checks"]:
        sections.append(_checks(certificate["checks"]))
    sections.append(section("The sample", definitions(_about_samples(certificate))))
    sections.append(section("The run", definitions(_about_run(certificate))))
    sections.append(_files(certificate["files"]))
    if certificate["prompts"] is None:
        model = "a file without run.json"
    else:
        model = run.get("model") or "a model that run.json doesn't name"
    header = facts(f"Boxes of {model}", f"certified {readable_time(certificate.get('when', ''))}")
    header += f'<p class="sentence">{safe(_sentence_without_verdict(certificate))}</p>'
    for line in ways_to_settle(certificate, results):
        header += f'<p class="sentence">{safe(line)}.</p>'
    header += _verdict(certificate["target"], certificate["boxes"])
    return document_page(
        f"Certificate of {os.path.basename(os.path.abspath(results))}",
        header,
        sections,
        f"Made by dataflow-grounding {safe(certificate['version'])} out of"
        f" {safe(file_name)}, which has all of it and a checksum. The bounds are exact"
        " (Clopper and Pearson, 1934); what nobody judged counts as wrong for the upper"
        " one. Whether anything has changed since:"
        f" <code>dataflowgrounding certify {safe(results)} --verify</code>",
        is_letter=True,
    )


def _sentence_without_verdict(certificate: Mapping[str, Any]) -> str:
    sentence: str = certificate["sentence"]
    target = certificate["target"]
    if target:
        sentence = sentence.removesuffix(f"; {verdict_of(target, certificate['boxes'])}")
    return f"{sentence}."


def _group_tables(by: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    # `by` has the certificate's figures by kind and group.
    for name in sorted(by, key=[*_HEADINGS, *by].index):
        groups = by[name]
        if len(groups) < 2:
            continue
        largest = sorted(groups, key=lambda group: -groups[group]["of"])[:_MOST_GROUPS]
        if name == "size":
            largest = [size for size in COCO_SIZES.values() if size in groups]
        note = "Share of boxes that are wrong."
        if len(groups) > len(largest):
            note += f" The largest {len(largest)} of {len(groups):,}; certificate.json has all."
        rows = [_row(group, groups[group], groups[group]["of"]) for group in largest]
        yield _figures(_HEADINGS.get(name, f"By {name}"), name, rows, note)


def widened_bounds(figure: Mapping[str, Any]) -> tuple[float, float]:
    """Return a figure's bounds in percent, rounded so that they only widen."""
    low = math.floor(round(1000 * figure["low"], 3)) / 10
    high = math.ceil(round(1000 * figure["high"], 3)) / 10
    return low, high


def ways_to_settle(certificate: Mapping[str, Any], results: str) -> Iterator[str]:
    """Yield a line for each sample that has open items: the command that asks for these alone.

    A first line names some of them. There are none where all is settled.
    """
    items = certificate.get("not_settled")
    if not items:
        return
    named = [
        f"{key} {id}" if box is None else f"{key} {id} box {box + 1}" for key, id, box in items
    ]
    shown = ", ".join(named[:_MOST_NAMED])
    if len(named) > _MOST_NAMED:
        shown += f" and {len(named) - _MOST_NAMED} more"
    yield f"not settled, as nobody judged it, or a run changed it since: {shown}"
    for sample in certificate["samples"]:
        yield (
            f"`dataflowgrounding review {results} --sample {sample['size']} --seed"
            f" {sample['seed']}` asks for the open ones of that sample; no model is asked"
        )


def verdict_of(target: Mapping[str, Any], boxes: Mapping[str, Any]) -> str:
    """Return in words whether a certificate's target is met by the figure of its boxes, and why."""
    _, high = widened_bounds(boxes)
    verdict = "accepted" if target["accepted"] else "not accepted"
    most = f"{100 * target['max_error']:g}%"
    return f"{verdict}: up to {high:.1f}% of boxes may be wrong, {most} are allowed"


def _verdict(target: Mapping[str, Any] | None, boxes: Mapping[str, Any]) -> str:
    if not target:
        return ""
    look = "good" if target["accepted"] else "bad"
    text = verdict_of(target, boxes)
    return f'<p class="verdict {look}">{safe(text[0].upper() + text[1:])}</p>'


def _row(name: str, figure: Mapping[str, Any], total: int | None) -> TableRow:
    judged = figure["looked_at"] - figure["unsettled"]
    share = "not judged"
    if judged:
        share = f"{100 * figure['share']:.1f}%"
    cells = [
        share,
        "{:.1f} to {:.1f}%".format(*widened_bounds(figure)),
        f"{figure['wrong']:,}",
        f"{judged:,} of {figure['looked_at']:,}",
        "" if total is None else f"{total:,}",
    ]
    return TableRow(name, cells)


def _figures(heading: str, head: str, rows: Iterable[TableRow], note: str = "") -> str:
    heads = ("share", "95% certain", "wrong", "judged", "in all")
    return section(heading, table(head, heads, rows, look="lead"), note)


def _checks(checks: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        TableRow(name, [f"{100 * counts['share']:.1f}%", f"{counts['phrases']:,}"])
        for name, counts in checks.items()
    ]
    head = "What the run's own checks said"
    return section(head, table("check", ("share", "phrases"), rows, look="lead"))


def _about_samples(certificate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for sample in certificate["samples"]:
        size = counted(sample["size"], "item")
        stated = f"stated {readable_time(sample['when'])} by {sample['who']}"
        text = f"{size}, seed {sample['seed']}, {stated}"
        if sample["gold"]:
            text += ", with gold mixed in"
        yield "drawn", text
    for who, items in certificate["reviewers"].items():
        name = "not settled" if who == "None" else f"judged by {who}"
        yield name, counted(items, "item")
    if certificate["gold"]:
        yield "gold", certificate["gold"]["file"]


def _about_run(certificate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    run = certificate["run"]
    yield "model", str(run.get("model") or "not stated")
    box_format = run.get("box_format")
    if isinstance(box_format, Mapping) and box_format.get("name"):
        yield "box format", str(box_format["name"])
    notes = (run.get("summary") or {}).get("notes") or {}
    if notes.get(PROBE_AS_ASKED):
        yield "box format's checks", what_probes_prove(notes[PROBE_AS_ASKED])
    if run.get("started"):
        yield "started", readable_time(str(run["started"]))
    if run.get("version"):
        yield "version", str(run["version"])
    for status, count in certificate["statuses"].items():
        yield f"phrases of status {status}", f"{count:,}"


def _files(files: Mapping[str, str | None]) -> str:
    # A file that wasn't found has the digest None.
    rows = []
    for name, digest in list(files.items())[:_MOST_FILES]:
        rows.append(TableRow(name, [digest or "not found"]))
    note = f"SHA-256 of {counted(len(files), 'file')}."
    if len(files) > _MOST_FILES:
        note += f" The first {_MOST_FILES} of them; certificate.json has all."
    digests = table("file", ("SHA-256",), rows)
    return section(
        "What it rests on", f"<details><summary>{safe(note)}</summary>{digests}</details>"
    )
