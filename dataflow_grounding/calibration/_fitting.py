"""Which box format fits a model's answers to probe pictures.

Every candidate, an order with a scale and a frame, is scored by reading all answers in it and
comparing them with the true rectangles. The loss is the negative log-likelihood of the edges'
errors, normal with one standard deviation for all, where each answer costs a bounded amount so that
an outlier doesn't decide. The format with the smallest loss is named only if it finds most of the
rectangles (`check_found`) and no other one fits nearly as well (`check_one_format`).

Formats in pixels are special. For them the size at which the model saw each picture is measured
from the answers, and so they fit wherever another format does. They pay FREE for each picture, and
give way to a format in parts of the side that is good everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from dataflow_grounding.boxes.coordinates import ORDERS, SCALES, BoxFormat, Order, Scale, to_xyxy
from dataflow_grounding.boxes.formats import find_box_format, known_formats
from dataflow_grounding.boxes.geometry import Bbox, box_of, ordered
from dataflow_grounding.calibration._seen_size import (
    DEVIATION_PER_MEDIAN,
    Array,
    check_scale_spans_sides,
    check_x_and_y_agree,
    measure_seen_size,
    measure_seen_sizes,
)
from dataflow_grounding.calibration.probes import (
    NoFit,
    PicturesDisagree,
    ProbeBox,
    ProbedPicture,
    size_text,
)

MAX_ERROR = 0.05  # largest corner error of the median rectangle, as a share of the side
MIN_FOUND = 2 / 3  # share of the rectangles that have to be found
LEAST_OF_ONE = 1 / 3  # the same in a single picture, where outliers weigh more
NEAR = 0.10  # a rectangle is found when no corner is further off, as a share of the side
SURELY_NEAR = NEAR / 2  # the same where a rectangle speaks for a second format
SAME = 0.003  # formats whose boxes differ by no more than this share of the side count as one
SURE = 6.0  # log-likelihood ratio by which the best format has to beat others
DISAGREE = 15.0  # the same in one picture alone
# If another format explains this many rectangles that the best one misses, it is no accident.
SEVERAL_RECTANGLES = 3
FIRST_NOISE = 0.03  # the noise that is assumed before any format has shown its own
LEAST_NOISE = 0.003  # numbers are rounded, and models are never better than this share of the side
MOST_SQUARES = 18.0  # the most an answer costs: four edges three standard deviations off, 4 * 9 / 2
# A format in parts of the side whose median rectangle is within this share of the side is preferred
# to one in pixels, ...
GOOD = 0.03
# ... if it is within this in each picture, too: what fits two shapes may not fit a third.
GOOD_IN_ONE = 0.045
# The log-likelihood that a picture has to gain to be read in scales of its own (pixels): the format
# with fewer assumptions wins.
FREE = 5.0
PADDED = ("pad_square", "pad_square_corner")  # frames of candidates, beside "sent"
NEARLY_EQUAL = (999, 1000)  # scales that only numbers at the far edge tell apart
BEFORE_FAR_EDGE, BEHIND_FAR_EDGE = 998, 1001  # numbers between these are at the far edge
UP_TO_999 = 999.3  # the scale is 999 where the median of numbers at the far edge is below this
NO_BOX: Bbox = (0.0, 0.0, 0.0, 0.0)  # an answer that a format can't read: far from any rectangle


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
    """Return the formats that are tried: every order with every scale, unpadded and padded.

    The usual scales, 1000 and pixels, come first. Formats that mean the same boxes are left out.
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
    """Find the one format in which all pictures were answered.

    Of formats that mean the same boxes, it is the first in the order of `_scores_of_all_formats`:
    the `stated` one, in which boxes were asked for, unless the answers name another. Raises NoFit
    where no format fits, or several do.
    """
    scores = _scores_of_all_formats(pictures, stated)
    best = scores.best()
    scores.check_found(best)
    scores.check_one_format(best)
    result = scores.fit_of(best)
    measured = measure_seen_sizes(pictures, result.format.order, result.format.frame)
    check_x_and_y_agree(measured, None if result.format.scale == "px" else result.format.frame)
    if isinstance(result.format.scale, int):
        check_scale_spans_sides(measured, result.format)
    return result


def fit_as(order: Order, scale: Scale, frame: str, pictures: Sequence[ProbedPicture]) -> Fit:
    """Return how well the format of this order, scale and frame fits.

    Its pixels, if it counts any, are those of its frame, and aren't measured. Raises NoFit where
    `check_found` does: too few rectangles are found, or they are too far off.
    """
    name = f"{order}_{scale}" if frame == "sent" else f"{order}_{scale}@{frame}"
    scores = Scores(pictures, [find_box_format(name, "")])
    scores.check_found(0)  # the number of the only format
    return scores.fit_of(0)


def first_guess(picture: ProbedPicture, stated: BoxFormat) -> BoxFormat:
    """Return the format that the first picture suggests, for wording the next questions.

    Of formats that fit about as well, it is the first in the order of `_scores_of_all_formats`: the
    `stated` one, if it is among them and the answers name no other. Raises NoFit where the best one
    finds less than LEAST_OF_ONE of the rectangles, or they are too far off.
    """
    scores = _scores_of_all_formats([picture], stated)
    best = scores.best()
    scores.check_found(best, least=LEAST_OF_ONE)
    return scores.formats[scores.plainest(best, margin=SURE)]


def _scores_of_all_formats(pictures: Sequence[ProbedPicture], stated: BoxFormat) -> "Scores":
    """Score every format in question.

    Formats of families whose special tokens came back are first, then the one that was `stated`
    (unless it counts pixels), then all candidates. Of the last two, those in the order that the
    answers name themselves come before all others. This sequence matters: of formats that mean the
    same boxes, the first is taken. Formats in pixels are read in sizes that are measured.
    """
    formats: dict[str, BoxFormat] = {}
    for picture in pictures:
        for answer in picture.answers:
            if answer.family is not None:
                of_family = known_formats()[answer.family]
                formats[of_family.name] = of_family
    others = list(candidates())
    if stated.scale != "px":
        others.insert(0, stated)
    named_order = _order_that_answers_name(pictures)
    if named_order is not None:
        others.sort(key=lambda candidate: candidate.order != named_order)
    for candidate in others:
        formats.setdefault(candidate.name, candidate)
    return Scores(pictures, list(formats.values()), measured=True)


def _order_that_answers_name(pictures: Sequence[ProbedPicture]) -> Order | None:
    """Return the order of coordinates that answers name, as keys do; None without one, or with two.

    An answer that names its order is read in it, and so fits formats of any order. A later reply
    may not name it, and is in the same one for all that is known.
    """
    orders = set()
    for picture in pictures:
        for answer in picture.answers:
            if answer.order is not None:
                orders.add(answer.order)
    return orders.pop() if len(orders) == 1 else None


class Scores:
    """How far each answer is off when it is read in each of these formats.

    Methods take and return formats by their index in `formats`: k, a, b, `best` and so on.

    Attributes:
        pictures: The pictures that were asked about.
        formats: The formats in which their answers are read.
        rows: The answers that can be read, of all pictures.
        picture_of: The picture's number for each row, shape (rows,).
        asked: The true box of each row in pixels of the picture as drawn, shape (rows, 4).
        sides: The side along which each of its edges lies, in pixels: width, height, width, height.
        boxes: `boxes[k, row]` is the answer read in format k: sorted corners in the same pixels.
        errors: `errors[k, row]` is how far its four edges are off, as shares of the side.
        worst: `worst[k, row]` is the largest of these four, without its sign.
    """

    def __init__(
        self,
        pictures: Sequence[ProbedPicture],
        formats: Sequence[BoxFormat],
        *,
        measured: bool = False,
    ) -> None:
        """Read all answers in all formats.

        Formats in pixels count those of their frame or, if `measured`, of the size that the answers
        suggest.
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
        """Read all answers in a format, as the reader of replies would.

        An answer's own family (special tokens) or order goes before the format's. With `measured`,
        pixels are those of the size at which the model saw the picture. Four numbers are NO_BOX in
        a format of grid cells. Returns sorted corners in pixels of the picture as drawn, shape
        (rows, 4).
        """
        in_corners = replace(candidate, order="xyxy")
        scales = [_scales(candidate, picture, measured) for picture in self.pictures]
        boxes = []
        for number, answer in self.rows:
            picture = self.pictures[number]
            if answer.family:
                box = picture.in_pixels(answer, candidate)
            elif candidate.scale == "grid_32":
                box = NO_BOX  # cells come with special tokens, which name their family
            else:
                across, down = scales[number]
                x1, y1, x2, y2 = to_xyxy(answer.numbers, answer.order or candidate.order)
                scaled = (x1 / across, y1 / down, x2 / across, y2 / down)
                box = in_corners.to_pixels(scaled, original=picture.size, sent=picture.sent)
            boxes.append(ordered(box))
        return np.array(boxes, dtype=float).reshape(-1, 4)

    def _is_in_pixels(self, k: int) -> bool:
        """Whether format k counts pixels."""
        return self.formats[k].scale == "px"

    def losses(self, noise: float, rows: Any = slice(None)) -> Array:
        """Return each format's negative log-likelihood, of all rows or of some.

        Edges' errors are taken to be normal. The cost of an answer is bounded, so that one wild
        answer doesn't decide. Formats in pixels pay for the scales that are fitted to each picture.

        Args:
            noise: The standard deviation of an edge, as a share of the side.
            rows: An index into the rows: a slice, or a mask of booleans.

        Returns:
            The losses, shape (formats,); constants that all formats share are left out.
        """
        squares = (self.errors[:, rows] ** 2).sum(axis=2) / (2 * noise**2)
        total: Array = np.minimum(squares, MOST_SQUARES).sum(axis=1)
        pictures = len(set(self.picture_of[rows].tolist()))
        penalties = [FREE * pictures if known.scale == "px" else 0.0 for known in self.formats]
        return total + np.array(penalties)

    def best(self) -> int:
        """Return the format that fits best.

        It is the one with the smallest loss, under the noise that it leaves itself: noise and best
        format depend on each other, so they are found in turns. One in pixels gives way to one in
        parts of the side that is good everywhere (`_good_in_parts`); of those that give the same
        boxes, the `plainest` is taken. Raises NoFit where no answer can be read.
        """
        if not self.rows:
            raise NoFit(self.message("no box that could be read came back"))
        best = int(self.losses(FIRST_NOISE).argmin())
        for _ in range(3):
            best = int(self.losses(self.noise(best)).argmin())
        if self._is_in_pixels(best):
            best = self._good_in_parts(best)
        return self.plainest(best)

    def _good_in_parts(self, in_pixels: int) -> int:
        """Return the best format in parts of the side that is good in all pictures and in each.

        Best is the one with the smallest median of the rectangles' worst edges. Without a good one,
        it is the given format `in_pixels`. That one may have a smaller loss only because its sizes,
        fitted to each picture, absorb a little by which the model always errs.
        """
        median_of_all = np.median(self.worst, axis=1)  # [format]
        medians_by_picture = self._medians_by_picture()  # [picture, format]
        good = []
        for k in range(len(self.formats)):
            if self._is_in_pixels(k):
                continue
            if median_of_all[k] <= GOOD and medians_by_picture[:, k].max() <= GOOD_IN_ONE:
                good.append(k)
        return min(good, key=lambda k: median_of_all[k], default=in_pixels)

    def _medians_by_picture(self) -> Array:
        """Return how far off the median rectangle's worst edge is, for each picture and format.

        Pictures without answers have no row, so a row's number isn't the picture's.
        """
        medians = []
        for picture in set(self.picture_of.tolist()):
            medians.append(np.median(self.worst[:, self.picture_of == picture], axis=1))
        return np.stack(medians)

    def noise(self, k: int) -> float:
        """Return the standard deviation of edges in format k, as a share of the side.

        It is estimated robustly, from the median absolute error of the rectangles that are found.
        LEAST_NOISE at the least; FIRST_NOISE where no rectangle is found.
        """
        errors = self.errors[k][self.worst[k] <= NEAR]
        if not len(errors):
            return FIRST_NOISE
        return max(LEAST_NOISE, DEVIATION_PER_MEDIAN * float(np.median(np.abs(errors))))

    def plainest(self, best: int, margin: float = 0.0) -> int:
        """Return the first format that gives the same boxes as the best one; that may be itself.

        With a `margin`, formats whose loss is larger by less than that count as well. One in pixels
        counts only where the best is in pixels, too. Of the scales 999 and 1000, numbers at the far
        edge choose (`_by_far_edge`).
        """
        losses = self.losses(self.noise(best))
        as_good = []
        for k in range(len(self.formats)):
            # Parts of the side are plainer than a size that is measured for each picture.
            if self._is_in_pixels(k) and not self._is_in_pixels(best):
                continue
            if self.are_same(k, best) or (margin and losses[k] - losses[best] < margin):
                as_good.append(k)
        return self._by_far_edge(as_good)

    def _by_far_edge(self, as_good: Sequence[int]) -> int:
        """Return the first of equally good formats, or its twin with 999 for 1000 or the reverse.

        The scales 999 and 1000 are a thousandth apart. Only numbers at the far edge, where models
        write the scale itself, tell one from the other (`_is_999`). The first stays where its scale
        is neither, or where no twin gives the same boxes.

        Args:
            as_good: The formats, the preferred one first.
        """
        first = as_good[0]
        if self.formats[first].scale not in NEARLY_EQUAL:
            return first
        twins = []  # the first itself is among them
        for k in as_good:
            if self.formats[k].scale in NEARLY_EQUAL and self.are_same(k, first):
                twins.append(k)
        if len(twins) < 2:
            return first
        scale = 999 if self._is_999(self.formats[first].order) else 1000
        for k in twins:
            if self.formats[k].scale == scale:
                return k
        return first

    def _is_999(self, order: Order) -> bool:
        """Whether edges at the far edge are written as 999 rather than as 1000, by their median.

        False with fewer than two of them. Answers that don't name their order are in this `order`.
        """
        corners = []
        for row in self.rows:
            if len(row.answer.numbers) == 4:
                corners.append(to_xyxy(row.answer.numbers, row.answer.order or order))
        edges = np.array(corners)
        at_far_edge = edges[(edges > BEFORE_FAR_EDGE) & (edges < BEHIND_FAR_EDGE)]
        return len(at_far_edge) > 1 and bool(np.median(at_far_edge) < UP_TO_999)

    def are_same(self, a: int, b: int) -> bool:
        """Whether formats a and b mean the same boxes, for the rectangles that b finds.

        True where b finds none.
        """
        is_found = self.worst[b] <= NEAR
        apart = np.abs(self.boxes[a] - self.boxes[b])[is_found] / self.sides[is_found]
        return not apart.size or float(apart.max()) <= SAME

    def fits_wherever(self, a: int, b: int) -> bool:
        """Whether format a, in pixels, fits wherever format b, in parts of the side, does.

        It does if order and frame are the same, as its sizes are fitted to each picture. It is no
        rival of b then. False where a isn't in pixels, or b is.
        """
        in_pixels = self.formats[a]
        in_parts = self.formats[b]
        if in_pixels.scale != "px" or in_parts.scale == "px":
            return False
        if in_pixels.order != in_parts.order:
            return False
        if in_parts.frame == "pad_square_corner" and in_pixels.frame == "sent":
            return True  # padding at the right and below doesn't move a pixel
        return in_parts.frame == in_pixels.frame

    def check_found(self, best: int, least: float = MIN_FOUND) -> None:
        """Raise NoFit when a format finds too few rectangles, or they are too far off.

        There may be too few in all pictures together or, for PicturesDisagree, in one. They are too
        far off where the worst edge of the median one among those found is off by over MAX_ERROR.

        Args:
            best: The format's index.
            least: The share of all rectangles that has to be found; of each picture's, it is
                LEAST_OF_ONE.
        """
        name = self.formats[best].name
        is_found = self.worst[best] <= NEAR
        found = is_found.sum()
        asked = sum(picture.asked for picture in self.pictures)
        if found < least * asked:
            why = f"only {found} of {asked} rectangles are where even the best format, {name}, says"
            raise NoFit(self.message(why))
        for number, picture in enumerate(self.pictures):
            found_here = int(is_found[self.picture_of == number].sum())
            if found_here < LEAST_OF_ONE * picture.asked:
                raise PicturesDisagree(
                    self.message(
                        f"the pictures disagree: {name} fits the other pictures, but {found_here}"
                        f" of {picture.asked} rectangles of the {size_text(picture.size)} picture"
                    )
                )
        off = float(np.median(self.worst[best][is_found]))
        if off > MAX_ERROR:
            why = f"{name} fits best, and is off by {off:.1%} of the side (at most {MAX_ERROR:.0%})"
            raise NoFit(self.message(why))

    def check_one_format(self, best: int) -> None:
        """Raise NoFit when another format speaks against the best one, of index `best`.

        It does where it fits about as well, fits one picture clearly better (PicturesDisagree), or
        explains several of the rectangles that the best one misses.
        """
        rivals = self._rivals(best)
        if not rivals:  # as where every answer has special tokens, which are read one way alone
            return
        self._check_none_as_good(best, rivals)
        self._check_none_better_in_one_picture(best, rivals)
        self._check_left_over(best, rivals)

    def _rivals(self, best: int) -> list[int]:
        """Return the formats that may speak against the best one; there may be none.

        Those that mean the same boxes don't, nor do those in pixels that fit wherever it does.
        """
        rivals = []
        for k in range(len(self.formats)):
            if not self.are_same(k, best) and not self.fits_wherever(k, best):
                rivals.append(k)
        return rivals

    def _check_none_as_good(self, best: int, rivals: Sequence[int]) -> None:
        """Raise NoFit when a rival fits all answers about as well as the best format."""
        losses = self.losses(self.noise(best))
        for k in rivals:
            if losses[k] - losses[best] < SURE:
                name = self.formats[best].name
                rival = self.formats[k].name
                raise NoFit(self.message(f"{name} and {rival} fit about as well"))

    def _check_none_better_in_one_picture(self, best: int, rivals: Sequence[int]) -> None:
        """Raise PicturesDisagree when a rival fits one of the pictures clearly better."""
        noise = self.noise(best)
        for number, picture in enumerate(self.pictures):
            losses = self.losses(noise, self.picture_of == number)
            closest = min(rivals, key=lambda k: losses[k])
            if losses[best] - losses[closest] > DISAGREE:
                name = self.formats[best].name
                rival = self.formats[closest].name
                why = f"{rival} fits the {size_text(picture.size)} picture, {name} the others"
                raise PicturesDisagree(self.message(f"the pictures disagree: {why}"))

    def _check_left_over(self, best: int, rivals: Sequence[int]) -> None:
        """Raise NoFit when another format explains several of the rectangles that the best misses.

        SEVERAL_RECTANGLES are several. Beside the `rivals`, it may be one in pixels of the picture
        as sent, unless the best is in pixels. A rival in pixels reads in a size that is measured
        from all answers, so that the few in pixels don't show in it.
        """
        formats = [self.formats[k] for k in rivals]
        boxes = self.boxes[rivals]  # [format, row, edge]
        # Pixels as sent are no second format for a model that counts pixels of another size.
        if not self._is_in_pixels(best):
            as_sent = [find_box_format(f"{order}_px", "") for order in ORDERS]
            boxes_as_sent = np.stack([self._boxes_in(known, False) for known in as_sent])
            formats += as_sent
            boxes = np.concatenate([boxes, boxes_as_sent])
        worst = (np.abs(boxes - self.asked) / self.sides).max(axis=2)
        is_missed = self.worst[best] > NEAR
        explained = (worst <= SURELY_NEAR)[:, is_missed].sum(axis=1)  # rectangles for each format
        if explained.max() < SEVERAL_RECTANGLES:
            return
        second = formats[int(explained.argmax())].name
        raise NoFit(
            self.message(
                f"the model answers in two formats: {self.formats[best].name} for"
                f" {int((~is_missed).sum())} rectangles, {second} for {int(explained.max())}"
            )
        )

    def fit_of(self, best: int) -> Fit:
        """Return how well format `best` fits, and the boxes of all answers read in it.

        Where it finds no rectangle, `error_px` is 0 and `error_share` 1.
        """
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
        """Return an error's message: why no format can be named, and what came back.

        For each picture that is how many boxes, in numbers from where to where, and its trouble.
        """
        parts = []
        for picture in self.pictures:
            part = f"{size_text(picture.size)}: {len(picture.answers)} of {picture.asked} boxes"
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
    """Return what numbers along x and along y are divided by before they are read in a format.

    For a format in pixels, if `measured`, that is how many of the model's pixels there are for a
    pixel as sent; where it can't be measured, infinity makes all boxes wrong. Otherwise it is 1.
    """
    if candidate.scale != "px" or not measured:
        return 1.0, 1.0
    size = measure_seen_size(picture, candidate.order, candidate.frame)
    if size is None:
        return np.inf, np.inf
    return size.scale
