"""The certificate of a reviewed sample: how much of a file of records is wrong, with bounds."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import joined
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.data.results_folder import run_of
from dataflow_grounding.review._sampling import (
    groups_of,
    sample_figures,
    settled_of,
)
from dataflow_grounding.review.reviewable import Place, Reviewable

_MOST_TOLD = 12
"""Groups of a kind, such as classes, that are listed in a line: those with the most boxes."""
_MOST_NAMED = 3  # items that are not settled
_NOBODY = "None"  # among the names of reviewers: for items that are not settled


class StatedSample(NamedTuple):
    """A sample that reviews.jsonl states of the file as it is."""

    # {"size": 200, "seed": 1, "when": …, "who": …}
    about: dict[str, Any]
    items: list[Place]


def certify(results: str, max_error: float | None = None) -> dict[str, Any]:
    """Return what all samples that were stated for RESULTS together say of it, as JSON."""
    reviewable = Reviewable(results)
    reviewable.decisions.tell_damaged()
    samples = _samples(reviewable)
    run_model = run_of(reviewable.files.annotations).get("model")
    groups, phrase_count = groups_of(reviewable, str(run_model or ""))
    drawn = dict.fromkeys(item for sample in samples for item in sample.items)  # each once
    settled = settled_of(reviewable, drawn)
    level = 1 - 0.05 / len(samples)  # nobody gains by drawing samples until a figure pleases
    certificate = sample_figures(groups, phrase_count, settled, level)
    certificate["samples"] = [sample.about for sample in samples]
    certificate["reviewers"] = _reviewers(reviewable, settled)
    unsettled = [place for place, is_right in settled.items() if is_right is None]
    if unsettled:
        certificate["not_settled"] = [reviewable.named(place) for place in unsettled]
    certificate["target"] = None
    if max_error is not None:  # even the upper bound has to be within it
        is_accepted = certificate["boxes"]["high"] <= max_error
        certificate["target"] = {"max_error": max_error, "accepted": is_accepted}
    return {"sentence": _sentence(certificate), **certificate}


def _reviewers(reviewable: Reviewable, settled: Mapping[Place, bool | None]) -> dict[str, int]:
    """Return how many items each reviewer settled, by name."""
    counts = Counter[str]()
    for place, is_right in settled.items():
        if is_right is None:
            counts[_NOBODY] += 1
            continue
        outcome = reviewable.review_of(place.record).outcomes[place.item.id]
        who = outcome.who  # who decided last on the phrase
        box = None if place.item.box is None else outcome.box_after(place.item.box)
        if box is not None and box.get("reviewed_by"):
            who = box["reviewed_by"]  # another one may have judged this box of the phrase
        counts[str(who)] += 1
    return dict(counts)


def _samples(reviewable: Reviewable) -> list[StatedSample]:
    """Return the samples of this version of the file; put their folders of pictures first."""
    decisions = reviewable.decisions
    samples: dict[tuple[int, int], StatedSample] = {}  # by size and seed
    for stated in decisions.samples:
        if stated.get("image_root"):
            # A relative path starts from the folder of the file of decisions.
            pictures = joined(os.path.dirname(decisions.path), str(stated["image_root"]))
            reviewable.folders = (pictures, *reviewable.folders)
        items = _items_of_sample(reviewable, stated)
        if items is None:  # other items would be drawn by now, or the line is damaged
            continue
        size_and_seed = (stated["size"], stated["seed"])
        # Another reviewer may have stated the same sample again.
        if size_and_seed not in samples:
            about = {name: stated[name] for name in ("size", "seed", "when", "who")}
            samples[size_and_seed] = StatedSample(about, items)
    if not samples:
        raise _no_sample(reviewable.files.annotations, decisions.samples)
    return list(samples.values())


def _items_of_sample(reviewable: Reviewable, stated: Mapping[str, Any]) -> list[Place] | None:
    """Return the items that a line names; None where its seed draws others from the file by now."""
    size = stated.get("size")
    seed = stated.get("seed")
    if type(size) is not int or type(seed) is not int or size <= 0:
        return None
    expected, items = reviewable.draw_sample(size, seed)
    return items if stated.get("items") == expected["items"] else None


def _no_sample(annotations: str, of_other_versions: Sequence[Mapping[str, Any]]) -> InputError:
    why = "has none"
    size = 200
    further = ""
    if of_other_versions:  # then the message proposes the size of the last one
        why = "has changed since one was stated"
        further = ": what was judged and is as it was still counts, only the rest is asked for"
        last_size = of_other_versions[-1].get("size")
        if type(last_size) is int and last_size > 0:
            size = last_size
    command = f"dataflowgrounding review {annotations} --sample {size}"
    return InputError(f"no sample to certify: {annotations} {why}. Run `{command}`{further}")


def _sentence(certificate: Mapping[str, Any]) -> str:
    """Return "2.5% of 812 boxes wrong (…), 1.0% of 400 phrases missed (…); accepted: up to …"."""
    boxes = certificate["boxes"]
    missed = certificate["phrases_missed"]
    target = certificate["target"]
    text = _in_percent(boxes, f" of {boxes['of']:,} boxes wrong") + ", "
    text += _in_percent(missed, f" of {missed['phrases']:,} phrases missed")
    unsettled = boxes["unsettled"] + missed["unsettled"]
    looked_at = boxes["looked_at"] + missed["looked_at"]
    if looked_at and unsettled == looked_at:
        text = f"Nobody has judged this sample of {looked_at} yet; {text}"
    elif unsettled:
        text = f"{unsettled} of {looked_at} open, counted as wrong; {text}"
    if target:
        _, high = _widened_bounds(boxes)
        verdict = "accepted" if target["accepted"] else "not accepted"
        most = f"{100 * target['max_error']:g}%"
        text += f"; {verdict}: up to {high:.1f}% of boxes may be wrong, {most} are allowed"
    return text


def certificate_lines(certificate: Mapping[str, Any], results: str) -> Iterator[str]:
    """Yield lines for a terminal: the sentence, what is left to do, `by class: 2.5% of cup (…)`."""
    yield certificate["sentence"]
    yield from _ways_to_settle(certificate, results)
    for name, groups in certificate["by"].items():
        largest = sorted(groups, key=lambda group: -groups[group]["of"])[:_MOST_TOLD]
        shares = [_in_percent(groups[group], f" of {excerpt(group, 80)}") for group in largest]
        if len(groups) > len(largest):
            shares.append(f"{len(groups) - len(largest)} more with --json")
        yield f"by {name}: " + "; ".join(shares)


def _in_percent(figure: Mapping[str, Any], of_what: str) -> str:
    """Return "2.5% of 812 boxes wrong (95%: 0.9–5.4%)", or the bounds alone."""
    low, high = _widened_bounds(figure)
    all_unsettled = figure["looked_at"] > 0 and figure["unsettled"] == figure["looked_at"]
    if figure["share"] is None or all_unsettled:  # a share would look like an answer
        return f"not judged: {low:.1f} to {high:.1f}%{of_what}"
    return f"{100 * figure['share']:.1f}%{of_what} (95%: {low:.1f}–{high:.1f}%)"


def _widened_bounds(figure: Mapping[str, Any]) -> tuple[float, float]:
    """Return a figure's bounds in percent, rounded so that they only widen."""
    # The inner `round` takes the last digits off a product of floats: they should widen nothing.
    low = math.floor(round(1000 * figure["low"], 3)) / 10
    high = math.ceil(round(1000 * figure["high"], 3)) / 10
    return low, high


def _ways_to_settle(certificate: Mapping[str, Any], results: str) -> Iterator[str]:
    items = certificate.get("not_settled")
    if not items:
        return
    named = []
    for key, id, box in items:
        box_name = "" if box is None else f" box {box + 1}"
        named.append(f"{key} {id}{box_name}")
    shown = ", ".join(named[:_MOST_NAMED])
    if len(named) > _MOST_NAMED:
        shown += f" and {len(named) - _MOST_NAMED} more"
    yield f"not settled, as nobody judged it, or a run changed it since: {shown}"
    for sample in certificate["samples"]:
        yield (
            f"`dataflowgrounding review {results} --sample {sample['size']} --seed"
            f" {sample['seed']}` asks for the open ones of that sample; no model is asked"
        )
