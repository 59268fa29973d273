"""What `operators` has, and where each stands; nothing is imported before it is used."""

from ._in_memory import Annotated as Annotated
from .base import (
    OPERATOR_REGISTRY as OPERATOR_REGISTRY,
)
from .base import (
    Operator as Operator,
)
from .base import (
    facts_of as facts_of,
)
from .bbox_visualizer import BBoxVisualizer as BBoxVisualizer
from .box_checker import BoxChecker as BoxChecker
from .box_mender import BoxMender as BoxMender
from .box_operator import BoxOperator as BoxOperator
from .box_proposer import BoxProposer as BoxProposer
from .box_refiner import BoxRefiner as BoxRefiner
from .box_verifier import BoxVerifier as BoxVerifier
from .caption_generator import CaptionGenerator as CaptionGenerator
from .caption_grounder import CaptionGrounder as CaptionGrounder
from .crop_judge import CropJudge as CropJudge
from .double_checker import DoubleChecker as DoubleChecker
from .doubt_grounder import DoubtGrounder as DoubtGrounder
from .expression_extractor import ExpressionExtractor as ExpressionExtractor
from .function import (
    FunctionOperator as FunctionOperator,
)
from .function import (
    operator as operator,
)
from .merger import Merger as Merger
from .missing_finder import MissingFinder as MissingFinder
from .negative_checker import NegativeChecker as NegativeChecker
from .negative_phraser import NegativePhraser as NegativePhraser
from .phrase_grounder import PhraseGrounder as PhraseGrounder
from .phrase_lister import PhraseLister as PhraseLister
from .proposal_verifier import ProposalVerifier as ProposalVerifier
from .region_captioner import RegionCaptioner as RegionCaptioner
from .region_expression_generator import RegionExpressionGenerator as RegionExpressionGenerator
from .region_marker import RegionMarker as RegionMarker
