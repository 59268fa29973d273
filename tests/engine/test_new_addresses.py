"""A server at another address, as behind another port of a tunnel: what it was paid for counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from dataflow_grounding import (
    EmbeddedServing,
    OpenAIServing,
    RecordedServing,
    ground,
)
from dataflow_grounding.serving import Serving, SeveralEndpoints
from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support.workplace import Done, Workplace, command

X, Y = "xyxy_1000", "yxyx_1000"


@pytest.fixture
def two() -> Iterator[tuple[LoopbackServer, LoopbackServer]]:
    with ExitStack() as stack:
        first, second = (stack.enter_context(LoopbackServer(EchoAnswers(X))) for _ in range(2))
        yield first, second


def run(place: Workplace, server: LoopbackServer, **settings: Any) -> Done:
    return place.run(**{"vlm.openai.base_url": server.base_url, "vlm.box_format": X, **settings})


def test_a_new_address_of_the_same_server_pays_nothing_again(
    workplace: Workplace, two: tuple[LoopbackServer, LoopbackServer]
) -> None:
    first, second = two
    workplace.settings["vlm.check_every"] = 100
    workplace.many(7)
    assert run(workplace, first).code == 0
    annotations = workplace.files().annotations
    done = run(workplace, second)
    assert (done.code, second.received) == (0, 0), done
    assert workplace.files().annotations == annotations
    workplace.many(10)
    assert run(workplace, second).code == 0
    assert second.paid == 6 + 1, "what is new, and a check before it"


def test_what_a_calibration_has_asked_is_not_asked_again(
    workplace: Workplace, two: tuple[LoopbackServer, LoopbackServer], monkeypatch: Any
) -> None:
    first, second = two
    workplace.many(6)
    settings = {"vlm.box_format": "auto", "vlm.check_every": 100}
    assert run(workplace, first, **settings).code == 0
    bill = command(["cost", str(workplace.results), "--json"]).summary
    assert bill["requests"] == first.received
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace.folder / "of a new machine"))
    done = run(workplace, second, **settings)
    assert (done.code, second.received) == (0, 0), done


def test_a_recording_is_played_back_and_goes_on_at_another_address(
    workplace: Workplace, two: tuple[LoopbackServer, LoopbackServer]
) -> None:
    picture = str(workplace.folder / workplace.picture())
    path = workplace.folder / "recording.jsonl"

    def asked(server: LoopbackServer | None) -> list[Any]:
        live = server and OpenAIServing(server.base_url, "loopback", box_format=X)
        return ground(picture, "a cup", serving=RecordedServing(path, live)).boxes

    boxes = asked(two[0])
    sent = two[1].received
    assert asked(two[1]) == asked(None) == boxes
    assert two[1].received == sent
    assert json.loads(path.read_text().splitlines()[0])["recorded"]["endpoint"] == two[0].base_url


def test_two_models_of_one_name_are_told_apart_by_a_name_of_ones_own(
    workplace: Workplace, two: tuple[LoopbackServer, LoopbackServer]
) -> None:
    first, second = two
    workplace.many(5)
    assert run(workplace, first, **{"vlm.openai.name": "before tuning"}).code == 0
    assert run(workplace, second, **{"vlm.openai.name": "after tuning"}).code == 0
    assert (first.paid, second.paid) == (10, 10)
    assert {request.model for request in second.requests} == {"loopback"}
    assert run(workplace, second, **{"vlm.openai.name": "before tuning"}).code == 0
    assert second.paid == 10


@pytest.mark.parametrize(("model", "said"), [("default", True), ("loopback", False)])
def test_a_name_that_may_stand_for_any_model_is_spoken_of(
    workplace: Workplace, two: tuple[LoopbackServer, LoopbackServer], model: str, said: bool
) -> None:
    first, second = two
    settings = {"vlm.openai.model_name": model}
    workplace.many(2)
    for server, is_said in ((first, False), (first, False), (second, said)):
        done = run(workplace, server, **settings)
        assert ("vlm.openai.name" in done.err) == is_said, done
    named = run(workplace, first, **settings, **{"vlm.openai.name": "tuned"})
    assert "vlm.openai.name" not in named.err


def test_an_address_that_answers_the_check_otherwise_is_told_apart(workplace: Workplace) -> None:
    workplace.many(12)
    checked = {"vlm.check_every": 100}
    with LoopbackServer(EchoAnswers(X)) as first, LoopbackServer(EchoAnswers(Y)) as second:
        assert run(workplace, first, **checked).code == 0
        paid = first.received
        before = workplace.files().annotations
        workplace.many(20)
        done = run(workplace, second, **checked)
        assert done.code == 2, done
        assert f"{Y} would fit" in done.err
        assert second.paid <= 15  # captions' phrases, the check, and the boxes sent next to it
        assert workplace.files().annotations == before
        # what the first answered is as good as it was
        assert run(workplace, first, **checked).code == 0
        assert first.received <= paid + 10


class OwnServing(Serving):
    """One that knows nothing of addresses."""

    model = "own"

    def __init__(self, address: str) -> None:
        self.endpoint = address

    async def answer(self, request: Any) -> str:
        return '{"objects": []}'


def test_what_is_no_address_tells_which_model_it_is() -> None:
    """The embedded grounder's version, the digest of a local model's weights."""
    embedded = EmbeddedServing()
    assert embedded.identity() == {"endpoint": embedded.endpoint, "model": embedded.model}
    assert OwnServing("version 7").identity() == {"endpoint": "version 7", "model": "own"}


def test_servings_of_ones_own_and_several_of_them() -> None:
    one, other = OwnServing("http://one"), OwnServing("http://other")
    assert one.identity() == other.identity() == {"model": "own"}
    assert one.identity_there() == {"model": "own", "endpoint": "http://one"}
    assert SeveralEndpoints([one, other]).identity() == {"model": "own"}


def test_estimate_counts_what_is_stored_of_another_address_and_touches_no_store(
    workplace: Workplace, two: tuple[LoopbackServer, LoopbackServer]
) -> None:
    first, second = two
    workplace.many(8)
    workplace.settings["vlm.box_format"] = X

    def stored() -> int:
        spec = workplace.spec(**{"vlm.openai.base_url": second.base_url})
        estimated = command(["estimate", "-e", str(spec), "--json"]).summary
        assert (estimated["requests"] + estimated["stored"], second.received) == (16, 0)
        return int(estimated["stored"])

    assert (stored(), workplace.replies.parent.exists()) == (0, False)
    assert run(workplace, first).code == 0
    with workplace.replies.open("ab") as store:
        store.write(b'{"key": "0123')  # a line that is being written
    held = workplace.replies.read_bytes()
    assert stored() == 16
    assert workplace.replies.read_bytes() == held
