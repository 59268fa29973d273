"""What an endpoint may say that nobody should read: keys, and commands to a terminal."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

from dataflow_grounding.testing import Fault
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.fault_cases.endpoint_faults import COUNT, ONE
from tests.support.fault_cases.fault_case import (
    Case,
    Outcome,
    Witness,
    calm,
    lost_rows,
    undisturbed,
)
from tests.support.workplace import Workplace

KEY = "sk-5e1f-not-to-be-told"
SHOWN = "They are printed as `***` and `\\x1b`."
COMMANDS = "\x1bc\x07\x9b2J\u202e"
PARTS = "\x1b \x07 \x9b \u202e"


def play(
    words: Callable[[ReceivedRequest], str], unwanted: str, place: Workplace, full: bool
) -> Outcome:
    """A refusal of one record and all replies hold `words`; nothing `unwanted` is
    printed or kept.
    """

    def rule(request: ReceivedRequest) -> Fault:
        said = words(request)
        if ONE in request.text:
            return Fault(400, f"No, {said}.")
        thought = f"<think>They sent {said}.</think>\n"
        return Fault(change=lambda answer: replace(answer, text=thought + answer.text))

    place.many(COUNT)
    with Witness([rule]) as witness:
        place.settings |= {
            "vlm.openai.base_url": witness.server.base_url,
            "vlm.openai.api_key": KEY,
        }
        done = place.run()
        calm(done)
        assert (done.code, done.summary["failed"]) == (1, 1), done
        told = [done.out, done.err, *(content.decode() for _, content in place.everything())]
        assert not any(part in text for part in unwanted.split() for text in told)
        witness.rules.clear()
        again = place.run("--retry-failed")
        assert again.code == 0, again
        assert place.files() == undisturbed(COUNT)
        return Outcome(witness.sent, 0, lost_rows(place, COUNT))


def a_key(request: ReceivedRequest) -> str:
    return request.headers["authorization"]


def play_all(place: Workplace) -> None:
    lost = play(lambda request: f"{a_key(request)} {COMMANDS}", f"{KEY} {PARTS}", place, False).lost
    assert not lost


TELLING: list[Case] = [
    Case("in errors and replies: a key", SHOWN, functools.partial(play, a_key, KEY)),
    Case(
        "in errors and replies: terminal commands",
        SHOWN,
        functools.partial(play, lambda request: COMMANDS, PARTS),
    ),
]
