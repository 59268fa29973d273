"""Which box format fits a model's answers.

Every order, scale and frame is scored on rectangles whose places are known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat, Order, Scale, to_xyxy
from dataflow_grounding.boxes.formats import find_box_format, known_formats
from dataflow_grounding.boxes.geometry import Bbox, box_of, ordered
from dataflow_grounding.calibration._seen import Array, check_even, check_whole, measured_in, seen
from dataflow_grounding.calibration.probes import (
    NoFit,
    PicturesDisagree,
    ProbeBox,
    ProbedPicture,
    by,
)

MAX_ERROR = 0.05  # largest corner error of the median rectangle, as a share of the side
MIN_FOUND = 2 / 3  # share of the rectangles that have to be found
LEAST_OF_ONE = 1 / 3  # the same in a single picture, where outliers weigh more
NEAR = 0.10  # a rectangle is found when no corner is further off, as a share of the side
SAME = 0.003  # formats whose boxes differ by no more than this share of the side count as one
SURE = 6.0  # log-likelihood ratio by which the best format has to beat others
DISAGREE = 15.0  # the same in one picture alone
# rectangles that the best format misses and one other explains: too many for an accident
SECOND = 3
FIRST_NOISE = 0.03  # the noise that is assumed before any format has shown its own
LEAST_NOISE = 0.003  # numbers are rounded, and models are never better than this share of the side
MOST_SQUARES = 18.0  # what an answer costs at the most: as much as one three deviations off
# no format in pixels is mistaken for one in parts of the side whose median rectangle is this near
GOOD = 0.03
# the same in each picture, where chance weighs more: what fits two shapes may not fit a third
GOOD_IN_ONE = 0.045
# what a picture has to gain in log-likelihood for scales of its own: fewer assumptions win
FREE = 5.0
PADDED = ("pad_square", "pad_square_corner")
NEARLY_EQUAL = (999, 1000)  # scales that only numbers at the far edge tell apart
NO_BOX: Bbox = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Fit:
    """The format that fits, and how well.

    Attributes:
        format: The format.
        error_px: An edge's mean distance, in pixels of the probe pictures.
        error_share: How far the median rectangle's worst edge is off, as a share of the side.
        found: How many of the rectangles are where the format says.
        asked: How many rectangles were asked for.
        boxes: For each picture, the phrases that were answered and their boxes in pixels.
    """

    format: BoxFormat
    error_px: float
    error_share: float
    found: int
    asked: int
    boxes: list[list[tuple[str, Bbox]]] = field(default_factory=list, repr=False)


class Row(NamedTuple):
    """An answer that can be scored, and the number of the picture that it is about."""

    picture: int
    answer: ProbeBox


@lru_cache(maxsize=1)
def candidates() -> tuple[BoxFormat, ...]:
    """Every order with every scale and padding that gives other boxes.

    In pixels, each picture's size is measured.
    """
    plain = []
    for scale in (1000, "px", *SCALES):
        for order in ORDERS:
            plain.append(f"{order}_{scale}")
    names = list(plain)
    for frame in PADDED:
        for name in plain:
            # Padding at the right and below doesn't move a pixel.
            if not (name.endswith("px") and frame == "pad_square_corner"):
                names.append(f"{name}@{frame}")
    return tuple(find_box_format(name, "") for name in dict.fromkeys(names))


def fit(pictures: Sequence[ProbedPicture], stated: BoxFormat) -> Fit:
    """The one format in which all pictures were answered.

    Of formats that fit equally well, it is the one that was `stated`. Raises NoFit.
    """
    scores = _scores_of_all_formats(pictures, stated)
    best = scores.best()
    scores.check_found(best)
    scores.check_one_format(best)
    result = scores.result(best)
    measured = measured_in(pictures, result.format.order, result.format.frame)
    check_even(measured, None if result.format.scale == "px" else result.format.frame)
    if isinstance(result.format.scale, int):
        check_whole(measured, result.format)
    return result


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
    scores = _scores_of_all_formats([picture], stated)
    best = scores.best()
    scores.check_found(best, least=LEAST_OF_ONE)
    return scores.formats[scores.plainest(best, margin=SURE)]


def _scores_of_all_formats(pictures: Sequence[ProbedPicture], stated: BoxFormat) -> "Scores":
    """The scores of every format in question.

    Those that special tokens name come first, then the one that was `stated`: of formats that mean
    the same boxes, the first is taken.
    """
    formats: dict[str, BoxFormat] = {}
    for picture in pictures:
        for answer in picture.answers:
            if answer.family is not None:
                named = known_formats()[answer.family]
                formats[named.name] = named
    if stated.scale != "px":
        formats[stated.name] = stated
    for candidate in candidates():
        formats[candidate.name] = candidate
    return Scores(pictures, list(formats.values()), measured=True)


class Scores:
    """How far each answer is off when it is read in each of these formats.

    Attributes:
        pictures, formats: What is scored; formats go by their number, `k`.
        rows: The answers that can be read, of all pictures.
        picture_of: The picture's number for each row.
        asked, sides: For each row, the true box, and the sides along which its four edges lie.
        boxes: `boxes[k, row]`, the answer read in format k: sorted corners in pixels.
        errors: `errors[k, row]`, how far its four edges are off, as shares of the side.
        worst: `worst[k, row]`, how far the worst of them is off.
    """

    def __init__(
        self,
        pictures: Sequence[ProbedPicture],
        formats: Sequence[BoxFormat],
        *,
        measured: bool = False,
    ) -> None:
        """Read all answers in all formats.

        Formats in pixels count those of the picture as sent or, if `measured`, of the size that
        the answers suggest.
        """
        self.pictures = pictures
        self.formats = formats
        self.rows: list[Row] = []
        for number, picture in enumerate(pictures):
            for answer in picture.answers:
                if answer.usable:
                    self.rows.append(Row(number, answer))
        asked = [row.answer.asked for row in self.rows]
        sides = [pictures[row.picture].size * 2 for row in self.rows]
        self.picture_of = np.array([row.picture for row in self.rows], dtype=int)
        self.asked = np.array(asked, dtype=float).reshape(-1, 4)
        self.sides = np.array(sides, dtype=float).reshape(-1, 4)
        self.boxes = np.stack([self._boxes_in(known, measured) for known in self.formats])
        self.errors = (self.boxes - self.asked) / self.sides
        self.worst = np.abs(self.errors).max(axis=2)

    def _boxes_in(self, candidate: BoxFormat, measured: bool) -> Array:
        """The answers as sorted corners in pixels, as the reader would read this format."""
        corners = replace(candidate, order="xyxy")
        scales = [_scales(candidate, picture, measured) for picture in self.pictures]
        boxes = []
        for number, answer in self.rows:
            picture = self.pictures[number]
            if answer.family:
                box = picture.in_pixels(answer, candidate)
            elif candidate.scale == "grid_32":
                box = NO_BOX  # cells are read by their family, never as four numbers
            else:
                across, down = scales[number]
                x1, y1, x2, y2 = to_xyxy(answer.numbers, answer.order or candidate.order)
                scaled = (x1 / across, y1 / down, x2 / across, y2 / down)
                box = corners.to_pixels(scaled, original=picture.size, sent=picture.sent)
            boxes.append(ordered(box))
        return np.array(boxes, dtype=float).reshape(-1, 4)

    def _is_in_pixels(self, k: int) -> bool:
        return self.formats[k].scale == "px"

    def losses(self, noise: float, rows: Any = slice(None)) -> Array:
        """Each format's negative log-likelihood, of all rows or of some.

        The cost of an answer is bounded, so that one wild answer doesn't decide.
        """
        squares = (self.errors[:, rows] ** 2).sum(axis=2) / (2 * noise**2)
        total: Array = np.minimum(squares, MOST_SQUARES).sum(axis=1)
        pictures = len(set(self.picture_of[rows].tolist()))
        penalties = [FREE * pictures if known.scale == "px" else 0.0 for known in self.formats]
        return total + np.array(penalties)

    def best(self) -> int:
        """The format with the smallest loss, under the noise that it leaves itself."""
        if not self.rows:
            raise NoFit(self.message("no box that could be read came back"))
        best = int(self.losses(FIRST_NOISE).argmin())
        for _ in range(3):
            best = int(self.losses(self.noise(best)).argmin())
        if self._is_in_pixels(best):
            best = self._good_in_parts(best)
        return self.plainest(best)

    def _good_in_parts(self, in_pixels: int) -> int:
        """The best format in parts of the side that is good everywhere; else the one in pixels.

        Sizes of their own may only absorb what the model is off by everywhere.
        """
        median = np.median(self.worst, axis=1)
        median_in = self._medians_by_picture()
        good = []
        for k in range(len(self.formats)):
            if self._is_in_pixels(k):
                continue
            if median[k] <= GOOD and median_in[:, k].max() <= GOOD_IN_ONE:
                good.append(k)
        return min(good, key=lambda k: median[k], default=in_pixels)

    def _medians_by_picture(self) -> Array:
        """How far off the median rectangle's worst edge is, for each picture and format."""
        medians = []
        for picture in set(self.picture_of.tolist()):
            medians.append(np.median(self.worst[:, self.picture_of == picture], axis=1))
        return np.stack(medians)

    def noise(self, k: int) -> float:
        """The standard deviation of the edges that a format finds, as a share of the side."""
        errors = self.errors[k][self.worst[k] <= NEAR]
        if not len(errors):
            return FIRST_NOISE
        return max(LEAST_NOISE, 1.4826 * float(np.median(np.abs(errors))))

    def plainest(self, best: int, margin: float = 0.0) -> int:
        """The first format that gives the same boxes or, with a margin, fits nearly as well."""
        losses = self.losses(self.noise(best))
        as_good = []
        for k in range(len(self.formats)):
            # Parts of the side are plainer than a size that is measured for each picture.
            if self._is_in_pixels(k) and not self._is_in_pixels(best):
                continue
            if self.same(k, best) or (margin and losses[k] - losses[best] < margin):
                as_good.append(k)
        return self._by_far_edge(as_good)

    def _by_far_edge(self, as_good: Sequence[int]) -> int:
        """The first; of formats to 999 and to 1000, the one that numbers at the far edge fit.

        These are a thousandth apart, so that nothing else tells them from each other.
        """
        first = as_good[0]
        if self.formats[first].scale not in NEARLY_EQUAL:
            return first
        pair = []
        for k in as_good:
            if self.formats[k].scale in NEARLY_EQUAL and self.same(k, first):
                pair.append(k)
        if len(pair) < 2:
            return first
        order = self.formats[pair[0]].order
        corners = []
        for row in self.rows:
            if len(row.answer.numbers) == 4:
                corners.append(to_xyxy(row.answer.numbers, row.answer.order or order))
        edges = np.array(corners)
        far = edges[(edges > 998) & (edges < 1001)]
        scale = 999 if len(far) > 1 and np.median(far) < 999.3 else 1000
        for k in pair:
            if self.formats[k].scale == scale:
                return k
        return first

    def same(self, a: int, b: int) -> bool:
        """Whether two formats mean the same boxes, as far as these pictures tell."""
        counted = self.worst[b] <= NEAR
        apart = np.abs(self.boxes[a] - self.boxes[b])[counted] / self.sides[counted]
        return not apart.size or float(apart.max()) <= SAME

    def holds(self, a: int, b: int) -> bool:
        """Whether format a is format b with free scales.

        Such a one fits wherever b does, also where the picture is padded at the right and below.
        """
        free = self.formats[a]
        plain = self.formats[b]
        if free.scale != "px" or plain.scale == "px" or free.order != plain.order:
            return False
        if plain.frame == "pad_square_corner" and free.frame == "sent":
            return True
        return plain.frame == free.frame

    def check_found(self, best: int, least: float = MIN_FOUND) -> None:
        """Raises NoFit when too few rectangles were found, or they are too far off.

        Too few may be in all, `least` being the share of them, or in one picture.
        """
        name = self.formats[best].name
        is_found = self.worst[best] <= NEAR
        count = is_found.sum()
        asked = sum(picture.asked for picture in self.pictures)
        if count < least * asked:
            why = f"only {count} of {asked} rectangles are where even the best format, {name}, says"
            raise NoFit(self.message(why))
        for number, picture in enumerate(self.pictures):
            here = int(is_found[self.picture_of == number].sum())
            if here < LEAST_OF_ONE * picture.asked:
                raise PicturesDisagree(
                    self.message(
                        f"the pictures disagree: {name} fits the other pictures, but {here} of"
                        f" {picture.asked} rectangles of the {by(picture.size)} picture"
                    )
                )
        off = float(np.median(self.worst[best][is_found]))
        if off > MAX_ERROR:
            why = f"{name} fits best, and is off by {off:.1%} of the side (at most {MAX_ERROR:.0%})"
            raise NoFit(self.message(why))

    def check_one_format(self, best: int) -> None:
        """Raises NoFit when another format speaks against the best one.

        It does where it fits about as well, fits one picture better, or explains several of the
        rectangles that the best one misses.
        """
        noise = self.noise(best)
        rivals = []
        for k in range(len(self.formats)):
            if not self.same(k, best) and not self.holds(k, best):
                rivals.append(k)
        if not rivals:  # special tokens settle all
            return
        name = self.formats[best].name
        losses = self.losses(noise)
        for k in rivals:
            if losses[k] - losses[best] < SURE:
                rival = self.formats[k].name
                raise NoFit(self.message(f"{name} and {rival} fit about as well"))
        for number, picture in enumerate(self.pictures):
            here = self.losses(noise, self.picture_of == number)
            closest = rivals[int(here[rivals].argmin())]
            if here[best] - here[closest] > DISAGREE:
                rival = self.formats[closest].name
                why = f"{rival} fits the {by(picture.size)} picture, {name} the others"
                raise PicturesDisagree(self.message(f"the pictures disagree: {why}"))
        self._check_left_over(best, rivals)

    def _check_left_over(self, best: int, rivals: Sequence[int]) -> None:
        """Raises NoFit when another format explains several of the rectangles that the best misses.

        The few that are in pixels are tried in pixels as sent, too: no size is measured from them.
        """
        as_sent = [find_box_format(f"{order}_px", "") for order in ORDERS]
        boxes_as_sent = np.stack([self._boxes_in(known, False) for known in as_sent])
        boxes = np.concatenate([self.boxes[rivals], boxes_as_sent])
        worst = (np.abs(boxes - self.asked) / self.sides).max(axis=2)
        missed = self.worst[best] > NEAR
        explained = (worst <= NEAR / 2)[:, missed].sum(axis=1)
        # Pixels as sent are no second format for a model that counts pixels of another size.
        counted = explained[: len(rivals)] if self._is_in_pixels(best) else explained
        if counted.max() < SECOND:
            return
        formats = [self.formats[k] for k in rivals] + as_sent
        second = formats[int(explained.argmax())].name
        raise NoFit(
            self.message(
                f"the model answers in two formats: {self.formats[best].name} for"
                f" {int((~missed).sum())} rectangles, {second} for {int(explained.max())}"
            )
        )

    def result(self, best: int) -> Fit:
        """How well a format fits, and its boxes."""
        boxes: list[list[tuple[str, Bbox]]] = [[] for _ in self.pictures]
        for row, bbox in zip(self.rows, self.boxes[best].tolist(), strict=True):
            boxes[row.picture].append((row.answer.phrase, box_of(bbox)))
        is_found = self.worst[best] <= NEAR
        error_px = 0.0
        error_share = 1.0
        if is_found.any():
            pixels = np.abs(self.errors[best] * self.sides)[is_found]
            error_px = round(float(pixels.mean()), 2)
            error_share = round(float(np.median(self.worst[best][is_found])), 5)
        return Fit(
            self.formats[best],
            error_px,
            error_share,
            int(is_found.sum()),
            sum(picture.asked for picture in self.pictures),
            boxes,
        )

    def message(self, why: str) -> str:
        """Why no format can be named, and what came back for each picture."""
        parts = []
        for picture in self.pictures:
            part = f"{by(picture.size)}: {len(picture.answers)} of {picture.asked} boxes"
            numbers: list[float] = []
            for answer in picture.answers:
                numbers.extend(answer.numbers)
            if numbers:
                part += f", numbers from {min(numbers):g} to {max(numbers):g}"
            if picture.trouble:
                part += f", {picture.trouble}"
            parts.append(part)
        return f"{why} (seen: {'; '.join(parts)})"


def _scales(candidate: BoxFormat, picture: ProbedPicture, measured: bool) -> tuple[float, float]:
    """What numbers along x and y are divided by before they are read.

    If `measured`, those for a pixel as sent that the answers suggest.
    """
    if candidate.scale != "px" or not measured:
        return 1.0, 1.0
    size = seen(picture, candidate.order, candidate.frame)
    return size.scale if size is not None else (np.inf, np.inf)
