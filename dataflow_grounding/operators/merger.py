"""Operator: referring expressions from described regions and a caption."""

from collections.abc import Sequence

from dataflow_grounding import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    Record,
    RegionOperator,
    Request,
    Update,
    expression_id,
)
from dataflow_grounding.boxes.regions import instances_on
from dataflow_grounding.data.expressions import Expression, Region
from dataflow_grounding.english.spans import find_spans
from dataflow_grounding.tasks import Merged, grounding_expression


@OPERATOR_REGISTRY.register()
class Merger(RegionOperator):
    """Merges region descriptions and caption into referring expressions with boxes.

    Each has the boxes of the regions that it means.

    Args:
        serving, box_format, regions_per_request, marks: As RegionOperator's.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, Merger
        >>> region = {"bbox": [300, 200, 500, 400], "type": "square", "description": "the square"}
        >>> row = {"image_path": "square.png", "cleaned_caption": "A red square."}
        >>> row["regions"] = [region]
        >>> [expression] = Merger(EmbeddedServing())(row)["expressions"]
        >>> expression["text"], expression["instances"][0]["bbox"]
        ('the square', [300, 200, 500, 400])
    """

    name = "grounding_expr"
    tasks = ("grounding_expression",)
    input_keys = {"image": "image_path", "regions": "regions", "caption": "cleaned_caption"}
    output_keys = {"expressions": "expressions"}
    optional_keys = ("caption",)
    descriptions = {
        "en": (
            "Merges region descriptions and caption into referring expressions, each with its"
            " regions' boxes."
        ),
        "zh": "将区域描述与图像描述合并为指代表达式,并附上对应区域的边界框。",
    }

    async def described(
        self, record: Record, image: Image, regions: list[Region], ask: Ask
    ) -> Update:
        """Adds `expressions`: text, span in the caption, an instance per region, status grounded.

        An instance has its region's box as it is. The span is null where the text doesn't occur in
        the caption, or the record has no caption. It is noted, once, where expressions don't name
        all regions.
        """
        caption = record.get(self.keys.caption)
        if not isinstance(caption, str) or not caption.strip():
            caption = None
        merged = await self._merged(image, regions, caption, ask)
        named_places: set[int] = set()
        for expression in merged:
            named_places.update(expression.places)
        if len(named_places) < len(regions):
            ask.note("uncovered", "a region that no expression names")
        return {self.keys.expressions: _expressions(record, merged, regions, caption)}

    async def _merged(
        self, image: Image, regions: Sequence[Region], caption: str | None, ask: Ask
    ) -> list[Merged]:
        """Return the model's expressions, with the places of their regions in the record."""

        def request(picture: Image, some_regions: Sequence[Region]) -> Request[list[Merged]]:
            return grounding_expression(picture, caption, some_regions)

        merged: list[Merged] = []
        for places, answers in await self.ask_about(image, regions, request, ask):
            for answer in answers:
                # An answer counts the regions of its own request from 0. These are at `places`.
                places_in_record = [places[number] for number in answer.places]
                merged.append(Merged(answer.text, places_in_record))
        return merged


def _expressions(
    record: Record, merged: list[Merged], regions: Sequence[Region], caption: str | None
) -> list[Expression]:
    spans = find_spans([expression.text for expression in merged], caption or "")
    expressions: list[Expression] = []
    for number, (expression, span) in enumerate(zip(merged, spans, strict=True)):
        own_id = expression_id(record, number)
        expressions.append(
            Expression(
                expression.text,
                own_id,
                instances_on(expression.places, regions, own_id),
                status="grounded",
                char_span=span,
            )
        )
    return expressions
