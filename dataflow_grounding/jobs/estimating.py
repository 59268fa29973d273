"""What a run will send and cost, before it sends anything.

The run's own operators are put to work on its rows, with the replies that are stored. A record
stops at the first request that none answers. What it takes from there on is the mean of what the
step's stored replies took, such as a pilot's, else that request, and for later steps their prompt
and a stated mean.
"""

import functools
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from math import ceil, nan, sqrt
from statistics import fmean, pvariance
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding.data.records import STATUSES, Record, Update
from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.annotating import StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.budget import Budget
from dataflow_grounding.engine.costs import Amount
from dataflow_grounding.engine.image_memo import ImageMemo, log_of
from dataflow_grounding.engine.keyed_log import CHECK, KeyedLog, read_lines
from dataflow_grounding.engine.plan import Step, WholeFile, image_column
from dataflow_grounding.engine.remote_results import stored_replies
from dataflow_grounding.engine.reply_line import usage_of
from dataflow_grounding.engine.source import Source, in_pilot
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.images.image import open_image
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.operators import Operator
from dataflow_grounding.operators.box_checker import BoxChecker
from dataflow_grounding.operators.judge_test import USUAL_PICTURES
from dataflow_grounding.serving.serving import Reply, Serving, Usage
from dataflow_grounding.serving.token_rules import TokenRules
from dataflow_grounding.tasks import Request
from dataflow_grounding.tasks.prompts import load_prompt, prompt_names
from dataflow_grounding.trust.checks import probes_for, sent_sizes

TRIED = 20
"""How many first records are worked through to see what steps of the user's own ask."""
MOST = 20_000
"""How many records are looked at, at most; of more, a random sample of this size."""


class _Mean(NamedTuple):
    """What a step takes on average, before any of its replies is stored.

    Attributes:
        requests: For a record.
        output: Tokens of a reply.
    """

    requests: float
    output: int


_USUAL = _Mean(1, 60)  # of an operator that isn't listed
_DATA = 60  # tokens of a request's data, which comes after the prompt
# By the operator's name. Measured on the ten captions and four pictures with boxes of example_data,
# with replies of the form that each task asks for: 4.2 phrases a caption. Steps that ask about what
# an earlier one has found wrong or small ask nothing there.
_MEANS = {
    "expression_extraction": _Mean(1, 95),
    "grounding": _Mean(1, 95),
    "caption_grounding": _Mean(1, 190),
    "image_caption": _Mean(1, 25),
    "region_expr": _Mean(1, 123),
    "grounding_expr": _Mean(1, 91),
    "double_check": _Mean(1, 132),
    "region_caption": _Mean(1, 84),
    "box_check": _Mean(1, 93),
    "negative_phrases": _Mean(2, 53),
    "box_verification": _Mean(4.2, 25),
    "box_refinement": _Mean(0, 25),
    "missing_search": _Mean(0, 25),
}


class _NotStored(RecordError, kind="not_stored"):
    """No stored reply answers a request."""


class _StandIn(Serving):
    """Stands for a step's serving: counts what would be sent, and answers nothing.

    Args:
        serving: The real one.
        output: How many tokens a reply is taken to have.

    Attributes:
        rules: How the endpoint counts tokens; None counts requests alone.
        counted: What was counted since it was last set.
        unanswerable: Tasks that were asked and that the real serving can't answer.
    """

    def __init__(self, serving: Serving, output: int) -> None:
        self.model = serving.model
        self.endpoint = serving.endpoint
        self.image_limits = serving.image_limits
        self.max_output_tokens = serving.max_output_tokens
        self.tasks = serving.tasks
        self.rules: TokenRules | None = None
        if serving.endpoint.startswith(("http://", "https://")):
            self.rules = TokenRules(serving.model, getattr(serving, "media_resolution", ""))
        self.counted = Amount()
        self.unanswerable: set[str] = set()
        self._output = output
        self._identity = serving.identity()
        self._identity_there = serving.identity_there()

    def identity(self) -> dict[str, Any]:
        """Return the real serving's, by which stored replies are found."""
        return self._identity

    def identity_there(self) -> dict[str, Any]:
        """Return the real serving's."""
        return self._identity_there

    async def answer(self, request: Request[Any]) -> Reply:
        """Count a request. Raises _NotStored."""
        if self.tasks is not None and request.task not in self.tasks:
            self.unanswerable.add(request.task)
        self.counted.requests += 1
        if self.rules is not None:
            self.counted.input += self.rules.text(request.system)
            self.counted.input += sum(self.rules.text(turn.text) for turn in request.messages)
            self.counted.input += sum(self.rules.image(each.sent_size) for each in request.images)
            self.counted.output += self._output
        raise _NotStored("no reply is stored")


class _Stored(KeyedLog):
    """The stored replies, and which of them a step asks for of one record.

    Args:
        replies: Those that are stored.

    Attributes:
        asked: The keys of all replies that were asked for.
        used: Of those that are stored, by key, the tokens.
    """

    def __init__(self, replies: KeyedLog) -> None:
        super().__init__("")
        self._replies = replies
        self.asked: set[str] = set()
        self.used: dict[str, Usage] = {}

    def get(self, key: str, since: int | None = None) -> dict[str, Any] | None:
        """Return the stored reply; None where there is none, or a new one is wanted (`since`)."""
        self.asked.add(key)
        return super().get(key, since)  # which asks `every` unless a new one is wanted

    def every(self, key: str) -> list[dict[str, Any]]:
        """Return all stored replies; none where there are none."""
        lines = self._replies.every(key)
        if lines:
            self.asked.add(key)
            self.used[key] = usage_of(lines[0])
        return lines


class _StepEstimate:
    """A step at work, with a stand-in for its serving: what it has cost, and what it will send.

    Attributes:
        to_send: What it sends for records that wait for it or for an earlier step, by what was
            counted and by stated means.
        left: How many records these are.
        paid: What its stored replies have cost, of records that it is through with.
        done: How many these are.
    """

    def __init__(self, step: Step, run: SpecRun) -> None:
        self.step = step
        self.mean = _MEANS.get(step.operator.name, _USUAL)
        self.serving = _StandIn(step.operator.serving or run.serving, self.mean.output)
        # A run that processes again is given no stored replies, rather than told to pass them over.
        options = replace(run.options, force_reprocess=False)
        self._asking = Asking(self.serving, options, Budget(None, None, None))
        self.to_send = Amount()
        self.left = 0
        self.paid = Amount()
        self.done = 0

    async def work_on(self, record: Record, stored: _Stored, memo: ImageMemo) -> Any:
        """Return what the operator adds to a record; None where it fails, or a reply lacks."""
        self.serving.counted = Amount()
        stored.asked = set()
        stored.used = {}
        wording = self.step.operator.wording
        ask = StepAsk(self._asking, stored, self.step.label, (0,), wording=wording)
        update, _ = await annotated(self.step.operator, record, ask, memo)
        return update

    def counted(self, record: Record) -> Amount:
        """Return what it sends for a record, by what it has just asked.

        An operator that asks one thing after the other was stopped at the first.
        """
        counted = self.serving.counted
        return counted * max(1, self._stated_requests(record) / counted.requests)

    async def foreseen(self, record: Record, memo: ImageMemo) -> Amount:
        """Return what it will send for a record that an earlier step isn't through with."""
        operator = self.step.operator
        rules = self.serving.rules
        if operator.serving is None or not self.mean.requests:
            return Amount()
        requests = max(self.mean.requests, self._stated_requests(record))
        if rules is None:
            return Amount(requests)
        beginning = rules.text(load_prompt("system"))
        with suppress(RecordError):
            key = image_column(operator, record)
            if key is not None:
                limits = operator.serving.image_limits
                await memo.prepare(record, key, limits)
                beginning += rules.image(open_image(record, key, limits).sent_size)
        # a judge is sent a picture with the boxes drawn in, as no earlier step is
        is_cached = beginning >= rules.least_cached and not isinstance(operator, BoxChecker)
        text = _DATA
        for name in _tasks_of(self.step)[:1]:
            if name in prompt_names():  # a task of the user's own has no prompt here
                text += rules.text(load_prompt(name))
        cached = beginning if is_cached else 0
        return Amount(1, beginning + text, cached, self.mean.output) * requests

    def _stated_requests(self, record: Record) -> int:
        if isinstance(self.step.operator, Operator):
            with suppress(RecordError):
                return self.step.operator.requests_for(record)
        return 1

    def expected(self, weight: float) -> Amount:
        """Return what is left to send; USD aren't filled in.

        If replies are stored, each record that is left counts with their mean.

        Args:
            weight: How many records each one represents that was looked at.
        """
        if not self.paid.requests:
            return self.to_send * weight
        mean = self.paid * (self.left * weight / self.done)
        if self.paid.input or not self.to_send.requests:
            return mean
        # the endpoint counts no tokens
        return self.to_send * (mean.requests / self.to_send.requests)


async def _work_through(
    steps: Sequence[_StepEstimate],
    records: Iterable[Record],
    replies: KeyedLog,
    images: KeyedLog | None,
) -> list[float]:
    # Takes each record through the steps. Returns what each will send, in tokens of input, or in
    # requests where tokens aren't counted.
    stored = _Stored(replies)
    memo = ImageMemo(images, keeps=False)
    known_rows: set[frozenset[str]] = set()  # by the keys of what the first step asks
    sent = []
    for record in records:
        amount = Amount()
        for number, step in enumerate(steps):
            update = await step.work_on(record, stored, memo)
            asked = frozenset(stored.asked)
            if number == 0 and asked:
                if asked in known_rows:
                    break
                known_rows.add(asked)
            if step.serving.counted.requests:
                amounts = [step.counted(record)]
                amounts += [await later.foreseen(record, memo) for later in steps[number + 1 :]]
                for waiting, to_send in zip(steps[number:], amounts, strict=True):
                    waiting.to_send += to_send
                    waiting.left += 1
                    amount += to_send
                break
            if update is None:
                break
            step.paid += sum(
                (Amount(1, *used.as_list()) for used in stored.used.values()), Amount()
            )
            step.done += 1
            record = record.updated(update)
        sent.append(amount.input or amount.requests)
    return sent


def _records(run: SpecRun, rows: Iterable[Row]) -> Iterator[Record]:
    # A row that can't be read counts for nothing.
    source = Source(run.job.steps)
    for row in rows:
        with suppress(RecordError):
            yield source.record(row)


def unanswerable(run: SpecRun) -> list[str]:
    """Return what steps ask that their servings can't answer, one line each.

    Operators state their tasks. Where one doesn't, it is called on the first TRIED records, up to
    its first request, with made-up columns for what earlier steps would have added. A serving whose
    `tasks` is None answers any.
    """
    lines = []
    all_are_stated = True
    for step in run.job.steps:
        serving = step.operator.serving
        if serving is None or serving.tasks is None:
            continue
        tasks = _tasks_of(step)
        all_are_stated = all_are_stated and bool(tasks)
        for task in tasks:
            if task not in serving.tasks:
                lines.append(_cannot_answer(step, task, serving.model))
    works_on_files = any(isinstance(step.operator, WholeFile) for step in run.job.steps)
    if lines or all_are_stated or works_on_files:
        return lines
    steps = [_StepEstimate(step, run) for step in run.job.steps]
    records = _records(run, itertools.islice(run.job.rows(), TRIED))
    run_blocking(lambda: _call_each(steps, records))
    return _asked_in_vain(steps)


async def _call_each(steps: Sequence[_StepEstimate], records: Iterable[Record]) -> None:
    # A step that gets no reply, or fails, doesn't end a record here: a later one may ask as well.
    stored = _Stored(KeyedLog(""))
    memo = ImageMemo(None, keeps=False)
    for record in records:
        for step in steps:
            update = await step.work_on(record, stored, memo)
            if update is None:
                update = _made_up(step.step, record)
            record = record.updated(update)


def _made_up(step: Step, record: Record) -> Update:
    # What a step could add to a record. Expressions are of each status, as a later step may ask
    # about some only. What else isn't known is null.
    width, height = 1, 1
    with suppress(RecordError):
        key = image_column(step.operator, record)
        if key is not None:
            width, height = open_image(record, key).size
    text = str(record.get("caption") or "a thing")
    box = {"bbox_id": "0", "bbox": [0, 0, width, height], "score": None}
    expressions = []
    for status in STATUSES:
        instances = [box] if status == "grounded" else []
        common = {"expression_id": status, "text": text, "noun_chunk": text, "char_span": None}
        expressions.append({**common, "instances": instances, "status": status})
    known = {"caption": text, "cleaned_caption": text, "expressions": expressions}
    update: Update = {"width": width, "height": height}
    usual = getattr(step.operator, "output_keys", {})
    for role, column in step.operator.writes().items():
        update[column] = known.get(usual.get(role, column))
    return update


def _tasks_of(step: Step) -> Sequence[str]:
    return getattr(step.operator, "tasks", ())


def _asked_in_vain(steps: Sequence[_StepEstimate]) -> list[str]:
    lines = []
    for step in steps:
        for task in sorted(step.serving.unanswerable):
            lines.append(_cannot_answer(step.step, task, step.serving.model))
    return lines


def _cannot_answer(step: Step, task: str, model: str) -> str:
    return (
        f"{step.label} asks {task}, which {model} can't answer: name another model in vlm.backend"
    )


def estimate(run: SpecRun) -> dict[str, Any]:
    """Return what a run will still send and cost, as one JSON object.

    What is stored already costs nothing more. Among its members:

    - `requests`, `tokens`, `cost_usd`: the totals, and under `steps` those of each step.
    - `records`: how many the input has; `looked_at` of them were worked through, and `error` is the
      share of the tokens that the totals may be off by for that (95%); None where all were.
    - `probes`: how many of the requests check the box format; `judge_tests`: how many test a judge.
    - `stored`: how many replies to records' questions are stored.
    - `measured`: whether the figures rest on stored replies.
    - `calibration_first`: whether the run begins with a calibration, which is not counted.

    Raises SpecError for steps that can't be estimated, or that ask what nobody can answer.
    """
    for step in run.job.steps:
        if isinstance(step.operator, WholeFile):
            raise SpecError(f"{step.label} works on whole files: what it sends can't be estimated")
    steps = [_StepEstimate(step, run) for step in run.job.steps]
    records, rows = _rows_to_look_at(run)
    looked_at = min(records, MOST)
    folder = run.job.steps[0].storage.checkpoint_folder
    asks_again = run.options.force_reprocess
    with (
        closing(KeyedLog("")) if asks_again else stored_replies(folder) as replies,
        closing(log_of(folder)) as images,
    ):
        stored = _count_answers(replies)
        sent = run_blocking(lambda: _work_through(steps, _records(run, rows), replies, images))
    lines = _asked_in_vain(steps) or unanswerable(run)
    if lines:
        raise SpecError("\n".join(lines))
    of_records = [step.expected(records / max(1, looked_at)) for step in steps]
    probes = _probes(run, of_records)
    judge_tests = _judge_tests(run.job.steps, of_records, records)
    expected = []
    for step, amount, *further in zip(run.job.steps, of_records, probes, judge_tests, strict=True):
        if amount.requests:
            # Each of these costs about what a request of its step does.
            amount += amount * (sum(further) / amount.requests)
        expected.append(_with_cost(amount, run, step.operator.serving or run.serving))
    rules = _StandIn(run.serving, 0).rules
    return {
        "pipeline": run.spec.autolabel_type,
        "model": run.serving.model,
        "asks": run.who,
        "records": records,
        "looked_at": looked_at,
        "error": None if looked_at == records else _error(sent, records),
        **sum(expected, Amount()).to_json(),
        "stored": stored,
        "probes": sum(probes),
        "judge_tests": sum(judge_tests),
        "steps": [
            {"step": step.label, **amount.to_json(), "probes": of_step, "judge_tests": tests}
            for step, amount, of_step, tests in zip(
                run.job.steps, expected, probes, judge_tests, strict=True
            )
        ],
        "measured": any(step.paid.requests for step in steps),
        "image_rule": rules and ("published" if rules.known else "assumed"),
        "calibration_first": run.calibrates,
        "prices": run.prices_from,
    }


def _with_cost(amount: Amount, run: SpecRun, serving: Serving) -> Amount:
    # USD are NaN without prices. All of the amount is taken to be served in the serving's tier.
    prices = run.judges_prices.get(serving.model, run.options.prices)
    tokens = Usage(round(amount.input), round(amount.cached), round(amount.output))
    cost = prices.cost(tokens, serving.service_tier) if prices else nan
    return replace(amount, cost_usd=cost)


def _rows_to_look_at(run: SpecRun) -> tuple[int, Iterator[Row]]:
    # How many rows the run, or the pilot, takes, and those that are looked at.
    pilot = run.options.pilot
    total = sum(1 for _ in run.job.rows())
    places: Sequence[int] = range(total)
    if pilot is not None:
        places = [place for place in places if in_pilot(place, total, pilot)]
    drawn = set(places if len(places) <= MOST else random.Random(0).sample(places, MOST))
    return len(places), (row for place, row in enumerate(run.job.rows()) if place in drawn)


def _error(sent: Sequence[float], records: int) -> float:
    # Of a sum of `records`, of which these are a sample without repeats: two standard errors.
    mean = fmean(sent) if sent else 0
    if not mean:
        return 0.0
    standard_error = sqrt(pvariance(sent) / len(sent) * (1 - len(sent) / records))
    return round(1.96 * standard_error / mean, 4)


def _count_answers(replies: KeyedLog) -> int:
    count = 0
    for log in (replies, *replies.others):
        lines = read_lines(log.path, 0, log.end)
        checks = {line["key"] for line in lines if line.get("task") == CHECK}
        count += len(log) - len(checks)
    return count


def _probes(run: SpecRun, amounts: Sequence[Amount]) -> list[int]:
    # The requests of all steps that watch their boxes count together; `probes_for` says how many
    # checks each endpoint gets for them. A step has those that its own requests add.
    # Looked at only if some step has its boxes checked.
    pictures = functools.cache(Source(run.job.steps, pilot=run.options.pilot).pictures)
    watched = 0.0  # requests of the steps so far
    probes_so_far = 0
    probes = []
    for step, amount in zip(run.job.steps, amounts, strict=True):
        serving = step.operator.serving
        every = _check_every(step)
        if serving is None or not every or not amount.requests:
            probes.append(0)
            continue
        sizes = sent_sizes(pictures(), serving.image_limits)
        watched += amount.requests
        of_endpoint = probes_for(
            round(watched), every, sizes, in_frames=bool(serving.image_limits.frames)
        )
        probes_by_now = len(serving.endpoints()) * of_endpoint
        probes.append(max(0, probes_by_now - probes_so_far))
        probes_so_far += probes[-1]
    return probes


def _judge_tests(steps: list[Step], amounts: Sequence[Amount], records: int) -> list[int]:
    judge_tests = []
    for step, amount in zip(steps, amounts, strict=True):
        operator = step.operator
        tests = 0
        if isinstance(operator, BoxChecker) and amount.requests:
            every = operator.judge_watch.every
            if every is not None and operator.serving.takes_probes:
                tests = USUAL_PICTURES * ceil(records / every)
        judge_tests.append(tests)
    return judge_tests


def _check_every(step: Step) -> int | None:
    # Return after how many requests a step checks the box format; None for one that doesn't. That
    # is one whose serving needs no checks, or an operator that asks for no boxes, or not ours.
    operator = step.operator
    serving = operator.serving
    if serving is None or not serving.takes_probes or serving.exact_boxes:
        return None
    if not isinstance(operator, Operator):
        return None
    return operator.facts().get("check_every")
