"""Where one rule refuses many of the first replies to a task, the run says early which rule it is; each
refused question is asked again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import Serving
from dataflow_grounding._util.errors import TruncatedReply, UnreadableReply
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.replies import Note
from dataflow_grounding.tasks import Request
from dataflow_grounding.testing import Answer, Fault, on
from tests.support.endpoint import endpoint_of
from tests.support.question import Question
from tests.support.steps import Steps, storage_in
from tests.support.workplace import Workplace, rows_of

pytestmark = pytest.mark.slow

READ = "yes"
REFUSED = "no"
RUN = RunOptions(progress=False, max_attempts=2)
Read = Callable[[str], tuple[Any, list[Note]]]


def by_rule(reply: str) -> tuple[Any, list[Note]]:
    """A user's reader: each reply but READ is refused, by a rule of its own."""
    if reply == READ:
        return reply, []
    if reply.startswith("cut"):
        raise TruncatedReply("the reply was cut off.")
    raise UnreadableReply(f"the reply says {reply[:40]!r}.", reply.split()[0])


@dataclass(eq=False)
class Runs(Serving):
    """Rows, and runs over them by a model that answers each first try as it is told to.

    Second tries get the same, or READ where the model is `docile`.
    """

    folder: Path
    first: list[str] = field(default_factory=list)
    of_tasks: list[str] = field(default_factory=list)
    docile: bool = False
    sent: list[int] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)
    not_counted: set[int] = field(default_factory=set)

    model = "told"
    max_workers = 1

    def add(self, replies: Sequence[str], task: str = "mine") -> None:
        if task not in self.of_tasks:
            # one that is read, and isn't counted: a task of which nothing is read ends the run
            self.not_counted.add(len(self.first))
            replies = [READ, *replies]
        self.first += replies
        self.of_tasks += [task] * len(replies)

    async def answer(self, request: Request[Any]) -> str:
        found = re.search(r"of r(\d+)\.", request.text)
        assert found
        number = int(found[1])
        if number not in self.not_counted:
            self.sent.append(number)
        is_first_try = "earlier reply" not in request.text
        return READ if self.docile and not is_first_try else self.first[number]

    def run(self, options: RunOptions = RUN, read: Read = by_rule) -> int:
        """Run over all rows; return how many requests that took."""
        self.sent.clear()
        picture = str(self.folder / "a.png")
        Image.new("RGB", (64, 48), "navy").save(picture)
        rows = []
        for number, task in enumerate(self.of_tasks):
            question = f"Say something of r{number}."
            rows.append({"image_path": picture, "question": question, "task": task})
        steps = Steps(storage_in(self.folder, *rows), Question(self, read))
        self.summary = steps.run(options=options)
        return len(self.sent)

    def failures(self) -> list[dict[str, Any]]:
        return rows_of(self.folder / "cache" / "x_failures.jsonl")


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


# --- what it costs


def test_each_refused_question_is_asked_again_and_never_by_a_later_run(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.add([REFUSED] * 20)
    assert runs.run() == 40
    assert {failure["attempts"] for failure in runs.failures()} == {2}
    assert len(early_lines(capsys.readouterr().err)) == 1
    runs.add([READ])
    assert runs.run() == 1
    assert early_lines(capsys.readouterr().err) == [], "it isn't told of stored ones again"
    assert runs.run() == 0


def test_refusals_by_several_rules_are_asked_again_and_counted_by_rule(runs: Runs) -> None:
    runs.add([*["red", "green"] * 12, "red"])
    assert runs.run() == 50
    facts = runs.summary.to_json()
    assert facts["unreadable_reasons"] == {"red": 26, "green": 24}
    assert (facts["answered"], facts["unreadable"], facts["unreadable_forms"]) == (51, 50, {})
    assert "98% of replies could not be read as asked (most: red)" in str(runs.summary)


def test_the_first_replies_of_a_run_that_asked_once_are_asked_again(runs: Runs) -> None:
    """The run was killed, or was told to try once."""
    runs.docile = True
    runs.add([REFUSED] * 10)
    assert runs.run(RunOptions(progress=False, max_attempts=1)) == 10
    assert runs.run() == 10
    assert runs.failures() == []


def test_what_is_retried_is_asked_from_the_first_try_on_and_kept(runs: Runs) -> None:
    runs.add([REFUSED] * 20)
    assert runs.run() == 40
    runs.docile = True
    retrying = RunOptions(progress=False, max_attempts=2, retry_failed=True)
    assert runs.run(retrying) == 40
    assert runs.failures() == []
    assert runs.run() == 0
    assert runs.failures() == []


# --- a reader that has become better


def test_stored_replies_that_an_earlier_reader_refused_are_read_without_a_request(
    runs: Runs,
) -> None:
    runs.add([REFUSED] * 20)
    assert runs.run() == 40
    assert len(runs.failures()) == 20
    assert runs.run(read=lambda reply: (reply, [])) == 0
    assert runs.failures() == []


# --- what is said early


def early_lines(said: str) -> list[str]:
    return [line for line in said.splitlines() if "of the first" in line]


def test_a_run_says_at_once_which_rule_refuses_its_replies(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.add([REFUSED, READ] * 8)
    runs.run()
    assert early_lines(capsys.readouterr().err) == [
        "Warning: 5 of the first 10 replies to mine were refused: the reply says 'no'. One begins"
        ' "no". What to do: try a stronger model.'
    ]


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([REFUSED, REFUSED, READ, READ, READ] * 4, id="4 of 10"),
        pytest.param([READ] * 10 + [REFUSED] * 10, id="later ones"),
        pytest.param(["red", "green", "blue"] * 7, id="several rules"),
        pytest.param(["cut off"] * 20, id="cut off"),
    ],
)
def test_what_is_less_is_not_said(
    runs: Runs, replies: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    runs.add(replies)
    runs.run()
    assert early_lines(capsys.readouterr().err) == []


def test_the_reply_is_shown_in_one_line_and_without_keys(workplace: Workplace) -> None:
    workplace.many(12)
    secret = "sk-3141592653589793"
    workplace.settings["vlm.openai.api_key"] = secret
    said = Fault(change=lambda answer: Answer(f"Your key\nis {secret}.\x07 " + "more " * 99))
    with endpoint_of(workplace, faults=on(said, task="phrase_grounding")):
        done = workplace.run()
    assert len(early_lines(done.err)) == 1, done
    [line] = early_lines(done.err)
    assert line.startswith("Warning: 5 of the first 5 replies to phrase_grounding were refused: ")
    assert 'One begins "Your key is ***.\\x07 more' in line
    assert line.endswith(". What to do: try vlm.asking: json.")
    assert "sk-3" not in done.err
    assert len(line) < 400
