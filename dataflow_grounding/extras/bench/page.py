"""A `bench.json` for people: as a table in a terminal, and as a page of one file."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dataflow_grounding.images.document import (
    Cell,
    TableRow,
    document_page,
    facts,
    readable_time,
    safe,
    section,
    table,
)

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
_STYLE = """
body { max-width: 80rem; } /* the table of ways has many columns */
main > .facts { margin-top: 2rem; }
.pairs section:first-child, .pairs section:nth-child(2) { margin-top: .75rem; }
tbody th { min-width: 4.5rem; }
th, td { padding-inline: .45rem; }
"""
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
    phrases = max(of_way["figures"]["all"]["phrases"] for of_way in document["ways"].values())
    kinds = []
    for way, of_way in document["ways"].items():
        of_kinds = of_way["figures"].get("kinds")
        if of_kinds:
            kinds.append(section(f"{way}, by kind of picture", _kinds_table(of_kinds)))
    sections = [section("Ways of asking", _ways_table(document))]
    if kinds:
        note = (
            '<p class="facts">A kind has few pictures, and wide intervals; of one picture there'
            " are none (-).</p>"
        )
        sections.append(f'{note}<div class="pairs">{"".join(kinds)}</div>')
    when = readable_time(document["when"])
    return document_page(
        f"Bench of {document['model']}",
        facts(document["endpoint"], when, f"{phrases} phrases"),
        sections,
        f"Made by dataflow-grounding {safe(document['version'])} out of bench.json, which has every"
        " reply. The same figures without a model: <code>dataflowgrounding bench --rescore"
        " bench.json</code>. Intervals are those of 1,000 bootstrap samples of the pictures, 95 of"
        " 100 of which lie within.",
        style=_STYLE,
    )


def _names_in(document: Mapping[str, Any]) -> list[str]:
    """Return the figures that a way has, in the order of their heads."""
    names: set[str] = set()
    for of_way in document["ways"].values():
        names.update(of_way["figures"]["all"])
    return [name for name in _HEADS if name in names]


def _in_words(figure: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return a figure and its interval as texts, each "-" where there is none.

    Without a figure the interval is "".
    """
    if figure is None or figure["value"] is None:
        return "-", ""
    interval = figure["interval"]
    ends = "-" if interval is None else f"{interval[0]:.2f}–{interval[1]:.2f}"
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
        cells = _cells(of_way["figures"]["all"], names)
        rows.append(TableRow(way, [*cells, *_run_cells(of_way["run"])]))
    return table("way", [*[_HEADS[name] for name in names], *_RUN_HEADS], rows)


def _kinds_table(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    """Return an HTML table of the figures of each kind of picture."""
    names = [name for name in _HEADS if name in next(iter(kinds.values()))]
    rows = []
    for kind, figures in kinds.items():
        rows.append(TableRow(kind, [str(figures["phrases"]), *_cells(figures, names)]))
    return table("kind", ["phrases", *[_HEADS[name] for name in names]], rows)


def _cells(figures: Mapping[str, Any], names: Sequence[str]) -> list[Cell]:
    """Return figures as cells, each with its interval below."""
    return [Cell(*_in_words(figures.get(name))) for name in names]
