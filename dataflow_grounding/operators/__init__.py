"""Operators: the steps that pipelines are made of."""

from dataflow_grounding.operators._calling import Annotated
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Operator
from dataflow_grounding.operators.bbox_visualizer import BBoxVisualizer
from dataflow_grounding.operators.box_operator import BoxOperator
from dataflow_grounding.operators.box_refiner import BoxRefiner
from dataflow_grounding.operators.box_verifier import BoxVerifier
from dataflow_grounding.operators.caption_generator import CaptionGenerator
from dataflow_grounding.operators.double_checker import DoubleChecker
from dataflow_grounding.operators.expression_extractor import ExpressionExtractor
from dataflow_grounding.operators.function import FunctionOperator, operator
from dataflow_grounding.operators.merger import Merger
from dataflow_grounding.operators.phrase_grounder import PhraseGrounder
from dataflow_grounding.operators.phrase_lister import PhraseLister
from dataflow_grounding.operators.region_captioner import RegionCaptioner
from dataflow_grounding.operators.region_expression_generator import RegionExpressionGenerator
from dataflow_grounding.operators.region_marker import RegionMarker

__all__ = [
    "OPERATOR_REGISTRY",
    "Annotated",
    "BBoxVisualizer",
    "BoxOperator",
    "BoxRefiner",
    "BoxVerifier",
    "CaptionGenerator",
    "DoubleChecker",
    "ExpressionExtractor",
    "FunctionOperator",
    "Merger",
    "Operator",
    "PhraseGrounder",
    "PhraseLister",
    "RegionCaptioner",
    "RegionExpressionGenerator",
    "RegionMarker",
    "operator",
]
