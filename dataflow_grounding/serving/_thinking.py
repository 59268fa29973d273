"""How a model is told to think less before it answers: the fields of thinking.yaml.

The table has what providers publish, for the models whose names match a row's pattern.
"""

import re
from collections.abc import Mapping
from typing import Any

from dataflow_grounding._util.lazy import load_table


def thinking_fields(provider: str, model: str, level: str) -> dict[str, Any] | None:
    """Return the fields of a request that set how much a model thinks.

    Args:
        provider: Whose fields: `openai` or `gemini`.
        model: The model's name, perhaps with its owner's before a slash.
        level: `low` or `off`; anything else leaves it to the model.

    Returns:
        The fields; {} for a level that leaves it to the model; None if this model's fields aren't
        known.
    """
    if level not in ("low", "off"):
        return {}
    name = model.rpartition("/")[2].lower()
    for row in load_table(__package__, "thinking.yaml")[provider]:
        if re.match(row["models"], name):
            fields: dict[str, Any] | None = row.get(level)
            return fields
    return None


def with_fields(body: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a request's body with further fields.

    A field that both have is that of `fields`; if it is an object in both, it has the keys of both,
    with the values of `fields` where both have one.
    """
    whole = dict(body)
    for name, value in fields.items():
        ours = whole.get(name)
        if isinstance(ours, dict) and isinstance(value, Mapping):
            whole[name] = {**ours, **value}
        else:
            whole[name] = value
    return whole
