"""`generate`: run the pipeline that a spec names."""

from typing import Any

import click

from dataflow_grounding.cli.arguments import (
    Range,
    json_option,
    overrides_argument,
    pilot_option,
    spec_option,
)


@click.command("generate")
@spec_option
@pilot_option
@click.option(
    "--shard",
    metavar="I/N",
    help="Only part I of N, in RESULTS/shards; then `merge`.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Run in this process, or on Ray.",
)
@click.option(
    "--ray-address",
    metavar="A",
    help="The address of a Ray cluster (auto, host:port); without it, start one here.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="Processes on Ray; by default one per CPU.",
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
    help="Also ask again where a stored reply refuses or can't be read.",
)
@click.option("--no-report", is_flag=True, help="Write no report.html.")
@click.option("--no-progress", "-q", is_flag=True, help="Don't show progress.")
@json_option
@overrides_argument
def generate(
    spec_paths: tuple[str, ...],
    overrides: tuple[str, ...],
    pilot: int | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Run the pipeline that SPEC names; KEY=VALUE overrides a key.

    Exit codes: 0 all records done, 1 some failed, 2 spec or input wrong, 3 stopped by the budget,
    for want of credit, or by an outage longer than workflow.max_wait, 4 no record succeeded or the
    endpoint refused, 130 interrupted. After any stop, the same command resumes.
    """
    # A run imports half of the package, and --help needs none of it.
    from dataflow_grounding.cli._generating import Options, run_spec

    return run_spec(spec_paths, overrides, pilot, as_json, Options(**options))
