"""The messages of the watch about boxes in another format: what was seen, and what to do.

Each function returns one message for the user. Most begin with what was seen and end in advice.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.calibration.choice import (
    ANSWERS_IN_SEVERAL,
    SEE_WHETHER_SEVERAL,
    advice_to_calibrate,
)
from dataflow_grounding.watch._evidence import SAME_BOX, UNKNOWN, Evidence

if TYPE_CHECKING:
    from dataflow_grounding.calibration.checking import CheckVerdict

# Said where it is so, and taken out by `adapted_to_no_probes`.
_THOUGH_PROBES_FIT = ", though probe pictures come as asked"


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

    Where pictures of other shapes fit, leaving out those that miss is advised; but not for formats
    in pixels, nor where no format fits these and calibrating hasn't been tried.

    Args:
        verdict: What the check of the pictures found.
        asked: The format that was asked for.
        calibrated: Whether calibrating had found that format out.
    """
    message = f"the boxes don't look like {asked.name}: {verdict.why}"
    if verdict.answered and asked.scale != "px" and (verdict.fitting or calibrated):
        remedy = "No plain format fits these"
        if verdict.fitting:
            remedy = f"{verdict.fitting} would fit these"
        elsewhere = "where pictures of other shapes come as asked"
        return f"{message}. {remedy}, {elsewhere}: leave pictures like those out, or {_going_on()}"
    what_to_do = f": {advice()}" if verdict.fitting else ""
    return f"{message}. {verdict.remedy}{what_to_do}"


def odd_probe(other_format: str, asked: BoxFormat) -> str:
    """Return what to say of one probe picture that was clearly answered in another format.

    The others were not.
    """
    seen = (
        f"a probe picture was clearly answered in {other_format}, others in {asked.name} as asked"
    )
    why = f"The endpoint may answer in more than one format: {SEE_WHETHER_SEVERAL}"
    return f"{seen}. {why} Look at some boxes"


def overwhelming(other_format: str, asked: BoxFormat) -> str:
    """Return what to say of replies that are far likelier in another format, by the replies alone.

    `other_format` is the format's name, SAME_BOX or UNKNOWN.
    """
    message = f"the boxes don't look like {asked.name}"
    if other_format == SAME_BOX:
        return (
            f"{message}: most replies have the same box for different phrases. The model may not"
            " see the picture"
        )
    if other_format == UNKNOWN:
        calibrate = advice_to_calibrate()
        return f"{message}: too many reach out of their pictures. No plain format fits: {calibrate}"
    likelier = f"{message}: the last replies are far likelier in another format"
    return f"{likelier}. {other_format} would fit: {advice()}"


def often_odd(evidence: Evidence, other_format: str) -> str:
    """Return what to say of replies that look like another format, also when asked for again."""
    replies = (
        f"{evidence.odd(other_format)} of {evidence.replies} replies look like {other_format},"
        " also when they are asked again"
    )
    message = f"the boxes don't look like {evidence.asked.name}: {replies}{_THOUGH_PROBES_FIT}"
    return (
        f"{message}. {other_format} would fit; look at some of them, and if they are right:"
        f" {setting('vlm.on_suspect_boxes', 'warn')}"
    )


def slips(formats: Sequence[str], asked: BoxFormat) -> str:
    """Return what to say of a few replies that were asked again, too few to stop a run for.

    `formats` has for each of them the format that it was proven to be in.
    """
    others = " and ".join(dict.fromkeys(formats))
    replies = (
        f"{counted(len(formats), 'reply')} came in {others} and, asked again, in {asked.name} as"
        " asked"
    )
    return f"{replies}. Others may not show it: look at some boxes"


def mixture(evidence: Evidence, other_format: str) -> str:
    """Return what to say of replies that came in another format and, asked again, as asked."""
    proven = f"{counted(evidence.proven, 'reply')} of {evidence.replies}"
    seen = f"{proven} came in {other_format} and, asked again, in {evidence.asked.name} as asked"
    return f"{seen}. {ANSWERS_IN_SEVERAL}"


def adapted_to_no_probes(message: str) -> str:
    """Return a message of this module as it is right where probe pictures go unanswered.

    Advice to calibrate, and words that say that probe pictures fit, are taken out of `message`; the
    advice that helps then is put at the end.
    """
    calibrate = advice_to_calibrate()
    for words in (f", or {calibrate}", f": {calibrate}", _THOUGH_PROBES_FIT):
        message = message.replace(words, "")
    return f"{message}. {_advice_without_probes()}"
