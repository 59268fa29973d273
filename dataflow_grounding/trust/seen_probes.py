"""What the probe pictures of a run have shown so far."""

import itertools
import random
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dataflow_grounding.engine.summary import most_in_another_format

if TYPE_CHECKING:
    from dataflow_grounding.trust.maps import Array
    from dataflow_grounding.trust.showing import Rectangles, Showing

NO_FORMAT = "no known format"  # what fits a picture that was answered otherwise than asked
LAYOUTS = 1000  # of rectangles: one used lately might be answered from a gateway's cache
POOLED = 8  # pictures whose lines are fitted together: the last ones
COMPARED = 40  # pictures that further ones are compared with: the last ones
# Two odd answers count together if they are within as many pictures. Each comes by chance in one of
# 2,000 (`showing.LEAST_CHANCE`).
TOGETHER = 100


class SeenProbes:
    """What was seen of probe pictures.

    Attributes:
        as_asked: How many were answered as asked.
        cleared: How many were not, though further copies of them were.
        odd: In which formats some of these, or of the copies, were clearly answered.
        pictures: How many were answered, without those that confirm a miss.
    """

    def __init__(self) -> None:
        self.as_asked = 0
        self.cleared = 0
        self.odd: list[str] = []
        self.pictures = 0
        self._odd_at: list[int] = []  # how many pictures there were at each of `odd`
        self._rectangles: deque[Rectangles] = deque(maxlen=COMPARED)
        # Two in succession are never the same.
        self._layouts = itertools.cycle(random.SystemRandom().sample(range(LAYOUTS), LAYOUTS))

    def next_layout(self) -> int:
        """Return the layout of the next picture's rectangles."""
        return next(self._layouts)

    def add(self, showings: "Sequence[Showing]") -> None:
        """Add those that were answered as asked."""
        for showing in showings:
            if showing.kind != "silent":
                self.pictures += 1
            if showing.kind == "fits":
                self.as_asked += 1
                if showing.rectangles is not None:
                    self._rectangles.append(showing.rectangles)

    def clear(self, formats: Sequence[str]) -> None:
        """Add a picture of which further copies fit.

        `formats` are those of the copies that were clearly answered otherwise.
        """
        self.cleared += 1
        self.odd += formats
        self._odd_at += [self.pictures] * len(formats)

    @property
    def lately_odd(self) -> list[str]:
        """Those of `odd` that are not longer ago than TOGETHER pictures."""
        lately = []
        for name, at in zip(self.odd, self._odd_at, strict=True):
            if self.pictures - at <= TOGETHER:
                lately.append(name)
        return lately

    @property
    def last(self) -> "list[Rectangles]":
        """The rectangles of the last pictures that were answered as asked."""
        return list(self._rectangles)[-POOLED:]

    def usual(self) -> "Array | None":
        """Return how far off the worst edges of the last rectangles were; None without any."""
        import numpy as np  # few runs have checked before this module is imported

        off = [rectangles.off for rectangles in self._rectangles]
        return np.concatenate(off) if off else None

    def facts(self) -> dict[str, Any]:
        """Return what they prove; {} where none was answered.

        `as_asked` of them were answered so, and `odd` were not, though further copies were. At most
        the share `at_most` of the replies can be in another format (95%; None without a bound). All
        boxes together may be off by less than `least_shift` of a side without its being noticed.
        """
        if not self._rectangles:
            return {}
        from dataflow_grounding.trust.showing import least_noticed

        at_most = most_in_another_format(self.as_asked, self.cleared)
        least_shift = least_noticed(self.last)
        return {
            "as_asked": self.as_asked,
            "odd": self.cleared,
            "at_most": round(at_most, 4) if at_most < 1 else None,
            "least_shift": None if least_shift is None else round(least_shift, 4),
        }
