"""Whether replies about many pictures in a row have the same numbers: then a model may not be shown
its pictures, or may not look at them.
"""

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.trust.reply_judge import JudgedReply

IN_A_ROW = 10  # pictures from which on it is told: a model may not see its pictures


class EqualBoxes:
    """Counts pictures in a row of which the replies have the same numbers, in any order."""

    def __init__(self) -> None:
        self._last_numbers: set[Bbox] = set()
        self._paths_in_a_row: set[str] = set()
        self._is_told = False

    def add(self, reply: JudgedReply, path: str) -> str:
        """Add a reply about the picture at `path`; return what to say, once, or ""."""
        numbers = {box.numbers for box in reply.boxes}
        if not numbers:
            return ""
        if numbers != self._last_numbers:
            self._paths_in_a_row.clear()  # a new row begins with this picture
        self._last_numbers = numbers
        self._paths_in_a_row.add(path)
        if self._is_told or len(self._paths_in_a_row) < IN_A_ROW:
            return ""
        self._is_told = True
        return f"the boxes of {IN_A_ROW} pictures in a row have the same numbers"
