"""Operator: phrases that are almost right for an image, and of other images; none are found."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import NamedTuple

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.boxes.geometry import MERGE_IOU
from dataflow_grounding.boxes.regions import types_of
from dataflow_grounding.data.expressions import Expression, read_expressions
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.plan import Partial
from dataflow_grounding.operators._candidates import (
    COLUMN,
    candidates_of,
    of_other_images,
    without_named,
)
from dataflow_grounding.operators._expressions import texts_of
from dataflow_grounding.operators._nearness import batched
from dataflow_grounding.operators.box_operator import BoxOperator
from dataflow_grounding.operators.operator_base import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    open_image,
)
from dataflow_grounding.serving.serving import Serving, check_counts
from dataflow_grounding.tasks.negatives import Changed, negative_phrases
from dataflow_grounding.trust.box_watch import CHECK_EVERY, OnSuspect

SPARE = 2  # candidates for each negative that is wanted: some turn out to be there
SHARE_OF_OTHERS = 5  # one candidate in five is another image's phrase, if there are such phrases
MOST_CHANGED = 40  # phrases of an image that the model is shown, to change them
PHRASES_AT_ONCE = 16  # of a request that looks for them


@OPERATOR_REGISTRY.register()
class NegativePhraser(BoxOperator):
    """Makes phrases up that are almost right for an image: one of its own, with one thing changed.

    The model then looks for them. Those of which it finds nothing become expressions with `status`
    none, `source` negative and their `change`: a BoxChecker has to follow, which takes those out
    that it doesn't call absent, too. Others go into `negative_candidates`, with the `reason`. About
    twice as many are made as are wanted. Things that a text names are left out.

    Args:
        serving: The model that is asked.
        count: Negatives that an image is to have, 1 or more.
        phrases: Phrases of other images; some of them are taken, too, the same ones on each run.
        box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Raises:
        SpecError: A setting is wrong, or the model draws no boxes.

    Example:
        >>> from dataflow_grounding import NegativePhraser, OpenAIServing
        >>> from dataflow_grounding.testing import LoopbackServer
        >>> made_up = {"id": 1, "change": "attribute", "text": "the blue square"}
        >>> says = {"negative_phrases": {"negatives": [made_up]}}
        >>> says["phrase_grounding"] = {"objects": []}
        >>> box = {"bbox": [300, 200, 500, 400]}
        >>> row = {"image_path": "square.png"}
        >>> row["expressions"] = [{"text": "the red square", "instances": [box]}]
        >>> with LoopbackServer(lambda request: says[request.task]) as server:
        ...     serving = OpenAIServing(server.base_url, "any-model", box_format="xyxy_1000")
        ...     _, made = NegativePhraser(serving, check_every=None)(row)["expressions"]
        >>> made["text"], made["status"], made["change"]
        ('the blue square', 'none', 'attribute')
    """

    name = "negative_phrases"
    tasks = ("negative_phrases", "phrase_grounding")
    input_keys = {
        "image": "image_path",
        "expressions": "expressions",
        "caption": "caption",
        "regions": "regions",
        "candidates": COLUMN,
    }
    output_keys = {"output": "expressions", "candidates": COLUMN}
    optional_keys = ("caption", "regions", "candidates")
    descriptions = {"zh": "生成与图像几乎相符的短语,保留在图像中找不到的作为负样本。"}

    def __init__(
        self,
        serving: Serving,
        count: int = 5,
        phrases: Sequence[str] = (),
        *,
        box_format: str | None = None,
        merge_iou: float | None = MERGE_IOU,
        on_suspect_boxes: OnSuspect = "stop",
        check_every: int | None = CHECK_EVERY,
    ) -> None:
        check_counts(count=count)
        super().__init__(
            serving,
            box_format=box_format,
            merge_iou=merge_iou,
            on_suspect_boxes=on_suspect_boxes,
            check_every=check_every,
        )
        self.count = count
        self.phrases = tuple(phrases)

    def asks(self, record: Record) -> bool:
        """Whether a record has expressions with boxes, and fewer negatives than it is to have."""
        expressions = read_expressions(record, self.keys.expressions)
        return bool(self._missing_count(expressions) and _places_with_boxes(expressions))

    def requests_for(self, record: Record) -> int:
        """Return one for the phrases, and one for each PHRASES_AT_ONCE that are looked for."""
        return 1 + ceil(SPARE * self.count / PHRASES_AT_ONCE)

    def _missing_count(self, expressions: Sequence[Expression]) -> int:
        """Return how many negatives the record is to have, less those from the input."""
        count_in_input = sum(expression.is_negative for expression in expressions)
        return max(0, self.count - count_in_input)

    async def annotate(self, record: Record, ask: Ask) -> Update | Partial:
        """Adds the expressions with those made up, each with its `change` and `changed_from`.

        Those of other images have no `changed_from`. The update is Partial where an answer can't be
        had: the record goes on without what it was about.
        """
        own_expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        missing_count = self._missing_count(own_expressions)
        # Some candidates turn out to be in the picture, so more are made than are missing.
        candidate_count = SPARE * missing_count
        candidates, error_of_making = await self._make(
            record, image, own_expressions, candidate_count, ask
        )
        looked_for = await self._look_for(image, candidates, missing_count, ask)
        update = {
            self.keys.output: [*own_expressions, *looked_for.negatives],
            self.keys.candidates: looked_for.left_out,
        }
        error = looked_for.error or error_of_making
        return Partial(update, error) if error else update

    async def _make(
        self,
        record: Record,
        image: Image,
        own_expressions: Sequence[Expression],
        count: int,
        ask: Ask,
    ) -> tuple[list[Expression], RecordError | None]:
        """Return the candidates, and the error where the model gave no changed phrases."""
        caption = str(record.get(self.keys.caption) or "")
        region_types = types_of(record, self.keys.regions)
        # What these name is in the picture: no phrase in them can be a negative.
        image_texts = [*texts_of(own_expressions), *region_types, caption]
        most_from_others = ceil(count / SHARE_OF_OTHERS)
        from_others = of_other_images(record, self.phrases, most_from_others, image_texts)
        changed: list[Changed] = []
        error: RecordError | None = None
        try:
            changed_count = count - len(from_others)
            changed = await self._changed_phrases(image, own_expressions, changed_count, ask)
        except RecordError as why:
            error = why  # other images' phrases are looked for all the same
        changed = without_named(image_texts, changed)
        return candidates_of(record, own_expressions, changed, from_others), error

    async def _changed_phrases(
        self, image: Image, own_expressions: Sequence[Expression], count: int, ask: Ask
    ) -> list[Changed]:
        places = _places_with_boxes(own_expressions)
        if not places or not count:
            return []
        texts = [own_expressions[place].text for place in places]
        changed = await ask(negative_phrases(image, texts, count))
        # The answer's places are among the phrases that were sent: return those in the record.
        return [answer._replace(place=places[answer.place]) for answer in changed]

    async def _look_for(
        self, image: Image, candidates: list[Expression], most: int, ask: Ask
    ) -> "_LookedFor":
        """Look for candidates; at most `most` of those that aren't found become negatives."""
        negatives: list[Expression] = []
        left_out: list[Expression] = []
        error: RecordError | None = None
        for batch in batched(candidates, PHRASES_AT_ONCE):
            try:
                reasons = await self._why_left_out(image, batch, ask)
            except RecordError as why:
                error = why
                reasons = ["not looked for"] * len(batch)
            for candidate, reason in zip(batch, reasons, strict=True):
                if not reason and len(negatives) < most:
                    negatives.append(candidate)
                else:
                    left_out.append(replace(candidate, reason=reason or "enough are kept"))
        return _LookedFor(negatives, left_out, error)

    async def _why_left_out(
        self, image: Image, candidates: Sequence[Expression], ask: Ask
    ) -> list[str]:
        """Return why each candidate is no negative; "" where nothing is found of it."""
        answers = await self.ground(image, texts_of(candidates), ask)
        why_of_status = {"none": "", "grounded": "it was found"}
        return [why_of_status.get(answer.status, "it may be there") for answer in answers]


class _LookedFor(NamedTuple):
    """What came of looking for candidates."""

    negatives: list[Expression]
    left_out: list[Expression]  # with the `reason`
    error: RecordError | None  # the last one, where an answer couldn't be had


def _places_with_boxes(expressions: Sequence[Expression]) -> list[int]:
    places = [place for place, expression in enumerate(expressions) if expression.instances]
    # Only what is in the picture is changed: an expression without boxes may be a negative itself.
    return places[:MOST_CHANGED]
