"""Operator: a caption of each image that has regions."""

from dataflow_grounding import OPERATOR_REGISTRY, Ask, CaptionGenerator, Record, Update
from dataflow_grounding.data.expressions import check_labels_were_read


@OPERATOR_REGISTRY.register()
class CaptionForRegions(CaptionGenerator):
    """Writes a caption of each image that has regions, for a step that reads both.

    An image without regions gets none, and the model isn't asked.

    Args:
        serving: The model that is asked.

    Example:
        >>> from dataflow_grounding import EmbeddedServing
        >>> from dataflow_grounding.operators import CaptionForRegions
        >>> record = {"image_path": "square.png", "regions": []}
        >>> CaptionForRegions(EmbeddedServing())(record)["caption"] is None
        True
    """

    descriptions = {"zh": "为带有区域的图像生成描述文本。"}

    def asks(self, record: Record) -> bool:
        """Whether the record has regions."""
        return bool(record.get("regions"))

    def requests_for(self, record: Record) -> int:
        """Return one for a record with regions."""
        return int(self.asks(record))

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds what CaptionGenerator adds; the captions are null where there are no regions."""
        if self.asks(record):
            return await super().annotate(record, ask)
        check_labels_were_read(record)
        return {self.keys.caption: None, self.keys.cleaned_caption: None}
