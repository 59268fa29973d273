"""What a run will send and cost, before it sends anything.

Its steps are put to work on the data, with made-up replies.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from math import nan
from typing import Any, Generic, NamedTuple, TypeVar

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.annotating import StepAsk, annotated
from dataflow_grounding.engine.asking import Asking
from dataflow_grounding.engine.at_work import readable_replies
from dataflow_grounding.engine.blocking import run_blocking
from dataflow_grounding.engine.budget import Budget, Prices
from dataflow_grounding.engine.image_memo import ImageMemo, log_of
from dataflow_grounding.engine.keyed_log import CHECK, KeyedLog, read_lines
from dataflow_grounding.engine.plan import Step, WholeFile
from dataflow_grounding.engine.reply_line import usage_of
from dataflow_grounding.engine.source import Source
from dataflow_grounding.jobs.costs import Amount
from dataflow_grounding.jobs.guessed_replies import guess_reply
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.operators import Operator
from dataflow_grounding.operators.judge_operator import JudgeOperator
from dataflow_grounding.serving.base import Reply, Serving, Usage
from dataflow_grounding.serving.token_rules import TokenRules
from dataflow_grounding.tasks import Request
from dataflow_grounding.tasks.request import ReadReply
from dataflow_grounding.watch.probing import checks_for

T = TypeVar("T")
TRIED = 20  # records that show what steps ask
ALL_UP_TO = 2000
"""So many records are all looked at; of more, the first and some of the others, so many in all."""
HEAD = 300
"""How many first records are looked at, as a pilot would; the others are evenly spread."""


@dataclass
class StepEstimate:
    """One step: what it is guessed to send, and how such guesses compare with what is stored.

    `measured` is what the replies cost that are stored, `guessed` what would have been guessed of
    them.
    """

    label: str
    to_send: Amount = field(default_factory=Amount)
    measured: Amount = field(default_factory=Amount)
    guessed: Amount = field(default_factory=Amount)
    done: int = 0  # records that went through it
    coming: float = 0.0  # records of which not even what it will read is known

    def expected(self) -> Amount:
        """What is still to be sent, corrected by what was measured."""
        to_send = self.to_send
        measured = self.measured
        guessed = self.guessed
        if not measured.requests:
            return to_send
        if not guessed.requests:  # a step for what no guess foresees, as small boxes: by the record
            return to_send + measured * (self.coming / max(self.done, 1))
        times = measured.requests / guessed.requests
        if not measured.input or not guessed.input:  # the endpoint counts no tokens
            return to_send * times
        output_times = measured.output / guessed.output if guessed.output else times
        input_tokens = to_send.input * measured.input / guessed.input
        return Amount(
            requests=to_send.requests * times,
            input=input_tokens,
            cached=input_tokens * measured.cached / measured.input,
            output=to_send.output * output_times,
        )


class _Guessing(Serving):
    """Stands for the real serving: counts what would be sent, and makes up the reply."""

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
        self.unanswerable: set[str] = set()
        self._identity = serving.identity()
        self._identity_there = serving.identity_there()
        self._box_format = box_format
        self._rules = rules
        self._seen = seen  # pictures that were sent before, by any step

    def identity(self) -> dict[str, Any]:
        return self._identity  # the real serving's: stored replies are found by it

    def identity_there(self) -> dict[str, Any]:
        return self._identity_there

    def _count(self, request: Request[Any], reply: str, rules: TokenRules) -> None:
        """Add a request's tokens; one that begins as an earlier one did is cached to that point."""
        beginning = rules.text(request.system)
        beginning += sum(rules.image(image.sent_size) for image in request.images)
        pictures = "/".join(image.sent_digest for image in request.images)
        if pictures in self._seen and beginning >= rules.least_cached:
            self.counted.cached += beginning
        self._seen.add(pictures)
        said = "".join(turn.text for turn in request.turns)
        self.counted.input += beginning + rules.text(request.text) + rules.text(said)
        self.counted.output += rules.text(reply)

    async def answer(self, request: Request[Any]) -> Reply:
        if self.tasks is not None and request.task not in self.tasks:
            self.unanswerable.add(request.task)
        text = guess_reply(request, self._box_format)
        self.counted.requests += 1
        if self._rules is not None:
            self._count(request, text, self._rules)
        try:
            request.read(text)
        except Exception:  # a reader of the user's own, that wants more than the schema says
            self.unreadable.add(request.task)
            return Reply("", refusal="a reply can't be made up")  # not asked again
        return Reply(text)


class _StepReplies(KeyedLog):
    """The stored replies as one step asks for them, of one record.

    What the step puts is kept in memory.
    """

    def __init__(self, stored: KeyedLog | None) -> None:
        super().__init__("")
        self._stored = stored
        self.asked: set[str] = set()  # keys, of replies that are stored or not
        self.used: dict[str, Usage] = {}  # what the stored replies cost that were asked for, by key

    def get(self, key: str, since: int | None = None) -> dict[str, Any] | None:
        """The reply put here, or the last stored one."""
        self.asked.add(key)
        line = super().get(key)
        if line is not None or self._stored is None:
            return line
        line = self._stored.get(key)
        if line is not None:
            self.used[key] = usage_of(line)
        return line

    def every(self, key: str) -> list[dict[str, Any]]:
        """The reply put here, or the stored ones."""
        lines = super().every(key)
        if lines or self._stored is None:
            return lines
        lines = self._stored.every(key)
        if lines:
            self.asked.add(key)
            self.used[key] = usage_of(lines[-1])
        return lines

    @property
    def has_earlier(self) -> bool:
        """Whether there are stored replies."""
        return self._stored is not None and (len(self._stored) > 0 or self._stored.has_earlier)

    def cost(self) -> Amount:
        """What the stored replies cost that were asked for, in requests and tokens."""
        amounts = [Amount(1, *usage.as_list()) for usage in self.used.values()]
        return sum(amounts, Amount())


class _GuessAsk(StepAsk):
    """Reads each made-up reply once, though the stand-in and the engine both ask what it says."""

    async def __call__(self, request: Request[T]) -> T:
        return await super().__call__(request.put_so(read=_ReadOnce(request.read)))


class _ReadOnce(Generic[T]):
    """A request's `read` that remembers what the last text said.

    What can't be read is read again.
    """

    def __init__(self, read: Callable[[str], ReadReply[T]]) -> None:
        self._read = read
        self._last: tuple[str, ReadReply[T]] | None = None

    def __call__(self, text: str) -> ReadReply[T]:
        if self._last is None or self._last[0] != text:
            self._last = (text, self._read(text))
        return self._last[1]


class StepOnRecord(NamedTuple):
    """What one step would send for one record, what its stored replies cost, and what it leaves.

    `record` is None from the step on that fails.
    """

    to_send: Amount
    measured: Amount
    record: Record | None


class Pass:
    """The steps at work on records, each step with its own counts.

    `replies` are those that are there, `images` what is known of the pictures, `steps` those that
    are at work: all of the run, unless given.
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
        self.servings: list[_Guessing] = []
        for step in self._steps:
            real_serving = step.operator.serving or run.serving
            own_rules = rules if real_serving is run.serving else _token_rules(real_serving)
            self.servings.append(_Guessing(real_serving, box_format, own_rules, seen))
        options = replace(run.options, force_reprocess=False)  # then there are no stored replies
        budget = Budget(None, None, None)
        self._askings = [Asking(serving, options, budget) for serving in self.servings]
        self._memo = ImageMemo(images, keeps=False)
        self._rows: set[frozenset[str]] = set()  # as what the first step asks of them

    async def take(self, record: Record) -> list[StepOnRecord]:
        """Take a record through all steps: what each would send, and what of it is stored.

        A row that asks what an earlier one did costs nothing.
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
        if asked_first and asked_first in self._rows:
            return [StepOnRecord(Amount(), Amount(), result.record) for result in results]
        self._rows.add(asked_first)
        return results

    def unanswerable(self) -> list[str]:
        """What the steps have asked that their servings can't answer, one line each."""
        lines = []
        for step, serving in zip(self._steps, self.servings, strict=True):
            for task in sorted(serving.unanswerable):
                lines.append(_cannot_answer(step, task, serving.model))
        return lines


def unanswerable(run: SpecRun) -> list[str]:
    """What steps ask the servings that these can't answer, one line each.

    Shipped operators state their tasks. What one of the user's own asks is found out by the first
    records, with made-up replies.
    """
    steps = [step for step in run.steps if not isinstance(step.operator, WholeFile)]
    servings = [step.operator.serving for step in steps]
    is_limited = any(serving is not None and serving.tasks is not None for serving in servings)
    if not is_limited or len(steps) < len(run.steps):
        return []
    if all(_is_shipped(step) for step in steps):
        return _stated_unanswerable(steps)
    trial = Pass(run, None, None)
    records = sum(1 for _ in itertools.islice(run.job.rows(), TRIED))
    run_blocking(lambda: _worked_through(run, records, trial, None))
    return trial.unanswerable()


def _is_shipped(step: Step) -> bool:
    return type(step.operator).__module__.startswith("dataflow_grounding.operators.")


def _stated_unanswerable(steps: Sequence[Step]) -> list[str]:
    """What steps of shipped operators state that they ask and their servings can't answer."""
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
    return (
        f"{step.label} asks {task}, which {model} can't answer: name another model in vlm.backend"
    )


def estimate(run: SpecRun) -> dict[str, Any]:
    """What a run will send and cost, as one JSON object.

    The total is under `requests`, `tokens`, `cost_usd`. `records` are in the input, `looked_at` of
    them were reckoned with: worked through with made-up replies. What is stored already costs
    nothing more. `not_guessed`: tasks whose replies could not be made up; what is asked because of
    them is not in it.
    """
    for step in run.steps:
        if isinstance(step.operator, WholeFile):
            raise SpecError(f"{step.label} works on whole files: what it sends can't be estimated")
    rules = _token_rules(run.serving)
    anew = run.options.force_reprocess
    folder = run.steps[0].storage.checkpoint_folder
    with (
        closing(KeyedLog("")) if anew else readable_replies(folder) as replies,
        closing(log_of(folder)) as images,
    ):
        stored = _answers_in(replies)
        real = Pass(run, rules, replies, images)
        guess = Pass(run, rules, None, images) if stored else None
        records = sum(1 for _ in itertools.islice(run.job.rows(), run.options.pilot))
        steps = run_blocking(lambda: _worked_through(run, records, real, guess))
    wrong = real.unanswerable()
    if wrong:
        raise SpecError("\n".join(wrong))
    _add_checks(run.steps, steps)
    _add_tests(run.steps, steps, records)
    expected = [
        with_cost(estimated.expected(), prices_of(step, run), tier_of(step, run))
        for step, estimated in zip(run.steps, steps, strict=True)
    ]
    unreadable: set[str] = set()
    for serving in real.servings:
        unreadable |= serving.unreadable
    return {
        "pipeline": run.spec.autolabel_type,
        "model": run.serving.model,
        "asks": run.who,
        "records": records,
        "looked_at": min(records, ALL_UP_TO),
        **sum(expected, Amount()).to_json(),
        "stored": stored,
        "steps": [
            {"step": step.label, **amount.to_json()}
            for step, amount in zip(steps, expected, strict=True)
        ],
        "measured": any(step.measured.requests for step in steps),
        "image_rule": _image_rule(rules),
        "not_guessed": sorted(unreadable),
        "calibration_first": run.calibrates,
        "prices": run.prices_from,
    }


def _token_rules(serving: Serving) -> TokenRules | None:
    """How an endpoint counts tokens; None for what runs on this machine, which counts none."""
    if not serving.endpoint.startswith(("http://", "https://")):
        return None
    return TokenRules(serving.model, getattr(serving, "media_resolution", ""))


def _image_rule(rules: TokenRules | None) -> str | None:
    """Whether it is published how the model counts images; None where nothing is counted."""
    if rules is None:
        return None
    return "published" if rules.known else "assumed"


def prices_of(step: Step, run: SpecRun) -> Prices | None:
    """What the tokens cost of whoever answers a step."""
    serving = step.operator.serving or run.serving
    return run.judges_prices.get(serving.model, run.options.prices)


def tier_of(step: Step, run: SpecRun) -> str:
    """The service tier that a step asks for."""
    serving = step.operator.serving or run.serving
    return serving.service_tier


def with_cost(amount: Amount, prices: Prices | None, tier: str) -> Amount:
    """An amount with its cost, where a service tier serves all of it."""
    cost = nan
    if prices:
        tokens = Usage(round(amount.input), round(amount.cached), round(amount.output))
        cost = prices.cost(tokens, tier)
    return replace(amount, cost_usd=cost)


async def _worked_through(
    run: SpecRun, records: int, real: Pass, guess: Pass | None
) -> list[StepEstimate]:
    """What each step sends for all records."""
    source = Source(run.steps, pilot=run.options.pilot)
    steps = [StepEstimate(step.label) for step in run.steps]
    for row, times in _chosen(itertools.islice(run.job.rows(), records), records):
        try:
            record = source.record(row)
        except RecordError:
            continue
        guessed = await guess.take(record.updated({})) if guess else []
        sent_before = 0.0  # requests of the steps before
        for number, (to_send, measured, _) in enumerate(await real.take(record)):
            step = steps[number]
            step.to_send += to_send * times
            if sent_before:
                step.coming += times
            elif not to_send.requests:
                step.done += 1
            sent_before += to_send.requests
            if measured.requests and not to_send.requests:
                step.measured += measured
                step.guessed += guessed[number].to_send
    return steps


def _answers_in(replies: KeyedLog) -> int:
    """How many replies answer a record's question, in all logs; checks' replies answer none."""
    count = 0
    for log in (replies, *replies.others):
        lines = read_lines(log.path, 0, log.end)
        checks = {line["key"] for line in lines if line.get("task") == CHECK}
        count += len(log) - len(checks)
    return count


def _add_checks(steps: list[Step], estimates: list[StepEstimate]) -> None:
    """Add the checks of the box format, each much like a request.

    The steps that watch their boxes do them together.
    """
    watched = 0.0  # requests
    for step, estimated in zip(steps, estimates, strict=True):
        serving = step.operator.serving
        every = _check_every(step)
        requests = estimated.to_send.requests
        if serving is None or not every or not requests:
            continue
        endpoints = len(serving.endpoints())
        checks_before = checks_for(round(watched), every, endpoints)
        watched += requests
        checks = checks_for(round(watched), every, endpoints) - checks_before
        estimated.to_send += estimated.to_send * (checks / requests)


def _add_tests(steps: list[Step], estimates: list[StepEstimate], records: int) -> None:
    """Add the tests of judges, each much like a request."""
    for step, estimated in zip(steps, estimates, strict=True):
        requests = estimated.to_send.requests
        operator = step.operator
        if not isinstance(operator, JudgeOperator) or not requests:
            continue
        every = operator.judge_watch.every
        if every is not None and operator.serving.takes_probes:
            tests = -(-records // every)
            estimated.to_send += estimated.to_send * (tests / requests)


def _check_every(step: Step) -> int | None:
    """Return after how many requests a step checks the box format; None for one that doesn't."""
    operator = step.operator
    serving = operator.serving
    if serving is None or not serving.takes_probes or serving.exact_boxes:
        return None
    if not isinstance(operator, Operator):
        return None
    return operator.facts().get("check_every")


def _chosen(rows: Iterator[Row], total: int) -> Iterator[tuple[Row, float]]:
    """The rows to look at, and for how many each stands."""
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
        if number * wanted // rest >= taken:
            taken += 1
            yield row, rest / wanted
