"""The messages of the watch about boxes in another format: what was seen, and what to do.

Each function returns one message for the user. Most begin with what was seen and end in advice.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.calibration.choice import advice_to_calibrate
from dataflow_grounding.watch._evidence import SAME_BOX, UNKNOWN, Evidence

if TYPE_CHECKING:
    from dataflow_grounding.calibration.checking import CheckVerdict

_ARE_THERE_SEVERAL = "are there several servers or models behind its address?"


def _advice_without_probes() -> str:
    """Return the advice where probe pictures go unanswered."""
    return (
        "The rectangles of probe pictures go unanswered, so that calibrating can't help: compare"
        f" some boxes with their pictures, state {setting('vlm.box_format')}, or"
        f" {_going_on()}"
    )


def advice() -> str:
    """Return the advice about boxes in a format that isn't the one asked for."""
    return f"check {setting('vlm.box_format')}, or {advice_to_calibrate()}"


def _going_on() -> str:
    """Return the words for continuing the run all the same."""
    return f"go on with {setting('vlm.on_suspect_boxes', 'warn')}"


def missed_probe(verdict: "CheckVerdict", asked: BoxFormat, *, calibrated: bool) -> str:
    """Return the message about probe pictures whose rectangles are elsewhere.

    Args:
        verdict: What the check of the pictures found.
        asked: The format that was asked for.
        calibrated: Whether calibrating had found that format out.
    """
    what = f"the boxes don't look like {asked.name}: {verdict.why}"
    if verdict.answered and asked.scale != "px" and (verdict.fitting or calibrated):
        remedy = "No plain format fits these"
        if verdict.fitting:
            remedy = f"{verdict.fitting} would fit these"
        elsewhere = "where pictures of other shapes come as asked"
        return f"{what}. {remedy}, {elsewhere}: leave pictures like those out, or {_going_on()}"
    what_to_do = f": {advice()}" if verdict.fitting else ""
    return f"{what}. {verdict.remedy}{what_to_do}"


def odd_probe(other: str, asked: BoxFormat) -> str:
    """Return what to say of one probe picture that was clearly answered in another format.

    The others were not.
    """
    seen = f"a probe picture was clearly answered in {other}, others in {asked.name} as asked"
    why = f"The endpoint may answer in more than one format: {_ARE_THERE_SEVERAL}"
    return f"{seen}. {why} Look at some boxes"


def overwhelming(other: str, asked: BoxFormat) -> str:
    """Return what to say of replies that are far likelier in another format.

    No probe picture can tell.
    """
    what = f"the boxes don't look like {asked.name}"
    if other == SAME_BOX:
        return (
            f"{what}: most replies have the same box for different phrases. The model may not see"
            " the picture"
        )
    if other == UNKNOWN:
        calibrate = advice_to_calibrate()
        return f"{what}: too many reach out of their pictures. No plain format fits: {calibrate}"
    likelier = f"{what}: the last replies are far likelier in another format"
    return f"{likelier}. {other} would fit: {advice()}"


def often_odd(evidence: Evidence, other: str) -> str:
    """Return what to say of replies that look like another format, also when asked for again."""
    replies = (
        f"{evidence.odd(other)} of {evidence.replies} replies look like {other}, also when they are"
        " asked again"
    )
    what = (
        f"the boxes don't look like {evidence.asked.name}: {replies}, though probe pictures come as"
        " asked"
    )
    return (
        f"{what}. {other} would fit; look at some of them, and if they are right:"
        f" {setting('vlm.on_suspect_boxes', 'warn')}"
    )


def slips(formats: Sequence[str], asked: BoxFormat) -> str:
    """Return what to say of a few replies that were asked again, too few to stop a run for."""
    other = " and ".join(dict.fromkeys(formats))
    replies = (
        f"{counted(len(formats), 'reply')} came in {other} and, asked again, in {asked.name} as"
        " asked"
    )
    return f"{replies}. Others may not show it: look at some boxes"


def mixture(evidence: Evidence, other: str) -> str:
    """Return what to say of replies that came in another format and, asked again, as asked."""
    proven = f"{counted(evidence.proven, 'reply')} of {evidence.replies}"
    seen = f"{proven} came in {other} and, asked again, in {evidence.asked.name} as asked"
    return f"{seen}. The endpoint answers in more than one format: {_ARE_THERE_SEVERAL}"


def adapted_to_no_probes(what: str) -> str:
    """Return what a finding says where probe pictures go unanswered, and what helps then."""
    calibrate = advice_to_calibrate()
    what = what.replace(f", or {calibrate}", "").replace(f": {calibrate}", "")
    return (
        f"{what.replace(', though probe pictures come as asked', '')}. {_advice_without_probes()}"
    )
