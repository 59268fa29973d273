"""What models cost, from a table with dates and sources."""

import functools
import re
from dataclasses import dataclass
from importlib import resources
from typing import Any

from dataflow_grounding.engine.budget import Prices

_SUFFIX = re.compile(r"-(?:preview|latest|exp|\d{2,8})$")


@dataclass(frozen=True)
class PriceRow:
    """The prices of one model, when they were read, and where."""

    model: str
    prices: Prices
    date: str
    source: str


def listed_price(model: str) -> PriceRow | None:
    """Return the prices of a model by its name, with or without a vendor and a date; None if it is not listed."""
    name = model.lower().rsplit("/", 1)[-1]
    while True:
        if name in _table():
            return _table()[name]
        shorter = _SUFFIX.sub("", name)
        if shorter == name:
            return None
        name = shorter


@functools.cache
def _table() -> dict[str, PriceRow]:
    import yaml

    text = resources.files("dataflow_grounding.engine").joinpath("prices.yaml").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = yaml.safe_load(text)
    return {row["model"]: _row(**row) for row in rows}


def _row(
    model: str, input: float, output: float, date: Any, source: str, cached_input: float | None = None
) -> PriceRow:
    return PriceRow(model, Prices(input, output, cached_input), str(date), source)
