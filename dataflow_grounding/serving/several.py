"""Several endpoints with one model behind them, as one serving."""

import itertools
from collections.abc import Sequence
from typing import Any

from dataflow_grounding.errors import SpecError
from dataflow_grounding.records import is_number
from dataflow_grounding.serving.base import Reply, Serving
from dataflow_grounding.serving.by_task import ServingByTask
from dataflow_grounding.tasks import Request


class SeveralEndpoints(ServingByTask):
    """One model at several endpoints: runs spread their requests over them, and pass over one that is dead.

    How many requests each takes is found out for each. Stored replies don't tell which endpoint answered: one may be
    added or taken out, and nothing is asked again.

    Args:
        servings: One for each endpoint, alike but for their addresses and keys.
        weights: Parts of the requests where more than one endpoint has room, [1, 3]; equal ones without it.

    Raises:
        SpecError: They are not alike, two have one address, or a weight is not a number above 0.

    Example:
        >>> from dataflow_grounding import CaptionGenerator, OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> answers = CannedAnswers('{"caption": "A cat on a rug."}')
        >>> with LoopbackServer(answers) as one, LoopbackServer(answers) as two:
        ...     serving = SeveralEndpoints([OpenAIServing(server.base_url, "any-model") for server in (one, two)])
        ...     CaptionGenerator(serving)({"image_path": "example_data/images/cat.jpg"})["caption"]
        'A cat on a rug.'
    """

    def __init__(self, servings: Sequence[Serving], weights: Sequence[float] | None = None) -> None:
        weights = [1] * len(servings) if weights is None else weights
        by_address = {serving.endpoint: serving for serving in servings}
        if not servings or not len(weights) == len(servings) == len(by_address):
            raise SpecError("vlm.openai.endpoints should hold one or more addresses, each once and with one weight")
        if not all(is_number(weight) and weight > 0 for weight in weights):
            raise SpecError(f"a weight in vlm.openai.endpoints is not a number above 0: {list(weights)!r:.80}")
        super().__init__(servings[0], by_address)
        self._all, self._weights, self._turns = by_address, weights, itertools.cycle(servings)
        self.other_identities = [serving.identity() for serving in servings]
        if any({**one, "endpoint": "several endpoints"} != self.identity() for one in self.other_identities):
            raise SpecError(f"not alike: {list(servings)!r:.200}. Model and settings of all should be the same")

    def endpoints(self) -> list[tuple[Serving, float]]:
        """The serving of each endpoint, and its weight."""
        return list(zip(self._all.values(), self._weights, strict=True))

    async def answer(self, request: Request[Any]) -> Reply | str:
        """The reply of the next in turn. The engine doesn't ask this: it chooses by room and weight."""
        return await next(self._turns).answer(request)

    def identity(self) -> dict[str, Any]:
        """What all have in common."""
        return {**self.other_identities[0], "endpoint": "several endpoints"}
