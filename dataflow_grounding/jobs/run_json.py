"""`run.json`: what a run leaves of itself, for the commands that read its results folder."""

import json
import os
import time
from typing import Any

from dataflow_grounding._util.errors import RunStopped
from dataflow_grounding._util.paths import absolute
from dataflow_grounding._util.secrets import masked
from dataflow_grounding._util.terminal import addressed
from dataflow_grounding._util.version import __version__
from dataflow_grounding.data.records import read_object
from dataflow_grounding.data.results_folder import RUN_JSON, stated_in
from dataflow_grounding.data.rows import write_text
from dataflow_grounding.engine.costs import paid_by_step
from dataflow_grounding.engine.limiter import share_of
from dataflow_grounding.engine.shard_facts import bytes_of, digest_of, pictures_of
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
    """Write `run.json`; where nothing was to do, it keeps what an earlier run did. `summary` is
    None if the run was stopped before its end, or has only begun; `stopped` is what stopped it.
    """
    path = os.path.join(run.spec.results_dir, RUN_JSON)
    before: dict[str, Any] = {}
    if summary is not None and summary.already_complete:
        before = read_object(path)
    if before.get("state") == "finished":
        facts = before | {"spec": stated_spec(run.spec)}
    else:  # also after a run that was killed before it wrote this file
        facts = _facts(run, started, summary, stopped)
    # Without secrets, and with a bucket's address in place of its folder on this machine.
    text = addressed(json.dumps(masked(facts), indent=1, ensure_ascii=False, default=str))
    if json.loads(text) != before:  # an unchanged file keeps its time
        write_text(path, text + "\n")


def _facts(
    run: SpecRun, started: float, summary: Summary | None, stopped: RunStopped | None
) -> dict[str, Any]:
    folders = run.job.steps[0].storage.image_folders
    image_folders = [absolute(folder) for folder in folders]
    whole_seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(started))
    milliseconds = int(started * 1000) % 1000
    state = "finished"
    if summary is None:
        state = "stopped" if stopped else "unfinished"
    # The keys come in the order in which people read them.
    facts: dict[str, Any] = {
        "state": state,
        "stopped_by": str(stopped) if stopped else None,
        "version": __version__,
        "started": f"{whole_seconds}.{milliseconds:03}Z",
        "model": run.serving.model,
        "endpoint": run.serving.endpoint,
        "box_format": run.format_asked(),
        "image_folders": image_folders,
    }
    for model, prices in run.judges_prices.items():  # one at the most
        facts["judge"] = {"model": model, "prices": None if prices is None else vars(prices)}
    facts_by_label = {}  # of each step's operator, by the step's label
    for step in run.job.steps:
        if isinstance(step.operator, Operator):
            facts_by_label[step.label] = _facts_of(step.operator)
    facts |= _facts_of_input_or_boxes(run, facts_by_label)
    facts["serving"] = _facts_of(run.serving)
    if summary is not None and summary.handover.takes:
        # On Ray another process asked, so this one's serving doesn't know what the endpoint takes.
        facts["serving"].setdefault("takes", summary.handover.takes)
    facts["operators"] = facts_by_label
    if run.options.shard is not None:
        facts["shard"] = _facts_of_shard(run, image_folders, summary)
    # How many requests the endpoints bore at once in the end, all together. A share tells it: a
    # serving's part of what is known of an endpoint in this process.
    shares = [share_of(endpoint) for endpoint, _ in run.serving.endpoints()]
    facts["sustained_concurrency"] = sum(share.level for share in shares)
    facts["summary"] = stopped.summary if stopped else None
    facts["prices"] = run.prices_from
    # A stopped run has none: stores may be large, and a stop should be quick.
    facts["steps"] = None
    if summary is not None:
        facts["summary"] = summary.to_json()
        facts["steps"] = paid_by_step(run.spec.results_dir, run.options.prices, run.judges_prices)
    facts["spec"] = stated_spec(run.spec)
    return facts


def _facts_of(part: Operator | Serving) -> dict[str, Any]:
    # A part may be a user's own.
    try:
        return part.facts()
    except (Exception, SystemExit) as error:
        return {"error": described(error)}


def _facts_of_input_or_boxes(run: SpecRun, facts_by_label: dict[str, Any]) -> dict[str, Any]:
    # The input's own report if its job has one, else what the operators say of their boxes: the
    # first suspicion, None where all boxes are as expected, and the last one's counts of checks.
    if run.job.input.report is not None:
        return {"input": run.job.input.report}
    suspicions = []  # one for each operator that watches its boxes
    box_checks: dict[str, Any] = {}
    for facts in facts_by_label.values():
        if "suspect_boxes" in facts:
            suspicions.append(facts["suspect_boxes"])
        if facts.get("box_checks"):
            box_checks = {"box_checks": facts["box_checks"]}
    if not suspicions:
        return {}
    return {"suspect_boxes": next(filter(None, suspicions), None), **box_checks}


def _facts_of_shard(
    run: SpecRun, image_folders: list[str], summary: Summary | None
) -> dict[str, Any]:
    # What `merge` tells by whether all shards are of one input, with the same code, and whether
    # their files are as they left them. What only a finished run knows is None for a stopped one.
    shard = run.options.shard
    assert shard is not None
    paths = [step.storage.output_path for step in run.job.steps]
    rows_of_all = None
    digest_of_all = None
    pictures = None
    if summary is not None:
        # of all rows of the input, which each shard reads to find its own
        rows_of_all = summary.handover.seen
        digest_of_all = summary.handover.digest
        checkpoint = run.job.steps[0].storage.checkpoint_folder
        pictures = pictures_of(paths[-1], image_folders, checkpoint)
    source_digests = []  # of the code of each step's operator
    for step in run.job.steps:
        settings = step.operator.settings() or {}
        source_digests.append(settings.get("source"))
    return {
        "number": shard.number,
        "of": shard.of,
        "rows_of_all": rows_of_all,
        "digest_of_all": digest_of_all,
        "files": [os.path.relpath(path, run.spec.results_dir) for path in paths],
        "bytes": [bytes_of(path) for path in paths],
        "digests": [digest_of(path) for path in paths],
        "pictures": pictures,
        "code": source_digests,
    }


def stated_spec(spec: Spec) -> dict[str, Any]:
    """Return the spec as `run.json` has it: as the files state it, but for `data.classes`, where
    references are filled in, as exports number by the classes.
    """
    stated = {**spec.as_stated(), "results_dir": spec.results_dir}  # the folder that is worked in
    classes = spec.block.data.model_dump().get("classes")
    if classes:
        for data in stated_in({"spec": stated}, "data"):
            if "classes" in data:
                data["classes"] = classes
    # Keys that the spec leaves out are null, also those of other pipelines' blocks.
    nulls = dict.fromkeys([*SpecHead.model_fields, *PIPELINES])
    return {**nulls, **stated}
