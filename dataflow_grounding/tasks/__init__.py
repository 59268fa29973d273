"""Tasks: what is asked of a model. Each makes a request and knows how its reply is read."""

from dataflow_grounding.tasks.captions import (
    Extracted,
    RegionCaptions,
    expression_extraction,
    image_caption,
    region_caption,
)
from dataflow_grounding.tasks.phrase_grounding import Found, phrase_grounding
from dataflow_grounding.tasks.regions import (
    Asked,
    Check,
    Described,
    Merged,
    double_check,
    grounding_expression,
    region_expression,
)
from dataflow_grounding.tasks.request import Request

__all__ = [
    "Asked", "Check", "Described", "Extracted", "Found", "Merged", "RegionCaptions", "Request",
    "double_check", "expression_extraction", "grounding_expression", "image_caption", "phrase_grounding",
    "region_caption", "region_expression",
]  # fmt: skip
