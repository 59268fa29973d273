"""The states of the watch of a run; docs/calibration.md draws how one leads to another."""

from enum import Enum


class State(Enum):
    """What the watch of a run knows, and what may be sent meanwhile."""

    UNPROBED = "nothing is known yet: nothing is sent before a probe picture is answered"
    TRUSTED = "boxes are in the format, as far as known"
    PROBING = "a probe picture is on its way, and requests go on"
    HOLDING = "a probe picture is on its way, and nothing else is sent before it is answered"
    BLIND = "there are no probe pictures, or they tell nothing: the replies alone are judged"
    SUSPECT = "boxes are in another format, and the run goes on with a warning"
    STOPPED = "boxes are in another format, and nothing more is sent"
    ENDED = "the run has ended: requests pass unwatched"
