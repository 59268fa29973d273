"""A `tuning.json` for people: lines of a terminal, and a page of one file; and `tuned.yaml`."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any

import yaml

from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding.extras.tuning.candidates import Candidate
from dataflow_grounding.images.display import page_text

HEADS = ("pictures", "score", "gain", "95 %", "chance", "requests", "USD", "")


def table_lines(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows of the table of ways, the heads first."""
    yield ["way", *HEADS]
    for name, way in document["ways"].items():
        yield [name, *_cells(name, way, document["chosen"])]


def _cells(name: str, way: Mapping[str, Any], chosen: str) -> list[str]:
    """Return a way's figures as text, for the columns of HEADS.

    The last one says whether it was chosen, or why it left the race.
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
    """Return in a sentence what was chosen, and why the race ended."""
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
    cost = "" if document["cost_usd"] is None else f" · {document['cost_usd']:.4f} USD"
    about = (
        f"{document['pictures']} pictures with gold, {document['phrases']} phrases ·"
        f" {document['requests']} requests of at most {document['max_requests']}{cost}"
    )
    rows = []
    for name, way in document["ways"].items():
        cells = _html_cells(HEADS, _cells(name, way, document["chosen"]))
        rows.append(f'<tr><th scope="row">{_safe(name)}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{_safe(text)}</th>' for text in ("", *HEADS))
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>" + "\n".join(rows) + "</tbody></table>"
    keys = []
    for name, way in document["ways"].items():
        shown = yaml.safe_dump(way["set"], allow_unicode=True, sort_keys=False).strip()
        text = shown if way["set"] else "nothing is changed"
        keys.append(f"<h3>{_safe(name)}</h3><pre>{_safe(text)}</pre>")
    template = resources.files(__package__).joinpath("tuning.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=_safe(f"Ways of asking {document['model']}"),
        about=_safe(about),
        verdict=_safe(verdict_of(document)),
        table=table,
        keys="\n".join(keys),
        definitions=_definitions_section(document),
        version=_safe(document["version"]),
    )


def _html_cells(heads: Sequence[str], cells: Sequence[str]) -> str:
    """Return a row's figures; where the screen is narrow, each stands beside what it is."""
    html = ""
    for label, cell in zip(heads, cells, strict=True):
        look = ' class="none"' if cell in ("", "-") else ""
        html += f'<td data-label="{_safe(label)}"{look}>{_safe(cell)}</td>'
    return html


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
    """Return what was proposed for classes as HTML; empty where nothing was."""
    definitions = document["definitions"]
    if not definitions:
        return ""
    lines = list(definition_lines(document))
    note = definitions["ended"] or "F1 on pictures that the definition was not made of"
    heading = f"<h2>Definitions</h2><p>{_safe(note)}</p>"
    if not lines:
        return f"<section>{heading}<p>No class had enough errors to learn from.</p></section>"
    class_head, definition_head, *figure_heads = [_safe(text) for text in lines[0]]
    head = f'<th scope="col">{class_head}</th><th scope="col" class="text">{definition_head}</th>'
    head += "".join(f'<th scope="col">{text}</th>' for text in figure_heads)
    rows = []
    for name, text, *cells in lines[1:]:
        figures = _html_cells(DEFINITION_HEADS[1:], cells)
        texts = f'<th scope="row">{_safe(name)}</th><td class="text">{_safe(text)}</td>'
        rows.append(f"<tr>{texts}{figures}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<section>{heading}<div class="wide">{table}</div></section>'


def tuned_yaml(document: Mapping[str, Any], block: str) -> str:
    """Return `tuned.yaml`, which goes over the spec: what was chosen, and why, as a comment."""
    why = blotted_message(verdict_of(document))
    chosen = Candidate(document["chosen"], document["keys"])
    lines = [
        f"# {' '.join(why.split())}",
        "# dataflowgrounding generate -e SPEC -e this file",
        yaml.safe_dump(chosen.as_spec(block), allow_unicode=True, sort_keys=False).strip(),
    ]
    return "\n".join(lines) + "\n"


def _safe(value: Any) -> str:
    """Return a value as text of a page, without keys."""
    return page_text(blotted_message(str(value)))
