"""What was paid for a results folder, by step, from the stores of replies."""

import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from math import isnan, nan
from typing import Any

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.data.records import is_number, read_object
from dataflow_grounding.data.results_folder import stated_in
from dataflow_grounding.data.working_folder import address_of
from dataflow_grounding.engine.budget import Prices, listed_price
from dataflow_grounding.engine.keyed_log import CHECK, read_lines, stores_of
from dataflow_grounding.engine.reply_line import usage_of

PARTS = ("retries", "samples", "checks")

FREE = Prices(0, 0)


@dataclass
class Amount:
    """Requests, tokens and USD, NaN with any that has no price; fractions come from what was
    measured.
    """

    requests: float = 0.0
    input: float = 0.0
    cached: float = 0.0
    output: float = 0.0
    cost_usd: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(*map(sum, zip(vars(self).values(), vars(other).values(), strict=True)))

    def __mul__(self, times: float) -> "Amount":
        return Amount(*(number * times for number in vars(self).values()))

    def to_json(self) -> dict[str, Any]:
        """Whole requests and tokens, and USD."""
        tokens = {name: round(getattr(self, name)) for name in ("input", "cached", "output")}
        cost = None if isnan(self.cost_usd) else round(self.cost_usd, 6)
        return {"requests": round(self.requests), "tokens": tokens, "cost_usd": cost}


def costs_of(folder: str) -> dict[str, Any]:
    """What the replies of all runs in `folder` cost at the prices in its run.json. Raises
    InputError without any.
    """
    steps = paid_by_step(folder, stated_prices(read_object(os.path.join(folder, "run.json"))))
    if not steps:
        raise InputError(
            f"no stored replies in {address_of(folder)}: is it the results_dir of a run?"
        )
    usd = (nan if step["cost_usd"] is None else step["cost_usd"] for step in steps)
    paid = (
        Amount(step["requests"], **step["tokens"], cost_usd=cost)
        for step, cost in zip(steps, usd, strict=True)
    )
    return {**sum(paid, Amount()).to_json(), "steps": steps}


def paid_by_step(folder: str, prices: Prices | None) -> list[dict[str, Any]]:
    """Each step's replies, tokens and USD; of it `retries`, `samples` and `checks`. What got no
    reply is not in it.
    """
    bills: dict[str, dict[str, Amount]] = {}
    for line in chain.from_iterable(map(read_lines, stores_of(folder))):
        if "checks" in line:  # what a check says of other lines
            continue
        usage = usage_of(line)
        row = None if prices else listed_price(str(line.get("model")))
        price = FREE if line.get("free") else prices or (row.prices if row else None)
        bill = bills.setdefault(str(line.get("step") or line.get("task")), defaultdict(Amount))
        cost = nan if price is None else price.cost(usage)
        reply = Amount(1, usage.input_tokens, usage.cached_tokens, usage.output_tokens, cost)
        is_a = {
            "retries": line.get("attempt"),
            "samples": line.get("sample"),
            "checks": line.get("task") == CHECK,
        }
        for part in ("all", *filter(is_a.get, PARTS)):
            bill[part] += reply
    return [
        {"step": step, **bill["all"].to_json(), **{part: bill[part].to_json() for part in PARTS}}
        for step, bill in sorted(bills.items())
    ]


def stated_prices(run: dict[str, Any]) -> Prices | None:
    """Those of the spec in what a `run.json` says, if it has any."""
    for vlm in stated_in(run, "vlm"):
        with suppress(KeyError, TypeError, AttributeError):
            return Prices(
                **{name: price for name, price in vlm["prices"].items() if is_number(price)}
            )
    return None
