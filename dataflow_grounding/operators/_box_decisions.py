"""What a judge's answers decide: which boxes stay, which go, and which stay undecided.

Nothing is asked here. A judge's first answer about a box is how the box fits. The second is about
its crop, or follows from what the judge says of its phrase's presence. Steps pass both on in the
expression's `verification`, which is read like anything else from a file. Expressions aren't
changed in place: functions return copies.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

from dataflow_grounding.boxes.geometry import box_of, iou
from dataflow_grounding.boxes.matching import SAME
from dataflow_grounding.data.records import (
    DOUBT,
    STATUSES,
    is_box,
    is_number,
    is_settled,
    whole_number,
)
from dataflow_grounding.tasks.checks import FITS, BoxVerdict, Presence

Expression: TypeAlias = dict[str, Any]
"""An expression as `read_expressions` returns it."""
METHOD = "check"
"""The `method` of a `verification` that a judge's check has written."""
FOUND_BY = "missing_search"
"""The `found_by` of boxes that were asked for because they were missing."""

# how a box fits, as a verdict says it → in words, for people
IN_WORDS = {
    "right": "right",
    "loose": "too large",
    "part": "on a part",
    "other": "on another thing",
    "nothing": "on nothing",
    None: "not judged",
}
# a second answer → in words
_SECOND_IN_WORDS = {True: "yes", False: "no", None: "can't tell"}
SECONDS = ("crop", "presence")
"""What the second answers may be called: from a box's crop, or from its phrase's presence.

`verification` has the name as `second`; each box's item has its answer under the name.
"""

DECISIONS = ("kept", "dropped", "undecided")
"""What may be decided of a box, as its item in `verification` says."""


def is_open(expression: Mapping[str, Any]) -> bool:
    """Whether no person has settled an expression, so that the judge is asked about it."""
    return not is_settled(expression)


def check_of(expression: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `verification` that a judge's check has written, with a list of `boxes`.

    It is empty if no check was made, if its judge wasn't obeyed, or if another step wrote it.
    """
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


def verdicts_of(expression: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a check says of each box, by the box's id; nothing where none was made.

    A verdict is such a box's item in `verification`: the `verdict` (how it fits), the second
    answer, the `decision`. The expression may come from any file: keys and values that no check
    writes are left out.
    """
    check = check_of(expression)
    verdicts = {}
    for item in check.get("boxes", []):
        if isinstance(item, dict):
            bbox_id = str(item.get("bbox_id"))
            verdicts[bbox_id] = _verdict_in(item, bbox_id, check.get("second"))
    return verdicts


def _verdict_in(item: Mapping[str, Any], bbox_id: str, second: object) -> dict[str, Any]:
    fit = item.get("verdict")
    verdict: dict[str, Any] = {"bbox_id": bbox_id, "verdict": fit if fit in FITS else None}
    if isinstance(item.get("reason"), str):
        verdict["reason"] = item["reason"]
    if item.get("found_by") == FOUND_BY:
        verdict["found_by"] = item["found_by"]
    if second in SECONDS and isinstance(item.get(second), bool):
        verdict[str(second)] = item[second]
    if isinstance(item.get("found_again"), bool):
        verdict["found_again"] = item["found_again"]
    if is_number(item.get("score")):
        verdict["score"] = item["score"]
    if item.get("decision") in DECISIONS:
        verdict["decision"] = item["decision"]
    if item.get("mended") is True:
        verdict["mended"] = True
    return verdict


def rejected_of(expression: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what all checks so far have rejected, without items that have no box."""
    boxes = []
    for item in _list_of_rejected(expression):
        if isinstance(item, dict) and is_box(item.get("bbox")):
            boxes.append(item)
    return boxes


def _list_of_rejected(expression: Mapping[str, Any]) -> list[Any]:
    items = expression.get("rejected")
    return list(items) if isinstance(items, list) else []


def identified(expression: Expression) -> Expression:
    """Return the expression with a different `bbox_id` for each of its boxes.

    If a box has none, or two have the same, all are numbered again.
    """
    instances = expression["instances"]
    ids = {str(instance.get("bbox_id") or "") for instance in instances}
    if len(ids) == len(instances) and "" not in ids:
        return expression
    numbered = []
    for number, instance in enumerate(instances):
        numbered.append({**instance, "bbox_id": f"{expression['expression_id']}.{number}"})
    return {**expression, "instances": numbered}


def with_verdicts(
    expression: Expression, presence: Presence, verdicts: Sequence[BoxVerdict]
) -> Expression:
    """Return the expression with the judge's first answers in `verification`, nothing decided yet.

    Args:
        expression: The expression, its boxes `identified`.
        presence: What the judge says of its phrase.
        verdicts: What it says of each of its boxes, in their order.
    """
    boxes = []
    for instance, verdict in zip(expression["instances"], verdicts, strict=True):
        boxes.append(
            {
                "bbox_id": str(instance.get("bbox_id")),
                "verdict": verdict.fit,
                "reason": verdict.reason or None,
            }
        )
    verification = {
        "method": METHOD,
        "there": presence.there,
        "count": presence.count,
        "boxes": boxes,
        "reason": None,
    }
    return {**expression, "verified": None, "verification": verification}


def not_checked(expression: Expression, reason: str) -> Expression:
    """Return the expression, boxes as they were, with `verified` None and why it isn't checked."""
    verification = {"method": METHOD, "reason": reason}
    return {**expression, "verified": None, "verification": verification}


def is_yes(verdict: Mapping[str, Any], presence: Presence) -> bool | None:
    """Return whether the judge's first answer says that a box is on its phrase's thing.

    One that is too large, or on a part, is. None where the judge can't tell. A box that was found
    only after the first answers has none: for it, that is whether the thing is there.

    Args:
        verdict: What the check says of the box.
        presence: What the judge says of its phrase.
    """
    if verdict.get("found_by"):
        return presence.there
    fit = verdict.get("verdict")
    if fit not in FITS:
        return None
    return fit not in ("other", "nothing")


def seconds_of_presence(expression: Mapping[str, Any]) -> dict[str, bool | None]:
    """Return what the phrase's presence says of each box, by `bbox_id`, as a second answer.

    Where the thing isn't there, no box is affirmed. Where it is, without a count, each is. A count
    affirms the boxes that the first answers affirm unless these are more than the things, and those
    that the first answers deny if fewer boxes than things are left without them.

    An answer is None where the judge can't tell whether the thing is there, where the first answer
    is lacking, and for a box that was found because the thing was said to be there: of that,
    presence says nothing new.
    """
    presence = presence_of(expression)
    verdicts = verdicts_of(expression)
    firsts = {bbox_id: is_yes(verdict, presence) for bbox_id, verdict in verdicts.items()}
    affirmed_count = list(firsts.values()).count(True)
    not_denied_count = len(firsts) - list(firsts.values()).count(False)
    second_if_affirmed = bool(presence.there)
    second_if_denied = bool(presence.there)
    if presence.count is not None:
        second_if_affirmed = second_if_affirmed and affirmed_count <= presence.count
        second_if_denied = not_denied_count < presence.count
    seconds: dict[str, bool | None] = {}
    for bbox_id, first in firsts.items():
        is_addition = bool(verdicts[bbox_id].get("found_by"))
        if presence.there is None or first is None or is_addition:
            seconds[bbox_id] = None
        else:
            seconds[bbox_id] = second_if_affirmed if first else second_if_denied
    return seconds


def seconds_of_crops(
    expression: Mapping[str, Any], answers: Mapping[str, bool | None]
) -> dict[str, bool | None]:
    """Return the second answer about each of an expression's boxes, by `bbox_id`.

    It is what the judge says of the box's crop; where it can't tell by that, what the phrase's
    presence says; None where the request about the crop failed.

    Args:
        expression: The expression with the first answers.
        answers: The answers about crops, by `bbox_id`; None where the judge can't tell. A box whose
            request failed isn't among them.
    """
    by_presence = seconds_of_presence(expression)
    seconds: dict[str, bool | None] = {}
    for bbox_id in verdicts_of(expression):
        answer = answers.get(bbox_id)
        cannot_tell = answer is None and bbox_id in answers
        seconds[bbox_id] = by_presence[bbox_id] if cannot_tell else answer
    return seconds


def dropped_by(expression: Expression, seconds: Mapping[str, bool | None]) -> list[str]:
    """Return the ids of the boxes that the first answers and these second ones drop together."""
    presence = presence_of(expression)
    dropped = []
    for bbox_id, verdict in verdicts_of(expression).items():
        first = is_yes(verdict, presence)
        is_addition = bool(verdict.get("found_by"))
        decision = _decision_of(first, seconds.get(bbox_id), is_addition=is_addition)
        if decision == "dropped":
            dropped.append(bbox_id)
    return dropped


def decided(
    expression: Expression,
    seconds: Mapping[str, bool | None],
    name: str,
    affirmed: Collection[str] = (),
) -> Expression:
    """Return the expression after a second answer about each of its boxes.

    A box that both answers affirm stays, and one that both deny goes into `rejected`. Where they
    differ, or one is missing, it stays and is doubtful; but one that was found only because it was
    missing goes where the second answer denies it, as the first grounding didn't find it either.
    A third answer that affirms a box turns two that deny it into a doubt, and decides for it where
    they differ.

    Args:
        expression: The expression with the first answers.
        seconds: Whether the second answer affirms a box, by `bbox_id`; None where it can't tell.
        name: What the second answers are called in `verification`, one of SECONDS.
        affirmed: The ids of boxes that the third answer affirms.
    """
    verdicts = verdicts_of(expression)
    presence = presence_of(expression)
    boxes = []
    why_dropped: dict[str, str] = {}
    for instance in expression["instances"]:
        bbox_id = str(instance.get("bbox_id"))
        verdict = verdicts.get(bbox_id, {"bbox_id": bbox_id, "verdict": None})
        first = is_yes(verdict, presence)
        second = seconds.get(bbox_id)
        is_addition = bool(verdict.get("found_by"))
        decision = _decision_of(first, second, is_addition=is_addition)
        if bbox_id in affirmed and decision == "dropped":
            decision = "undecided"
        elif bbox_id in affirmed and (first or second) and not is_addition:
            # presence is the first answer of an addition, and can't be its third
            decision = "kept"
        score = _score_of([first, second])
        verdict = {**verdict, name: second, "score": score, "decision": decision}
        boxes.append(verdict)
        if decision == "dropped":
            why_dropped[bbox_id] = _in_words(verdict, name)
    verification = {**check_of(expression), "second": name, "boxes": boxes}
    return _with_decisions(expression, why_dropped, verification)


def _decision_of(first: bool | None, second: bool | None, *, is_addition: bool) -> str:
    if is_addition and second is False:
        return "dropped"
    if first is None or first is not second:
        return "undecided"
    return "kept" if first else "dropped"


def in_doubt(expression: Mapping[str, Any]) -> list[str]:
    """Return the ids of the undecided boxes that have both answers and weren't looked for again."""
    name = str(check_of(expression).get("second"))
    presence = presence_of(expression)
    doubts = []
    for bbox_id, verdict in verdicts_of(expression).items():
        has_both = is_yes(verdict, presence) is not None and verdict.get(name) is not None
        is_undecided = verdict.get("decision") == "undecided"
        if has_both and is_undecided and "found_again" not in verdict:
            doubts.append(bbox_id)
    return doubts


def with_second_grounding(
    expression: Expression, instances_again: Sequence[Mapping[str, Any]]
) -> Expression:
    """Return the expression after its phrase was grounded a second time.

    A box in doubt that isn't found again goes into `rejected`. One that is stays in doubt, as that
    is no evidence: a model finds what isn't there twice, too. Other boxes stay as they are.

    Args:
        expression: The expression as a check left it.
        instances_again: The second grounding's instances, each with a `bbox`.
    """
    boxes_again = [box_of(instance["bbox"]) for instance in instances_again]
    name = str(check_of(expression).get("second"))
    verdicts = verdicts_of(expression)
    doubts = in_doubt(expression)
    why_dropped: dict[str, str] = {}
    for instance in expression["instances"]:
        bbox_id = str(instance.get("bbox_id"))
        if bbox_id not in doubts:
            continue
        verdict = verdicts[bbox_id]
        bbox = box_of(instance["bbox"])
        verdict["found_again"] = any(iou(bbox, other) >= SAME for other in boxes_again)
        if not verdict["found_again"]:
            verdict["decision"] = "dropped"
            why_dropped[bbox_id] = f"{_in_words(verdict, name)}; found again: no"
    verification = {**check_of(expression), "boxes": list(verdicts.values())}
    return _with_decisions(expression, why_dropped, verification)


def _with_decisions(
    expression: Expression, why_dropped: Mapping[str, str], verification: dict[str, Any]
) -> Expression:
    # Return the expression without the boxes that go, each of which has a reason by its id.
    kept = []
    rejected = _list_of_rejected(expression)
    for instance in expression["instances"]:
        reason = why_dropped.get(str(instance.get("bbox_id")))
        if reason is None:
            kept.append(instance)
        else:
            rejected.append({**instance, "reason": reason})
    result = {**expression, "instances": kept}
    if rejected:
        result["rejected"] = rejected
    if expression["instances"] and not kept:
        result["status"] = "none"
    elif expression.get("status") not in STATUSES:
        # Nothing has looked for it but this check, as of a class without a proposal.
        is_absent = presence_of(expression).there is False
        without_boxes = "none" if is_absent else "ambiguous"
        result["status"] = "grounded" if kept else without_boxes
    result["verification"] = verification
    return with_conclusion(result)


def decided_by_verdicts(expression: Expression) -> Expression:
    """Return the expression after the judge's first answers alone, without second ones.

    A box on another thing, or on nothing, goes into `rejected`; one that couldn't be judged stays
    and makes the expression doubtful. So does a count of more things than boxes are left.
    """
    presence = presence_of(expression)
    verdicts = verdicts_of(expression)
    boxes = []
    why_dropped: dict[str, str] = {}
    for instance in expression["instances"]:
        bbox_id = str(instance.get("bbox_id"))
        verdict = verdicts.get(bbox_id, {"bbox_id": bbox_id, "verdict": None})
        answer = is_yes(verdict, presence)
        decision = {True: "kept", False: "dropped", None: "undecided"}[answer]
        verdict = {**verdict, "score": _score_of([answer]), "decision": decision}
        boxes.append(verdict)
        if answer is False:
            why_dropped[bbox_id] = _first_in_words(verdict)
    verification = {**check_of(expression), "boxes": boxes}
    return _with_decisions(expression, why_dropped, verification)


def with_conclusion(expression: Expression) -> Expression:
    """Return the expression with `verified`, `doubtful` and `verification` as its boxes decide.

    `verified` is True if nothing is in doubt and every box that is left fits or was mended; else
    None. `doubtful` is True if a box isn't decided, if boxes are missing and weren't asked for, or
    if no box is left though the thing may be there; else it is left out. `verification` gets a
    `score`: the mean share of answers that affirm a box. It also gets a `reason`, which says what
    was dropped, what is in doubt and what fits badly; None if nothing is.
    """
    check = check_of(expression)
    name = check.get("second")
    rejected = rejected_of(expression)
    verdict_of_box = verdicts_of(expression)
    verdicts = []
    for instance in expression["instances"]:
        verdicts.append(verdict_of_box.get(str(instance.get("bbox_id")), {}))
    scores = [verdict.get("score", 0.5) for verdict in verdicts]
    doubts = [_doubt_of(verdict, name) for verdict in verdicts if verdict.get("decision") != "kept"]
    if not verdicts:
        there = presence_of(expression).there
        is_absent = None if there is None else not there
        # with no box, the only answer is whether the thing is there; that it isn't affirms it
        scores.append(_score_of([is_absent]))
        if there or (there is None and not rejected):
            doubts.append("no box, though it may be there")
    elif name not in SECONDS and missing_count(expression):
        # After second answers, the missing boxes were asked for already: then it is no doubt.
        doubts.append("more are there than boxes")
    misfits = _misfits_of(verdicts)
    dropped = [f"dropped: {item.get('reason')}" for item in rejected]
    verification = {
        **check,
        "score": round(sum(scores) / len(scores), 2),
        "reason": "; ".join([*dropped, *doubts, *misfits]) or None,
    }
    verified = None if doubts or misfits else True
    result = {**expression, "verified": verified, "verification": verification}
    result.pop("doubtful", None)
    result.pop(DOUBT, None)  # of the reply that had the boxes: they are decided on now
    if doubts:
        result["doubtful"] = True
    return result


def _doubt_of(verdict: Mapping[str, Any], second: str | None) -> str:
    if second not in SECONDS:
        return f"a box is {_first_in_words(verdict)}"
    if verdict.get("verdict") in ("other", "nothing") and verdict.get("crop") is False:
        return f"denied, though it is said to be there: {_in_words(verdict, second)}"
    return f"the answers differ: {_in_words(verdict, second)}"


def _misfits_of(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    misfits = []
    for verdict in verdicts:
        is_loose_or_part = verdict.get("verdict") in ("loose", "part")
        if verdict.get("decision") == "kept" and is_loose_or_part and not verdict.get("mended"):
            misfits.append(f"a box is {IN_WORDS[verdict['verdict']]}")
    return misfits


def with_mended(expression: Expression, better: Mapping[str, dict[str, Any]]) -> Expression:
    """Return the expression with the better boxes of enlarged crops, and a new conclusion.

    Args:
        expression: The expression as a check left it.
        better: The id of a box → the instance in its place.
    """
    instances = []
    for instance in expression["instances"]:
        instances.append(better.get(str(instance.get("bbox_id")), instance))
    boxes = []
    for verdict in verdicts_of(expression).values():
        if verdict["bbox_id"] in better:
            verdict = {**verdict, "mended": True}
        boxes.append(verdict)
    verification = {**check_of(expression), "boxes": boxes}
    return with_conclusion({**expression, "instances": instances, "verification": verification})


def _score_of(answers: Sequence[bool | None]) -> float:
    worth = {True: 1.0, False: 0.0, None: 0.5}
    return sum(worth[answer] for answer in answers) / len(answers)


def _in_words(verdict: Mapping[str, Any], name: str) -> str:
    return f"{_first_in_words(verdict)}; {name}: {_SECOND_IN_WORDS[verdict.get(name)]}"


def _first_in_words(verdict: Mapping[str, Any]) -> str:
    # For a box that was found later it says so, as that has no first answer.
    fit = verdict.get("verdict")
    first = IN_WORDS[fit if fit in FITS else None]
    if verdict.get("found_by"):
        first = "found because it lacked"
    reason = verdict.get("reason")
    if reason:
        first = f"{first} ({reason})"
    return first


def missing_count(expression: Mapping[str, Any]) -> int:
    """Return how many boxes are missing: the things that the judge counted, less the boxes.

    Never below 0. Without a count it is 1 where the judge says that the thing is there and there is
    no box. It is 0 where the judge doesn't say so, or a person settled the expression.
    """
    presence = presence_of(expression)
    if not presence.there or not is_open(expression):
        return 0
    box_count = len(expression["instances"])
    if presence.count is None:
        return 0 if box_count else 1
    return max(0, presence.count - box_count)


def with_found(expression: Expression, new_instances: Sequence[dict[str, Any]]) -> Expression:
    """Return the expression with boxes that were missing, each with a new id.

    They have `found_by`, and aren't judged yet. `status` becomes "grounded". Without new boxes, the
    expression comes back as it is.

    Args:
        expression: The expression as a check left it.
        new_instances: The instances to add.
    """
    if not new_instances:
        return expression
    instances = list(expression["instances"])
    verification = dict(check_of(expression))
    boxes = list(verification["boxes"])
    taken_ids = {str(instance.get("bbox_id")) for instance in instances}
    taken_ids.update(verdicts_of(expression))
    number = 0
    for instance in new_instances:
        while f"{expression['expression_id']}.{number}" in taken_ids:
            number += 1
        bbox_id = f"{expression['expression_id']}.{number}"
        taken_ids.add(bbox_id)
        instances.append({"bbox_id": bbox_id, **instance, "found_by": FOUND_BY})
        boxes.append({"bbox_id": bbox_id, "verdict": None, "found_by": FOUND_BY})
    verification["boxes"] = boxes
    return {
        **expression,
        "instances": instances,
        "status": "grounded",
        "verification": verification,
    }
