"""Several endpoints of one model as one serving: requests are spread."""

import itertools
from collections.abc import Sequence
from typing import Any

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data.records import JsonObject, is_number
from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.serving.serving import Reply, Serving
from dataflow_grounding.tasks import Request


class SeveralEndpoints(Serving):
    """One model at several endpoints: runs spread their requests, and skip a dead one.

    A run finds out how many requests each takes. Stored replies don't say which endpoint answered:
    one may be added or taken out, and nothing is asked again.

    Args:
        servings: One for each endpoint, alike but for their addresses and keys.
        weights: Parts of the requests where more than one endpoint has room, [1, 3]; equal ones
            without it.

    Raises:
        SpecError: They are not alike, two have one address, or a weight is not a number above 0.

    Example:
        >>> from dataflow_grounding import CaptionGenerator, OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> answers = CannedAnswers('{"caption": "A cat on a rug."}')
        >>> with LoopbackServer(answers) as one, LoopbackServer(answers) as two:
        ...     endpoints = [OpenAIServing(server.base_url, "any-model") for server in (one, two)]
        ...     serving = SeveralEndpoints(endpoints)
        ...     CaptionGenerator(serving)({"image_path": "example_data/images/cat.jpg"})["caption"]
        'A cat on a rug.'
    """

    def __init__(self, servings: Sequence[Serving], weights: Sequence[float] | None = None) -> None:
        if weights is None:
            weights = [1] * len(servings)
        self._by_address = {serving.endpoint: serving for serving in servings}
        self._weights = weights
        is_each_once = len(self._by_address) == len(servings)
        has_all_weights = len(weights) == len(servings)
        if not (servings and is_each_once and has_all_weights):
            raise SpecError(
                "vlm.openai.endpoints should hold one or more addresses, each once and with one"
                " weight"
            )
        _check_weights(weights)
        first = servings[0]
        self.model = first.model
        self.endpoint = " + ".join(self._by_address)
        self.box_format = first.box_format
        self.box_formats = first.box_formats
        # at each of them, not at all together
        self.max_workers = min(serving.max_workers for serving in servings)
        # the largest, because it is for the worst case of a reply's cost
        self.max_output_tokens = max(serving.max_output_tokens for serving in servings)
        self.regions_per_request = first.regions_per_request
        self.needs_labels = first.needs_labels
        self.takes_turns = all(serving.takes_turns for serving in servings)
        self.service_tier = first.service_tier
        self.timeout = max(serving.timeout for serving in servings)
        self.is_vlm = first.is_vlm
        self.takes_probes = first.takes_probes
        self.exact_boxes = first.exact_boxes
        self._turns = itertools.cycle(servings)
        # Replies of all are stored under the identity of the first, so all have to have the same.
        are_alike = all(serving.identity() == first.identity() for serving in servings)
        if not are_alike:
            raise SpecError(
                f"not alike: {list(servings)!r:.200}. Model and settings of all should be the same"
            )

    @property
    def image_limits(self) -> ImageLimits:
        """The limits that all servings accept, as far as is known. Setting it sets each's."""
        of_each = [serving.image_limits for serving in self._by_address.values()]
        common = of_each[0]
        for limits in of_each[1:]:
            common = common.within(limits)
        return common

    @image_limits.setter
    def image_limits(self, limits: ImageLimits) -> None:
        for serving in self._by_address.values():
            serving.image_limits = limits

    def endpoints(self) -> list[tuple[Serving, float]]:
        return list(zip(self._by_address.values(), self._weights, strict=True))

    async def answer(self, request: Request[Any]) -> Reply | str:
        """Return the reply of the next in turn. The engine asks each by itself, by its room."""
        return await next(self._turns).answer(request)

    def identity(self) -> JsonObject:
        return next(iter(self._by_address.values())).identity()

    def identity_there(self) -> JsonObject:
        return {**self.identity(), "endpoint": "several endpoints"}

    def obstacles(self) -> list[str]:
        return [text for serving in self._by_address.values() for text in serving.obstacles()]

    def facts(self) -> JsonObject:
        return {address: serving.facts() for address, serving in self._by_address.items()}

    def thinking_fields(self, level: str) -> JsonObject | None:
        """Return {} if each serving knows the fields, which it adds itself; None if one doesn't."""
        for serving in self._by_address.values():
            if serving.thinking_fields(level) is None:
                return None
        return {}

    def needs(self) -> list[str]:
        return [line for serving in self._by_address.values() for line in serving.needs()]

    async def aclose(self) -> None:
        for serving in self._by_address.values():
            await serving.aclose()


def _check_weights(weights: Sequence[float]) -> None:
    if not all(is_number(weight) and weight > 0 for weight in weights):
        raise SpecError(
            f"a weight in vlm.openai.endpoints is not a number above 0: {list(weights)!r:.80}"
        )
