"""What the watch says of boxes that are in another format: what it saw, and what to do about it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataflow_grounding._util.terminal import counted
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.calibration.choice import CALIBRATE
from dataflow_grounding.watch._evidence import SAME_BOX, UNKNOWN, Evidence

if TYPE_CHECKING:
    from dataflow_grounding.calibration.checking import CheckVerdict

ADVICE = f"check vlm.box_format, or {CALIBRATE}"
SOME_SHAPES = "leave pictures like those out, or go on with vlm.on_suspect_boxes: warn"
SEVERAL = (
    "The endpoint answers in more than one format: are there several servers or models behind its"
    " address?"
)
WITHOUT_PROBES = (
    "The rectangles of probe pictures go unanswered, so that calibrating can't help: compare some"
    " boxes with their pictures, state vlm.box_format, or go on with vlm.on_suspect_boxes: warn"
)


def missed_probe(verdict: "CheckVerdict", asked: BoxFormat, *, calibrated: bool) -> str:
    """Of probe pictures whose rectangles are elsewhere; `calibrated`: though calibrating has found
    the format out.
    """
    if verdict.answered and asked.scale != "px" and (verdict.fitting or calibrated):
        remedy = (
            f"{verdict.fitting} would fit these"
            if verdict.fitting
            else "No plain format fits these"
        )
        remedy = f"{remedy}, where pictures of other shapes come as asked: {SOME_SHAPES}"
        return f"the boxes don't look like {asked.name}: {verdict.why}. {remedy}"
    advice = f": {ADVICE}" if verdict.fitting else ""
    return f"the boxes don't look like {asked.name}: {verdict.why}. {verdict.remedy}{advice}"


def odd_probe(other: str, asked: BoxFormat) -> str:
    """Of one probe picture that was clearly answered in another format, where others were not."""
    seen = f"a probe picture was clearly answered in {other}, others in {asked.name} as asked"
    why = (
        "The endpoint may answer in more than one format: are there several servers or models"
        " behind its address?"
    )
    return f"{seen}. {why} Look at some boxes"


def overwhelming(other: str, asked: BoxFormat) -> str:
    """Of replies that are far likelier in another format, with no probe picture to tell."""
    what = f"the boxes don't look like {asked.name}"
    if other == SAME_BOX:
        return (
            f"{what}: most replies have the same box for different phrases. The model may not see"
            " the picture"
        )
    if other == UNKNOWN:
        return f"{what}: too many reach out of their pictures. No plain format fits: {CALIBRATE}"
    return (
        f"{what}: the last replies are far likelier in another format. {other} would fit: {ADVICE}"
    )


def often_odd(evidence: Evidence, other: str) -> str:
    """Of replies that look like another format, also when they are asked for again."""
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
        " vlm.on_suspect_boxes: warn"
    )


def slips(formats: Sequence[str], asked: BoxFormat) -> str:
    """Of a few replies that were asked again, too few to stop a run for."""
    other = " and ".join(dict.fromkeys(formats))
    replies = (
        f"{counted(len(formats), 'reply')} came in {other} and, asked again, in {asked.name} as"
        " asked"
    )
    return f"{replies}. Others may not show it: look at some boxes"


def mixture(evidence: Evidence, other: str) -> str:
    """Of replies that came in another format and, asked again, as asked."""
    proven = f"{counted(evidence.proven, 'reply')} of {evidence.replies}"
    return (
        f"{proven} came in {other} and, asked again, in {evidence.asked.name} as asked. {SEVERAL}"
    )


def without_probes(what: str) -> str:
    """The same of a model that leaves probe pictures unanswered, and what helps then."""
    what = what.replace(f", or {CALIBRATE}", "").replace(f": {CALIBRATE}", "")
    return f"{what.replace(', though probe pictures come as asked', '')}. {WITHOUT_PROBES}"
