"""Settings for servers and providers, and how they are written into a spec's text."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.nearest import nearest

ENDPOINTS: dict[str, dict[str, Any]] = load_table(__package__, "endpoints.yaml")
# A line of a default spec. A block has no value on its own line, perhaps a comment.
_KEY = re.compile(r"(?P<indent> *)(?P<key>\w+):(?: (?!#)(?P<value>.*?))?(?P<comment>\s*(?: #.*)?)")


def endpoint_named(name: str) -> dict[str, Any]:
    """Return an endpoint's row of endpoints.yaml.

    Args:
        name: Its key there.

    Returns:
        `vlm`, and where they are needed `workflow` and `first`: what to type before a run.

    Raises:
        SpecError: No endpoint has that name.
    """
    if name not in ENDPOINTS:
        known = ", ".join(ENDPOINTS)
        raise SpecError(f"endpoint {name!r} is not one of {known}{nearest(name, ENDPOINTS)}")
    return ENDPOINTS[name]


def with_endpoint(text: str, endpoint: Mapping[str, Any]) -> str:
    """Return a default spec's text with the settings of an endpoint, each on its key's own line.

    Args:
        text: The spec: one key a line, with its comment after it, a block's keys below it.
        endpoint: A row of endpoints.yaml.

    Returns:
        The text; what to type before a run stands above it as comments.
    """
    lines = ["# First type:"] if "first" in endpoint else []
    lines += [f"#   {line}" for line in endpoint.get("first", "").splitlines()]
    above: list[str] = []
    for line in text.splitlines():
        found = _KEY.fullmatch(line)
        if found:
            above[len(found["indent"]) // 2 :] = [found["key"]]
            # The outermost block is the pipeline's.
            value = _value_at(endpoint, above[1:]) if found["indent"] else None
            if found["value"] and value is not None:
                line = f"{found['indent']}{found['key']}: {_in_yaml(value)}{found['comment']}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _value_at(settings: Any, path: list[str]) -> Any:
    for key in path:
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    return settings


def _in_yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.splitlines()[0]
