"""What calibrating raises where no format can be named."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dataflow_grounding._util.errors import SpecError

if TYPE_CHECKING:
    from dataflow_grounding.trust.probes import ProbedPicture


class NoFit(SpecError):
    """No format can be named.

    The message says what was seen, the `pictures` are those that were answered.
    """

    pictures: "Sequence[ProbedPicture]" = ()
