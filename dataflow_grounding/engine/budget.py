"""What models cost, and limits on what a run may send and spend, counting what is in flight at its
worst case.
"""

import asyncio
import functools
import re
import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BudgetExceeded, SpecError
from dataflow_grounding._util.tables import load_table
from dataflow_grounding.data.records import is_number
from dataflow_grounding.serving.base import Serving, Usage
from dataflow_grounding.serving.token_rules import TokenRules
from dataflow_grounding.tasks import Request

NO_REQUEST_LEFT = "stopped before passing workflow.max_requests={}"
WAIT_SECONDS = 0.025
_SUFFIX = re.compile(r"-(?:preview|latest|exp|\d{2,8})$")


@dataclass(frozen=True)
class Prices:
    """What tokens cost, in USD per million.

    Args:
        input: Tokens of a request; `output`: of a reply.
        cached_input: Tokens of a request that are billed as a beginning seen before; None takes
            `input`.

    Raises:
        SpecError: A price is not a number of 0 or more.
    """

    input: float
    output: float
    cached_input: float | None = None

    def __post_init__(self) -> None:
        for name, price in vars(self).items():
            if price is not None and not (is_number(price) and price >= 0):
                raise SpecError(f"the price {name}: {price!r} should be a number of USD")

    def cost(self, usage: Usage) -> float:
        """USD for one reply."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = max(0, usage.input_tokens - usage.cached_tokens)
        return (
            fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output
        ) / 1e6


class PriceRow(NamedTuple):
    """The prices of one model, when they were read, and where."""

    model: str
    date: str
    source: str
    prices: Prices


@functools.cache
def listed_price(model: str) -> PriceRow | None:
    """Return the prices of a model by its name, with or without a vendor and a date; None if it is
    not listed.
    """
    rows = {row["model"]: row for row in load_table(__package__, "prices.yaml")}
    name = model.lower().rsplit("/", 1)[-1]
    while name not in rows and _SUFFIX.search(name):
        name = _SUFFIX.sub("", name)
    if (row := rows.get(name)) is None:
        return None
    return PriceRow(
        name,
        str(row["date"]),
        row["source"],
        Prices(row["input"], row["output"], row.get("cached_input")),
    )


def worst_case(request: Request[Any], serving: Serving) -> Usage:
    """More tokens than the provider counts for the request, by its published rule for images or by
    their pixels.
    """
    rules = TokenRules(serving.model, getattr(serving, "media_resolution", ""))
    sizes = [image.sent_size for image in request.images]
    images = sum(
        max(width * height // 700 + 2000, rules.image((width, height))) for width, height in sizes
    )
    text = len((request.system + request.text).encode("utf-8", "replace")) // 2 + 500
    return Usage(text + images, 0, serving.max_output_tokens)


def no_usd_left(usd: float, spent: float, worst: float) -> str:
    """Why a run stops whose next request could cost more than is left."""
    so_far = f"stopped before passing workflow.budget_usd={usd:g}: spent {spent:.4f}"
    return f"{so_far}, and the next request could cost {worst:.4f}"


class Budget:
    """What a run may send (`max_requests`, tries too) and spend (`usd`, needs `prices`); None is
    without limit.
    """

    def __init__(self, max_requests: int | None, usd: float | None, prices: Prices | None) -> None:
        self.max_requests, self.usd, self.prices = max_requests, usd, prices
        self.sent = self.in_flight = 0
        self.spent = self.reserved = 0.0
        self.lock = threading.Lock()

    async def reserve(self, request: Request[Any], serving: Serving) -> float:
        """What to hand to `settle`, once there is room for it. Raises BudgetExceeded, RunStopped if
        there won't be.
        """
        worst = 0.0
        if self.prices is not None and self.usd is not None:
            worst = self.prices.cost(worst_case(request, serving))
        while not self._take(worst):
            await asyncio.sleep(WAIT_SECONDS)
        self.in_flight += 1
        return worst

    def count(self) -> None:
        """One more request is sent for the same answer; it waits, with all else. Raises as
        `reserve`.
        """
        while not self._take(0.0):
            time.sleep(WAIT_SECONDS)

    def _take(self, worst: float) -> bool:
        with self.lock:
            if not self.has_room(worst):
                return False
            self.sent, self.reserved = self.sent + 1, self.reserved + worst
            return True

    def has_room(self, worst: float) -> bool:
        """Whether what is in flight leaves room for one more. Raises BudgetExceeded if nothing
        will.
        """
        if self.max_requests is not None and self.sent >= self.max_requests:
            raise BudgetExceeded(NO_REQUEST_LEFT.format(self.max_requests))
        if self.usd is None or not worst or self.spent + self.reserved + worst <= self.usd:
            return True
        if not self.in_flight or self.spent + worst > self.usd:
            raise BudgetExceeded(no_usd_left(self.usd, self.spent, worst))
        return False

    def settle(self, reserved: float, usage: Usage | None) -> None:
        """After the answer: what it cost. None: no answer came, though it may be billed; its worst
        case counts.
        """
        with self.lock:
            self.in_flight -= 1
            self.reserved = self.reserved - reserved if self.in_flight else 0.0
            self.spent += (
                reserved
                if usage is None
                else self.prices.cost(usage)
                if self.prices is not None
                else 0.0
            )
