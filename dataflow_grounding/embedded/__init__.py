"""The embedded grounder: answers tasks with OpenCV alone.

No network, no key, no weights, and no VLM.
"""

from dataflow_grounding.embedded.serving import EmbeddedServing

__all__ = ["EmbeddedServing"]
