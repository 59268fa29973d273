"""A `bench.json` for people: as a table in a terminal, and as a page of one file."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from string import Template
from typing import Any

from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding.images.display import page_text

_HEADS = {
    "precision_at_iou_0.5": "precision",
    "recall_at_iou_0.5": "recall",
    "miou": "mIoU",
    "n_acc": "absent told",
    "il_mcc": "IL_MCC",
    "gprec_f1": "all right",
    "span_exact_f1": "spans, exact",
    "span_overlap_f1": "spans, touched",
}
"""Figure → its heading; docs/measures.md says what each is."""
_RUN_HEADS = ("requests", "USD", "seconds", "unreadable", "failed")


def table_lines(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows of the table of ways, the heads first; a figure has its interval beside it."""
    names = _names_in(document)
    yield ["", *[_HEADS[name] for name in names], *_RUN_HEADS]
    for way, of_way in document["ways"].items():
        figures = of_way["figures"]["all"]
        cells = [" ".join(_in_words(figures.get(name))) for name in names]
        yield [way, *cells, *_run_cells(of_way["run"])]


def page_of(document: Mapping[str, Any]) -> str:
    """Return the page. What comes from data is escaped, and keys are blotted out."""
    title = f"Bench of {document['model']}"
    phrases = max(of_way["figures"]["all"]["phrases"] for of_way in document["ways"].values())
    about = f"{document['endpoint']} · {document['when']} · {phrases} phrases"
    sections = [_section("Ways of asking", "", _ways_table(document))]
    for way, of_way in document["ways"].items():
        kinds = of_way["figures"].get("kinds")
        if kinds:
            note = "By kind of picture; a kind has few pictures, and wide intervals."
            sections.append(_section(way, note, _kinds_table(kinds)))
    text = resources.files(__package__).joinpath("bench.html").read_text(encoding="utf-8")
    return Template(text).substitute(
        title=_safe(title),
        about=_safe(about),
        sections="\n".join(sections),
        version=_safe(document["version"]),
    )


def _names_in(document: Mapping[str, Any]) -> list[str]:
    """Return the figures that a way has, in the order of their heads."""
    names: set[str] = set()
    for of_way in document["ways"].values():
        names.update(of_way["figures"]["all"])
    return [name for name in _HEADS if name in names]


def _in_words(figure: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return a figure and its interval as texts; "-" and nothing where there is no figure."""
    if figure is None or figure["value"] is None:
        return "-", ""
    interval = figure["interval"]
    ends = "" if interval is None else f"{interval[0]:.2f}–{interval[1]:.2f}"
    return f"{figure['value']:.3f}", ends


def _run_cells(run: Mapping[str, Any]) -> list[str]:
    """Return what a way took, for the columns of _RUN_HEADS."""
    cost = "-" if run["cost_usd"] is None else f"{run['cost_usd']:.4f}"
    counts = [f"{run['requests']:,}", cost, f"{run['seconds']:.0f}"]
    return [*counts, str(run["unreadable"]), str(run["failed"])]


def _ways_table(document: Mapping[str, Any]) -> str:
    """Return an HTML table of each way's figures, and of what its run took."""
    names = _names_in(document)
    rows = []
    for way, of_way in document["ways"].items():
        figures = of_way["figures"]["all"]
        cells = [_cell(figures.get(name)) for name in names]
        cells += [_safe(cell) for cell in _run_cells(of_way["run"])]
        rows.append((way, cells))
    return _table([*[_HEADS[name] for name in names], *_RUN_HEADS], rows)


def _kinds_table(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """Return an HTML table of the figures of each kind of picture."""
    names = [name for name in _HEADS if name in next(iter(kinds.values()))]
    rows = []
    for kind, figures in kinds.items():
        cells = [_safe(figures["phrases"]), *[_cell(figures.get(name)) for name in names]]
        rows.append((kind, cells))
    return _table(["phrases", *[_HEADS[name] for name in names]], rows)


def _cell(figure: Mapping[str, Any] | None) -> str:
    """Return a figure as HTML, with its interval below."""
    value, ends = _in_words(figure)
    return f"{_safe(value)}<small>{_safe(ends)}</small>"


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a table; cells are HTML, heads and names of rows are text."""
    head = "".join(f'<th scope="col">{_safe(text)}</th>' for text in ["", *heads])
    lines = []
    for name, cells in rows:
        columns = ""
        for label, cell in zip(heads, cells, strict=True):
            # where the screen is narrow, each figure stands beside what it is, if there is one
            look = ' class="none"' if cell == _cell(None) else ""
            columns += f'<td data-label="{_safe(label)}"{look}>{cell}</td>'
        lines.append(f'<tr><th scope="row">{_safe(name)}</th>{columns}</tr>')
    body = "\n".join(lines)
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _section(heading: str, note: str, content: str) -> str:
    paragraph = f"<p>{_safe(note)}</p>" if note else ""
    return f"<section><h2>{_safe(heading)}</h2>{paragraph}{content}</section>"


def _safe(value: Any) -> str:
    """Return a value as text of a page, without keys."""
    return page_text(blotted_message(str(value)))
