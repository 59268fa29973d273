"""JSON schemas in Gemini's dialect, a part of OpenAPI's: `nullable` in place of a list of types, no closed objects."""

from collections.abc import Mapping
from typing import Any


def gemini_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A reply's schema as `responseSchema` takes it (ai.google.dev, structured output); keys keep their order."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    [kind] = [kind for kind in kinds if kind != "null"]
    found: dict[str, Any] = {"type": kind.upper()}
    if "null" in kinds:
        found["nullable"] = True
    for name in ("description", "enum"):
        if name in schema:
            found[name] = schema[name]
    if "items" in schema:
        found["items"] = gemini_schema(schema["items"])
    if "properties" in schema:
        properties = {name: gemini_schema(part) for name, part in schema["properties"].items()}
        found |= {"properties": properties, "propertyOrdering": list(properties)}
        found["required"] = [name for name in schema.get("required", ()) if not properties[name].get("nullable")]
    return found
