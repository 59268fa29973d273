"""How far a run's boxes reach: a figure that a wrong range of numbers can't hide from.

Read in too large a range, all boxes of a run crowd in the upper left part of their pictures.
"""

from collections.abc import Sequence

from dataflow_grounding.boxes.geometry import Bbox

# Of ENOUGH boxes of an orientation at least one reaches into the far half of the picture.
ENOUGH = 100
NEVER_PASSED = 0.5
SMALLER = 0.9  # a range of numbers is smaller than another one if it is less than this part of it
PER_MILLE = 1000  # the range of most formats in parts of the side


class Reach:
    """How far the boxes of one orientation reach."""

    def __init__(self) -> None:
        self.told = False  # whether the user was told that it is short
        self.boxes = 0
        self.furthest = [0.0, 0.0]  # of x and of y, in parts of the side
        self.smaller = [0, 0]  # boxes in pictures for which the other range is smaller
        self.furthest_of_smaller = [0.0, 0.0]  # in parts of that range

    def add(self, boxes: Sequence[Bbox], others: tuple[float, float]) -> None:
        """Add a reply's boxes.

        Args:
            boxes: x1, y1, x2, y2 in parts of the picture's sides, as read in the format asked for.
            others: The range of x, and of y, in another format, in parts of that of the one asked
                for: of pixels or, where these were asked for, of PER_MILLE.
        """
        if not boxes:
            return
        self.boxes += len(boxes)
        for axis in (0, 1):
            furthest = max([box[axis + 2] for box in boxes])
            if furthest > self.furthest[axis]:
                self.furthest[axis] = furthest
            smaller = others[axis]
            if smaller < SMALLER:
                self.smaller[axis] += len(boxes)
                far = furthest / smaller
                self.furthest_of_smaller[axis] = max(self.furthest_of_smaller[axis], far)

    def short(self) -> str | None:
        """Return in words how far ENOUGH boxes reach at most, if it is strangely little."""
        for axis, side in enumerate(("width", "height")):
            if self.boxes >= ENOUGH and self.furthest[axis] <= NEVER_PASSED:
                return f"of {self.boxes} boxes none passes {self.furthest[axis]:.0%} of the {side}"
            if self.smaller[axis] >= ENOUGH and self.furthest_of_smaller[axis] <= 1:
                return (
                    f"of {self.smaller[axis]} boxes no number passes the {side} of its picture in"
                    " pixels"
                )
        return None
