"""Asking in each way, in rounds, with every reply kept: a second call sends nothing.

A way of asking is a set of spec keys over the user's spec. Each way has a results folder of its own
and is run as `generate` would run it, on the pictures of a round. `race` decides who goes on. What
the race is to cost is written down at the first call: so the same race is run again by a second
call, whatever is stored by then.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, TypeAlias

from dataflow_grounding._util.errors import (
    BudgetExceeded,
    EndpointRefused,
    RecordError,
    SpecError,
    SuspectBoxes,
)
from dataflow_grounding._util.files import portable, within
from dataflow_grounding._util.secrets import blotted_message
from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.records import dump_line, dump_text, read_object
from dataflow_grounding.data.rows import read_records, write_text
from dataflow_grounding.engine.budget import Prices
from dataflow_grounding.engine.costs import paid_by_step
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.extras.tuning.candidates import DEFAULT, Candidate
from dataflow_grounding.extras.tuning.defining import (
    MOST_CLASSES,
    ClassErrors,
    errors_of,
    judged,
    row_of,
    scores_of,
)
from dataflow_grounding.extras.tuning.gold import LEAST, GoldPicture, score_of
from dataflow_grounding.extras.tuning.race import Race, Rules
from dataflow_grounding.jobs.estimating import estimate
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.operators import DefinitionWriter
from dataflow_grounding.spec import Spec

PIPELINE = "image_grounding"
"""The pipeline whose grounding is tuned."""
_PHRASE_STEPS = ("step_0_expression_extraction", "step_0_class_list")
"""Folders in which grounding finds its phrases: those of captions, and those of `data.classes`."""
_PLAN = "plan.json"
"""The file with what a race is to take; see `Tuning.plan`."""
_LEAST_COST = 0.01
"""Requests a picture that a way takes at least: the race divides by what ways take."""
_SET_HERE = (
    "data.input_jsonl",
    "data.columns",
    "data.proposals",
    "data.split",
    "workflow.steps",
    "workflow.fuse",
    "workflow.negatives",
)
"""Keys that every way has alike, as all are asked about the gold's own phrases."""


@dataclass(frozen=True)
class Tuning:
    """What is to be found out about ways of asking, and in which folder.

    Args:
        spec_paths: The spec's files.
        overrides: `key=value`, over the files.
        pictures: The pictures with gold.
        candidates: The ways to try beside the spec's own.
        folder: Where everything is written; a second call goes on there.
        max_requests: How many requests may be sent in all, those of earlier calls among them.
        definitions: Whether definitions of classes are written anew, for which some of the
            requests are set aside.
        own: The spec's own way, which stays unless another is better.
    """

    spec_paths: Sequence[str]
    overrides: Sequence[str]
    pictures: Sequence[GoldPicture]
    candidates: Sequence[Candidate]
    folder: str
    max_requests: int = 160
    definitions: bool = False
    own: Candidate = field(default_factory=lambda: Candidate(DEFAULT, {}))

    @cached_property
    def ways(self) -> dict[str, Candidate]:
        """All ways by name, the spec's own first."""
        return {way.name: way for way in (self.own, *self.candidates)}

    @cached_property
    def prices(self) -> dict[str, Prices | None]:
        """What tokens cost by the name of a way, as a run of it takes them from its spec.

        They are asked for after each round, and to read the specs again takes longer than to count.
        """
        return {name: self.run_of(way, 1).options.prices for name, way in self.ways.items()}

    def spec_of(self, way: Candidate) -> Spec:
        """Return the spec of a way, which asks about the gold's phrases.

        Raises SpecError where it has a key or value that specs don't have, or that all ways have
        alike.
        """
        for key in _SET_HERE:
            if key in way.keys:
                raise SpecError(
                    f"{key} can't be tried: every way is asked about the gold's own phrases"
                )
        rows = within(self.folder, "pictures.jsonl")
        overrides = [
            *self.overrides,
            *way.overrides(PIPELINE),
            f"results_dir={within(self.folder, _folder_of(way))}",
            f"{PIPELINE}.data.input_jsonl={rows}",
            f"{PIPELINE}.data.columns={{}}",
            f"{PIPELINE}.data.proposals=''",
            f"{PIPELINE}.data.split=''",
            f"{PIPELINE}.workflow.steps=['1']",
            f"{PIPELINE}.workflow.fuse=false",
            f"{PIPELINE}.workflow.negatives=0",
        ]
        return load_spec(self.spec_paths, overrides)

    def lay_out(self) -> None:
        """Write the phrases that are asked about where each way's grounding step reads them.

        The step that would find phrases in captions is not run: they are those of the gold.
        """
        lines = [picture.row(number) for number, picture in enumerate(self.pictures)]
        text = "".join(map(dump_line, lines))
        paths = [within(self.folder, "pictures.jsonl")]
        for way in self.ways.values():
            for step in _PHRASE_STEPS:
                paths.append(within(self.folder, f"{_folder_of(way)}/{step}/annotations.jsonl"))
        for path in paths:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_text(path, text)

    def run_of(
        self,
        way: Candidate,
        pictures: int,
        max_requests: int | None = None,
        *,
        checks: bool = False,
    ) -> SpecRun:
        """Return the run of a way over the first pictures.

        Args:
            way: How the model is asked.
            pictures: How many of the pictures it is asked about.
            max_requests: The most requests that this run sends.
            checks: Whether the box format is checked as the spec says. Each round is a run of its
                own, so that a check in each of them would take an eighth of the budget. One of the
                spec's own way is enough: boxes that another way has in another format are worth
                nothing beside the gold.
        """
        spec = self.spec_of(way)
        if not checks:
            spec.block.vlm.check_every = None
        return SpecRun(spec, pilot=pictures, progress=False, max_requests=max_requests)

    def sent(self, way: Candidate) -> int:
        """Return how many replies a way's folder has, of this call and earlier ones."""
        return sum(int(step["requests"]) for step in self.costs_by_step(way))

    def sent_in_all(self) -> int:
        """Return how many replies all ways' folders have, of this call and earlier ones."""
        return sum(self.sent(way) for way in self.ways.values())

    def costs_by_step(self, way: Candidate) -> list[dict[str, Any]]:
        """Return the requests and costs of all replies that a way's folder has, by step.

        A cost is None where the way's model has no known price.
        """
        return paid_by_step(within(self.folder, _folder_of(way)), self.prices[way.name])

    def plan(self) -> dict[str, Any]:
        """Return what the race is to take from each way, as it was estimated at the first call.

        The same plan makes the same race, whatever is stored by now. A plan of other pictures,
        ways or another model is replaced. By key:

            "of": what the plan is of, see `_digest`
            "costs": requests a picture, by way
            "checks": requests that check the box format in the first round
            "usd_a_request": USD a request, by way; null where its price isn't known, or nothing
                was left to be sent
            "refused": by way that the endpoint didn't take, why
        """
        path = within(self.folder, _PLAN)
        digest = self._digest()
        stored = read_object(path) if os.path.exists(path) else {}
        if stored.get("of") == digest and {"costs", "checks"} <= stored.keys():
            return stored
        requests_a_picture: dict[str, float] = {}
        usd_a_request: dict[str, float | None] = {}
        for name, way in self.ways.items():
            figures = estimate(self.run_of(way, len(self.pictures)))
            requests = figures["requests"] + figures["stored"]
            requests_a_picture[name] = max(requests / len(self.pictures), _LEAST_COST)
            usd_a_request[name] = None
            if figures["cost_usd"] is not None and figures["requests"]:
                usd_a_request[name] = figures["cost_usd"] / figures["requests"]
        plan = {
            "of": digest,
            "costs": requests_a_picture,
            "checks": self._checks(),
            "usd_a_request": usd_a_request,
            "refused": {},
        }
        self.store_plan(plan)
        return plan

    def _checks(self) -> float:
        """Return how many requests check the box format in the first round, as estimated."""
        pictures = min(Rules().round_size, len(self.pictures))
        counts = []
        for checks in (True, False):
            figures = estimate(self.run_of(self.own, pictures, checks=checks))
            counts.append(float(figures["requests"] + figures["stored"]))
        with_checks, without = counts
        return with_checks - without

    def store_plan(self, plan: Mapping[str, Any]) -> None:
        """Write the plan, which the next call goes by."""
        write_text(within(self.folder, _PLAN), dump_text(plan, 1) + "\n")

    def _digest(self) -> str:
        """Return what tells this plan from others: pictures, what is asked, ways, and the model."""
        digest = sha256()
        for number, picture in enumerate(self.pictures):
            digest.update(dump_line(picture.row(number)).encode())
        for way in self.ways.values():
            digest.update(dump_text({way.name: dict(way.keys)}).encode())
        run = self.run_of(self.own, 1)  # isn't executed: it knows its model
        digest.update(run.serving.model.encode())
        return digest.hexdigest()


def _folder_of(way: Candidate) -> str:
    """Return the folder of a way, within that of all.

    It has the way's name and a digest of its keys: with other keys, a way of the same name has
    another one.
    """
    digest = sha256(dump_text(dict(way.keys)).encode()).hexdigest()[:8]
    name = portable(way.name).replace("/", "_").replace(" ", "_").replace("=", "_")
    return f"tries/{name[:40]}-{digest}"


def most_usd(plan: Mapping[str, Any], max_requests: int) -> float | None:
    """Return the most that so many requests may cost; None where a way has no known price."""
    prices = list(plan["usd_a_request"].values())
    return None if None in prices else max(prices) * max_requests


def run_race(tuning: Tuning) -> Race:
    """Ask in rounds until the race is over, and return it.

    What is needed for checks of the box format and for definitions is set aside. Raises what a run
    of the spec's own way does; replies that came are kept, and the next call goes on.
    """
    plan = tuning.plan()
    set_aside = math.ceil(plan["checks"])
    if tuning.definitions:  # they are written, and half of the pictures asked about once more
        held_out = len(tuning.pictures) - len(tuning.pictures) // 2
        set_aside += math.ceil(plan["costs"][tuning.own.name] * held_out) + MOST_CLASSES
    race = Race(
        tuning.own.name,
        [way.name for way in tuning.candidates],
        pictures=len(tuning.pictures),
        max_requests=max(tuning.max_requests - set_aside, 0),
        costs=plan["costs"],
    )
    while race.round:
        pictures = race.round.pictures
        say(f"pictures {pictures[0] + 1} to {pictures[-1] + 1}: {', '.join(race.round.ways)}")
        try:
            _ask_round(tuning, race, plan)
        except BudgetExceeded:
            race.end("the budget of requests was spent")
            break
        race.judge()
    return race


def _ask_round(tuning: Tuning, race: Race, plan: dict[str, Any]) -> None:
    """Ask all ways about the round's pictures, and tell the race their scores.

    A picture whose reply can't be used scores 0. A way that the endpoint doesn't take leaves the
    race, and is noted in the plan. Raises BudgetExceeded where more requests were needed than
    estimated, as of replies that couldn't be read: the race has the scores of the ways that were
    asked before, as these are paid for.
    """
    assert race.round is not None
    pictures = race.round.pictures
    is_first = pictures[0] == 0
    for name in race.round.ways:
        if name in plan["refused"]:  # by an earlier call, in this round
            race.drop(name, plan["refused"][name])
            continue
        way = tuning.ways[name]
        left = max(race.max_requests + math.ceil(plan["checks"]) - tuning.sent_in_all(), 0)
        checks = is_first and name == tuning.own.name
        run = tuning.run_of(way, pictures[-1] + 1, left, checks=checks)
        try:
            run.execute()
        except (EndpointRefused, SuspectBoxes) as stopped:
            if name == tuning.own.name:
                raise
            why = blotted_message(str(stopped)).splitlines()[0]
            plan["refused"][name] = why
            tuning.store_plan(plan)
            race.drop(name, why)
            continue
        answers = _answers_of(run)
        for number in pictures:
            race.tell(name, number, score_of(tuning.pictures[number], answers.get(str(number))))


def _answers_of(run: SpecRun) -> dict[str, dict[str, Any]]:
    """Return the records that a run left, by the picture's number as text; empty without any."""
    path = run.steps[-1].storage.output_path
    if not os.path.exists(path):
        return {}
    return {str(record["image_id"]): record for record in read_records(path)}


Proposals: TypeAlias = dict[str, tuple[list[str], str]]
"""Class → its phrases, and what counts as it."""


def try_definitions(tuning: Tuning, race: Race) -> dict[str, Any]:
    """Have definitions written from errors on half of the pictures, and judge them on the others.

    Returns:
        Under `classes` each class with the definition that was proposed, whether it is `kept`, and
        the comparison that says so; `keys`, the spec keys of those kept; `requests` and `cost_usd`
        of what was asked besides the race; `ended`, why it ended early, or null. Where requests run
        out, no class is judged.
    """
    result: dict[str, Any] = {"classes": {}, "keys": {}, "ended": None}
    winner = tuning.ways[race.winner]
    count = _affordable_pictures(tuning, race)
    half = count // 2
    shown = tuning.pictures[:half]
    held_out = tuning.pictures[half:count]
    # The trial of definitions is a Tuning of its own folder, with one way: at first the winner,
    # and once there are proposals, the winner with these.
    folder = within(tuning.folder, "definitions")
    trial = replace(tuning, pictures=held_out, candidates=[], own=winner, folder=folder)
    trial.lay_out()
    try:
        if count < LEAST:
            raise BudgetExceeded("too few requests are left")
        run = tuning.run_of(winner, count, _requests_left(tuning, trial))
        run.execute()
        before = _answers_of(run)
        proposals = _proposals(tuning, trial, errors_of(shown, before), run)
        if proposals:
            way = Candidate("definitions", {**winner.keys, **_keys_of(run.spec, proposals)})
            trial = replace(trial, own=way)
            trial.lay_out()
            second = trial.run_of(way, len(held_out), _requests_left(tuning, trial))
            second.execute()
            after = _answers_of(second)
            result["classes"] = _judged_classes(proposals, held_out, half, before, after)
    except BudgetExceeded:
        result["ended"] = "the budget of requests was spent"
    kept: Proposals = {}
    for label, proposal in result["classes"].items():
        if proposal["kept"]:
            kept[label] = (proposal["phrases"], proposal["definition"])
    if kept:
        result["keys"] = _keys_of(tuning.spec_of(winner), kept)
    result |= _sums_of([*_paid_for_writing(trial), *trial.costs_by_step(trial.own)])
    return result


def _sums_of(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums of parts' `requests` and `cost_usd`, which is None where any part's is."""
    costs = [part["cost_usd"] for part in parts]
    return {
        "requests": sum(part["requests"] for part in parts),
        "cost_usd": None if None in costs else round(sum(costs), 6),
    }


def _affordable_pictures(tuning: Tuning, race: Race) -> int:
    """Return on how many pictures definitions can be written and judged with what the race left.

    The winner is asked about those of them that it hasn't seen, and about half of them once more.
    The number goes by the plan, so that it comes to the same whatever is stored by now.
    """
    cost = tuning.plan()["costs"][race.winner]  # requests a picture
    seen = len(race.scores[race.winner])
    spare = tuning.max_requests - race.requests - math.ceil(tuning.plan()["checks"]) - MOST_CLASSES
    # n pictures take (n - seen) * cost, and n / 2 * cost for the second time.
    affordable = (spare + seen * cost) / (1.5 * cost)
    rounding = 1e-9  # 2.9999999999 is 3
    return min(len(tuning.pictures), int(affordable + rounding))


def _requests_left(tuning: Tuning, trial: Tuning) -> int:
    """Return how many requests may still be sent, by what is stored of the race and the trial.

    Replies to the trial's way count where it is not one of the race's. 0 where more were sent.
    """
    sent = tuning.sent_in_all()
    sent += sum(int(step["requests"]) for step in _paid_for_writing(trial))
    if trial.own is not tuning.ways.get(trial.own.name):
        sent += trial.sent(trial.own)
    return max(tuning.max_requests - sent, 0)


def _paid_for_writing(trial: Tuning) -> list[dict[str, Any]]:
    """Return the requests and costs of definitions that were written, by step.

    Judging them isn't among these.
    """
    return paid_by_step(trial.folder, trial.prices[trial.own.name])


def _proposals(
    tuning: Tuning, trial: Tuning, classes: Sequence[ClassErrors], run: SpecRun
) -> Proposals:
    """Return definitions of the classes that the model got wrong, as it writes them itself.

    Classes for which no reply can be used are left out. The spec's own definition of a class, that
    of the first of its phrases that has one, is shown to the model.

    Args:
        tuning: What is tuned; its race has taken requests already.
        trial: The trial of definitions, in whose folder replies and sheets are kept.
        classes: The classes with their errors.
        run: The run whose errors these are.

    Raises:
        BudgetExceeded: Too few requests are left.
    """
    if not classes:
        return {}
    spec_definitions = run.job.definitions()
    rows = []
    for errors in classes:
        former = ""
        for phrase in errors.phrases:
            if phrase in spec_definitions:
                former = spec_definitions[phrase]
                break
        rows.append(row_of(errors, within(trial.folder, "sheets"), former))
    options = RunOptions(
        progress=False,
        replies=within(trial.folder, ".ckpt/replies.jsonl"),
        max_requests=_requests_left(tuning, trial),
    )
    os.makedirs(within(trial.folder, ".ckpt"), exist_ok=True)
    token = current_options.set(options)
    try:
        records = DefinitionWriter(run.serving)(rows)
    except RecordError:  # none of the replies could be used
        return {}
    finally:
        current_options.reset(token)
    proposals: Proposals = {}
    for record in records:
        definition = record.get("definition")
        if isinstance(definition, str):
            # What looks like a reference would be filled in where the spec is read.
            safe = definition.replace("${", "$ {")
            proposals[record["class"]] = (record["phrases"], safe)
    return proposals


def _keys_of(spec: Spec, proposals: Proposals) -> dict[str, Any]:
    """Return the spec keys that state definitions.

    They are `data.classes` for classes that have an object of their own there, and `data.glossary`,
    phrase by phrase, for the others.
    """
    data = spec.block.data.model_dump()
    classes = data.get("classes")
    of_classes: dict[str, Any] = {}
    of_phrases: dict[str, str] = {}
    for label, (phrases, definition) in proposals.items():
        if isinstance(classes, dict) and isinstance(classes.get(label), dict):
            of_classes[label] = {"definition": definition}
        else:
            of_phrases.update(dict.fromkeys(phrases, definition))
    keys: dict[str, Any] = {}
    if of_classes:
        keys["data.classes"] = of_classes
    if of_phrases:
        keys["data.glossary"] = of_phrases
    return keys


def _judged_classes(
    proposals: Proposals,
    held_out: Sequence[GoldPicture],
    first: int,
    before: Mapping[str, Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return each class with its proposal, and whether it holds on the held-out pictures.

    Args:
        proposals: What was proposed for each class.
        held_out: The pictures that it is judged on.
        first: The number of the first of these in `before`; in `after` it is 0.
        before: What a run without the proposals left, by the picture's number as text.
        after: What a run with them left.
    """
    classes = {}
    for label, (phrases, definition) in proposals.items():
        scores_before = {}
        for number, score in scores_of(label, held_out, before, first):
            scores_before[number - first] = score
        scores_after = dict(scores_of(label, held_out, after))
        judgement = judged(scores_before, scores_after)
        classes[label] = {
            "phrases": phrases,
            "definition": definition,
            "kept": judgement.kept,
            "pictures": judgement.compared.pictures,
            "before": round(judgement.before, 4),
            "after": round(judgement.after, 4),
            "interval": [round(end, 4) for end in judgement.compared.interval],
            "chance": round(judgement.chance, 4),
        }
    return classes


def document_of(
    tuning: Tuning, race: Race, definitions: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what `tuning.json` holds: each way's figures, what it took, and which is the best.

    `definitions` is what `try_definitions` returned, None where it wasn't called. Costs are null
    where a price isn't known.
    """
    ways = {}
    for name, way in tuning.ways.items():
        comparison = race.compare(name, race.default)
        is_compared = name != race.default and comparison.pictures > 0
        mean = race.mean(name)
        ways[name] = {
            "set": dict(way.keys),
            "pictures": len(race.scores[name]),
            "score": None if mean is None else round(mean, 4),
            "gain": round(comparison.gain, 4) if is_compared else None,
            "interval": [round(end, 4) for end in comparison.interval] if is_compared else None,
            "chance": round(race.chance(name), 4) if is_compared else None,
            "left": race.left.get(name),
            **_sums_of(tuning.costs_by_step(way)),
        }
    spent: list[Mapping[str, Any]] = [*ways.values()]  # whatever requests were sent for
    if definitions:
        spent.append(definitions)
    run = tuning.run_of(tuning.own, 1)  # isn't executed: it knows its model
    return {
        "tuning": 1,
        "version": __version__,
        "model": run.serving.model,
        "pictures": len(tuning.pictures),
        "phrases": sum(len(picture.phrases) for picture in tuning.pictures),
        "max_requests": tuning.max_requests,
        **_sums_of(spent),
        "ended": race.ended,
        "chosen": race.winner,
        "keys": {**tuning.ways[race.winner].keys, **(definitions or {}).get("keys", {})},
        "ways": ways,
        "definitions": definitions,
    }
