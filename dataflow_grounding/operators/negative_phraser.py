"""Operator: phrases that are almost right for an image, and of other images; not yet checked."""

from collections.abc import Sequence

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.regions import types_of
from dataflow_grounding.data.records import Record, Update, is_negative, read_expressions
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._box_decisions import Expression
from dataflow_grounding.operators._candidates import (
    COLUMN,
    candidates_of,
    not_among,
    of_other_images,
)
from dataflow_grounding.operators.base import OPERATOR_REGISTRY, Ask, Operator, facts_of, open_image
from dataflow_grounding.serving.base import Serving, check_counts
from dataflow_grounding.tasks.negatives import Changed, negative_phrases

SPARE = 2  # candidates for each phrase that is wanted: some turn out to be there
SHARE_OF_OTHERS = 5  # one in so many candidates is another image's phrase, where there are any
MOST_CHANGED = 40  # phrases of an image that are shown, to be changed


@OPERATOR_REGISTRY.register()
class NegativePhraser(Operator):
    """Makes phrases up that are almost right for an image: one of its own, with one thing changed.

    They are candidates: a NegativeGrounder, a NegativeChecker and a NegativeJudge find out which of
    them are absent. Twice as many are made as are wanted.

    Args:
        serving: The model that is asked.
        count: Negatives that an image is to have, 1 or more.
        phrases: Of other images; some of them are candidates too, the same ones on each run.

    Raises:
        SpecError: A setting is wrong.

    Example:
        >>> from dataflow_grounding import NegativePhraser, OpenAIServing
        >>> from dataflow_grounding.extras.testing import CannedAnswers, LoopbackServer
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
        self.serving: Serving = serving
        self.count = count
        self.phrases = tuple(phrases)

    def asks(self, record: Record) -> bool:
        """Whether a record has expressions with boxes, and fewer negatives than it is to have."""
        return bool(self._lacking(record) and self._grounded(record))

    def _lacking(self, record: Record) -> int:
        """How many negatives a record still lacks."""
        there = filter(is_negative, read_expressions(record, self.keys.expressions))
        return max(0, self.count - len(list(there)))

    def _grounded(self, record: Record) -> list[Expression]:
        """The record's expressions that can be changed."""
        expressions = read_expressions(record, self.keys.expressions)
        grounded = [expression for expression in expressions if expression["instances"]]
        return grounded[:MOST_CHANGED]

    def _told(self, record: Record) -> list[str]:
        """All that is said of the image: its phrases, its regions' types, its caption."""
        told = [item["text"] for item in read_expressions(record, self.keys.expressions)]
        types = types_of(record, self.keys.regions)
        return [*told, *types, str(record.get(self.keys.caption) or "")]

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds the candidates: each with its `text`, `change`, `changed_from` and `source`.

        Partial where they can't be had: the record goes on without.
        """
        own = self._grounded(record)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        told = self._told(record)
        wanted = SPARE * self._lacking(record)
        others = of_other_images(record, self.phrases, -(-wanted // SHARE_OF_OTHERS), told)
        changed: list[Changed] = []
        failed: RecordError | None = None
        if own and wanted:
            texts = [expression["text"] for expression in own]
            try:
                changed = await ask(negative_phrases(image, texts, wanted - len(others)))
            except RecordError as error:
                failed = error
        candidates = candidates_of(record, own, not_among(told, changed), others)
        update = {**facts_of(record, image, ask, self.serving), self.keys.candidates: candidates}
        return Partial(update, failed) if failed else update
