"""How to send elongated pictures, in which some models put boxes in the wrong place.

Qwen3-VL does (QwenLM/Qwen3-VL issue 2020). Padding such pictures to a moderate shape may help.
"""

from statistics import median
from typing import NamedTuple

from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.images.image import SizeLimits
from dataflow_grounding.trust._accepted_sizes import MODERATE
from dataflow_grounding.trust.probes import (
    SIZES,
    AskProbes,
    Probe,
    ProbedPicture,
    legible,
    probe_of,
    reduced_to,
)
from dataflow_grounding.trust.showing import moved_in

# Elongated pictures are tried unpadded first, then padded to these aspects (longer over shorter).
PADDINGS = (None, MODERATE, 2)
WORSE = 2.0  # boxes more than so many times as far off as usual are a reason to try padding
BETTER = 0.6  # padding is worth it if it brings the error down to this share, or lower
# Boxes further off than this share of the side, and than WORSE times the usual, are of no use.
FAR = 0.05
USUAL = 0.01  # share of the side that boxes are taken to be off in any picture
# Share of an elongated picture's rectangles that have to be answered to say anything about it.
LEAST_ANSWERED = 1 / 4


class PaddingVerdict(NamedTuple):
    """How pictures like `size` are to be sent.

    Attributes:
        size: Width and height in pixels.
        aspect: The aspect (longer over shorter side) to pad to; None for no padding.
        off: How far off boxes are even so, as a share of the side; None where they are usable.
    """

    size: Size
    aspect: float | None
    off: float | None


async def try_paddings(
    ask: AskProbes, size: Size, known: BoxFormat, max_side: int, usual: float | None
) -> tuple[PaddingVerdict | None, list[ProbedPicture]]:
    """Find out whether elongated pictures of this size should be padded, and how much.

    A picture is asked for unpadded, then with each of PADDINGS, until boxes are right. Padding is
    preferred only where it makes boxes clearly better.

    Args:
        ask: Puts probe pictures to the model.
        size: Width and height in pixels; a picture too narrow to draw rectangles in is enlarged.
        known: The model's format, which counts parts of the side.
        max_side: The longest side that may be sent, in pixels.
        usual: How far off boxes are in pictures of usual shapes, as a share of the side; None to
            find out, if it matters, by one picture more.

    Returns:
        The verdict, None where all pictures were refused, or the first one came back with too few
        boxes; and the pictures that were asked for, answered or not.
    """
    pictures: list[ProbedPicture] = []
    error_by_aspect = await _try_each_padding(ask, size, known, max_side, usual, pictures)
    if not error_by_aspect or all(picture.refused for picture in pictures):
        return None, pictures
    best = min(error_by_aspect, key=lambda aspect: error_by_aspect[aspect])
    if error_by_aspect[best] >= BETTER * error_by_aspect[None]:
        best = None  # padding costs resolution: it has to be clearly better
    error = error_by_aspect[best]
    if error <= FAR:
        return PaddingVerdict(size, best, None), pictures
    if usual is None:
        [picture] = await ask([probe_of(reduced_to(SIZES[0], max_side))], known)
        pictures.append(picture)
        usual = median_error(picture, known)
    if error > WORSE * usual:
        return PaddingVerdict(size, best, error), pictures
    return PaddingVerdict(size, best, None), pictures


async def _try_each_padding(
    ask: AskProbes,
    size: Size,
    known: BoxFormat,
    max_side: int,
    usual: float | None,
    pictures: list[ProbedPicture],
) -> dict[float | None, float]:
    """Ask for pictures with ever more padding, until boxes are right or too few are answered.

    The arguments are those of `try_paddings`; each picture is added to `pictures`. Boxes are right
    if they are about as far off as usual or, with padding, by no more than FAR.

    Returns how far off boxes are with each aspect that was tried, as a share of the side; the
    aspect None is no padding. A picture that is refused counts as off by the whole side; one with
    too few answers isn't among them.
    """
    error_by_aspect: dict[float | None, float] = {}
    drawn = legible(size, max_side)
    for aspect in PADDINGS:
        limits = SizeLimits(max_side, max_wide=aspect, max_tall=aspect)
        padded = Probe(limits.padded(drawn), probe_of(drawn).boxes, drawn)
        [picture] = await ask([padded], known)
        pictures.append(picture)
        is_answered = len(picture.answers) >= LEAST_ANSWERED * picture.asked
        if not is_answered and not picture.refused:
            break
        error = max(median_error(picture, known), steady_error(picture, known))
        error_by_aspect[aspect] = error
        is_as_usual = error <= WORSE * max(usual or 0, USUAL)
        is_padded_and_usable = aspect is not None and error <= FAR
        if is_as_usual or is_padded_and_usable:
            break
    return error_by_aspect


def steady_error(picture: ProbedPicture, known: BoxFormat) -> float:
    """Return how far all boxes of a picture are stretched or shifted, as a share of the side.

    0 if that may be noise. A server that pads pictures to multiples moves the boxes of long ones by
    more than those of others. For pictures that this package padded it is 0, too: their sides are
    others than those of what is drawn.
    """
    if picture.probe.drawn is not None and picture.probe.drawn != picture.probe.size:
        return 0.0
    return moved_in([picture], known)


def median_error(picture: ProbedPicture, known: BoxFormat) -> float:
    """Return how far off the worst edge of a rectangle is, for the median rectangle of a picture.

    It is a share of the side of what is drawn, without padding. Rectangles that weren't answered
    with four numbers count as off by the whole side.
    """
    sides = (picture.probe.drawn or picture.size) * 2
    worst = []
    for answer in picture.answers:
        if len(answer.numbers) == 4:
            edges = zip(picture.in_pixels(answer, known), answer.asked, sides, strict=True)
            worst.append(max(abs(read - true) / side for read, true, side in edges))
    worst += [1.0] * (picture.asked - len(worst))
    return median(worst)
