"""What a pilot is for: what to look at afterwards, and how many requests at a time it bore."""

from __future__ import annotations

import os

from dataflow_grounding.errors import SpecError
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.records import read_object
from dataflow_grounding.spec import Spec
from dataflow_grounding.terminal import say

MOST = 256
"""Requests in flight up to which a pilot finds out what the endpoint bears."""


def advice(run: SpecRun) -> str:
    """What to look at after a pilot, and how to go on."""
    lines = ["A pilot. Before the full run, look at:"]
    for step in run.steps:
        question = run.job.questions.get(step.operator.name, "Is it what you want?")
        lines.append(f"  {step.storage.output_path}: {question}")
    lines.append(f"  or at all of it in a browser: dataflowgrounding report {run.spec.results_dir}")
    lines.append("Not good enough: take a stronger model, or raise media_resolution, max_output_tokens or max_tokens.")
    lines.append(
        "What a change touches is asked again by itself. Good: the same command without --pilot goes on from here;"
    )
    lines.append("estimate now tells its cost from what was measured, and --set-from pilot sets workflow.max_workers.")
    return "\n".join(lines)


def set_workers(spec: Spec, in_pilot: bool) -> None:
    """Raise `max_workers`: for a pilot to what it may try, for a full run to what the pilot bore. Raises SpecError."""
    workflow = spec.block.workflow
    stated = workflow.max_workers
    if in_pilot:
        workflow.max_workers = max(stated, MOST)
        return
    borne = read_object(os.path.join(spec.results_dir, "run.json")).get("in_flight_borne")
    if not (isinstance(borne, int) and 0 < borne <= 10_000):  # what max_workers may be
        raise SpecError(f"no pilot in {spec.results_dir}: first run generate with --pilot N --set-from pilot")
    workflow.max_workers = max(stated, borne)
    more = "" if borne > stated else " (the pilot had no more in flight; --pilot N --set-from pilot finds out)"
    say(f"workflow.max_workers: {workflow.max_workers}{more}")
