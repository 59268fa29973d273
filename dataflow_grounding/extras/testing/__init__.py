"""A loopback model server for tests, with answers and faults of your choice: see LoopbackServer."""

from dataflow_grounding.extras.testing import faults
from dataflow_grounding.extras.testing.answers import Answers, CannedAnswers, EchoAnswers
from dataflow_grounding.extras.testing.dialects import Answer
from dataflow_grounding.extras.testing.faults import Fault, FaultRule, on
from dataflow_grounding.extras.testing.received import BadRequest, ReceivedImage, ReceivedRequest
from dataflow_grounding.extras.testing.server import LoopbackServer
from dataflow_grounding.extras.testing.takes import Takes
from dataflow_grounding.serving.base import Usage

__all__ = [
    "Answer",
    "Answers",
    "BadRequest",
    "CannedAnswers",
    "EchoAnswers",
    "Fault",
    "FaultRule",
    "LoopbackServer",
    "ReceivedImage",
    "ReceivedRequest",
    "Takes",
    "Usage",
    "faults",
    "on",
]
