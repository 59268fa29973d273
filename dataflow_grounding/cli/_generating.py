"""What `generate` does once its arguments are read."""

import os
import shlex
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dataflow_grounding._util.errors import GroundingError, RunStopped, SpecError
from dataflow_grounding._util.terminal import progress, say, say_json
from dataflow_grounding.cli.arguments import answer
from dataflow_grounding.data.records import STATUSES
from dataflow_grounding.engine.execute import MakeRun
from dataflow_grounding.engine.run import Run
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.summary import ASKED_AGAIN, Summary
from dataflow_grounding.jobs.executing import execute_spec
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.spec_run import SpecRun, ready_to_run

_STRONGER = {
    "gemini": "use a stronger model, or raise media_resolution or max_output_tokens",
    "openai": "use a stronger model, or raise max_tokens",
    "local": "use a stronger model, or raise max_tokens",
    "embedded": "name a vision-language model, in vlm or in DF_BASE_URL and DF_MODEL",
    "auto": "name a vision-language model, in vlm or in DF_BASE_URL and DF_MODEL",
}
"""By `vlm.backend`, what may make results better."""


class Options(NamedTuple):
    """Those of `generate`, of one run."""

    shard: str | None
    engine: str
    ray_address: str | None
    workers: int | None
    dry_run: bool
    budget_usd: float | None
    retry_failed: bool
    no_report: bool
    no_progress: bool


def run_spec(
    spec_paths: tuple[str, ...],
    overrides: tuple[str, ...],
    pilot: int | None,
    as_json: bool,
    options: Options,
) -> int:
    """Run a spec; return the exit code."""
    spec = load_spec(spec_paths, overrides)
    engine = _engine(options)
    for remark in spec.remarks:
        say(f"Note: {remark}.")
    run = ready_to_run(
        spec,
        pilot=pilot,
        progress=False if options.no_progress else None,  # None: on a terminal
        budget_usd=options.budget_usd,
        retry_failed=options.retry_failed or None,  # None: as in the spec
        shard=Shard.parse(options.shard) if options.shard else None,
    )
    if options.dry_run:
        answer(as_json, run.plan(), [run.describe()], indent=1)
        return 0
    # Where there are obstacles nobody is asked; programs read the model in `run.json`.
    if not as_json and not run.job.obstacles():
        say(f"{run.spec.autolabel_type} asks {run.who}.")
    for remark in run.remarks:
        say(f"Note: {remark}.")
    try:
        summary = execute_spec(run, engine)
    except RunStopped as stopped:
        if as_json:
            say_json({"stopped": str(stopped), **(stopped.summary or {})})
        raise
    if summary.done and not options.no_report:
        _report(run, summary, silent=options.no_progress)
    if as_json:
        say_json(summary.to_json())
    else:
        _say_what_was_done(run, summary, in_pilot=pilot is not None)
    return summary.exit_code


def _say_what_was_done(run: SpecRun, summary: Summary, *, in_pilot: bool) -> None:
    say(str(summary))
    if run.job.input.passed_over:
        say(run.job.input.passed_over)
    if summary.done and in_pilot:
        say(_advice_after_pilot(run))
    elif summary.records:
        lines = _next_steps(run, summary)
        if lines:
            say("\n".join(lines))


def _engine(options: Options) -> MakeRun:
    """What makes the runs: `Run` in this process, `RayRun` on Ray."""
    on_ray = options.engine == "ray"
    if on_ray and options.shard is not None:
        raise SpecError("--engine ray makes its own shards: leave --shard out")
    if not on_ray and (options.ray_address or options.workers):
        raise SpecError("--ray-address and --workers are options of --engine ray: add that")
    if not on_ray:
        return Run
    from dataflow_grounding.scale.cluster.ray_run import RayRun  # few runs are on Ray

    return partial(RayRun, options.ray_address, options.workers)


def _report(run: SpecRun, summary: Summary, *, silent: bool) -> None:
    """Write the page. Where it can't be written, warn: the run counts all the same."""
    page = os.path.join(run.spec.results_dir, "report.html")
    if summary.already_complete and os.path.exists(page):  # this call has added nothing to show
        summary.shown.report = page
        return
    from dataflow_grounding.review import report_folder  # needs Pillow and templates

    try:
        with progress("results are written; making the report", summary.done, silent) as tell:
            page, _ = report_folder(run.spec.results_dir, on_progress=tell)
            summary.shown.report = page
    except GroundingError as error:
        say(f"Warning: no report: {error}")


def _advice_after_pilot(run: SpecRun) -> str:
    folder = shlex.quote(run.spec.results_dir)
    lines = ["This was a pilot. Before the full run, look at:"]
    for step in run.job.steps:
        question = run.kind.pipeline.questions.get(step.operator.name, "Is it what you want?")
        lines.append(f"  {step.storage.output_path}: {question}")
    lines.append(f"  or at everything in a browser: dataflowgrounding report {folder}")
    stronger = _STRONGER.get(run.spec.block.vlm.backend, "use a stronger model")
    lines.append(f"If it is not good enough: {stronger}.")
    lines.append(
        "Only what a change affects is asked again. If it is good: the same command without"
        " --pilot continues from here."
    )
    if not run.serving.free:
        lines.append(
            "estimate now uses what was measured. To send faster, raise workflow.max_workers: a run"
            " finds out how many requests at once the endpoint takes, up to that."
        )
    return "\n".join(lines)


def _next_steps(run: SpecRun, summary: Summary) -> list[str]:
    folder = shlex.quote(run.spec.results_dir)
    lines = []
    if summary.shown.report:
        page = Path(summary.shown.report).absolute().as_uri()
        lines.append(f"next: open {page} in a browser")
    # `failed` counts records. `failures` also has checks that failed on a record that was written.
    if summary.failed or summary.failures:
        lines.append(_advice_on_failures(summary))
    costs_nothing = run.serving.free  # it runs on this machine
    if summary.done and not costs_nothing:
        lines.append(f"next: dataflowgrounding cost {folder}, for what each step took")
    were_phrases_looked_for = any(summary.expressions[status] for status in STATUSES)
    if were_phrases_looked_for:
        lines.append(f"next: with boxes drawn by hand, dataflowgrounding eval {folder} --gold FILE")
    return lines


def _advice_on_failures(summary: Summary) -> str:
    """A run asks again about what may pass; about what lasts only with --retry-failed."""
    line = "next: see in failures.jsonl why records failed"
    may_some_pass = summary.handover.passing_failures
    if may_some_pass:
        line += "; the same command tries again what may pass"
    lasting = sorted(ASKED_AGAIN.intersection(summary.handover.lasting_failures))
    if lasting:
        only = "only " if may_some_pass else ""
        line += f"; {only}--retry-failed asks again about {' and '.join(lasting)}"
    return line
