"""`generate`: run the pipeline that a spec names."""

import gc
import os
import shlex
from functools import partial
from typing import Any

import click

from dataflow_grounding._util.errors import GroundingError, RunStopped, SpecError
from dataflow_grounding._util.extensions import required
from dataflow_grounding._util.terminal import say, say_json, telling
from dataflow_grounding.cli.arguments import Range, answer, overrides_argument, spec_option
from dataflow_grounding.data.records import read_object
from dataflow_grounding.data.working_folder import address_of, present, sent, working_folder
from dataflow_grounding.engine.execute import MakeRun
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.spec import Spec

_MOST = 256  # requests in flight up to which a pilot measures what the endpoint sustains


@click.command("generate")
@spec_option
@click.option("--pilot", type=click.IntRange(1), metavar="N", help="Only the first N records.")
@click.option(
    "--shard",
    type=Shard.parse,
    metavar="I/N",
    help="Only part I of N, in RESULTS/shards; then `merge`.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    metavar="N",
    help="So many processes, for as many cores.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Where: this process, or Ray.",
)
@click.option(
    "--ray-address",
    metavar="A",
    help="A Ray cluster's (auto, host:port); without it, one is started here.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Processes on Ray; else one for each CPU.",
)
@click.option(
    "--set-from",
    type=click.Choice(["pilot"]),
    help="Set max_workers from the pilot; with --pilot, measure it.",
)
@click.option("--dry-run", is_flag=True, help="Show the plan; send nothing.")
@click.option(
    "--budget-usd",
    type=Range(0),
    metavar="X",
    help="Stop before spending more (workflow.budget_usd).",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Also retry permanent failures: refusals, unreadable replies.",
)
@click.option("--no-report", is_flag=True, help="Write no report.html.")
@click.option("--no-progress", is_flag=True, help="Don't show progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@overrides_argument
def generate(
    spec_paths: tuple[str, ...],
    overrides: tuple[str, ...],
    pilot: int | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Run the pipeline that SPEC names; KEY=VALUE overrides a key.

    Exit codes: 0 all records done, 1 some failed, 2 spec or input wrong, 3 stopped by the budget, 4
    no record succeeded or the endpoint refused, 130 interrupted. After any stop, the same command
    resumes.
    """
    spec = load_spec(spec_paths, overrides)
    engine = _engine(spec, given)
    for remark in spec.remarks:
        say(f"Note: {remark}.")
    if given["set_from"]:
        _set_workers(spec, in_pilot=pilot is not None)
    limits = {
        "budget_usd": given["budget_usd"],
        "retry_failed": given["retry_failed"] or None,
        "shard": given["shard"],
    }
    run = SpecRun(spec, pilot=pilot, progress=False if given["no_progress"] else None, **limits)
    if given["dry_run"]:
        answer(as_json, run.plan(), [run.describe()], indent=1)
        return 0
    # what the start has made stays to the end: not looked through again, not even at the end
    gc.freeze()
    try:
        summary = run.execute(engine)
    except RunStopped as stopped:
        if as_json:
            say_json({"stopped": str(stopped), **(stopped.summary or {})})
        raise
    if summary.done and not given["no_report"]:
        _report(run, summary, silent=given["no_progress"])
    if as_json:
        say_json(summary.to_json())
        return summary.exit_code
    say(str(summary))
    if summary.done and pilot:
        say(_advice(run))
    elif summary.records:
        say(_next_steps(run, summary))
    return summary.exit_code


def _engine(spec: Spec, given: dict[str, Any]) -> MakeRun:
    """What takes the rows through the steps. Raises SpecError for options that don't
    go together.
    """
    _check_together(spec, given)
    if given["engine"] == "ray":
        ray_run = required("engines", "ray", "--engine ray")
        return partial(ray_run, given["ray_address"], given["workers"])
    if (given["processes"] or 1) > 1:
        return partial(required("engines", "processes", "--processes"), given["processes"])
    return Run


def _check_together(spec: Spec, given: dict[str, Any]) -> None:
    """Raises SpecError for options that don't go together."""
    on_ray, is_shard, has_processes = (
        given["engine"] == "ray",
        given["shard"] is not None,
        given["processes"] is not None,
    )
    if has_processes and on_ray:
        raise SpecError("--processes are of this machine: with --engine ray, say --workers")
    if has_processes and is_shard:
        raise SpecError("--processes makes parts of its own: leave --shard out")
    if has_processes and spec.block.vlm.backend == "local":
        raise SpecError("vlm.backend local has its model in one process: leave --processes out")
    if on_ray and is_shard:
        raise SpecError("--engine ray makes shards of its own: leave --shard out")
    if not on_ray and (given["ray_address"] or given["workers"]):
        raise SpecError("--ray-address and --workers are options of --engine ray: add that")


def _report(run: SpecRun, summary: Summary, *, silent: bool) -> None:
    """Write the page, unless it is there already; what keeps it from being written fails no run."""
    there = os.path.join(run.spec.results_dir, "report.html")
    stays = summary.already_complete and os.path.exists(there)
    if stays:
        summary.report = address_of(there)
        return
    # with Pillow's drawing and the figures, which no run needs
    from dataflow_grounding.extras.review import report_folder

    try:
        with telling("results are written; making the report", summary.done, silent) as tell:
            summary.report = sent(report_folder(run.spec.results_dir, on_progress=tell)[0])
    except GroundingError as error:
        say(f"Warning: no report: {error}")


def _advice(run: SpecRun) -> str:
    folder = shlex.quote(address_of(run.spec.results_dir))
    lines = ["This was a pilot. Before the full run, look at:"]
    for step in run.steps:
        question = run.job.questions.get(step.operator.name, "Is it what you want?")
        lines.append(f"  {address_of(step.storage.output_path)}: {question}")
    lines += [
        f"  or at everything in a browser: dataflowgrounding report {folder}",
        (
            "If it is not good enough: use a stronger model, or raise media_resolution,"
            " max_output_tokens or max_tokens."
        ),
        (
            "Only what a change affects is asked again. If it is good: the same command without"
            " --pilot continues from here;"
        ),
        (
            "estimate now uses what was measured. How many requests at once the endpoint takes is"
            " measured by --pilot N --set-from pilot, with a larger N; --set-from pilot alone then"
            " uses that many."
        ),
    ]
    return "\n".join(lines)


def _next_steps(run: SpecRun, summary: Summary) -> str:
    folder = shlex.quote(address_of(run.spec.results_dir))
    lines = ["next: open the report in a browser"] if summary.report else []
    if summary.failed or summary.failures:
        way = (
            "the same command tries again what may pass"
            if summary.passing_failures
            else "--retry-failed asks again"
        )
        lines.append(f"next: see in failures.jsonl why records failed; {way}")
    lines.append(
        f"next: dataflowgrounding cost {folder}; or, with boxes drawn by hand, eval {folder} --gold"
        " FILE"
    )
    return "\n".join(lines)


def _set_workers(spec: Spec, in_pilot: bool) -> None:
    """Raise `max_workers`: for a pilot to what it may try, for a full run to what one sustained.
    Raises SpecError.
    """
    workflow = spec.block.workflow
    stated = workflow.max_workers
    if in_pilot:
        workflow.max_workers = max(stated, _MOST)
        return
    run = read_object(
        present(os.path.join(working_folder(spec.results_dir), "run.json"), anew=True)
    )
    sustained = run.get("sustained_concurrency")
    if not (isinstance(sustained, int) and 0 < sustained <= 10_000):  # what max_workers may be
        raise SpecError(
            f"no pilot in {spec.results_dir}: first run generate with --pilot N --set-from pilot"
        )
    workflow.max_workers = max(stated, sustained)
    tried = (
        f"the last run sustained {sustained} at once; only --pilot N --set-from pilot, with new"
        " records, tries more"
    )
    say(
        f"workflow.max_workers: {workflow.max_workers}{'' if sustained > stated else f' ({tried})'}"
    )
