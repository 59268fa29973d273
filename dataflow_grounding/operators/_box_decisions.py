"""What a judge's answers decide: which boxes stay, which go, and which stay undecided.

Nothing is asked here. A judge's first answer about a box is how the box fits. The second follows
from what the judge says of its phrase's presence. A later step reads both from the expression's
`verification`, which may come from a file, and so may be wrong. Expressions aren't changed in
place: functions return copies.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from dataflow_grounding.data.records import DOUBT, STATUSES, is_box, is_settled
from dataflow_grounding.data.verification import Verification, read_verification
from dataflow_grounding.tasks.checks import Fit, Presence

Expression: TypeAlias = dict[str, Any]
"""An expression as `read_expressions` returns it."""
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


def check_of(expression: Mapping[str, Any]) -> Verification | None:
    """Return the verification of a judge who was asked about its boxes, if there is one."""
    verification = read_verification(expression)
    if verification is None or verification.method != METHOD or verification.boxes is None:
        return None
    return verification


def presence_of(expression: Mapping[str, Any]) -> Presence:
    """Return what the judge said of the phrase's presence; None in both parts without a check."""
    check = check_of(expression)
    if check is None:
        return Presence(None, None)
    return Presence(check.there, check.count)


def rejected_of(expression: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what all checks so far have rejected, without items that have no box."""
    boxes = []
    for item in _raw_rejected_of(expression):
        if isinstance(item, dict) and is_box(item.get("bbox")):
            boxes.append(item)
    return boxes


def _raw_rejected_of(expression: Mapping[str, Any]) -> list[Any]:
    """Return what all checks have rejected, also items without a box: a file may hold anything."""
    items = expression.get("rejected")
    return list(items) if isinstance(items, list) else []


def identified(expression: Expression) -> Expression:
    """Return the expression with a different `bbox_id` for each of its boxes."""
    instances = expression["instances"]
    ids = {str(instance.get("bbox_id") or "") for instance in instances}
    are_told_apart = len(ids) == len(instances) and "" not in ids
    if are_told_apart:
        return expression
    numbered = []
    for number, instance in enumerate(instances):
        numbered.append({**instance, "bbox_id": f"{expression['expression_id']}.{number}"})
    return {**expression, "instances": numbered}


def not_checked(expression: Expression, reason: str) -> Expression:
    verification = Verification(METHOD, reason)
    return {**expression, "verified": None, "verification": verification.to_json()}


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
    instances = expression["instances"]
    judged = _judged_boxes(instances, presence, verdicts)
    staying = []  # instances
    rejected = _raw_rejected_of(expression)  # of earlier checks
    for instance, box in zip(instances, judged, strict=True):
        if box["decision"] == "dropped":
            rejected.append({**instance, "reason": _both_in_words(box)})
        else:
            staying.append(instance)
    result = {**expression, "instances": staying}
    if rejected:
        result["rejected"] = rejected
    if instances and not staying:  # it lost all boxes
        result["status"] = "none"
    elif expression.get("status") not in STATUSES:
        # No step has looked for its boxes: a run checks the user's own ones (`data.proposals`).
        if staying:
            result["status"] = "grounded"
        else:
            result["status"] = "none" if presence.there is False else "ambiguous"
    return _with_conclusion(result, presence, judged)


def _judged_boxes(
    instances: Sequence[Mapping[str, Any]], presence: Presence, verdicts: Sequence[Fit | None]
) -> list[dict[str, Any]]:
    """Return all boxes as `verification` has them, with the judge's answers and the decision."""
    # A first answer is whether a box is on its phrase's thing, however well it fits: "loose" and
    # "part" count, too.
    firsts: list[bool | None] = []
    for verdict in verdicts:
        firsts.append(None if verdict is None else verdict not in ("other", "nothing"))
    second_by_first = _second_answers(firsts, presence)
    judged = []
    for instance, verdict, first in zip(instances, verdicts, firsts, strict=True):
        second = second_by_first[first]
        decision = "undecided"
        if first is not None and first == second:
            decision = "kept" if first else "dropped"
        box = {
            "bbox_id": str(instance.get("bbox_id")),
            "verdict": verdict,
            "presence": second,
            "score": (_WORTH[first] + _WORTH[second]) / 2,
            "decision": decision,
        }
        judged.append(box)
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
    expression: Expression, presence: Presence, judged: Sequence[dict[str, Any]]
) -> Expression:
    """Return the expression with its `verification`, and `verified`: true without any doubt."""
    staying = [box for box in judged if box["decision"] != "dropped"]
    rejected = rejected_of(expression)
    doubts = _doubts(staying, rejected, presence)
    misfits = []  # what is wrong with boxes that are on their thing, in words
    for box in staying:
        if box["decision"] == "kept" and box["verdict"] != "right":
            misfits.append(f"a box is {_IN_WORDS[box['verdict']]}")
    dropped = [f"dropped: {item.get('reason')}" for item in rejected]
    verification = Verification(
        METHOD,
        reason="; ".join([*dropped, *doubts, *misfits]) or None,
        there=presence.there,
        count=presence.count,
        boxes=list(judged),
        score=_score(staying, presence),
    )
    verified = None if doubts or misfits else True
    result = {**expression, "verified": verified, "verification": verification.to_json()}
    result.pop("doubtful", None)
    result.pop(DOUBT, None)  # the reply's own doubt about its boxes is settled by this decision
    if doubts:
        result["doubtful"] = True
    return result


def _doubts(
    staying: Sequence[dict[str, Any]], rejected: Sequence[dict[str, Any]], presence: Presence
) -> list[str]:
    """Return why somebody should look at an expression, in words; `staying` are judged boxes."""
    doubts = []
    for box in staying:
        if box["decision"] == "undecided":
            doubts.append(f"the answers differ: {_both_in_words(box)}")
    if staying:
        return doubts
    # Rejected boxes show that a judge has denied the thing. That counts where it can't tell now.
    is_absence_unsure = presence.there is None and not rejected
    if presence.there or is_absence_unsure:
        doubts.append("no box, though it may be there")
    return doubts


def _score(staying: Sequence[dict[str, Any]], presence: Presence) -> float:
    """Return the mean of the boxes' scores; without boxes, how sure the thing's absence is."""
    if staying:
        scores: list[float] = [box["score"] for box in staying]
        return round(sum(scores) / len(scores), 2)
    # Without boxes the expression claims that the thing is absent: 1 where the judge says so, 0
    # where it is there, 0.5 where the judge can't tell.
    is_absent = None if presence.there is None else not presence.there
    return _WORTH[is_absent]


def _both_in_words(box: Mapping[str, Any]) -> str:
    first = _IN_WORDS[box["verdict"]]
    return f"{first}; presence: {_ANSWER_IN_WORDS[box['presence']]}"


def missing_count(expression: Mapping[str, Any]) -> int:
    """Return how many boxes are missing:

    - 0 where the judge doesn't say that the thing is there, or a person has settled the expression,
    - 1 where the thing is there, the judge gives no count, and there is no box,
    - else the things that the judge counted, less the boxes.
    """
    presence = presence_of(expression)
    if not presence.there or is_settled(expression):
        return 0
    box_count = len(expression["instances"])
    if presence.count is None:
        return 1 if box_count == 0 else 0
    return max(0, presence.count - box_count)


def with_found(expression: Expression, new_instances: Sequence[dict[str, Any]]) -> Expression:
    """Return the expression with boxes that were missing. No judge saw these: it is doubtful."""
    if not new_instances:
        return expression
    check = check_of(expression)
    assert check is not None, "it said that boxes are missing"
    instances = list(expression["instances"])
    boxes = list(check.boxes or [])
    known_instances = [*instances, *rejected_of(expression)]
    taken_ids = {str(instance.get("bbox_id")) for instance in known_instances}
    ids = free_ids(f"{expression['expression_id']}.", taken_ids)  # "7#0.0", "7#0.1", without end
    for instance, bbox_id in zip(new_instances, ids, strict=False):
        instances.append({"bbox_id": bbox_id, **instance, "found_by": FOUND_BY})
        boxes.append({"bbox_id": bbox_id, "verdict": None, "found_by": FOUND_BY})
    reason = "a box was found that no judge has seen"
    if check.reason:
        reason = f"{check.reason}; {reason}"
    return {
        **expression,
        "instances": instances,
        "status": "grounded",
        "verified": None,
        "verification": replace(check, boxes=boxes, reason=reason).to_json(),
        "doubtful": True,
    }


def free_ids(beginning: str, taken_ids: Collection[str]) -> Iterator[str]:
    """Yield "7#n0", "7#n1" and so on for "7#n", without end, except those that are taken."""
    for number in itertools.count():
        free_id = f"{beginning}{number}"
        if free_id not in taken_ids:
            yield free_id
