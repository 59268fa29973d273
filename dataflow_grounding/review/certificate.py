"""The certificate of a reviewed sample: how much of a file of records is wrong, with bounds."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import joined
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.data.records import Update
from dataflow_grounding.data.results_folder import run_of
from dataflow_grounding.review._decisions import Sample
from dataflow_grounding.review._overlay import Outcome
from dataflow_grounding.review._sampling import (
    Share,
    groups_of,
    settled_of,
    share_of_phrases,
    share_with_bounds,
    shares_by_group,
)
from dataflow_grounding.review.reviewable import Place, Reviewable

_MOST_TOLD = 12
"""Groups of a kind, such as classes, that are listed in a line: those with the most boxes."""
_MOST_NAMED = 3  # items that are not settled
_NOBODY = "None"  # among the names of reviewers: for items that are not settled


@dataclass
class Certificate:
    """What all samples that were stated for a file together say of it."""

    boxes: Share
    phrases_missed: Share
    by: dict[str, dict[str, Share]]  # shares of boxes by kinds of groups, and by groups
    samples: list[Sample]
    reviewers: dict[str, int]  # how many items each of them settled
    not_settled: list[list[str | int | None]]  # where the others are, as `Reviewable.named` says
    max_error: float | None

    @property
    def is_accepted(self) -> bool:
        """Whether even the upper bound is within the largest share that is allowed."""
        return self.max_error is None or self.boxes.high <= self.max_error

    def to_json(self) -> Update:
        by: Update = {}
        for name, groups in self.by.items():
            by[name] = {group: share.to_json() for group, share in groups.items()}
        row: Update = {"sentence": self.sentence()}
        row |= {"boxes": self.boxes.to_json(), "phrases_missed": self.phrases_missed.to_json()}
        about = ("size", "seed", "when", "who")
        row |= {
            "by": by,
            "samples": [{key: getattr(s, key) for key in about} for s in self.samples],
        }
        row["reviewers"] = self.reviewers
        if self.not_settled:
            row["not_settled"] = self.not_settled
        row["target"] = None
        if self.max_error is not None:
            row["target"] = {"max_error": self.max_error, "accepted": self.is_accepted}
        return row

    def sentence(self) -> str:
        """Return "2.5% of 812 boxes wrong (…), 1.0% of 400 phrases missed (…); accepted: …"."""
        boxes, missed = self.boxes, self.phrases_missed
        text = _in_percent(boxes, f" of {boxes.of:,} boxes wrong") + ", "
        text += _in_percent(missed, f" of {missed.phrases:,} phrases missed")
        unsettled = boxes.unsettled + missed.unsettled
        looked_at = boxes.looked_at + missed.looked_at
        if looked_at and unsettled == looked_at:
            text = f"Nobody has judged this sample of {looked_at} yet; {text}"
        elif unsettled:
            text = f"{unsettled} of {looked_at} open, counted as wrong; {text}"
        if self.max_error is not None:
            _, high = _widened_bounds(boxes)
            verdict = "accepted" if self.is_accepted else "not accepted"
            most = f"{100 * self.max_error:g}%"
            text += f"; {verdict}: up to {high:.1f}% of boxes may be wrong, {most} are allowed"
        return text

    def lines(self, results: str) -> Iterator[str]:
        """Yield the sentence, what is left to do, `by class: 2.5% of cup (…)`."""
        yield self.sentence()
        if self.not_settled:
            named = []
            for key, id, box in self.not_settled:
                named.append(f"{key} {id}" if box is None else f"{key} {id} box {int(box) + 1}")
            shown = ", ".join(named[:_MOST_NAMED])
            if len(named) > _MOST_NAMED:
                shown += f" and {len(named) - _MOST_NAMED} more"
            yield f"not settled, as nobody judged it, or a run changed it since: {shown}"
            for sample in self.samples:
                yield (
                    f"`dataflowgrounding review {results} --sample {sample.size} --seed"
                    f" {sample.seed}` asks for the open ones of that sample; no model is asked"
                )
        for name, groups in self.by.items():
            largest = sorted(groups, key=lambda group: -groups[group].of)[:_MOST_TOLD]
            shares = [_in_percent(groups[group], f" of {excerpt(group, 80)}") for group in largest]
            if len(groups) > len(largest):
                shares.append(f"{len(groups) - len(largest)} more with --json")
            yield f"by {name}: " + "; ".join(shares)


def certify(results: str, max_error: float | None = None) -> Certificate:
    reviewable = Reviewable(results)
    reviewable.decisions.tell_damaged()
    samples, drawn = _samples(reviewable)
    run_model = run_of(reviewable.files.annotations).get("model")
    groups, phrase_count = groups_of(reviewable, str(run_model or ""))
    indices = {place.record for place in drawn}
    outcomes = {index: reviewable.review_of(index).outcomes for index in indices}
    settled = settled_of(outcomes, drawn)
    level = 1 - 0.05 / len(samples)  # nobody gains by drawing samples until a figure pleases
    on_boxes = {place: right for place, right in settled.items() if place.item.box is not None}
    on_phrases = [right for place, right in settled.items() if place.item.box is None]
    without_box = sum(place.item.box is None for place in groups)
    missed = share_with_bounds(on_phrases, without_box, level)
    return Certificate(
        share_with_bounds([*on_boxes.values()], len(groups) - without_box, level),
        share_of_phrases(missed, phrase_count),
        shares_by_group(groups, on_boxes, level),
        samples,
        _reviewers(outcomes, settled),
        [reviewable.named(place) for place, right in settled.items() if right is None],
        max_error,
    )


def _reviewers(
    outcomes: Mapping[int, Mapping[str, Outcome]], settled: Mapping[Place, bool | None]
) -> dict[str, int]:
    counts = Counter[str]()
    for place, is_right in settled.items():
        if is_right is None:
            counts[_NOBODY] += 1
            continue
        outcome = outcomes[place.record][place.item.id]
        box = None if place.item.box is None else outcome.box_after(place.item.box)
        # Another one than who decided last on the phrase may have judged this box of it.
        counts[(box and box.reviewed_by) or outcome.who] += 1
    return dict(counts)


def _samples(reviewable: Reviewable) -> tuple[list[Sample], list[Place]]:
    """Return the samples of this version of the file, and their items, each once.

    Their folders of pictures are put first.
    """
    decisions = reviewable.decisions
    samples: dict[tuple[int, int], Sample] = {}  # by size and seed
    drawn: dict[Place, None] = {}
    for stated in decisions.samples:
        if stated.image_root:
            # A relative path starts from the folder of the file of decisions.
            pictures = joined(os.path.dirname(decisions.path), stated.image_root)
            reviewable.folders = (pictures, *reviewable.folders)
        if not stated.size:
            continue
        expected, items = reviewable.draw_sample(stated.size, stated.seed)
        # Other items may be drawn by now; another reviewer may have stated the same sample again.
        if stated.items == expected.items:
            samples.setdefault((stated.size, stated.seed), stated)
            drawn |= dict.fromkeys(items)
    if not samples:
        raise _no_sample(reviewable.files.annotations, decisions.samples)
    return list(samples.values()), list(drawn)


def _no_sample(annotations: str, of_other_versions: Sequence[Sample]) -> InputError:
    why = "has none"
    size = 200
    further = ""
    if of_other_versions:  # then the message proposes the size of the last one
        why = "has changed since one was stated"
        further = ": what was judged and is as it was still counts, only the rest is asked for"
        size = of_other_versions[-1].size or size
    command = f"dataflowgrounding review {annotations} --sample {size}"
    return InputError(f"no sample to certify: {annotations} {why}. Run `{command}`{further}")


def _in_percent(share: Share, of_what: str) -> str:
    """Return "2.5% of 812 boxes wrong (95%: 0.9–5.4%)", or the bounds alone."""
    low, high = _widened_bounds(share)
    all_unsettled = share.looked_at > 0 and share.unsettled == share.looked_at
    if share.share is None or all_unsettled:  # a share would look like an answer
        return f"not judged: {low:.1f} to {high:.1f}%{of_what}"
    return f"{100 * share.share:.1f}%{of_what} (95%: {low:.1f}–{high:.1f}%)"


def _widened_bounds(share: Share) -> tuple[float, float]:
    """Return bounds in percent, rounded so that they only widen."""
    # The inner `round` takes the last digits off a product of floats: they should widen nothing.
    low = math.floor(round(1000 * share.low, 3)) / 10
    high = math.ceil(round(1000 * share.high, 3)) / 10
    return low, high
