"""`calibrate`: find out in which box format a model answers."""

from __future__ import annotations

from dataclasses import asdict

import click

from dataflow_grounding.calibration.asking import Calibrated, CalibrationUnclear, calibrate
from dataflow_grounding.calibration.choice import keep, stated_format, summary
from dataflow_grounding.cli.arguments import spec_option_for
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.errors import GroundingError, SpecError
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.jobs.spec_run import options_of
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.terminal import say, say_json


@click.command("calibrate")
@spec_option_for("Calibrate the model of this spec's vlm block")
@click.option("--base-url", metavar="URL", help="Calibrate this OpenAI-compatible endpoint instead; goes with --model.")
@click.option("--model", metavar="NAME", help="The model's name.")
@click.option(
    "--plot", "plot_path", metavar="FILE", help="Write a picture of the rectangles asked for and those answered."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def command(
    spec_paths: tuple[str, ...],
    base_url: str | None,
    model: str | None,
    plot_path: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
) -> int:
    """Find out a model's box format, and its error in pixels, from pictures of coloured rectangles.

    Sends 3 requests, or 10 to 40 if the model counts pixels. The result is stored in the user's cache folder, by
    endpoint, model and prompt; `vlm.box_format: calibrated` uses it, and so does `auto` for a model it doesn't know.
    Exits with 2 if the answers fit no format.
    """
    serving, options = _serving(spec_paths, base_url, model, overrides)
    try:
        done = calibrate(serving, stated_format(serving.model), options)
    except CalibrationUnclear as unclear:
        if plot_path:
            _write_plot(unclear, plot_path)
        raise
    path = keep(done.calibration)
    if plot_path:
        _write_plot(done, plot_path)
    if as_json:
        say_json({**asdict(done.calibration), "stored": path})
    else:
        say(f"{serving.model} writes {done.calibration.box_format}: {summary(done)}.", err=False)
        say(f"Stored in {path}; vlm.box_format: calibrated uses it." if path else "Not stored.", err=False)
    return 0


def _serving(
    spec_paths: tuple[str, ...], base_url: str | None, model: str | None, overrides: tuple[str, ...]
) -> tuple[Serving, RunOptions]:
    """Raises SpecError."""
    if (not spec_paths) == (base_url is None and model is None):
        raise SpecError("give either a spec (-e SPEC) or an endpoint (--base-url URL --model NAME)")
    if not spec_paths:
        from dataflow_grounding.serving.openai_compatible import OpenAIServing

        if overrides:
            raise SpecError(f"{overrides[0]!r}: key=value goes with a spec (-e SPEC)")
        serving: Serving = OpenAIServing(api_url=base_url, model_name=model or "")
        options = RunOptions()
    else:
        spec = load_spec(spec_paths, overrides)
        vlm, workflow = spec.block.vlm, spec.block.workflow
        serving, options = serving_of(vlm, workflow, spec.folders), options_of(vlm, workflow)
        if serving.exact_boxes:
            raise SpecError(f"{serving.model} always answers in {serving.box_format}: there is nothing to calibrate")
    obstacles = serving.obstacles()
    if obstacles:
        raise SpecError("\n".join(obstacles))
    return serving, options


def _write_plot(done: Calibrated | CalibrationUnclear, path: str) -> None:
    from dataflow_grounding.calibration.plotting import plot

    boxes = done.fit.boxes if isinstance(done, Calibrated) else [[] for _ in done.pictures]
    try:
        plot(done.pictures, boxes).save(path)
    except (OSError, ValueError) as error:
        raise GroundingError(f"can't write {path}: {error}") from None
