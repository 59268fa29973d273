"""What a judge's answers decide: which boxes stay, which go, and which stay undecided.

Nothing is asked here. A judge's first answer about a box is how the box fits. The second follows
from what the judge says of its phrase's presence. A later step reads both from the expression's
`verification`. Expressions aren't changed in
place: functions return copies.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from dataflow_grounding.data.expressions import Expression, Instance
from dataflow_grounding.data.records import DOUBT, STATUSES
from dataflow_grounding.data.verification import Verification
from dataflow_grounding.tasks.checks import Fit, Presence

METHOD = "check"
"""The `method` of a `verification` that a judge's check has written."""
FOUND_BY = "missing_search"
"""The `found_by` of boxes that were asked for because they were missing."""

# how a box fits, as a verdict says it → in words, for people
_IN_WORDS = {
    "right": "right",
    "loose": "too large",
    "part": "on a part",
    "other": "on another thing",
    "nothing": "on nothing",
    None: "not judged",
}
_ANSWER_IN_WORDS = {True: "yes", False: "no", None: "can't tell"}
_WORTH = {True: 1.0, False: 0.0, None: 0.5}  # an answer → its part in a score


def check_of(expression: Expression) -> Verification | None:
    """Return the verification of a judge who was asked about its boxes, if there is one."""
    verification = expression.verification
    if verification is None or verification.method != METHOD or verification.boxes is None:
        return None
    return verification


def identified(expression: Expression) -> Expression:
    """Return the expression with a different `bbox_id` for each of its boxes."""
    instances = expression.instances
    ids = {instance.bbox_id or "" for instance in instances}
    are_told_apart = len(ids) == len(instances) and "" not in ids
    if are_told_apart:
        return expression
    numbered = []
    for number, instance in enumerate(instances):
        numbered.append(replace(instance, bbox_id=f"{expression.expression_id}.{number}"))
    return replace(expression, instances=numbered)


def not_checked(expression: Expression, reason: str) -> Expression:
    return replace(expression, verified=None, verification=Verification(METHOD, reason))


def decided(
    expression: Expression, presence: Presence, verdicts: Sequence[Fit | None]
) -> Expression:
    """Return the expression as the judge's answers decide it, a verdict for each box in order.

    Where a box's verdict and its phrase's presence

    - both affirm it, it stays,
    - both deny it, it goes into `rejected`,
    - differ, or one is missing, it stays and is doubtful.

    Each box has a `bbox_id`. `status`, `verified` and `verification` say what came of it.
    """
    instances = expression.instances
    judged = _judged_boxes(instances, presence, verdicts)
    staying: list[Instance] = []
    rejected = list(expression.rejected or ())  # by earlier checks
    for instance, box in zip(instances, judged, strict=True):
        if box.decision == "dropped":
            rejected.append(replace(instance, reason=_both_in_words(box)))
        else:
            staying.append(instance)
    status = expression.status
    if instances and not staying:  # it lost all boxes
        status = "none"
    elif status not in STATUSES:
        # No step has looked for its boxes: a run checks the user's own ones (`data.proposals`).
        status = "none" if presence.there is False else "ambiguous"
        if staying:
            status = "grounded"
    result = replace(
        expression, instances=staying, status=status, rejected=rejected or expression.rejected
    )
    return _with_conclusion(result, presence, judged)


@dataclass(frozen=True)
class JudgedBox:
    """A box as `verification` has it: the judge's answers, and the decision."""

    bbox_id: str
    verdict: Fit | None
    presence: bool | None  # whether the phrase's presence says that the box is right
    score: float
    decision: Literal["kept", "dropped", "undecided"]


def _judged_boxes(
    instances: Sequence[Instance], presence: Presence, verdicts: Sequence[Fit | None]
) -> list[JudgedBox]:
    # A first answer is whether a box is on its phrase's thing, however well it fits: "loose" and
    # "part" count, too.
    firsts: list[bool | None] = []
    for verdict in verdicts:
        firsts.append(None if verdict is None else verdict not in ("other", "nothing"))
    second_by_first = _second_answers(firsts, presence)
    judged: list[JudgedBox] = []
    for instance, verdict, first in zip(instances, verdicts, firsts, strict=True):
        second = second_by_first[first]
        decision: Literal["kept", "dropped", "undecided"] = "undecided"
        if first is not None and first == second:
            decision = "kept" if first else "dropped"
        score = (_WORTH[first] + _WORTH[second]) / 2
        judged.append(JudgedBox(str(instance.bbox_id), verdict, second, score, decision))
    return judged


def _second_answers(
    firsts: Sequence[bool | None], presence: Presence
) -> dict[bool | None, bool | None]:
    """Return, by a box's first answer, what the presence says of the box; True is for right."""
    # `firsts` are the first answers about all boxes. Examples:
    #   firsts              presence    {True: …, False: …}
    #   any                 can't tell  None, None
    #   any                 no count    whether the thing is there, in both
    #   True, True, False   2 things    True, False    both answers agree
    #   True, True, True    2 things    False, False   which of the three is wrong isn't known
    #   True, False, False  2 things    True, True     one of the denied may be right after all
    if presence.there is None:
        return {True: None, False: None, None: None}
    if presence.count is None:
        return {True: presence.there, False: presence.there, None: None}
    affirmed_count = firsts.count(True)
    not_denied_count = len(firsts) - firsts.count(False)
    says_of_affirmed = presence.there and affirmed_count <= presence.count
    says_of_denied = not_denied_count < presence.count
    return {True: says_of_affirmed, False: says_of_denied, None: None}


def _with_conclusion(
    expression: Expression, presence: Presence, judged: Sequence[JudgedBox]
) -> Expression:
    """Return the expression with its `verification`, and `verified`: true without any doubt."""
    staying = [box for box in judged if box.decision != "dropped"]
    rejected = expression.rejected or []
    doubts = _doubts(staying, rejected, presence)
    misfits = []  # what is wrong with boxes that are on their thing, in words
    for box in staying:
        if box.decision == "kept" and box.verdict != "right":
            misfits.append(f"a box is {_IN_WORDS[box.verdict]}")
    dropped = [f"dropped: {item.reason}" for item in rejected]
    verification = Verification(
        METHOD,
        reason="; ".join([*dropped, *doubts, *misfits]) or None,
        there=presence.there,
        count=presence.count,
        boxes=[asdict(box) for box in judged],
        score=_score(staying, presence),
    )
    verified = None if doubts or misfits else True
    # the reply's own doubt about its boxes is settled by this decision
    return replace(
        expression.without("doubtful", DOUBT),
        verified=verified,
        verification=verification,
        doubtful=True if doubts else None,
    )


def _doubts(
    staying: Sequence[JudgedBox], rejected: Sequence[Instance], presence: Presence
) -> list[str]:
    """Return why somebody should look at an expression, in words; `staying` are judged boxes."""
    doubts = []
    for box in staying:
        if box.decision == "undecided":
            doubts.append(f"the answers differ: {_both_in_words(box)}")
    if staying:
        return doubts
    # Rejected boxes show that a judge has denied the thing. That counts where it can't tell now.
    is_absence_unsure = presence.there is None and not rejected
    if presence.there or is_absence_unsure:
        doubts.append("no box, though it may be there")
    return doubts


def _score(staying: Sequence[JudgedBox], presence: Presence) -> float:
    """Return the mean of the boxes' scores; without boxes, how sure the thing's absence is."""
    if staying:
        scores = [box.score for box in staying]
        return round(sum(scores) / len(scores), 2)
    # Without boxes the expression claims that the thing is absent: 1 where the judge says so, 0
    # where it is there, 0.5 where the judge can't tell.
    is_absent = None if presence.there is None else not presence.there
    return _WORTH[is_absent]


def _both_in_words(box: JudgedBox) -> str:
    return f"{_IN_WORDS[box.verdict]}; presence: {_ANSWER_IN_WORDS[box.presence]}"


def missing_count(expression: Expression) -> int:
    """Return how many boxes are missing:

    - 0 where the judge doesn't say that the thing is there, or a person has settled the expression,
    - 1 where the thing is there, the judge gives no count, and there is no box,
    - else the things that the judge counted, less the boxes.
    """
    check = check_of(expression)
    if check is None or not check.there or expression.is_settled:
        return 0
    box_count = len(expression.instances)
    if check.count is None:
        return 1 if box_count == 0 else 0
    return max(0, check.count - box_count)


def with_found(expression: Expression, new_instances: Sequence[Instance]) -> Expression:
    """Return the expression with boxes that were missing. No judge saw these: it is doubtful."""
    if not new_instances:
        return expression
    check = check_of(expression)
    assert check is not None, "it said that boxes are missing"
    instances = list(expression.instances)
    boxes = list(check.boxes or [])
    known_instances = [*instances, *(expression.rejected or ())]
    taken_ids = {str(instance.bbox_id) for instance in known_instances}
    ids = free_ids(f"{expression.expression_id}.", taken_ids)  # "7#0.0", "7#0.1", without end
    for instance, bbox_id in zip(new_instances, ids, strict=False):
        instances.append(replace(instance, bbox_id=bbox_id, found_by=FOUND_BY))
        boxes.append({"bbox_id": bbox_id, "verdict": None, "found_by": FOUND_BY})
    reason = "a box was found that no judge has seen"
    if check.reason:
        reason = f"{check.reason}; {reason}"
    return replace(
        expression,
        instances=instances,
        status="grounded",
        verified=None,
        verification=replace(check, boxes=boxes, reason=reason),
        doubtful=True,
    )


def free_ids(beginning: str, taken_ids: Collection[str]) -> Iterator[str]:
    """Yield "7#n0", "7#n1" and so on for "7#n", without end, except those that are taken."""
    for number in itertools.count():
        free_id = f"{beginning}{number}"
        if free_id not in taken_ids:
            yield free_id
