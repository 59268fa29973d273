"""What a judge's answers decide: which boxes stay, which go, and which stay undecided.

Nothing is asked here. A judge's first answer about a box is how the box fits. The second follows
from what the judge says of its phrase's presence. A later step reads both from the expression's
`verification`, which may come from a file, and so may be wrong. Expressions aren't changed in
place: functions return copies.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from dataflow_grounding.data.records import DOUBT, STATUSES, is_box, is_settled, whole_number
from dataflow_grounding.tasks.checks import BoxVerdict, Presence

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


def check_of(expression: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `verification` that a judge's check has written; {} where there is none."""
    verification = expression.get("verification")
    if not isinstance(verification, dict) or verification.get("method") != METHOD:
        return {}
    return verification if isinstance(verification.get("boxes"), list) else {}


def presence_of(expression: Mapping[str, Any]) -> Presence:
    """Return what the judge said of the phrase's presence; None in both parts without a check."""
    check = check_of(expression)
    there = check.get("there")
    count = whole_number(check.get("count"))
    return Presence(there if isinstance(there, bool) else None, count)


def rejected_of(expression: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what all checks so far have rejected, without items that have no box."""
    boxes = []
    for item in _raw_rejected_of(expression):
        if isinstance(item, dict) and is_box(item.get("bbox")):
            boxes.append(item)
    return boxes


def _raw_rejected_of(expression: Mapping[str, Any]) -> list[Any]:
    # Items without a box, too: a file may hold anything.
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
    verification = {"method": METHOD, "reason": reason}
    return {**expression, "verified": None, "verification": verification}


def decided(
    expression: Expression, presence: Presence, verdicts: Sequence[BoxVerdict]
) -> Expression:
    """Return the expression as the judge's answers decide it. Each of its boxes has a `bbox_id`,
    and one of the verdicts, in order. Where a box's verdict and its phrase's presence

    - both affirm it, it stays,
    - both deny it, it goes into `rejected`,
    - differ, or one is missing, it stays and is doubtful.

    `status`, `verified` and `verification` say what came of it.
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
    lost_all_boxes = bool(instances) and not staying
    had_status = expression.get("status") in STATUSES
    if lost_all_boxes:
        result["status"] = "none"
    elif not had_status:
        result["status"] = _first_status(staying, presence)
    return _with_conclusion(result, presence, judged)


def _judged_boxes(
    instances: Sequence[Mapping[str, Any]], presence: Presence, verdicts: Sequence[BoxVerdict]
) -> list[dict[str, Any]]:
    # All boxes as `verification` has them, each with the judge's two answers and the decision.
    firsts = [_first_answer(verdict) for verdict in verdicts]
    second_by_first = _second_answers(firsts, presence)
    judged = []
    for instance, verdict, first in zip(instances, verdicts, firsts, strict=True):
        second = second_by_first[first]
        box = {
            "bbox_id": str(instance.get("bbox_id")),
            "verdict": verdict.fit,
            "reason": verdict.reason or None,
            "presence": second,
            "score": (_WORTH[first] + _WORTH[second]) / 2,
            "decision": _decision(first, second),
        }
        judged.append(box)
    return judged


def _first_status(instances: Sequence[Mapping[str, Any]], presence: Presence) -> str:
    # The status of an expression that has none yet, because no step has looked for its boxes. An
    # example: a run checks the user's own boxes (`data.proposals`), and a class has no box there.
    if instances:
        return "grounded"
    return "none" if presence.there is False else "ambiguous"


def _first_answer(verdict: BoxVerdict) -> bool | None:
    # Whether a box is on its phrase's thing, however well it fits: "loose" and "part" count, too.
    if verdict.fit is None:
        return None
    return verdict.fit not in ("other", "nothing")


def _second_answers(
    firsts: Sequence[bool | None], presence: Presence
) -> dict[bool | None, bool | None]:
    # Returns first answer → second: what the presence says of a box with that first answer. True
    # means that it is right. `firsts` are the first answers about all boxes. Examples:
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


def _decision(first: bool | None, second: bool | None) -> str:
    if first is None or first != second:
        return "undecided"
    return "kept" if first else "dropped"


def _with_conclusion(
    expression: Expression, presence: Presence, judged: Sequence[dict[str, Any]]
) -> Expression:
    # The expression with its `verification`, and `verified`: None where anything is doubtful or a
    # box doesn't fit tightly, else true. `judged` are all boxes, as `verification` has them.
    staying = [box for box in judged if box["decision"] != "dropped"]
    rejected = rejected_of(expression)
    doubts = _doubts(staying, rejected, presence)
    misfits = _misfits(staying)
    dropped = [f"dropped: {item.get('reason')}" for item in rejected]
    verification = {
        "method": METHOD,
        "there": presence.there,
        "count": presence.count,
        "boxes": list(judged),
        "score": _score(staying, presence),
        "reason": "; ".join([*dropped, *doubts, *misfits]) or None,
    }
    verified = None if doubts or misfits else True
    result = {**expression, "verified": verified, "verification": verification}
    result.pop("doubtful", None)
    result.pop(DOUBT, None)  # the reply's own doubt about its boxes is settled by this decision
    if doubts:
        result["doubtful"] = True
    return result


def _doubts(
    staying: Sequence[dict[str, Any]], rejected: Sequence[dict[str, Any]], presence: Presence
) -> list[str]:
    # Why somebody should look at an expression, in words. `staying` are judged boxes.
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


def _misfits(staying: Sequence[dict[str, Any]]) -> list[str]:
    # What is wrong with boxes that are on their thing, in words.
    misfits = []
    for box in staying:
        if box["decision"] == "kept" and box["verdict"] != "right":
            misfits.append(f"a box is {_IN_WORDS[box['verdict']]}")
    return misfits


def _score(staying: Sequence[dict[str, Any]], presence: Presence) -> float:
    # The mean of the boxes' scores.
    if staying:
        scores: list[float] = [box["score"] for box in staying]
        return round(sum(scores) / len(scores), 2)
    # Without boxes the expression claims that the thing is absent. This is that claim's score: 1
    # where the judge says that it isn't there, 0 where it is, 0.5 where the judge can't tell.
    is_absent = None if presence.there is None else not presence.there
    return _WORTH[is_absent]


def _both_in_words(box: Mapping[str, Any]) -> str:
    first = _IN_WORDS[box["verdict"]]
    if box["reason"]:
        first = f"{first} ({box['reason']})"
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
    check = check_of(expression)  # there is one: it said that boxes are missing
    instances = list(expression["instances"])
    boxes = list(check["boxes"])
    ids = _free_bbox_ids(expression)  # without end
    for instance, bbox_id in zip(new_instances, ids, strict=False):
        instances.append({"bbox_id": bbox_id, **instance, "found_by": FOUND_BY})
        boxes.append({"bbox_id": bbox_id, "verdict": None, "found_by": FOUND_BY})
    reason = "a box was found that no judge has seen"
    if check.get("reason"):
        reason = f"{check['reason']}; {reason}"
    return {
        **expression,
        "instances": instances,
        "status": "grounded",
        "verified": None,
        "verification": {**check, "boxes": boxes, "reason": reason},
        "doubtful": True,
    }


def _free_bbox_ids(expression: Expression) -> Iterator[str]:
    # "7#0.0", "7#0.1" and so on, without those of its boxes and of those rejected.
    known_instances = [*expression["instances"], *rejected_of(expression)]
    taken_ids = {str(instance.get("bbox_id")) for instance in known_instances}
    return free_ids(f"{expression['expression_id']}.", taken_ids)


def free_ids(beginning: str, taken_ids: Collection[str]) -> Iterator[str]:
    """Yield "7#n0", "7#n1" and so on for "7#n", without end, except those that are taken."""
    for number in itertools.count():
        free_id = f"{beginning}{number}"
        if free_id not in taken_ids:
            yield free_id
