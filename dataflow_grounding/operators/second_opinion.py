"""Operator: phrases of which a check is in doubt, asked of another model."""

from collections.abc import Collection

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.geometry import MERGE_IOU
from dataflow_grounding.data.records import Record, Update, is_number, read_expressions
from dataflow_grounding.operators._box_decisions import (
    SECONDS,
    Expression,
    check_of,
    is_open,
    is_yes,
    presence_of,
    verdicts_of,
    with_second_opinion,
)
from dataflow_grounding.operators._expressions import texts_of
from dataflow_grounding.operators._nearness import batched
from dataflow_grounding.operators.base import (
    OPERATOR_REGISTRY,
    Ask,
    Image,
    facts_of,
    open_image,
)
from dataflow_grounding.operators.box_operator import BoxOperator
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.tasks.grounding import Found
from dataflow_grounding.trust.box_watch import CHECK_EVERY, OnSuspect

PHRASES_AT_ONCE = 16  # phrases of one request


@OPERATOR_REGISTRY.register()
class SecondOpinion(BoxOperator):
    """Asks another model, a better one, for the boxes of phrases of which a check is in doubt.

    It follows a BoxChecker or a CropJudge. A box in doubt stays if the other model finds it too,
    and goes into `rejected` if it finds none; a phrase without a box gets those that it finds, with
    `found_by`. Where it finds other boxes, they take the place of a box that the check denies; else
    the phrase stays in doubt. It isn't asked about phrases with less doubt, nor about those that an
    earlier SecondOpinion has settled.

    Where a stored reply of the other model is about all phrases of a picture, as that of a pilot
    is, it counts for those in doubt, and nothing is sent.

    Args:
        serving: The other model.
        from_doubt: The least doubt of the phrases that it is asked about, from 0 to 1: at 1, those
            that the check couldn't decide; below that the share of its answers that were outvoted,
            so that 0.5 takes split ones too, and 0 every phrase.
        box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Raises:
        SpecError: A setting is wrong.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, SecondOpinion
        >>> box = {"bbox_id": "a.0", "bbox": [300, 200, 500, 400]}
        >>> said = {"method": "check", "there": True, "count": 1}
        >>> said["boxes"] = [{"bbox_id": "a.0", "verdict": "other", "decision": "undecided"}]
        >>> doubted = {"text": "the red square", "instances": [box], "verified": None}
        >>> row = {"image_path": "square.png", "expressions": [{**doubted, "verification": said}]}
        >>> [settled] = SecondOpinion(EmbeddedServing())(row)["expressions"]
        >>> settled["verified"], settled["verification"]["other_model"]["boxes"]
        (True, 1)
    """

    name = "second_opinion"
    descriptions = {"zh": "对核对后仍存疑的短语,由另一个模型重新定位。"}

    def __init__(
        self,
        serving: Serving,
        *,
        from_doubt: float = 1.0,
        box_format: str | None = None,
        merge_iou: float | None = MERGE_IOU,
        on_suspect_boxes: OnSuspect = "stop",
        check_every: int | None = CHECK_EVERY,
    ) -> None:
        if not (is_number(from_doubt) and 0 <= from_doubt <= 1):
            raise SpecError("from_doubt should be from 0, every phrase, to 1, what is undecided")
        super().__init__(
            serving,
            box_format=box_format,
            merge_iou=merge_iou,
            on_suspect_boxes=on_suspect_boxes,
            check_every=check_every,
        )
        self.from_doubt = from_doubt
        self.asks_all = False
        """Whether it asks about all phrases whatever their doubt, as in a pilot; what it decides
        doesn't depend on that."""

    def asks(self, record: Record) -> bool:
        """Whether the other model is to be asked about any phrase of a record."""
        expressions = read_expressions(record, self.keys.expressions)
        return (self.asks_all and bool(expressions)) or self.doubted(record) > 0

    def doubted(self, record: Record) -> int:
        """Return how many phrases of a record are in enough doubt to ask the other model about."""
        return sum(map(self._is_doubted, read_expressions(record, self.keys.expressions)))

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Keeps, rejects or adds boxes of doubted phrases, as the other model finds them.

        Raises RecordError where an answer can't be had.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        doubted = [
            place for place, expression in enumerate(expressions) if self._is_doubted(expression)
        ]
        answers = await self._answers_about_all(image, texts_of(expressions), doubted, ask)
        unanswered = [place for place in doubted if place not in answers]
        for places in batched(unanswered, PHRASES_AT_ONCE):
            texts = [expressions[place]["text"] for place in places]
            found = await self.ground(image, texts, ask)
            answers.update(zip(places, found, strict=True))
        for place in doubted:
            expressions[place] = with_second_opinion(
                expressions[place], answers[place].instances, self.serving.model
            )
        return {**facts_of(record, image, ask, self.serving), self.keys.output: expressions}

    async def _answers_about_all(
        self, image: Image, texts: list[str], doubted: Collection[int], ask: Ask
    ) -> dict[int, Found]:
        """Return answers about phrases, by place, from requests that take all phrases in turn.

        A pilot makes all of these requests (`asks_all`). Otherwise only those are made that have a
        stored reply, as one that a pilot has left, and a doubted phrase: so nothing is sent.

        Args:
            image: The image.
            texts: The texts of all phrases.
            doubted: The places of those that the other model is to be asked about.
            ask: Asks the other model.
        """
        answers: dict[int, Found] = {}
        for places in batched(list(range(len(texts))), PHRASES_AT_ONCE):
            phrases = [texts[place] for place in places]
            is_asked = self.asks_all
            if not is_asked and not set(places).isdisjoint(doubted):
                is_asked = ask.is_stored(self.question(image, phrases))
            if is_asked:
                found = await self.ground(image, phrases, ask)
                answers.update(zip(places, found, strict=True))
        return answers

    def _is_doubted(self, expression: Expression) -> bool:
        """Whether an expression's doubt is `from_doubt` or more, and no person settled it."""
        doubt = doubt_of(expression)
        return doubt is not None and doubt >= self.from_doubt and is_open(expression)


def doubt_of(expression: Expression) -> float | None:
    """Return how much a check is in doubt of an expression, from 0 to 1.

    None where it didn't judge the expression, or another model has settled it since. It is 1 where
    the check couldn't decide, 0 for a decided expression without boxes. Else it is that of the box
    with the most doubt: the share of the answers about it that were outvoted. These are that of the
    grounding, which has found it, the judge's verdict and second answer, and what the judge said of
    the phrase's presence.

    Example:
        >>> box = {"verdict": "right", "crop": True, "decision": "kept"}
        >>> said = {"method": "check", "second": "crop", "there": False, "boxes": [box]}
        >>> doubt_of({"verified": True, "verification": said})
        0.25
    """
    check = check_of(expression)
    if not check:
        return None
    if expression["verified"] is None:
        return 1.0
    if "other_model" in check:
        return None
    presence = presence_of(expression)
    doubts = [0.0]
    for verdict in verdicts_of(expression).values():
        answers = [True, is_yes(verdict, presence)]
        for second in SECONDS:
            if second in verdict:
                answers.append(verdict[second])
        if check.get("second") != "presence":  # else it is among them already
            answers.append(presence.there)
        known = [answer for answer in answers if answer is not None]
        outvoted = min(known.count(True), known.count(False))
        doubts.append(outvoted / len(known))
    return max(doubts)
