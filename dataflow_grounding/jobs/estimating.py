"""What a run will send and cost, before it sends anything.

The run's own operators are put to work on its data. In place of the endpoint a stand-in answers:
with the reply that is stored, else with one that is made up, and it counts the tokens of both. What
stored replies have cost corrects what is guessed for those to come.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from math import ceil, nan
from typing import Any, Generic, NamedTuple, TypeVar

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.annotating import StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.budget import Budget, Prices
from dataflow_grounding.engine.costs import Amount
from dataflow_grounding.engine.image_memo import ImageMemo, log_of
from dataflow_grounding.engine.keyed_log import CHECK, KeyedLog, read_lines
from dataflow_grounding.engine.plan import Step, WholeFile
from dataflow_grounding.engine.reply_line import usage_of
from dataflow_grounding.engine.results_elsewhere import readable_replies
from dataflow_grounding.engine.source import Source
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.jobs.guessed_replies import guess_reply
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.operators import Operator
from dataflow_grounding.operators.judge_operator import JudgeOperator
from dataflow_grounding.operators.judge_test import USUAL_PICTURES
from dataflow_grounding.serving.base import Reply, Serving, Usage
from dataflow_grounding.serving.token_rules import TokenRules
from dataflow_grounding.tasks import Request
from dataflow_grounding.tasks.request import ReadReply
from dataflow_grounding.trust.checks import probes_for, sent_sizes

T = TypeVar("T")
TRIED = 20
"""How many first records are worked through to see what steps of the user's own ask."""
ALL_UP_TO = 2000
"""Up to so many records, all are looked at; of more, so many: HEAD first ones, and others."""
HEAD = 300
"""How many first records are looked at, as a pilot would; the others are evenly spread."""


@dataclass
class StepEstimate:
    """One step: what it is guessed to send, and how such guesses compare with what is stored.

    Attributes:
        label: The step's.
        to_send: What it is guessed to send still.
        measured: What the stored replies have cost, of records that the step is through with.
        guessed: What would have been guessed for these.
        done: How many records that are looked at need no further request of this step or earlier
            ones.
        coming: How many records of the input need requests of earlier steps first, so that it isn't
            known yet what this step reads.
    """

    label: str
    to_send: Amount = field(default_factory=Amount)
    measured: Amount = field(default_factory=Amount)
    guessed: Amount = field(default_factory=Amount)
    done: int = 0
    coming: float = 0.0

    def expected(self) -> Amount:
        """Return what is still to be sent: the guess, corrected by what was measured.

        The guess is multiplied by how many times as much as guessed the stored replies have cost.
        Where nothing was guessed for these, the records that are still to come are taken to cost
        what those did that are done. USD aren't filled in.
        """
        if not self.measured.requests:
            return self.to_send  # nothing is stored that the guess could be corrected by
        if not self.guessed.requests:
            # No guess foresees what the step asks about, such as small boxes.
            return self.to_send + self.measured * (self.coming / max(self.done, 1))
        request_factor = self.measured.requests / self.guessed.requests
        if not self.measured.input or not self.guessed.input:  # the endpoint counts no tokens
            return self.to_send * request_factor
        return self._expected_by_tokens(request_factor)

    def _expected_by_tokens(self, request_factor: float) -> Amount:
        """Return what is still to be sent: requests, input and output each with its own correction.

        Of the input, the share is cached that was measured.

        Args:
            request_factor: How many times as many requests as guessed were sent. It corrects the
                output, too, where no output was guessed.
        """
        output_factor = request_factor
        if self.guessed.output:
            output_factor = self.measured.output / self.guessed.output
        input_tokens = self.to_send.input * self.measured.input / self.guessed.input
        return Amount(
            requests=self.to_send.requests * request_factor,
            input=input_tokens,
            cached=input_tokens * self.measured.cached / self.measured.input,
            output=self.to_send.output * output_factor,
        )


class _StandIn(Serving):
    """Stands for the real serving: counts what would be sent, and makes up the reply.

    Args:
        serving: The real one.
        box_format: How replies write boxes.
        rules: How the endpoint counts tokens; None counts requests alone.
        seen: Digests of pictures that were sent before, by any step; new ones are added.

    Attributes:
        counted: What was counted since it was last set.
        unreadable: Tasks whose replies could not be made up.
        unanswerable_tasks: Tasks that were asked and that the real serving can't answer.
    """

    def __init__(
        self, serving: Serving, box_format: BoxFormat, rules: TokenRules | None, seen: set[str]
    ) -> None:
        self.model = serving.model
        self.endpoint = serving.endpoint
        self.image_limits = serving.image_limits
        self.max_output_tokens = serving.max_output_tokens
        self.other_identities = serving.other_identities
        self.counted = Amount()
        self.unreadable: set[str] = set()
        self.tasks = serving.tasks
        self.unanswerable_tasks: set[str] = set()
        self._identity = serving.identity()
        self._identity_there = serving.identity_there()
        self._box_format = box_format
        self._rules = rules
        self._seen = seen

    def identity(self) -> dict[str, Any]:
        """Return the real serving's, by which stored replies are found."""
        return self._identity

    def identity_there(self) -> dict[str, Any]:
        """Return the real serving's."""
        return self._identity_there

    def _count(self, request: Request[Any], reply: str, rules: TokenRules) -> None:
        """Add a request's and its reply's tokens to what was counted.

        System message and pictures, with which it begins, count as cached where an earlier request
        had the same pictures, and they have as many tokens as the endpoint caches at least.
        """
        beginning = rules.text(request.system)
        beginning += sum(rules.image(image.sent_size) for image in request.images)
        pictures = "/".join(image.sent_digest for image in request.images)
        if pictures in self._seen and beginning >= rules.least_cached:
            self.counted.cached += beginning
        self._seen.add(pictures)
        earlier_turns = "".join(turn.text for turn in request.messages[:-1])
        self.counted.input += beginning + rules.text(request.text) + rules.text(earlier_turns)
        self.counted.output += rules.text(reply)

    async def answer(self, request: Request[Any]) -> Reply:
        """Return a made-up reply, and count it; a refusal where the request can't read it.

        A task that the real serving can't answer is noted, and answered like any other.
        """
        if self.tasks is not None and request.task not in self.tasks:
            self.unanswerable_tasks.add(request.task)
        text = guess_reply(request, self._box_format)
        self.counted.requests += 1
        if self._rules is not None:
            self._count(request, text, self._rules)
        try:
            request.read(text)
        except Exception:  # a user's own reader may want more than the schema says
            self.unreadable.add(request.task)
            return Reply("", refusal="a reply can't be made up")  # a refusal is not asked again
        return Reply(text)


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


class _GuessAsk(StepAsk):
    """Reads each made-up reply once, though the stand-in and the engine both ask what it says."""

    async def __call__(self, request: Request[T]) -> T:
        """Return the answer to a request, whose reply is read once."""
        return await super().__call__(request.put_so(read=_ReadOnce(request.read)))


class _ReadOnce(Generic[T]):
    """A request's `read` that remembers what it returned for the last text.

    A text that can't be read is read again, so that it raises again.
    """

    def __init__(self, read: Callable[[str], ReadReply[T]]) -> None:
        self._read = read
        self._last: tuple[str, ReadReply[T]] | None = None

    def __call__(self, text: str) -> ReadReply[T]:
        """Return what a text says. Raises what the request's `read` raises."""
        if self._last is None or self._last[0] != text:
            self._last = (text, self._read(text))
        return self._last[1]


class StepOnRecord(NamedTuple):
    """What one step does with one record.

    Attributes:
        to_send: What it would send.
        measured: What its stored replies have cost.
        record: The record after it; None where it or a step before it failed.
    """

    to_send: Amount
    measured: Amount
    record: Record | None


class Trial:
    """The steps at work on records, with stand-ins for their servings, so that nothing is sent.

    Args:
        run: The run whose steps these are.
        rules: How the endpoint counts tokens; None counts none.
        replies: Those that are stored; None makes all of them up.
        images: What is known of the pictures.
        steps: The steps that are at work; None takes all of the run.

    Attributes:
        servings: The stand-in of each step.
    """

    def __init__(
        self,
        run: SpecRun,
        rules: TokenRules | None,
        replies: KeyedLog | None,
        images: KeyedLog | None = None,
        steps: Sequence[Step] | None = None,
    ) -> None:
        self._steps = run.steps if steps is None else steps
        self._replies = replies
        box_format = run.box_format.format if run.box_format else find_box_format("xyxy_1000", "")
        seen: set[str] = set()
        self.servings: list[_StandIn] = []
        for step in self._steps:
            real_serving = step.operator.serving or run.serving
            own_rules = rules if real_serving is run.serving else _token_rules(real_serving)
            self.servings.append(_StandIn(real_serving, box_format, own_rules, seen))
        # A run that processes anew is given no stored replies, rather than told to pass them over.
        options = replace(run.options, force_reprocess=False)
        budget = Budget(None, None, None)
        self._askings = [Asking(serving, options, budget) for serving in self.servings]
        self._memo = ImageMemo(images, keeps=False)
        self._known_rows: set[frozenset[str]] = set()  # by the keys of what the first step asks

    async def take(self, record: Record) -> list[StepOnRecord]:
        """Take a record through all steps; return for each what it would send and what is stored.

        A record of which the first step asks the same as of an earlier one costs nothing in any
        step. A step behind one that fails sends nothing.
        """
        results: list[StepOnRecord] = []
        failed = False
        stores = [_StepReplies(self._replies) for _ in self._steps]
        for step, serving, store, asking in zip(
            self._steps, self.servings, stores, self._askings, strict=True
        ):
            serving.counted = Amount()
            if not failed:
                wording = step.operator.wording
                ask = _GuessAsk(asking, store, step.label, (0,), Counter(), wording=wording)
                update, _ = await annotated(step.operator, record, ask, self._memo)
                failed = update is None
                record = record.updated(update or {})
            results.append(StepOnRecord(serving.counted, store.cost(), None if failed else record))
        asked_first = frozenset(stores[0].asked)
        if asked_first and asked_first in self._known_rows:
            return [StepOnRecord(Amount(), Amount(), result.record) for result in results]
        self._known_rows.add(asked_first)
        return results

    def lines_of_unanswerable(self) -> list[str]:
        """Return what steps have asked so far that their servings can't answer, one line each."""
        lines = []
        for step, serving in zip(self._steps, self.servings, strict=True):
            for task in sorted(serving.unanswerable_tasks):
                lines.append(_cannot_answer(step, task, serving.model))
        return lines


def unanswerable(run: SpecRun) -> list[str]:
    """Return what steps ask that their servings can't answer, one line each.

    Shipped operators state their tasks. Where any is the user's own, what all ask is found out by
    the first TRIED records, with made-up replies. There are none where each serving answers any
    task, nor beside an operator that works on whole files, which can't be tried.
    """
    steps = [step for step in run.steps if not isinstance(step.operator, WholeFile)]
    servings = [step.operator.serving for step in steps]
    is_limited = any(serving is not None and serving.tasks is not None for serving in servings)
    if not is_limited or len(steps) < len(run.steps):
        return []
    if all(_is_shipped(step) for step in steps):
        return _stated_unanswerable(steps)
    trial = Trial(run, None, None)
    records = sum(1 for _ in itertools.islice(run.job.rows(), TRIED))
    run_blocking(lambda: _estimate_steps(run, records, trial, None))
    return trial.lines_of_unanswerable()


def _is_shipped(step: Step) -> bool:
    """Whether a step's operator is one of this package's."""
    return type(step.operator).__module__.startswith("dataflow_grounding.operators.")


def _stated_unanswerable(steps: Sequence[Step]) -> list[str]:
    """Return the tasks that shipped operators state and their servings can't answer, a line each.

    A serving whose `tasks` is None answers any.
    """
    lines = []
    for step in steps:
        operator = step.operator
        serving = operator.serving
        if not isinstance(operator, Operator) or serving is None or serving.tasks is None:
            continue
        for task in operator.tasks:
            if task not in serving.tasks:
                lines.append(_cannot_answer(step, task, serving.model))
    return lines


def _cannot_answer(step: Step, task: str, model: str) -> str:
    """Return the message that a step asks a task that its model can't answer."""
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
    - `measured`: whether stored replies have corrected the guess.
    - `calibration_first`: whether the run begins with a calibration, which is not counted.
    - `not_guessed`: tasks whose replies could not be made up. What would be asked because of such
      replies is not counted.

    Raises SpecError for steps that can't be estimated, or that ask what nobody can answer.
    """
    for step in run.steps:
        if isinstance(step.operator, WholeFile):
            raise SpecError(f"{step.label} works on whole files: what it sends can't be estimated")
    rules = _token_rules(run.serving)
    asks_anew = run.options.force_reprocess
    folder = run.steps[0].storage.checkpoint_folder
    with (
        closing(KeyedLog("")) if asks_anew else readable_replies(folder) as replies,
        closing(log_of(folder)) as images,
    ):
        stored = _count_answers(replies)
        with_stored = Trial(run, rules, replies, images)
        # What would have been guessed without stored replies is compared with what these cost.
        without_stored = Trial(run, rules, None, images) if stored else None
        records = sum(1 for _ in itertools.islice(run.job.rows(), run.options.pilot))
        steps = run_blocking(lambda: _estimate_steps(run, records, with_stored, without_stored))
    unanswerable_lines = with_stored.lines_of_unanswerable()
    if unanswerable_lines:
        raise SpecError("\n".join(unanswerable_lines))
    of_records = [estimated.expected() for estimated in steps]
    probes = _probes(run, of_records)
    judge_tests = _judge_tests(run.steps, of_records, records)
    expected = []
    for step, amount, *further in zip(run.steps, of_records, probes, judge_tests, strict=True):
        if amount.requests:
            # Each of these costs about what a request of its step does.
            amount += amount * (sum(further) / amount.requests)
        expected.append(with_cost(amount, prices_of(step, run), tier_of(step, run)))
    unreadable: set[str] = set()
    for serving in with_stored.servings:
        unreadable |= serving.unreadable
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
        "not_guessed": sorted(unreadable),
        "calibration_first": run.calibrates,
        "prices": run.prices_from,
    }


def _token_rules(serving: Serving) -> TokenRules | None:
    """Return how an endpoint counts tokens; None for a model on this machine, which counts none."""
    if not serving.endpoint.startswith(("http://", "https://")):
        return None
    return TokenRules(serving.model, getattr(serving, "media_resolution", ""))


def _image_rule(rules: TokenRules | None) -> str | None:
    """Return "published" or "assumed": how the model counts images; None where nothing counts."""
    if rules is None:
        return None
    return "published" if rules.known else "assumed"


def prices_of(step: Step, run: SpecRun) -> Prices | None:
    """Return the prices of whoever answers a step; None where they aren't known."""
    serving = step.operator.serving or run.serving
    return run.judges_prices.get(serving.model, run.options.prices)


def tier_of(step: Step, run: SpecRun) -> str:
    """Return the service tier that a step asks for; "" for the usual one."""
    serving = step.operator.serving or run.serving
    return serving.service_tier


def with_cost(amount: Amount, prices: Prices | None, tier: str) -> Amount:
    """Return an amount with its cost in USD at these prices, in a service tier ("" for the usual).

    It is NaN without prices. All of the amount is taken to be served in the tier.
    """
    cost = nan
    if prices:
        tokens = Usage(round(amount.input), round(amount.cached), round(amount.output))
        cost = prices.cost(tokens, tier)
    return replace(amount, cost_usd=cost)


async def _estimate_steps(
    run: SpecRun, records: int, with_stored: Trial, without_stored: Trial | None
) -> list[StepEstimate]:
    """Work some of the records through the steps, and return each step's estimate for all.

    Args:
        run: The run.
        records: How many records there are.
        with_stored: The trial that finds the stored replies.
        without_stored: The trial that makes all replies up; None where none are stored.

    A row that can't be read counts for nothing.
    """
    source = Source(run.steps, pilot=run.options.pilot)
    steps = [StepEstimate(step.label) for step in run.steps]
    for row, stands_for in _sample(itertools.islice(run.job.rows(), records), records):
        try:
            record = source.record(row)
        except RecordError:
            continue
        guessed = await without_stored.take(record.updated({})) if without_stored else []
        sent_before = 0.0  # requests that earlier steps would send for this record
        for number, (to_send, measured, _) in enumerate(await with_stored.take(record)):
            step = steps[number]
            step.to_send += to_send * stands_for
            if sent_before:
                step.coming += stands_for
            elif not to_send.requests:
                step.done += 1
            sent_before += to_send.requests
            # Only records that a step is through with compare a guess with what it came to.
            if measured.requests and not to_send.requests:
                step.measured += measured
                step.guessed += guessed[number].to_send
    return steps


def _count_answers(replies: KeyedLog) -> int:
    """Return how many replies, in all logs, answer a record's question; those to checks don't."""
    count = 0
    for log in (replies, *replies.others):
        lines = read_lines(log.path, 0, log.end)
        checks = {line["key"] for line in lines if line.get("task") == CHECK}
        count += len(log) - len(checks)
    return count


def _probes(run: SpecRun, amounts: Sequence[Amount]) -> list[int]:
    """Return for each step how many requests check the box format.

    The requests of all steps that watch their boxes count together; `probes_for` says how many
    checks each endpoint gets for them. A step has those that its own requests add.

    Args:
        run: The run.
        amounts: What each step sends about records.
    """
    # Looked at only if some step has its boxes checked.
    pictures = functools.cache(Source(run.steps, pilot=run.options.pilot).pictures)
    watched = 0.0  # requests of the steps so far
    probes_so_far = 0
    probes = []
    for step, amount in zip(run.steps, amounts, strict=True):
        serving = step.operator.serving
        every = _check_every(step)
        if serving is None or not every or not amount.requests:
            probes.append(0)
            continue
        sizes = sent_sizes(pictures(), serving.image_limits)
        watched += amount.requests
        of_endpoint = probes_for(round(watched), every, sizes)
        probes_by_now = len(serving.endpoints()) * of_endpoint
        probes.append(max(0, probes_by_now - probes_so_far))
        probes_so_far += probes[-1]
    return probes


def _judge_tests(steps: list[Step], amounts: Sequence[Amount], records: int) -> list[int]:
    """Return for each step how many requests test its judge; 0 where it has none, or sends nothing.

    Args:
        steps: The steps.
        amounts: What each step sends about records.
        records: How many records there are.
    """
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
    """Return after how many requests a step checks the box format; None for one that doesn't.

    That is one whose serving needs no checks, or an operator that asks for no boxes, or not ours.
    """
    operator = step.operator
    serving = operator.serving
    if serving is None or not serving.takes_probes or serving.exact_boxes:
        return None
    if not isinstance(operator, Operator):
        return None
    return operator.facts().get("check_every")


def _sample(rows: Iterator[Row], total: int) -> Iterator[tuple[Row, float]]:
    """Yield the rows to look at, each with how many rows it stands for.

    Up to ALL_UP_TO rows these are all. Of more they are the first HEAD ones, and as many evenly
    spread others as make ALL_UP_TO.

    Args:
        rows: The rows.
        total: How many these are.
    """
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
