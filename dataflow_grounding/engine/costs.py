"""What was paid for a results folder, by step, from the stores of replies.

Each stored reply has its tokens, its model and its step. Prices are those of the spec, else the
published ones of the model.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isnan, nan

from dataflow_grounding._util.errors import InputError, SpecError
from dataflow_grounding.data.records import JsonObject, is_number, read_object
from dataflow_grounding.data.results_folder import stated_in
from dataflow_grounding.engine.budget import Prices, listed_price
from dataflow_grounding.engine.keyed_log import CHECK, read_lines, stores_of
from dataflow_grounding.engine.reply_line import usage_of
from dataflow_grounding.serving.serving import FLEX

PARTS = ("retries", "samples", "checks", "kept")
"""Of a step's replies, those that are counted apart, too."""

FREE = Prices(0, 0)
"""What a model costs that runs on the user's own machine."""


@dataclass
class Amount:
    """Requests, tokens and USD, which are NaN where a part has no price or unknown tokens."""

    requests: float = 0.0  # an estimate may have fractions
    input: float = 0.0
    cached: float = 0.0  # of `input`
    output: float = 0.0
    cost_usd: float = 0.0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            requests=self.requests + other.requests,
            input=self.input + other.input,
            cached=self.cached + other.cached,
            output=self.output + other.output,
            cost_usd=self.cost_usd + other.cost_usd,
        )

    def __mul__(self, times: float) -> "Amount":
        return Amount(
            requests=self.requests * times,
            input=self.input * times,
            cached=self.cached * times,
            output=self.output * times,
            cost_usd=self.cost_usd * times,
        )

    def to_json(self) -> JsonObject:
        """Return whole requests and tokens, and USD with six decimals; None where they are NaN."""
        tokens = {name: round(getattr(self, name)) for name in ("input", "cached", "output")}
        cost = None if isnan(self.cost_usd) else round(self.cost_usd, 6)
        return {"requests": round(self.requests), "tokens": tokens, "cost_usd": cost}


def costs_of(folder: str) -> JsonObject:
    """Return what all runs in `folder` cost, at the prices in its run.json, else published ones."""
    run = read_object(os.path.join(folder, "run.json"))
    steps = paid_by_step(folder, stated_prices(run), prices_of_judge(run))
    if not steps:
        raise InputError(f"no stored replies in {folder}: is it the results_dir of a run?")
    return {**total_of(steps).to_json(), "steps": steps}


def total_of(steps: Sequence[JsonObject]) -> Amount:
    """Return the sum of what `paid_by_step` says of steps."""
    total = Amount()
    for step in steps:
        # as `Amount.to_json` wrote it
        tokens = step["tokens"]  # {"input": 1200, "cached": 0, "output": 80}
        cost = nan if step["cost_usd"] is None else step["cost_usd"]
        total += Amount(step["requests"], **tokens, cost_usd=cost)
    return total


def paid_by_step(
    folder: str, prices: Prices | None, judges_prices: Mapping[str, Prices | None] | None = None
) -> list[JsonObject]:
    """Return for each step what its stored replies have cost. Some are also counted apart:

    - `retries`: second and further tries
    - `samples`: second and further answers to one question
    - `checks`: of the endpoint
    - `kept`: replies that a gateway's cache gave, and that weren't paid for again
    - `flex`: replies of that service tier
    """
    steps: list[JsonObject] = []
    for step, bill in sorted(_bills_of(folder, prices, judges_prices or {}).items()):
        names = list(PARTS)
        if FLEX in bill:  # few steps have replies of that tier
            names.append(FLEX)
        parts = {name: bill[name].to_json() for name in names}
        steps.append({"step": step, **bill["all"].to_json(), **parts})
    return steps


def _bills_of(
    folder: str, prices: Prices | None, judges_prices: Mapping[str, Prices | None]
) -> dict[str, dict[str, Amount]]:
    """Return by step the amounts of "all", and of the parts that some reply belongs to."""
    bills: dict[str, dict[str, Amount]] = {}
    for path in stores_of(folder):
        for line in read_lines(path):
            # Not a reply, but what checks or refusals have told: it cost nothing.
            is_verdict = line.get("task") == CHECK and "reply" not in line
            if is_verdict:
                continue
            step = str(line.get("step") or line.get("task"))
            bill = bills.setdefault(step, defaultdict(Amount))
            # those of the judge, if it is another model; without any, the published ones count
            prices_of_line = judges_prices.get(str(line.get("model")), prices)
            amount = _paid_for(line, prices_of_line)
            for part in _parts_of(line):
                bill[part] += amount
    return bills


def _parts_of(line: JsonObject) -> list[str]:
    """Return the parts of its step's bill that a stored reply belongs to."""
    parts = ["all"]
    if line.get("attempt"):  # how many replies before it could not be read
        parts.append("retries")
    if line.get("sample"):  # which answer to its question it is, from 0
        parts.append("samples")
    if line.get("task") == CHECK:
        parts.append("checks")
    if line.get("kept"):
        parts.append("kept")
    if line.get("tier") == FLEX:
        parts.append(FLEX)
    return parts


def _paid_for(line: JsonObject, prices: Prices | None) -> Amount:
    """Return what one stored reply has cost; the USD are NaN where there are no prices."""
    usage = usage_of(line)
    is_free = line.get("free") or line.get("kept")
    has_tokens = usage.input_tokens or usage.output_tokens
    if not has_tokens and not is_free:
        return Amount(1, cost_usd=nan)  # the endpoint doesn't report them
    if prices is None:
        listed = listed_price(str(line.get("model")))
        prices = listed.prices if listed else None
    price = FREE if is_free else prices
    cost = nan if price is None else price.cost(usage, str(line.get("tier")))
    return Amount(1, usage.input_tokens, usage.cached_tokens, usage.output_tokens, cost)


def prices_of_judge(run: JsonObject) -> dict[str, Prices | None]:
    """Return the prices of another judge that a `run.json` names, by its model; {} without one."""
    judge = run.get("judge")
    if not isinstance(judge, dict) or not isinstance(judge.get("model"), str):
        return {}
    prices: Prices | None = None
    with suppress(KeyError, TypeError, AttributeError, SpecError):  # none, or an edited file
        prices = Prices(**judge["prices"])
    return {judge["model"]: prices}


def stated_prices(run: JsonObject) -> Prices | None:
    """Return the prices in the spec that a `run.json` holds; None where it has none."""
    for vlm in stated_in(run, "vlm"):
        # a block without prices, or an edited file
        with suppress(KeyError, TypeError, AttributeError):
            stated = {name: price for name, price in vlm["prices"].items() if is_number(price)}
            return Prices(**stated)
    return None
