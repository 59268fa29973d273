"""What a run's tokens cost, and who says so."""

from typing import NamedTuple

from dataflow_grounding.engine.budget import Prices, listed_price
from dataflow_grounding.engine.costs import FREE
from dataflow_grounding.serving.serving import Serving


class Pricing(NamedTuple):
    """What tokens cost, and in words who says so; both None where nobody does."""

    prices: Prices | None
    source: str | None


def pricing_of(stated: Prices | None, serving: Serving) -> Pricing:
    """Return the prices that the spec states, else the published ones of the serving's model.

    A model on this machine is free even where the spec states prices: nobody bills it.

    Args:
        stated: The prices that the spec states; None for none.
        serving: Who is asked.
    """
    if serving.free:
        return Pricing(FREE, "it runs on this machine")
    if stated is not None:
        return Pricing(stated, f"vlm.prices{_tier_in_words(stated, serving)}")
    listed = listed_price(serving.model)
    if listed is None:
        return Pricing(None, None)
    of_tier = _tier_in_words(listed.prices, serving)
    return Pricing(listed.prices, f"{listed.source}, {listed.date}{of_tier}")


def _tier_in_words(prices: Prices, serving: Serving) -> str:
    # It is "" for the usual one.
    tier = serving.service_tier
    if not tier:
        return ""
    if prices.flex is None:
        return f" ({tier} counts in full: set vlm.prices with flex: 0.5 if it costs half)"
    return f" ({tier}: {prices.flex:.0%} of them)"
