"""Whether replies about many pictures in a row have the same boxes: then a model may not be shown
its pictures, or may not look at them.
"""

from collections.abc import Sequence

from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.geometry import Bbox, Size
from dataflow_grounding.engine.plan import Ask

IN_A_ROW = 10  # pictures from which on it is told
# Parts of the side by which edges differ at most: boxes are read as whole pixels, and the same
# numbers are rounded to other parts of the side in a picture of another size.
SAME = 0.005


class EqualBoxes:
    """Counts pictures in a row of which the replies have the same boxes, in parts of the sides."""

    def __init__(self) -> None:
        self._last_boxes: list[Bbox] = []
        self._paths_in_a_row: set[str] = set()
        self._is_told = False

    def add(self, boxes: Sequence[Bbox], size: Size, ask: Ask, path: str) -> None:
        """Add the boxes, in pixels, that were found in the picture at `path`, and warn once."""
        if not boxes:
            return
        width, height = size
        in_parts = [(x1 / width, y1 / height, x2 / width, y2 / height) for x1, y1, x2, y2 in boxes]
        if not _are_same(in_parts, self._last_boxes):
            self._paths_in_a_row.clear()  # a new row begins with this picture
        self._last_boxes = in_parts
        self._paths_in_a_row.add(path)
        if len(self._paths_in_a_row) >= IN_A_ROW and not self._is_told:
            self._is_told = True
            warning = f"the boxes of {IN_A_ROW} pictures in a row have the same numbers"
            ask.note("equal_boxes", warning)
            say(f"Warning: {warning}. See whether the model is shown the pictures.")


def _are_same(boxes: Sequence[Bbox], others: Sequence[Bbox]) -> bool:
    """Whether each box is one of the others, and each of the others one of these."""
    are_all_there = all(_is_among(others, box) for box in boxes)
    return are_all_there and all(_is_among(boxes, other) for other in others)


def _is_among(boxes: Sequence[Bbox], sought: Bbox) -> bool:
    for box in boxes:
        if all(abs(edge - other) <= SAME for edge, other in zip(box, sought, strict=True)):
            return True
    return False
