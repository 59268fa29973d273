"""What holds after the decisions on a file, and what of it holds in another file.

What was decided on an expression is its outcome: how it was, and how the decisions leave it.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import count
from operator import attrgetter
from typing import Any, NamedTuple

from dataflow_grounding.data.records import Record, dump_line, read_expressions
from dataflow_grounding.review._judged_pictures import JudgedPicture, names_of, short_digest
from dataflow_grounding.review._overlay import (
    Outcome,
    judgement_of,
    reviewer_verdict,
    version_of,
    was_judged,
)
from dataflow_grounding.review._record_view import Expression


class RecordReview(NamedTuple):
    """What holds after all decisions on one record."""

    outcomes: dict[str, Outcome]  # by id, of expressions that were changed or judged
    comment: str | None


class Standing:
    """What holds after the decisions on one file."""

    def __init__(self) -> None:
        self.count = 0
        # By a record's key and an expression's id.
        self.outcomes: defaultdict[str, dict[str, Outcome]] = defaultdict(dict)
        self.pictures: dict[str, JudgedPicture] = {}  # by key, as at the last decision on each
        self._comments: dict[str, str] = {}

    def take(self, line: Mapping[str, Any]) -> None:
        """Add a decision; BrokenRow, KeyError, TypeError or AttributeError for what is none."""
        _check_expressions(line["changes"])
        key = str(line["record"])
        # All changes are read before the first one counts: a line counts as a whole, or not at all.
        new_outcomes = [_outcome_of(change, str(line.get("who"))) for change in line["changes"]]
        outcomes = self.outcomes[key]
        for id, outcome in new_outcomes:
            outcomes.pop(id, None)  # the latest decision goes to the end
            is_changed = version_of(outcome.after) != version_of(outcome.before)
            # After an undo, an expression as the pipeline wrote it counts as not judged.
            is_judged = was_judged(outcome.after) and not line.get("undoes")
            if is_changed or is_judged:
                outcomes[id] = outcome
        if "comment" in line:
            self._comments[key] = str(line["comment"] or "")
        self.pictures[key] = JudgedPicture.of_line(line)
        self.count += 1

    def review_of(self, key: str) -> RecordReview:
        return RecordReview(dict(self.outcomes.get(key, {})), self._comments.get(key) or None)


def _outcome_of(change: Mapping[str, Any], who: str) -> tuple[str, Outcome]:
    as_written = change.get("original", change["before"])
    return str(change["id"]), Outcome.between(change["after"], as_written, who)


class _BoxVerdict(NamedTuple):
    judgement: dict[str, Any]  # the columns of a box that say who judged it, and how
    who: str  # who decided last on the phrase that the box is of
    number: int  # a later decision has a higher number


class OutcomeHere(NamedTuple):
    """What was decided in another file, put on an expression; it is of `box_count` boxes."""

    outcome: Outcome
    box_count: int


class DecidedInOtherFiles:
    """Phrases and boxes that were decided on in other files, found by their content."""

    def __init__(self) -> None:
        # The outcomes of phrases, by content (picture, text and all boxes: `_phrase_key`), and then
        # by the phrase's place: "a.jpg a.jpg#0" are the key of its record and its id.
        self._phrases = defaultdict[str, dict[str, Outcome]](dict)
        self._boxes: dict[str, _BoxVerdict] = {}  # by picture, text and box (`_box_key`)
        self._verdict_numbers = count()
        self._picture_sizes: set[int | None] = set()  # in bytes

    def add(self, standing: Standing) -> None:
        """Add what was decided on a file; of equal content the last decision counts."""
        for key, outcomes in standing.outcomes.items():
            picture = standing.pictures[key]
            self._picture_sizes.add(picture.size)
            for id, outcome in outcomes.items():
                if outcome.before is not None:  # else a reviewer added it, and no file has it
                    self._add(picture.name(key), f"{key} {id}", outcome.before, outcome)

    def _add(self, picture_name: str, place: str, before: Expression, outcome: Outcome) -> None:
        alike = self._phrases[_phrase_key(picture_name, before)]
        alike.pop(place, None)  # the latest decision goes to the end
        alike[place] = outcome
        for index, box in enumerate(before["instances"]):
            after = outcome.box_after(index)
            # what was decided earlier holds no more
            self._boxes.pop(_box_key(picture_name, before["text"], box), None)
            if after is not None and reviewer_verdict(after) is not None:
                # Under words that were put in their place, a box is judged as these.
                judged_words = (outcome.after or before)["text"]
                self._boxes[_box_key(picture_name, judged_words, box)] = _BoxVerdict(
                    judgement_of(after), outcome.who, next(self._verdict_numbers)
                )

    def outcomes_for(
        self, record: Record, key: str, expressions: Mapping[str, Expression]
    ) -> dict[str, OutcomeHere]:
        """Return outcomes of equal phrases by expression id, else the verdicts on equal boxes."""
        found: dict[str, OutcomeHere] = {}
        picture_names = names_of(record, key, self._picture_sizes)
        for id, expression in expressions.items():
            outcome = self._outcome_of_phrase(expression, f"{key} {id}", picture_names)
            if outcome is not None:
                found[id] = OutcomeHere(outcome.on(expression), len(expression["instances"]))
                continue
            of_boxes = self._outcome_of_boxes(expression, picture_names)
            if of_boxes is not None:
                found[id] = of_boxes
        return found

    def _outcome_of_phrase(
        self, expression: Expression, place: str, picture_names: list[str]
    ) -> Outcome | None:
        for picture in picture_names:  # the surest name comes first
            alike = self._phrases.get(_phrase_key(picture, expression))
            if alike:
                *_, last = alike.values()
                return alike.get(place, last)  # that of the same place, if there is one
        return None

    def _outcome_of_boxes(
        self, expression: Expression, picture_names: list[str]
    ) -> OutcomeHere | None:
        """Return the phrase with the verdicts on its boxes; None if no box has one."""
        instances = []
        verdicts = []
        for box in expression["instances"]:
            verdict = self._verdict_on(box, expression["text"], picture_names)
            if verdict is None:
                instances.append(box)
            else:
                instances.append({**box, **verdict.judgement})
                verdicts.append(verdict)
        if not verdicts:
            return None
        who = max(verdicts, key=attrgetter("number")).who  # who decided last
        after = {**expression, "instances": instances}
        are_all_judged = len(verdicts) == len(instances)
        if are_all_judged:
            after["verified"] = all(map(reviewer_verdict, instances))
            after["reviewed_by"] = who
        return OutcomeHere(Outcome.between(after, expression, who), len(verdicts))

    def _verdict_on(
        self, box: Mapping[str, Any], text: str, picture_names: list[str]
    ) -> _BoxVerdict | None:
        for name in picture_names:  # the surest name comes first
            verdict = self._boxes.get(_box_key(name, text, box))
            if verdict is not None:
                return verdict
        return None


def _phrase_key(picture: str, expression: Mapping[str, Any]) -> str:
    boxes = [box["bbox"] for box in expression["instances"]]
    content = short_digest(dump_line({"text": expression["text"], "boxes": boxes}))
    return f"{picture} {content}"


def _box_key(picture: str, text: str, box: Mapping[str, Any]) -> str:
    return _phrase_key(picture, {"text": text, "instances": [box]})


def _check_expressions(changes: list[Mapping[str, Any]]) -> None:
    """Raise BrokenRow or TypeError for a side of a change that is no expression."""
    expressions = []
    for change in changes:
        for side in (change["before"], change["after"], change.get("original")):
            if isinstance(side, dict):
                expressions.append(side)
            elif side is not None:  # None where the expression was added or deleted
                raise TypeError
    # It reads a column of any name, and raises for the first item that is no expression.
    read_expressions(Record({"sides": expressions}), "sides")
