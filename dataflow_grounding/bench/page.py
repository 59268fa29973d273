"""A `bench.json` for people: as a table in a terminal, and as a page of one file.

A document is what `running.measure` yields; a way in it is such as:

    {"box_format": "xyxy_1000", "run": {"requests": 56, "tests": 6, "seconds": 41.2, …},
     "figures": {"counts": {"pictures": 50, "failed": 0, …},
                 "all": {"phrases": 422, "miou": {"value": 0.71, "interval": [0.68, 0.74]}, …},
                 "kinds": {"crowd": {"phrases": 31, …}, …}}}
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dataflow_grounding.engine.unreadable import too_many_unreadable
from dataflow_grounding.images.document import (
    Cell,
    TableRow,
    definitions,
    document_page,
    facts,
    readable_time,
    safe,
    section,
    table,
)

_HEADS = {
    "mean_f1": "F1",
    "precision_at_iou_0.5": "precision",
    "recall_at_iou_0.5": "recall",
    "miou": "mIoU",
    "n_acc": "N-acc",
    "il_mcc": "IL_MCC",
    "gprec_f1": "phrases right",
    "span_exact_f1": "spans, exact",
    "span_overlap_f1": "spans, overlap",
}
"""Figure → its heading."""
_RUN_HEADS = ("requests", "USD", "seconds", "unreadable", "failed")
_MEANINGS = {
    "F1": "of a phrase's boxes with IoU ≥ 0.5, on average over a picture's phrases, then over"
    " pictures; of a phrase that names nothing in the picture, 1 without a box, else 0",
    "precision": "of the boxes, those on a thing that their phrase names, with IoU ≥ 0.5",
    "recall": "of the things that phrases name, those with such a box",
    "mIoU": "IoU of the first box, on average over phrases that name one thing; 0 without a box",
    "N-acc": "no-target accuracy: of phrases that name nothing in the picture, those answered with"
    " no box",
    "IL_MCC": "whether the model says that there is something where there is: 1 always, 0 as by"
    " chance, -1 never; a phrase without an answer counts as the wrong one",
    "phrases right": "of all phrases, those with every box right and none too many or too few",
    "spans, exact": "F1 of the phrases found in captions, each letter for letter",
    "spans, overlap": "F1 of the same where a phrase need only share a letter with the gold",
    "requests": "that were answered; tests show rectangles of ours, not a picture of the set",
    "USD": "what they cost; - where the model has no known price",
    "seconds": "of the call that finished the way",
    "unreadable": "replies in that call that can't be used; each is asked for again up to twice",
    "failed": "pictures that got no answer that can be used; all of their phrases count as wrong."
    " Unchecked are phrases that a check left as they were, as it got no answer to rely on",
}
"""Heading → what comes below it."""
_STYLE = """
body { max-width: 80rem; } /* the table of ways has many columns */
main > .facts { margin-top: 2rem; }
.kinds section { margin-top: .75rem; padding-block: .75rem; }
tbody th { min-width: 4.5rem; }
th, td { padding-inline: .45rem; }
summary { font-weight: 600; cursor: pointer; }
details td { font: inherit; }
details small { font-size: .75rem; }
dl div { grid-template-columns: minmax(6rem, 9rem) 1fr; }
@media screen and (max-width: 40rem) { /* figures of one column are below each other */
  tr { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .25rem 1rem; }
  tbody th { grid-column: 1 / -1; }
  td::before { display: block; }
}
"""


def table_lines(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the rows of a table with a column for each way: ways are few, and figures many."""
    ways = document["ways"]
    yield ["", *ways]
    for name in _figure_names_in(document):
        texts = []
        for measured in ways.values():
            cell = _figure_cell(measured["figures"]["all"].get(name))
            texts.append(f"{cell.value} {cell.below}".strip())
        yield [_HEADS[name], *texts]
    cells_by_way = [_run_cells(measured) for measured in ways.values()]
    for head, *cells in zip(_RUN_HEADS, *cells_by_way, strict=True):
        texts = [f"{cell.value}, {cell.below}" if cell.below else cell.value for cell in cells]
        yield [head, *texts]


def failed_all(figures: Mapping[str, Any]) -> bool:
    """Return whether all pictures of a way failed."""
    counts = figures["counts"]
    return bool(counts["failed"] == counts["pictures"])


def checked_nothing(figures: Mapping[str, Any]) -> bool:
    """Return whether a way has a check, and it checked no phrase."""
    unchecked = figures["counts"]["unchecked"]  # 0 for a way without a check
    return bool(unchecked >= figures["all"]["phrases"])


def warnings_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each thing that makes a way's figures others than they seem."""
    for way, measured in document["ways"].items():
        figures = measured["figures"]
        counts = figures["counts"]
        if failed_all(figures):
            yield f"{way} measured nothing: all {counts['pictures']} pictures failed."
        elif counts["failed"]:
            yield (
                f"{way}: {counts['failed']} of {counts['pictures']} pictures failed, and count as"
                f" wrong; {way}/failures.jsonl says why."
            )
        unreadable = ""
        if counts["unreadable"]:  # else `counts` has nothing that `too_many_unreadable` reads
            unreadable = too_many_unreadable(counts)
        if unreadable:
            yield f"{way}: {unreadable}."
        why = "the judge's answers could not be used"
        if checked_nothing(figures):
            yield f"{way} checked nothing, as {why}: its figures are those without a check."
        elif counts["unchecked"]:
            phrases = figures["all"]["phrases"]
            yield f"{way} left {counts['unchecked']} of {phrases} phrases unchecked, as {why}."


def page_of(document: Mapping[str, Any]) -> str:
    """Return the page. What comes from data is escaped, and keys are blotted out."""
    warnings = "".join(f'<p class="warning">{safe(text)}</p>' for text in warnings_of(document))
    sections = [section("Ways of asking", warnings + _ways_table(document))]
    kind_sections = _kind_sections(document)
    if kind_sections:
        note = '<p class="facts">A kind has few pictures, and wide intervals.</p>'
        sections.append(f'{note}<div class="kinds">{"".join(kind_sections)}</div>')
    shown_heads = [_HEADS[name] for name in _figure_names_in(document)]
    shown_heads += _RUN_HEADS
    meanings = [(head, _MEANINGS[head]) for head in shown_heads]
    sections.append(section("What the figures say", definitions(meanings)))
    when = readable_time(document["when"])
    return document_page(
        f"Bench of {document['model']}",
        facts(document["endpoint"], when, *_facts_of(document)),
        sections,
        f"Made by dataflow-grounding {safe(document['version'])}. Intervals are the"
        " middle 95% of 1,000 bootstrap samples of the pictures; there is none (-) where all"
        " samples come to the same.",
        style=_STYLE,
    )


def _kind_sections(document: Mapping[str, Any]) -> list[str]:
    sections: list[str] = []
    for way, measured in document["ways"].items():
        figures_by_kind = measured["figures"].get("kinds")
        if not figures_by_kind:  # of spans, or of a user's pictures
            continue
        heading = f"<summary>{safe(way)}, by kind of picture</summary>"
        is_first = not sections  # it is unfolded; further ones are much alike
        unfolded = " open" if is_first else ""
        content = f"<details{unfolded}>{heading}{_kinds_table(figures_by_kind)}</details>"
        sections.append(f"<section>{content}</section>")
    return sections


def _facts_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the page's head says of the set and of how it was asked."""
    picture_counts = []
    phrase_counts = []
    formats = set()
    for measured in document["ways"].values():
        figures = measured["figures"]
        picture_counts.append(figures["counts"]["pictures"])
        phrase_counts.append(figures["all"]["phrases"])
        if "kinds" in figures:  # boxes were asked for: figures of spans have no kinds
            formats.add(measured["box_format"])
    # A way may leave out pictures or phrases of the set. The largest number is that of all.
    yield f"{max(picture_counts)} pictures"
    yield f"{max(phrase_counts)} phrases"
    if formats:
        yield f"boxes read as {', '.join(sorted(formats))}"


def _figure_names_in(document: Mapping[str, Any]) -> list[str]:
    """Return the figures that any way has, in the order of _HEADS."""
    names: set[str] = set()
    for measured in document["ways"].values():
        names.update(measured["figures"]["all"])
    return [name for name in _HEADS if name in names]


def _figure_cell(figure: Mapping[str, Any] | None) -> Cell:
    if figure is None or figure["value"] is None:
        return Cell("-")
    return Cell(f"{figure['value']:.3f}", below=_interval_in_words(figure["interval"]))


def _interval_in_words(interval: Sequence[float] | None) -> str:
    if interval is None:
        return "-"
    low, high = interval
    between = "–" if low >= 0 else " to "  # a dash before a minus sign would be read as one
    return f"{low:.2f}{between}{high:.2f}"


def _run_cells(measured: Mapping[str, Any]) -> list[Cell]:
    """Return a cell for each of _RUN_HEADS."""
    run = measured["run"]
    counts = measured["figures"]["counts"]
    tests = f"{run['tests']:,} tests" if run["tests"] else ""
    cost = "-" if run["cost_usd"] is None else f"{run['cost_usd']:.4f}"
    unchecked = f"{counts['unchecked']:,} unchecked" if counts["unchecked"] else ""
    return [
        Cell(f"{run['requests']:,}", below=tests),
        Cell(cost),
        Cell(f"{run['seconds']:.0f}"),
        Cell(str(counts["unreadable"])),
        Cell(str(counts["failed"]), below=unchecked),
    ]


def _ways_table(document: Mapping[str, Any]) -> str:
    names = _figure_names_in(document)
    rows = []
    for way, measured in document["ways"].items():
        cells = _cells(measured["figures"]["all"], names)
        rows.append(TableRow(way, [*cells, *_run_cells(measured)]))
    return table("way", [*[_HEADS[name] for name in names], *_RUN_HEADS], rows)


def _kinds_table(kinds: Mapping[str, Mapping[str, Any]]) -> str:
    figures_of_first = next(iter(kinds.values()))  # all kinds have the same figures
    names = [name for name in _HEADS if name in figures_of_first]
    rows = []
    for kind, figures in kinds.items():
        rows.append(TableRow(kind, [str(figures["phrases"]), *_cells(figures, names)]))
    return table("kind", ["phrases", *[_HEADS[name] for name in names]], rows)


def _cells(figures: Mapping[str, Any], names: Sequence[str]) -> list[Cell]:
    return [_figure_cell(figures.get(name)) for name in names]
