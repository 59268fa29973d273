"""A serving: whoever answers requests. This one asks a second model what the first refuses.

first = OpenAIServing(url, "large-model")
serving = WithFallback(first, OpenAIServing(other_url, "other-model"))
"""

from __future__ import annotations

from typing import Any

from dataflow_grounding import Reply, Request, RequestRefused, Serving


class WithFallback(Serving):
    """Asks `first`, and `second` where `first` refuses. Both have to write boxes in the same
    format, `first`'s.
    """

    def __init__(self, first: Serving, second: Serving) -> None:
        self.first, self.second = first, second
        self.model, self.endpoint = f"{first.model}, else {second.model}", first.endpoint
        self.box_format, self.max_workers, self.image_limits = (
            first.box_format,
            first.max_workers,
            first.image_limits,
        )

    async def answer(self, request: Request[Any]) -> Reply | str:
        """One reply. What else may go wrong (rate limits, faults, timeouts) is left
        to the engine.
        """
        try:
            return await self.first.answer(request)
        except RequestRefused:
            return await self.second.answer(request)

    def identity(self) -> dict[str, Any]:
        """All that a reply depends on: with another model in either place, all is asked again."""
        return {
            **super().identity(),
            "first": self.first.identity(),
            "second": self.second.identity(),
        }

    async def aclose(self) -> None:
        """Closes both."""
        await self.first.aclose()
        await self.second.aclose()
