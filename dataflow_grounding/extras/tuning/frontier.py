"""What a cascade's pilot tells of cost and F1: each model alone, checked, and at each doubt.

Nothing is asked: every figure is made of the replies that the pilot has left.
"""

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from dataflow_grounding._util.errors import InputError, RecordError
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.costs import Amount
from dataflow_grounding.engine.image_memo import log_of
from dataflow_grounding.engine.keyed_log import KeyedLog
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.engine.results_elsewhere import readable_replies
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.extras.evaluation.metrics import evaluate, read_annotations
from dataflow_grounding.extras.evaluation.metrics.annotations import as_gold
from dataflow_grounding.extras.evaluation.metrics.confidence import interval
from dataflow_grounding.extras.evaluation.metrics.pairs import pair
from dataflow_grounding.jobs.estimating import StepOnRecord, Trial, prices_of, tier_of, with_cost
from dataflow_grounding.jobs.image_grounding import GroundingWorkflow
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.operators import BoxChecker, PhraseGrounder, SecondOpinion
from dataflow_grounding.operators.second_opinion import PHRASES_AT_ONCE, doubt_of

MOST_DOUBTS = 6
"""Doubts of one cascade that are told: more would say the same."""
FUSED = "caption_grounding"
"""The step that asks for a caption's phrases and their boxes at once."""
_GROUNDINGS = ("grounding", FUSED)
_LONGEST_NAME = 24  # characters of a model's name in a picture

Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Point:
    """One way to run, and what the pilot's pictures came to in it.

    Attributes:
        name: What people call it.
        keys: Spec keys that ask for it, dotted, below the pipeline's block.
        records: The pilot's records as this way leaves them.
        requests: How many requests each model was sent, by its name.
        amount: What its replies took in all.
        is_own: Whether the spec asks for it as it stands.
    """

    name: str
    keys: Mapping[str, Any]
    records: Sequence[Record]
    requests: Mapping[str, float]
    amount: Amount
    is_own: bool = False


class PilotReplies:
    """A pilot's replies, and what each way to run makes of them.

    Args:
        run: The pilot, which has been run. It has a grounding, a check and further models.
        replies: What it has stored.
        images: What is known of the pictures.
    """

    def __init__(self, run: SpecRun, replies: KeyedLog, images: KeyedLog) -> None:
        self._run = run
        self._replies = replies
        self._images = images
        self._steps = list(run.steps)
        operators = [step.operator for step in self._steps]
        numbers = range(len(operators))
        # Numbers of steps: those that ask the further models, the check, and the grounding.
        self._cascade = [n for n in numbers if isinstance(operators[n], SecondOpinion)]
        self._check = next(n for n in numbers if isinstance(operators[n], BoxChecker))
        self._grounding = next(n for n in numbers if operators[n].name in _GROUNDINGS)
        self.models = [run.serving.model]
        for number in self._cascade:
            serving = operators[number].serving
            assert serving is not None
            self.models.append(serving.model)
        self.names = [short_name(model) for model in self.models]
        self.taken: list[list[StepOnRecord]] = []
        """Of each record of which `read` found all replies stored, what each step left and took."""

    async def read(self) -> None:
        """Take the pilot's records through all steps once more, out of what is stored.

        What comes of them is in `taken`, without those of which a step failed or has no reply.
        """
        everything = self._trial_of(self._steps)
        source = Source(self._steps, pilot=self._run.options.pilot)
        for row in islice(self._run.job.rows(), self._run.options.pilot):
            try:
                record = source.record(row)
            except RecordError:
                continue
            results = await everything.take(record)
            is_whole = results[-1].record is not None
            if is_whole and not any(result.to_send.requests for result in results):
                self.taken.append(results)

    def _trial_of(self, steps: Sequence[Step]) -> Trial:
        """Return what takes records through some steps, with stored replies alone."""
        return Trial(self._run, None, self._replies, self._images, steps)

    def _records_after(self, number: int) -> list[Record]:
        """Return the records as the step of this number left them.

        Raises InputError where it failed on one.
        """
        return [_record_left_by(results[number], self._steps[number]) for results in self.taken]

    def first_alone(self) -> Point:
        """Return what the first model comes to without a check."""
        keys = {"workflow.check": False, "vlm.cascade": None}
        return self._until(self._check, f"{self.names[0]} alone", keys)

    def first_checked(self) -> Point:
        """Return what the first model comes to with its check."""
        return self._until(self._cascade[0], f"{self.names[0]}, checked", {"vlm.cascade": None})

    def _until(self, end: int, name: str, keys: Mapping[str, Any]) -> Point:
        """Return what it takes and gives to run the steps before the one of number `end`.

        `name` and `keys` are what this way to run is called, and its keys of the spec. For 0 there
        are no records. Requests are by model, the amount is that of all models.
        """
        bill = _Bill()
        for results in self.taken:
            for step, result in zip(self._steps[:end], results[:end], strict=True):
                bill.add(self._run, step, result.measured)
        records = self._records_after(end - 1) if end else []
        return Point(name, keys, records, bill.requests, bill.amount)

    async def cascades(self) -> list[Point]:
        """Return what each cascade comes to at each doubt, those of fewer models first.

        The spec's own cascade, and each that leaves out its last models, is told at `doubts_of`.
        """
        workflow = self._run.block.workflow
        assert isinstance(workflow, GroundingWorkflow)
        own = workflow.cascade_doubt
        before = self.first_checked()
        points = []
        for last in range(1, len(self._cascade) + 1):
            is_whole = last == len(self._cascade)
            keys: dict[str, Any] = {} if is_whole else {"vlm.cascade": self.models[: last + 1]}
            for doubt in doubts_of(before.records, own):
                point = await self._with_further_models(doubt, self._cascade[:last], before, keys)
                points.append(replace(point, is_own=is_whole and doubt == own))
        return points

    async def _with_further_models(
        self, doubt: float, numbers: Sequence[int], before: Point, keys: Mapping[str, Any]
    ) -> Point:
        """Return what it takes and gives to ask further models about what is doubted.

        It is worked out from the stored replies of the pilot, in which each model was asked about
        everything: of these, those count that a run with this limit would have asked for.

        Args:
            doubt: The doubt from which on a further model is asked.
            numbers: Which of the further models are asked, one after the other.
            before: The point without them: the checked records, and what they took.
            keys: The spec's keys of this way to run.
        """
        bill = _Bill(before)
        records = list(before.records)
        for number in numbers:
            step = self._steps[number]
            operator = copy.copy(step.operator)
            assert isinstance(operator, SecondOpinion)
            operator.from_doubt = doubt
            operator.asks_all = False  # what is stored about all phrases tells of those in doubt
            at_work = self._trial_of([replace(step, operator=operator)])
            settled = []
            for record in records:
                asked = operator.doubted(record)
                [result] = await at_work.take(record)
                if asked:
                    bill.add(self._run, step, _share_of(result.measured, asked, record))
                settled.append(_record_left_by(result, step))
            records = settled
        name = f"{' → '.join(self.names[: len(numbers) + 1])}, doubt {doubt:g}"
        keys = {**keys, "workflow.cascade_doubt": doubt}
        return Point(name, keys, records, bill.requests, bill.amount)

    async def alone(self, index: int) -> Point:
        """Return what a further model comes to alone, asked for the boxes of all phrases.

        `index` is the model's among the further ones, from 0.
        """
        step = self._steps[self._cascade[index]]
        opinion = step.operator
        assert isinstance(opinion, SecondOpinion)
        grounder = PhraseGrounder(
            opinion.serving, phrases_per_request=PHRASES_AT_ONCE, merge_iou=opinion.merge_iou
        )
        grounder.format_choice = opinion.format_choice
        grounder.wording = opinion.wording
        at_work = self._trial_of([replace(step, operator=grounder)])
        # The steps before the grounding give the phrases. In a fused request they come with the
        # first model's boxes: then the grounding counts, too.
        end = self._grounding
        if self._steps[end].operator.name == FUSED:
            end += 1
        before = self._until(end, "", {})
        bill = _Bill(before)
        records = []
        for phrases in self._records_after(self._grounding):
            [result] = await at_work.take(phrases)
            bill.add(self._run, step, result.measured)
            records.append(_record_left_by(result, step))
        keys = {
            "vlm": f"as vlm.cascade has {self.models[index + 1]}",
            "workflow.check": False,
            "vlm.cascade": None,
        }
        name = f"{self.names[index + 1]} alone"
        return Point(name, keys, records, bill.requests, bill.amount)


def _record_left_by(result: StepOnRecord, step: Step) -> Record:
    """Return the record that a step left.

    Raises InputError where the step failed on it, or would have to ask for a reply that isn't
    stored.
    """
    if result.record is None or result.to_send.requests:
        raise InputError(f"a record of the pilot can't be made again by {step.label}")
    return result.record


class _Bill:
    """What requests come to, by model and in all.

    Args:
        before: A point whose requests are sent, too.
    """

    def __init__(self, before: Point | None = None) -> None:
        self.requests: dict[str, float] = dict(before.requests if before else {})
        self.amount = before.amount if before else Amount()

    def add(self, run: SpecRun, step: Step, took: Amount) -> None:
        """Add what a step took, at the prices of whoever answers it; nothing without requests."""
        if took.requests:
            serving = step.operator.serving or run.serving
            sent_before = self.requests.get(serving.model, 0.0)
            self.requests[serving.model] = sent_before + took.requests
            self.amount += with_cost(took, prices_of(step, run), tier_of(step, run))


def _share_of(of_all: Amount, asked: int, record: Mapping[str, Any]) -> Amount:
    """Return what questions about some of a record's phrases take, by those about all of them.

    What is written is in proportion to the phrases. All else is in proportion to the requests: what
    is read is the picture above all.

    Args:
        of_all: What the questions about all phrases took.
        asked: About how many of them it is.
        record: The record.
    """
    phrases = len(record["expressions"])
    requests = math.ceil(asked / PHRASES_AT_ONCE) / math.ceil(phrases / PHRASES_AT_ONCE)
    return replace(of_all * requests, output=of_all.output * asked / phrases)


def doubts_of(records: Records, own: float) -> list[float]:
    """Return the doubts that are told, the highest first: at each, other phrases are asked about.

    They are those of the phrases, rounded down to hundredths. The spec's own is among them, in
    place of one at which the same phrases are asked about. Where there are more than MOST_DOUBTS,
    as many are chosen from the highest to the lowest, and the spec's own.

    Args:
        records: As a check left them.
        own: The spec's.

    Example:
        >>> doubts_of([], 0.3)
        [0.3]
    """
    counts: Counter[float] = Counter()  # of phrases, by their doubt
    for record in records:
        for expression in record["expressions"]:
            doubt = doubt_of(expression)
            if doubt is not None:
                counts[math.floor(doubt * 100) / 100] += 1
    known = sorted({*counts, own}, reverse=True)
    # Of two between which no phrase lies, the spec's own is told.
    chosen = []
    for doubt in known:
        asks_as_own = _asked(counts, doubt) == _asked(counts, own)
        if doubt == own or not asks_as_own:
            chosen.append(doubt)
    if len(chosen) > MOST_DOUBTS:
        stride = (len(chosen) - 1) / (MOST_DOUBTS - 1)
        evenly = {chosen[round(stride * number)] for number in range(MOST_DOUBTS)}
        chosen = [doubt for doubt in chosen if doubt in evenly or doubt == own]
    return chosen


def _asked(counts: Mapping[float, int], doubt: float) -> int:
    """Return how many phrases have at least this doubt, of `counts` by doubt."""
    return sum(count for value, count in counts.items() if value >= doubt)


def short_name(model: str) -> str:
    """Return what a model is called in a picture: without who made it, and not too long.

    Example:
        >>> short_name("Qwen/Qwen2.5-VL-7B")
        'Qwen2.5-VL-7B'
    """
    name = model.rstrip("/").rpartition("/")[2] or model
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 1]}…"


def gold_for(path: str) -> Records:
    """Return the records of a file with gold. Raises InputError where it has no phrase."""
    truth = as_gold(read_annotations(path))
    if not truth.phrase_count:
        raise InputError(f"{path} has no boxes: --gold is a file of records with the right ones")
    return list(truth)


@dataclass(frozen=True)
class Score:
    """F1 at IoU 0.5 with its 95 % interval, over pictures drawn anew; None without boxes."""

    f1: float | None
    interval: Sequence[float] | None


@dataclass(frozen=True)
class Asked:
    """The part of some gold that a pilot was asked about, as each way to run is.

    Attributes:
        gold: Its records, with those of their phrases that were asked.
        pictures: How many pictures these are.
        phrases: How many phrases.
        not_asked: How many phrases of these pictures were not asked.
    """

    gold: Records
    pictures: int
    phrases: int
    not_asked: int


def asked_of(gold: Records, records: Records) -> Asked:
    """Return the part of gold that a pilot's records were asked about.

    That is the pictures and phrases that both have. Raises InputError where there is none.
    """
    answered = read_annotations([dict(record) for record in records])
    truth = as_gold(read_annotations([dict(record) for record in gold]))
    common = []
    pictures = set()
    phrases = 0
    all_phrases = 0
    for matched in pair(answered, truth):
        if matched.found is None:
            continue
        in_both = []
        for phrase, answered_phrase in matched.phrases:
            if answered_phrase is not None:
                in_both.append(phrase)
        common.append({**matched.gold, "expressions": in_both})
        pictures.add(matched.image)
        phrases += len(in_both)
        all_phrases += len(matched.phrases)
    if not phrases:
        raise InputError("the gold has none of the phrases that the pilot was asked about")
    return Asked(common, len(pictures), phrases, all_phrases - phrases)


def score_of(records: Records, asked: Asked) -> Score:
    """Return how right the boxes of records are, of the phrases that have gold."""
    evaluation = evaluate([dict(record) for record in records], list(asked.gold))
    precision = "precision_at_iou_0.5"
    recall = "recall_at_iou_0.5"
    figures = evaluation.figures
    f1 = _f1(np.array(figures[precision], float), np.array(figures[recall], float))
    drawn = _f1(evaluation.draws[precision], evaluation.draws[recall])
    value = float(f1)
    return Score(None if math.isnan(value) else value, interval(drawn))


def _f1(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Return the harmonic means of pairs; NaN where recall is, and 0 where both are 0.

    Precision is NaN where no box was found, which counts as 0; recall where there are no gold
    boxes.
    """
    precision = np.nan_to_num(precision)
    total = precision + recall
    divisor = np.where(total > 0, total, 1.0)  # where it is 0, so is the product
    f1 = 2 * precision * recall / divisor
    return np.where(np.isnan(recall), np.nan, f1)


def frontier_of(run: SpecRun, gold_path: str | None) -> dict[str, Any]:
    """Return what `frontier.json` holds: what each way to run costs, and how right it is.

    Args:
        run: The pilot, which has been run; with a cascade.
        gold_path: A file with the right boxes; without one, the last model's boxes stand for them.

    Raises:
        InputError: No record of the pilot is whole, or none has gold.
    """
    folder = run.steps[0].storage.checkpoint_folder
    with readable_replies(folder) as replies, closing(log_of(folder)) as images:
        pilot = PilotReplies(run, replies, images)
        points = run_blocking(lambda: _points(pilot))
    gold = gold_for(gold_path) if gold_path else points[-1].records
    asked = asked_of(gold, points[0].records)
    count = len(pilot.taken)
    record_count = run.job.count_records()
    rows = [_row_of(point, asked, count, record_count) for point in points]
    _mark_frontier(rows)
    return {
        "frontier": 1,
        "version": __version__,
        "models": pilot.models,
        "pictures": count,
        "records": record_count,
        "gold": gold_path,
        "judged_by": None if gold_path else pilot.models[-1],
        "pictures_with_gold": asked.pictures,
        "phrases": asked.phrases,
        "phrases_not_asked": asked.not_asked,
        "prices": run.prices_from,
        "points": rows,
    }


def _row_of(point: Point, asked: Asked, count: int, record_count: int | None) -> dict[str, Any]:
    """Return what `frontier.json` says of a way to run, all but whether another is better.

    Args:
        point: The way to run.
        asked: The gold, as far as it was asked about.
        count: How many records of the pilot the way's costs are of.
        record_count: How many the input has; None, where that isn't known, leaves its sums null.
    """
    score = score_of(point.records, asked)
    usd = point.amount.cost_usd / count
    requests = {model: sent / count for model, sent in point.requests.items()}
    has_price = not math.isnan(usd)
    usd_of_all = None
    requests_of_all = None
    if record_count is not None:
        requests_of_all = round(record_count * sum(requests.values()))
        if has_price:
            usd_of_all = round(record_count * usd, 6)
    return {
        "name": point.name,
        "set": dict(point.keys),
        "is_own": point.is_own,
        "f1": None if score.f1 is None else round(score.f1, 4),
        "interval": score.interval,
        "requests_per_1000": {name: round(1000 * n) for name, n in requests.items()},
        "usd_per_1000": round(1000 * usd, 6) if has_price else None,
        "usd_of_all": usd_of_all,
        "requests_of_all": requests_of_all,
    }


async def _points(pilot: PilotReplies) -> list[Point]:
    """Return all ways to run, from the first model alone to the last one alone.

    Raises InputError where no record of the pilot is whole.
    """
    await pilot.read()
    if not pilot.taken:
        raise InputError("no record of the pilot went through all steps")
    points = [pilot.first_alone(), pilot.first_checked(), *await pilot.cascades()]
    for index in range(len(pilot.models) - 1):
        points.append(await pilot.alone(index))
    return points


def cost_of(row: Mapping[str, Any]) -> float:
    """Return what the picture's axis shows: USD, or requests to any model where it has no USD."""
    usd = row["usd_per_1000"]
    if usd is None:
        return float(sum(row["requests_per_1000"].values()))
    return float(usd)


def _mark_frontier(rows: list[dict[str, Any]]) -> None:
    """Set each row's `better` to the name of the first row that is better; None where none is.

    Rows of which none is better are the frontier. Where any row has no USD, all lose theirs, so
    that all are compared by the same: then a row costs no more than another if it takes no more
    requests of any model, as one model's can't be weighed against another's.
    """
    if any(row["usd_per_1000"] is None for row in rows):
        for row in rows:
            row.update(usd_per_1000=None, usd_of_all=None)
    for row in rows:
        better_rows = [rival for rival in rows if _is_better(rival, row)]
        row["better"] = better_rows[0]["name"] if better_rows else None


def _is_better(row: Mapping[str, Any], rival: Mapping[str, Any]) -> bool:
    """Return whether a way is no worse than its rival and costs no more, and not vice versa.

    Of two equal ways neither is better.
    """
    return _is_no_worse(row, rival) and not _is_no_worse(rival, row)


def _is_no_worse(row: Mapping[str, Any], rival: Mapping[str, Any]) -> bool:
    """Return whether a way's F1 is no lower than its rival's, and its cost no higher.

    It isn't where either has no F1. Without USD, costs are requests, of each model by itself.
    """
    if row["f1"] is None or rival["f1"] is None or row["f1"] < rival["f1"]:
        return False
    if row["usd_per_1000"] is not None:
        return bool(row["usd_per_1000"] <= rival["usd_per_1000"])
    allowed = rival["requests_per_1000"]
    return all(count <= allowed.get(name, 0) for name, count in row["requests_per_1000"].items())
