"""What a run will send and cost, before it sends anything: rows times what a row takes.

What a row takes is asked of operators (`requests_for`) and stated for each task (`_OUTPUT`). Once
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
from dataflow_grounding.data.expressions import read_expressions
from dataflow_grounding.data.records import Record, as_json, dump_text
from dataflow_grounding.data.results_folder import CKPT
from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.costs import Amount
from dataflow_grounding.engine.image_memo import ImageMemo, log_of
from dataflow_grounding.engine.keyed_log import (
    CHECK,
    other_stores,
    read_lines,
    store_path,
)
from dataflow_grounding.engine.options import OwnPictures
from dataflow_grounding.engine.plan import Step, WholeFile, image_column
from dataflow_grounding.engine.reply_line import usage_of
from dataflow_grounding.engine.reply_log import ReplyLog
from dataflow_grounding.engine.source import IMAGE_COLUMN, Source, in_pilot, pictures_of
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.images.image import Image
from dataflow_grounding.jobs.answerable import unanswerable
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.operators import Operator, texts_of
from dataflow_grounding.operators.box_checker import BoxChecker
from dataflow_grounding.operators.box_operator import USUAL_PHRASES
from dataflow_grounding.operators.phrase_grounder import PhraseGrounder
from dataflow_grounding.operators.phrase_lister import PhraseLister
from dataflow_grounding.serving.serving import Serving, Usage
from dataflow_grounding.serving.token_rules import TokenRules
from dataflow_grounding.tasks.prompts import load_prompt, prompt_names
from dataflow_grounding.tasks.request import filled
from dataflow_grounding.trust.kinds import probes_for, sent_sizes

MOST = 20_000
"""How many records are looked at, at most; of more, a random sample of this size."""


_USUAL = 60  # tokens of a reply to an operator that isn't listed
_DATA = 60  # tokens of a request's data, which comes after the prompt
# Mean tokens of a reply, by the operator's name. Measured on the ten captions and four pictures
# with boxes of example_data, with replies of the form that each task asks for: 4 phrases a caption.
_OUTPUT = {
    "expression_extraction": 95,
    "grounding": 95,
    "tile_grounding": 25,  # most tiles show nothing of most phrases
    "caption_grounding": 190,
    "image_caption": 25,
    "region_expr": 123,
    "grounding_expr": 91,
    "double_check": 132,
    "region_caption": 84,
    "box_check": 93,
    "negative_phrases": 53,
}


class _StepEstimate:
    """What a step sends for a record, by stated means."""

    def __init__(self, step: Step, run: SpecRun) -> None:
        self.step = step
        self.output = _output_of(step.operator)
        self.rules = _rules_of(step.operator.serving or run.serving)
        box_format = run.job.box_format
        self._box_instructions = ""
        if box_format is not None:
            # The picture's size hardly changes how long the instructions are.
            self._box_instructions = box_format.format.instructions((1000, 1000))

    def requests_for(self, record: Record) -> int:
        """Return how many requests the step sends for a record; 0 for a step without a model."""
        operator = self.step.operator
        if operator.serving is None:
            return 0
        if not isinstance(operator, Operator):  # another library's: it is taken to ask of each
            return 1
        return operator.requests_for(record)

    async def of_request(
        self, record: Record, column: str | None, was_column_sent: bool, memo: ImageMemo
    ) -> Amount:
        """Return what a request takes; `column` has the record's picture. Raises RecordError."""
        sizes = await self._sent_sizes(record, column, memo)  # also raises for a broken picture
        if self.rules is None:  # only requests are counted then
            return Amount(requests=1)
        beginning_tokens = self._beginning_tokens(sizes, self.rules)
        further_tokens = _DATA
        further_tokens += self._phrase_tokens(record, self.rules)
        further_tokens += self._instruction_tokens(self.rules)
        cached_tokens = 0
        is_in_tiles = len(sizes) > 1
        has_boxes_drawn_in = isinstance(self.step.operator, BoxChecker)
        was_beginning_sent = was_column_sent and not is_in_tiles and not has_boxes_drawn_in
        if was_beginning_sent and beginning_tokens >= self.rules.least_cached:
            cached_tokens = beginning_tokens  # billed as cached, because the endpoint knows it
        return Amount(
            requests=1,
            input=beginning_tokens + further_tokens,
            cached=cached_tokens,
            output=self.output,
        )

    def _beginning_tokens(self, sizes: Sequence[Size], rules: TokenRules) -> int:
        """Return the tokens that requests of all steps begin with: system's words and picture."""
        tokens = rules.text(load_prompt("system"))
        if sizes:
            tokens += round(fmean(map(rules.image, sizes)))  # tiles may differ in size
        return tokens

    async def _sent_sizes(self, record: Record, column: str | None, memo: ImageMemo) -> list[Size]:
        """Return the sizes of a request's pictures, perhaps several tiles. Raises RecordError."""
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
        """Return how many tokens of a request are the user's guidance and the task's prompt."""
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
        """Return how many tokens of a request are phrases that the user's row states."""
        operator = self.step.operator
        if not isinstance(operator, PhraseGrounder) or operator.keys.expressions not in record:
            return 0  # how long those are that a model will find isn't known: they are in _DATA
        phrases = texts_of(read_expressions(record, operator.keys.expressions))
        # A request has phrases as [{"id": 1, "text": "a dog"}, …].
        items = [{"id": number, "text": phrase} for number, phrase in enumerate(phrases, 1)]
        tokens_of_all = rules.text(dump_text(items))
        requests = max(1, ceil(len(phrases) / operator.phrases_per_request))
        return round(tokens_of_all / requests)


def _output_of(operator: Any) -> float:
    output = _OUTPUT.get(operator.name, _USUAL)
    # A grounder's is of a request about all phrases of a usual record.
    if isinstance(operator, PhraseGrounder):
        return output * min(1, operator.phrases_per_request / USUAL_PHRASES)
    return output


def _rules_of(serving: Serving) -> TokenRules | None:
    """Return how a model counts tokens; None for one in this process, whose tokens are free."""
    if not serving.endpoint.startswith(("http://", "https://")):
        return None
    return TokenRules(serving.model, getattr(serving, "media_resolution", ""))


@dataclass
class _StoredReplies:
    """The replies to a step's questions that are stored."""

    paid: Amount = field(default_factory=Amount)
    first_tries: int = 0  # how many of them answer the first try of their question


def _stored_by_step(run: SpecRun) -> dict[str, _StoredReplies]:
    """Return replies by a step's label; a step without replies of its model is left out."""
    by_step: dict[str, _StoredReplies] = defaultdict(_StoredReplies)
    if run.options.force_reprocess:  # all is asked again
        return by_step
    for label, line in _stored_replies(run):
        replies = by_step[label]
        input_tokens, cached_tokens, output_tokens = usage_of(line).as_list()
        replies.paid += Amount(
            requests=1, input=input_tokens, cached=cached_tokens, output=output_tokens
        )
        if not line.get("attempt"):  # only further tries state their number
            replies.first_tries += 1
    return by_step


def _stored_replies(run: SpecRun) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield stored replies of a step's model to the run's questions, after the step's label."""
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
        if line["key"] not in seen_keys:
            seen_keys.add(line["key"])
            yield label, line


def _stored_lines(folder: str) -> Iterator[dict[str, Any]]:
    """Yield the lines of the stores of all the run's parts, here and in its bucket."""
    results_dir = os.path.dirname(os.path.abspath(folder))
    # Workers may have their stores in the bucket alone. They are copied to another folder, because
    # a run may be at work in this one.
    with bucket.copied(results_dir, replies=True) as copy_of_results:
        stores_here = other_stores(folder)
        stores_in_bucket = other_stores(os.path.join(copy_of_results, CKPT))
        others = {*stores_here, *stores_in_bucket}  # the same ones twice if there is no bucket
        with closing(ReplyLog(store_path(folder), read_only=True, others=others)) as replies:
            for log in (replies, *replies.others):
                yield from read_lines(log.path, 0, log.end)


def estimate(run: SpecRun) -> dict[str, Any]:
    """Return what a run will still send and cost, as JSON; `error` is of its tokens, at 95%."""
    _refuse_what_cannot_be_estimated(run)
    sample = _look_at_records(run)
    # All count as answers to this run's questions, even if rows or prompts have changed since.
    stored = _stored_by_step(run)
    amounts_left = _amounts_left(run, sample, stored)
    probes = _probes(run, amounts_left)
    expected = _with_probes_and_cost(run, amounts_left, probes)
    steps_in_json = []
    for step, amount, probes_of_step in zip(run.job.steps, expected, probes, strict=True):
        steps_in_json.append({"step": step.label, **amount.to_json(), "probes": probes_of_step})
    stored_requests = sum(replies.paid.requests for replies in stored.values())
    return {
        "pipeline": run.spec.autolabel_type,
        "model": run.serving.model,
        "asks": run.who,
        "records": sample.record_count,
        "looked_at": sample.looked_at,
        "error": _error(sample),
        **sum(expected, Amount()).to_json(),
        "stored": round(stored_requests),
        "probes": sum(probes),
        "steps": steps_in_json,
        "measured": bool(stored),
        "not_counted": _not_counted(run, stored),
        "image_rule": _image_rule(run.serving),
        "calibration_first": run.calibrates,
        "prices": run.prices_from,
    }


def _not_counted(run: SpecRun, stored: dict[str, _StoredReplies]) -> dict[str, str]:
    """Return, by a step's label, what it may send that no stored reply tells of."""
    not_counted = {}
    for step in run.job.steps:
        operator = step.operator
        if not isinstance(operator, Operator) or operator.serving is None:
            continue
        # A step that had nothing to ask about the pilot's rows has a file, but no reply.
        has_written = bool(stored) and os.path.exists(step.storage.output_path)
        is_measured = step.label in stored or has_written
        if operator.uncounted and not is_measured:
            not_counted[step.label] = operator.uncounted
    return not_counted


def _refuse_what_cannot_be_estimated(run: SpecRun) -> None:
    for step in run.job.steps:
        if isinstance(step.operator, WholeFile):
            raise SpecError(f"{step.label} works on whole files: what it sends can't be estimated")
    lines = unanswerable(run)
    if lines:
        raise SpecError("\n".join(lines))


def _image_rule(serving: Serving) -> str | None:
    """Return how an image's tokens are counted, for people; None where they aren't."""
    rules = _rules_of(serving)
    if rules is None:
        return None
    return "published" if rules.known else "assumed"


class _Sample(NamedTuple):
    """The records that were looked at: all that the run takes, or a random sample of MOST."""

    record_count: int  # of the whole run
    looked_at: int
    # of each record that was looked at and can be read: what each step sends for it
    amounts_by_record: list[list[Amount]]
    to_send: list[Amount]  # what each step sends for all of these records

    @property
    def weight(self) -> float:
        """How many records of the run each record of the sample is taken for."""
        return self.record_count / max(1, self.looked_at)

    @property
    def rows(self) -> float:
        """How many rows of the run can be read, by the share of the sample that can be."""
        return len(self.amounts_by_record) * self.weight


def _look_at_records(run: SpecRun) -> _Sample:
    steps = [_StepEstimate(step, run) for step in run.job.steps]
    record_count, rows = _count_and_rows_to_look_at(run)
    with closing(log_of(run.job.steps[0].storage.checkpoint_folder)) as images:
        memo = ImageMemo(images, keeps=False)  # what is found out now isn't added to the log
        amounts_by_record = run_blocking(
            lambda: _amounts_by_record(steps, _records(run, rows), memo)
        )
    to_send = []
    for number_of_step in range(len(steps)):
        amounts_of_step = [amounts[number_of_step] for amounts in amounts_by_record]
        to_send.append(sum(amounts_of_step, Amount()))
    looked_at = min(record_count, MOST)
    return _Sample(record_count, looked_at, amounts_by_record, to_send)


async def _amounts_by_record(
    steps: Sequence[_StepEstimate], records: Iterator[Record], memo: ImageMemo
) -> list[list[Amount]]:
    amounts_by_record = []
    for record in records:
        with suppress(RecordError):
            amounts_by_record.append(await _amounts_by_step(record, steps, memo))
    return amounts_by_record


async def _amounts_by_step(
    record: Record, steps: Sequence[_StepEstimate], memo: ImageMemo
) -> list[Amount]:
    """Return what each step sends for a record."""
    sent_columns: set[str] = set()  # of the pictures that steps so far send
    amounts = []
    for estimated in steps:
        operator = estimated.step.operator
        amount = Amount()
        requests = estimated.requests_for(record)
        if requests:
            column = image_column(operator, record)
            was_column_sent = column in sent_columns
            amount = await estimated.of_request(record, column, was_column_sent, memo) * requests
            if column is not None:
                sent_columns.add(column)
        amounts.append(amount)
        # A lister asks nothing. Its phrases are added here, since later steps ask for each of them.
        if isinstance(operator, PhraseLister):
            record = record.updated(as_json(operator.listed(record)))
    return amounts


def _records(run: SpecRun, rows: Iterator[Row]) -> Iterator[Record]:
    """Yield the records that can be read; equal rows are asked about once."""
    source = Source(run.job.steps)
    seen = set()
    for row in rows:
        content = repr(row.data)
        if content in seen:
            continue
        seen.add(content)
        with suppress(RecordError):
            yield source.record(row)


def _amounts_left(run: SpecRun, sample: _Sample, stored: dict[str, _StoredReplies]) -> list[Amount]:
    """Return what each step has left to send, without USD."""
    amounts_left = []
    done_by_step = _rows_done_by_step(run, sample, stored)
    for step, to_send, done in zip(run.job.steps, sample.to_send, done_by_step, strict=True):
        replies = stored.get(step.label, _StoredReplies())
        to_send_of_run = to_send * sample.weight
        amounts_left.append(_left_of_step(to_send_of_run, replies, sample.rows, done))
    return amounts_left


def _rows_done_by_step(
    run: SpecRun, sample: _Sample, stored: dict[str, _StoredReplies]
) -> list[float]:
    """Return how many of the run's rows each step has done, as far as stored replies tell.

    With replies of step 0 about 60 rows, and of step 1 about 20, that is [60, 20]: 40 may still be
    to come. In a stream it is [60, 60]: all 60 were in step 1, and 40 had nothing to ask there.
    """
    done = sample.rows  # a step before the first one that asks has done all rows
    done_by_step = []
    has_asking_step = False  # among the steps so far
    for step, to_send in zip(run.job.steps, sample.to_send, strict=True):
        if to_send.requests:
            keeps_up_with_first = run.options.stream and has_asking_step
            if not keeps_up_with_first:
                replies = stored.get(step.label, _StoredReplies())
                requests_per_row = to_send.requests / len(sample.amounts_by_record)
                done = min(done, replies.first_tries / requests_per_row)
            has_asking_step = True
        done_by_step.append(done)
    return done_by_step


def _left_of_step(by_means: Amount, stored: _StoredReplies, rows: float, done: float) -> Amount:
    """Return what is left if `done` of `rows` were answered; all rows take `by_means`."""
    is_measured = stored.paid.requests > 0 and done > 0
    if not is_measured:  # no reply is stored: all rows are left
        return by_means
    # The other rows are taken to need what the answered ones needed, on average.
    rows_left_per_row_done = (rows - done) / done
    measured = stored.paid * rows_left_per_row_done
    reports_tokens = measured.input > 0
    if reports_tokens or not by_means.requests:
        return measured
    # The endpoint reports no tokens. Requests were counted, and each is taken to have as many
    # tokens as by the means.
    share_left = measured.requests / by_means.requests
    return by_means * share_left


def _with_probes_and_cost(
    run: SpecRun, amounts: Sequence[Amount], probes: Sequence[int]
) -> list[Amount]:
    expected = []
    for step, amount, probes_of_step in zip(run.job.steps, amounts, probes, strict=True):
        with_probes = amount
        if amount.requests:
            # A probe costs about what a request of its step does.
            probes_per_request = probes_of_step / amount.requests
            with_probes = amount + amount * probes_per_request
        expected.append(_with_cost(with_probes, run, step.operator.serving or run.serving))
    return expected


def _with_cost(amount: Amount, run: SpecRun, serving: Serving) -> Amount:
    """Return the amount with USD, by a judge's own prices, else those of the run's serving."""
    prices = run.judges_prices.get(serving.model, run.options.prices)
    tokens = Usage(round(amount.input), round(amount.cached), round(amount.output))
    cost = prices.cost(tokens, serving.service_tier) if prices else nan
    return replace(amount, cost_usd=cost)


def _count_and_rows_to_look_at(run: SpecRun) -> tuple[int, Iterator[Row]]:
    """Return how many rows the run takes, and these rows, or a random sample of MOST of them."""
    pilot = run.options.pilot
    total = sum(1 for _ in run.job.input.rows())
    places_of_run: Sequence[int] = range(total)
    if pilot is not None:
        places_of_run = [place for place in range(total) if in_pilot(place, total, pilot)]
    sampled_places = places_of_run
    if len(places_of_run) > MOST:
        # With a fixed seed, because the same estimate should come out each time.
        sampled_places = random.Random(0).sample(places_of_run, MOST)
    places_to_look_at = set(sampled_places)
    numbered_rows = enumerate(run.job.input.rows())
    rows_to_look_at = (row for place, row in numbered_rows if place in places_to_look_at)
    return len(places_of_run), rows_to_look_at


def _error(sample: _Sample) -> float | None:
    """Return half of the sum's 95% interval as a share of it; None where all were looked at."""
    if sample.looked_at == sample.record_count:
        return None
    sent = []  # each record's tokens, or its requests where tokens aren't known
    for amounts in sample.amounts_by_record:
        total = sum(amounts, Amount())
        sent.append(total.input or total.requests)
    mean = fmean(sent) if sent else 0
    if not mean:
        return 0.0
    # Each record is drawn once at most, so a sample of nearly all of them errs less.
    share_not_drawn = 1 - len(sent) / sample.record_count
    standard_error = sqrt(pvariance(sent) / len(sent) * share_not_drawn)
    return round(1.96 * standard_error / mean, 4)


def _probes(run: SpecRun, amounts: Sequence[Amount]) -> list[int]:
    """Return how many probes each step sends."""
    pictures = functools.cache(lambda: _pictures(run))  # read once, and only if a step needs them
    checked_requests = 0.0  # of the steps so far
    probes_so_far = 0
    probes = []
    for step, amount in zip(run.job.steps, amounts, strict=True):
        check_every = _check_every(step)
        probes_of_step = 0
        if check_every and amount.requests > 0:
            checked_requests += amount.requests
            # A run counts the requests of all these steps together.
            needed_so_far = _probes_needed(step, checked_requests, check_every, pictures())
            # This step's serving may need fewer than an earlier step's.
            probes_of_step = max(0, needed_so_far - probes_so_far)
            probes_so_far += probes_of_step
        probes.append(probes_of_step)
    return probes


def _probes_needed(step: Step, requests: float, check_every: int, pictures: OwnPictures) -> int:
    """Return how many probes a step's serving needs for that many requests."""
    serving = step.operator.serving
    assert serving is not None  # it is asked something
    limits = serving.image_limits
    has_few_sizes = bool(limits.frames)  # every picture is fitted into one of these
    probes_of_endpoint = probes_for(
        round(requests), check_every, sent_sizes(pictures, limits), in_frames=has_few_sizes
    )
    return len(serving.endpoints()) * probes_of_endpoint  # each check is put to every endpoint


def _pictures(run: SpecRun) -> OwnPictures:
    _, rows = _count_and_rows_to_look_at(run)  # the first step's file may not be written yet
    return pictures_of(_records(run, rows), run.job.steps[0].image_key or IMAGE_COLUMN)


def _check_every(step: Step) -> int | None:
    """Return after how many requests the step sends a probe; None for a step that sends none."""
    operator = step.operator
    serving = operator.serving
    if serving is None or not serving.takes_probes:
        return None
    if serving.exact_boxes:  # their format is always the same, so it needs no check
        return None
    if not isinstance(operator, Operator):
        return None
    return operator.facts().get("check_every")
