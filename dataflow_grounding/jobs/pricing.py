"""What a run's tokens cost, and who says so."""

from collections.abc import Sequence

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.engine.budget import Prices, listed_price
from dataflow_grounding.engine.costs import FREE
from dataflow_grounding.engine.plan import Step
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.spec import VlmBlock


def pricing_of(stated: Prices | None, serving: Serving) -> tuple[Prices | None, str | None]:
    """Return what tokens cost, and in words who says so; both None where nobody does."""
    if serving.free:  # even where the spec states prices: nobody bills it
        return FREE, "it runs on this machine"
    if stated is not None:
        return stated, f"vlm.prices{_tier_in_words(stated, serving)}"
    listed = listed_price(serving.model)
    if listed is None:
        return None, None
    of_tier = _tier_in_words(listed.prices, serving)
    return listed.prices, f"{listed.source}, {listed.date}{of_tier}"


def price_others(
    servings: Sequence[Serving],
    vlms: Sequence[VlmBlock],
    steps: Sequence[Step],
    budget_usd: float | None,
) -> dict[str, Prices | None]:
    """Set prices of each serving that a step asks, but for the first; return them by model."""
    prices_by_model: dict[str, Prices | None] = {}
    first_serving, *others = servings
    for vlm, serving in zip(vlms[1:], others, strict=True):
        is_asked = any(step.operator.serving is serving for step in steps)
        if not is_asked:
            continue
        if serving.model == first_serving.model:  # the first one's prices count for both
            continue
        stated = None if vlm.prices is None else Prices(**vlm.prices.model_dump())
        prices, _ = pricing_of(stated, serving)
        if prices is None and budget_usd is not None:
            raise SpecError(
                f"workflow.budget_usd needs the prices of {serving.model}, too: set"
                " vlm.judge.prices"
            )
        serving.prices = prices
        prices_by_model[serving.model] = prices
    return prices_by_model


def _tier_in_words(prices: Prices, serving: Serving) -> str:
    tier = serving.service_tier
    if not tier:
        return ""
    if prices.flex is None:
        return f" ({tier} counts in full: set vlm.prices with flex: 0.5 if it costs half)"
    return f" ({tier}: {prices.flex:.0%} of them)"
