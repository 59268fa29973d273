"""What models cost, and the limits on what a run may send and spend.

What is in flight counts at its worst case, so that no answer can take a run past its limit.
"""

import asyncio
import functools
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from dataflow_grounding._util.errors import BudgetExceeded, SpecError
from dataflow_grounding._util.lazy import load_table
from dataflow_grounding._util.settings import setting
from dataflow_grounding.data.records import is_number
from dataflow_grounding.serving.serving import FLEX, Serving, Usage
from dataflow_grounding.serving.token_rules import TokenRules
from dataflow_grounding.tasks import Request

WAIT_SECONDS = 0.025  # between two looks for room in the budget
_SUFFIX = re.compile(r"-(?:preview|latest|exp|\d{2,8})$")
"""Endings of a model's name that don't change its price: `-preview`, `-2024`, `-08-06`."""
# What `worst_case` assumes, more than any provider counts.
_PIXELS_PER_TOKEN = 700
_TOKENS_PER_IMAGE = 2000  # besides those of its pixels
_TEXT_BYTES_PER_TOKEN = 2
_TOKENS_PER_REQUEST = 500  # besides those of its text: the schema, and what the provider adds


@dataclass(frozen=True)
class Prices:
    """What tokens cost, in USD per million."""

    input: float
    output: float
    cached_input: float | None = None  # billed as a beginning seen before; None takes `input`
    flex: float | None = None  # the part that replies of that tier cost; None counts them in full

    def __post_init__(self) -> None:
        for name, price in vars(self).items():
            if price is not None and not (is_number(price) and price >= 0):
                raise SpecError(f"the price {name}: {price!r} should be a number of USD")

    def cost(self, usage: Usage, tier: str = "") -> float:
        """Return the USD of one reply and its request."""
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh_tokens = max(0, usage.input_tokens - usage.cached_tokens)
        millionths = (
            fresh_tokens * self.input
            + usage.cached_tokens * cached_price
            + usage.output_tokens * self.output
        )
        ordinary = millionths / 1e6
        if tier == FLEX and self.flex is not None:
            return ordinary * self.flex
        return ordinary


class PriceRow(NamedTuple):
    """The prices of one model, when they were read, and where."""

    model: str
    date: str
    source: str
    prices: Prices


@functools.cache
def listed_price(model: str) -> PriceRow | None:
    """Return the listed prices of a model by its name, with or without a vendor and a date."""
    rows = {row["model"]: row for row in load_table(__package__, "prices.yaml")}
    name = model.lower().rsplit("/", 1)[-1]  # "openai/gpt-4o-2024-08-06": without its vendor
    while name not in rows and _SUFFIX.search(name):
        name = _SUFFIX.sub("", name)
    row = rows.get(name)
    if row is None:
        return None
    prices = Prices(row["input"], row["output"], row.get("cached_input"), row.get("flex"))
    return PriceRow(name, str(row["date"]), row["source"], prices)


def worst_case(request: Request[Any], serving: Serving) -> Usage:
    """Return more tokens than the provider can count for a request and its longest reply."""
    rules = TokenRules(serving.model, getattr(serving, "media_resolution", ""))
    image_tokens = 0
    for image in request.images:
        width, height = image.sent_size
        by_pixels = width * height // _PIXELS_PER_TOKEN + _TOKENS_PER_IMAGE
        image_tokens += max(by_pixels, rules.image((width, height)))
    text_bytes = len((request.system + request.text).encode("utf-8", "replace"))
    text_tokens = text_bytes // _TEXT_BYTES_PER_TOKEN + _TOKENS_PER_REQUEST
    return Usage(text_tokens + image_tokens, 0, serving.max_output_tokens)


def with_worst_case(usage: Usage, request: Request[Any], serving: Serving, reply: str) -> Usage:
    """Return the tokens that an endpoint counted, the worst case for what it didn't tell."""
    # a reply without text may really have no tokens
    has_output = usage.output_tokens > 0 or not reply
    if usage.input_tokens and has_output:
        return usage
    worst = worst_case(request, serving)
    return Usage(
        usage.input_tokens or worst.input_tokens,
        usage.cached_tokens,
        usage.output_tokens or worst.output_tokens,
    )


class Budget:
    """What a run, or all calls of a process, may send and spend."""

    def __init__(self, max_requests: int | None, usd: float | None, prices: Prices | None) -> None:
        self.max_requests = max_requests
        self.usd = usd
        self.prices = prices
        self.sent = 0  # requests, tries included
        self.in_flight = 0  # answers that are waited for; one may take several requests
        self.spent = 0.0  # USD
        self.reserved = 0.0  # USD that what is in flight costs at the worst

    async def reserve(self, request: Request[Any], serving: Serving) -> float:
        """Wait for room, then count a request as in flight; return the USD reserved for it."""
        worst = 0.0
        prices = self._prices_of(serving)
        if prices is not None and self.usd is not None:  # else there is no limit to keep to
            # at the ordinary tier's price: the endpoint may serve it there
            worst = prices.cost(worst_case(request, serving))
        while not self.take(worst):
            await asyncio.sleep(WAIT_SECONDS)
        return worst

    def _prices_of(self, serving: Serving | None) -> Prices | None:
        own: Prices | None = None if serving is None else serving.prices
        return own or self.prices

    def count_further_request(self) -> None:
        """Count one more request for an answer that has its cost reserved."""
        self.take(0.0, answers=0)

    def take(self, worst: float, answers: int = 1) -> bool:
        """Count a request if there is room now, and return whether there was."""
        if not self._has_room(worst):
            return False
        self.sent += 1
        self.reserved += worst
        self.in_flight += answers  # 0 for a further request of the same answer
        return True

    def _has_room(self, worst: float) -> bool:
        """Return whether there is room now; raises BudgetExceeded where waiting can't help."""
        if self.max_requests is not None and self.sent >= self.max_requests:
            limit = setting("workflow.max_requests")
            raise BudgetExceeded(f"stopped before passing {limit}={self.max_requests}")
        if self.usd is None or not worst:  # no limit, or nothing that counts against it
            return True
        if self.spent + self.reserved + worst <= self.usd:
            return True
        # even if all that is in flight turns out to cost nothing
        is_too_small = self.spent + worst > self.usd
        if is_too_small or not self.in_flight:
            limit = setting("workflow.budget_usd")
            raise BudgetExceeded(
                f"stopped before passing {limit}={self.usd:g}: spent {self.spent:.4f}, and the next"
                f" request could cost {worst:.4f}"
            )
        return False  # for now: what is in flight may cost less than its worst case

    def settle(
        self,
        reserved: float,
        usage: Usage | None,
        serving: Serving | None = None,
        tier: str = "",
    ) -> None:
        """Count what an answer cost, in place of what was reserved for it."""
        prices = self._prices_of(serving)
        if usage is None:  # it may be billed all the same
            cost = reserved
        elif prices is not None:
            cost = prices.cost(usage, tier)
        else:
            cost = 0.0
        self.in_flight -= 1
        self.spent += cost
        if self.in_flight:
            self.reserved -= reserved
        else:
            self.reserved = 0.0  # exactly 0, which sums and differences of floats might not be
