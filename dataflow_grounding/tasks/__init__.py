"""Tasks: what is asked of a model. Each makes a request and knows how its reply is read."""

from __future__ import annotations

from dataflow_grounding.tasks.expression_extraction import Extracted, expression_extraction
from dataflow_grounding.tasks.phrase_grounding import Found, phrase_grounding
from dataflow_grounding.tasks.request import Request

__all__ = ["Extracted", "Found", "Request", "expression_extraction", "phrase_grounding"]
