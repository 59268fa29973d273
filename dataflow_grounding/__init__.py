"""Turns images into grounded annotations with a vision-language model."""

from typing import TYPE_CHECKING, Any

from dataflow_grounding.lazy import public_name
from dataflow_grounding.version import __version__

if TYPE_CHECKING:
    from dataflow_grounding.cli.main import as_command as as_command
    from dataflow_grounding.embedded import EmbeddedServing as EmbeddedServing
    from dataflow_grounding.engine.options import RunOptions as RunOptions
    from dataflow_grounding.errors import GroundingError as GroundingError
    from dataflow_grounding.grounded import Grounded as Grounded
    from dataflow_grounding.grounded import ground as ground
    from dataflow_grounding.jobs.serving_of_spec import serving_from_environment as serving_from_environment
    from dataflow_grounding.operators import OPERATOR_REGISTRY as OPERATOR_REGISTRY
    from dataflow_grounding.operators import BBoxVisualizer as BBoxVisualizer
    from dataflow_grounding.operators import BoxOperator as BoxOperator
    from dataflow_grounding.operators import BoxRefiner as BoxRefiner
    from dataflow_grounding.operators import BoxVerifier as BoxVerifier
    from dataflow_grounding.operators import CaptionGenerator as CaptionGenerator
    from dataflow_grounding.operators import DoubleChecker as DoubleChecker
    from dataflow_grounding.operators import ExpressionExtractor as ExpressionExtractor
    from dataflow_grounding.operators import Merger as Merger
    from dataflow_grounding.operators import Operator as Operator
    from dataflow_grounding.operators import PhraseGrounder as PhraseGrounder
    from dataflow_grounding.operators import PhraseLister as PhraseLister
    from dataflow_grounding.operators import RegionCaptioner as RegionCaptioner
    from dataflow_grounding.operators import RegionExpressionGenerator as RegionExpressionGenerator
    from dataflow_grounding.operators import RegionMarker as RegionMarker
    from dataflow_grounding.operators import operator as operator
    from dataflow_grounding.pipelines import Pipeline as Pipeline
    from dataflow_grounding.replies import read_boxes as read_boxes
    from dataflow_grounding.serving import GeminiServing as GeminiServing
    from dataflow_grounding.serving import LocalServing as LocalServing
    from dataflow_grounding.serving import OpenAISdkServing as OpenAISdkServing
    from dataflow_grounding.serving import OpenAIServing as OpenAIServing
    from dataflow_grounding.serving import RecordedServing as RecordedServing
    from dataflow_grounding.serving import Serving as Serving
    from dataflow_grounding.serving import SeveralEndpoints as SeveralEndpoints
    from dataflow_grounding.storage import FileStorage as FileStorage

_NAMES_OF = {
    "cli.main": "as_command",
    "embedded": "EmbeddedServing",
    "engine.options": "RunOptions",
    "errors": "GroundingError",
    "grounded": "Grounded ground",
    "jobs.serving_of_spec": "serving_from_environment",
    "operators": """OPERATOR_REGISTRY BBoxVisualizer BoxOperator BoxRefiner BoxVerifier CaptionGenerator DoubleChecker
        ExpressionExtractor Merger Operator PhraseGrounder PhraseLister RegionCaptioner RegionExpressionGenerator
        RegionMarker operator""",
    "pipelines": "Pipeline",
    "replies": "read_boxes",
    "serving": "GeminiServing LocalServing OpenAISdkServing OpenAIServing RecordedServing Serving SeveralEndpoints",
    "storage": "FileStorage",
}
"""Module → its public names; it is imported when one of them is used."""

_HOMES = {name: module for module, names in _NAMES_OF.items() for name in names.split()}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    return public_name(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return sorted([*__all__, *globals()])
