"""The embedded grounder: answers tasks with OpenCV alone. No network, no key, no weights, and no VLM."""

from typing import TYPE_CHECKING, Any

from dataflow_grounding.lazy import public_name

if TYPE_CHECKING:
    from dataflow_grounding.embedded.serving import EmbeddedServing as EmbeddedServing

__all__ = ["EmbeddedServing"]


def __getattr__(name: str) -> Any:
    return public_name(__name__, {"EmbeddedServing": "serving"}, name)
