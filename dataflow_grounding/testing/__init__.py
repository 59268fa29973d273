"""A loopback model server for tests, with answers and faults of your choice: see LoopbackServer."""

from dataflow_grounding.serving.serving import Usage
from dataflow_grounding.testing.answers import Answers, CannedAnswers, EchoAnswers
from dataflow_grounding.testing.dialects import Answer
from dataflow_grounding.testing.faults import Fault, FaultRule, on
from dataflow_grounding.testing.received import BadRequest, ReceivedImage, ReceivedRequest
from dataflow_grounding.testing.server import LoopbackServer

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
    "Usage",
    "on",
]
