"""In which sizes the probe pictures of a run are asked for."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration.alike_sizes import Covers, covers_for

OFTEN = 0.05  # share of a run's pictures from which on an orientation has probe pictures of its own
# pictures sent before their own shares count, and not those of the pictures that were looked at
# before
KNOWN = 20
NEARLY = 1.05  # how much longer a side may be before a size is another one
SQUARE = 1.2  # padding doesn't show in a picture less elongated than this
LONG = 3.0  # in a picture more elongated than this, models err


def orientation_of(size: Size) -> str:
    """`portrait`, `landscape` or `square`."""
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
        self.total += count
        self.sizes[size] += count
        self._orientations[orientation_of(size)] += count

    def has(self, orientation: str) -> bool:
        """Whether any picture is of this orientation."""
        return self._orientations[orientation] > 0

    def orientations(self) -> list[str]:
        """The orientations that there are."""
        return list(self._orientations)

    def frequent(self) -> list[str]:
        """The orientations of many of the pictures, the commonest first."""
        return [
            name for name, count in self._orientations.most_common() if count >= OFTEN * self.total
        ]

    def commonest(self, orientation: str, probed: Sequence[Size], covers: Covers) -> Size:
        """The commonest size of an orientation that there is.

        If possible it is one that none of those `probed` covers.
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
        self._largest: dict[tuple[str, str], Size] = {}
        self._probed: dict[str, int] = {}  # orientation → when it was, counted in calls of `chosen`
        self._asked: dict[Size, int] = {}  # the same of sizes
        self._chosen: list[Size] = []  # by all checks so far, of the sizes of the run's pictures
        self._covers = covers_for("px" if in_pixels else 1)
        self._checks = 0
        self.checked: set[Size] | None = set()
        """Sizes that were probed; None where whatever is sent is known to be seen as it should."""

    def add(self, size: Size) -> None:
        """A picture is sent in this size."""
        self._sent.add(size, 1)
        self._grow(size)

    def expect(self, sizes: Mapping[Size, int]) -> None:
        """So many pictures of the run that begins will be sent in each of these sizes."""
        self._expected = _Pictures()
        for size, count in sizes.items():
            self._expected.add(size, count)
            self._grow(size)

    @property
    def outgrown(self) -> bool:
        """Whether pictures are sent in a size or orientation that no probe picture stood for."""
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
        """The sizes to probe now.

        Args:
            every: Of every orientation that is frequent; else of the one that was probed longest
                ago.
            orientation: Of this one instead, if there are pictures of it.
            last: Of all orientations that never were probed, too.
        """
        self._checks += 1
        pictures = self._pictures()
        names = pictures.frequent()
        if orientation is not None and pictures.has(orientation):
            names = [orientation]
        elif not every:
            names = [min(names, key=lambda name: self._probed.get(name, 0))]
        if last:
            never_probed = [name for name in pictures.orientations() if name not in self._probed]
            names = list(dict.fromkeys(names + never_probed))
        sizes = [pictures.commonest(name, self._chosen, self._covers) for name in names]
        if self._in_pixels:
            sizes += self._largest_beside(sizes, names)
            if not every and orientation is None:
                sizes = self._turns(sizes)
        else:
            sizes += self._elongated(sizes)
        self._probed.update(dict.fromkeys(names, self._checks))
        self._remember(sizes)
        return list(dict.fromkeys(sizes))

    def _remember(self, sizes: list[Size]) -> None:
        self._asked.update(dict.fromkeys(sizes, self._checks))
        self._chosen += [size for size in sizes if not self._covers(size, self._chosen)]
        if self.checked is not None:
            self.checked.update(sizes)

    def _pictures(self) -> "_Pictures":
        """The pictures that choices go by: those expected, until enough have been sent."""
        if self._expected.total and self._sent.total < KNOWN:
            return self._expected
        return self._sent

    def _grow(self, size: Size) -> None:
        """Take in a size where it is the largest of its orientation, by area or longer side."""
        for name, measure in (("area", math.prod), ("side", max)):
            key = (orientation_of(size), name)
            self._largest[key] = max(self._largest.get(key, size), size, key=measure)

    def _largest_beside(self, commonest: list[Size], orientations: Sequence[str]) -> list[Size]:
        """The largest sizes of these orientations that the commonest ones don't stand for."""
        largest = []
        for (orientation, _), size in self._largest.items():
            if orientation in orientations and not _is_covered(size, commonest):
                largest.append(size)
        return largest

    def _turns(self, sizes: list[Size]) -> list[Size]:
        """Return the sizes that no check has asked for; else the one that waits the longest."""
        new = [size for size in sizes if size not in self._asked]
        return new or [min(sizes, key=lambda size: self._asked[size])]

    def _elongated(self, chosen: list[Size]) -> list[Size]:
        """A size in which padding shows, where it doesn't in those that were chosen."""
        if any(_aspect(size) >= SQUARE for size in chosen):
            return []
        for size in (*self._sent.sizes, *self._expected.sizes):
            if SQUARE <= _aspect(size) <= LONG:
                return [size]
        return []


def _aspect(size: Size) -> float:
    return max(size) / min(size)


def _is_covered(size: Size, probed: Iterable[Size]) -> bool:
    """Whether one of the sizes `probed` stands for a size."""
    return any(_covers(known, size) for known in probed)


def _covers(probed: Size, size: Size) -> bool:
    """Whether a limit on sides or area that spares `probed` spares `size` too, or nearly so."""
    if (probed[0] - probed[1]) * (size[0] - size[1]) < 0:
        # upright pictures may have a limit of their own
        return False
    return probed[0] * NEARLY >= size[0] and probed[1] * NEARLY >= size[1]
