"""A `tuning.json` for people: lines of a terminal, and a page of one file; and `tuned.yaml`."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding.extras.tuning.candidates import Candidate
from dataflow_grounding.images.document import (
    Cell,
    TableRow,
    document_page,
    facts,
    safe,
    section,
    spec_section,
    table,
)

_STYLE = """
td.text:last-child { min-width: 11rem; }
"""
# The columns of the table of ways, behind the way's name; the last one takes a remark.
HEADS = ("pictures", "score", "gain", "95 %", "chance", "requests", "USD", "")


def table_lines(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows of the table of ways, the heads first."""
    yield ["way", *HEADS]
    for name, way in document["ways"].items():
        yield [name, *_cells(name, way, document["chosen"])]


def _cells(name: str, way: Mapping[str, Any], chosen: str) -> list[str]:
    """Return a way's figures as text, for the columns of HEADS; "-" for one that it hasn't.

    The remark says whether it was chosen, or why it left the race; else it is empty.
    """
    interval = way["interval"]
    ends = "-" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}"
    why_it_left = way["left"] or ""
    remark = "chosen" if name == chosen else why_it_left
    return [
        str(way["pictures"]),
        "-" if way["score"] is None else f"{way['score']:.3f}",
        "-" if way["gain"] is None else f"{way['gain']:+.3f}",
        ends,
        "-" if way["chance"] is None else f"{way['chance']:.0%}",
        f"{way['requests']:,}",
        "-" if way["cost_usd"] is None else f"{way['cost_usd']:.4f}",
        remark,
    ]


def verdict_of(document: Mapping[str, Any]) -> str:
    """Return in words what was chosen, why the race ended, and which definitions are kept."""
    chosen = document["chosen"]
    way = document["ways"][chosen]
    if way["gain"] is None:
        what = "The spec's own way stays: no other was shown to be better"
    else:
        what = f"{chosen}: {100 * way['gain']:+.1f} points of F1 against the spec's own way"
    sentence = f"{what}. The race ended as {document['ended']}."
    classes = (document["definitions"] or {}).get("classes", {})
    kept = [label for label, proposal in classes.items() if proposal["kept"]]
    if kept:
        sentence += f" Definitions are kept of {', '.join(kept)}."
    return sentence


def page_of(document: Mapping[str, Any]) -> str:
    """Return the page. What comes from data is escaped, and keys are blotted out."""
    about = [
        f"{document['pictures']} pictures with gold",
        f"{document['phrases']} phrases",
        f"{document['requests']} requests of at most {document['max_requests']}",
    ]
    if document["cost_usd"] is not None:
        about.append(f"{document['cost_usd']:.4f} USD")
    rows = []
    settings = []
    for name, way in document["ways"].items():
        *figures, remark = _cells(name, way, document["chosen"])
        cells: list[Cell | str] = [*figures, Cell(remark, is_text=True)]
        rows.append(TableRow(name, cells, is_own=name == document["chosen"]))
        shown = yaml.safe_dump(way["set"], allow_unicode=True, sort_keys=False).strip()
        settings.append((name, shown if way["set"] else "nothing is changed"))
    return document_page(
        f"Ways of asking {document['model']}",
        f'{facts(*about)}<p class="sentence">{safe(verdict_of(document))}</p>',
        [
            section("Ways of asking", table("way", HEADS, rows)),
            _definitions_section(document),
            spec_section("What each changes in the spec", settings),
        ],
        f"Made by dataflow-grounding {safe(document['version'])} out of tuning.json. score: mean F1"
        " of a picture's phrases at IoU 0.5; gain: the same less that of the spec's own way, on the"
        " same pictures; chance: how likely the way is better than the spec's own, all ways"
        " considered.",
        style=_STYLE,
    )


# The columns of the table of definitions, behind the class.
DEFINITION_HEADS = ("definition", "before", "after", "95 %", "chance", "")


def definition_lines(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows of the table of definitions, the heads first; nothing without any."""
    definitions = document["definitions"]
    if not definitions or not definitions["classes"]:
        return
    yield ["class", *DEFINITION_HEADS]
    for label, proposal in definitions["classes"].items():
        low, high = proposal["interval"]
        yield [
            label,
            proposal["definition"],
            f"{proposal['before']:.3f}",
            f"{proposal['after']:.3f}",
            f"{low:+.3f} to {high:+.3f}",
            f"{proposal['chance']:.0%}",
            "kept" if proposal["kept"] else "not kept",
        ]


def _definitions_section(document: Mapping[str, Any]) -> str:
    """Return what was proposed for classes as HTML; empty where definitions weren't tried."""
    definitions = document["definitions"]
    if not definitions:
        return ""
    note = definitions["ended"] or "F1 on pictures that the definition was not made of"
    lines = list(definition_lines(document))
    if not lines:
        return section("Definitions", "<p>No class had enough errors to learn from.</p>", note)
    rows = []
    for label, definition, *figures, remark in lines[1:]:  # the first has the heads
        cells: list[Cell | str] = [Cell(definition, is_text=True), *figures]
        cells.append(Cell(remark, is_text=True))
        rows.append(TableRow(label, cells))
    return section("Definitions", table("class", DEFINITION_HEADS, rows), note)


def tuned_yaml(document: Mapping[str, Any], block: str) -> str:
    """Return the text of `tuned.yaml`, which goes over the spec: what was chosen, and why.

    `block` is the pipeline's block of the spec. The reason is a comment.
    """
    why = blotted_message(verdict_of(document))
    chosen = Candidate(document["chosen"], document["keys"])
    lines = [
        f"# {' '.join(why.split())}",
        "# dataflowgrounding generate -e SPEC -e this file",
        yaml.safe_dump(chosen.as_spec(block), allow_unicode=True, sort_keys=False).strip(),
    ]
    return "\n".join(lines) + "\n"
