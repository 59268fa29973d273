"""JSON schemas of replies, in the strict subset that endpoints take: every key required, none besides."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}


def list_of(items: Schema) -> Schema:
    """An array of `items`."""
    return {"type": "array", "items": items}


def object_of(**properties: Schema) -> Schema:
    """An object with exactly these keys."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


BOX = list_of({"type": "number"})
