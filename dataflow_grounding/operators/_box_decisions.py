"""What a judge's answers decide: which boxes stay, which go, and of which it couldn't be told.

Nothing is asked here. The verdicts stand in an expression's `verification`, from one step to the
next, and are read there as anything else that comes out of a file.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

from dataflow_grounding.boxes.geometry import Bbox, box_of, iou
from dataflow_grounding.boxes.matching import SAME
from dataflow_grounding.data.records import is_box, is_number, is_settled, whole_number
from dataflow_grounding.tasks.checks import FITS, BoxVerdict, Presence

Expression: TypeAlias = dict[str, Any]
METHOD = "check"
FOUND_BY = "missing_search"
"""The `found_by` of boxes that were asked for because they lacked."""
BY_OTHER_MODEL = "second_opinion"
"""The `found_by` of boxes that another model found."""

IN_WORDS = {
    "right": "right",
    "loose": "too large",
    "part": "on a part",
    "other": "on another thing",
    "nothing": "on nothing",
    None: "not judged",
}
_SECOND_IN_WORDS = {True: "yes", False: "no", None: "can't tell"}
SECONDS = ("crop", "presence")
"""What the second answers may be called: from a box's crop, or from its phrase's presence."""

DECISIONS = ("kept", "dropped", "undecided")


def is_open(expression: Mapping[str, Any]) -> bool:
    """Whether the judge is asked about an expression: not where a person settled it."""
    return not is_settled(expression)


def check_of(expression: Mapping[str, Any]) -> dict[str, Any]:
    """The check's own `verification`; empty where none was made, or it wasn't obeyed."""
    verification = expression.get("verification")
    if not isinstance(verification, dict) or verification.get("method") != METHOD:
        return {}
    return verification if isinstance(verification.get("boxes"), list) else {}


def presence_of(expression: Mapping[str, Any]) -> Presence:
    """What the judge said of the phrase; None in both where it didn't."""
    check = check_of(expression)
    there = check.get("there")
    count = whole_number(check.get("count"))
    return Presence(there if isinstance(there, bool) else None, count)


def verdicts_of(expression: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the judge's verdict on each box, by the box's id.

    The expression may come from any file: keys and values that no check writes are left out.
    """
    check = check_of(expression)
    verdicts = {}
    for item in check.get("boxes", []):
        if isinstance(item, dict):
            bbox_id = str(item.get("bbox_id"))
            verdicts[bbox_id] = _verdict_in(item, bbox_id, check.get("second"))
    return verdicts


def _verdict_in(item: Mapping[str, Any], bbox_id: str, second: object) -> dict[str, Any]:
    """Return the verdict in an item of a file, with only such keys and values as a check writes.

    `second` is the key of the second answer as the file states it; it may be anything.
    """
    fit = item.get("verdict")
    verdict: dict[str, Any] = {"bbox_id": bbox_id, "verdict": fit if fit in FITS else None}
    if isinstance(item.get("reason"), str):
        verdict["reason"] = item["reason"]
    if item.get("found_by") in (FOUND_BY, BY_OTHER_MODEL):
        verdict["found_by"] = item["found_by"]
    if isinstance(item.get("other_model"), bool):
        verdict["other_model"] = item["other_model"]
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
    """The boxes that checks dropped, also earlier ones; what is no box is left out."""
    boxes = []
    for item in _list_of_rejected(expression):
        if isinstance(item, dict) and is_box(item.get("bbox")):
            boxes.append(item)
    return boxes


def _list_of_rejected(expression: Mapping[str, Any]) -> list[Any]:
    """What stands in `rejected`, whatever it is."""
    items = expression.get("rejected")
    return list(items) if isinstance(items, list) else []


def identified(expression: Expression) -> Expression:
    """The expression with ids of its boxes by which each is known; its own, where they are such."""
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
    """The expression with the judge's first answers, one verdict for each of its boxes."""
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
    """The expression with its boxes as they were, `verified` null, and why it wasn't checked."""
    verification = {"method": METHOD, "reason": reason}
    return {**expression, "verified": None, "verification": verification}


def is_yes(verdict: Mapping[str, Any], presence: Presence) -> bool | None:
    """Whether the judge's first answer says that a box is on its phrase's thing.

    Of a box that was found because the judge missed it, that is the phrase's presence.
    """
    if verdict.get("found_by"):
        return presence.there
    fit = verdict.get("verdict")
    if fit not in FITS:
        return None
    return fit not in ("other", "nothing")


def seconds_of_presence(expression: Mapping[str, Any]) -> dict[str, bool | None]:
    """What the phrase's presence says of each of its boxes, by `bbox_id`, as a second answer.

    It denies a box where the thing isn't there, or where more boxes are affirmed than there are
    things. Where a box is denied that the things there need, it affirms it. Of a box that was found
    because the thing was said to be there, it says nothing that wasn't said already.
    """
    presence = presence_of(expression)
    verdicts = verdicts_of(expression)
    firsts = {bbox_id: is_yes(verdict, presence) for bbox_id, verdict in verdicts.items()}
    answers = list(firsts.values())
    affirms_right = bool(presence.there)
    affirms_wrong = bool(presence.there)
    if presence.count is not None:
        affirms_right = affirms_right and answers.count(True) <= presence.count
        affirms_wrong = len(answers) - answers.count(False) < presence.count
    seconds: dict[str, bool | None] = {}
    for bbox_id, first in firsts.items():
        seconds[bbox_id] = affirms_right if first else affirms_wrong
        if presence.there is None or first is None or verdicts[bbox_id].get("found_by"):
            seconds[bbox_id] = None
    return seconds


def seconds_of_crops(
    expression: Mapping[str, Any], answers: Mapping[str, bool | None]
) -> dict[str, bool | None]:
    """The second answers about each of an expression's boxes, by `bbox_id`.

    Where the judge can't tell by a box's crop, it is what the phrase's presence says. It is None
    where the request about the crop failed.

    Args:
        expression: With the first answers.
        answers: The answers about crops, by `bbox_id`; None where the crop can't tell. A box whose
            request failed is left out.
    """
    by_presence = seconds_of_presence(expression)
    seconds: dict[str, bool | None] = {}
    for bbox_id in verdicts_of(expression):
        answer = answers.get(bbox_id)
        cannot_tell = answer is None and bbox_id in answers
        seconds[bbox_id] = by_presence[bbox_id] if cannot_tell else answer
    return seconds


def dropped_by(expression: Expression, seconds: Mapping[str, bool | None]) -> list[str]:
    """The ids of the expression's boxes that go by its first answers and these second ones."""
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
    spared: Collection[str] = (),
) -> Expression:
    """The expression after a second answer to each of its boxes, by `bbox_id`.

    A box stays that both answers affirm, and goes into `rejected` where both deny it. Where they
    differ, or one is missing, it stays and is doubtful; but one that was found because it lacked
    goes where the second answer denies it, as the first grounding didn't find it either. The
    `spared` stay, and are doubtful.

    Args:
        expression: With the first answers.
        seconds: Whether the second answer affirms the box.
        name: What the second answers are called in `verification`.
        spared: The ids of boxes that stay whatever the answers.
    """
    verdicts = verdicts_of(expression)
    presence = presence_of(expression)
    kept = []
    rejected = _list_of_rejected(expression)
    boxes = []
    for instance in expression["instances"]:
        bbox_id = str(instance.get("bbox_id"))
        verdict = verdicts.get(bbox_id, {"bbox_id": bbox_id, "verdict": None})
        first = is_yes(verdict, presence)
        second = seconds.get(bbox_id)
        decision = _decision_of(first, second, is_addition=bool(verdict.get("found_by")))
        if bbox_id in spared:
            decision = "undecided"
        score = _score_of([first, second])
        verdict = {**verdict, name: second, "score": score, "decision": decision}
        boxes.append(verdict)
        if decision == "dropped":
            rejected.append({**instance, "reason": _in_words(verdict, name)})
        else:
            kept.append(instance)
    verification = {**check_of(expression), "second": name, "boxes": boxes}
    return _with_decisions(expression, kept, rejected, verification)


def _decision_of(first: bool | None, second: bool | None, *, is_addition: bool) -> str:
    """What two answers decide about a box: `kept`, `dropped` or `undecided`.

    Args:
        first: Whether the first answer affirms the box; None where it can't tell.
        second: Whether the second does.
        is_addition: Whether the box was found because it lacked.
    """
    if is_addition and second is False:
        return "dropped"
    if first is None or first is not second:
        return "undecided"
    return "kept" if first else "dropped"


def in_doubt(expression: Mapping[str, Any]) -> list[str]:
    """The ids of the boxes of which two answers differ, and that weren't looked for again yet."""
    name = str(check_of(expression).get("second"))
    presence = presence_of(expression)
    doubts = []
    for bbox_id, verdict in verdicts_of(expression).items():
        has_both = is_yes(verdict, presence) is not None and verdict.get(name) is not None
        is_undecided = verdict.get("decision") == "undecided"
        if has_both and is_undecided and "found_again" not in verdict:
            doubts.append(bbox_id)
    return doubts


def with_second_grounding(expression: Expression, found: Sequence[Mapping[str, Any]]) -> Expression:
    """The expression after its phrase was grounded a second time.

    A box in doubt goes into `rejected` that isn't found again. That it is found is no evidence: a
    model finds what isn't there twice, too.

    Args:
        expression: As a check left it.
        found: The second grounding's instances, each with a `bbox`.
    """
    found_boxes = [box_of(instance["bbox"]) for instance in found]
    name = str(check_of(expression).get("second"))
    verdicts = verdicts_of(expression)
    doubts = in_doubt(expression)
    kept = []
    rejected = _list_of_rejected(expression)
    for instance in expression["instances"]:
        bbox_id = str(instance.get("bbox_id"))
        if bbox_id in doubts:
            is_found = _is_among(box_of(instance["bbox"]), found_boxes)
            verdict = {**verdicts[bbox_id], "found_again": is_found}
            verdicts[bbox_id] = verdict
            if not is_found:
                verdict["decision"] = "dropped"
                reason = f"{_in_words(verdict, name)}; found again: no"
                rejected.append({**instance, "reason": reason})
                continue
        kept.append(instance)
    verification = {**check_of(expression), "boxes": list(verdicts.values())}
    return _with_decisions(expression, kept, rejected, verification)


def _with_decisions(
    expression: Expression,
    kept: Sequence[dict[str, Any]],
    rejected: Sequence[dict[str, Any]],
    verification: dict[str, Any],
) -> Expression:
    """Return the expression with what was decided on its boxes, and what follows for it.

    Args:
        expression: The expression with all of its instances.
        kept: The instances that stay.
        rejected: Those that go, each with the reason; they are kept in `rejected`.
        verification: The judge's answers and decisions.
    """
    result = {**expression, "instances": kept}
    if rejected:
        result["rejected"] = rejected
    if expression["instances"] and not kept:
        result["status"] = "none"
    result["verification"] = verification
    return with_conclusion(result)


def decided_by_verdicts(expression: Expression) -> Expression:
    """The expression after the judge's first answers alone, without second ones.

    A box goes into `rejected` that is on another thing or on nothing; one that couldn't be judged
    stays and is doubtful. So is an expression whose phrase has more things than boxes are left.
    """
    presence = presence_of(expression)
    verdicts = verdicts_of(expression)
    kept = []
    rejected = _list_of_rejected(expression)
    boxes = []
    for instance in expression["instances"]:
        bbox_id = str(instance.get("bbox_id"))
        verdict = verdicts.get(bbox_id, {"bbox_id": bbox_id, "verdict": None})
        answer = is_yes(verdict, presence)
        decision = {True: "kept", False: "dropped", None: "undecided"}[answer]
        verdict = {**verdict, "score": _score_of([answer]), "decision": decision}
        boxes.append(verdict)
        if answer is False:
            rejected.append({**instance, "reason": _first_in_words(verdict)})
        else:
            kept.append(instance)
    result = {**expression, "instances": kept}
    if rejected:
        result["rejected"] = rejected
    if expression["instances"] and not kept:
        result["status"] = "none"
    result["verification"] = {**check_of(expression), "boxes": boxes}
    return with_conclusion(result)


def _reopened(expression: Expression, others: Sequence[Bbox]) -> Expression:
    """The expression with its check's decisions undone, so that another model can decide.

    A box that the check has dropped comes back where the other model finds it too.
    """
    verdicts = verdicts_of(expression)
    instances = [*expression["instances"]]
    rejected = []
    for item in _list_of_rejected(expression):
        dropped = isinstance(item, dict) and str(item.get("bbox_id")) in verdicts
        if dropped and is_box(item.get("bbox")) and _is_among(box_of(item["bbox"]), others):
            instances.append({name: item[name] for name in item if name != "reason"})
        else:
            rejected.append(item)
    returned = {str(instance.get("bbox_id")) for instance in instances}
    boxes = []
    for bbox_id, verdict in verdicts.items():
        boxes.append({**verdict, "decision": "undecided"} if bbox_id in returned else verdict)
    result = {**expression, "instances": instances, "rejected": rejected}
    if not rejected:
        result.pop("rejected")
    if instances:
        result["status"] = "grounded"
    result["verification"] = {**check_of(expression), "boxes": boxes}
    return result


def _is_among(bbox: Bbox, others: Sequence[Bbox]) -> bool:
    """Whether one of some boxes is the same thing's."""
    return any(iou(bbox, other) >= SAME for other in others)


def with_second_opinion(
    expression: Expression, found: Sequence[dict[str, Any]], model: str
) -> Expression:
    """The expression after the boxes that another model finds for its phrase.

    A box in doubt stays that it finds too, and goes into `rejected` where it finds none. Where its
    boxes are others, a box stays in doubt, but goes if both of the check's answers deny it. A
    phrase that is left without a box gets those that it finds. Where the check had decided about
    the phrase, all of its boxes are in doubt.

    Args:
        expression: As a check left it.
        found: The other model's instances, each with a `bbox`.
        model: What the other model is called.
    """
    others = [box_of(instance["bbox"]) for instance in found]
    if expression["verified"] is not None:
        expression = _reopened(expression, others)
    verdicts = verdicts_of(expression)
    kept = []
    rejected = _list_of_rejected(expression)
    boxes = []
    for instance in expression["instances"]:
        bbox_id = str(instance.get("bbox_id"))
        verdict = verdicts.get(bbox_id, {"bbox_id": bbox_id, "verdict": None})
        if verdict.get("decision") not in ("kept", "dropped"):
            verdict = {**verdict, **_decided_by_other(verdict, box_of(instance["bbox"]), others)}
        boxes.append(verdict)
        if verdict["decision"] == "dropped":
            where = "elsewhere" if others else "none"
            reason = f"{_first_in_words(verdict)}; {model}: {where}"
            rejected.append({**instance, "reason": reason})
        else:
            kept.append(instance)
    verification = {
        **check_of(expression),
        "boxes": boxes,
        "other_model": {"model": model, "boxes": len(found)},
    }
    result = {**expression, "instances": kept, "verification": verification}
    if rejected:
        result["rejected"] = rejected
    if expression["instances"] and not kept:
        result["status"] = "none"
    if not kept:
        result = with_found(result, found, BY_OTHER_MODEL)
    return with_conclusion(result)


def _decided_by_other(
    verdict: Mapping[str, Any], bbox: Bbox, others: Sequence[Bbox]
) -> dict[str, Any]:
    """What the boxes that another model finds decide of a box in doubt."""
    if _is_among(bbox, others):
        return {"other_model": True, "decision": "kept"}
    if not others or _is_denied(verdict):
        return {"other_model": False, "decision": "dropped"}
    return {"decision": "undecided"}


def with_conclusion(expression: Expression) -> Expression:
    """The expression with `verified`, `doubtful` and `verification`, as its boxes' decisions say.

    `verified` is true where all is decided and every box that is left is right, or was mended; null
    else. It is `doubtful` where a box isn't decided, where boxes lack, or where none is left though
    the thing may be there. `verification` has a `score`, the share of the answers that affirm, and
    the `reason` in words.
    """
    check = check_of(expression)
    name = check.get("second")
    rejected = rejected_of(expression)
    verdicts = []
    for instance in expression["instances"]:
        verdicts.append(verdicts_of(expression).get(str(instance.get("bbox_id")), {}))
    scores = [verdict.get("score", 0.5) for verdict in verdicts]
    doubts = [_doubt_of(verdict, name) for verdict in verdicts if verdict.get("decision") != "kept"]
    if not verdicts:
        there = presence_of(expression).there
        is_absent = None if there is None else not there
        scores.append(_score_of([is_absent]))  # with no box, the only answer is whether it is there
        if _may_lack_all_boxes(check, there, has_rejected=bool(rejected)):
            doubts.append("no box, though it may be there")
    elif name not in SECONDS and lacking(expression):
        # After second answers, the boxes that lacked were asked for already: then it is no doubt.
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
    if doubts:
        result["doubtful"] = True
    return result


def _may_lack_all_boxes(
    check: Mapping[str, Any], there: bool | None, *, has_rejected: bool
) -> bool:
    """Whether the thing of a phrase without a box may be there all the same.

    Args:
        check: The expression's `verification`.
        there: Whether the judge says that the thing is there; None where it can't tell.
        has_rejected: Whether boxes of the phrase were rejected. Then they were what it could have
            meant, and a judge that can't tell leaves no doubt.
    """
    other = check.get("other_model")
    if isinstance(other, dict) and other.get("boxes") == 0:
        return False  # another model found none either
    return there or (there is None and not has_rejected)


def _doubt_of(verdict: Mapping[str, Any], second: str | None) -> str:
    """Return in words why a box isn't decided: `second` names the other answer, if there is one."""
    if second not in SECONDS:
        return f"a box is {_first_in_words(verdict)}"
    if _is_denied(verdict):
        return f"denied, though it is said to be there: {_in_words(verdict, second)}"
    return f"the answers differ: {_in_words(verdict, second)}"


def _is_denied(verdict: Mapping[str, Any]) -> bool:
    """Whether both answers deny a box, the verdict on it and its crop."""
    return verdict.get("verdict") in ("other", "nothing") and verdict.get("crop") is False


def _misfits_of(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return in words which boxes that stay fit badly and weren't mended."""
    misfits = []
    for verdict in verdicts:
        is_loose_or_part = verdict.get("verdict") in ("loose", "part")
        if verdict.get("decision") == "kept" and is_loose_or_part and not verdict.get("mended"):
            misfits.append(f"a box is {IN_WORDS[verdict['verdict']]}")
    return misfits


def with_mended(expression: Expression, better: Mapping[str, dict[str, Any]]) -> Expression:
    """The expression with boxes that were found again from closer by, by `bbox_id`."""
    instances = []
    for instance in expression["instances"]:
        instances.append(better.get(str(instance.get("bbox_id")), instance))
    boxes = []
    for verdict in verdicts_of(expression).values():
        boxes.append({**verdict, "mended": True} if verdict["bbox_id"] in better else verdict)
    verification = {**check_of(expression), "boxes": boxes}
    return with_conclusion({**expression, "instances": instances, "verification": verification})


def _score_of(answers: Sequence[bool | None]) -> float:
    """The share of the answers that affirm; one that is missing counts half."""
    worth = {True: 1.0, False: 0.0, None: 0.5}
    return sum(worth[answer] for answer in answers) / len(answers)


def _in_words(verdict: Mapping[str, Any], name: str) -> str:
    """Both answers about a box, in words."""
    return f"{_first_in_words(verdict)}; {name}: {_SECOND_IN_WORDS[verdict.get(name)]}"


def _first_in_words(verdict: Mapping[str, Any]) -> str:
    """The first answer about a box, in words."""
    fit = verdict.get("verdict")
    first = IN_WORDS[fit if fit in FITS else None]
    if verdict.get("found_by"):
        first = "found because it lacked"
    reason = verdict.get("reason")
    if reason:
        first = f"{first} ({reason})"
    return first


def lacking(expression: Mapping[str, Any]) -> int:
    """How many boxes lack: the things that the judge counted, less the boxes that are there.

    1 where it says that the thing is there, without a number, and there is no box. 0 where it
    can't tell, or a person settled the expression.
    """
    presence = presence_of(expression)
    if not presence.there or not is_open(expression):
        return 0
    there = len(expression["instances"])
    if presence.count is None:
        return 0 if there else 1
    return max(0, presence.count - there)


def with_found(
    expression: Expression, found: Sequence[dict[str, Any]], by: str = FOUND_BY
) -> Expression:
    """The expression with boxes that were found because they lacked, or `by` another model.

    Those of another model are decided by that: the judge said that the thing is there.
    """
    if not found:
        return expression
    instances = list(expression["instances"])
    verification = dict(check_of(expression))
    boxes = list(verification["boxes"])
    taken = {str(instance.get("bbox_id")) for instance in instances}
    taken.update(verdicts_of(expression))
    number = 0
    for instance in found:
        while f"{expression['expression_id']}.{number}" in taken:
            number += 1
        bbox_id = f"{expression['expression_id']}.{number}"
        taken.add(bbox_id)
        instances.append({"bbox_id": bbox_id, **instance, "found_by": by})
        verdict: dict[str, Any] = {"bbox_id": bbox_id, "verdict": None, "found_by": by}
        if by == BY_OTHER_MODEL:
            verdict.update(other_model=True, decision="kept")
        boxes.append(verdict)
    verification["boxes"] = boxes
    return {
        **expression,
        "instances": instances,
        "status": "grounded",
        "verification": verification,
    }
