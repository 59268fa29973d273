"""What a run will send and cost, before it sends anything: rows times what a row takes.

That is stated for each task, and asked of operators (`requests_for`). Once replies are stored, such
as a pilot's, it is what these took.
"""

import functools
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from math import ceil, nan, sqrt
from statistics import fmean, pvariance
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding.data import bucket
from dataflow_grounding.data.records import Record, dump_text, read_expressions
from dataflow_grounding.data.results_folder import CKPT
from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.costs import Amount
from dataflow_grounding.engine.image_memo import ImageMemo, log_of
from dataflow_grounding.engine.keyed_log import (
    CHECK,
    KeyedLog,
    other_stores,
    read_lines,
    store_path,
)
from dataflow_grounding.engine.options import OwnPictures
from dataflow_grounding.engine.plan import Step, WholeFile, image_column
from dataflow_grounding.engine.reply_line import usage_of
from dataflow_grounding.engine.source import IMAGE_COLUMN, Source, in_pilot, pictures_of
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.jobs.answerable import unanswerable
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.operators import Operator, texts_of
from dataflow_grounding.operators.box_checker import BoxChecker
from dataflow_grounding.operators.box_verifier import USUAL_PHRASES, BoxVerifier
from dataflow_grounding.operators.phrase_grounder import PhraseGrounder
from dataflow_grounding.operators.phrase_lister import PhraseLister
from dataflow_grounding.serving.serving import Serving, Usage
from dataflow_grounding.serving.token_rules import TokenRules
from dataflow_grounding.tasks.prompts import load_prompt, prompt_names
from dataflow_grounding.tasks.request import filled
from dataflow_grounding.trust.kinds import probes_for, sent_sizes

MOST = 20_000
"""How many records are looked at, at most; of more, a random sample of this size."""


class _Mean(NamedTuple):
    """What a step takes on average, before any of its replies is stored."""

    requests: float  # for a record
    output: int  # tokens of a reply


_USUAL = _Mean(1, 60)  # of an operator that isn't listed
_DATA = 60  # tokens of a request's data, which comes after the prompt
# By the operator's name. Measured on the ten captions and four pictures with boxes of example_data,
# with replies of the form that each task asks for: 4 phrases a caption. Steps that ask about what
# an earlier one has found wrong or small ask nothing there.
_MEANS = {
    "expression_extraction": _Mean(1, 95),
    "grounding": _Mean(1, 95),
    "tile_grounding": _Mean(1, 25),  # most tiles show nothing of most phrases
    "caption_grounding": _Mean(1, 190),
    "image_caption": _Mean(1, 25),
    "region_expr": _Mean(1, 123),
    "grounding_expr": _Mean(1, 91),
    "double_check": _Mean(1, 132),
    "region_caption": _Mean(1, 84),
    "box_check": _Mean(1, 93),
    "negative_phrases": _Mean(1, 53),
    "box_verification": _Mean(1, 25),
    "box_refinement": _Mean(0, 25),
    "missing_search": _Mean(0, 25),
}


class _StepEstimate:
    """What a step sends for records, by stated means."""

    def __init__(self, step: Step, run: SpecRun) -> None:
        self.step = step
        self.mean = _mean_of(step.operator)
        self.rules = _rules_of(step.operator.serving or run.serving)
        self.to_send = Amount()
        box_format = run.job.box_format
        self._words = box_format.format.instructions((1000, 1000)) if box_format else ""

    async def of_record(self, record: Record, memo: ImageMemo, sent_columns: set[str]) -> Amount:
        """Return what is sent for a record, as the first step gets it. `sent_columns` are those of
        the pictures that earlier steps send; this step's is added.
        """
        operator = self.step.operator
        requests = self.mean.requests
        if isinstance(operator, Operator):
            requests *= operator.requests_for(record)
        if operator.serving is None or not requests:
            return Amount()
        return await self._of_request(record, memo, sent_columns) * requests

    async def _of_request(self, record: Record, memo: ImageMemo, sent_columns: set[str]) -> Amount:
        operator = self.step.operator
        beginning_tokens = 0  # tokens that requests of all steps about a picture begin with
        column = image_column(operator, record)
        # A judge is sent the picture with boxes drawn in, which no earlier step is.
        is_cached = column in sent_columns and not isinstance(operator, BoxChecker)
        if column:
            sent_columns.add(column)
        if column is not None and operator.serving is not None:
            limits = operator.serving.image_limits
            image = await memo.prepare(record, column, limits)
            if self.rules is not None:
                pictures = operator.pictures(image) if isinstance(operator, Operator) else [image]
                tokens = [self.rules.image(picture.sent_size) for picture in pictures]
                beginning_tokens += round(fmean(tokens))
                is_cached = is_cached and len(pictures) == 1
        if self.rules is None:
            return Amount(1)
        beginning_tokens += self.rules.text(load_prompt("system"))
        further_tokens = _DATA
        further_tokens += self._phrase_tokens(record, self.rules)
        further_tokens += self.rules.text(operator.wording.guidance if operator.wording else "")
        for name in getattr(operator, "tasks", ())[:1]:
            if name in prompt_names():  # a task of the user's own has no prompt here
                further_tokens += self.rules.text(
                    filled(load_prompt(name), {"box_format": self._words})
                )
        is_cached = is_cached and beginning_tokens >= self.rules.least_cached
        return Amount(
            requests=1,
            input=beginning_tokens + further_tokens,
            cached=beginning_tokens if is_cached else 0,
            output=self.mean.output,
        )

    def _phrase_tokens(self, record: Record, rules: TokenRules) -> int:
        # How many tokens of a request are phrases that the record has from the start.
        operator = self.step.operator
        if not isinstance(operator, PhraseGrounder) or operator.keys.expressions not in record:
            return 0
        phrases = texts_of(read_expressions(record, operator.keys.expressions))
        items = [{"id": number, "text": phrase} for number, phrase in enumerate(phrases, 1)]
        requests = max(1, ceil(len(phrases) / operator.phrases_per_request))
        return round(rules.text(dump_text(items)) / requests)

    def left(self, stored: "_StoredReplies", rows: float, done: float, weight: float) -> Amount:
        """Return what is left to send, without USD. `done` of the `rows` have been answered, and
        each record that was counted counts for `weight` records.
        """
        stated = self.to_send * weight
        if not (stored.paid.requests and done):
            return stated
        measured = stored.paid * ((rows - done) / done)
        if measured.input or not stated.requests:
            return measured
        return stated * (measured.requests / stated.requests)  # the endpoint counts no tokens


def _mean_of(operator: Any) -> _Mean:
    mean = _MEANS.get(operator.name, _USUAL)
    if isinstance(operator, BoxVerifier) and operator.phrases_per_request > 1:
        return _Mean(1, USUAL_PHRASES * mean.output)
    return mean


def _rules_of(serving: Serving) -> TokenRules | None:
    if not serving.endpoint.startswith(("http://", "https://")):
        return None
    return TokenRules(serving.model, getattr(serving, "media_resolution", ""))


@dataclass
class _StoredReplies:
    """The replies to a step's questions that are stored."""

    paid: Amount = field(default_factory=Amount)
    first_tries: int = 0  # how many of them answer the first try of their question


def _stored_by_step(run: SpecRun) -> dict[str, _StoredReplies]:
    by_step: dict[str, _StoredReplies] = defaultdict(_StoredReplies)
    if run.options.force_reprocess:
        return by_step
    models = {step.label: (step.operator.serving or run.serving).model for step in run.job.steps}
    with _stored_replies(run.job.steps[0].storage.checkpoint_folder) as replies:
        seen_keys = set()  # several stores may hold the same reply
        for log in (replies, *replies.others):
            for line in read_lines(log.path, 0, log.end):
                label = str(line.get("step"))
                is_new_answer = line.get("task") != CHECK and line["key"] not in seen_keys
                if is_new_answer and label in models and line.get("model") == models[label]:
                    seen_keys.add(line["key"])
                    by_step[label].paid += Amount(1, *usage_of(line).as_list())
                    by_step[label].first_tries += not line.get("attempt")
    return by_step


@contextmanager
def _stored_replies(folder: str) -> Iterator[KeyedLog]:
    # Nothing in the folder is changed: a run may be at work there.
    with bucket.copied(os.path.dirname(os.path.abspath(folder)), replies=True) as results:
        others = {*other_stores(folder), *other_stores(os.path.join(results, CKPT))}
        with closing(KeyedLog(store_path(folder), read_only=True, others=others)) as log:
            yield log


async def _count_sent(
    steps: Sequence[_StepEstimate], records: Iterator[Record], memo: ImageMemo
) -> list[float]:
    # Adds what is sent to each step's `to_send`, and tells each record's tokens, or its requests
    # where its tokens aren't known.
    sent = []
    for record in records:
        with suppress(RecordError):
            total = Amount()
            sent_columns: set[str] = set()  # of the pictures that steps so far send
            amounts = []
            for step in steps:
                amounts.append(await step.of_record(record, memo, sent_columns))
                operator = step.step.operator
                if isinstance(operator, PhraseLister):  # how many phrases later steps ask for
                    record = record.updated(operator.listed(record))
            for step, amount in zip(steps, amounts, strict=True):
                step.to_send += amount
                total += amount
            sent.append(total.input or total.requests)
    return sent


def _records(run: SpecRun, rows: Iterator[Row]) -> Iterator[Record]:
    # A row that can't be read counts for nothing, and equal ones are asked about once.
    source = Source(run.job.steps)
    seen = set()
    for row in rows:
        content = repr(row.data)
        if content in seen:
            continue
        seen.add(content)
        with suppress(RecordError):
            yield source.record(row)


def estimate(run: SpecRun) -> dict[str, Any]:
    """Return what a run will still send and cost, as one JSON object. Stored replies are taken to
    be of the input's rows and the spec's words. `error` is the share of the tokens that the totals
    may be off by (95%), where not all records were looked at.
    """
    for step in run.job.steps:
        if isinstance(step.operator, WholeFile):
            raise SpecError(f"{step.label} works on whole files: what it sends can't be estimated")
    lines = unanswerable(run)
    if lines:
        raise SpecError("\n".join(lines))
    steps = [_StepEstimate(step, run) for step in run.job.steps]
    record_count, rows = _count_and_rows_to_look_at(run)
    looked_at = min(record_count, MOST)
    with closing(log_of(run.job.steps[0].storage.checkpoint_folder)) as images:
        memo = ImageMemo(images, keeps=False)
        sent = run_blocking(lambda: _count_sent(steps, _records(run, rows), memo))
    stored = _stored_by_step(run)
    amounts = _left(run, steps, stored, counted=len(sent), weight=record_count / max(1, looked_at))
    probes = _probes(run, amounts)
    expected = _with_probes_and_cost(run, amounts, probes)
    rules = _rules_of(run.serving)
    return {
        "pipeline": run.spec.autolabel_type,
        "model": run.serving.model,
        "asks": run.who,
        "records": record_count,
        "looked_at": looked_at,
        "error": None if looked_at == record_count else _error(sent, record_count),
        **sum(expected, Amount()).to_json(),
        "stored": round(sum(one.paid.requests for one in stored.values())),
        "probes": sum(probes),
        "steps": [
            {"step": step.label, **amount.to_json(), "probes": probes_of_step}
            for step, amount, probes_of_step in zip(run.job.steps, expected, probes, strict=True)
        ],
        "measured": bool(stored),
        "image_rule": rules and ("published" if rules.known else "assumed"),
        "calibration_first": run.calibrates,
        "prices": run.prices_from,
    }


def _left(
    run: SpecRun,
    steps: Sequence[_StepEstimate],
    stored: dict[str, _StoredReplies],
    counted: int,
    weight: float,
) -> list[Amount]:
    # The first step that asks tells how many rows are done. Where each step waits for the one
    # before it to end, a later one may not be that far.
    rows = counted * weight
    done = rows
    is_first = True
    left = []
    for step in steps:
        replies = stored.get(step.step.label, _StoredReplies())
        requests_of_row = step.to_send.requests / max(1, counted)
        if requests_of_row and (is_first or not run.options.stream):
            done = min(done, replies.first_tries / requests_of_row)
            is_first = False
        left.append(step.left(replies, rows, done, weight))
    return left


def _with_probes_and_cost(
    run: SpecRun, amounts: Sequence[Amount], probes: Sequence[int]
) -> list[Amount]:
    expected = []
    for step, amount, probes_of_step in zip(run.job.steps, amounts, probes, strict=True):
        if amount.requests:
            # A probe costs about what a request of its step does.
            amount += amount * (probes_of_step / amount.requests)
        expected.append(_with_cost(amount, run, step.operator.serving or run.serving))
    return expected


def _with_cost(amount: Amount, run: SpecRun, serving: Serving) -> Amount:
    # All of the amount is taken to be served in the serving's tier.
    prices = run.judges_prices.get(serving.model, run.options.prices)
    tokens = Usage(round(amount.input), round(amount.cached), round(amount.output))
    cost = prices.cost(tokens, serving.service_tier) if prices else nan
    return replace(amount, cost_usd=cost)


def _count_and_rows_to_look_at(run: SpecRun) -> tuple[int, Iterator[Row]]:
    pilot = run.options.pilot
    total = sum(1 for _ in run.job.input.rows())
    places: Sequence[int] = range(total)
    if pilot is not None:
        places = [place for place in places if in_pilot(place, total, pilot)]
    drawn = set(places if len(places) <= MOST else random.Random(0).sample(places, MOST))
    return len(places), (row for place, row in enumerate(run.job.input.rows()) if place in drawn)


def _error(sent: Sequence[float], records: int) -> float:
    # Half of the 95% interval of the sum over all records, as a share of that sum. `sent` is of a
    # random sample of them, in which each comes once.
    mean = fmean(sent) if sent else 0
    if not mean:
        return 0.0
    standard_error = sqrt(pvariance(sent) / len(sent) * (1 - len(sent) / records))
    return round(1.96 * standard_error / mean, 4)


def _probes(run: SpecRun, amounts: Sequence[Amount]) -> list[int]:
    # How many probes each step sends. The requests of all steps that watch their boxes count
    # together. Pictures are looked at only if some step has its boxes checked.
    pictures = functools.cache(functools.partial(_pictures, run))
    watched = 0.0  # requests of the steps so far
    probes_so_far = 0
    probes = []
    for step, amount in zip(run.job.steps, amounts, strict=True):
        serving = step.operator.serving
        check_every = _check_every(step)
        if serving is None or not check_every or not amount.requests:
            probes.append(0)
            continue
        sizes = sent_sizes(pictures(), serving.image_limits)
        watched += amount.requests
        probes_of_endpoint = probes_for(
            round(watched), check_every, sizes, in_frames=bool(serving.image_limits.frames)
        )
        probes_by_now = len(serving.endpoints()) * probes_of_endpoint
        probes.append(max(0, probes_by_now - probes_so_far))
        probes_so_far += probes[-1]
    return probes


def _pictures(run: SpecRun) -> OwnPictures:
    # The file that the first step reads may not be written yet.
    _, rows = _count_and_rows_to_look_at(run)
    return pictures_of(_records(run, rows), run.job.steps[0].image_key or IMAGE_COLUMN)


def _check_every(step: Step) -> int | None:
    operator = step.operator
    serving = operator.serving
    if serving is None or not serving.takes_probes or serving.exact_boxes:
        return None
    if not isinstance(operator, Operator):
        return None
    return operator.facts().get("check_every")
