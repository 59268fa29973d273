"""What models cost, and the limits on what a run may send and spend.

What is in flight counts at its worst case, so that no answer can take a run past its limit.
"""

import asyncio
import functools
import re
import threading
import time
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
    """What tokens cost, in USD per million.

    Args:
        input: Tokens of a request.
        output: Tokens of a reply.
        cached_input: Tokens of a request that are billed as a beginning seen before; None takes
            `input`.
        flex: What part of these prices replies cost that the tier `flex` has served, 0.5 for half;
            None where it isn't known: they count in full then.

    Raises:
        SpecError: A price is not a number of 0 or more.
    """

    input: float
    output: float
    cached_input: float | None = None
    flex: float | None = None

    def __post_init__(self) -> None:
        """Raise SpecError for a price that is no number from 0."""
        for name, price in vars(self).items():
            if price is not None and not (is_number(price) and price >= 0):
                raise SpecError(f"the price {name}: {price!r} should be a number of USD")

    def cost(self, usage: Usage, tier: str = "") -> float:
        """Return the USD of one reply and its request.

        Args:
            usage: Their tokens.
            tier: The service tier that has served it. FLEX has a different price if `flex` is
                known; any other tier, and "", costs the ordinary price.
        """
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = max(0, usage.input_tokens - usage.cached_tokens)
        ordinary = (
            fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output
        ) / 1e6
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
    """Return the prices of a model by its name, with or without a vendor and a date.

    A name that isn't in prices.yaml is looked up without its last suffix, then without the one
    before, and so on. None if no such name is listed.

    Example:
        >>> listed_price("google/gemini-2.5-flash-preview-05-20").model
        'gemini-2.5-flash'
    """
    rows = {row["model"]: row for row in load_table(__package__, "prices.yaml")}
    name = model.lower().rsplit("/", 1)[-1]
    while name not in rows and _SUFFIX.search(name):
        name = _SUFFIX.sub("", name)
    row = rows.get(name)
    if row is None:
        return None
    prices = Prices(row["input"], row["output"], row.get("cached_input"), row.get("flex"))
    return PriceRow(name, str(row["date"]), row["source"], prices)


def worst_case(request: Request[Any], serving: Serving) -> Usage:
    """Return more tokens than the provider can count for a request and its longest reply.

    Images count by the provider's published rule or by their pixels, whichever is more; text by
    its bytes. None are taken to be cached.
    """
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
    """Return the tokens that an endpoint counted, the worst case in place of what it didn't tell.

    A count that can't be read is 0, and so is one that isn't there; a request has tokens, though,
    and a reply that isn't empty has. A limit in USD would never be reached with these.
    """
    if usage.input_tokens and (usage.output_tokens or not reply):
        return usage
    worst = worst_case(request, serving)
    return Usage(
        usage.input_tokens or worst.input_tokens,
        usage.cached_tokens,
        usage.output_tokens or worst.output_tokens,
    )


def no_request_left(most: int | None) -> str:
    """Return why a run stops that has sent as many requests as it may: `most`."""
    return f"stopped before passing {setting('workflow.max_requests')}={most}"


def no_usd_left(usd: float, spent: float, worst: float | None = None) -> str:
    """Return why a run stops whose next request could cost more than is left.

    Args:
        usd: The limit.
        spent: What is spent of it.
        worst: What the next request could cost, where that is known.
    """
    limit = setting("workflow.budget_usd")
    so_far = f"stopped before passing {limit}={usd:g}: spent {spent:.4f}"
    cost = "more than is left" if worst is None else f"{worst:.4f}"
    return f"{so_far}, and the next request could cost {cost}"


class Budget:
    """What a run may send and spend.

    Several event loops and threads may share one, so every figure changes under its lock.

    Args:
        max_requests: Most requests, tries included; None is without limit.
        usd: Most USD, which needs `prices`; None is without limit.
        prices: What the model's tokens cost.
    """

    def __init__(self, max_requests: int | None, usd: float | None, prices: Prices | None) -> None:
        self.max_requests = max_requests
        self.usd = usd
        self.prices = prices
        self.sent = 0  # requests, tries included
        self.in_flight = 0  # answers that are waited for; one may take several requests
        self.spent = 0.0  # USD
        self.reserved = 0.0  # USD that what is in flight costs at the worst
        self.lock = threading.Lock()

    async def reserve(self, request: Request[Any], serving: Serving) -> float:
        """Wait until there is room for a request, then count it as sent and in flight.

        Returns the USD that are reserved for it, for `settle`: 0 without a limit in USD or without
        prices. Raises BudgetExceeded if there won't be any room.
        """
        worst = 0.0
        prices = self._prices_of(serving)
        if prices is not None and self.usd is not None:
            # at the ordinary tier's price: the endpoint may serve it there
            worst = prices.cost(worst_case(request, serving))
        # Polls, because `settle` may be called in another event loop.
        while not self.take(worst):
            await asyncio.sleep(WAIT_SECONDS)
        return worst

    def _prices_of(self, serving: Serving | None) -> Prices | None:
        own: Prices | None = None if serving is None else serving.prices
        return own or self.prices

    def count_further_request(self) -> None:
        """Count one more request for an answer whose cost is reserved already.

        It waits for room, and blocks its thread meanwhile. Raises BudgetExceeded if there won't be
        any.
        """
        while not self.take(0.0, answers=0):
            time.sleep(WAIT_SECONDS)

    def take(self, worst: float, answers: int = 1) -> bool:
        """Count a request if there is room for it now; return whether there was.

        Args:
            worst: USD that it may cost at most, which are reserved.
            answers: 1 where it begins an answer, 0 where it is a further request for one.

        Raises:
            BudgetExceeded: There won't be any room.
        """
        # Looking and taking are one step: between them another could take the same room.
        with self.lock:
            if not self._has_room(worst):
                return False
            self.sent += 1
            self.reserved += worst
            self.in_flight += answers
            return True

    def _has_room(self, worst: float) -> bool:
        # Return whether one more request of at most `worst` USD may be sent; 0 has no cost. It may
        # not for now where what is in flight might cost too much, at the worst. The lock is held.
        if self.max_requests is not None and self.sent >= self.max_requests:
            raise BudgetExceeded(no_request_left(self.max_requests))
        if self.usd is None or not worst or self.spent + self.reserved + worst <= self.usd:
            return True
        if not self.in_flight or self.spent + worst > self.usd:
            raise BudgetExceeded(no_usd_left(self.usd, self.spent, worst))
        return False

    def settle(
        self,
        reserved: float,
        usage: Usage | None,
        serving: Serving | None = None,
        tier: str = "",
    ) -> None:
        """Count what an answer cost, in place of what was reserved for it.

        Args:
            reserved: What `reserve` returned.
            usage: The answer's tokens; None where none came. It may be billed all the same, so
                that its worst case counts.
            serving: Who answered, where that isn't the run's own serving.
            tier: The service tier at which it was answered.
        """
        prices = self._prices_of(serving)
        if usage is None:
            cost = reserved
        elif prices is not None:
            cost = prices.cost(usage, tier)
        else:
            cost = 0.0
        with self.lock:
            self.in_flight -= 1
            self.spent += cost
            if self.in_flight:
                self.reserved -= reserved
            else:
                self.reserved = 0.0  # exactly, as sums and differences of floats might not be
