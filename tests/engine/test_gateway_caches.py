"""A gateway's cache does not vote: what it repeats is no further answer, and no check."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from dataflow_grounding import OpenAIServing, PhraseGrounder
from dataflow_grounding.engine.senders import heard_replies
from dataflow_grounding.serving._gateway_headers import is_from_cache
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support import faults
from tests.support.stand_ins.gateway import OF_LITELLM, Gateway, gateway_before
from tests.support.workplace import Done, Workplace, command

KEPT = {"x-litellm-cache-key": "6a1466"}
BOXES = [[x, y, x + 100, y + 100] for x in range(0, 1000, 200) for y in range(0, 1000, 200)]


class Unsure:
    """Answers with another box each time."""

    def __init__(self) -> None:
        self.boxes = itertools.cycle(BOXES)

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        return all_at(next(self.boxes), request)


def all_at(bbox: list[int], request: ReceivedRequest) -> dict[str, Any]:
    """An answer that finds each phrase there."""
    objects = []
    for phrase in request.input["phrases"]:
        objects.append({"id": phrase["id"], "label": phrase["text"], "bbox_2d": bbox, "score": 0.9})
    return {"objects": objects}


ROW = {"image_path": "example_data/images/cat.jpg", "expressions": ["a cat"]}


def grounded(address: str, *, check_every: int | None = None) -> dict[str, Any]:
    """What three samples find."""
    serving = OpenAIServing(address, "m", box_format="xyxy_1000")
    [expression] = PhraseGrounder(serving, check_every=check_every, samples=3)(ROW)["expressions"]
    return expression


def scores_of(expression: dict[str, Any]) -> list[Any]:
    return [instance["score"] for instance in expression["instances"]]


def is_unsure(expression: dict[str, Any]) -> bool:
    """As three answers are that all differ."""
    return (expression["status"], expression.get("disagreement")) == ("ambiguous", True)


@pytest.mark.slow
def test_samples_through_a_cache_are_as_sure_as_directly() -> None:
    with gateway_before(Unsure()) as gateway:
        directly = grounded(gateway.upstream)
        assert is_unsure(directly)
        assert grounded(gateway.base_url) == directly
        assert grounded(gateway.base_url) == directly  # of which the first answer was kept
        assert gateway.kept == 1
    seeds = [body.get("seed") for body in gateway.bodies[:3]]
    assert seeds[0] is None
    assert sorted(seeds[1:]) == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("says", [KEPT, {}], ids=["by a header", "by the id alone"])
def test_what_a_cache_repeats_is_no_vote(
    says: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heard_replies, "EARLIER", 0.0)
    with gateway_before(Unsure(), heeds=False, says=says) as gateway:
        one = grounded(gateway.base_url)
    assert one["status"] == "grounded"
    assert scores_of(one) == [None]
    assert "disagreement" not in one
    assert (len(gateway.bodies), gateway.kept) == (3, 2)
    assert capsys.readouterr().err.count("answers from a cache") == 1


@pytest.mark.parametrize(
    ("headers", "is_kept"),
    [
        (KEPT, True),  # LiteLLM's, and those of Cloudflare, Portkey, OpenRouter, Helicone
        ({"cf-aig-cache-status": "HIT"}, True),
        ({"x-portkey-cache-status": "SEMANTIC HIT"}, True),
        ({"X-OpenRouter-Cache-Status": "HIT"}, True),
        ({"helicone-cache": "HIT"}, True),
        ({"X-Cache": "Hit from cloudfront"}, True),
        ({"Cache-Status": "Edge; hit; ttl=30"}, True),
        ({"Cache-Status": 'Edge; fwd=uri-miss; stored; detail="hit-and-miss"'}, False),
        ({"Cache-Status": '"CDN; hit Co"; fwd=miss'}, False),
        ({"x-prompt-cache-status": "hit"}, False),
        ({"x-kv-cache": "HIT"}, False),
        ({"x-litellm-version": "1.108.7"}, False),
    ],
)
def test_which_headers_say_that_a_reply_was_kept(headers: dict[str, str], is_kept: bool) -> None:
    assert is_from_cache(headers) == is_kept


@pytest.mark.slow
@pytest.mark.parametrize("own_id", ["", "chatcmpl-123"])
def test_an_id_that_all_replies_have_says_nothing(own_id: str) -> None:
    def changed(completion: dict[str, Any]) -> dict[str, Any]:
        return {**completion, "id": own_id}

    with gateway_before(EchoAnswers("xyxy_1000"), keeps=False, changed=changed) as gateway:
        assert scores_of(grounded(gateway.base_url, check_every=100)) == [1.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_out", "kept", "message", "most"),
    [
        # LiteLLM's
        ("seed", "cache", "anthropic does not support parameters: ['seed'], for model=claude", 5),
        ("seed", "cache", "Extra inputs are not permitted", 5),
        ("cache", "seed", "invalid argument", 7),
    ],
)
def test_what_is_refused_of_seed_and_cache_key_is_left_out(
    left_out: str, kept: str, message: str, most: int
) -> None:
    with gateway_before(Unsure(), **{f"refuses_{left_out}": message}) as gateway:
        assert is_unsure(grounded(gateway.base_url))
    assert sum(kept in body and left_out not in body for body in gateway.bodies) >= 2
    assert 4 <= len(gateway.bodies) <= most


def test_a_kept_reply_is_shown_apart_and_costs_nothing(workplace: Workplace) -> None:
    workplace.settings |= {"vlm.prices.input": 10.0, "vlm.prices.output": 10.0}
    with gateway_before(EchoAnswers()) as gateway:
        workplace.settings |= {"vlm.openai.base_url": gateway.base_url, "workflow.budget_usd": 50.0}
        workplace.many(4)
        first = workplace.run()
        other = Workplace(workplace.folder / "again", **workplace.settings)
        other.many(4)
        again = other.run()
    assert (first.code, again.code) == (0, 0), (first, again)
    assert first.summary["kept_replies"] == 0
    assert again.summary["kept_replies"] == again.summary["answered"] == 8
    assert again.summary["repeated_replies"] == 0
    assert first.summary["cost_usd"] > 0
    assert again.summary["cost_usd"] == 0
    second = str(other.results)
    bill = json.loads(command(["cost", second, "--json"]).out)
    assert bill["cost_usd"] == 0
    assert [step["kept"]["requests"] for step in bill["steps"]] == [4, 4]
    assert "of which from a gateway's cache: 4 replies" in command(["cost", second]).out


def test_a_check_is_not_answered_from_a_cache(workplace: Workplace) -> None:
    with LoopbackServer(EchoAnswers()) as upstream:
        for headers, note in (({}, "probe_as_asked"), (KEPT, "unanswered_check")):
            gateway = Gateway(upstream.base_url, keeps=False, headers={**OF_LITELLM, **headers})
            with gateway:
                place = Workplace(workplace.folder / note, **workplace.settings)
                place.many(4)
                settings = {"vlm.openai.base_url": gateway.base_url, "vlm.check_every": 500}
                done = place.run(**settings)
            assert done.code == 0, done
            assert list(done.summary["notes"]) == [note]
            assert done.summary["repeated_replies"] == (headers == KEPT)
            probes = [body for body in gateway.bodies if "seed" in body]
            assert len(probes) == done.summary["probes"] >= 1
            assert all(body["cache"] == {"no-cache": True} for body in probes)


class MixesPictures(Gateway):
    """A gateway that takes questions for equal that differ in their picture alone."""

    def _key(self, request: dict[str, Any]) -> str:
        seed = json.dumps(request.pop("seed", None)) if self.heeds else ""
        texts = [
            part["text"]
            for message in request["messages"]
            for part in message["content"]
            if isinstance(part, dict) and part["type"] == "text"
        ]
        return json.dumps([texts, seed])


COUNT = 4  # pictures of a run


def run_of_many_pictures(workplace: Workplace, address: str, **settings: Any) -> Done:
    for number in range(COUNT):
        workplace.picture(f"{number}.jpg", (640, 480), color=(40 * number, 90, 120))
    workplace.rows(
        {"image_path": f"{number}.jpg", "image_id": f"r{number}"} for number in range(COUNT)
    )
    usual = {"data.classes": ["cup"], "vlm.box_format": "xyxy_1000", "vlm.check_every": 1000}
    return workplace.run(**{**usual, "vlm.openai.base_url": address, **settings})


class Several:
    """Answers probes right, and else gives each picture a box of its own."""

    def __init__(self) -> None:
        self.boxes: dict[str, list[int]] = {}

    def __call__(self, request: ReceivedRequest) -> Any:
        if asks_for_rectangles(request):
            return EchoAnswers("xyxy_1000")(request)
        [digest] = request.image_digests
        return all_at(self.boxes.setdefault(digest, BOXES[len(self.boxes)]), request)


def boxes_in(workplace: Workplace) -> list[Any]:
    return [
        instance["bbox"]
        for row in workplace.annotations()
        for expression in row["expressions"]
        for instance in expression["instances"]
    ]


@pytest.mark.parametrize("says", [{}, KEPT], ids=["without a mark", "marked"])
def test_a_reply_about_another_picture_is_asked_for_past_the_cache(
    workplace: Workplace, says: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heard_replies, "EARLIER", 0.0)
    with gateway_before(Several(), kind=MixesPictures, says=says) as gateway:
        done = run_of_many_pictures(workplace, gateway.base_url, **{"workflow.max_workers": 1})
        again = command(["cost", str(workplace.results), "--json"])
    assert done.code == 0, done
    boxes = boxes_in(workplace)
    assert len({tuple(box) for box in boxes}) == len(boxes) == COUNT
    assert done.summary["repeated_replies"] == gateway.kept == COUNT - 1
    assert done.err.count("gave the reply about one picture") == 1
    assert gateway.base_url in done.err
    [step] = json.loads(again.out)["steps"]
    assert step["kept"]["requests"] == COUNT - 1, "they are stored, too"


def test_a_cache_that_goes_on_with_another_picture_s_reply_fails_its_records(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heard_replies, "EARLIER", 0.0)
    with gateway_before(Several(), kind=MixesPictures, heeds=False, says={}) as gateway:
        done = run_of_many_pictures(workplace, gateway.base_url, **{"workflow.max_workers": 1})
    assert (done.code, done.summary["failures"]) == (1, {"repeated_reply": COUNT - 1}), done
    assert len(boxes_in(workplace)) == 1


ONE_BOX = {"objects": [{"id": 1, "label": "cup", "bbox_2d": [100, 200, 300, 400], "score": 0.9}]}


@pytest.mark.parametrize(
    ("id_of", "reply"),
    [
        pytest.param(lambda number: "chatcmpl-0", ONE_BOX, id="one id"),
        pytest.param(lambda number: "", ONE_BOX, id="no id"),
        pytest.param(lambda number: f"chatcmpl-{number}", ONE_BOX, id="its own id"),
        pytest.param(lambda number: f"chatcmpl-{min(number, 1)}", {"objects": []}, id="no box"),
        # as servers give that name a completion by its second; the probe's text has the first one
        pytest.param(lambda number: f"chatcmpl-{min(number, 3) // 2}", ONE_BOX, id="of a second"),
    ],
)
def test_equal_replies_about_several_pictures_are_no_cache_s_where_ids_say_nothing(
    workplace: Workplace, id_of: Callable[[int], str], reply: Any
) -> None:
    numbers = itertools.count()

    def changed(completion: dict[str, Any]) -> dict[str, Any]:
        return {**completion, "id": id_of(next(numbers))}

    def answers(request: ReceivedRequest) -> Any:
        return EchoAnswers("xyxy_1000")(request) if asks_for_rectangles(request) else reply

    with gateway_before(answers, keeps=False, changed=changed) as gateway:
        done = run_of_many_pictures(workplace, gateway.base_url, **{"workflow.max_workers": 1})
    assert (done.code, done.summary["failures"]) == (0, {}), done
    assert done.summary["repeated_replies"] == 0
    assert len(gateway.bodies) == COUNT + done.summary["probes"], "none is asked for twice"


def test_stored_answers_are_judged_by_the_same_rule(workplace: Workplace) -> None:
    workplace.many(2)
    with gateway_before(EchoAnswers(), heeds=False) as gateway:
        settings = {"vlm.openai.base_url": gateway.base_url, "workflow.samples": 3}
        settings["workflow.max_workers"] = 1  # each record's own question comes first
        assert workplace.run(**settings).code == 0
        rows = scores(workplace)
        sent = len(gateway.bodies)
        workplace.forget_all_but_replies()
        again = workplace.run(**settings)
        assert len(gateway.bodies) == sent
        assert again.code == 0, again
        assert set(rows) == {None}
        assert scores(workplace) == rows
        bill = json.loads(command(["cost", str(workplace.results), "--json"]).out)
        assert [step["kept"]["requests"] for step in bill["steps"]] == [0, 4]
        gateway.keeps = False
        assert workplace.run(**settings).code == 0
        assert len(gateway.bodies) == sent
        assert workplace.run("--retry-failed", **settings).code == 0
        assert len(gateway.bodies) == sent + 4
    assert set(scores(workplace)) == {1.0}


def scores(workplace: Workplace) -> list[Any]:
    expressions = [each for row in workplace.annotations() for each in row["expressions"]]
    return [score for each in expressions for score in scores_of(each)]


def test_a_cache_in_front_of_a_dead_model_is_no_sign_that_it_works(workplace: Workplace) -> None:
    workplace.many(24)
    with LoopbackServer(EchoAnswers()) as upstream, Gateway(upstream.base_url) as gateway:
        settings = {"vlm.openai.base_url": gateway.base_url}
        assert workplace.run(**settings, **{"workflow.max_requests": 20}).code == 3
        upstream.faults = [on(faults.server_error(500))]
        other = Workplace(workplace.folder / "other", **workplace.settings)
        other.many(24)
        done = other.run(**settings)
    assert done.code == 4, done
    assert done.summary["stopped"].count("Nothing was answered") == 1
    assert not other.failures()
