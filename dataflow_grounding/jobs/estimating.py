"""What a run will send and cost, before it sends anything.

The run's own operators are put to work on its data, with the replies that are stored. A record
stops at the first request that none answers. What it takes from there on is the mean of what the
step's stored replies took, such as a pilot's, else that request and a stated mean for later steps.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from math import ceil, nan
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.annotating import StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.budget import Budget, Prices
from dataflow_grounding.engine.costs import Amount
from dataflow_grounding.engine.image_memo import ImageMemo, log_of
from dataflow_grounding.engine.keyed_log import CHECK, KeyedLog, read_lines
from dataflow_grounding.engine.plan import Step, WholeFile, image_column
from dataflow_grounding.engine.reply_line import usage_of
from dataflow_grounding.engine.results_elsewhere import readable_replies
from dataflow_grounding.engine.source import Source, in_pilot
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.images.image import open_image
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.operators import Operator
from dataflow_grounding.operators.judge_operator import JudgeOperator
from dataflow_grounding.operators.judge_test import USUAL_PICTURES
from dataflow_grounding.serving.serving import Reply, Serving, Usage
from dataflow_grounding.serving.token_rules import TokenRules
from dataflow_grounding.tasks import Request
from dataflow_grounding.tasks.prompts import load_prompt, prompt_names
from dataflow_grounding.trust.checks import probes_for, sent_sizes

TRIED = 20
"""How many first records are worked through to see what steps of the user's own ask."""
ALL_UP_TO = 2000
"""Up to so many records, all are looked at; of more, so many: HEAD first ones, and others."""
HEAD = 300
"""How many first records are looked at; the others are evenly spread."""


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
    "proposal_check": _Mean(1, 93),
    "crop_judgement": _Mean(1, 32),
    "negative_phrases": _Mean(1, 53),
    "negative_check": _Mean(1, 112),
    "box_verification": _Mean(4.2, 25),
    "box_refinement": _Mean(0, 25),
    "missing_search": _Mean(0, 25),
    "doubt_grounding": _Mean(0, 25),
    "box_mending": _Mean(0, 25),
}


@dataclass
class StepEstimate:
    """One step: what is counted of it, what is stored, and what is foreseen.

    Attributes:
        label: The step's.
        to_send: What it sends for records that wait for it or for an earlier step, by what was
            counted and by stated means.
        left: How many records these are.
        measured: What its stored replies have cost, of records that it is through with.
        done: How many these are of those that are looked at.
    """

    label: str
    to_send: Amount = field(default_factory=Amount)
    left: float = 0.0
    measured: Amount = field(default_factory=Amount)
    done: int = 0

    def expected(self) -> Amount:
        """Return what is still to be sent; USD aren't filled in.

        Where replies are stored, each record that is left is taken to cost their mean.
        """
        if not self.measured.requests:
            return self.to_send
        mean = self.measured * (self.left / self.done)
        if self.measured.input or not self.to_send.requests:
            return mean
        # the endpoint counts no tokens
        return self.to_send * (mean.requests / self.to_send.requests)


class _NotStored(RecordError, kind="not_stored"):
    """No stored reply answers a request."""


class _StandIn(Serving):
    """Stands for the real serving: counts what would be sent, and answers nothing.

    Args:
        serving: The real one.
        rules: How the endpoint counts tokens; None counts requests alone.
        output: How many tokens a reply is taken to have.

    Attributes:
        counted: What was counted since it was last set.
        unanswerable_tasks: Tasks that were asked and that the real serving can't answer.
    """

    def __init__(self, serving: Serving, rules: TokenRules | None, output: int) -> None:
        self.model = serving.model
        self.endpoint = serving.endpoint
        self.image_limits = serving.image_limits
        self.max_output_tokens = serving.max_output_tokens
        self.other_identities = serving.other_identities
        self.tasks = serving.tasks
        self.counted = Amount()
        self.unanswerable_tasks: set[str] = set()
        self.rules = rules
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
            self.unanswerable_tasks.add(request.task)
        self.counted.requests += 1
        if self.rules is not None:
            self.counted.input += self.rules.text(request.system)
            self.counted.input += sum(self.rules.text(turn.text) for turn in request.messages)
            self.counted.input += sum(self.rules.image(each.sent_size) for each in request.images)
            self.counted.output += self._output
        raise _NotStored("no reply is stored")


class _StepReplies(KeyedLog):
    """The stored replies as one step asks for them, of one record.

    What the step puts is kept in memory.

    Args:
        stored: The stored replies; None for none.

    Attributes:
        asked: The keys of all replies that were asked for.
        used: Of those that are stored, by key, the tokens.
    """

    def __init__(self, stored: KeyedLog | None) -> None:
        super().__init__("")
        self._stored = stored
        self.asked: set[str] = set()
        self.used: dict[str, Usage] = {}

    def get(self, key: str, since: int | None = None) -> dict[str, Any] | None:
        """Return the reply put here, or else the stored one; None where there is none.

        `since`, a place in a file, says nothing here, as what is put stays in memory.
        """
        self.asked.add(key)
        return super().get(key)  # which asks `every` for what wasn't put here

    def every(self, key: str) -> list[dict[str, Any]]:
        """Return the replies put here, or else all stored ones; none where there are none."""
        lines = super().every(key)
        if lines or self._stored is None:
            return lines
        lines = self._stored.every(key)
        if lines:
            self.asked.add(key)
            self.used[key] = usage_of(lines[0])
        return lines

    @property
    def has_earlier(self) -> bool:
        """Whether there are stored replies."""
        return self._stored is not None and (len(self._stored) > 0 or self._stored.has_earlier)

    def cost(self) -> Amount:
        """Return what the stored replies that were asked for have cost, in requests and tokens."""
        amounts = [Amount(1, *usage.as_list()) for usage in self.used.values()]
        return sum(amounts, Amount())


class StepOnRecord(NamedTuple):
    """What one step does with one record.

    Attributes:
        to_send: What it would send.
        measured: What its stored replies have cost.
        is_done: Whether it is through with the record.
    """

    to_send: Amount
    measured: Amount
    is_done: bool


class Trial:
    """The steps at work on records, with stand-ins for their servings, so that nothing is sent.

    Args:
        run: The run whose steps these are.
        rules: How the endpoint counts tokens; None counts none.
        replies: Those that are stored.
        images: What is known of the pictures, if anything.
    """

    def __init__(
        self, run: SpecRun, rules: TokenRules | None, replies: KeyedLog, images: KeyedLog | None
    ) -> None:
        self._steps = run.job.steps
        self._replies = replies
        self._servings: list[_StandIn] = []
        for step in self._steps:
            real_serving = step.operator.serving or run.serving
            own_rules = rules if real_serving is run.serving else _token_rules(real_serving)
            self._servings.append(_StandIn(real_serving, own_rules, _mean_of(step).output))
        # A run that processes anew is given no stored replies, rather than told to pass them over.
        options = replace(run.options, force_reprocess=False)
        budget = Budget(None, None, None)
        self._askings = [Asking(serving, options, budget) for serving in self._servings]
        self._memo = ImageMemo(images, keeps=False)
        self._known_rows: set[frozenset[str]] = set()  # by the keys of what the first step asks

    async def take(self, record: Record) -> list[StepOnRecord]:
        """Take a record through the steps; return for each what it would send and what is stored.

        Those after one that fails aren't among them. There are none for a record of which the first
        step asks the same as of an earlier one.
        """
        results: list[StepOnRecord] = []
        for number, step in enumerate(self._steps):
            serving = self._servings[number]
            serving.counted = Amount()
            store = _StepReplies(self._replies)
            wording = step.operator.wording
            asking = self._askings[number]
            ask = StepAsk(asking, store, step.label, (0,), wording=wording)
            update, _ = await annotated(step.operator, record, ask, self._memo)
            asked = frozenset(store.asked)
            if number == 0 and asked:
                if asked in self._known_rows:
                    return []
                self._known_rows.add(asked)
            if serving.counted.requests:
                results.append(StepOnRecord(_whole(serving.counted, step, record), Amount(), False))
                for later in range(number + 1, len(self._steps)):
                    foreseen = await self._foreseen(later, record)
                    results.append(StepOnRecord(foreseen, Amount(), False))
                return results
            if update is None:
                return results
            results.append(StepOnRecord(Amount(), store.cost(), True))
            record = record.updated(update)
        return results

    async def _foreseen(self, number: int, record: Record) -> Amount:
        step = self._steps[number]
        operator = step.operator
        mean = _mean_of(step)
        if operator.serving is None or not mean.requests:
            return Amount()
        requests = max(mean.requests, _stated_requests(step, record))
        rules = self._servings[number].rules
        if rules is None:
            return Amount(requests)
        # a task of the user's own has no prompt here
        prompts = [name for name in _tasks_of(step)[:1] if name in prompt_names()]
        image = 0
        with suppress(RecordError):
            key = image_column(operator, record)
            if key is not None:
                limits = operator.serving.image_limits
                await self._memo.prepare(record, key, limits)
                image = rules.image(open_image(record, key, limits).sent_size)
        # a judge is sent a picture with the boxes drawn in, or cut-outs, as no earlier step is
        beginning = rules.text(load_prompt("system")) + image
        is_cached = beginning >= rules.least_cached and not isinstance(operator, JudgeOperator)
        text = sum(rules.text(load_prompt(name)) for name in prompts) + _DATA
        each = Amount(1, beginning + text, beginning if is_cached else 0, mean.output)
        return each * requests

    def lines_of_unanswerable(self) -> list[str]:
        """Return what steps have asked so far that their servings can't answer, one line each."""
        lines = []
        for step, serving in zip(self._steps, self._servings, strict=True):
            for task in sorted(serving.unanswerable_tasks):
                lines.append(_cannot_answer(step, task, serving.model))
        return lines


def _mean_of(step: Step) -> _Mean:
    return _MEANS.get(step.operator.name, _USUAL)


def _stated_requests(step: Step, record: Record) -> int:
    if not isinstance(step.operator, Operator):
        return 1
    with suppress(RecordError):
        return step.operator.requests_for(record)
    return 1


def _whole(counted: Amount, step: Step, record: Record) -> Amount:
    # An operator that asks one thing after the other is stopped at the first.
    return counted * max(1, _stated_requests(step, record) / counted.requests)


def unanswerable(run: SpecRun) -> list[str]:
    """Return what steps ask that their servings can't answer, one line each.

    Operators state their tasks. Where one doesn't, the first TRIED records tell what it asks, up to
    the first request of each. A serving whose `tasks` is None answers any.
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
    if (
        lines
        or all_are_stated
        or any(isinstance(step.operator, WholeFile) for step in run.job.steps)
    ):
        return lines
    trial = Trial(run, None, KeyedLog(""), None)
    rows = list(itertools.islice(run.job.rows(), TRIED))
    run_blocking(lambda: _estimate_steps(run, iter(rows), len(rows), trial))
    return trial.lines_of_unanswerable()


def _tasks_of(step: Step) -> Sequence[str]:
    return getattr(step.operator, "tasks", ())


def _cannot_answer(step: Step, task: str, model: str) -> str:
    return (
        f"{step.label} asks {task}, which {model} can't answer: name another model in vlm.backend"
    )


def estimate(run: SpecRun) -> dict[str, Any]:
    """Return what a run will still send and cost, as one JSON object.

    What is stored already costs nothing more. Among its members:

    - `requests`, `tokens`, `cost_usd`: the totals, and under `steps` those of each step.
    - `records`: how many the input has; `looked_at` of them were worked through.
    - `probes`: how many of the requests check the box format; `judge_tests`: how many test a judge.
    - `stored`: how many replies to records' questions are stored.
    - `measured`: whether the figures rest on stored replies.
    - `calibration_first`: whether the run begins with a calibration, which is not counted.

    Raises SpecError for steps that can't be estimated, or that ask what nobody can answer.
    """
    for step in run.job.steps:
        if isinstance(step.operator, WholeFile):
            raise SpecError(f"{step.label} works on whole files: what it sends can't be estimated")
    rules = _token_rules(run.serving)
    asks_anew = run.options.force_reprocess
    folder = run.job.steps[0].storage.checkpoint_folder
    with (
        closing(KeyedLog("")) if asks_anew else readable_replies(folder) as replies,
        closing(log_of(folder)) as images,
    ):
        stored = _count_answers(replies)
        trial = Trial(run, rules, replies, images)
        rows, records = _rows_of_pilot(run)
        steps = run_blocking(lambda: _estimate_steps(run, rows, records, trial))
    unanswerable_lines = trial.lines_of_unanswerable() or unanswerable(run)
    if unanswerable_lines:
        raise SpecError("\n".join(unanswerable_lines))
    of_records = [estimated.expected() for estimated in steps]
    probes = _probes(run, of_records)
    judge_tests = _judge_tests(run.job.steps, of_records, records)
    expected = []
    for step, amount, *further in zip(run.job.steps, of_records, probes, judge_tests, strict=True):
        if amount.requests:
            # Each of these costs about what a request of its step does.
            amount += amount * (sum(further) / amount.requests)
        serving = step.operator.serving or run.serving
        prices = run.judges_prices.get(serving.model, run.options.prices)
        expected.append(with_cost(amount, prices, serving.service_tier))
    return {
        "pipeline": run.spec.autolabel_type,
        "model": run.serving.model,
        "asks": run.who,
        "records": records,
        "looked_at": min(records, ALL_UP_TO),
        **sum(expected, Amount()).to_json(),
        "stored": stored,
        "probes": sum(probes),
        "judge_tests": sum(judge_tests),
        "steps": [
            {"step": step.label, **amount.to_json(), "probes": of_step, "judge_tests": tests}
            for step, amount, of_step, tests in zip(
                steps, expected, probes, judge_tests, strict=True
            )
        ],
        "measured": any(step.measured.requests for step in steps),
        "image_rule": _image_rule(rules),
        "calibration_first": run.calibrates,
        "prices": run.prices_from,
    }


def _token_rules(serving: Serving) -> TokenRules | None:
    if not serving.endpoint.startswith(("http://", "https://")):
        return None
    return TokenRules(serving.model, getattr(serving, "media_resolution", ""))


def _image_rule(rules: TokenRules | None) -> str | None:
    if rules is None:
        return None
    return "published" if rules.known else "assumed"


def with_cost(amount: Amount, prices: Prices | None, tier: str) -> Amount:
    """Return an amount with its cost in USD at these prices, in a service tier ("" for the usual).

    It is NaN without prices. All of the amount is taken to be served in the tier.
    """
    cost = nan
    if prices:
        tokens = Usage(round(amount.input), round(amount.cached), round(amount.output))
        cost = prices.cost(tokens, tier)
    return replace(amount, cost_usd=cost)


def _rows_of_pilot(run: SpecRun) -> tuple[Iterator[Row], int]:
    # Also how many they are. Without a pilot these are all rows.
    pilot = run.options.pilot
    total = sum(1 for _ in run.job.rows())
    numbered = enumerate(run.job.rows())
    rows = (row for place, row in numbered if in_pilot(place, total, pilot))
    return rows, total if pilot is None else min(total, pilot)


async def _estimate_steps(
    run: SpecRun, rows: Iterator[Row], records: int, trial: Trial
) -> list[StepEstimate]:
    # A row that can't be read counts for nothing.
    source = Source(run.job.steps)
    steps = [StepEstimate(step.label) for step in run.job.steps]
    for row, stands_for in _sample(rows, records):
        try:
            record = source.record(row)
        except RecordError:
            continue
        for step, on_record in zip(steps, await trial.take(record), strict=False):
            if on_record.is_done:
                step.measured += on_record.measured
                step.done += 1
            else:
                step.to_send += on_record.to_send * stands_for
                step.left += stands_for
    return steps


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
        if isinstance(operator, JudgeOperator) and amount.requests:
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


def _sample(rows: Iterator[Row], total: int) -> Iterator[tuple[Row, float]]:
    # Up to ALL_UP_TO rows these are all. Of more they are the first HEAD ones, and as many evenly
    # spread others as make ALL_UP_TO.
    if total <= ALL_UP_TO:
        for row in itertools.islice(rows, total):
            yield row, 1.0
        return
    for row in itertools.islice(rows, HEAD):
        yield row, 1.0
    rest = total - HEAD
    wanted = ALL_UP_TO - HEAD
    taken = 0
    for number, row in enumerate(rows):
        due = number * wanted // rest  # how many are to be taken before this row, evenly spread
        if due >= taken:
            taken += 1
            yield row, rest / wanted
