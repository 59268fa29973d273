"""What a pilot is for: what to look at afterwards, and how much concurrency the endpoint sustains."""

import os
import shlex

from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.errors import SpecError
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.records import read_object
from dataflow_grounding.spec import Spec
from dataflow_grounding.terminal import say

MOST = 256
"""Requests in flight up to which a pilot measures what the endpoint sustains."""


def advice(run: SpecRun) -> str:
    """What to look at after a pilot, and how to go on."""
    lines = ["This was a pilot. Before the full run, look at:"]
    for step in run.steps:
        question = run.job.questions.get(step.operator.name, "Is it what you want?")
        lines.append(f"  {step.storage.output_path}: {question}")
    lines.append(f"  or at everything in a browser: dataflowgrounding report {shlex.quote(run.spec.results_dir)}")
    lines += [
        "If it is not good enough: use a stronger model, or raise media_resolution, max_output_tokens or max_tokens.",
        "Only what a change affects is asked again. If it is good: the same command without --pilot continues from "
        "here;",
        "estimate now uses what was measured. How many requests at once the endpoint takes is measured by --pilot N "
        "--set-from pilot, with a larger N; --set-from pilot alone then uses that many.",
    ]
    return "\n".join(lines)


def next_steps(run: SpecRun, summary: Summary) -> str:
    """What to do after a run."""
    folder = shlex.quote(run.spec.results_dir)
    lines = ["next: open the report in a browser"] if summary.report else []
    if summary.failed or summary.failures:
        way = "the same command tries again what may pass" if summary.passing_failures else "--retry-failed asks again"
        lines.append(f"next: see in failures.jsonl why records failed; {way}")
    lines.append(f"next: dataflowgrounding cost {folder}; or, with boxes drawn by hand, eval {folder} --gold FILE")
    return "\n".join(lines)


def set_workers(spec: Spec, in_pilot: bool) -> None:
    """Raise `max_workers`: for a pilot to what it may try, for a full run to what one sustained. Raises SpecError."""
    workflow = spec.block.workflow
    stated = workflow.max_workers
    if in_pilot:
        workflow.max_workers = max(stated, MOST)
        return
    run = read_object(os.path.join(spec.results_dir, "run.json"))
    sustained = run.get("sustained_concurrency", run.get("in_flight_borne"))  # the latter in older folders
    if not (isinstance(sustained, int) and 0 < sustained <= 10_000):  # what max_workers may be
        raise SpecError(f"no pilot in {spec.results_dir}: first run generate with --pilot N --set-from pilot")
    workflow.max_workers = max(stated, sustained)
    why = (
        f" (the last run sustained {sustained} at once; only --pilot N --set-from pilot, with new records, tries more)"
    )
    more = "" if sustained > stated else why
    say(f"workflow.max_workers: {workflow.max_workers}{more}")
