"""Settings for servers and providers, by name."""

from collections.abc import Mapping

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.nearest import nearest
from dataflow_grounding.data.records import JsonObject

ENDPOINTS: Mapping[str, JsonObject] = load_table(__package__, "endpoints.yaml")


def endpoint_named(name: str) -> JsonObject:
    """Return an endpoint's settings: a row of endpoints.yaml. Raises SpecError."""
    if name not in ENDPOINTS:
        known = ", ".join(ENDPOINTS)
        raise SpecError(f"endpoint {name!r} is not one of {known}{nearest(name, ENDPOINTS)}")
    return ENDPOINTS[name]
