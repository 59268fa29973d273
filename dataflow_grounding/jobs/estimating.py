"""What a run will send and cost, before it sends anything: rows times what a row takes.

What a row takes is stated for each task (`_MEANS`), and asked of operators (`requests_for`). Once
replies are stored, such as a pilot's, it is what these took. A probe is a request of the run's own,
about drawn rectangles, which checks that the model still writes boxes in the expected format.
"""

import functools
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from math import ceil, nan, sqrt
from statistics import fmean, pvariance
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding.boxes.geometry import Size
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
from dataflow_grounding.images.image import Image
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
    """What a step sends for records, by stated means.

    `to_send` is the total of all records that were looked at; `estimate` adds to it. `rules` say
    how the model counts tokens; they are None for a model in this process, whose tokens are free.
    """

    def __init__(self, step: Step, run: SpecRun) -> None:
        self.step = step
        self.mean = _mean_of(step.operator)
        self.rules = _rules_of(step.operator.serving or run.serving)
        self.to_send = Amount()
        box_format = run.job.box_format
        self._box_instructions = ""
        if box_format is not None:
            # The picture's size hardly changes how long the instructions are.
            self._box_instructions = box_format.format.instructions((1000, 1000))

    async def of_record(self, record: Record, memo: ImageMemo, sent_columns: set[str]) -> Amount:
        """Return what is sent for a record, as the first step gets it. `sent_columns` are those of
        the pictures that earlier steps send; this step's is added. `memo` knows pictures' sizes.
        Raises RecordError.
        """
        operator = self.step.operator
        requests = self.mean.requests
        if isinstance(operator, Operator):
            requests *= operator.requests_for(record)
        if operator.serving is None or not requests:
            return Amount()
        return await self._of_request(record, memo, sent_columns) * requests

    async def _of_request(self, record: Record, memo: ImageMemo, sent_columns: set[str]) -> Amount:
        # What one of the step's requests for a record is; the picture's column is added to
        # `sent_columns`.
        operator = self.step.operator
        column = image_column(operator, record)
        was_column_sent = column in sent_columns
        if column:
            sent_columns.add(column)
        sizes = await self._sent_sizes(record, column, memo)  # raises for a broken picture
        if self.rules is None:  # only requests are counted then
            return Amount(requests=1)
        # A request begins with the system's words and the picture. What differs by step, such as
        # the task's prompt, comes after them.
        beginning_tokens = self.rules.text(load_prompt("system"))
        if sizes:
            beginning_tokens += round(fmean(map(self.rules.image, sizes)))
        further_tokens = _DATA
        further_tokens += self._phrase_tokens(record, self.rules)
        further_tokens += self._instruction_tokens(self.rules)
        # The beginning is billed as cached if an earlier step has sent the same. Tiles, and the
        # picture with boxes drawn in that a judge is sent, no earlier step has sent.
        is_in_tiles = len(sizes) > 1
        has_boxes_drawn_in = isinstance(operator, BoxChecker)
        was_sent = was_column_sent and not is_in_tiles and not has_boxes_drawn_in
        is_long_enough = beginning_tokens >= self.rules.least_cached
        return Amount(
            requests=1,
            input=beginning_tokens + further_tokens,
            cached=beginning_tokens if was_sent and is_long_enough else 0,
            output=self.mean.output,
        )

    async def _sent_sizes(self, record: Record, column: str | None, memo: ImageMemo) -> list[Size]:
        # The size of each picture that the step's requests show: one, or one for each tile. Without
        # rules nothing goes by it.
        operator = self.step.operator
        if column is None or operator.serving is None:
            return []
        image = await memo.prepare(record, column, operator.serving.image_limits)
        if self.rules is None:
            return []
        pictures: Sequence[Image] = [image]
        if isinstance(operator, Operator):
            pictures = operator.pictures(image)
        return [picture.sent_size for picture in pictures]

    def _instruction_tokens(self, rules: TokenRules) -> int:
        # How many tokens of a request are the user's guidance and the task's prompt.
        operator = self.step.operator
        tokens = 0
        if operator.wording is not None:
            tokens += rules.text(operator.wording.guidance)
        tasks = getattr(operator, "tasks", ())
        # The first task is the usual one; an operator asks the others of some records alone. A task
        # of the user's own has no prompt here.
        if tasks and tasks[0] in prompt_names():
            prompt = filled(load_prompt(tasks[0]), {"box_format": self._box_instructions})
            tokens += rules.text(prompt)
        return tokens

    def _phrase_tokens(self, record: Record, rules: TokenRules) -> int:
        # How many tokens of a request are phrases that the record has from the start.
        operator = self.step.operator
        if not isinstance(operator, PhraseGrounder) or operator.keys.expressions not in record:
            return 0
        phrases = texts_of(read_expressions(record, operator.keys.expressions))
        # A request has phrases as [{"id": 1, "text": "a dog"}, …].
        items = [{"id": number, "text": phrase} for number, phrase in enumerate(phrases, 1)]
        tokens_of_all = rules.text(dump_text(items))
        requests = max(1, ceil(len(phrases) / operator.phrases_per_request))
        return round(tokens_of_all / requests)

    def left(self, stored: "_StoredReplies", rows: float, done: float, weight: float) -> Amount:
        """Return what is left to send, without USD. `done` of the run's `rows` have been answered.
        `to_send` is of the records that were looked at, each of which counts for `weight` rows.
        """
        stated = self.to_send * weight
        is_measured = stored.paid.requests > 0 and done > 0
        if not is_measured:
            return stated
        # The other rows are taken to need what the answered ones needed, on average.
        measured = stored.paid * ((rows - done) / done)
        reports_tokens = measured.input > 0
        if reports_tokens or not stated.requests:
            return measured
        # The endpoint reports no tokens: those of a request are taken to be the stated ones.
        return stated * (measured.requests / stated.requests)


def _mean_of(operator: Any) -> _Mean:
    mean = _MEANS.get(operator.name, _USUAL)
    # A verifier's mean is of one phrase in a request. If it asks about several, a request is taken
    # to have those of a usual record.
    if isinstance(operator, BoxVerifier) and operator.phrases_per_request > 1:
        return _Mean(1, USUAL_PHRASES * mean.output)
    return mean


def _rules_of(serving: Serving) -> TokenRules | None:
    # A model in this process is paid for by nobody.
    if not serving.endpoint.startswith(("http://", "https://")):
        return None
    return TokenRules(serving.model, getattr(serving, "media_resolution", ""))


@dataclass
class _StoredReplies:
    """The replies to a step's questions that are stored."""

    paid: Amount = field(default_factory=Amount)
    first_tries: int = 0  # how many of them answer the first try of their question


def _stored_by_step(run: SpecRun) -> dict[str, _StoredReplies]:
    # By a step's label; a step without replies of its model is left out.
    by_step: dict[str, _StoredReplies] = defaultdict(_StoredReplies)
    if run.options.force_reprocess:  # all is asked again
        return by_step
    model_by_label = {}
    for step in run.job.steps:
        model_by_label[step.label] = (step.operator.serving or run.serving).model
    seen_keys = set()  # several stores may hold the same reply
    for line in _stored_lines(run.job.steps[0].storage.checkpoint_folder):
        label = str(line.get("step"))
        is_of_run = label in model_by_label and line.get("model") == model_by_label[label]
        answers_a_probe = line.get("task") == CHECK
        if not is_of_run or answers_a_probe:
            continue
        if line["key"] in seen_keys:
            continue
        seen_keys.add(line["key"])
        replies = by_step[label]
        input_tokens, cached_tokens, output_tokens = usage_of(line).as_list()
        replies.paid += Amount(1, input_tokens, cached_tokens, output_tokens)
        if not line.get("attempt"):  # only further tries state their number
            replies.first_tries += 1
    return by_step


def _stored_lines(folder: str) -> Iterator[dict[str, Any]]:
    # Of the store of a checkpoint folder, and of those of the run's other parts: shards on this
    # machine, and workers whose stores are in the run's bucket alone. Nothing in the folder is
    # changed: a run may be at work there.
    with bucket.copied(os.path.dirname(os.path.abspath(folder)), replies=True) as results:
        others = {*other_stores(folder), *other_stores(os.path.join(results, CKPT))}
        with closing(KeyedLog(store_path(folder), read_only=True, others=others)) as replies:
            for log in (replies, *replies.others):
                yield from read_lines(log.path, 0, log.end)


async def _amounts_by_record(
    steps: Sequence[_StepEstimate], records: Iterator[Record], memo: ImageMemo
) -> list[list[Amount]]:
    # A record is left out if it or its picture can't be read.
    amounts_by_record = []
    for record in records:
        with suppress(RecordError):
            amounts_by_record.append(await _amounts_by_step(record, steps, memo))
    return amounts_by_record


async def _amounts_by_step(
    record: Record, steps: Sequence[_StepEstimate], memo: ImageMemo
) -> list[Amount]:
    # What each step sends for a record.
    sent_columns: set[str] = set()  # of the pictures that steps so far send
    amounts = []
    for step in steps:
        amounts.append(await step.of_record(record, memo, sent_columns))
        operator = step.step.operator
        # A lister asks nothing. Its phrases are added here, since later steps ask for each of them.
        if isinstance(operator, PhraseLister):
            record = record.updated(operator.listed(record))
    return amounts


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
        amounts_by_record = run_blocking(
            lambda: _amounts_by_record(steps, _records(run, rows), memo)
        )
    for amounts in amounts_by_record:
        for estimated_step, amount in zip(steps, amounts, strict=True):
            estimated_step.to_send += amount
    stored = _stored_by_step(run)
    weight = record_count / max(1, looked_at)  # how many records each of the sample is taken for
    left = _left(run, steps, stored, counted=len(amounts_by_record), weight=weight)
    probes = _probes(run, left)
    expected = _with_probes_and_cost(run, left, probes)
    steps_in_json = []
    for step, amount, probes_of_step in zip(run.job.steps, expected, probes, strict=True):
        steps_in_json.append({"step": step.label, **amount.to_json(), "probes": probes_of_step})
    error = None
    if looked_at != record_count:
        error = _error(amounts_by_record, record_count)
    rules = _rules_of(run.serving)
    image_rule = None  # by which rule an image's tokens were counted; None where none are
    if rules is not None:
        image_rule = "published" if rules.known else "assumed"
    return {
        "pipeline": run.spec.autolabel_type,
        "model": run.serving.model,
        "asks": run.who,
        "records": record_count,
        "looked_at": looked_at,
        "error": error,
        **sum(expected, Amount()).to_json(),
        "stored": round(sum(replies.paid.requests for replies in stored.values())),
        "probes": sum(probes),
        "steps": steps_in_json,
        "measured": bool(stored),
        "image_rule": image_rule,
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
    # What each step has left to send. `counted` records were looked at and can be read; each counts
    # for `weight` of the run's rows.
    rows = counted * weight
    done = rows  # by the steps so far: all rows, until a step asks
    has_asking_step = False  # among the steps so far
    left = []
    for step in steps:
        replies = stored.get(step.step.label, _StoredReplies())
        requests_per_row = step.to_send.requests / max(1, counted)
        if requests_per_row:
            # Without a stream, each step waits for the one before it to end: a later one may have
            # done fewer rows. In a stream each row goes on to the next step at once: the first
            # step that asks tells how many are done by all.
            is_in_step_with_earlier = run.options.stream and has_asking_step
            if not is_in_step_with_earlier:
                done = min(done, replies.first_tries / requests_per_row)
            has_asking_step = True
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
    # A judge has prices of its own; those of the run are the first serving's. All of the amount is
    # taken to be served in the serving's tier, such as `flex`.
    prices = run.judges_prices.get(serving.model, run.options.prices)
    tokens = Usage(round(amount.input), round(amount.cached), round(amount.output))
    cost = prices.cost(tokens, serving.service_tier) if prices else nan
    return replace(amount, cost_usd=cost)


def _count_and_rows_to_look_at(run: SpecRun) -> tuple[int, Iterator[Row]]:
    # How many rows the run takes, and these rows, or a random sample of MOST of them.
    pilot = run.options.pilot
    total = sum(1 for _ in run.job.input.rows())
    places: Sequence[int] = range(total)
    if pilot is not None:
        places = [place for place in places if in_pilot(place, total, pilot)]
    sample = places
    if len(places) > MOST:
        # With a fixed seed, because the same estimate should come out each time.
        sample = random.Random(0).sample(places, MOST)
    places_to_look_at = set(sample)
    numbered_rows = enumerate(run.job.input.rows())
    rows_to_look_at = (row for place, row in numbered_rows if place in places_to_look_at)
    return len(places), rows_to_look_at


def _error(amounts_by_record: Sequence[Sequence[Amount]], records: int) -> float:
    # Half of the 95% interval of the sum over all records, as a share of that sum. The amounts, by
    # step, are of a random sample of the records.
    sent = []  # each record's tokens, or its requests where tokens aren't known
    for amounts in amounts_by_record:
        total = sum(amounts, Amount())
        sent.append(total.input or total.requests)
    mean = fmean(sent) if sent else 0
    if not mean:
        return 0.0
    # Each record is drawn once at most, so a sample of nearly all of them errs less.
    share_not_drawn = 1 - len(sent) / records
    standard_error = sqrt(pvariance(sent) / len(sent) * share_not_drawn)
    return round(1.96 * standard_error / mean, 4)


def _probes(run: SpecRun, amounts: Sequence[Amount]) -> list[int]:
    # How many probes each step sends: as many as the steps so far need together, less those that
    # earlier steps send. The requests of all steps that watch their boxes count together. Pictures
    # are looked at only if some step has its boxes checked.
    pictures = functools.cache(functools.partial(_pictures, run))
    watched_requests = 0.0  # of the steps so far
    probes_so_far = 0
    probes = []
    for step, amount in zip(run.job.steps, amounts, strict=True):
        serving = step.operator.serving
        check_every = _check_every(step)
        sends_probes = bool(check_every) and amount.requests > 0
        if serving is None or not sends_probes:
            probes.append(0)
            continue
        sizes = sent_sizes(pictures(), serving.image_limits)
        watched_requests += amount.requests
        probes_of_endpoint = probes_for(
            round(watched_requests),
            check_every,
            sizes,
            in_frames=bool(serving.image_limits.frames),  # of a few exact sizes
        )
        needed_so_far = len(serving.endpoints()) * probes_of_endpoint
        # This step's serving may need fewer than an earlier step's.
        probes_of_step = max(0, needed_so_far - probes_so_far)
        probes.append(probes_of_step)
        probes_so_far += probes_of_step
    return probes


def _pictures(run: SpecRun) -> OwnPictures:
    # The file that the first step reads may not be written yet.
    _, rows = _count_and_rows_to_look_at(run)
    return pictures_of(_records(run, rows), run.job.steps[0].image_key or IMAGE_COLUMN)


def _check_every(step: Step) -> int | None:
    # After how many requests the step sends a probe; None for a step that sends none.
    operator = step.operator
    serving = operator.serving
    if serving is None or not serving.takes_probes:
        return None
    if serving.exact_boxes:  # in one format always, which needs no check
        return None
    if not isinstance(operator, Operator):
        return None
    return operator.facts().get("check_every")
