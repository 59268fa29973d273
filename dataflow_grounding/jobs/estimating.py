"""What a run will send and cost, before it sends anything: rows times what a row takes.

What a row takes is asked of operators (`requests_for`) and stated for each task (`_OUTPUT`). Once
replies are stored, such as a pilot's, it is what these took. A probe is a request of the run's own,
about drawn rectangles, which checks that the model still writes boxes in the expected format.
"""

import os
import random
from collections.abc import Iterator, Sequence, Set
from contextlib import closing, suppress
from dataclasses import replace
from itertools import chain
from math import ceil, nan
from statistics import fmean

from dataflow_grounding._util.errors import RecordError, SpecError
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.bucket import bucket
from dataflow_grounding.data.expressions import read_expressions
from dataflow_grounding.data.records import Record, as_json, dump_text
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


class _StepEstimate:
    """What a step sends: for the records looked at, so far, and in the rest of the run."""

    def __init__(self, step: Step, run: SpecRun) -> None:
        operator = step.operator
        self.step = step
        self.serving: Serving = operator.serving or run.serving
        self.rules = _rules_of(self.serving)
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
        self.for_sample = Amount()  # for all records that were looked at
        self.paid = Amount()  # for the replies that are stored
        self.first_tries = 0  # how many of these answer the first try of their question
        self.left = Amount()  # without probes and USD
        self.probes = 0

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
        further = _DATA + self.words
        operator = self.step.operator
        # Phrases that the user's row states. How long those are that a model will find isn't known:
        # they are in _DATA.
        if isinstance(operator, PhraseGrounder) and operator.keys.expressions in record:
            phrases = texts_of(read_expressions(record, operator.keys.expressions))
            # A request has phrases as [{"id": 1, "text": "a dog"}, …].
            items = [{"id": number, "text": phrase} for number, phrase in enumerate(phrases, 1)]
            requests = max(1, ceil(len(phrases) / operator.phrases_per_request))
            further += round(rules.text(dump_text(items)) / requests)
        cached = beginning if is_known and beginning >= rules.least_cached else 0
        return Amount(requests=1, input=beginning + further, cached=cached, output=self.output)

    @property
    def check_every(self) -> int | None:
        """After how many requests it sends a probe; None for a step that sends none."""
        operator = self.step.operator
        serving = operator.serving
        if serving is None or not serving.takes_probes or not isinstance(operator, Operator):
            return None
        if serving.exact_boxes:  # their format is always the same, so it needs no check
            return None
        return operator.facts().get("check_every")

    def expected(self, run: SpecRun) -> Amount:
        """Return what it has left to send, with probes and USD."""
        amount = self.left
        if amount.requests:  # a probe costs about what a request of its step does
            amount *= 1 + self.probes / amount.requests
        # a judge's own, if it has some
        prices = run.judges_prices.get(self.serving.model, run.options.prices)
        tokens = Usage(round(amount.input), round(amount.cached), round(amount.output))
        cost = prices.cost(tokens, self.serving.service_tier) if prices else nan
        return replace(amount, cost_usd=cost)


def _rules_of(serving: Serving) -> TokenRules | None:
    """Return how a model counts tokens; None for one in this process, whose tokens are free."""
    if not serving.endpoint.startswith(("http://", "https://")):
        return None
    return TokenRules(serving.model, getattr(serving, "media_resolution", ""))


def estimate(run: SpecRun) -> dict[str, object]:
    """Return what a run will still send and cost, as JSON."""
    for step in run.job.steps:
        if isinstance(step.operator, WholeFile):
            raise SpecError(f"{step.label} works on whole files: what it sends can't be estimated")
    lines = run.job.unanswerable()
    if lines:
        raise SpecError("\n".join(lines))
    steps = [_StepEstimate(step, run) for step in run.job.steps]
    record_count, places = _places_to_look_at(run)
    with closing(log_of(run.job.steps[0].storage.checkpoint_folder)) as images:
        memo = ImageMemo(images, keeps=False)  # what is found out now isn't added to the log
        readable = run_blocking(lambda: _look_at(_records(run, places), steps, memo))
    # All count as answers to this run's questions, even if rows or prompts have changed since.
    if not run.options.force_reprocess:  # else all is asked again
        _add_stored(run.spec.results_dir, steps)
    # how many records of the run each one that was looked at is taken for
    weight = record_count / max(1, len(places))
    _set_left(steps, readable, weight, stream=run.options.stream)
    _set_probes(run, steps, places)
    expected = [step.expected(run) for step in steps]
    steps_in_json = []
    for estimated, amount in zip(steps, expected, strict=True):
        label = estimated.step.label
        steps_in_json.append({"step": label, **amount.to_json(), "probes": estimated.probes})
    stored = sum(step.paid.requests for step in steps)
    image_rules = _rules_of(run.serving)
    image_rule = None  # an image's tokens aren't counted
    if image_rules is not None:
        image_rule = "published" if image_rules.known else "assumed"
    return {
        "pipeline": run.spec.autolabel_type,
        "model": run.serving.model,
        "asks": run.who,
        "records": record_count,
        "looked_at": len(places),
        **sum(expected, Amount()).to_json(),
        "stored": round(stored),
        "probes": sum(step.probes for step in steps),
        "steps": steps_in_json,
        "measured": bool(stored),
        "not_counted": _not_counted(steps),
        "image_rule": image_rule,
        "calibration_first": run.calibrates,
        "prices": run.prices_from,
    }


def _places_to_look_at(run: SpecRun) -> tuple[int, Set[int]]:
    """Return how many rows the run takes, and the places of all, or of MOST drawn from them."""
    pilot = run.options.pilot
    total = sum(1 for _ in run.job.input.rows())
    places: Sequence[int] = range(total)
    if pilot is not None:
        places = [place for place in places if in_pilot(place, total, pilot)]
    if len(places) > MOST:
        # With a fixed seed, because the same estimate should come out each time.
        return len(places), set(random.Random(0).sample(places, MOST))
    return len(places), set(places)


def _records(run: SpecRun, places: Set[int]) -> Iterator[Record]:
    """Yield the records that can be read; equal rows are asked about once."""
    source = Source(run.job.steps)
    seen = set()
    for place, row in enumerate(run.job.input.rows()):
        content = repr(row.data)
        if place not in places or content in seen:
            continue
        seen.add(content)
        with suppress(RecordError):
            yield source.record(row)


async def _look_at(
    records: Iterator[Record], steps: Sequence[_StepEstimate], memo: ImageMemo
) -> int:
    """Add up what each step sends for the records that can be read; return how many these are."""
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
        for step, amount in zip(steps, amounts, strict=True):
            step.for_sample += amount
    return readable


def _add_stored(results_dir: str, steps: Sequence[_StepEstimate]) -> None:
    """Add up the stored replies of all parts of the run, here and in its bucket."""
    step_by_label = {step.step.label: step for step in steps}
    seen_keys = set()  # several stores may hold the same reply
    # A bucket's are copied to another folder, because a run may be at work in this one.
    with bucket.copied(results_dir, replies=True) as copy_of_results:
        stores = dict.fromkeys([*stores_of(results_dir), *stores_of(copy_of_results)])
        for line in chain.from_iterable(map(read_lines, stores)):
            step = step_by_label.get(str(line.get("step")))
            answers_a_probe = line.get("task") == CHECK
            if step is None or line.get("model") != step.serving.model or answers_a_probe:
                continue
            if line["key"] in seen_keys:
                continue
            seen_keys.add(line["key"])
            usage = usage_of(line)
            step.paid += Amount(1, usage.input_tokens, usage.cached_tokens, usage.output_tokens)
            if not line.get("attempt"):  # only further tries state their number
                step.first_tries += 1


def _set_left(
    steps: Sequence[_StepEstimate], readable: int, weight: float, *, stream: bool
) -> None:
    rows = readable * weight
    # How many rows a step has done, as far as stored replies tell. With replies of step 0 about 60
    # rows, and of step 1 about 20, that is 60 and 20: 40 may still be to come. In a stream it is 60
    # and 60: all 60 were in step 1, and 40 had nothing to ask there.
    done = rows
    has_asking_step = False  # among the steps so far
    for step in steps:
        to_send = step.for_sample
        if to_send.requests:
            if not (stream and has_asking_step):
                done = min(done, step.first_tries * readable / to_send.requests)
            has_asking_step = True
        step.left = to_send * weight
        if step.paid.requests and done:
            # The other rows are taken to need what the answered ones needed, on average.
            measured = step.paid * ((rows - done) / done)
            if measured.input or not step.left.requests:
                step.left = measured
            else:  # the endpoint reports no tokens: each request has as many as by the means
                step.left *= measured.requests / step.left.requests


def _set_probes(run: SpecRun, steps: Sequence[_StepEstimate], places: Set[int]) -> None:
    checked_requests = 0.0  # a run counts those of all steps together
    sent_so_far = 0
    pictures: OwnPictures | None = None
    for step in steps:
        check_every = step.check_every
        if not check_every or step.left.requests <= 0:
            continue
        checked_requests += step.left.requests
        if pictures is None:
            column = run.job.steps[0].image_key or IMAGE_COLUMN
            pictures = pictures_of(_records(run, places), column)
        limits = step.serving.image_limits
        probes_of_endpoint = probes_for(
            round(checked_requests),
            check_every,
            sent_sizes(pictures, limits),
            in_frames=bool(limits.frames),  # each picture is fitted into one of a few sizes
        )
        # Each check is put to every endpoint. Another serving's pictures may have fewer sizes,
        # which need fewer.
        step.probes = max(0, len(step.serving.endpoints()) * probes_of_endpoint - sent_so_far)
        sent_so_far += step.probes


def _not_counted(steps: Sequence[_StepEstimate]) -> dict[str, str]:
    """Return, by a step's label, what it may send that no stored reply tells of."""
    is_any_stored = any(step.paid.requests for step in steps)
    not_counted = {}
    for each in steps:
        operator = each.step.operator
        if not isinstance(operator, Operator) or operator.serving is None:
            continue
        # A step that had nothing to ask about the pilot's rows has a file, but no reply.
        has_written = is_any_stored and os.path.exists(each.step.storage.output_path)
        is_measured = each.paid.requests > 0 or has_written
        if operator.uncounted and not is_measured:
            not_counted[each.step.label] = operator.uncounted
    return not_counted
