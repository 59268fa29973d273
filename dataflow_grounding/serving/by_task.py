"""Two servings as one: a second model answers some of the tasks."""

from dataclasses import replace
from typing import Any

from dataflow_grounding.images import ImageLimits
from dataflow_grounding.serving.base import Reply, Serving
from dataflow_grounding.tasks import Request


class ServingByTask(Serving):
    """Passes each request to the serving named for its task in `others`, else to `first`; both are one endpoint."""

    def __init__(self, first: Serving, others: dict[str, Serving]) -> None:
        self.first, self.others = first, others
        servings = [first, *others.values()]
        self.model = " + ".join(dict.fromkeys(serving.model for serving in servings))
        self.endpoint = " + ".join(dict.fromkeys(serving.endpoint for serving in servings))
        self.box_format, self.box_formats = first.box_format, first.box_formats
        self.max_workers = min(serving.max_workers for serving in servings)
        self.max_output_tokens = max(serving.max_output_tokens for serving in servings)
        self.regions_per_request, self.needs_labels = first.regions_per_request, first.needs_labels
        self.is_vlm = any(serving.is_vlm for serving in servings)
        grounding = others.get("phrase_grounding", first)
        self.takes_probes, self.exact_boxes = grounding.takes_probes, grounding.exact_boxes

    @property
    def image_limits(self) -> ImageLimits:  # type: ignore[override]
        """What all of them take, as far as is known by now."""
        limits = self.first.image_limits
        for other in self.others.values():
            limits = replace(
                limits.within(other.image_limits), max_bytes=min(limits.max_bytes, other.image_limits.max_bytes)
            )
        return limits

    async def answer(self, request: Request[Any]) -> Reply | str:
        """The reply of the serving whose task it is."""
        return await self.others.get(request.task, self.first).answer(request)

    def identity(self) -> dict[str, Any]:
        """Both identities."""
        return {"first": self.first.identity(), **{task: serving.identity() for task, serving in self.others.items()}}

    def obstacles(self) -> list[str]:
        """Those of both."""
        return [*self.first.obstacles(), *(text for other in self.others.values() for text in other.obstacles())]

    def facts(self) -> dict[str, Any]:
        """Those of each, by task."""
        return {"first": self.first.facts(), **{task: serving.facts() for task, serving in self.others.items()}}

    def needs(self) -> list[str]:
        """Those of all."""
        return [*self.first.needs(), *(line for other in self.others.values() for line in other.needs())]

    async def aclose(self) -> None:
        """Closes both."""
        for serving in (self.first, *self.others.values()):
            await serving.aclose()
