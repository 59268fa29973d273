"""How a model is told to think less before it answers: the fields of thinking.yaml.

The table has what providers publish, for the models whose names match a row's pattern.
"""

import re
from collections.abc import Mapping

from dataflow_grounding._util.lazy import load_table
from dataflow_grounding.data.records import JsonObject


def thinking_fields(provider: str, model: str, level: str) -> JsonObject | None:
    """Return fields that have a model think less, at level `low` or `off`; None if not known."""
    if level not in ("low", "off"):  # the model's usual level, which needs no field
        return {}
    name = model.rpartition("/")[2].lower()
    for row in load_table(__package__, "thinking.yaml")[provider]:
        if re.match(row["models"], name):
            fields: JsonObject | None = row.get(level)
            return fields
    return None


def with_fields(body: JsonObject, fields: JsonObject) -> JsonObject:
    """Return a body with further fields; objects that both have are joined, one level deep."""
    whole = dict(body)
    for name, value in fields.items():
        before = whole.get(name)
        if isinstance(before, dict) and isinstance(value, Mapping):
            whole[name] = {**before, **value}
        else:
            whole[name] = value
    return whole
