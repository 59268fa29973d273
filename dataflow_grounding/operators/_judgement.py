"""What a judge says of a record's expressions and their boxes, asked in one request or several."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dataflow_grounding._util.errors import RecordError
from dataflow_grounding.data.expressions import Expression
from dataflow_grounding.operators._box_groups import Part, groups_of
from dataflow_grounding.operators._nearness import ask_in_parts
from dataflow_grounding.operators.operator_base import Ask, Image
from dataflow_grounding.tasks.checks import Checked, DrawnBox, Fit, Presence, box_check


class Judgement(NamedTuple):
    """What a judge says of a record's expressions, each by its place in the record."""

    presences: dict[int, Presence]
    verdicts: dict[int, list[Fit | None]]  # one for each box, in order
    errors: dict[int, RecordError]  # of expressions that have no whole answer

    def add(self, parts: Sequence[Part], checked: Checked) -> None:
        """Take in an answer about these parts: a presence for each, and all boxes' verdicts."""
        remaining_verdicts = iter(checked.verdicts)
        for part, presence in zip(parts, checked.presences, strict=True):
            # Each part's request asks about the phrase, too. Where an expression has several parts,
            # the first answer about its phrase counts.
            self.presences.setdefault(part.place, presence)
            verdicts = self.verdicts.setdefault(part.place, [])
            verdicts += itertools.islice(remaining_verdicts, len(part.boxes))


async def ask_judge(
    image: Image, expression_by_place: Mapping[int, Expression], ask: Ask
) -> Judgement:
    """Ask the judge about expressions and their boxes, mostly in one request."""

    async def ask_once(parts: list[Part]) -> Checked:
        texts = [expression_by_place[part.place].text for part in parts]
        boxes = []
        for part in parts:
            expression = expression_by_place[part.place]
            for number in part.boxes:
                boxes.append(DrawnBox(expression.text, expression.instances[number].bbox))
        return await ask(box_check(image, texts, boxes))

    judgement = Judgement({}, {}, {})
    for group in groups_of(expression_by_place):
        try:
            answers = await ask_in_parts(group, ask_once)
        except RecordError as error:
            # The others are still asked about. Where an expression's boxes take several requests,
            # an answer to another one of these doesn't count then.
            judgement.errors.update((part.place, error) for part in group)
            continue
        for parts, checked in answers:
            judgement.add(parts, checked)
    return judgement
