"""What the operators that ask a model for boxes have in common."""

from collections import Counter
from typing import ClassVar

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import MERGE_IOU
from dataflow_grounding.data.records import JsonObject, is_number
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.operators._nearness import ask_in_parts
from dataflow_grounding.operators.operator_base import Ask, Image, Operator
from dataflow_grounding.serving.serving import Serving, check_counts
from dataflow_grounding.tasks.grounding import Found, phrase_grounding
from dataflow_grounding.trust.box_watch import CHECK_EVERY, BoxWatch, OnSuspect
from dataflow_grounding.trust.choice import FormatChoice, choice_of

USUAL_PHRASES = 4  # that a caption has


def is_iou(value: float) -> bool:
    """Return whether boxes can be compared by a value: an IoU above 0."""
    return is_number(value) and 0 < value <= 1


class BoxWatching(Operator):
    """Settles the format in which boxes are asked for, if any are, and watches that they are in it.

    A format says what a box's numbers mean: thousandths of the image's sides, say, or pixels. What
    a model writes may have to be found out by pictures with known boxes, before or during a run.

    Attributes:
        format_choice: The choice of a format; None for an operator that asks for no boxes.
        watch: What watches the boxes.
    """

    format_choice: FormatChoice | None
    watch: BoxWatch

    async def settle(self, start: RunStart) -> Counter[str]:
        """Find out the box format, and return how many requests and tokens it took.

        It takes none where no boxes are asked for.
        """
        if not self.format_choice:
            return Counter()
        return await self.format_choice.settle_to_ground(start, self.watch.on_poor)

    async def prepare(self, start: RunStart) -> Counter[str]:
        """Settle the box format, and begin to watch the run's boxes.

        Operators of a run that ask in the same format and form share a watch. Returns how many
        requests and tokens it took.
        """
        if self.serving is None or self.format_choice is None:
            return Counter()
        # A form of asking is how the prompt puts the question, by `with_words(asking=…)`. Boxes
        # that are right in one form may be wrong in another, so each form has its own watch.
        form_key = ""  # the usual form
        if self.wording and self.wording.asking:
            form_key = repr(self.wording.asking)
        self.watch, cost = await self.watch.begun(self.serving, self.format_choice, start, form_key)
        return cost

    def facts(self) -> JsonObject:
        """Return what `run.json` says of the watch: `check_every`, and what is wrong with boxes."""
        return self.watch.facts()

    async def last_check(self, ask: Ask) -> None:
        await self.watch.last_check(ask)

    async def conclude(self, ask: Ask) -> None:
        """End the watch. Raises RunStopped where the boxes can't be trusted."""
        await self.watch.conclude(ask)


class BoxOperator(BoxWatching):
    """Asks for the boxes of expressions, in the format of the serving's model.

    Args:
        serving: The model that is asked.
        samples, box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Raises:
        SpecError: A setting is wrong, or the model draws no boxes.
    """

    tasks: ClassVar[tuple[str, ...]] = ("phrase_grounding",)
    input_keys = {"image": "image_path", "expressions": "expressions"}
    output_keys = {"output": "expressions"}

    def __init__(
        self,
        serving: Serving,
        *,
        samples: int = 1,
        box_format: str | None = None,
        merge_iou: float | None = MERGE_IOU,
        on_suspect_boxes: OnSuspect = "stop",
        check_every: int | None = CHECK_EVERY,
    ) -> None:
        if merge_iou is not None and not is_iou(merge_iou):
            raise SpecError(
                "merge_iou should be above 0 and at most 1; without one all boxes are kept"
            )
        check_counts(samples=samples)
        self.serving: Serving = self.checked_serving(serving)
        self.samples = samples
        self.format_choice: FormatChoice = choice_of(serving, box_format)
        self.merge_iou = merge_iou
        self.watch = BoxWatch(on_suspect_boxes, check_every)

    @property
    def box_format(self) -> BoxFormat:
        """The format that boxes are asked for and read in."""
        return self.format_choice.format

    async def ground(
        self, image: Image, phrases: list[str], ask: Ask, sample: int = 0
    ) -> list[Found]:
        """Ask for the boxes of phrases in one request, and return the answer for each phrase.

        If the reply is cut off, the phrases are asked for again in two requests, half in each, and
        so on.

        Args:
            image: The image to look in.
            phrases: What to look for.
            ask: Asks the model.
            sample: Which of several independent answers to ask for, from 0.

        Raises:
            RecordError: There is no answer; TruncatedReply if the reply about a single phrase is
                cut off.
        """

        async def ask_once(request_phrases: list[str]) -> list[Found]:
            request = phrase_grounding(image, request_phrases, self.box_format, self.merge_iou)
            request = request.replace(sample=sample)
            return await self.watch.ask(ask, request, image)

        answers: list[Found] = []
        for _, request_answers in await ask_in_parts(phrases, ask_once):
            answers += request_answers
        return answers
