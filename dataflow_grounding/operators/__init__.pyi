"""What `operators` has, and where each stands; nothing is imported before it is used."""

from ._agreement import ask_and_merge as ask_and_merge
from ._drawing import draw_boxes as draw_boxes
from ._drawing import safe_path as safe_path
from ._expressions import any_has_boxes as any_has_boxes
from ._expressions import boxes_of as boxes_of
from ._expressions import extracted_expressions as extracted_expressions
from ._expressions import texts_of as texts_of
from ._expressions import with_answers as with_answers
from ._expressions import within_image as within_image
from ._in_memory import Annotated as Annotated
from ._nearness import ask_in_parts as ask_in_parts
from ._nearness import batched as batched
from ._nearness import near_groups as near_groups
from ._verdicts import ExpressionsToCheck as ExpressionsToCheck
from ._verdicts import Result as Result
from ._verdicts import Verdict as Verdict
from ._verdicts import expressions_to_check as expressions_to_check
from ._verdicts import note_kinds as note_kinds
from ._verdicts import update_of as update_of
from ._verdicts import with_spans as with_spans
from .bbox_visualizer import BBoxVisualizer as BBoxVisualizer
from .box_checker import BoxChecker as BoxChecker
from .box_operator import BoxOperator as BoxOperator
from .box_refiner import BoxRefiner as BoxRefiner
from .caption_for_regions import CaptionForRegions as CaptionForRegions
from .caption_generator import CaptionGenerator as CaptionGenerator
from .caption_grounder import CaptionGrounder as CaptionGrounder
from .double_checker import DoubleChecker as DoubleChecker
from .expression_extractor import ExpressionExtractor as ExpressionExtractor
from .function import (
    FunctionOperator as FunctionOperator,
)
from .function import (
    operator as operator,
)
from .merger import Merger as Merger
from .missing_finder import MissingFinder as MissingFinder
from .negative_phraser import NegativePhraser as NegativePhraser
from .operator_base import (
    OPERATOR_REGISTRY as OPERATOR_REGISTRY,
)
from .operator_base import Ask as Ask
from .operator_base import Image as Image
from .operator_base import (
    Operator as Operator,
)
from .operator_base import (
    facts_of as facts_of,
)
from .operator_base import open_image as open_image
from .phrase_grounder import PhraseGrounder as PhraseGrounder
from .phrase_lister import PhraseLister as PhraseLister
from .region_captioner import RegionCaptioner as RegionCaptioner
from .region_expression_generator import RegionExpressionGenerator as RegionExpressionGenerator
from .region_marker import RegionMarker as RegionMarker
from .region_operator import RegionMarks as RegionMarks
from .region_operator import RegionOperator as RegionOperator
from .tile_grounder import TileGrounder as TileGrounder
