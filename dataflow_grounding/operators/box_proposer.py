"""Operator: boxes of phrases that any of several answers has, to be verified."""

from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY
from dataflow_grounding.operators.phrase_grounder import PhraseGrounder


@OPERATOR_REGISTRY.register()
class BoxProposer(PhraseGrounder):
    """Asks for phrases several times, as PhraseGrounder, and keeps each box that any answer has.

    So less is missed, and more is wrong: a ProposalVerifier is to follow. Boxes of different
    answers that are the same thing's are one; its score is the share of answers that have it.

    Args:
        serving, samples, box_format, merge_iou: As PhraseGrounder's.
        phrases_per_request, on_suspect_boxes, check_every: As PhraseGrounder's.

    Example:
        >>> from dataflow_grounding import BoxProposer, EmbeddedServing
        >>> row = {"image_path": "square.png", "expressions": ["the red square"]}
        >>> record = BoxProposer(EmbeddedServing(), samples=3)(row)
        >>> record["expressions"][0]["instances"][0]["score"]
        1.0
    """

    name = "box_proposals"
    descriptions = {"zh": "多次询问每个短语,保留任一回答给出的边界框,供后续核对。"}
    least_share = 0.0
