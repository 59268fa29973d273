"""Operator: phrases that are almost right for an image, and of other images; not yet checked."""

from collections.abc import Sequence
from math import ceil

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.regions import types_of
from dataflow_grounding.data.records import Record, Update, is_negative, read_expressions
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._box_decisions import Expression
from dataflow_grounding.operators._candidates import (
    COLUMN,
    candidates_of,
    of_other_images,
    without_named,
)
from dataflow_grounding.operators.operator_base import (
    OPERATOR_REGISTRY,
    Ask,
    Operator,
    facts_of,
    open_image,
)
from dataflow_grounding.serving.serving import Serving, check_counts
from dataflow_grounding.tasks.negatives import Changed, negative_phrases

SPARE = 2  # candidates for each negative that is wanted: some turn out to be there
SHARE_OF_OTHERS = 5  # one candidate in five is another image's phrase, if there are such phrases
MOST_CHANGED = 40  # phrases of an image that the model is shown, to change them


@OPERATOR_REGISTRY.register()
class NegativePhraser(Operator):
    """Makes phrases up that are almost right for an image: one of its own, with one thing changed.

    They are candidates, each with the box of the whole image: a NegativeChecker finds out which are
    absent. About twice as many are made as are wanted. Things that a text names are left out.

    Args:
        serving: The model that is asked.
        count: Negatives that an image is to have, 1 or more.
        phrases: Phrases of other images; some of them are candidates too, the same ones on each
            run.

    Raises:
        SpecError: A setting is wrong.

    Example:
        >>> from dataflow_grounding import NegativePhraser, OpenAIServing
        >>> from dataflow_grounding.testing import CannedAnswers, LoopbackServer
        >>> says = '{"negatives": [{"id": 1, "change": "attribute", "text": "the blue square"}]}'
        >>> box = {"bbox": [300, 200, 500, 400]}
        >>> row = {"image_path": "square.png"}
        >>> row["expressions"] = [{"text": "the red square", "instances": [box]}]
        >>> with LoopbackServer(CannedAnswers(says)) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     record = NegativePhraser(serving)(row)
        >>> [(made["text"], made["change"]) for made in record["negative_candidates"]]
        [('the blue square', 'attribute')]
    """

    name = "negative_phrases"
    tasks = ("negative_phrases",)
    input_keys = {
        "image": "image_path",
        "expressions": "expressions",
        "caption": "caption",
        "regions": "regions",
        "candidates": COLUMN,
    }
    output_keys = {"candidates": COLUMN}
    optional_keys = ("caption", "regions", "candidates")
    descriptions = {"zh": "生成与图像几乎相符、但实际不存在的短语,作为负样本候选。"}

    def __init__(self, serving: Serving, count: int = 5, phrases: Sequence[str] = ()) -> None:
        check_counts(count=count)
        self.serving: Serving = self.checked_serving(serving)
        self.count = count
        self.phrases = tuple(phrases)

    def asks(self, record: Record) -> bool:
        """Whether a record has expressions with boxes, and fewer negatives than it is to have."""
        expressions = read_expressions(record, self.keys.expressions)
        return bool(self._lacking(expressions) and _places_with_boxes(expressions))

    def _lacking(self, expressions: Sequence[Expression]) -> int:
        return max(0, self.count - len(list(filter(is_negative, expressions))))

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds the candidates: each with its `text`, `change`, `changed_from` and `source`.

        Those of other images have no `changed_from`. The update is Partial where the model's can't
        be had: the record goes on without these.
        """
        own = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        told = [expression["text"] for expression in own]
        told += [*types_of(record, self.keys.regions), str(record.get(self.keys.caption) or "")]
        wanted = SPARE * self._lacking(own)
        others = of_other_images(record, self.phrases, ceil(wanted / SHARE_OF_OTHERS), told)
        places = _places_with_boxes(own)
        changed: list[Changed] = []
        failed: RecordError | None = None
        if places and wanted:
            texts = [own[place]["text"] for place in places]
            try:
                changed = await ask(negative_phrases(image, texts, wanted - len(others)))
            except RecordError as error:
                failed = error
        of_record = [answer._replace(place=places[answer.place]) for answer in changed]
        changed = without_named(told, of_record)
        candidates = candidates_of(record, own, changed, others, image.size)
        update = {**facts_of(record, image, ask, self.serving), self.keys.candidates: candidates}
        return Partial(update, failed) if failed else update


def _places_with_boxes(expressions: Sequence[Expression]) -> list[int]:
    places = [place for place, expression in enumerate(expressions) if expression["instances"]]
    return places[:MOST_CHANGED]
