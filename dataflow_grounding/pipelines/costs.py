"""What was paid for a results folder, by step, from the stores of replies."""

from __future__ import annotations

import glob
import json
import os
from collections import defaultdict
from contextlib import suppress
from typing import Any

from dataflow_grounding.engine.budget import Prices
from dataflow_grounding.engine.price_table import listed_price
from dataflow_grounding.engine.stored_replies import stored_lines, usage_of_line
from dataflow_grounding.errors import InputError
from dataflow_grounding.serving.base import Usage


class Bill:
    """Replies and tokens; `cost_usd` is None once a reply came of a model without a price."""

    def __init__(self) -> None:
        self.replies = 0
        self.tokens = dict.fromkeys(("input", "cached", "output"), 0)
        self.cost_usd: float | None = 0.0

    def add(self, usage: Usage, prices: Prices | None) -> None:
        """One more reply."""
        self.replies += 1
        for name, count in zip(
            self.tokens, (usage.input_tokens, usage.cached_tokens, usage.output_tokens), strict=True
        ):
            self.tokens[name] += count
        known = self.cost_usd is not None and prices is not None
        self.cost_usd = self.cost_usd + prices.cost(usage) if known else None  # type: ignore[operator,union-attr]

    def to_json(self) -> dict[str, Any]:
        """The counts."""
        cost = None if self.cost_usd is None else round(self.cost_usd, 6)
        return {"requests": self.replies, "tokens": dict(self.tokens), "cost_usd": cost}


def costs_of(folder: str, prices: Prices | None = None) -> dict[str, Any]:
    """What every step's replies cost, over all runs in `folder`; of it retries (replies that could not be read, asked again)
    and samples (further answers to one question). Without `prices`, those of the folder's run.json, else the table's.

    Requests that got no reply (rate limits, faults) are not in it. Raises InputError where there are no replies.
    """
    stores = _stores(folder)
    if not stores:
        raise InputError(f"no stored replies in {folder}: is it the results_dir of a run?")
    prices = prices or _stated_prices(folder)
    total = Bill()
    steps = []
    for name, path in stores:
        bill, parts = Bill(), defaultdict(Bill)
        for _, line in stored_lines(path):
            usage = usage_of_line(line)
            row = None if prices else listed_price(str(line.get("model")))
            price = prices or (row.prices if row else None)
            for each in (total, bill, *(parts[part] for part in ("attempt", "sample") if line.get(part))):
                each.add(usage, price)
        retries, samples = parts["attempt"].to_json(), parts["sample"].to_json()
        steps.append({"step": name, **bill.to_json(), "retries": retries, "samples": samples})
    return {**total.to_json(), "steps": steps}


def _stores(folder: str) -> list[tuple[str, str]]:
    """Name and file of each step's store: of a results_dir, or of a pipeline written by hand."""
    escaped = glob.escape(folder)
    found = [(path.split(os.sep)[-3], path) for path in sorted(glob.glob(f"{escaped}/*/.ckpt/replies.jsonl"))]
    for path in sorted(glob.glob(f"{escaped}/.ckpt/*.replies.jsonl")):
        found.append((os.path.basename(path).removesuffix(".replies.jsonl"), path))
    return found


def _stated_prices(folder: str) -> Prices | None:
    with suppress(OSError, ValueError, KeyError, TypeError), open(f"{folder}/run.json", encoding="utf-8") as file:
        spec = json.load(file)["spec"]
        return Prices(**spec[spec["autolabel_type"]]["vlm"]["prices"])
    return None
