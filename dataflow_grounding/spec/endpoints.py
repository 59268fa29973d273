"""Settings for servers and providers, by name."""

from collections.abc import Mapping

from dataflow_grounding._util.lazy import load_table
from dataflow_grounding.data.records import JsonObject

ENDPOINTS: Mapping[str, JsonObject] = load_table(__package__, "endpoints.yaml")
