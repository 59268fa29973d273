"""What a run's watch says of boxes in another format, and what to do about them.

A check asks for rectangles in copies of pictures. It misses where they are answered in another
format than the one that was asked for. One that goes well vouches for the replies before it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataflow_grounding._util.settings import setting
from dataflow_grounding._util.terminal import counted
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.trust.choice import advice_to_calibrate
from dataflow_grounding.trust.known import Known

if TYPE_CHECKING:
    from dataflow_grounding.trust.probing import Outcome


def of_a_miss(asked: BoxFormat, outcome: "Outcome", *, calibrated: bool) -> str:
    """Return what to say of a check that missed; `calibrated` if the format was measured."""
    message = f"the boxes don't look like {asked.name}: {outcome.why}"
    # Where no format fits and none was measured yet, this is left out: calibrating is the better
    # advice. Where one was measured, calibrating again doesn't help.
    if outcome.shapes_differ and (outcome.fitting or calibrated):
        remedy = f"{outcome.fitting} would fit these" if outcome.fitting else "No format does"
        return (
            f"{message}. {remedy}, where pictures of other shapes come as asked: leave pictures"
            f" like those out, or {_go_on()}"
        )
    if outcome.fitting:
        return (
            f"{message}. {outcome.fitting} would fit: check {setting('vlm.box_format')}, or"
            f" {advice_to_calibrate()}"
        )
    return f"{message}. No plain format fits: {advice_to_calibrate()}"


def _go_on() -> str:
    return f"go on with {setting('vlm.on_suspect_boxes', 'warn')}"


def of_what_became(known: Known, set_aside: int, *, in_memory: bool) -> str:
    """Return what became of the answers since the last good check."""
    if set_aside == 1 and not in_memory:
        return "The reply since the last good check is set aside: the next run asks again"
    if set_aside and not in_memory:
        return (
            f"The {set_aside} replies since the last good check are set aside: the next run asks"
            " for them again"
        )
    since = known.answers - known.vouched
    if not since:
        return "No boxes were asked for"
    if not in_memory:  # they are in the run's store
        return "Every reply so far is kept"
    # This is below 0 if the last good check began after the last call had returned.
    returned = known.returned - known.vouched
    what_became = "none of them returned"
    if returned > 0:
        what_became = f"{returned} of them already returned: don't use them"
    return f"{counted(since, 'answer')} came since the last good check, {what_became}"


def of_the_blind(addresses: Sequence[str]) -> str:
    """Return that endpoints find no rectangle in probe pictures, and what that makes of phrases."""
    return (
        f"{' and '.join(addresses)} found none of the rectangles in a probe picture, so it may not"
        " see what is there. Phrases of replies without any box since the last good check are"
        " ambiguous, not none. See whether the model is shown the pictures, and ask again with"
        f" {setting('workflow.force_reprocess')}"
    )


def for_an_own_serving(serving: Serving) -> str:
    """Return what to do if a serving of the user's own writes boxes itself; else ""."""
    own = type(serving)
    # a shipped one has a model
    if own.__module__.startswith("dataflow_grounding."):
        return ""
    return f"If no model writes its boxes, as in a test, add exact_boxes = True to {own.__name__}"
