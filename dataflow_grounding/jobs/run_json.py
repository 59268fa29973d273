"""`run.json`: what a run leaves of itself, for the commands that read its results folder."""

import json
import os
import time

from dataflow_grounding._util.errors import RunStopped
from dataflow_grounding._util.paths import absolute
from dataflow_grounding._util.results_names import RUN_JSON
from dataflow_grounding._util.secrets import masked
from dataflow_grounding._util.terminal import addressed
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.records import JsonObject, read_object
from dataflow_grounding.data.results_folder import stated_in
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.engine.costs import paid_by_step
from dataflow_grounding.engine.shard import digest_of
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.jobs.registry import PIPELINES
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.operators import Operator
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import Spec
from dataflow_grounding.spec.schema import SpecHead
from dataflow_grounding.spec.user_code import described


def write_run_json(
    run: SpecRun, started: float, summary: Summary | None = None, stopped: RunStopped | None = None
) -> None:
    """Write `run.json`; `summary` is None before the end, and `stopped` is what stopped the run."""
    path = os.path.join(run.spec.results_dir, RUN_JSON)
    nothing_was_to_do = summary is not None and summary.already_complete
    before = read_object(path) if nothing_was_to_do else {}
    facts: JsonObject
    if before.get("state") == "finished":
        # The file goes on telling what the earlier run did.
        facts = {**before, "spec": stated_spec(run.spec)}
    else:
        # This run did something. Or nothing was to do, but the earlier run was killed before it
        # wrote this file.
        facts = _facts(run, started, summary, stopped)
    # Without secrets, and with a bucket's address in place of its folder on this machine.
    text = addressed(json.dumps(masked(facts), indent=1, ensure_ascii=False, default=str))
    if json.loads(text) != before:  # an unchanged file keeps its time
        write_text(path, text + "\n")


def _facts(
    run: SpecRun, started: float, summary: Summary | None, stopped: RunStopped | None
) -> JsonObject:
    facts_by_label = _facts_of_operators(run)
    state = "unfinished"
    what_was_done = None
    costs_of_steps = None
    if summary is not None:
        state = "finished"
        what_was_done = summary.to_json()
        costs_of_steps = paid_by_step(run.spec.results_dir, run.options.prices, run.judges_prices)
    elif stopped is not None:
        # Its costs aren't added up: stores may be large, and a stop should be quick.
        state = "stopped"
        what_was_done = stopped.summary
    # The keys come in the order in which people read them.
    return {
        "state": state,
        "stopped_by": str(stopped) if stopped else None,
        "version": __version__,
        "started": _time_in_words(started),
        "model": run.serving.model,
        "endpoint": run.serving.endpoint,
        "box_format": run.format_asked(),
        "image_folders": _image_folders(run),
        **_facts_of_judge(run),
        **_facts_of_input_or_boxes(run, facts_by_label),
        "serving": _facts_of(run.serving),
        "operators": facts_by_label,
        **_facts_of_shard(run, summary),
        "summary": what_was_done,
        "prices": run.prices_from,
        "steps": costs_of_steps,
        "spec": stated_spec(run.spec),
    }


def _facts_of_operators(run: SpecRun) -> JsonObject:
    """Return facts by the label of the operator's step."""
    facts_by_label = {}
    for step in run.job.steps:
        if isinstance(step.operator, Operator):
            facts_by_label[step.label] = _facts_of(step.operator)
    return facts_by_label


def _time_in_words(seconds: float) -> str:
    """Return 2026-01-31T12:00:00.123Z."""
    whole_seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    milliseconds = int(seconds * 1000) % 1000
    return f"{whole_seconds}.{milliseconds:03}Z"


def _image_folders(run: SpecRun) -> list[str]:
    return [absolute(folder) for folder in run.job.steps[0].storage.image_folders]


def _facts_of_judge(run: SpecRun) -> JsonObject:
    for model, prices in run.judges_prices.items():  # one at the most
        return {"judge": {"model": model, "prices": None if prices is None else vars(prices)}}
    return {}


def _facts_of(part: Operator | Serving) -> JsonObject:
    try:
        return dict(part.facts())
    except (Exception, SystemExit) as error:  # of a user's own code
        return {"error": described(error)}


def _facts_of_input_or_boxes(run: SpecRun, facts_by_label: JsonObject) -> JsonObject:
    """Return the input's own report if its job has one, else what operators say of their boxes."""
    if run.job.input.report is not None:
        return {"input": run.job.input.report}
    watching = [facts for facts in facts_by_label.values() if "suspect_boxes" in facts]
    if not watching:  # no step has boxes
        return {}
    # Of each operator that watches its boxes: what is suspect about them, or None.
    suspicions = [facts["suspect_boxes"] for facts in watching]
    return {"suspect_boxes": next(filter(None, suspicions), None)}


def _facts_of_shard(run: SpecRun, summary: Summary | None) -> JsonObject:
    """Return what `merge` needs of a finished shard; {} for any other run."""
    shard = run.options.shard
    if shard is None or summary is None:
        return {}
    paths = [step.storage.output_path for step in run.job.steps]
    facts: JsonObject = {
        "number": shard.number,
        "of": shard.of,
        # of all rows of the input: a shard reads all of them to find its own
        "rows_of_all": summary.handover.seen,
        "digest_of_all": summary.handover.digest,
        "files": [os.path.relpath(path, run.spec.results_dir) for path in paths],
        "digests": [digest_of(path) for path in paths],
        "code": [(step.operator.settings() or {}).get("source") for step in run.job.steps],
        "requests": summary.requests,
        "notes": summary.notes,
    }
    return {"shard": facts}


def stated_spec(spec: Spec) -> JsonObject:
    """Return the spec as its files state it; classes are filled in, because exports number them."""
    stated = {**spec.as_stated(), "results_dir": spec.results_dir}  # the folder that is worked in
    classes = spec.block.data.model_dump().get("classes")
    if classes:
        # `stated_in` yields the blocks of `stated` themselves, so that this changes `stated`.
        for data in stated_in({"spec": stated}, "data"):
            if "classes" in data:
                data["classes"] = classes
    # All keys at the top are there: those of other pipelines' blocks are null.
    nulls = dict.fromkeys([*SpecHead.model_fields, *PIPELINES])
    return {**nulls, **stated}
