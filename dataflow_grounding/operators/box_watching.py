"""What the operators have in common that watch in which format a model writes boxes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from dataflow_grounding.calibration.choice import FormatChoice
from dataflow_grounding.engine.options import RunStart
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.operators.base import Operator
from dataflow_grounding.watch.box_watch import BoxWatch


class BoxWatching(Operator):
    """Settles the format in which boxes are asked for, if any are, and watches over a run that they are in it."""

    format_choice: FormatChoice | None
    watch: BoxWatch

    def prepare(self, start: RunStart) -> Counter[str]:
        """Calibrates a model whose box format isn't known, and begins to watch the boxes."""
        if self.serving is None or self.format_choice is None:
            return Counter()
        self.watch, asked = self.watch.begun(self.serving, self.format_choice, start)
        return asked

    def facts(self) -> dict[str, Any]:
        """Those of its watch."""
        return self.watch.facts()

    async def conclude(self, ask: Ask) -> None:
        """Lets the watch have its last word. Raises SuspectBoxes."""
        await self.watch.conclude(ask)
