"""In which sizes a run's endpoint is checked."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from dataflow_grounding.geometry import Size

NEARLY = 1.05  # how much longer a side may be before a size is another one
SQUARE, LONG = 1.2, 3.0  # padding doesn't show in a picture less elongated than this; in one more so, models err


class CheckSizes:
    """The sizes in which a run's pictures are sent, and those that checks should ask in.

    Formats in parts of the side are checked in the commonest size, if nearly square also in an elongated one, where
    padding shows. Pixel formats are checked in the largest sizes too, upright and lying: servers reduce them first.
    """

    def __init__(self, in_pixels: bool) -> None:
        self._in_pixels = in_pixels
        self._sent: Counter[Size] = Counter()
        self._expected: Sequence[Size] = ()
        self._checked: list[Size] | None = []
        self._largest: dict[tuple[bool, str], Size] = {}
        self.outgrown = False
        """Whether pictures in pixels are sent that are larger than those checked so far."""

    def add(self, size: Size) -> None:
        """A picture is sent in this size."""
        self._sent[size] += 1
        if self._grow([size]) and self._in_pixels and self._checked is not None:
            self.outgrown = self.outgrown or not any(_covers(known, size) for known in self._checked)

    def expect(self, sizes: Iterable[Size]) -> None:
        """These will be sent, the commonest first."""
        self._expected = list(dict.fromkeys(sizes))
        self._grow(self._expected)

    def trust_all(self) -> None:
        """Whatever is sent is known to be seen as it should."""
        self._checked = None

    def chosen(self) -> list[Size]:
        """The sizes that a check should ask in, the commonest first."""
        few = sum(self._sent.values()) < 20
        commonest = self._expected[0] if self._expected and few else self._sent.most_common(1)[0][0]
        more = list(self._largest.values()) if self._in_pixels else self._elongated(commonest)
        chosen = [commonest]
        for size in more:
            alike = any(_covers(one, size) and _covers(size, one) for one in chosen)
            if not alike and not any(_covers(one, size) for one in chosen if one != commonest):
                chosen.append(size)
        if self._checked is not None:
            self._checked += chosen
        self.outgrown = False
        return chosen

    def _grow(self, sizes: Iterable[Size]) -> bool:
        """Note the largest areas and longest sides, lying and upright; returns whether any is larger than before."""
        larger = False
        for size in sizes:
            for name, measure in (("area", math.prod), ("side", max)):
                place = (size[0] < size[1], name)
                if place not in self._largest or measure(size) > measure(self._largest[place]):
                    self._largest[place], larger = size, True
        return larger

    def _elongated(self, commonest: Size) -> list[Size]:
        if _aspect(commonest) >= SQUARE:
            return []
        return [size for size in [*self._sent, *self._expected] if SQUARE <= _aspect(size) <= LONG][:1]


def _aspect(size: Size) -> float:
    return max(size) / min(size)


def _covers(one: Size, other: Size) -> bool:
    """Whether a limit on sides or area that leaves `one` alone leaves the `other` alone, or nearly so."""
    if (one[0] - one[1]) * (other[0] - other[1]) < 0:  # upright pictures may have a limit of their own
        return False
    return all(a * NEARLY >= b for a, b in zip(one, other, strict=True))
