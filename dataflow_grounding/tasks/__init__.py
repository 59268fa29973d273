"""Tasks: what is asked of a model. Each makes a request and knows how its reply is read."""

from dataflow_grounding.tasks.captions import expression_extraction, image_caption, region_caption
from dataflow_grounding.tasks.phrase_grounding import Found, phrase_grounding
from dataflow_grounding.tasks.regions import double_check, grounding_expression, region_expression
from dataflow_grounding.tasks.request import Request

__all__ = [
    "Found",
    "Request",
    "double_check",
    "expression_extraction",
    "grounding_expression",
    "image_caption",
]
__all__ += ["phrase_grounding", "region_caption", "region_expression"]
