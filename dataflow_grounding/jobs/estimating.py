"""What a run will send and cost, before it sends anything: its steps at work on the data, with
made-up replies.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import astuple, dataclass, field, replace
from math import nan
from typing import Any, Generic, TypeVar

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
from dataflow_grounding.serving.base import Reply, Serving, Usage
from dataflow_grounding.serving.token_rules import TokenRules
from dataflow_grounding.tasks import Request
from dataflow_grounding.tasks.request import ReadReply
from dataflow_grounding.watch.probing import checks_for

T = TypeVar("T")
ALL_UP_TO = 2000
HEAD = 300
"""Of more records than ALL_UP_TO, the first (a pilot's), and of the others as many as make
ALL_UP_TO, evenly spread.
"""


@dataclass
class StepEstimate:
    """One step: what is still to be sent, by guess; for what is stored, what was measured and what
    the guess was.
    """

    label: str
    to_send: Amount = field(default_factory=Amount)
    measured: Amount = field(default_factory=Amount)
    guessed: Amount = field(default_factory=Amount)
    done: int = 0
    # records through it, and those of which not even what it will read is known
    coming: float = 0.0

    def expected(self) -> Amount:
        """What is still to be sent, corrected by what was measured."""
        sent, was, guess = self.to_send, self.measured, self.guessed
        if not was.requests:
            return sent
        if not guess.requests:  # a step for what no guess foresees, as small boxes: by the record
            return sent + was * (self.coming / max(self.done, 1))
        times = was.requests / guess.requests
        if not was.input or not guess.input:  # the endpoint counts no tokens
            return sent * times
        input_ = sent.input * was.input / guess.input
        output = sent.output * (was.output / guess.output if guess.output else times)
        return Amount(sent.requests * times, input_, input_ * was.cached / was.input, output)


class _Guessing(Serving):
    """Stands for the real serving: counts what would be sent, and makes up the reply."""

    def __init__(
        self, serving: Serving, box_format: BoxFormat, rules: TokenRules | None, seen: set[str]
    ) -> None:
        self.model, self.endpoint, self.image_limits = (
            serving.model,
            serving.endpoint,
            serving.image_limits,
        )
        self.max_output_tokens = serving.max_output_tokens
        self.counted = Amount()
        self.unreadable: set[str] = set()
        self._identity, self.other_identities = serving.identity(), serving.other_identities
        self._box_format, self._rules, self._seen = box_format, rules, seen

    def identity(self) -> dict[str, Any]:
        return self._identity  # the real serving's: stored replies are found by it

    async def answer(self, request: Request[Any]) -> Reply:
        text = guess_reply(request, self._box_format)
        self.counted.requests += 1
        if (rules := self._rules) is not None:
            beginning = rules.text(request.system) + sum(
                rules.image(image.sent_size) for image in request.images
            )
            pictures = "/".join(image.sent_digest for image in request.images)
            if pictures in self._seen and beginning >= rules.least_cached:
                self.counted.cached += beginning
            self._seen.add(pictures)
            self.counted.input += beginning + rules.text(request.text)
            self.counted.output += rules.text(text)
        try:
            request.read(text)
        except Exception:  # a reader of the user's own, that wants more than the schema says
            self.unreadable.add(request.task)
            return Reply("", refusal="a reply can't be made up")  # not asked again
        return Reply(text)


class _StepReplies(KeyedLog):
    """The stored replies as one step asks for them, of one record; what it puts is
    kept in memory.
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
        if (
            line is None
            and self._stored is not None
            and (line := self._stored.get(key)) is not None
        ):
            self.used[key] = usage_of(line)
        return line


class _GuessAsk(StepAsk):
    """Reads each made-up reply once, though both the stand-in for a serving and the engine ask what
    it says.
    """

    async def __call__(self, request: Request[T]) -> T:
        return await super().__call__(request.put_so(read=_ReadOnce(request.read)))


class _ReadOnce(Generic[T]):
    """A request's `read` that remembers what the last text said; what can't be read
    is read again.
    """

    def __init__(self, read: Callable[[str], ReadReply[T]]) -> None:
        self._read = read
        self._last: tuple[str, ReadReply[T]] | None = None

    def __call__(self, text: str) -> ReadReply[T]:
        if self._last is None or self._last[0] != text:
            self._last = (text, self._read(text))
        return self._last[1]


class _Pass:
    """The steps at work on records, each step with its own counts; `replies` are those that are
    there.
    """

    def __init__(
        self,
        run: SpecRun,
        rules: TokenRules | None,
        replies: KeyedLog | None,
        images: KeyedLog | None = None,
    ) -> None:
        self._steps, self._replies = run.steps, replies
        seen: set[str] = set()
        box_format = run.box_format.format if run.box_format else find_box_format("xyxy_1000", "")
        self.servings = [
            _Guessing(step.operator.serving or run.serving, box_format, rules, seen)
            for step in run.steps
        ]
        options = replace(run.options, force_reprocess=False)  # then there are no stored replies
        budget = Budget(None, None, None)
        self._askings = [Asking(serving, options, budget) for serving in self.servings]
        self._memo = ImageMemo(images, keeps=False)
        self._rows: set[frozenset[str]] = set()

    async def take(self, record: Record) -> list[tuple[Amount, Amount]]:
        """Take a record through all steps: what each would send, and what of it is stored or asked
        twice.
        """
        found, going_on = [], True
        stores = [_StepReplies(self._replies) for _ in self._steps]
        for step, serving, store, asking in zip(
            self._steps, self.servings, stores, self._askings, strict=True
        ):
            serving.counted = Amount()
            if going_on:
                ask = _GuessAsk(asking, store, step.label, (0,), Counter())
                update, _ = await annotated(step.operator, record, ask, self._memo)
                going_on = update is not None
                record = record.updated(update or {})
            stored = (Amount(1, *astuple(usage)) for usage in store.used.values())
            found.append((serving.counted, sum(stored, Amount())))
        if (first := frozenset(stores[0].asked)) and first in self._rows:
            return [(Amount(), Amount()) for _ in found]
        self._rows.add(first)
        return found


def estimate(run: SpecRun) -> dict[str, Any]:
    """What a run will send and cost, as one JSON object; the total is under `requests`, `tokens`,
    `cost_usd`.

    `records` are in the input, `looked_at` of them were reckoned with: worked through with made-up
    replies. What is stored already costs nothing more. `not_guessed`: tasks whose replies could not
    be made up; what is asked because of them is not in it.
    """
    for step in run.steps:
        if isinstance(step.operator, WholeFile):
            raise SpecError(f"{step.label} works on whole files: what it sends can't be estimated")
    rules = None
    if run.serving.endpoint.startswith(("http://", "https://")):
        rules = TokenRules(run.serving.model, getattr(run.serving, "media_resolution", ""))
    anew, folder = run.options.force_reprocess, run.steps[0].storage.checkpoint_folder
    with (
        closing(KeyedLog("")) if anew else readable_replies(folder) as there,
        closing(log_of(folder)) as images,
    ):
        stored = _answers_in(there)
        real, guess = (
            _Pass(run, rules, there, images),
            _Pass(run, rules, None, images) if stored else None,
        )
        records = sum(1 for _ in itertools.islice(run.job.rows(), run.options.pilot))
        steps = run_blocking(lambda: _worked_through(run, records, real, guess))
    _add_checks(run.steps, steps)
    prices = run.options.prices
    return {
        "pipeline": run.spec.autolabel_type,
        "model": run.serving.model,
        "records": records,
        "looked_at": min(records, ALL_UP_TO),
        **_priced(sum((step.expected() for step in steps), Amount()), prices),
        "stored": stored,
        "steps": [{"step": step.label, **_priced(step.expected(), prices)} for step in steps],
        "measured": any(step.measured.requests for step in steps),
        "image_rule": None if rules is None else "published" if rules.known else "assumed",
        "not_guessed": sorted(set().union(*(serving.unreadable for serving in real.servings))),
        "calibration_first": run.calibrates,
        "prices": run.prices_from,
    }


def _priced(amount: Amount, prices: Prices | None) -> dict[str, Any]:
    tokens = (round(number) for number in (amount.input, amount.cached, amount.output))
    return replace(amount, cost_usd=prices.cost(Usage(*tokens)) if prices else nan).to_json()


async def _worked_through(
    run: SpecRun, records: int, real: _Pass, guess: _Pass | None
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
        earlier = 0.0
        for place, (to_send, measured) in enumerate(await real.take(record)):
            steps[place].to_send += to_send * times
            steps[place].coming += times if earlier else 0
            steps[place].done += not (earlier or to_send.requests)
            earlier += to_send.requests
            if measured.requests and not to_send.requests:
                steps[place].measured += measured
                steps[place].guessed += guessed[place][0]
    return steps


def _answers_in(replies: KeyedLog) -> int:
    """How many replies answer a record's question, in all logs."""
    logs = (replies, *replies.others)
    checks = (
        {line["key"] for line in read_lines(log.path, 0, log.end) if line.get("task") == CHECK}
        for log in logs
    )
    return sum(map(len, logs)) - sum(map(len, checks))


def _add_checks(steps: list[Step], estimates: list[StepEstimate]) -> None:
    """Add the checks of the box format, each much like a request; the steps that watch their boxes
    do them together.
    """
    watched = 0.0  # requests
    for step, found in zip(steps, estimates, strict=True):
        operator, serving, to_send = step.operator, step.operator.serving, found.to_send
        checked = serving is not None and serving.takes_probes and not serving.exact_boxes
        every = (
            operator.facts().get("check_every")
            if checked and isinstance(operator, Operator)
            else None
        )
        if serving is not None and to_send.requests and every:
            before, watched = watched, watched + to_send.requests
            endpoints = len(serving.endpoints())
            checks = checks_for(round(watched), every, endpoints) - checks_for(
                round(before), every, endpoints
            )
            found.to_send += to_send * (checks / to_send.requests)


def _chosen(rows: Iterator[Row], total: int) -> Iterator[tuple[Row, float]]:
    """The rows to look at, and for how many each stands."""
    yield from ((row, 1.0) for row in itertools.islice(rows, HEAD if total > ALL_UP_TO else total))
    rest, wanted = total - HEAD, ALL_UP_TO - HEAD
    taken = 0
    for place, row in enumerate(rows):
        if place * wanted // rest >= taken:
            taken += 1
            yield row, rest / wanted
