"""What a run will send and cost, before it sends anything: rows times what a row takes.

What a row takes is asked of operators (`requests_for`) and stated for each task (`_OUTPUT`). Once
replies are stored, such as a pilot's, it is what these took. A probe is a request of the run's own,
about drawn rectangles, which checks that the model still writes boxes in the expected format.
"""

import os
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from math import ceil, nan
from statistics import fmean
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.bucket import bucket
from dataflow_grounding.data.expressions import read_expressions
from dataflow_grounding.data.records import Record, as_json, dump_text
from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.costs import Amount
from dataflow_grounding.engine.image_memo import ImageMemo, log_of
from dataflow_grounding.engine.keyed_log import CHECK, read_lines, stores_of
from dataflow_grounding.engine.options import OwnPictures
from dataflow_grounding.engine.plan import Step, WholeFile, image_column
from dataflow_grounding.engine.reply_line import usage_of
from dataflow_grounding.engine.source import IMAGE_COLUMN, Source, in_pilot, pictures_of
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.images.image import Image
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


class _StepTokens:
    """What a request of a step takes, by stated means and by its picture's size."""

    def __init__(self, step: Step, run: SpecRun) -> None:
        operator = step.operator
        self.step = step
        self.rules = _rules_of(operator.serving or run.serving)
        self.output: float = _OUTPUT.get(operator.name, _USUAL)
        # A grounder's is of a request about all phrases of a usual record.
        if isinstance(operator, PhraseGrounder):
            self.output *= min(1, operator.phrases_per_request / USUAL_PHRASES)
        words = ""  # the same ones in each request, after the system's
        if operator.wording is not None:
            words += operator.wording.guidance
        tasks = getattr(operator, "tasks", ())
        # The first task is the usual one; an operator asks the others of some records alone. A task
        # of the user's own has no prompt here.
        if tasks and tasks[0] in prompt_names():
            box_format = run.job.box_format
            # The picture's size hardly changes how long the instructions are.
            of_boxes = "" if box_format is None else box_format.format.instructions((1000, 1000))
            words += filled(load_prompt(tasks[0]), {"box_format": of_boxes})
        self.words = 0 if self.rules is None else self.rules.text(words)  # their tokens

    async def of_record(self, record: Record, sent: set[str], memo: ImageMemo) -> Amount:
        """Return what is sent for a record. `sent` has the picture columns that steps before this
        one send; this one's is added. Raises RecordError, also for a broken picture.
        """
        operator = self.step.operator
        if operator.serving is None:
            return Amount()
        requests = 1  # another library's is taken to ask of each record
        if isinstance(operator, Operator):
            requests = operator.requests_for(record)
        column = image_column(operator, record)
        if not requests or column is None:
            return self._of_pictures(record, [], is_known=False) * requests
        image = await memo.prepare(record, column, operator.serving.image_limits)
        pictures: Sequence[Image] = [image]
        if self.rules is not None and isinstance(operator, Operator):
            pictures = operator.pictures(image)  # perhaps tiles
        # Boxes drawn in make another picture of it.
        is_whole = len(pictures) == 1 and not isinstance(operator, BoxChecker)
        is_known = is_whole and column in sent
        sent.add(column)
        sizes = [picture.sent_size for picture in pictures]
        return self._of_pictures(record, sizes, is_known) * requests

    def _of_pictures(self, record: Record, sizes: Sequence[Size], is_known: bool) -> Amount:
        """Return what a request takes; `is_known` where the endpoint has got its beginning."""
        rules = self.rules
        if rules is None:  # only requests are counted then
            return Amount(requests=1)
        beginning = rules.text(load_prompt("system"))
        if sizes:
            beginning += round(fmean(map(rules.image, sizes)))  # tiles may differ in size
        further = _DATA + self.words + self._phrase_tokens(record, rules)
        cached = beginning if is_known and beginning >= rules.least_cached else 0
        return Amount(requests=1, input=beginning + further, cached=cached, output=self.output)

    def _phrase_tokens(self, record: Record, rules: TokenRules) -> int:
        """Return how many tokens of a request are phrases that the user's row states."""
        operator = self.step.operator
        if not isinstance(operator, PhraseGrounder) or operator.keys.expressions not in record:
            return 0  # how long those are that a model will find isn't known: they are in _DATA
        phrases = texts_of(read_expressions(record, operator.keys.expressions))
        # A request has phrases as [{"id": 1, "text": "a dog"}, …].
        items = [{"id": number, "text": phrase} for number, phrase in enumerate(phrases, 1)]
        requests = max(1, ceil(len(phrases) / operator.phrases_per_request))
        return round(rules.text(dump_text(items)) / requests)


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
    """Return the replies of all parts of the run, here and in its bucket, by a step's label; a step
    without replies of its model is left out.
    """
    by_step: dict[str, _StoredReplies] = defaultdict(_StoredReplies)
    if run.options.force_reprocess:  # all is asked again
        return by_step
    model_by_label = {}
    for step in run.job.steps:
        model_by_label[step.label] = (step.operator.serving or run.serving).model
    seen_keys = set()  # several stores may hold the same reply
    results_dir = run.spec.results_dir
    # A bucket's are copied to another folder, because a run may be at work in this one.
    with bucket.copied(results_dir, replies=True) as copy_of_results:
        stores = dict.fromkeys([*stores_of(results_dir), *stores_of(copy_of_results)])
        for line in chain.from_iterable(map(read_lines, stores)):
            label = str(line.get("step"))
            is_of_run = label in model_by_label and line.get("model") == model_by_label[label]
            answers_a_probe = line.get("task") == CHECK
            if not is_of_run or answers_a_probe or line["key"] in seen_keys:
                continue
            seen_keys.add(line["key"])
            replies = by_step[label]
            usage = usage_of(line)
            replies.paid += Amount(1, usage.input_tokens, usage.cached_tokens, usage.output_tokens)
            if not line.get("attempt"):  # only further tries state their number
                replies.first_tries += 1
    return by_step


def estimate(run: SpecRun) -> dict[str, Any]:
    """Return what a run will still send and cost, as JSON."""
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
    lines = run.job.unanswerable()
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
    readable: int  # of these
    sums: list[Amount]  # what each step sends for all of these

    @property
    def weight(self) -> float:
        """How many records of the run each record of the sample is taken for."""
        return self.record_count / max(1, self.looked_at)


def _look_at_records(run: SpecRun) -> _Sample:
    record_count, rows = _count_and_rows_to_look_at(run)
    with closing(log_of(run.job.steps[0].storage.checkpoint_folder)) as images:
        memo = ImageMemo(images, keeps=False)  # what is found out now isn't added to the log
        readable, sums = run_blocking(lambda: _sums(run, _records(run, rows), memo))
    return _Sample(record_count, min(record_count, MOST), readable, sums)


async def _sums(
    run: SpecRun, records: Iterator[Record], memo: ImageMemo
) -> tuple[int, list[Amount]]:
    """Return how many of the records can be read, and what each step sends for all of these."""
    steps = [_StepTokens(step, run) for step in run.job.steps]
    sums = [Amount() for _ in steps]
    readable = 0
    for record in records:
        sent_columns: set[str] = set()  # of the pictures that steps so far send
        amounts = []
        try:
            for step in steps:
                amounts.append(await step.of_record(record, sent_columns, memo))
                # It asks nothing. Later steps ask for each of its phrases.
                if isinstance(step.step.operator, PhraseLister):
                    record = record.updated(as_json(step.step.operator.listed(record)))
        except RecordError:
            continue
        readable += 1
        sums = [total + amount for total, amount in zip(sums, amounts, strict=True)]
    return readable, sums


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
    rows = sample.readable * sample.weight
    # How many rows a step has done, as far as stored replies tell. With replies of step 0 about 60
    # rows, and of step 1 about 20, that is 60 and 20: 40 may still be to come. In a stream it is 60
    # and 60: all 60 were in step 1, and 40 had nothing to ask there.
    done = rows
    has_asking_step = False  # among the steps so far
    amounts_left = []
    for step, to_send in zip(run.job.steps, sample.sums, strict=True):
        replies = stored.get(step.label, _StoredReplies())
        if to_send.requests:
            if not (run.options.stream and has_asking_step):
                done = min(done, replies.first_tries * sample.readable / to_send.requests)
            has_asking_step = True
        left = to_send * sample.weight
        if replies.paid.requests and done:
            # The other rows are taken to need what the answered ones needed, on average.
            measured = replies.paid * ((rows - done) / done)
            if measured.input or not left.requests:
                left = measured
            else:  # the endpoint reports no tokens: each request has as many as by the means
                left *= measured.requests / left.requests
        amounts_left.append(left)
    return amounts_left


def _with_probes_and_cost(
    run: SpecRun, amounts: Sequence[Amount], probes: Sequence[int]
) -> list[Amount]:
    expected = []
    for step, amount, probes_of_step in zip(run.job.steps, amounts, probes, strict=True):
        if amount.requests:  # a probe costs about what a request of its step does
            amount = amount * (1 + probes_of_step / amount.requests)
        serving = step.operator.serving or run.serving
        # a judge's own, if it has some
        prices = run.judges_prices.get(serving.model, run.options.prices)
        tokens = Usage(round(amount.input), round(amount.cached), round(amount.output))
        cost = prices.cost(tokens, serving.service_tier) if prices else nan
        expected.append(replace(amount, cost_usd=cost))
    return expected


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


def _probes(run: SpecRun, amounts: Sequence[Amount]) -> list[int]:
    """Return how many probes each step sends."""
    checked_requests = 0.0  # a run counts those of all steps together
    pictures: OwnPictures | None = None
    probes: list[int] = []
    for step, amount in zip(run.job.steps, amounts, strict=True):
        needed_so_far = 0
        check_every = _check_every(step)
        if check_every and amount.requests > 0:
            checked_requests += amount.requests
            if pictures is None:
                _, rows = _count_and_rows_to_look_at(run)
                column = run.job.steps[0].image_key or IMAGE_COLUMN
                pictures = pictures_of(_records(run, rows), column)
            serving = step.operator.serving
            assert serving is not None  # it is asked something
            limits = serving.image_limits
            probes_of_endpoint = probes_for(
                round(checked_requests),
                check_every,
                sent_sizes(pictures, limits),
                in_frames=bool(limits.frames),  # each picture is fitted into one of a few sizes
            )
            # Each check is put to every endpoint.
            needed_so_far = len(serving.endpoints()) * probes_of_endpoint
        # Another serving's pictures may have fewer sizes, which need fewer.
        probes.append(max(0, needed_so_far - sum(probes)))
    return probes


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
