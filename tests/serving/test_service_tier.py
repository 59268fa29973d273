"""`vlm.service_tier: flex`: asked for, stored, priced, waited for, and left where the spec says so."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from dataflow_grounding.engine import limiter
from dataflow_grounding.engine.limiter import Level
from dataflow_grounding.serving import GeminiServing, OpenAIServing, SeveralEndpoints
from dataflow_grounding.testing import Answer, EchoAnswers, LoopbackServer, ReceivedRequest, on
from tests.support import faults
from tests.support.takes import Takes
from tests.support.workplace import Workplace, caption, command

PRICES = {"input": 100.0, "output": 1000.0, "cached_input": 10.0, "flex": 0.5}
FLEX = {"vlm.service_tier": "flex"}
TIER = {"service_tier": "flex"}
GEMINI = pytest.param(
    "gemini",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("google.genai") is None, reason="without the extra gemini"
    ),
)


def asks_flex(request: ReceivedRequest) -> bool:
    return request.settings.get("service_tier") == "flex"


def at(place: Workplace, server: LoopbackServer, backend: str = "openai") -> None:
    """Have the place ask the server, three records."""
    place.many(3)
    if backend == "gemini":
        server.answers = EchoAnswers("gemini")
    place.settings |= {
        "vlm.openai.base_url": server.base_url,
        "vlm.gemini.base_url": server.address,
        "vlm.gemini.api_key": "k",
        "vlm.backend": "openai" if backend == "sdk" else backend,
        "vlm.openai.client": "sdk" if backend == "sdk" else "direct",
        "vlm.box_format": "gemini" if backend == "gemini" else "xyxy_px",
        "vlm.on_suspect_boxes": "warn",
        "vlm.prices": PRICES,
    }


def cost_of(place: Workplace) -> dict[str, Any]:
    done = command(["cost", str(place.results), "--json"])
    assert done.code == 0, done
    return done.summary


def estimate_of(place: Workplace, **settings: Any) -> dict[str, Any]:
    done = command(["estimate", "-e", str(place.spec(**settings)), "--json"])
    assert done.code == 0, done
    return done.summary


def tiers_stored(place: Workplace) -> set[str | None]:
    lines = place.replies.read_text().splitlines()
    return {json.loads(line).get("tier") for line in lines}


def in_full(place: Workplace) -> float:
    """What the stored replies would cost at the ordinary tier."""
    tokens = cost_of(place)["tokens"]
    fresh = tokens["input"] - tokens["cached"]
    return float((fresh * 100 + tokens["cached"] * 10 + tokens["output"] * 1000) / 1e6)


@pytest.mark.parametrize("backend", ["openai", "sdk", GEMINI])
def test_flex_is_asked_for_stored_and_costs_half(
    workplace: Workplace, server: LoopbackServer, backend: str
) -> None:
    at(workplace, server, backend)
    ordinary = estimate_of(workplace)["cost_usd"]
    assert estimate_of(workplace, **FLEX)["cost_usd"] == pytest.approx(ordinary / 2)
    done = workplace.run(**FLEX)
    assert done.code == 0, done
    assert all(asks_flex(request) for request in server.requests)
    assert tiers_stored(workplace) == {"flex"}
    bill = cost_of(workplace)
    assert bill["cost_usd"] == pytest.approx(in_full(workplace) / 2)
    assert done.summary["cost_usd"] == pytest.approx(bill["cost_usd"])
    assert bill["steps"][0]["flex"]["requests"] == 3
    assert "of which flex: 3 replies" in command(["cost", str(workplace.results)]).out


def test_without_a_tier_nothing_is_sent_of_it_and_with_one_nothing_is_asked_again(
    workplace: Workplace, server: LoopbackServer
) -> None:
    at(workplace, server)
    assert workplace.run().code == 0
    assert not any("service_tier" in request.settings for request in server.requests)
    assert tiers_stored(workplace) == {None}
    assert "flex" not in cost_of(workplace)["steps"][0]
    before = server.count()
    assert workplace.run(**FLEX).summary["requests"] == 0
    assert estimate_of(workplace, **FLEX)["requests"] == 0
    assert server.count() == before


def test_what_another_tier_has_served_costs_in_full(
    workplace: Workplace, server: LoopbackServer
) -> None:
    """An endpoint that serves at its ordinary tier, and says so in some replies, not in others."""
    echo = EchoAnswers()

    def answers(request: ReceivedRequest) -> Answer:
        return Answer(json.dumps(echo(request)), tier=("default", "")[request.index % 2])

    server.answers = answers
    at(workplace, server)
    done = workplace.run(**FLEX)
    assert done.code == 0, done
    assert tiers_stored(workplace) == {"default", None}
    assert cost_of(workplace)["cost_usd"] == pytest.approx(in_full(workplace))
    assert done.summary["cost_usd"] == pytest.approx(in_full(workplace))


def test_a_tier_without_a_known_price_costs_in_full_and_is_told(
    workplace: Workplace, server: LoopbackServer
) -> None:
    at(workplace, server)
    without = {name: price for name, price in PRICES.items() if name != "flex"}
    settings = {**FLEX, "vlm.prices": without}
    assert "flex counts in full" in estimate_of(workplace, **settings)["prices"]
    assert workplace.run(**settings).code == 0
    assert tiers_stored(workplace) == {"flex"}
    assert cost_of(workplace)["cost_usd"] == pytest.approx(in_full(workplace))


def limit_found() -> list[Level]:
    return [each.level for each in limiter._limiters.values()]


@pytest.mark.parametrize("backend", ["openai", GEMINI])
def test_no_room_is_waited_for_and_lowers_no_limit(
    workplace: Workplace, server: LoopbackServer, backend: str
) -> None:
    no_room = faults.no_room_at_tier() if backend == "openai" else faults.server_error(503)
    server.faults = on(no_room, indexes=range(2, 5))
    at(workplace, server, backend)
    done = workplace.run(**FLEX, **{"workflow.max_attempts": 1})
    assert done.code == 0, done
    assert all(asks_flex(request) for request in server.requests)
    assert server.count() == 6 + 3
    (found,) = limit_found()
    assert found.refused_at is None
    assert found.places >= 8


def test_a_rate_limit_at_flex_still_lowers_the_limit(
    workplace: Workplace, server: LoopbackServer
) -> None:
    server.faults = on(faults.too_many_requests(), indexes=range(2, 5))
    at(workplace, server)
    done = workplace.run(**FLEX)
    assert done.code == 0, done
    (found,) = limit_found()
    assert found.refused_at is not None


def test_a_tier_without_room_ends_the_run_and_the_ordinary_one_goes_on(
    workplace: Workplace, server: LoopbackServer
) -> None:
    server.faults = on(faults.no_room_at_tier(), where=asks_flex)
    at(workplace, server)
    done = workplace.run(**FLEX, **{"workflow.max_wait": 1, "vlm.openai.timeout": 2})
    assert (done.code, server.paid) == (3, 0), done
    assert all(asks_flex(request) for request in server.requests)
    assert "come back later" in done.err
    assert workplace.run().code == 0  # at the ordinary tier


@pytest.mark.parametrize("backend", ["openai", GEMINI])
def test_a_model_without_the_tier_stops_the_run_at_once(
    workplace: Workplace, server: LoopbackServer, backend: str
) -> None:
    server.takes = Takes(service_tiers=("default",))
    at(workplace, server, backend)
    done = workplace.run(**FLEX)
    assert (done.code, server.count()) == (4, 1), done
    assert "Leave vlm.service_tier out" in done.err


def test_flex_has_fifteen_minutes_unless_another_time_is_stated() -> None:
    url = "http://127.0.0.1:9/v1"
    assert OpenAIServing(url, "m").timeout == 60
    assert OpenAIServing(url, "m", **TIER).timeout == 900
    assert OpenAIServing(url, "m", **TIER, timeout=30).timeout == 30
    assert GeminiServing(api_key="k").timeout == 120
    assert GeminiServing(api_key="k", **TIER).timeout == 900


def test_a_stated_timeout_that_is_short_for_flex_is_told(
    workplace: Workplace, server: LoopbackServer
) -> None:
    at(workplace, server)  # which states one of 20 s
    spec = str(workplace.spec(**FLEX))
    assert "vlm.openai.timeout is 20 s" in command(["check", "-e", spec]).out
    assert "vlm.openai.timeout" not in command(["check", "-e", str(workplace.spec())]).out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({**FLEX, "vlm.backend": "embedded"}, "vlm.service_tier is for openai and gemini"),
        ({**FLEX, "vlm.openai.extra_body": {"service_tier": "flex"}}, "is set in vlm.openai.extra_body, too"),
        ({**FLEX, "vlm.backend": "gemini", "vlm.gemini.extra": {"serviceTier": "flex"}}, "is set in vlm.gemini.extra, too"),
        ({"vlm.service_tier": "priority"}, "'flex'"),
        ({"vlm.prices": {**PRICES, "flex": 2}}, "flex"),
    ],
)  # fmt: skip
def test_settings_that_no_request_could_have_are_refused(
    workplace: Workplace, server: LoopbackServer, settings: dict[str, Any], said: str
) -> None:
    at(workplace, server)
    done = workplace.run(**settings)
    assert (done.code, said in done.err, server.count()) == (2, True, 0), done


def test_several_endpoints_are_asked_at_the_tier(
    workplace: Workplace, server: LoopbackServer
) -> None:
    with LoopbackServer() as two:
        at(workplace, server)
        endpoints = [server.base_url, two.base_url]
        several = {"vlm.openai.base_url": "", "vlm.openai.endpoints": endpoints}
        done = workplace.run(**FLEX, **several)
        assert done.code == 0, done
        assert all(asks_flex(request) for request in [*server.requests, *two.requests])
    serving = SeveralEndpoints([OpenAIServing(url, "m", **TIER) for url in endpoints])
    assert (serving.service_tier, serving.timeout) == ("flex", 900)
    assert cost_of(workplace)["cost_usd"] == pytest.approx(in_full(workplace) / 2)


ODD_TIERS: list[Any] = [["flex"], {"flex": 1}, 7, True, "f" * 100_000, "\x1b[2Jflex"]


def test_what_a_reply_says_of_its_tier_is_no_other_than_a_short_name(
    workplace: Workplace, server: LoopbackServer
) -> None:
    """What isn't one costs in full, and reaches no terminal."""
    message = {"role": "assistant", "content": json.dumps({"expressions": []})}
    reply = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }
    said = [faults.odd_json(json.dumps({**reply, "service_tier": tier})) for tier in ODD_TIERS]
    server.faults = [on(fault, containing=caption(n)) for n, fault in enumerate(said)]
    at(workplace, server)
    workplace.many(len(said))
    done = workplace.run(**FLEX, **{"workflow.steps": ["0"]})
    assert server.count() >= len(said), done
    assert cost_of(workplace)["cost_usd"] == pytest.approx(in_full(workplace))
    assert workplace.replies.stat().st_size < 20_000
    assert "\x1b" not in done.err + command(["cost", str(workplace.results)]).out


def test_a_judge_at_the_same_address_is_asked_at_the_tier(
    workplace: Workplace, server: LoopbackServer
) -> None:
    at(workplace, server)
    judge = {"workflow.check": True, "vlm.judge": {"model_name": "judge"}}
    workplace.run(**FLEX, **judge)
    judged = [request for request in server.requests if request.model == "judge"]
    assert judged
    assert all(asks_flex(request) for request in judged)


def test_slow_answers_lower_no_limit_that_was_found(
    workplace: Workplace, server: LoopbackServer
) -> None:
    """Answers that take their time, and some that are given up."""
    at(workplace, server)
    workplace.settings |= {"workflow.max_workers": 24, "workflow.steps": ["0"]}
    workplace.many(40)
    assert workplace.run().code == 0
    (found,) = limit_found()
    places_before = found.places
    assert places_before > 8
    server.faults = on(faults.hang(), indexes=range(45, 55))
    server.latency = 0.5
    workplace.many(70)
    done = workplace.run(**FLEX, **{"vlm.openai.timeout": 4})
    assert done.code == 0, done
    assert server.abandoned >= 5
    assert found.places >= places_before
    assert found.refused_at is None
