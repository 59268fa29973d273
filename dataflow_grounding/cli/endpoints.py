"""`doctor`, `calibrate`: what an endpoint does.

Whether it answers, what it accepts, and in which box format its model answers.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.cli.arguments import (
    answer,
    json_option,
    overrides_argument,
    spec_option_for,
)
from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.engine.options import OwnPictures, RunOptions, RunStart, budget_of
from dataflow_grounding.engine.workers import run_blocking
from dataflow_grounding.jobs.diagnosis import (
    NOT_READABLE,
    endpoint_of,
    endpoint_of_spec,
    installation,
)
from dataflow_grounding.jobs.registry import spec_of_endpoint
from dataflow_grounding.jobs.serving_of_spec import serving_from_environment, serving_of
from dataflow_grounding.jobs.spec_run import options_of
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import VlmBlock, WorkflowBlock
from dataflow_grounding.spec.environment import backend_named, note_on_unused_keys, with_environment
from dataflow_grounding.spec.schema import OpenAIBlock
from dataflow_grounding.trust.calibrating import calibrate
from dataflow_grounding.trust.calibration_file import store_calibration
from dataflow_grounding.trust.choice import check_calibratable, first_format, summary

# What `doctor` shows of an endpoint, in this order, each under its name or its label.
_OF_ENDPOINT = (
    "backend",
    "endpoint",
    "weight",
    "model",
    "key",
    "box_format",
    "takes",
    "schema",
    "reply",
    "seconds",
    "last_run",
)
# "accepts", because an endpoint may ignore what it takes
_LABELS = {"takes": "accepts", "box_format": "box format", "last_run": "last run"}


@click.command("doctor")
@spec_option_for("Check this spec's endpoint; without it, that of the environment")
@click.option("--offline", is_flag=True, help="Send nothing to the endpoint.")
@json_option
@overrides_argument
def doctor(
    spec_paths: tuple[str, ...], offline: bool, as_json: bool, overrides: tuple[str, ...]
) -> int:
    """Show what is installed, which keys are set, whether the endpoint answers, what it accepts and
    whether it keeps to a schema.

    The endpoint is SPEC's, else that of DF_BASE_URL, DF_MODEL and DF_API_KEY. It is sent one small
    picture, up to five times until it is accepted, and then once more. If SPEC's last run got many
    replies that could not be read, this says so. Exits with 4 if there is no answer, with 1 if the
    answer can't be read.
    """
    spec = spec_of_endpoint(spec_paths, overrides)
    endpoint: JsonObject = {}
    if spec is not None:
        endpoint = endpoint_of_spec(spec, send=not offline)
    elif backend_named():  # in the environment
        try:
            endpoint = endpoint_of(serving_from_environment(), send=not offline)
        except SpecError as error:
            endpoint = {"problems": [str(error)]}
    findings = installation()
    if endpoint:
        findings = {**findings, "endpoint": endpoint}
    answer(as_json, findings, _lines(findings))
    if endpoint.get("problems"):
        return 4
    return 1 if _is_unreadable(endpoint) else 0


def _is_unreadable(endpoint: JsonObject) -> bool:
    """Whether its reply, or that of one of its `endpoints`, couldn't be read."""
    endpoints = [endpoint, *endpoint.get("endpoints", ())]
    return any(str(each.get("reply", "")).startswith(NOT_READABLE) for each in endpoints)


def _lines(findings: JsonObject) -> Iterator[str]:
    yield f"dataflow-grounding {findings['version']}, Python {findings['python']}"
    yield from _lines_on_all_endpoints(findings)
    unset_names = []
    for name, is_set in findings["environment"].items():
        if is_set:
            yield f"{name}: set"  # never its value, which may be a key
        else:
            unset_names.append(name)
    yield f"not set: {', '.join(unset_names)}"
    missing_extras = []
    for extra, version in findings["extras"].items():
        if version:
            yield f"extra {extra}: {version}"
        else:
            missing_extras.append(extra)
    if missing_extras:
        yield (
            f"optional, not installed: {', '.join(missing_extras)}. What needs one names it; to add"
            f" one: pip install 'dataflow-grounding[{missing_extras[0]}]'"
        )


def _lines_on_all_endpoints(findings: JsonObject) -> Iterator[str]:
    endpoint = findings.get("endpoint", {})
    if not endpoint:
        advice = note_on_unused_keys().strip()  # "" where the environment has no key
        if not advice:
            advice = "set DF_BASE_URL and DF_MODEL (and DF_API_KEY), or give a spec with -e."
        yield (
            f"endpoint: none named: {advice} Until then the embedded grounder answers"
            " (backend auto)"
        )
    yield from _lines_on_one_endpoint(endpoint)
    for each in endpoint.get("endpoints", ()):  # where a serving has several
        yield from _lines_on_one_endpoint(each)
    for problem in endpoint.get("problems", ()):
        yield f"Error: {problem}"
    if _is_unreadable(endpoint):
        yield (
            "Error: the endpoint works, but the model didn't answer as it was asked to. Run it"
            " again; if it stays so, use a stronger model or raise max_tokens"
        )


def _lines_on_one_endpoint(endpoint: JsonObject) -> Iterator[str]:
    for name in _OF_ENDPOINT:
        if name in endpoint:
            yield f"{_LABELS.get(name, name)}: {endpoint[name]}"
    usage = endpoint.get("usage", {})
    if any(usage.values()):
        yield f"tokens: {usage['input_tokens']} in, {usage['output_tokens']} out"


@click.command("calibrate")
@spec_option_for("Calibrate the model of this spec's vlm block")
@click.option(
    "--base-url", metavar="URL", help="Calibrate this OpenAI-compatible endpoint instead."
)
@click.option("--model", metavar="NAME", help="The model's name.")
@json_option
@overrides_argument
def calibrate_command(
    spec_paths: tuple[str, ...],
    overrides: tuple[str, ...],
    as_json: bool,
    **endpoint: Any,
) -> None:
    """Find out a model's box format, and its error in pixels, from pictures of coloured rectangles.

    Sends 6 requests, or 17 to 59 if the model counts pixels. The result is stored in the user's
    cache folder, by endpoint, model and prompt; `vlm.box_format: calibrated` uses it, and so does
    `auto` for a model it doesn't know. Exits with 2 if the answers fit no format.
    """
    serving, options = _serving_to_calibrate(spec_paths, overrides, **endpoint)
    check_calibratable(serving)
    no_pictures = OwnPictures  # called, it tells of none: there is no run with pictures of its own
    start = RunStart(options, budget_of(options), folder=None, pictures=no_pictures)
    calibration, _, _ = run_blocking(lambda: calibrate(serving, first_format(serving), start))
    path = store_calibration(calibration)
    lines = [f"{serving.model} writes {calibration.box_format}: {summary(calibration)}."]
    if path:
        lines.append(f"Stored in {path}; vlm.box_format: calibrated uses it.")
    else:
        lines.append("Not stored.")
    answer(as_json, {**asdict(calibration), "stored": path}, lines)


def _serving_to_calibrate(
    spec_paths: tuple[str, ...], overrides: tuple[str, ...], base_url: str | None, model: str | None
) -> tuple[Serving, RunOptions]:
    """The serving is that of a spec, of the two options, or of the environment."""
    is_endpoint_named = base_url is not None or model is not None
    if spec_paths and is_endpoint_named:
        raise SpecError("give either a spec (-e SPEC) or an endpoint (--base-url URL --model NAME)")
    spec = spec_of_endpoint(spec_paths, overrides)
    if spec is not None:
        vlm = spec.block.vlm
        workflow = spec.block.workflow
        return serving_of(vlm, workflow, spec.folders), options_of(vlm, workflow)
    if not is_endpoint_named and backend_named() is None:  # nor does the environment name one
        raise SpecError(
            "no endpoint: give a spec (-e SPEC) or --base-url URL --model NAME, or set DF_BASE_URL"
            " and DF_MODEL"
        )
    openai = OpenAIBlock(base_url=base_url or "", model_name=model or "")
    backend = "openai" if is_endpoint_named else "auto"  # auto: the environment names one
    vlm = VlmBlock(backend=backend, openai=openai)
    # Of a workflow only the number of requests at once matters here.
    workflow = WorkflowBlock(steps=[], max_workers=16)
    return serving_of(with_environment(vlm), workflow), RunOptions()
