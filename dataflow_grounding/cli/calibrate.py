"""`calibrate`: find out in which box format a model answers."""

from dataclasses import asdict

import click

from dataflow_grounding.calibration.asking import Calibrated, CalibrationUnclear, calibrate
from dataflow_grounding.calibration.choice import keep, stated_format, summary
from dataflow_grounding.cli.arguments import overrides_argument, spec_option_for
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.errors import GroundingError, SpecError
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.jobs.spec_run import options_of
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import VlmBlock, WorkflowBlock
from dataflow_grounding.spec.environment import backend_named, with_environment
from dataflow_grounding.spec.schema import OpenAIBlock
from dataflow_grounding.terminal import say, say_json


@click.command("calibrate")
@spec_option_for("Calibrate the model of this spec's vlm block")
@click.option("--base-url", metavar="URL", help="Calibrate this OpenAI-compatible endpoint instead.")
@click.option("--model", metavar="NAME", help="The model's name.")
@click.option(
    "--plot", "plot_path", metavar="FILE", help="Write a picture of the rectangles asked for and those answered."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@overrides_argument
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
    given = base_url is not None or model is not None
    if spec_paths and given:
        raise SpecError("give either a spec (-e SPEC) or an endpoint (--base-url URL --model NAME)")
    if spec_paths:
        spec = load_spec(spec_paths, overrides, whole=False)
        vlm, workflow = spec.block.vlm, spec.block.workflow
        serving, options = serving_of(vlm, workflow, spec.folders), options_of(vlm, workflow)
    elif overrides:
        raise SpecError(f"{overrides[0]!r}: key=value goes with a spec (-e SPEC)")
    elif not given and backend_named() is None:
        raise SpecError(
            "no endpoint: give a spec (-e SPEC) or --base-url URL --model NAME, or set DF_BASE_URL and DF_MODEL"
        )
    else:
        stated = {"base_url": base_url or "", "model_name": model or ""}
        vlm = VlmBlock(backend="openai" if given else "auto", openai=OpenAIBlock(**stated))
        serving, options = serving_of(with_environment(vlm), WorkflowBlock(steps=[], max_workers=16)), RunOptions()
    if serving.exact_boxes:
        raise SpecError(f"{serving.model} always answers in {serving.box_format}: there is nothing to calibrate")
    obstacles = serving.obstacles()
    if obstacles:
        raise SpecError("\n".join(obstacles))
    return serving, options


def _write_plot(done: Calibrated | CalibrationUnclear, path: str) -> None:
    from dataflow_grounding.calibration.probes import plot

    boxes = done.fit.boxes if isinstance(done, Calibrated) else [[] for _ in done.pictures]
    try:
        plot(done.pictures, boxes).save(path)
    except (OSError, ValueError) as error:
        raise GroundingError(f"can't write {path}: {error}") from None
