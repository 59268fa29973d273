"""Figures as people see them: Markdown tables, records of the worst cases."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.evaluation.metrics.evaluating import Evaluation

_MAIN = (
    "images",
    "expressions",
    "boxes",
    "gold_boxes",
    "acc_0.5",
    "miou",
    "precision_at_iou_",
    "recall_at_iou_",
    "f1_at_iou_",
    "n_acc",
    "il_mcc",
    "span_exact_f1",
    "ap",
)
"""The measures of the short page; one that ends with `_` means all names that begin with it."""
_MAIN_OF_GROUP = ("expressions", "acc_0.5", "miou")  # columns of the short page's table of sizes
_COUNTS_OF_LEFT_OUT = "expressions_"  # of what isn't compared: the names begin so
_GLOSSES: dict[str, str] = load_table(__package__, "glosses.yaml")
"""By a measure, or by what names of measures begin with, up to a `_`: what it says."""
_MOST_CONFUSED = 10  # pairs of classes of the short page
_MOST_CLASSES = 30  # of the short page


def short_page(figures: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the main figures of `figures_page`, which has the same arguments, as Markdown."""
    compared = figures.get("compared")
    main = {name: value for name, value in figures.items() if _is_main(name, value)}
    main["intervals"] = figures["intervals"]  # of these figures and others, by their names
    parts = [_runs_table(main, compared, names)]
    if compared:
        parts.append(_comparison(compared, names[0]))
    classes = figures.get("classes", {})
    if len(classes) > 1:
        by_size = sorted(classes, key=lambda name: -classes[name]["gold_boxes"])
        largest = set(by_size[:_MOST_CLASSES])
        # in their own order, which may be that of the user's list
        shown = {name: row for name, row in classes.items() if name in largest}
        parts.append(_classes_table(shown))
        parts.append(_confusion_table(classes, _MOST_CONFUSED))
    else:
        sizes = {}
        for size, row in figures["groups"].get("size", {}).items():
            sizes[size] = {name: row[name] for name in _MAIN_OF_GROUP}
        parts.append(_groups_table("size", sizes))
    if compared:  # a table of one run says in its last column what each measure is
        parts.append(_legend(main))
    parts += [f"Note: {note}" for note in figures["notes"]]
    kinds = ", ".join(figures["groups"])
    parts.append(
        f"--all prints all measures, and figures by {kinds}; -o FOLDER writes them, and a page of"
        " the worst cases. What each says: docs/measures.md"
    )
    return "\n\n".join(part for part in parts if part)


def _is_main(name: str, value: object) -> bool:
    if name.startswith(_COUNTS_OF_LEFT_OUT):
        return bool(value)  # a row that says 0 was left out would only take room
    if name in _MAIN:
        return True
    beginnings = tuple(part for part in _MAIN if part.endswith("_"))
    return name.startswith(beginnings)


def figures_page(figures: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return what `Evaluation.to_json` says, as Markdown; classes and groups of the first run."""
    compared = figures.get("compared")
    missing = [name for name, value in figures.items() if value is None]
    parts = [_runs_table(figures, compared, names)]
    if missing:
        parts.append(f"Nothing to measure: {', '.join(missing)}.")
    if compared:
        parts.append(_comparison(compared, names[0]))
    if "classes" in figures:
        parts.append(_classes_table(figures["classes"]))
        parts.append(_confusion_table(figures["classes"], most=None))
    for kind, groups in figures["groups"].items():
        parts.append(_groups_table(kind, groups))
    if compared:
        parts.append(_legend(figures))
    for cut in figures["cuts"]:
        parts.append(
            f"score ≥ {cut['score']:.3g} keeps {cut['kept']:.1%} of the boxes,"
            f" {cut['right']:.1%} of them right"
        )
    for note in figures["notes"]:
        parts.append(f"Note: {note}")
    return "\n\n".join(part for part in parts if part)


def _legend(figures: Mapping[str, Any]) -> str:
    """Return a line for each gloss, with the first measure of several that it is of."""
    glosses: dict[str, str] = {}
    for name, value in figures.items():
        gloss = _gloss_of(name)
        is_measured = isinstance(value, (int, float))  # else None, or a table such as `groups`
        if is_measured and gloss and gloss not in glosses.values():
            glosses[name] = gloss
    width = max(map(len, glosses), default=0)
    return "\n".join(f"{name:{width}}  {gloss}" for name, gloss in glosses.items())


def _gloss_of(name: str) -> str:
    """Return what a measure says, in words; "" for one without a gloss."""
    for key, gloss in _GLOSSES.items():
        if name == key or (key.endswith("_") and name.startswith(key)):
            return gloss
    return ""


def _comparison(compared: Mapping[str, Any], name: str) -> str:
    test = compared["mcnemar"]
    return (
        f"On {counted(test['only_first_right'], 'expression')} the first alone is right, on"
        f" {test['only_second_right']:,} the second; if neither were better, p ="
        f" {test['p']:.2g} (McNemar, exact).\n\nWhat follows is of {name} alone."
    )


def _runs_table(
    figures: Mapping[str, Any], compared: Mapping[str, Any] | None, names: Sequence[str]
) -> str:
    """Return a table of one run with what each measure says, or of two with their difference."""
    heads = ["measure", names[0], "95 %"]
    runs = [figures]
    if compared:
        heads += [names[1], "95 %", "difference", "95 %"]
        difference = {**compared["difference"], "intervals": compared["intervals"]}
        runs += [compared["figures"], difference]
    else:
        heads.append("what it says")
    rows = []
    for row in _rows_of_measures(figures, runs):
        cells = [row.label, *row.cells]
        if not compared:  # of two runs the table is wide enough, and a legend comes below
            cells.append(_gloss_of(row.name))
        rows.append(cells)
    return table(heads, rows)


@dataclass
class _MeasureRow:
    """A row of the table of runs."""

    name: str  # of its measure, or of the first of several
    label: str  # what the row is called: the name, or "r1_any, r5" of several
    cells: list[str]  # each run's value and interval


def _rows_of_measures(
    figures: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]
) -> list[_MeasureRow]:
    rows: list[_MeasureRow] = []
    for name, value in figures.items():
        if isinstance(value, (Mapping, list)):  # a table of its own, or notes
            continue
        cells = []
        for run in runs:
            cells.append(_shown(run.get(name)))
            cells.append(_shown(run["intervals"].get(name)))
        if not any(cells):
            continue
        before = rows[-1] if rows else None
        # Equal ranks share a row, which is then called "r1_any, r5, r10": without scores all are
        # equal.
        if before and before.cells == cells and _is_further_rank(name, before.name):
            rank = name.partition("_")[0]
            before.label += f", {rank}"
        else:
            rows.append(_MeasureRow(name, name, cells))
    return rows


def _is_further_rank(name: str, name_before: str) -> bool:
    """Return whether "r10_any" follows "r1_any": both are ranks of the same kind, "any"."""
    ranks = ("r1", "r5", "r10")
    rank, _, kind = name.partition("_")
    rank_before, _, kind_before = name_before.partition("_")
    return rank in ranks and rank_before in ranks and kind == kind_before


def _classes_table(classes: Mapping[str, Mapping[str, Any]]) -> str:
    measures = ("precision", "recall", "f1", "ap")
    heads = ["class", "gold boxes", "boxes"]
    for measure in measures:
        heads += [measure, "95 %"]
    rows = []
    for name, figures in classes.items():
        row = [name, _shown(figures["gold_boxes"]), _shown(figures["boxes"])]
        for measure in measures:
            row += [_shown(figures[measure]), _shown(figures["intervals"][measure])]
        rows.append(row)
    return table(heads, rows)


def _confusion_table(classes: Mapping[str, Mapping[str, Any]], most: int | None) -> str:
    """Return how many gold boxes of a class were found as another, most first; "" for none."""
    confusions = []
    for name, figures in classes.items():
        for other, count in figures["found_as"].items():
            confusions.append((count, name, other))
    confusions.sort(key=lambda confusion: -confusion[0])
    rows = [[name, other, _shown(count)] for count, name, other in confusions[:most]]
    return table(["gold class", "found as", "boxes"], rows) if rows else ""


def _groups_table(kind: str, groups: Mapping[str, Mapping[str, Any]]) -> str:
    if not groups:
        return ""
    rows = []
    for group, figures in groups.items():
        rows.append([group, *map(_shown, figures.values())])
    figures_of_first = next(iter(groups.values()))  # all have the same names
    return table([kind, *figures_of_first], rows)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its columns as wide as their longest cell."""
    cells = []
    for row in (heads, *rows):
        cells.append([text.replace("|", "\\|").replace("\n", " ") for text in row])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * width for width in widths]
    lines = []
    for row in (cells[0], rule, *cells[1:]):
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)


def _shown(value: float | Sequence[float] | None) -> str:
    if value is None:
        return ""
    if isinstance(value, Sequence):
        low, high = value
        return f"{low:.3f} to {high:.3f}"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


def worst_cases(run: Evaluation, most: int = 100) -> Iterator[dict[str, Any]]:
    """Yield records with the `most` phrases that are least right, each before what was found."""
    overlap_of = run.overlaps
    wrong_count = int((~run.right).sum())
    # Wrong phrases come first, those with the smallest overlap in front: lexsort sorts by its last
    # key, then by the one before it.
    by_badness = np.lexsort((overlap_of, run.right))
    worst = set(by_badness[: min(most, wrong_count)].tolist())
    # A gold phrase's number is its index in `overlaps` and `right`: it goes on through all records.
    numbers = itertools.count()
    for record in run.pairs:
        expressions = []
        for gold, found in record.phrases:
            index = next(numbers)
            if index not in worst:
                continue
            expressions.append({**gold, "text": f"{gold['text']} (gold)"})
            if found:
                text = f"{found['text']} (found, IoU {overlap_of[index]:.2f})"
                expressions.append({**found, "text": text})
        if expressions:
            yield {**record.gold, "expressions": expressions}
