"""Two servings as one: a second model answers some of the tasks."""

from dataclasses import replace
from typing import Any

from dataflow_grounding.images import ImageLimits
from dataflow_grounding.serving.base import Reply, Serving
from dataflow_grounding.tasks import Request


class ServingByTask(Serving):
    """Passes each request to the serving named for its task in `others`, else to `first`; both are one endpoint."""

    def __init__(self, first: Serving, others: dict[str, Serving]) -> None:
        self._all = {"first": first, **others}
        servings = self._all.values()
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
    def image_limits(self) -> ImageLimits:
        """What all of them take, as far as is known by now."""
        limits, *others = (serving.image_limits for serving in self._all.values())
        for other in others:
            limits = replace(limits.within(other), max_bytes=min(limits.max_bytes, other.max_bytes))
        return limits

    @image_limits.setter
    def image_limits(self, limits: ImageLimits) -> None:
        for serving in self._all.values():
            serving.image_limits = limits

    async def answer(self, request: Request[Any]) -> Reply | str:
        """The reply of the serving whose task it is."""
        return await self._all.get(request.task, self._all["first"]).answer(request)

    def identity(self) -> dict[str, Any]:
        """Both identities."""
        return {task: serving.identity() for task, serving in self._all.items()}

    def obstacles(self) -> list[str]:
        """Those of both."""
        return [text for serving in self._all.values() for text in serving.obstacles()]

    def facts(self) -> dict[str, Any]:
        """Those of each, by task."""
        return {task: serving.facts() for task, serving in self._all.items()}

    def needs(self) -> list[str]:
        """Those of all."""
        return [line for serving in self._all.values() for line in serving.needs()]

    async def aclose(self) -> None:
        """Closes both."""
        for serving in self._all.values():
            await serving.aclose()
