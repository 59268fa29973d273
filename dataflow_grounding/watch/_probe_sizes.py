"""In which sizes the probe pictures of a run are asked for: `ProbeSizes`.

A probe picture shows only how boxes come in pictures like itself. So sizes are chosen to stand for
those that the run sends: by orientation, by how common they are and, for formats in pixels, by how
large they are.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from dataflow_grounding.boxes.geometry import Size

if TYPE_CHECKING:
    from dataflow_grounding.calibration.alike_sizes import Covers

OFTEN = 0.05  # share of a run's pictures from which on an orientation has probe pictures of its own
# Until this many pictures were sent, the shares are those of the pictures that the run expects to
# send; after that, those of the pictures that were sent.
KNOWN = 20
NEARLY = 1.05  # a side may be longer by this factor than one that was probed, and count as covered
SQUARE = 1.2  # padding doesn't show in a picture of a smaller aspect (longer over shorter side)
LONG = 3.0  # in a picture of a larger aspect, models may be wrong for that reason


def orientation_of(size: Size) -> str:
    """Return `portrait`, `landscape` or, for equal sides, `square`."""
    if size[0] == size[1]:
        return "square"
    return "landscape" if size[0] > size[1] else "portrait"


class _Pictures:
    """How many pictures there are of each size, and of each orientation."""

    def __init__(self) -> None:
        self.total = 0
        self.sizes: Counter[Size] = Counter()
        self._orientations: Counter[str] = Counter()

    def add(self, size: Size, count: int) -> None:
        """Count so many more pictures of this size."""
        self.total += count
        self.sizes[size] += count
        self._orientations[orientation_of(size)] += count

    def has(self, orientation: str) -> bool:
        """Whether any picture is of this orientation."""
        return self._orientations[orientation] > 0

    def orientations(self) -> list[str]:
        """Return the orientations that any picture has."""
        return list(self._orientations)

    def frequent(self) -> list[str]:
        """Return the orientations of at least OFTEN of the pictures, the commonest first."""
        return [
            name for name, count in self._orientations.most_common() if count >= OFTEN * self.total
        ]

    def commonest(self, orientation: str, probed: Sequence[Size], covers: "Covers") -> Size:
        """Return the commonest size of an orientation that none of the sizes `probed` covers.

        Where all are covered, it is the commonest of the orientation, which some picture has to be
        of.
        """
        commonest: Size | None = None
        for size, _ in self.sizes.most_common():
            if orientation_of(size) != orientation:
                continue
            if not covers(size, probed):
                return size
            commonest = commonest or size
        assert commonest is not None
        return commonest


class ProbeSizes:
    """The sizes in which a run's pictures are sent, and those that probe pictures should have.

    Each orientation that is sent often is probed: some models and servers write portraits' boxes
    otherwise. It is probed in the commonest of its sizes that no probe picture stood for so far, so
    that a long run goes through them. If nearly all pictures are square, one that isn't is probed
    too, where padding shows. Formats in pixels are also probed in the largest sizes, upright and
    lying, as servers reduce these first: in all to begin with, then in turn.
    """

    def __init__(self, *, in_pixels: bool) -> None:
        self._in_pixels = in_pixels
        self._sent = _Pictures()
        self._expected = _Pictures()
        # The largest size so far, by orientation and by what is measured: "area" or "side".
        self._largest: dict[tuple[str, str], Size] = {}
        self._checks = 0  # calls of `chosen`
        self._probed: dict[str, int] = {}  # in which check an orientation was probed last
        self._asked: dict[Size, int] = {}  # in which check a size was probed last
        self._chosen: list[Size] = []  # sizes of all checks so far that cover none of each other
        self.checked: set[Size] | None = set()
        """Sizes that were probed; None where a calibration has proved the format in all sizes."""

    def add(self, size: Size) -> None:
        """Count a picture that is sent in this size."""
        self._sent.add(size, 1)
        self._update_largest(size)

    def expect(self, sizes: Mapping[Size, int]) -> None:
        """Set how many pictures the run that begins will send in each size."""
        self._expected = _Pictures()
        for size, count in sizes.items():
            self._expected.add(size, count)
            self._update_largest(size)

    @property
    def outgrown(self) -> bool:
        """Whether pictures are sent of which no probe picture can tell.

        They are of an orientation that is frequent and was never probed or, for formats in pixels,
        of a size larger than any that was probed. False once a calibration has proved all sizes.
        """
        if self.checked is None:
            return False
        if any(name not in self._probed for name in self._pictures().frequent()):
            return True
        if not self._in_pixels:
            return False
        return not all(_is_covered(size, self.checked) for size in self._largest.values())

    def chosen(
        self, *, every: bool = False, orientation: str | None = None, last: bool = False
    ) -> list[Size]:
        """Choose the sizes to probe now, each once, and note that they are probed.

        By default they are of the one orientation, among those that are frequent, that was probed
        longest ago. For formats in pixels the largest sizes are added, but by default only sizes
        that are new, or the one probed longest ago, are left. For others, a size is added in which
        padding shows, if it shows in none. There has to be a picture, sent or expected.

        Args:
            every: Choose sizes of every orientation that is frequent.
            orientation: Choose sizes of this orientation instead, if there are pictures of it; it
                goes before `every`. There are none of "all".
            last: Choose sizes of all orientations that never were probed besides.
        """
        from dataflow_grounding.calibration.alike_sizes import covers_for  # as the check itself

        self._checks += 1
        covers = covers_for("px" if self._in_pixels else 1)  # 1 stands for any parts of the side
        pictures = self._pictures()
        names = pictures.frequent()
        if orientation is not None and pictures.has(orientation):
            names = [orientation]
        elif not every:
            names = [min(names, key=lambda name: self._probed.get(name, 0))]
        if last:
            never_probed = [name for name in pictures.orientations() if name not in self._probed]
            names = list(dict.fromkeys(names + never_probed))
        sizes = [pictures.commonest(name, self._chosen, covers) for name in names]
        if self._in_pixels:
            sizes += self._largest_uncovered(sizes, names)
            if not every and orientation is None:
                sizes = self._new_or_oldest(sizes)
        else:
            sizes += self._size_that_shows_padding(sizes)
        self._probed.update(dict.fromkeys(names, self._checks))
        self._remember(sizes, covers)
        return list(dict.fromkeys(sizes))

    def _remember(self, sizes: list[Size], covers: "Covers") -> None:
        """Note that these sizes are probed by the present check."""
        self._asked.update(dict.fromkeys(sizes, self._checks))
        self._chosen += [size for size in sizes if not covers(size, self._chosen)]
        if self.checked is not None:
            self.checked.update(sizes)

    def _pictures(self) -> "_Pictures":
        """Return the pictures that choices go by: those expected, until KNOWN have been sent."""
        if self._expected.total and self._sent.total < KNOWN:
            return self._expected
        return self._sent

    def _update_largest(self, size: Size) -> None:
        """Update the largest area, and the longest side, of the size's orientation."""
        orientation = orientation_of(size)
        for name, measure in (("area", math.prod), ("side", max)):
            key = (orientation, name)
            self._largest[key] = max(self._largest.get(key, size), size, key=measure)

    def _largest_uncovered(self, commonest: list[Size], orientations: Sequence[str]) -> list[Size]:
        """Return the largest sizes of these orientations that the commonest ones don't cover."""
        largest = []
        for (orientation, _), size in self._largest.items():
            if orientation in orientations and not _is_covered(size, commonest):
                largest.append(size)
        return largest

    def _new_or_oldest(self, sizes: list[Size]) -> list[Size]:
        """Return the sizes that were never probed; without any, the one probed longest ago."""
        never_probed = [size for size in sizes if size not in self._asked]
        return never_probed or [min(sizes, key=lambda size: self._asked[size])]

    def _size_that_shows_padding(self, chosen: list[Size]) -> list[Size]:
        """Return a size in which padding shows, in a list.

        [] where it shows in one of those `chosen`, and where the run has no picture that is neither
        about square nor longer than LONG.
        """
        if any(_aspect(size) >= SQUARE for size in chosen):
            return []
        for size in (*self._sent.sizes, *self._expected.sizes):
            if SQUARE <= _aspect(size) <= LONG:
                return [size]
        return []


def _aspect(size: Size) -> float:
    """Return the longer side over the shorter one."""
    return max(size) / min(size)


def _is_covered(size: Size, probed: Iterable[Size]) -> bool:
    """Whether a size is no larger than one of those that were probed; see `_covers`."""
    return any(_covers(known, size) for known in probed)


def _covers(probed: Size, size: Size) -> bool:
    """Whether neither side is longer than that of a size that was probed, or by NEARLY at most.

    A server's limit on sides or area that doesn't reduce `probed` doesn't reduce `size` then. False
    for a wide size and a tall one.
    """
    is_one_wide_one_tall = (probed[0] - probed[1]) * (size[0] - size[1]) < 0
    if is_one_wide_one_tall:  # upright pictures may have a limit of their own
        return False
    return probed[0] * NEARLY >= size[0] and probed[1] * NEARLY >= size[1]
