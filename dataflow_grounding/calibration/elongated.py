"""Whether a model's boxes in elongated pictures are right as they are, right with padding, or wrong either way."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from dataflow_grounding.calibration.probes import SIZES, AskProbes, Probe, ProbedPicture, probe_of, reduced_to
from dataflow_grounding.calibration.taken import MODERATE
from dataflow_grounding.coordinates import BoxFormat
from dataflow_grounding.geometry import Size
from dataflow_grounding.images import SizeLimits

WAYS = (None, MODERATE, 2)  # as it is, and with padding to this aspect
WORSE, BETTER = 2.0, 0.6  # how much worse than usual boxes have to be, and how much better with padding
FAR = 0.05  # of the side: boxes that are further off than this, and than WORSE times the usual, are of no use
USUAL = 0.01  # boxes are at least this far off in any picture


@dataclass(frozen=True)
class PaddingVerdict:
    """For pictures like `size`: the aspect to pad to, or None; where that's no use, how far `off` boxes still are."""

    size: Size
    aspect: float | None
    off: float | None


async def verdict_on(
    ask: AskProbes, size: Size, known: BoxFormat, max_side: int, usual: float | None
) -> tuple[PaddingVerdict | None, list[ProbedPicture]]:
    """Ask for a picture of this size in a format of parts of the side, padded ever more while that may help.

    `usual` is how far boxes are off otherwise; None to find out. No verdict where nothing is answered.
    """
    pictures: list[ProbedPicture] = []
    offs: dict[float | None, float] = {}
    for aspect in WAYS:
        limits = SizeLimits(max_side, max_wide=aspect, max_tall=aspect)
        padded = Probe(limits.padded(size), probe_of(size).boxes, size)
        pictures += await ask([padded], known)
        if len(pictures[-1].answers) < pictures[-1].asked / 2 and not pictures[-1].refused:
            break
        offs[aspect] = median_error(pictures[-1], known)
        if offs[aspect] <= WORSE * max(usual or 0, USUAL) or (aspect and offs[aspect] <= FAR):
            break
    if not offs or all(picture.refused for picture in pictures):
        return None, pictures
    plain, best = offs[None], min(offs, key=lambda aspect: offs[aspect])
    if offs[best] >= BETTER * plain:
        best = None
    if offs[best] <= FAR:
        return PaddingVerdict(size, best, None), pictures
    if usual is None:
        pictures += await ask([probe_of(reduced_to(SIZES[0], max_side))], known)
        usual = median_error(pictures[-1], known)
    return PaddingVerdict(size, best, offs[best] if offs[best] > WORSE * usual else None), pictures


def elongated(own: Sequence[Size]) -> list[Size]:
    """The widest and the tallest of these sizes, where models may err in them."""
    return [size for size in most_elongated(own) if is_elongated(size)]


def most_elongated(own: Sequence[Size]) -> tuple[Size, Size]:
    """The widest and the tallest of these sizes; squares where there is none."""
    shares = sorted([*own, (1, 1)], key=lambda size: size[0] / size[1])
    return shares[-1], shares[0]


def is_elongated(size: Size) -> bool:
    """Whether a picture is so long or tall that models err in it: Qwen3-VL does (QwenLM/Qwen3-VL issue 2020)."""
    return max(size) > MODERATE * min(size)


def median_error(picture: ProbedPicture, known: BoxFormat) -> float:
    """The worst edge of the median rectangle, as a share of the side of what is drawn; 1 where hardly any came back."""
    sides = (picture.probe.drawn or picture.size) * 2
    usable = [answer for answer in picture.answers if len(answer.numbers) == 4]
    pairs = [(picture.in_pixels(answer, known), answer.asked) for answer in usable]
    worst = [max(abs(a - b) / side for a, b, side in zip(*pair, sides, strict=True)) for pair in pairs]
    return median([*worst, *[1.0] * (picture.asked - len(worst))])
