"""Faults of the endpoint and of the way to it."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.fault_cases.fault_case import Case, Outcome, Witness, calm, lost_rows, undisturbed
from dataflow_grounding.testing import Fault, FaultRule, faults, on
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.workplace import Workplace

COUNT = 20
ONE = "Cup 7 "
"""What only the caption of row r7 holds."""


@dataclass(frozen=True)
class Weather:
    """A run of 20 records (40 requests) under `rule`, then the same command once more in good
    weather.

    `code`, `failed`: of the first run. `final`: the failures stand until --retry-failed. `most`
    bounds what it sends.
    """

    name: str
    promise: str
    rule: Callable[[bool], FaultRule]
    code: int = 0
    failed: int = 0
    final: bool = False
    most: int = 3 * COUNT
    settings: Mapping[str, Any] = field(default_factory=dict)

    def case(self) -> Case:
        """As a line of the table."""
        return Case(self.name, self.promise, functools.partial(play, self))


def play(weather: Weather, place: Workplace, full: bool) -> Outcome:
    """Both runs; the files at the end are those of an undisturbed run."""
    place.many(COUNT)
    with Witness([weather.rule(full)]) as witness:
        place.settings["vlm.openai.base_url"] = witness.server.base_url
        done = place.run(**weather.settings)
        calm(done)
        assert done.code == weather.code, done
        assert witness.sent <= weather.most, f"{witness.sent} requests\n{done}"
        lost = 0
        if "stopped" not in done.summary:
            assert done.summary["failed"] == weather.failed, done
            lost = lost_rows(place, COUNT)
        witness.rules.clear()
        again = place.run(*(["--retry-failed"] if weather.final else []))
        assert again.code == 0, again
        assert place.files() == undisturbed(COUNT)
        assert place.failures() == []
        return Outcome(witness.sent, witness.twice, lost + lost_rows(place, COUNT))


def unreachable(url: str, place: Workplace, full: bool) -> Outcome:
    """An endpoint that isn't there."""
    place.many(COUNT)
    done = place.run(**{"vlm.openai.base_url": url})
    calm(done)
    assert done.code == 4, done
    assert "Nothing was answered" in done.err
    with Witness() as witness:
        done = place.run(**{"vlm.openai.base_url": witness.server.base_url})
        assert done.code == 0, done
        return Outcome(witness.sent, witness.twice, lost_rows(place, COUNT))


def closed_port() -> str:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


BURST = range(12, 18)
MIDDLE = range(25, 10_000)
EARLY = range(8, 10_000)
NO_TIME = {"vlm.openai.timeout": 4.0}  # a request that hangs costs it; no other may meet it
TWICE_NO_TIME = {**NO_TIME, "workflow.max_attempts": 2}
LIMITS = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
DAY_USED_UP = (  # as Google's OpenAI-compatible address has it
    b'[{"error": {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED",'
    b' "details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations":'
    b' [{"quotaId": "RequestsPerDayPerModel"}]}]}}]'
)
STOPS = (
    "The run stops within a few requests, exit 4. Fix the key, model or address and run "
    "the same command."
)
WAITED = "The run waits as long as the endpoint asks. No attempt is used up."
AGAIN = (
    "The request is tried up to `workflow.max_attempts` times. Then its record fails, and"
    " the next run tries it again."
)
CUT_OFF = (
    "Never taken for a whole reply: asked again, in parts or cooler, up to "
    "`workflow.max_attempts` times. Then the record fails."
)
OTHERS = "After an answer to any request, only the record fails. Ten in a row stop the run, exit 4."
UNBROKEN = "Ten refusals before the first answer stop the run, exit 4. None is stored."
PAGES = "If nothing was answered before, the run stops within ten requests, exit 4."
QUOTA = (
    "If the wait exceeds `workflow.max_wait`, the run stops, exit 3, and says when to come back."
)
STANDS = "Only the record fails. `--retry-failed` asks again."


def always(rule: FaultRule) -> Callable[[bool], FaultRule]:
    """The same rule, quick or full."""
    return lambda full: rule


def first_try(request: ReceivedRequest) -> bool:
    """Whether the question comes without a complaint about an earlier reply."""
    return "could not be read" not in request.text


def fresh(make: Callable[[], FaultRule]) -> Callable[[bool], FaultRule]:
    """A rule that counts, so that each run needs a new one."""
    return lambda full: make()


def busy_for(seconds: float) -> FaultRule:
    """429 with Retry-After: 0 for so long after the first request."""
    first: list[float] = []

    def rule(request: ReceivedRequest) -> Fault | None:
        first.append(request.time)
        return faults.too_many_requests(0) if request.time < first[0] + seconds else None

    return rule


_WEATHERS = [
    Weather("401 at the start", STOPS, always(on(faults.unauthorized())), 4, most=8),
    Weather("403 at the start", STOPS, always(on(faults.forbidden())), 4, most=8),
    Weather("404 for an unknown model", STOPS, always(on(faults.model_not_found())), 4, most=8),
    Weather(
        "401 in the middle", STOPS, always(on(faults.unauthorized(), indexes=MIDDLE)), 4, most=33
    ),
    Weather(
        "429 for lack of credit",
        STOPS,
        always(on(faults.quota_exceeded(), indexes=MIDDLE)),
        4,
        most=33,
    ),
    Weather(
        "400 for one record (content filter)",
        STANDS,
        always(on(faults.content_filter(), containing=ONE)),
        1,
        1,
        True,
    ),
    *(
        Weather(
            f"a refusal of one record: {status}",
            OTHERS,
            always(on(Fault(status, said), containing=ONE)),
            1,
            1,
            True,
        )
        for status, said in (
            (402, "Out of credit."),
            (403, "Your input was flagged."),
            (404, "No such image."),
        )
    ),
    Weather(
        "403 for all records after a few",
        OTHERS,
        always(on(faults.forbidden(), indexes=EARLY)),
        4,
        most=48,
    ),
    Weather(
        "400 for a wrong key",
        STOPS,
        always(on(faults.bad_request("Incorrect API key provided."))),
        4,
        most=8,
    ),
    Weather(
        "400 for an unknown model",
        STOPS,
        always(on(faults.bad_request("Invalid model: foo"))),
        4,
        most=8,
    ),
    Weather("405 for all records", STOPS, always(on(Fault(405, "Method Not Allowed"))), 4, most=8),
    Weather(
        "407 from a proxy",
        STOPS,
        always(on(Fault(407, "Proxy Authentication Required"))),
        4,
        most=8,
    ),
    Weather("400 for all records", UNBROKEN, always(on(faults.bad_request())), 4, most=10),
    Weather("413 for all records", UNBROKEN, always(on(Fault(413, "Too large."))), 4, most=10),
    Weather(
        "an unknown refusal for all records",
        UNBROKEN,
        always(on(Fault(422, "Top up first."))),
        4,
        most=10,
    ),
    Weather(
        "a web page instead of completions", PAGES, always(on(faults.html_error(200))), 4, most=10
    ),
    Weather(
        "a stream instead of completions",
        PAGES,
        always(
            on(
                Fault(
                    200,
                    body=b'data: {"choices": []}\n\n',
                    headers={"Content-Type": "text/event-stream"},
                )
            )
        ),
        4,
        most=10,
    ),
    Weather(
        "a day's quota used up",
        QUOTA,
        always(on(faults.too_many_requests(30_000), indexes=MIDDLE)),
        3,
        most=33,
    ),
    Weather(
        "a day's quota used up (a JSON list)",
        QUOTA,
        always(on(Fault(429, body=DAY_USED_UP), indexes=MIDDLE)),
        3,
        most=33,
    ),
    Weather(
        "429 without end",
        QUOTA,
        always(on(faults.too_many_requests(), indexes=MIDDLE)),
        3,
        most=100,
        settings={"workflow.max_wait": 1},
    ),
    Weather(
        "429 with Retry-After in seconds",
        WAITED,
        always(on(faults.too_many_requests(0.2), share=0.3)),
        most=100,
    ),
    Weather("429 with Retry-After 0", WAITED, fresh(lambda: busy_for(1.0)), most=150),
    Weather(
        "429 with Retry-After as a date",
        WAITED,
        fresh(lambda: on(faults.too_many_requests(1, http_date=True), times=8)),
    ),
    Weather(
        "429 without Retry-After", WAITED, fresh(lambda: on(faults.too_many_requests(), times=8))
    ),
    Weather(
        "429 with rate-limit headers",
        WAITED,
        fresh(lambda: on(faults.too_many_requests(headers=LIMITS), times=8)),
    ),
    Weather(
        "rate-limit headers that name a day",
        "The run doesn't wait that long: the next request finds out.",
        always(on(Fault(headers={**LIMITS, "x-ratelimit-reset-requests": "24h"}), indexes=BURST)),
    ),
    *(
        Weather(
            f"a burst of errors: {status}",
            AGAIN,
            always(on(faults.server_error(status), indexes=BURST)),
        )
        for status in (500, 502, 503, 529)
    ),
    Weather(
        "503 with Retry-After", WAITED, fresh(lambda: on(faults.server_error(503, 0.3), times=6))
    ),
    Weather(
        "500 for one record", AGAIN, always(on(faults.server_error(500), containing=ONE)), 1, 1
    ),
    Weather("a proxy's error page", AGAIN, always(on(faults.html_error(502), indexes=BURST))),
    Weather(
        "a redirect",
        AGAIN,
        always(on(replace(faults.bad_request(), status=302), containing=ONE)),
        1,
        1,
    ),
    Weather("timeouts", AGAIN, always(on(faults.hang(), indexes=range(12, 15))), settings=NO_TIME),
    Weather(
        "a hang", AGAIN, always(on(faults.hang(), containing=ONE)), 1, 1, settings=TWICE_NO_TIME
    ),
    Weather(
        "a connection closed without an answer",
        AGAIN,
        always(on(faults.disconnect(), indexes=BURST)),
    ),
    Weather(
        "a connection cut in the middle of a body",
        AGAIN,
        always(on(faults.cut_body(0.8), indexes=BURST)),
    ),
    Weather(
        "a server that stops for 20 s",
        "The run waits.",
        lambda full: on(faults.stall(20 if full else 1.5), indexes=[15]),
        settings={"vlm.openai.timeout": 60},
    ),
    Weather(
        "a server that stops for longer than the timeout",
        "Requests without an answer are sent again.",
        lambda full: on(faults.stall(1.2), indexes=[15]),
        settings={"vlm.openai.timeout": 0.8, "workflow.max_attempts": 5},
    ),
    Weather(
        "a server that is restarted",
        "The run tries to connect for five minutes.",
        lambda full: on(faults.refuse_connections(10 if full else 1.5), indexes=[15]),
    ),
    Weather("a body of garbage", AGAIN, always(on(faults.garbage(), indexes=BURST))),
    Weather("an empty body", AGAIN, always(on(faults.empty_body(), indexes=BURST))),
    Weather("a body of broken JSON", AGAIN, always(on(faults.invalid_json(), indexes=BURST))),
    Weather(
        "JSON that is not a reply",
        AGAIN,
        always(on(faults.odd_json('{"choices": [null]}'), indexes=BURST)),
    ),
    Weather(
        "replies that can't be read",
        (
            "The question is asked again, with what was wrong. If the reply stays unreadable,"
            " the record fails."
        ),
        always(on(faults.says("It's a cup."), containing=ONE)),
        1,
        1,
        True,
    ),
    Weather(
        "replies unreadable once",
        (
            "The question is asked again, with what was wrong. If the reply stays unreadable,"
            " the record fails."
        ),
        always(on(faults.says("No."), task="phrase_grounding", where=first_try)),
    ),
    Weather(
        "replies that end in the middle, once",
        CUT_OFF,
        always(on(faults.says('{"expressions": ['), task="expression_extraction", where=first_try)),
    ),
    Weather(
        "replies truncated once",
        CUT_OFF,
        always(on(faults.truncated(), task="expression_extraction", where=first_try)),
    ),
    Weather(
        "truncated replies",
        CUT_OFF,
        always(on(faults.truncated(), task="expression_extraction", containing=ONE)),
        1,
        1,
        True,
    ),
    Weather("refused replies", STANDS, always(on(faults.refusal(), containing=ONE)), 1, 1, True),
    Weather(
        "replies stopped by a filter",
        STANDS,
        always(on(faults.filtered_reply(), containing=ONE)),
        1,
        1,
        True,
    ),
    Weather(
        "slow bodies",
        "Accepted within the timeout.",
        always(on(faults.slow_drip(2000), indexes=BURST)),
    ),
    Weather(
        "bodies too slow for the timeout",
        AGAIN,
        always(on(faults.slow_drip(50), containing=ONE)),
        1,
        1,
        settings=TWICE_NO_TIME,
    ),
    Weather(
        "replies of 10 MB",
        "Read and kept, up to 32 MiB.",
        always(on(faults.huge_reply(), indexes=[12, 13])),
    ),
]

ENDPOINT: list[Case] = [
    *(weather.case() for weather in _WEATHERS),
    Case("DNS failure", STOPS, functools.partial(unreachable, "http://nowhere.invalid/v1")),
    Case(
        "nothing listens there", STOPS, lambda place, full: unreachable(closed_port(), place, full)
    ),
]
