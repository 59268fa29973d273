"""What `tasks` has, and where each stands; nothing is imported before it is used."""

from .captions import SHOWN_AS as SHOWN_AS
from .captions import RegionCaptions as RegionCaptions
from .captions import image_caption as image_caption
from .captions import region_caption as region_caption
from .captions import renumbered as renumbered
from .checks import box_check as box_check
from .checks import missing_boxes as missing_boxes
from .extraction import expression_extraction as expression_extraction
from .fused import caption_grounding as caption_grounding
from .grounding import Found as Found
from .grounding import phrase_grounding as phrase_grounding
from .negatives import negative_phrases as negative_phrases
from .region_tasks import Merged as Merged
from .region_tasks import double_check as double_check
from .region_tasks import grounding_expression as grounding_expression
from .region_tasks import region_expression as region_expression
from .request import Request as Request
