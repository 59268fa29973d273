"""A request is asked again when its reply can't be read or was cut off: how often, how, and what
stays of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from dataflow_grounding._util.errors import OperatorFailed, SuspectBoxes, UnreadableReply
from dataflow_grounding.data.records import Record, Update
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.replies import Note
from dataflow_grounding.serving import OpenAIServing, Reply, Usage
from dataflow_grounding.testing import Answer, CannedAnswers, EchoAnswers, LoopbackServer, on
from dataflow_grounding.testing.faults import FaultRule
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support import faults
from tests.support.answering import Answering
from tests.support.endpoint import endpoint_of
from tests.support.question import Question
from tests.support.steps import Steps, storage_in
from tests.support.takes import Takes
from tests.support.workplace import Workplace

Read = Callable[[str], Any]


@pytest.fixture
def row(tmp_path: Path) -> dict[str, Any]:
    Image.new("RGB", (64, 48), "navy").save(tmp_path / "a.png")
    return {"image_path": str(tmp_path / "a.png")}


def x_of(reply: str) -> tuple[Any, list[Note]]:
    return json.loads(reply)["x"], []


# --- a reader that takes too much for granted


def raising(error: BaseException) -> Read:
    def read(reply: str) -> None:
        raise error

    return read


@pytest.mark.parametrize(
    ("read", "reply", "message"),
    [
        pytest.param(x_of, '{"y": 1}', "reading it raised KeyError: 'x'.", id="a missing key"),
        pytest.param(raising(ValueError()), "x", "reading it raised ValueError.", id="no words"),
    ],
)
def test_whatever_a_reader_raises_the_reply_is_unreadable_and_kept(
    row: dict[str, Any], read: Read, reply: str, message: str
) -> None:
    serving = Answering(reply)
    with pytest.raises(UnreadableReply) as caught:
        Question(serving, read)(row)
    error = caught.value
    assert str(error) == message
    assert (error.kind, error.attempts, error.reply) == ("unreadable_reply", 3, reply)
    assert serving.given == 3


class Broken(Question):
    async def annotate(self, record: Record, ask: Ask) -> Update:
        return {"x": len(record["image_path"] + 1)}


def test_an_error_of_ones_own_code_names_file_and_line(row: dict[str, Any]) -> None:
    with pytest.raises(OperatorFailed) as caught:
        Broken(Answering("x"), x_of)(row)
    assert f'TypeError in mine: can only concatenate str (not "int") to str ({__file__}:' in str(
        caught.value
    )


def test_a_reader_that_is_broken_is_not_paid_for_again(row: dict[str, Any]) -> None:
    serving = Answering('{"x": 1}')
    with pytest.raises(OperatorFailed) as caught:
        Question(serving, lambda reply: (len(json.loads(reply)["x"]), []))(row)
    assert str(caught.value).startswith(
        f"reading the reply raised TypeError: object of type 'int' has no len() ({__file__}:"
    )
    assert caught.value.reply == '{"x": 1}'
    assert serving.given == 1


@pytest.mark.parametrize("count", [numpy.int64(3), Decimal(3)])
def test_tokens_may_be_counted_in_numbers_that_json_has_not(
    tmp_path: Path, row: dict[str, Any], count: Any
) -> None:
    serving = Answering(Reply('{"x": 5}', usage=Usage(count, 0, count)))
    steps = Steps(storage_in(tmp_path, row, row), Question(serving, x_of))
    steps.run()
    assert [record["x"] for record in steps.records()] == [5, 5]
    assert serving.given == 1


def test_a_long_error_is_one_short_line(row: dict[str, Any]) -> None:
    with pytest.raises(UnreadableReply) as caught:
        Question(Answering("x"), raising(ValueError("no\nroom " * 500)))(row)
    assert len(str(caught.value)) < 260
    assert "\n" not in str(caught.value)


def test_it_is_asked_again_with_what_was_wrong(row: dict[str, Any]) -> None:
    serving = Answering("a cup", '{"y": 1}', '{"x": 5}')
    assert Question(serving, x_of)(row)["x"] == 5
    first, second, third = (request.text for request in serving.requests)
    assert "earlier reply" not in first
    assert "JSONDecodeError" in second
    assert "KeyError: 'x'" in third


def test_what_stops_the_run_goes_through_and_is_not_asked_again(row: dict[str, Any]) -> None:
    serving = Answering("x")
    with pytest.raises(SuspectBoxes, match="the order"):
        Question(serving, raising(SuspectBoxes("the order")))(row)
    assert serving.given == 1
    with pytest.raises(KeyboardInterrupt):
        Question(serving, raising(KeyboardInterrupt()))(row)


@pytest.mark.parametrize("answer", [5, "ab", (1, 2), ("x", Note("a", "b"))], ids=repr)
def test_a_reader_that_forgets_its_notes_is_told_so_and_costs_one_request(
    row: dict[str, Any], answer: Any
) -> None:
    serving = Answering("x")
    with pytest.raises(
        OperatorFailed, match=r"should return the answer and its notes: \(answer, \[\]\)"
    ):
        Question(serving, lambda reply: answer)(row)
    assert serving.given == 1


@pytest.mark.parametrize(
    "note", [Note("halved", "half: of it"), "halved: half: of it", "halved"], ids=repr
)
def test_a_note_is_counted_by_its_code_as_a_note_or_as_text(
    tmp_path: Path, row: dict[str, Any], note: Any
) -> None:
    question = Question(Answering('{"x": 5}'), lambda reply: (5, [note, note]))
    assert Steps(storage_in(tmp_path, row), question).run().notes == {"halved": 2}


# --- replies that are cut off


def cut(times: int | None, **where: Any) -> FaultRule:
    return on(faults.truncated(), times=times, **where)


def temperatures(server: LoopbackServer) -> list[Any]:
    return [request.settings.get("temperature") for request in server.requests]


def endpoint(times: int | None, **settings: Any) -> LoopbackServer:
    return LoopbackServer(
        lambda request: '{"x": 5, "why": "it is"}', faults=[cut(times)], **settings
    )


@pytest.mark.parametrize(
    ("usual", "sent"),
    [
        pytest.param(0.7, [0.7, 0.35, 0.2], id="half as warm each time"),
        pytest.param(0.0, [0.0, 0.2, 0.2], id="at 0 a loop would come again: a little warmer"),
        pytest.param(0.3, [0.3, 0.2, 0.2], id="not below 0.2"),
        pytest.param(None, [None, None, None], id="none is sent where none is set"),
    ],
)
def test_a_reply_that_is_cut_off_is_asked_for_again_cooler(
    row: dict[str, Any], usual: float | None, sent: list[float | None]
) -> None:
    with endpoint(2) as server:
        serving = OpenAIServing(server.base_url, "loopback", temperature=usual)
        assert Question(serving, x_of)(row)["x"] == 5
        assert temperatures(server) == sent
        texts = [request.text for request in server.requests]
    assert ["cut off at the token limit" in text for text in texts] == [False, True, True]


def test_an_unreadable_reply_is_not_asked_for_cooler(row: dict[str, Any]) -> None:
    rule = on(faults.truncated(), indexes=[1])
    with LoopbackServer(lambda request: "{}", faults=rule) as server:
        with pytest.raises(UnreadableReply):
            Question(OpenAIServing(server.base_url, "loopback"), x_of)(row)
        assert temperatures(server) == [0.7, 0.7, 0.2]


def test_a_model_that_takes_no_temperature_but_its_own_is_asked_again_at_that(
    row: dict[str, Any],
) -> None:
    rule = cut(2, where=lambda request: request.settings["temperature"] == 1)
    answers = CannedAnswers('{"x": 5}')
    with LoopbackServer(answers, faults=rule, takes=Takes(temperature=False)) as server:
        serving = OpenAIServing(server.base_url, "loopback", temperature=1.0)
        assert Question(serving, x_of)(row)["x"] == 5
        assert temperatures(server) == [1.0, 0.5, 1.0, 0.25, 1.0]


# --- a model in a loop, in a run with files


def looping(request: ReceivedRequest) -> Answer | dict[str, Any]:
    """Gives a box for each phrase, and the box of Beta again and again until the limit."""
    answer = EchoAnswers()(request)
    if request.task != "phrase_grounding" or "Beta" not in request.text:
        return answer
    beta = next(found for found in answer["objects"] if found["label"] == "Beta")
    again = [{**beta, "bbox_2d": [n % 7, 1, 20 + n % 7, 20]} for n in range(300)]
    return Answer(
        json.dumps({"objects": [*answer["objects"], *again]})[:-40], finish_reason="length"
    )


def sizes(server: LoopbackServer) -> list[int]:
    return [len(r.input["phrases"]) for r in server.requests if r.task == "phrase_grounding"]


def test_a_phrase_that_always_loops_fails_its_record_and_none_of_its_boxes_is_kept(
    workplace: Workplace,
) -> None:
    captions = {"r0": "Alpha Beta Gamma Delta", "r1": "Epsilon Zeta"}
    picture = workplace.picture()
    workplace.rows(
        {"image_path": picture, "image_id": name, "caption": text}
        for name, text in captions.items()
    )
    workplace.settings["workflow.max_workers"] = 1
    with endpoint_of(workplace, looping) as server:
        assert workplace.run().code == 1
        # four phrases, two, Alpha, then Beta three times; and the other record's two
        assert sorted(sizes(server)) == sorted([4, 2, 1, 1, 1, 1, 2])
        [failure] = workplace.failures()
        assert (failure["id"], failure["kind"], failure["attempts"]) == ("r0", "truncated_reply", 3)
        assert [record["image_id"] for record in workplace.annotations()] == ["r1"]
        sent = server.count()
        assert (workplace.run().code, server.count() - sent) == (1, 0), (
            "final: the same command doesn't pay again"
        )
        assert (workplace.run("--retry-failed").code, server.count() - sent) == (1, 3)
        server.answers = EchoAnswers()
        assert (workplace.run("--retry-failed").code, server.count() - sent) == (0, 5), (
            "Beta, then Gamma and Delta"
        )
    assert [e["status"] for record in workplace.annotations() for e in record["expressions"]] == [
        "grounded"
    ] * 6


def test_a_cut_off_reply_of_an_earlier_run_counts_as_a_try(workplace: Workplace) -> None:
    """The run was killed after it, or was told to try once."""
    workplace.many(1)
    with endpoint_of(workplace, faults=[cut(1)]) as server:
        assert workplace.run(**{"workflow.max_attempts": 1}).code == 4
        assert server.count() == 1
        assert (workplace.run().code, server.count()) == (0, 3)
        assert temperatures(server) == [0.7, 0.35, 0.7]
