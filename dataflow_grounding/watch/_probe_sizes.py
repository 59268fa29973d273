"""In which sizes the probe pictures of a run are asked for."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.calibration.alike_sizes import Covers, covers_for

OFTEN = 0.05  # share of a run's pictures from which on an orientation has probe pictures of its own
# pictures sent before their own shares count, and not those of the pictures that were looked at
# before
KNOWN = 20
NEARLY = 1.05  # how much longer a side may be before a size is another one
# padding doesn't show in a picture less elongated than this; in one more so, models err
SQUARE, LONG = 1.2, 3.0


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

    def others(self) -> list[str]:
        """The orientations that there are."""
        return list(self._orientations)

    def frequent(self) -> list[str]:
        """The orientations of many of the pictures, the commonest first."""
        return [
            name for name, count in self._orientations.most_common() if count >= OFTEN * self.total
        ]

    def commonest(self, orientation: str, probed: Sequence[Size], covers: Covers) -> Size:
        """The commonest size of an orientation that there is, if possible one that none of those
        `probed` covers.
        """
        of_orientation = [
            size for size, _ in self.sizes.most_common() if orientation_of(size) == orientation
        ]
        return next(
            (size for size in of_orientation if not covers(size, probed)), of_orientation[0]
        )


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
        self._sent, self._expected = _Pictures(), _Pictures()
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
        """Whether pictures are sent in sizes, or an orientation, that no probe picture has stood
        for.
        """
        if self.checked is None:
            return False
        if any(name not in self._probed for name in self._pictures().frequent()):
            return True
        return self._in_pixels and not all(
            any(_covers(probed, size) for probed in self.checked) for size in self._largest.values()
        )

    def chosen(
        self, *, every: bool = False, orientation: str | None = None, last: bool = False
    ) -> list[Size]:
        """The sizes to probe now: of `every` orientation that is frequent, of a stated one, or of
        the one that was probed longest ago; at the `last` check of all others that never were, too.
        """
        self._checks += 1
        pictures = self._pictures()
        names = pictures.frequent()
        if orientation is not None and pictures.has(orientation):
            names = [orientation]
        elif not every:
            names = [min(names, key=lambda name: self._probed.get(name, 0))]
        if last:
            names = list(
                dict.fromkeys(
                    [*names, *(name for name in pictures.others() if name not in self._probed)]
                )
            )
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
        return self._expected if self._expected.total and self._sent.total < KNOWN else self._sent

    def _grow(self, size: Size) -> None:
        for name, measure in (("area", math.prod), ("side", max)):
            place = (orientation_of(size), name)
            self._largest[place] = max(self._largest.get(place, size), size, key=measure)

    def _largest_beside(self, commonest: list[Size], orientations: Sequence[str]) -> list[Size]:
        """The largest sizes of these orientations, where the commonest ones don't
        stand for them.
        """
        return [
            size
            for (orientation, _), size in self._largest.items()
            if orientation in orientations
            and not any(_covers(probed, size) for probed in commonest)
        ]

    def _turns(self, sizes: list[Size]) -> list[Size]:
        """Of sizes that one check would do for, those that none has asked for; else the one that
        waits the longest.
        """
        new = [size for size in sizes if size not in self._asked]
        return new or [min(sizes, key=lambda size: self._asked[size])]

    def _elongated(self, chosen: list[Size]) -> list[Size]:
        if any(_aspect(size) >= SQUARE for size in chosen):
            return []
        others = (*self._sent.sizes, *self._expected.sizes)
        return [size for size in others if SQUARE <= _aspect(size) <= LONG][:1]


def _aspect(size: Size) -> float:
    return max(size) / min(size)


def _covers(probed: Size, size: Size) -> bool:
    """Whether a limit on sides or area that leaves `probed` alone leaves `size` alone, or nearly
    so.
    """
    if (probed[0] - probed[1]) * (size[0] - size[1]) < 0:
        # upright pictures may have a limit of their own
        return False
    return all(a * NEARLY >= b for a, b in zip(probed, size, strict=True))
