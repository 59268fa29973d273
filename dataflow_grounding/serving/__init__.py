"""Servings: whoever answers requests."""

from dataflow_grounding.serving.base import Reply, Serving, Usage
from dataflow_grounding.serving.gemini import GeminiServing
from dataflow_grounding.serving.local import LocalServing
from dataflow_grounding.serving.openai_compatible import OpenAIServing
from dataflow_grounding.serving.openai_sdk import OpenAISdkServing
from dataflow_grounding.serving.recorded import RecordedServing
from dataflow_grounding.serving.several import SeveralEndpoints

__all__ = ["GeminiServing", "LocalServing", "OpenAISdkServing", "OpenAIServing", "RecordedServing"]
__all__ += ["Reply", "Serving", "SeveralEndpoints", "Usage"]
