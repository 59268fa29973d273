"""Several endpoints: requests go by weight and to whichever has room, a dead one is passed over,
nothing is lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from dataflow_grounding import CaptionGenerator, OpenAIServing, RecordedServing
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.engine.senders import endpoint
from dataflow_grounding.serving import SeveralEndpoints
from dataflow_grounding.testing import (
    CannedAnswers,
    EchoAnswers,
    Fault,
    LoopbackServer,
    ReceivedRequest,
    on,
)
from tests.support import faults
from tests.support.workplace import Workplace

pytestmark = pytest.mark.slow

DEAD = "http://127.0.0.1:9/v1"  # nothing listens there


@pytest.fixture
def servers() -> Iterator[list[LoopbackServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(LoopbackServer(latency=0.02)) for _ in range(3)]


def several(
    place: Workplace, *endpoints: str | LoopbackServer | dict[str, Any], **settings: Any
) -> Workplace:
    """The place with these endpoints; one may be a dict with more than its address."""
    listed = [one if isinstance(one, dict) else {"base_url": address_of(one)} for one in endpoints]
    place.settings |= {"vlm.openai.base_url": "", "vlm.openai.endpoints": listed, **settings}
    return place


def address_of(one: str | LoopbackServer) -> str:
    return one if isinstance(one, str) else one.base_url


def test_requests_go_by_weight(workplace: Workplace, servers: list[LoopbackServer]) -> None:
    light, heavy, _ = servers
    workplace.many(30)
    endpoints = [{"base_url": light.base_url}, {"base_url": heavy.base_url, "weight": 3}]
    done = several(workplace, *endpoints).run(**{"workflow.max_workers": 1})
    assert done.code == 0, done
    assert light.paid + heavy.paid == 60
    # 15 where each request is drawn by weight, 30 where by chance alone; and fewer where one's first
    # answer comes late, as on a busy machine: until then it is asked one request at a time.
    assert 2 <= light.paid <= 23
    assert max(light.max_in_flight, heavy.max_in_flight) == 1
    assert workplace.run_json()["endpoint"] == f"{light.base_url} + {heavy.base_url}"


def test_a_limited_one_does_not_hold_up_the_other(
    workplace: Workplace, servers: list[LoopbackServer]
) -> None:
    limited, free, _ = servers
    limited.capacity = 4
    limited.limit_fault = faults.too_many_requests(1)
    numbers = itertools.count(1)

    def seconds(request: ReceivedRequest) -> float:
        """With 24 replies the run may have 32 places, of which even a busy machine fills more than
        half within a second.
        """
        return 0.05 if next(numbers) <= 24 else 1.0

    free.latency = seconds
    workplace.many(90)
    done = several(workplace, limited, free).run(**{"workflow.max_workers": 32})
    assert done.code == 0, done
    assert limited.paid + free.paid == 180
    assert max(limited.max_in_flight, free.max_in_flight) <= 32
    assert free.max_in_flight > 16  # what the other has no room for
    assert limited.paid > 20
    assert limited.count(429) < 60


def test_one_that_is_dead_from_the_start(
    workplace: Workplace, servers: list[LoopbackServer]
) -> None:
    workplace.many(10)
    done = several(workplace, DEAD, servers[0]).run(**{"workflow.max_workers": 1})
    assert done.code == 0, done
    assert servers[0].paid == servers[0].received == 20
    assert done.summary["requests"] <= 25
    assert f"no connection to {DEAD}/chat/completions" in done.err


BROKEN = [
    ("a wrong key", {"key": "right"}, 7, "401"),
    # tried again after 1 s, 2 s, 4 s, …
    ("server errors", {"faults": on(faults.server_error())}, 9, "500"),
    ("answers to nothing", {"faults": on(faults.slow(30))}, 7, "did not answer within 2 s"),
    ("a used-up quota", {"faults": on(faults.too_many_requests(90_000))}, 7, ""),
    ("no credit", {"faults": on(Fault(402, "No credit."))}, 7, "402"),
]


@pytest.mark.parametrize(
    ("settings", "most", "said"), [pytest.param(*rest, id=name) for name, *rest in BROKEN]
)
def test_one_that_is_no_use(
    workplace: Workplace,
    servers: list[LoopbackServer],
    settings: dict[str, Any],
    most: int,
    said: str,
) -> None:
    timeout = 2 if "did not answer" in said else 60
    workplace.many(12)
    with LoopbackServer(**settings) as broken:
        endpoints = [{"base_url": broken.base_url, "api_key": "sk-wrong-key9371"}, servers[0]]
        done = several(workplace, *endpoints, **{"vlm.openai.timeout": timeout}).run()
        assert done.code == 0, done
        assert broken.received <= most
    assert servers[0].paid >= 24
    assert servers[0].paid == 24 or timeout < 60  # a busy machine may be as slow as that
    assert said in done.err
    assert "key9371" not in done.err + done.out + (workplace.results / "run.json").read_text()


def test_one_that_dies_and_one_that_comes_back(
    workplace: Workplace, servers: list[LoopbackServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "OUT_SECONDS", 1.0)
    stays, dies, away = servers
    before: list[int] = []

    def strike(request: ReceivedRequest) -> None:
        if request.index == 20:
            before.append(away.paid)
            dies.stop()
            away.refuse_connections(0.7)

    stays.faults = strike
    stays.latency = dies.latency = away.latency = 0.1
    workplace.many(160)
    done = several(workplace, stays, dies, away).run(**{"workflow.max_workers": 12})
    assert (done.code, done.summary["done"]) == (0, 160), done
    assert away.paid > before[0] + 20
    assert done.summary["requests"] <= 320 + 12 + 12


def test_all_dead_stops_the_run(workplace: Workplace) -> None:
    workplace.many(6)
    with LoopbackServer(key="right") as wrong_key:
        done = several(workplace, wrong_key, DEAD).run()
    assert done.code == 4, done
    assert "401" in done.err
    assert DEAD in done.err
    assert wrong_key.received <= 4


def test_a_retry_goes_to_another(workplace: Workplace, servers: list[LoopbackServer]) -> None:
    every_other = on(faults.server_error(), where=lambda request: request.index % 2 == 1)
    workplace.many(24)
    with LoopbackServer(faults=every_other) as often:
        done = several(workplace, often, servers[0]).run(**{"workflow.max_attempts": 2})
    assert done.code == 0, done  # at one endpoint, two attempts would not do for each
    assert often.count(500) > 2
    assert often.paid + servers[0].paid == 48


def test_nothing_is_asked_again_where_the_list_changes(
    workplace: Workplace, servers: list[LoopbackServer]
) -> None:
    workplace.many(12)
    for listed in ([0], [0, 1], [2, 0]):
        one = {"vlm.openai.base_url": servers[0].base_url} if listed == [0] else {}
        several(workplace, *([] if one else (servers[n] for n in listed)))
        workplace.run(**{"workflow.max_requests": 9, **one})
    assert sum(server.paid for server in servers) == 24
    assert len(workplace.annotations()) == 12


def test_boxes_in_another_format_from_one_of_them(
    workplace: Workplace, servers: list[LoopbackServer]
) -> None:
    """One record is asked about before each endpoint has answered a probe picture."""
    servers[2].answers = EchoAnswers("yxyx_1000")
    workplace.many(20)
    done = several(workplace, *servers, **{"vlm.check_every": 100}).run()
    assert done.code == 2, done
    assert f"at {servers[2].base_url}" in done.err
    assert sum(server.by_task["phrase_grounding"] for server in servers) <= 3 + 4


WRONG = [
    ("http://a/v1", [{"base_url": "http://b/v1"}], "leave one of them out"),
    ("", [{"base_url": "http://b/v1", "weight": 0}], "weight"),
    ("", ["http://b/v1", {"base_url": "http://b/v1/"}], "each once"),
    ("", [3], "should be a block of keys"),
]


@pytest.mark.parametrize(("base_url", "endpoints", "said"), WRONG)
def test_what_is_wrong_is_said(
    workplace: Workplace, base_url: str, endpoints: Any, said: str
) -> None:
    workplace.many(1)
    settings = {"vlm.openai.base_url": base_url, "vlm.openai.endpoints": endpoints}
    done = workplace.run(**settings)
    assert done.code == 2, done
    assert said in done.err


def test_in_python(servers: list[LoopbackServer], workplace: Workplace) -> None:
    answers = CannedAnswers('{"caption": "A cat."}')
    row = {"image_path": str(workplace.folder / workplace.picture())}
    for server in servers:
        server.answers = answers
    parts = [OpenAIServing(server.base_url, "any", max_workers=3) for server in servers]
    serving = SeveralEndpoints(parts, weights=[1, 1, 2])
    assert CaptionGenerator(serving)(row)["caption"] == "A cat."
    one_dead = SeveralEndpoints([OpenAIServing(DEAD, "any"), parts[0]])
    inside = CaptionGenerator(RecordedServing(workplace.folder / "replies.jsonl", one_dead))
    assert [inside({**row, "n": n})["caption"] for n in range(2)] == ["A cat."] * 2
    with pytest.raises(SpecError, match="not alike"):
        SeveralEndpoints([parts[0], OpenAIServing(servers[1].base_url, "other")])
