"""`generate`: run the pipeline that a spec names."""

import os

import click

from dataflow_grounding.cli.arguments import overrides_argument, spec_option
from dataflow_grounding.cli.pilot import advice, next_steps, set_workers
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.errors import GroundingError, RunStopped
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.spec_run import SpecRun
from dataflow_grounding.review import report_folder
from dataflow_grounding.spec import Spec
from dataflow_grounding.terminal import say, say_json


@click.command("generate")
@spec_option
@click.option("--pilot", type=click.IntRange(1), metavar="N", help="Only the first N records.")
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts, in RESULTS/shards; `merge` puts them together.")
@click.option(
    "--set-from", type=click.Choice(["pilot"]), help="Set max_workers from the pilot; with --pilot, measure it."
)
@click.option("--dry-run", is_flag=True, help="Show the plan; send nothing.")
@click.option(
    "--budget-usd", type=click.FloatRange(0), metavar="X", help="Stop before spending more (workflow.budget_usd)."
)
@click.option("--retry-failed", is_flag=True, help="Also retry permanent failures: refusals, unreadable replies.")
@click.option("--no-report", is_flag=True, help="Write no report.html.")
@click.option("--no-progress", is_flag=True, help="Don't show progress.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
@overrides_argument
def command(
    spec_paths: tuple[str, ...],
    pilot: int | None,
    shard: str | None,
    set_from: str | None,
    dry_run: bool,
    budget_usd: float | None,
    retry_failed: bool,
    no_report: bool,
    no_progress: bool,
    as_json: bool,
    overrides: tuple[str, ...],
) -> int:
    """Run the pipeline that SPEC names; KEY=VALUE overrides a key.

    Exit codes: 0 all records done, 1 some failed, 2 spec or input wrong, 3 stopped by the budget, 4 no record succeeded
    or the endpoint refused, 130 interrupted. After any stop, the same command resumes.
    """
    if shard and pilot:
        raise click.UsageError("--pilot tries the first records of all: leave --shard out")
    spec = _loaded(spec_paths, overrides)
    if set_from:
        set_workers(spec, in_pilot=pilot is not None)
    run = SpecRun(
        spec,
        pilot=pilot,
        shard=Shard.parse(shard) if shard else None,
        budget_usd=budget_usd,
        retry_failed=retry_failed or None,
        progress=False if no_progress else None,
    )
    if dry_run:
        if as_json:
            say_json(run.plan(), indent=1)
        else:
            say(run.describe(), err=False)
        return 0
    try:
        summary = run.execute()
    except RunStopped as stopped:
        if as_json:
            say_json({"stopped": str(stopped), **(stopped.summary or {})})
        raise
    if summary.done and not no_report:
        _report(run, summary)
    if as_json:
        say_json(summary.to_json())
        return summary.exit_code
    say(str(summary))
    if summary.done and pilot:
        say(advice(run))
    elif summary.records:
        say(next_steps(run, summary))
    return summary.exit_code


def _loaded(spec_paths: tuple[str, ...], overrides: tuple[str, ...]) -> Spec:
    """The spec; what it has that isn't used is told."""
    spec = load_spec(spec_paths, overrides)
    for remark in spec.remarks:
        say(f"Note: {remark}.")
    return spec


def _report(run: SpecRun, summary: Summary) -> None:
    """Write the page, unless it is there already; what keeps it from being written fails no run."""
    there = os.path.join(run.spec.results_dir, "report.html")
    if summary.already_complete and os.path.exists(there):
        summary.report = there
        return
    try:
        summary.report, _ = report_folder(run.spec.results_dir)
    except GroundingError as error:
        say(f"Warning: no report: {error}")
