"""Whether replies about many pictures in a row have the same numbers: then a model may not be shown
its pictures, or may not look at them.
"""

from dataflow_grounding._util.terminal import say
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.trust.reply_judge import JudgedReply

IN_A_ROW = 10  # pictures from which on it is told


class EqualBoxes:
    """Counts pictures in a row of which the replies have the same numbers, in any order."""

    def __init__(self) -> None:
        self._last_numbers: set[Bbox] = set()
        self._paths_in_a_row: set[str] = set()
        self._is_told = False

    def add(self, reply: JudgedReply, ask: Ask, path: str) -> None:
        """Add a reply about the picture at `path`, and warn once."""
        numbers = {box.numbers for box in reply.boxes}
        if not numbers:
            return
        if numbers != self._last_numbers:
            self._paths_in_a_row.clear()  # a new row begins with this picture
        self._last_numbers = numbers
        self._paths_in_a_row.add(path)
        if len(self._paths_in_a_row) >= IN_A_ROW and not self._is_told:
            self._is_told = True
            warning = f"the boxes of {IN_A_ROW} pictures in a row have the same numbers"
            ask.note("equal_boxes", warning)
            say(f"Warning: {warning}. See whether the model is shown the pictures.")
