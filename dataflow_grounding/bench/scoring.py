"""Figures of a way of asking, from the results of its run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataflow_grounding.bench.choosing import interval_of_mean
from dataflow_grounding.bench.own_pictures import OWN_KIND, mean_f1
from dataflow_grounding.bench.ways import WAYS, Spans
from dataflow_grounding.data.results_folder import records_of
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.engine.unreadable import unreadable_facts
from dataflow_grounding.evaluation.metrics import evaluate

OF_BOXES = ("precision_at_iou_0.5", "recall_at_iou_0.5", "miou", "n_acc", "il_mcc", "gprec_f1")
OF_SPANS = ("span_exact_f1", "span_overlap_f1")
"""The figures of a way, of boxes and of spans, by the names that `eval` has for them."""
_OF_KINDS = ("precision_at_iou_0.5", "recall_at_iou_0.5", "n_acc")
_DIGITS = 4


def figures_of_way(way: str, summary: Summary, gold: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what `bench.json` has under a way's `figures`, by the summary of its run."""
    records = list(records_of(summary.annotations)) if summary.done else []
    return {"counts": _counts(summary, len(gold)), **_figures(way, records, gold)}


def _counts(summary: Summary, pictures: int) -> dict[str, Any]:
    counts = {
        "pictures": pictures,
        "failed": pictures - summary.done,
        "unreadable": summary.requests["unreadable"],
        "unchecked": summary.expressions["not checked"],
    }
    if not counts["unreadable"]:  # no further keys then, as in files of earlier versions
        return counts
    return counts | unreadable_facts(summary.requests)


def _figures(
    way: str, records: Sequence[Mapping[str, Any]], gold: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return {"all": figures of all pictures, "kinds": {"crowd": figures of these, …}}."""
    # Gold and run then have one name for a picture: their own paths start from other folders.
    right = [_with_path_of_id(record) for record in gold]
    answered = [_with_path_of_id(record) for record in records]
    answered += _empty_answers_for_failed(answered, right)
    if issubclass(WAYS[way], Spans):
        return {"all": _figures_of_spans(answered, right)}
    if gold[0]["kind"] == OWN_KIND:  # then all are the user's own
        return _figures_of_own(answered, right)
    figures_by_kind: dict[str, Any] = {}
    for kind in dict.fromkeys(record["kind"] for record in gold):
        of_kind = [record for record in right if record["kind"] == kind]
        figures_by_kind[kind] = _evaluated(answered, of_kind, _OF_KINDS)
    return {"all": _evaluated(answered, right, OF_BOXES), "kinds": figures_by_kind}


def _empty_answers_for_failed(
    answered: Sequence[dict[str, Any]], gold: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return empty records: phrases of pictures that failed then count as not found."""
    answered_paths = {record["image_path"] for record in answered}
    empty_answers = []
    for record in gold:
        if record["image_path"] not in answered_paths:
            picture = {name: record[name] for name in ("image_path", "caption")}
            empty_answers.append({**picture, "expressions": []})
    return empty_answers


def _figures_of_spans(
    answered: Sequence[dict[str, Any]], gold: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    in_captions = []
    for record in gold:
        # A model that reads the caption can't find the other phrases.
        placed = [expression for expression in record["expressions"] if expression["char_span"]]
        in_captions.append({**record, "expressions": placed})
    figures = _evaluated(answered, in_captions, OF_SPANS)
    for name in OF_SPANS:
        if figures[name]["value"] is None:
            # The model has found no phrase in any caption. `eval` gives no figure then, because it
            # takes that for results without spans.
            figures[name]["value"] = 0.0
    return figures


def _figures_of_own(
    answered: Sequence[dict[str, Any]], gold: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    answer_by_path = {record["image_path"]: record for record in answered}
    scores = []
    for record in gold:
        score = mean_f1(record["expressions"], answer_by_path[record["image_path"]])
        scores.append(round(score, _DIGITS))
    mean = _figure(sum(scores) / len(scores), interval_of_mean(np.array(scores)))
    return {
        "all": {"mean_f1": mean, **_evaluated(answered, gold, OF_BOXES)},
        "kinds": {},
        "scores": scores,
    }


def _with_path_of_id(record: Mapping[str, Any]) -> dict[str, Any]:
    return {**record, "image_path": f"{record['image_id']}.jpg"}


def _evaluated(
    answered: Sequence[dict[str, Any]], gold: Sequence[dict[str, Any]], names: Sequence[str]
) -> dict[str, Any]:
    evaluation = evaluate(list(answered), list(gold)).to_json()
    figures: dict[str, Any] = {"phrases": evaluation["expressions"]}
    for name in names:
        figures[name] = _figure(evaluation.get(name), evaluation["intervals"].get(name))
    return figures


def _figure(value: float | None, interval: Sequence[float] | None) -> dict[str, Any]:
    """Return {"value": 0.71, "interval": [0.68, 0.74]}."""
    rounded_value = None if value is None else round(value, _DIGITS)
    rounded_ends = None
    # With one picture, or if a figure is 1 in each picture, both ends are equal. Such an interval
    # is left out, because it would seem to say that the figure is exact.
    if interval is not None and interval[0] != interval[1]:
        rounded_ends = [round(end, _DIGITS) for end in interval]
    return {"value": rounded_value, "interval": rounded_ends}
