"""Turns images into grounded annotations with a vision-language model."""

from typing import TYPE_CHECKING

from dataflow_grounding._util.lazy import attached
from dataflow_grounding._util.version import __version__

if TYPE_CHECKING:
    from dataflow_grounding._util.errors import GroundingError as GroundingError
    from dataflow_grounding.cli.main import as_command as as_command
    from dataflow_grounding.data.storage import FileStorage as FileStorage
    from dataflow_grounding.engine.options import RunOptions as RunOptions
    from dataflow_grounding.extras.embedded import EmbeddedServing as EmbeddedServing
    from dataflow_grounding.grounded import Grounded as Grounded
    from dataflow_grounding.grounded import ground as ground
    from dataflow_grounding.jobs.serving_of_spec import (
        serving_from_environment as serving_from_environment,
    )
    from dataflow_grounding.operators import *  # noqa: F403
    from dataflow_grounding.pipelines import Pipeline as Pipeline
    from dataflow_grounding.replies import read_boxes as read_boxes
    from dataflow_grounding.serving import *  # noqa: F403

_NAMES_OF = {
    "cli.main": ["as_command"],
    "extras.embedded": ["EmbeddedServing"],
    "engine.options": ["RunOptions"],
    "_util.errors": ["GroundingError"],
    "grounded": ["Grounded", "ground"],
    "jobs.serving_of_spec": ["serving_from_environment"],
    "operators": [
        "OPERATOR_REGISTRY",
        "BBoxVisualizer",
        "BoxOperator",
        "BoxRefiner",
        "BoxVerifier",
        "CaptionGenerator",
        "DoubleChecker",
        "ExpressionExtractor",
        "Merger",
        "Operator",
        "PhraseGrounder",
        "PhraseLister",
        "RegionCaptioner",
        "RegionExpressionGenerator",
        "RegionMarker",
        "operator",
    ],
    "pipelines": ["Pipeline"],
    "replies": ["read_boxes"],
    "serving": [
        "GeminiServing",
        "LocalServing",
        "OpenAISdkServing",
        "OpenAIServing",
        "RecordedServing",
        "Serving",
        "SeveralEndpoints",
    ],
    "data.storage": ["FileStorage"],
}
"""Module → its public names; it is imported when one of them is used."""

__getattr__, __dir__, __all__ = attached(__name__, _NAMES_OF)
__all__ += ["__version__"]
