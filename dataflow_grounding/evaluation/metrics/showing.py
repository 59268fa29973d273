"""Measures as people see them: Markdown tables, records of the worst cases."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

import numpy as np

from dataflow_grounding.data.records import JsonObject, Update
from dataflow_grounding.evaluation.metrics.comparing import Evaluation

# What measures say, by name or by what a name begins with; docs/measures.md says it exactly.
_GLOSSES = {
    "precision_at_iou_": "of found boxes, the right ones",
    "recall_at_iou_": "of gold boxes, the found ones",
    "f1_at_iou_": "precision and recall as one",
    "acc_0.5": "first box overlaps by IoU 0.5 or more",
    "miou": "mean IoU of the first box",
    "t_acc": "of what is there, what got a box",
    "n_acc": "of what is absent, what got no box",
    "il_mcc": "tells there from absent; 0 is chance",
    "span_exact_f1": "F1 of places in captions",
    "ap": "COCO's average precision",
    "map": "mean of the classes' ap",
    "expressions_not_judged": "gold phrases that are no answer",
    "expressions_missing": "not predicted, so wrong",
    "expressions_not_in_gold": "predicted, not in the gold",
    "expressions_of_other_records": "predicted for other pictures",
    "scored_boxes": "boxes with a score",
}
_MOST_CLASSES = 30  # of the page on a terminal
_MEASURES_OF_CLASS = ("precision", "recall", "f1", "ap")


def page(figures: JsonObject, names: Sequence[str], *, short: bool = False) -> str:
    """Return what `Evaluation.to_json` says as Markdown, of one run or of two (`compared`).

    A short page has the largest classes alone, and no counts of 0.
    """
    compared = figures.get("compared")
    missing = [name for name, value in figures.items() if value is None]
    parts = [_runs_table(figures, compared, names, short)]
    if missing:
        parts.append(f"Nothing to measure: {', '.join(missing)}.")
    classes = figures.get("classes", {})
    if short:
        largest = sorted(classes, key=lambda name: -classes[name]["gold_boxes"])[:_MOST_CLASSES]
        # in their own order, which may be that of the user's list
        classes = {name: row for name, row in classes.items() if name in largest}
    if classes:
        parts.append(_classes_table(classes, compared, names))
    parts += [f"Note: {note}" for note in figures["notes"]]
    if short:
        parts.append("-o FOLDER writes this, all classes, and a page of the worst cases.")
    return "\n\n".join(parts)


def _gloss_of(measure: str) -> str:
    for name, gloss in _GLOSSES.items():
        if measure == name or (name.endswith("_") and measure.startswith(name)):
            return gloss
    return ""


def _runs_table(
    figures: JsonObject,
    compared: JsonObject | None,
    names: Sequence[str],
    short: bool,
) -> str:
    """Return a table of one run with what each measure says, or of two with their difference."""
    heads = ["measure", names[0], "95 %"]
    runs = [figures]
    if compared:
        heads += [names[1], "95 %", "difference", "95 %"]
        difference = {**compared["difference"], "intervals": compared["intervals"]}
        runs += [compared["figures"], difference]
    heads.append("what it says")
    rows = []
    for name, value in figures.items():
        is_zero_count = value == 0 and isinstance(value, int)
        if isinstance(value, (Mapping, list)) or (short and is_zero_count):
            continue
        cells = []
        for run in runs:
            cells += [_shown(run.get(name)), _shown(run["intervals"].get(name))]
        if any(cells):
            rows.append([name, *cells, _gloss_of(name)])
    return table(heads, rows)


def _classes_table(
    classes: Mapping[str, JsonObject],
    compared: JsonObject | None,
    names: Sequence[str],
) -> str:
    heads = ["class", "gold boxes", "boxes"]
    for measure in _MEASURES_OF_CLASS:
        heads += [measure, "95 %"]
        if compared:
            heads += [f"{names[1]} less {names[0]}", "95 %"]
    rows = []
    for name, figures in classes.items():
        row = [name, _shown(figures["gold_boxes"]), _shown(figures["boxes"])]
        for measure in _MEASURES_OF_CLASS:
            row += [_shown(figures[measure]), _shown(figures["intervals"].get(measure))]
            if compared:
                of_class = compared.get("classes", {}).get(name)
                difference = of_class["difference"].get(measure) if of_class else None
                interval = of_class["intervals"].get(measure) if of_class else None
                row += [_shown(difference), _shown(interval)]
        rows.append(row)
    return table(heads, rows)


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


def worst_cases(run: Evaluation, most: int = 100) -> Iterator[Update]:
    """Yield records with the `most` phrases that are least right, each before what was found."""
    overlap_of = run.overlaps
    wrong_count = int((~run.right).sum())
    # Wrong phrases come first, those with the smallest overlap in front: lexsort sorts by its last
    # key, then by the one before it.
    by_badness = np.lexsort((overlap_of, run.right))
    worst = set(by_badness[: min(most, wrong_count)].tolist())
    numbers = count()  # of the gold's names, as `overlaps` and `right` have them
    for record, names in run.names():
        expressions = []
        for name in names:
            if not name.gold:
                continue
            index = next(numbers)
            if index not in worst:
                continue
            for gold in name.gold:
                expressions.append({**gold.to_json(), "text": f"{gold.text} (gold)"})
            for found in name.found:
                text = f"{found.text} (found, IoU {overlap_of[index]:.2f})"
                expressions.append({**found.to_json(), "text": text})
        if expressions:
            yield {**record, "expressions": expressions}
