"""Which box format fits a model's answers: every order, scale and frame scored on rectangles whose
places are known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat, Order, Scale, to_xyxy
from dataflow_grounding.boxes.formats import find_box_format, known_formats
from dataflow_grounding.boxes.geometry import Bbox, box_of, ordered
from dataflow_grounding.calibration._seen import Array, check_even, check_whole, measured_in, seen
from dataflow_grounding.calibration.probes import NoFit, PicturesDisagree, ProbedPicture, by

MAX_ERROR = 0.05  # largest corner error of the median rectangle, as a share of the side
MIN_FOUND = 2 / 3  # share of the rectangles that have to be found
LEAST_OF_ONE = 1 / 3  # the same in a single picture, where outliers weigh more
NEAR = 0.10  # a rectangle is found when no corner is further off, as a share of the side
SAME = 0.003  # formats whose boxes differ by no more than this share of the side count as one
# log-likelihood ratio by which the best format has to beat others; in one picture alone
SURE, DISAGREE = 6.0, 15.0
# rectangles that the best format misses and one other explains: too many for an accident
SECOND = 3
LEAST_NOISE = 0.003  # numbers are rounded, and models are never better than this share of the side
# no format in pixels is mistaken for one in parts of the side whose median rectangle is this near
GOOD = 0.03
# the same in each picture, where chance weighs more: what fits two shapes may not fit a third
GOOD_IN_ONE = 0.045
# what a picture has to gain in log-likelihood for scales of its own: fewer assumptions win
FREE = 5.0
PADDED = ("pad_square", "pad_square_corner")


@dataclass(frozen=True)
class Fit:
    """The format that fits, and the answers in pixels (`boxes`), by phrase. `error_px` is an edge's
    mean distance, `error_share` that of the median rectangle's worst edge as a share of the side.
    """

    format: BoxFormat
    error_px: float
    error_share: float
    found: int
    asked: int
    boxes: list[list[tuple[str, Bbox]]] = field(default_factory=list, repr=False)


@lru_cache(maxsize=1)
def candidates() -> tuple[BoxFormat, ...]:
    """Every order with every scale and padding that gives other boxes; in pixels, each picture's
    size is measured.
    """
    plain = [f"{order}_{scale}" for scale in (1000, "px", *SCALES) for order in ORDERS]
    framed = [
        f"{name}@{frame}"
        for frame in PADDED
        for name in plain
        if (name[-2:], frame) != ("px", PADDED[1])
    ]
    return tuple(find_box_format(name, "") for name in dict.fromkeys([*plain, *framed]))


def _with_stated(pictures: Sequence[ProbedPicture], stated: BoxFormat) -> "Scores":
    """The scores of all formats in question, those that special tokens name and the one that was
    `stated` first.
    """
    families = (a.family for picture in pictures for a in picture.answers if a.family is not None)
    first = [known_formats()[name] for name in families] + (
        [] if stated.scale == "px" else [stated]
    )
    return Scores(
        pictures, list({f.name: f for f in [*first, *candidates()]}.values()), measured=True
    )


def fit(pictures: Sequence[ProbedPicture], stated: BoxFormat) -> Fit:
    """The one format in which all pictures were answered, of equal ones the one that was `stated`.
    Raises NoFit.
    """
    scores = _with_stated(pictures, stated)
    best = scores.best()
    scores.check_found(best)
    scores.check_one_format(best)
    found = scores.result(best)
    measured = measured_in(pictures, found.format.order, found.format.frame)
    check_even(measured, None if found.format.scale == "px" else found.format.frame)
    if isinstance(found.format.scale, int):
        check_whole(measured, found.format)
    return found


def fit_as(order: Order, scale: Scale, frame: str, pictures: Sequence[ProbedPicture]) -> Fit:
    """How well this plain format fits. Raises NoFit when it hardly does."""
    name = f"{order}_{scale}" if frame == "sent" else f"{order}_{scale}@{frame}"
    scores = Scores(pictures, [find_box_format(name, "")])
    scores.check_found(0)
    return scores.result(0)


def first_guess(picture: ProbedPicture, stated: BoxFormat) -> BoxFormat:
    """The plainest format that one picture suggests, for wording the next questions.
    Raises NoFit.
    """
    scores = _with_stated([picture], stated)
    best = scores.best()
    scores.check_found(best, least=LEAST_OF_ONE)
    return scores.formats[scores.plainest(best, margin=SURE)]


class Scores:
    """The errors of these formats on all answers: `errors[k, i]` has answer i's four edges, as
    shares of the side.

    Formats in pixels count those of the picture as sent or, if `measured`, of the size that the
    answers suggest.
    """

    def __init__(
        self,
        pictures: Sequence[ProbedPicture],
        formats: Sequence[BoxFormat],
        *,
        measured: bool = False,
    ) -> None:
        self.pictures, self.formats = pictures, formats
        self.rows = [
            (p, a) for p, picture in enumerate(pictures) for a in picture.answers if a.usable
        ]
        self.picture_of = np.array([p for p, _ in self.rows], dtype=int)
        self.asked = np.array([a.asked for _, a in self.rows], dtype=float).reshape(-1, 4)
        self.sides = np.array([pictures[p].size * 2 for p, _ in self.rows], dtype=float).reshape(
            -1, 4
        )
        self.boxes = np.stack([self._boxes(known, measured) for known in self.formats])
        self.errors = (self.boxes - self.asked) / self.sides
        self.worst = np.abs(self.errors).max(axis=2)

    def _boxes(self, candidate: BoxFormat, measured: bool) -> Array:
        """The answers as sorted corners in pixels, by this candidate and as the reader would read
        them.
        """
        corners, boxes = replace(candidate, order="xyxy"), []
        scales = [_scales(candidate, picture, measured) for picture in self.pictures]
        for p, answer in self.rows:
            picture, box = self.pictures[p], (0.0,) * 4
            if answer.family:
                box = picture.in_pixels(answer, candidate)
            elif candidate.scale != "grid_32":  # cells are read by their family, never as numbers
                numbers = to_xyxy(answer.numbers, answer.order or candidate.order)
                numbers = box_of(
                    [n / scale for n, scale in zip(numbers, scales[p] * 2, strict=True)]
                )
                box = corners.to_pixels(numbers, original=picture.size, sent=picture.sent)
            boxes.append(ordered(box))
        return np.array(boxes, dtype=float).reshape(-1, 4)

    def losses(self, noise: float, rows: Any = slice(None)) -> Array:
        """Each candidate's negative log-likelihood; an answer costs at most what one three
        deviations off would.
        """
        squares = (self.errors[:, rows] ** 2).sum(axis=2) / (2 * noise**2)
        total: Array = np.minimum(squares, 18.0).sum(axis=1)
        pictures = len(set(self.picture_of[rows].tolist()))
        return total + np.array([FREE * pictures * (known.scale == "px") for known in self.formats])

    def best(self) -> int:
        """The candidate with the smallest loss, under the noise that it leaves itself."""
        if not self.rows:
            raise NoFit(self.seen("no box that could be read came back"))
        best = int(self.losses(0.03).argmin())
        for _ in range(3):
            best = int(self.losses(self.noise(best)).argmin())
        if self.formats[best].scale == "px":
            # sizes of their own may only absorb what the model is off by everywhere
            middle, middles = np.median(self.worst, axis=1), self._middles()
            good = [
                k
                for k, known in enumerate(self.formats)
                if known.scale != "px" and middle[k] <= GOOD and middles[:, k].max() <= GOOD_IN_ONE
            ]
            best = min(good, key=lambda k: middle[k], default=best)
        return self.plainest(best)

    def _middles(self) -> Array:
        """How far off the median rectangle's worst edge is, for each picture and candidate."""
        return np.stack(
            [
                np.median(self.worst[:, self.picture_of == p], axis=1)
                for p in set(self.picture_of.tolist())
            ]
        )

    def noise(self, k: int) -> float:
        """The standard deviation of the edges that a candidate finds, as a share of the side."""
        found = self.errors[k][self.worst[k] <= NEAR]
        return max(LEAST_NOISE, 1.4826 * float(np.median(np.abs(found)))) if len(found) else 0.03

    def plainest(self, best: int, margin: float = 0.0) -> int:
        """The first candidate that gives the same boxes, or, with a margin, one that fits nearly as
        well.
        """
        losses = self.losses(self.noise(best))
        # plainer than a size that is measured for each picture
        in_parts = self.formats[best].scale != "px"
        near = [
            k
            for k in range(len(self.formats))
            if not (in_parts and self.formats[k].scale == "px")
            and (self.same(k, best) or (margin and losses[k] - losses[best] < margin))
        ]
        return self._by_far_edge(near)

    def _by_far_edge(self, near: Sequence[int]) -> int:
        """The first; of formats to 999 and 1000, a thousandth apart, the one that numbers at the
        far edge fit.
        """
        pair = [k for k in near if self.formats[k].scale in (999, 1000) and self.same(k, near[0])]
        if self.formats[near[0]].scale not in (999, 1000) or len(pair) < 2:
            return near[0]
        order = self.formats[pair[0]].order
        edges = np.array(
            [to_xyxy(a.numbers, a.order or order) for _, a in self.rows if len(a.numbers) == 4]
        )
        far = edges[(edges > 998) & (edges < 1001)]
        scale = 999 if len(far) > 1 and np.median(far) < 999.3 else 1000
        return next((k for k in pair if self.formats[k].scale == scale), near[0])

    def same(self, one: int, other: int) -> bool:
        """Whether two candidates mean the same boxes, as far as these pictures tell."""
        counted = self.worst[other] <= NEAR
        apart = np.abs(self.boxes[one] - self.boxes[other])[counted] / self.sides[counted]
        return not apart.size or float(apart.max()) <= SAME

    def holds(self, one: int, other: int) -> bool:
        """Whether a candidate is the other one with free scales, padding at the right and below
        included.
        """
        free, plain = self.formats[one], self.formats[other]
        frames = [free.frame, PADDED[1]] if free.frame == "sent" else [free.frame]
        return (
            free.scale == "px" != plain.scale
            and free.order == plain.order
            and plain.frame in frames
        )

    def check_found(self, best: int, least: float = MIN_FOUND) -> None:
        """Raises NoFit when too few rectangles were found, in all or in one picture, or they are
        too far off.
        """
        name = self.formats[best].name
        found = self.worst[best] <= NEAR
        asked = sum(picture.asked for picture in self.pictures)
        if found.sum() < least * asked:
            why = (
                f"only {found.sum()} of {asked} rectangles are where even the best format, {name},"
                " says"
            )
            raise NoFit(self.seen(why))
        for p, picture in enumerate(self.pictures):
            here = int(found[self.picture_of == p].sum())
            if here < LEAST_OF_ONE * picture.asked:
                what = f"{name} fits the other pictures, but {here} of {picture.asked} rectangles"
                raise PicturesDisagree(
                    self.seen(f"the pictures disagree: {what} of the {by(picture.size)} picture")
                )
        off = float(np.median(self.worst[best][found]))
        if off > MAX_ERROR:
            raise NoFit(
                self.seen(
                    f"{name} fits best, and is off by {off:.1%} of the side (at most"
                    f" {MAX_ERROR:.0%})"
                )
            )

    def check_one_format(self, best: int) -> None:
        """Raises NoFit when another format fits about as well, fits one picture better, or what the
        best does not.
        """
        noise, name = self.noise(best), self.formats[best].name
        others = [
            k
            for k in range(len(self.formats))
            if not self.same(k, best) and not self.holds(k, best)
        ]
        losses = self.losses(noise)
        if not others:  # special tokens settle all
            return
        close = [self.formats[k].name for k in others if losses[k] - losses[best] < SURE]
        if close:
            raise NoFit(self.seen(f"{name} and {close[0]} fit about as well"))
        for p, picture in enumerate(self.pictures):
            here = self.losses(noise, self.picture_of == p)
            k = min(others, key=lambda k: here[k])
            if here[best] - here[k] > DISAGREE:
                what = (
                    f"{self.formats[k].name} fits the {by(picture.size)} picture, {name} the others"
                )
                raise PicturesDisagree(self.seen(f"the pictures disagree: {what}"))
        self._check_left_over(best, others)

    def _check_left_over(self, best: int, others: Sequence[int]) -> None:
        """Raises NoFit when one other format explains several of the rectangles that the best one
        misses.
        """
        name, missed = self.formats[best].name, self.worst[best] > NEAR
        # no scale fits the few that are in pixels
        as_sent = [find_box_format(f"{order}_px", "") for order in ORDERS]
        boxes = [self.boxes[others], np.stack([self._boxes(known, False) for known in as_sent])]
        errors = np.abs(np.concatenate(boxes) - self.asked) / self.sides
        explained = (errors.max(axis=2) <= NEAR / 2)[:, missed].sum(axis=1)
        if (self.formats[best].scale != "px" and explained.max() >= SECOND) or explained[
            : len(others)
        ].max() >= SECOND:
            second = [*(self.formats[k] for k in others), *as_sent][int(explained.argmax())].name
            what = (
                f"{name} for {int((~missed).sum())} rectangles, {second} for {int(explained.max())}"
            )
            raise NoFit(self.seen(f"the model answers in two formats: {what}"))

    def result(self, best: int) -> Fit:
        """How well a candidate fits, and its boxes."""
        found = self.worst[best] <= NEAR
        pixels = np.abs(self.errors[best] * self.sides)[found]
        boxes: list[list[tuple[str, Bbox]]] = [[] for _ in self.pictures]
        for (p, answer), bbox in zip(self.rows, self.boxes[best].tolist(), strict=True):
            boxes[p].append((answer.phrase, box_of(bbox)))
        return Fit(
            self.formats[best],
            round(float(pixels.mean()), 2) if found.any() else 0.0,
            round(float(np.median(self.worst[best][found])), 5) if found.any() else 1.0,
            int(found.sum()),
            sum(picture.asked for picture in self.pictures),
            boxes,
        )

    def seen(self, why: str) -> str:
        """The message: why not, and what came back for each picture."""
        parts = []
        for picture in self.pictures:
            numbers = [n for answer in picture.answers for n in answer.numbers]
            span = f", numbers from {min(numbers):g} to {max(numbers):g}" if numbers else ""
            trouble = f", {picture.trouble}" if picture.trouble else ""
            parts.append(
                f"{by(picture.size)}: {len(picture.answers)} of {picture.asked}"
                f" boxes{span}{trouble}"
            )
        return f"{why} (seen: {'; '.join(parts)})"


def _scales(candidate: BoxFormat, picture: ProbedPicture, measured: bool) -> tuple[float, float]:
    """What numbers are divided by first: if `measured`, those for a pixel as sent that the answers
    suggest.
    """
    if candidate.scale != "px" or not measured:
        return 1.0, 1.0
    found = seen(picture, candidate.order, candidate.frame)
    return found.scale if found is not None else (np.inf, np.inf)
