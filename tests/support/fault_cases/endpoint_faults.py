"""Faults of the endpoint and of the way to it."""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dataflow_grounding.testing import Fault, FaultRule, on
from dataflow_grounding.testing.faults import first_of
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support import faults
from tests.support.fault_cases.fault_case import (
    Case,
    Outcome,
    Witness,
    calm,
    lost_rows,
    undisturbed,
)
from tests.support.workplace import Workplace

COUNT = 20
ONE = "Cup 7 "
"""What only the caption of row r7 holds."""


@dataclass(frozen=True)
class Weather:
    """A run of 20 records (40 requests) under `rule`, then the same command once more in good
    weather.

    `code`, `failed`: of the first run. `final`: the failures stay until --retry-failed. `most`
    bounds what it sends. `fault` and `where` are those of a rule that could strike other requests.
    """

    name: str
    promise: str
    rule: Callable[[bool], FaultRule]
    code: int = 0
    failed: int = 0
    final: bool = False
    most: int = 3 * COUNT
    settings: Mapping[str, Any] = field(default_factory=dict)
    fault: Fault | None = None
    where: Mapping[str, Any] = field(default_factory=dict)

    def case(self) -> Case:
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
    count = COUNT if full else 2
    place.many(count)
    done = place.run(**{"vlm.openai.base_url": url})
    calm(done)
    assert done.code == 4, done
    assert "Nothing was answered" in done.err
    with Witness() as witness:
        done = place.run(**{"vlm.openai.base_url": witness.server.base_url})
        assert done.code == 0, done
        return Outcome(witness.sent, witness.twice, lost_rows(place, count))


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


BURST = range(12, 18)
MIDDLE = range(25, 10_000)
NO_TIME = {"vlm.openai.timeout": 4.0}  # a request that hangs costs it; no other may meet it
LIMITS = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "300ms"}
DAY_USED_UP = (  # as Google's OpenAI-compatible address has it
    b'[{"error": {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED",'
    b' "details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations":'
    b' [{"quotaId": "RequestsPerDayPerModel"}]}]}}]'
)
STOPS = "The run stops with exit 4 after a few requests."
WAITED = "The run waits as asked, and uses up no attempt."
AGAIN = "The request is sent up to `workflow.max_attempts` times. Then the record fails, and the next run tries it again."
REFUSED = "Only the record fails, and the next run asks again. After ten in a row the run asks a plain question; if that is refused, too, it stops with exit 4."
QUOTA = "The run stops with exit 3 if it would have to wait longer than `workflow.max_wait`."
STANDS = "Only the record fails. `--retry-failed` asks for it again."
UNREADABLE = "The question is asked again in another way. Then the record fails."
DOWN = (
    "The run waits up to `workflow.max_wait`, then stops with exit 3. No record loses an attempt."
)


def always(rule: FaultRule) -> Callable[[bool], FaultRule]:
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


def passing(name: str, fault: Fault, promise: str = AGAIN, **where: Any) -> Weather:
    """What some requests meet, and not when they are sent again."""
    rule = on(fault, **(where or {"indexes": BURST}))
    return Weather(name, promise, always(rule), fault=fault, where=where)


def of_one(
    name: str, promise: str, fault: Fault, final: bool = True, task: str | None = None
) -> Weather:
    rule = on(fault, containing=ONE, task=task)
    return Weather(name, promise, always(rule), 1, 1, final, fault=fault, where={"task": task})


def of_all(name: str, fault: Fault, promise: str = STOPS, most: int = 8) -> Weather:
    return Weather(name, promise, always(on(fault)), 4, most=most)


ACCEPTED = "The reply is accepted, within the timeout and up to 32 MiB."
EXTRACTION: dict[str, Any] = {"task": "expression_extraction", "where": first_try}
GROUNDING: dict[str, Any] = {"task": "phrase_grounding", "where": first_try}
EVENTS = {"Content-Type": "text/event-stream"}
A_STREAM = Fault(200, body=b'data: {"choices": []}\n\n', headers=EVENTS)
NAMING_A_DAY = Fault(headers={**LIMITS, "x-ratelimit-reset-requests": "24h"})

PASSING = [
    *(passing(f"errors: {code}", faults.server_error(code)) for code in (500, 502, 503, 529)),
    passing("errors: a proxy's page", faults.html_error(502)),
    passing("a connection: closed", faults.disconnect()),
    passing("a connection: cut in a body", faults.cut_body(0.8)),
    passing("a body: garbage", faults.garbage()),
    passing("a body: empty", faults.empty_body()),
    passing("a body: broken JSON", faults.invalid_json()),
    passing("a body: another JSON", faults.odd_json('{"choices": [null]}')),
    passing("replies: unreadable once", faults.says("No."), UNREADABLE, **GROUNDING),
    passing("replies: ended early", faults.says('{"expressions": ['), UNREADABLE, **EXTRACTION),
    passing("replies: truncated once", faults.truncated(), UNREADABLE, **EXTRACTION),
    passing("rate-limit headers naming a day", NAMING_A_DAY, "The run doesn't wait for it."),
    passing("slow bodies", faults.slow_drip(2000), ACCEPTED),
]
OF_ALL = [
    of_all("at the start: 401", faults.unauthorized()),
    of_all("at the start: 403", faults.forbidden()),
    of_all("a redirect for all records", Fault(307, "moved"), most=1),
    of_all("for all records: 400", faults.bad_request(), REFUSED, most=15),
    of_all("for all records: 413", Fault(413, "Too large."), REFUSED, most=15),
    of_all("for all records: a web page", faults.html_error(200), REFUSED, most=10),
    of_all("for all records: a stream", A_STREAM, REFUSED, most=10),
]


REDIRECTED = of_one("a redirect", AGAIN, replace(faults.bad_request(), status=302), final=False)


def play_passing(place: Workplace) -> None:
    """One run in which the captions of several records meet a fault each; all questions for boxes,
    which hold no caption, meet one.
    """
    place.many(COUNT)
    rules, more = [], 0
    for number, weather in enumerate([*PASSING, REDIRECTED]):
        assert weather.fault
        is_of_boxes = weather.where == GROUNDING
        text = None if is_of_boxes else f"Cup {number} "
        rules.append(on(weather.fault, containing=text, times_each=1, **weather.where))
        if weather.promise in (AGAIN, UNREADABLE):
            more += COUNT if is_of_boxes else 1
    with Witness(rules) as witness:
        done = place.run(**{"vlm.openai.base_url": witness.server.base_url})
        calm(done)
        assert (done.code, done.summary["failed"]) == (0, 0), done
        assert witness.sent >= 2 * COUNT + more
        assert witness.twice == 0
    assert place.files() == undisturbed(COUNT)


def play_of_all(place: Workplace) -> None:
    """A run in each weather, all in one folder; each stops. Then a run in good weather."""
    place.many(COUNT)
    for weather in OF_ALL:
        with Witness([weather.rule(False)]) as witness:
            done = place.run(**{"vlm.openai.base_url": witness.server.base_url})
            calm(done)
            assert (done.code, place.failures()) == (4, []), (weather.name, done)
            assert witness.sent <= weather.most, f"{weather.name}: {witness.sent} requests"
    with Witness() as witness:
        done = place.run(**{"vlm.openai.base_url": witness.server.base_url})
        assert done.code == 0, done
        assert place.files() == undisturbed(COUNT)
        assert (witness.sent, place.failures()) == (2 * COUNT, [])


WAITS = [
    Weather(
        "Retry-After: seconds",
        WAITED,
        always(on(faults.too_many_requests(0.2), share=0.3)),
        most=100,
    ),
    Weather("Retry-After: 0", WAITED, fresh(lambda: busy_for(0.5)), most=150),
    Weather(
        "Retry-After: a date",
        WAITED,
        fresh(lambda: on(faults.too_many_requests(1, http_date=True), times=4)),
    ),
    Weather("Retry-After: none", WAITED, fresh(lambda: on(faults.too_many_requests(), times=4))),
    Weather(
        "Retry-After: in rate-limit headers",
        WAITED,
        fresh(lambda: on(faults.too_many_requests(headers=LIMITS), times=4)),
    ),
    Weather(
        "Retry-After: of a 503", WAITED, fresh(lambda: on(faults.server_error(503, 0.3), times=4))
    ),
]


def play_waits(place: Workplace) -> None:
    """A run that is told to wait in each way, one after the other."""
    rules = [weather.rule(False) for weather in WAITS]
    play(Weather("all of them", WAITED, always(first_of(rules)), most=200), place, False)


ALONE = [  # each in a run of its own
    Weather("later: 401", STOPS, always(on(faults.unauthorized(), indexes=MIDDLE)), 4, most=33),
    Weather(
        "a day's quota used up: a JSON list",
        QUOTA,
        always(on(Fault(429, body=DAY_USED_UP), indexes=MIDDLE)),
        3,
        most=33,
    ),
    Weather("timeouts", AGAIN, always(on(faults.hang(), indexes=range(12, 15))), settings=NO_TIME),
    Weather(
        "a server: stops for 20 s",
        DOWN,
        lambda full: on(faults.stall(20 if full else 1.5), indexes=[15]),
        settings={"vlm.openai.timeout": 60},
    ),
    Weather(
        "a server: restarted",
        DOWN,
        lambda full: on(faults.refuse_connections(10 if full else 1.5), indexes=[15]),
    ),
    Weather(
        "replies of 10 MB",
        ACCEPTED,
        lambda full: on(faults.huge_reply(), indexes=[12, 13] if full else [12]),
    ),
]

REACHING: list[Case] = [
    Case("DNS failure", STOPS, functools.partial(unreachable, "http://nowhere.invalid/v1")),
    Case(
        "nothing listens there", STOPS, lambda place, full: unreachable(closed_port(), place, full)
    ),
]
