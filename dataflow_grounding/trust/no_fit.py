"""What calibrating raises where no format can be named."""

from dataflow_grounding._util.errors import SpecError


class NoFit(SpecError):
    """No format can be named; the message says what was seen."""
