"""Faults of the endpoint that tests of rooms show, and more."""

from __future__ import annotations

from collections.abc import Callable

from dataflow_grounding.testing import Fault, on
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support import faults
from tests.support.fault_cases.endpoint_faults import (
    AGAIN,
    COUNT,
    DOWN,
    MIDDLE,
    NO_TIME,
    ONE,
    QUOTA,
    REDIRECTED,
    REFUSED,
    STANDS,
    UNREADABLE,
    Weather,
    always,
    of_all,
    of_one,
)

EARLY = range(8, 10_000)


TWICE_NO_TIME = {**NO_TIME, "workflow.max_attempts": 2}


NO_CREDIT = (
    "The run stops with exit 3 and marks no record. After a top-up the same command goes on."
)


def down(seconds: float) -> Callable[[ReceivedRequest], bool]:
    """Whether the server is down: for so long from its twelfth request on."""
    first: list[float] = []

    def is_down(request: ReceivedRequest) -> bool:
        if request.index < 12:
            return False
        first.append(request.time)
        return request.time < first[0] + seconds

    return is_down


AT_THE_START = [  # which tests/serving/test_openai_compatible.py tells apart
    of_all("at the start: 404", faults.model_not_found()),
    of_all("at the start: 400 (key)", faults.bad_request("Incorrect API key provided.")),
    of_all("at the start: 400 (model)", faults.bad_request("Invalid model: foo")),
    of_all("at the start: 405", Fault(405, "Method Not Allowed")),
    of_all("at the start: 407", Fault(407, "Proxy Authentication Required")),
    of_all("for all records: 422", Fault(422, "Top up first."), REFUSED, most=15),
]
# tests/engine/test_resume.py counts what each costs
OF_ONE = [
    of_one(
        "402 for one record (fewer max_tokens)",
        "Only the record fails, and the next run tries it again. After two in a row"
        " the run stops with exit 3.",
        Fault(402, "Add credits, or fewer max_tokens."),
        final=False,
    ),
    of_one("a content filter: 400", REFUSED, faults.content_filter(), final=False),
    of_one("for one record: 403", REFUSED, Fault(403, "Your input was flagged."), final=False),
    of_one("for one record: 404", REFUSED, Fault(404, "No such image."), final=False),
    of_one("errors: 500 for one record", AGAIN, faults.server_error(500), final=False),
    REDIRECTED,
    of_one("replies: unreadable", UNREADABLE, faults.says("It's a cup.")),
    of_one("replies: truncated", UNREADABLE, faults.truncated(), task="expression_extraction"),
    of_one("refused replies", STANDS, faults.refusal()),
    of_one("a content filter: replies", STANDS, faults.filtered_reply()),
]
OF_ROOMS = [  # of tests/engine: test_refusals.py, test_limits.py, test_outage.py
    Weather(
        "no credit: 429", NO_CREDIT, always(on(faults.quota_exceeded(), indexes=MIDDLE)), 3, most=33
    ),
    Weather(
        "no credit: 402",
        NO_CREDIT,
        always(on(Fault(402, "Out of credit."), indexes=MIDDLE)),
        3,
        most=33,
    ),
    Weather(
        "for all records: 403 after a few answers",
        REFUSED,
        always(on(faults.forbidden(), indexes=EARLY)),
        4,
        most=48,
    ),
    Weather(
        "a day's quota used up: 429",
        QUOTA,
        always(on(faults.too_many_requests(30_000), indexes=MIDDLE)),
        3,
        most=33,
    ),
    Weather(
        "a day's quota used up: 429 without end",
        QUOTA,
        always(on(faults.too_many_requests(), indexes=MIDDLE)),
        3,
        most=100,
        settings={"workflow.max_wait": 1},
    ),
    Weather(
        "a hang", AGAIN, always(on(faults.hang(), containing=ONE)), 1, 1, settings=TWICE_NO_TIME
    ),
    Weather(
        "a server: stops too long",
        AGAIN,
        lambda full: on(faults.stall(3.0), indexes=[15]),
        settings={"vlm.openai.timeout": 2, "workflow.max_attempts": 5},
    ),
    Weather(
        "503 for minutes",
        DOWN,
        lambda full: on(faults.server_error(503), where=down(25.0 if full else 4.0)),
        most=8 * COUNT,  # 16 are under way, and tried after 1, 2, 4, 8 s: 20 s without an answer
    ),
    Weather(
        "a body: too slow",
        AGAIN,
        always(on(faults.slow_drip(50), containing=ONE)),
        1,
        1,
        settings=TWICE_NO_TIME,
    ),
]
