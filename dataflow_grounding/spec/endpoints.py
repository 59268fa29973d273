"""Settings for servers and providers, by name."""

from typing import Any

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.nearest import nearest

ENDPOINTS: dict[str, dict[str, Any]] = load_table(__package__, "endpoints.yaml")


def endpoint_named(name: str) -> dict[str, Any]:
    """Return an endpoint's settings: `vlm`; where they are needed, also `workflow`, and `first`,
    which is what to type before a run. Raises SpecError for an unknown name.
    """
    if name not in ENDPOINTS:
        known = ", ".join(ENDPOINTS)
        raise SpecError(f"endpoint {name!r} is not one of {known}{nearest(name, ENDPOINTS)}")
    return ENDPOINTS[name]
