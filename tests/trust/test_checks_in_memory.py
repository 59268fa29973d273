"""Checks of the endpoint where a script calls an operator again and again: what is known of it
carries over.
"""

from __future__ import annotations

import os
import random
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dataflow_grounding import PhraseGrounder
from dataflow_grounding._util.errors import GroundingError, SuspectBoxes
from dataflow_grounding.serving import OpenAIServing, Serving
from dataflow_grounding.tasks.request import Request
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.answers import asks_for_rectangles
from tests.support import faults
from tests.support.endpoint import SELDOM
from tests.support.stand_ins.watched_model import Scene, WatchedModel
from tests.support.workplace import HANGING, Workplace, ended, process

X, Y = "xyxy_1000", "yxyx_1000"
TAKEN_BACK = r"(\d+) answers came since the last good check, (\d+) of them already returned"


def photos(place: Workplace, count: int) -> list[dict[str, Any]]:
    """Rows about one picture, phrases as photos have them."""
    picture, draw = str(place.folder / place.picture("photo.jpg", (640, 480))), random.Random(1)
    phrases = [thing.phrase for thing in Scene().things]
    return [
        {"image_path": picture, "expressions": draw.sample(phrases, 3), "caption": str(n)}
        for n in range(count)
    ]


@pytest.mark.parametrize("rows_at_once", [1, 12])  # a call alone is another way through the engine
def test_a_change_is_found_by_the_next_check_from_call_to_call(
    place: Workplace, rows_at_once: int, server: LoopbackServer
) -> None:
    rows, returned = photos(place, 72), 0
    model = WatchedModel(lambda n, _: X if n < 40 else Y, Scene(), noise=0.01)
    server.answers = model
    serving = OpenAIServing(server.base_url, "loopback", box_format=X, max_workers=1)
    grounder = PhraseGrounder(serving, check_every=12)

    def call_by_call() -> None:
        nonlocal returned
        for start in range(0, len(rows), rows_at_once):
            grounder(rows[start] if rows_at_once == 1 else rows[start : start + rows_at_once])
            returned += rows_at_once

    with pytest.raises(SuspectBoxes, match=f"{Y} would fit") as stopped:
        call_by_call()
    assert 40 < model.answered <= 40 + 25
    counted = re.search(TAKEN_BACK, str(stopped.value))
    assert counted is not None
    assert model.answered - 40 <= int(counted[1]) <= model.answered
    # at once, an answer may be on its way back when the run is stopped
    assert abs(int(counted[1]) - int(counted[2]) - (model.answered - returned)) <= 1
    assert "don't use them" in str(stopped.value)


def test_it_is_said_again_until_a_check_is_good(place: Workplace, server: LoopbackServer) -> None:
    rows, written = photos(place, 24), X

    server.answers = WatchedModel(lambda *_: written, Scene())
    serving = OpenAIServing(server.base_url, "said again", box_format=X, max_workers=1)
    seldom_checked = PhraseGrounder(serving, check_every=SELDOM)
    often_checked = PhraseGrounder(serving, check_every=4)
    seldom_checked(rows[:6])
    written = Y
    for _ in range(2):
        with pytest.raises(SuspectBoxes, match=TAKEN_BACK) as stopped:
            often_checked(rows[6:14])
        assert "came since the last good check, 6 of them" in str(stopped.value)
    written = X
    assert len(seldom_checked(rows[6:12])) == 6
    written = Y
    with pytest.raises(SuspectBoxes, match=TAKEN_BACK) as stopped:
        often_checked(rows[12:])
    assert "came since the last good check, 6 of them" in str(stopped.value)


def test_the_first_call_of_all_returns_nothing_that_is_to_be_taken_back(
    place: Workplace, server: LoopbackServer
) -> None:
    server.answers = EchoAnswers(Y)
    grounder = PhraseGrounder(OpenAIServing(server.base_url, "loopback", box_format=X))
    with pytest.raises(SuspectBoxes, match=r"1 answer came .* none of them returned"):
        grounder(photos(place, 1))


def test_a_model_that_finds_no_rectangles_is_not_asked_with_every_call(
    place: Workplace, server: LoopbackServer
) -> None:
    def blind(request: ReceivedRequest) -> Any:
        return {"objects": []} if asks_for_rectangles(request) else EchoAnswers(X)(request)

    server.answers = blind
    grounder = PhraseGrounder(OpenAIServing(server.base_url, "blind", box_format=X), check_every=5)
    for row in photos(place, 30):
        grounder(row)
    # one at the beginning, and one in each stretch
    assert sum(map(asks_for_rectangles, server.requests)) <= 1 + 30 // 5


def at_once(calls: int, call: Callable[[], Any]) -> list[Any]:
    """What calls return that begin at once, each in a thread of its own."""
    begin = threading.Barrier(calls)

    def called(_: int) -> Any:
        begin.wait()
        return call()

    with ThreadPoolExecutor(calls) as threads:
        return list(threads.map(called, range(calls)))


@pytest.mark.parametrize(
    ("box_format", "is_shared"), [("auto", False), ("xyxy_px", True)], ids=["each its own", "one"]
)
def test_calls_at_once_calibrate_and_check_as_one_call_does(
    place: Workplace, server: LoopbackServer, box_format: str, is_shared: bool
) -> None:
    [row] = photos(place, 1)
    server.answers = EchoAnswers("xyxy_px")
    server.latency = 0.01

    def probes_of(calls: int) -> int:
        before = len(server.requests)

        def grounder() -> PhraseGrounder:
            serving = OpenAIServing(server.base_url, f"asked by {calls}", box_format=box_format)
            return PhraseGrounder(serving, check_every=SELDOM)

        one = grounder()
        found = at_once(calls, lambda: (one if is_shared else grounder())(row)["expressions"])
        assert all(found)
        return sum(map(asks_for_rectangles, server.requests[before:]))

    alone = probes_of(1)
    assert alone >= 1
    assert probes_of(6) == alone


@pytest.mark.parametrize("box_format", ["auto", X])
def test_calls_at_once_of_an_endpoint_that_is_down_fail_at_once(
    place: Workplace, server: LoopbackServer, box_format: str
) -> None:
    [row] = photos(place, 1)
    server.faults = on(faults.server_error(500))

    def probes_of(calls: int) -> int:
        before = len(server.requests)
        serving = OpenAIServing(server.base_url, f"asked by {calls}", box_format=box_format)
        grounder = PhraseGrounder(serving, check_every=SELDOM)

        def told() -> str:
            with pytest.raises(GroundingError) as caught:
                grounder(row)
            return str(caught.value)

        assert all("500" in message for message in at_once(calls, told))
        return sum(map(asks_for_rectangles, server.requests[before:]))

    alone = probes_of(1)
    assert alone
    # those who wait for the first one learn from it, and don't ask for themselves
    assert probes_of(6) == alone


def test_many_questions_that_wait_for_a_check_keep_no_other_one_from_its_end(
    place: Workplace, server: LoopbackServer
) -> None:
    rows = photos(place, 80)
    server.answers = EchoAnswers(X)
    grounded = []

    def ground_often() -> None:
        for number in range(2):
            serving = OpenAIServing(server.base_url, f"busy {number}", box_format=X, max_workers=64)
            grounded.append(len(PhraseGrounder(serving, check_every=20)(rows)))

    work = threading.Thread(target=ground_often, daemon=True)
    work.start()
    work.join(HANGING)
    assert grounded == [80] * 2, "each waits for the other"


def test_a_check_of_one_object_says_nothing_of_another_without_an_address(
    place: Workplace, server: LoopbackServer
) -> None:
    class MyServing(Serving):
        """As users write one: the model's name, and where its server is."""

        model = "my-model"
        box_format = X

        def __init__(self, base_url: str) -> None:
            self._endpoint = OpenAIServing(base_url, self.model, box_format=X)

        async def answer(self, request: Request[Any]) -> Any:
            return await self._endpoint.answer(request)

        async def aclose(self) -> None:
            await self._endpoint.aclose()

    [row] = photos(place, 1)
    server.answers = EchoAnswers(X)
    first = MyServing(server.base_url)
    for _ in range(3):
        assert PhraseGrounder(first, check_every=SELDOM)(row)["expressions"]
    assert sum(map(asks_for_rectangles, server.requests)) == 1
    server.answers = EchoAnswers(Y)
    with pytest.raises(SuspectBoxes):
        PhraseGrounder(MyServing(server.base_url))(row)


FORKING = """
import os, sys, threading, time
from dataflow_grounding import OpenAIServing, PhraseGrounder
def ground(box_format):
    serving = OpenAIServing({url!r}, "of " + box_format, box_format=box_format)
    return PhraseGrounder(serving)({row!r})["expressions"]
for box_format in ("auto", "xyxy_1000"):
    thread = threading.Thread(target=ground, args=[box_format])
    thread.start()
    asked = os.path.join({folder!r}, "of " + box_format)
    while not os.path.exists(asked):  # then it is amid its first request
        time.sleep(0.01)
    child = os.fork()
    if child == 0:
        os._exit(0 if ground(box_format) else 1)
    thread.join()
    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_process_forked_amid_a_check_waits_for_nobody(
    place: Workplace, server: LoopbackServer
) -> None:
    def slow_at_first(request: ReceivedRequest) -> float:
        asked = place.folder / request.model
        if asked.exists():
            return 0.0
        asked.touch()
        return 0.5

    server.answers = EchoAnswers(X)
    server.latency = slow_at_first
    [row] = photos(place, 1)
    script = FORKING.format(url=server.base_url, row=row, folder=str(place.folder))
    done = ended(process(["--version"], first=script))
    assert done.out.splitlines()[:-1] == ["child 0"] * 2, done
