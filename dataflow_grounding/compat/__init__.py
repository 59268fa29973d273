"""DataFlow's names over our operators and servings.

A script written for DataFlow runs with its imports changed.
"""

from dataflow_grounding.compat.api_vlm_serving import (
    APIVLMServing_openai,
    ServingForDataFlow,
)
from dataflow_grounding.compat.dataflow_serving import DataFlowServing
from dataflow_grounding.compat.operators import (
    ExistingBBoxDataGenConfig,
    ImageBboxGenerator,
    PromptedVQAGenerator,
)
from dataflow_grounding.data.storage import FileStorage
from dataflow_grounding.operators import OPERATOR_REGISTRY

__all__ = [
    "OPERATOR_REGISTRY",
    "APIVLMServing_openai",
    "DataFlowServing",
    "ExistingBBoxDataGenConfig",
    "FileStorage",
    "ImageBboxGenerator",
    "PromptedVQAGenerator",
    "ServingForDataFlow",
]
