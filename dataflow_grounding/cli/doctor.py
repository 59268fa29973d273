"""`doctor`: what is installed, which keys are set, can the endpoint be reached, what does it take."""

from typing import Any

import click

from dataflow_grounding.cli.arguments import overrides_argument, spec_option_for
from dataflow_grounding.errors import SpecError
from dataflow_grounding.jobs.diagnosis import endpoint_of, endpoint_of_spec, installation
from dataflow_grounding.jobs.registry import load_spec
from dataflow_grounding.jobs.serving_of_spec import serving_from_environment
from dataflow_grounding.spec.environment import backend_named, unused_keys
from dataflow_grounding.terminal import say, say_json


@click.command("doctor")
@spec_option_for("Check this spec's endpoint; without it, that of the environment")
@click.option("--offline", is_flag=True, help="Send nothing to the endpoint.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
@overrides_argument
def command(spec_paths: tuple[str, ...], offline: bool, as_json: bool, overrides: tuple[str, ...]) -> int:
    """Show what is installed, which keys are set, whether the endpoint answers and what it accepts.

    The endpoint is SPEC's, else that of DF_BASE_URL, DF_MODEL and DF_API_KEY. It is sent one small picture, up to five
    times until it is accepted. Exits with 4 if there is no answer.
    """
    if overrides and not spec_paths:
        raise SpecError(f"{overrides[0]!r}: key=value goes with a spec (-e SPEC)")
    found = installation()
    if spec_paths:
        found["endpoint"] = endpoint_of_spec(load_spec(spec_paths, overrides, whole=False), send=not offline)
    elif backend_named():
        try:
            found["endpoint"] = endpoint_of(serving_from_environment(), send=not offline)
        except SpecError as error:
            found["endpoint"] = {"problems": [str(error)]}
    if as_json:
        say_json(found)
    else:
        say("\n".join(_lines(found)), err=False)
    return 4 if found.get("endpoint", {}).get("problems") else 0


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"dataflow-grounding {found['version']}, Python {found['python']}"]
    for extra, version in found["extras"].items():
        missing = f"not installed: pip install 'dataflow-grounding[{extra}]'"
        lines.append(f"extra {extra}: {version or missing}")
    lines += [f"{name}: {'set' if given else 'not set'}" for name, given in found["environment"].items()]
    endpoint = found.get("endpoint", {})
    if not endpoint:
        way = unused_keys() or "set DF_BASE_URL and DF_MODEL (and DF_API_KEY), or give a spec with -e"
        lines.append(f"endpoint: none named: {way}")
    for name in ("backend", "endpoint", "model", "key", "box_format", "takes", "reply", "seconds"):
        if name in endpoint:
            lines.append(f"{name.replace('_', ' ')}: {endpoint[name]}")
    if any(endpoint.get("usage", {}).values()):
        usage = endpoint["usage"]
        lines.append(f"tokens: {usage['input_tokens']} in, {usage['output_tokens']} out")
    return lines + [f"Problem: {problem}" for problem in endpoint.get("problems", ())]
