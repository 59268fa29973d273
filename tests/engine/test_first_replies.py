"""Where one rule refuses most first replies, and second ones too, a refused question isn't asked again,
and the run says early which rule it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import FileStorage, OpenAIServing, Pipeline
from dataflow_grounding._util.errors import SuspectReply, TruncatedReply, UnreadableReply
from dataflow_grounding.engine.options import RunOptions
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.replies import Note
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.dialects import Answer
from dataflow_grounding.testing.faults import Fault
from tests.support.question import Question
from tests.support.workplace import Workplace

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
    if reply.startswith("odd"):
        raise SuspectReply("it looks odd.")
    raise UnreadableReply(f"the reply says {reply[:40]!r}.", reply.split()[0])


class OneStep(Pipeline):
    def __init__(self, storage: FileStorage, operator: Question) -> None:
        self.storage = storage
        self.question = operator

    def forward(self) -> None:
        self.question.run(self.storage.step())


@dataclass
class Runs:
    """Rows, and runs over them against a server that answers each first try as it is told to.

    Second tries get the same, or READ where the model is `docile`.
    """

    folder: Path
    first: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    docile: bool = False
    sent: list[int] = field(default_factory=list)
    summary: Summary = field(default_factory=Summary)
    not_counted: set[int] = field(default_factory=set)

    def add(self, replies: Sequence[str], task: str = "mine") -> None:
        if task not in self.tasks:
            # one that is read, and isn't counted: a task of which nothing is read ends the run
            self.not_counted.add(len(self.first))
            replies = [READ, *replies]
        self.first += replies
        self.tasks += [task] * len(replies)

    def answer(self, request: ReceivedRequest) -> Answer:
        found = re.search(r"of r(\d+)\.", request.text)
        assert found
        number = int(found[1])
        if number not in self.not_counted:
            self.sent.append(number)
        is_first_try = "earlier reply" not in request.text
        return Answer(READ if self.docile and not is_first_try else self.first[number])

    def run(self, options: RunOptions = RUN, read: Read = by_rule) -> int:
        """Run over all rows, one request at a time; return how many requests that took."""
        self.sent.clear()
        picture = str(self.folder / "a.png")
        Image.new("RGB", (64, 48), "navy").save(picture)
        lines = [
            json.dumps({"image_path": picture, "question": f"Say something of r{n}.", "task": task})
            for n, task in enumerate(self.tasks)
        ]
        (self.folder / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
        with LoopbackServer(self.answer) as server:
            serving = OpenAIServing(server.base_url, "m", max_workers=1)
            storage = FileStorage(str(self.folder / "in.jsonl"), str(self.folder / "out"))
            self.summary = OneStep(storage, Question(serving, read)).run(options=options)
        return len(self.sent)

    def failures(self) -> list[dict[str, Any]]:
        [path] = (self.folder / "out").rglob("*failures.jsonl")
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    def times_asked(self, number: int) -> int:
        return self.sent.count(number)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


# --- what it costs


@pytest.mark.slow
def test_where_second_replies_can_be_read_a_refused_one_is_always_asked_for_again(
    runs: Runs,
) -> None:
    runs.docile = True
    runs.add([REFUSED] * 25)
    assert runs.run() == 50
    assert runs.failures() == []


@pytest.mark.slow
def test_replies_that_are_always_refused_fail_after_one_try(runs: Runs) -> None:
    runs.add([REFUSED, REFUSED, READ] * 10)
    # 11 of the first 16 are refused; the first 10 of these are tried twice
    assert runs.run() == 30 + 10
    assert [failure["attempts"] for failure in runs.failures()] == [2] * 10 + [1] * 10
    assert runs.run() == 0


@pytest.mark.slow
def test_exactly_half_is_not_most(runs: Runs) -> None:
    runs.add([REFUSED, READ] * 15)
    assert runs.run() == 45


@pytest.mark.slow
def test_refusals_by_several_rules_are_asked_again_and_counted_by_rule(runs: Runs) -> None:
    runs.add([*["red", "green"] * 12, "red"])
    assert runs.run() == 50
    facts = runs.summary.to_json()
    assert facts["unreadable_reasons"] == {"red": 26, "green": 24}
    assert (facts["answered"], facts["unreadable"], facts["unreadable_forms"]) == (51, 50, {})
    assert "98% of replies could not be read as asked (most: red)" in str(runs.summary)


@pytest.mark.slow
def test_a_reader_that_names_no_rule_has_one_by_its_message(runs: Runs) -> None:
    def read(reply: str) -> tuple[Any, list[Note]]:
        if reply != READ:
            message = "it should be yes." if reply == REFUSED else f"{reply} isn't yes."
            raise UnreadableReply(message)
        return reply, []

    runs.add([REFUSED] * 20)
    runs.add([f"reply {number}" for number in range(20)], "another")
    assert runs.run(read=read) == 20 + 10 + 20 + 20


@pytest.mark.slow
def test_replies_that_are_cut_off_or_suspect_are_asked_for_again(runs: Runs) -> None:
    runs.add(["cut off"] * 12)
    runs.add(["odd boxes"] * 12, "another")
    assert runs.run() == 48


# --- when the rule holds


@pytest.mark.slow
def test_each_task_has_its_own_rule(runs: Runs) -> None:
    runs.add([REFUSED] * 20)
    runs.add([REFUSED] * 5, "another")
    assert runs.run() == 20 + 10 + 5 + 5


@pytest.mark.slow
def test_a_model_that_changes_its_manner_is_asked_again(runs: Runs) -> None:
    runs.add([REFUSED] * 20)
    runs.add([READ] * 9)
    runs.add([REFUSED])  # 12 of the last 20
    runs.add([READ] * 9)
    runs.add([REFUSED])  # 3 of the last 20
    assert runs.run() == 40 + 10 + 1
    assert (runs.times_asked(30), runs.times_asked(40)) == (1, 2)


@pytest.mark.slow
def test_a_run_that_goes_on_knows_the_rule_from_stored_replies(runs: Runs) -> None:
    runs.add([REFUSED] * 20)
    assert runs.run() == 30
    runs.add([REFUSED] * 5)
    assert runs.run() == 5
    assert runs.run() == 0


@pytest.mark.slow
def test_the_first_replies_of_a_run_that_asked_once_are_asked_again(runs: Runs) -> None:
    """Nothing was given up: the run was killed, or was told to try once."""
    runs.docile = True
    runs.add([REFUSED] * 10)
    assert runs.run(RunOptions(progress=False, max_attempts=1)) == 10
    assert runs.run() == 10
    assert runs.failures() == []


@pytest.mark.slow
def test_what_is_retried_goes_on_with_its_second_try_and_is_kept(runs: Runs) -> None:
    runs.add([REFUSED] * 20)
    assert runs.run() == 30
    # Of the stored replies that are read now, all are refused: they tell nothing of a further row.
    runs.docile = True
    runs.add([REFUSED])
    retrying = RunOptions(progress=False, max_attempts=2, retry_failed=True)
    assert runs.run(retrying) == 10 * 2 + 10 + 2
    assert runs.failures() == []
    assert runs.run() == 0
    assert runs.failures() == [], "a stored second try counts, though most first ones are refused"


# --- a reader that has become better


@pytest.mark.slow
def test_stored_replies_that_an_earlier_reader_refused_are_read_without_a_request(
    runs: Runs,
) -> None:
    def read_all(reply: str) -> tuple[Any, list[Note]]:
        return reply, []

    runs.add([REFUSED] * 20)
    assert runs.run() == 30
    assert len(runs.failures()) == 20
    assert runs.run(read=read_all) == 0
    assert runs.failures() == []


@pytest.mark.slow
def test_a_reply_that_another_rule_refuses_is_asked_for_again(runs: Runs) -> None:
    def read_by_another_rule(reply: str) -> tuple[Any, list[Note]]:
        if reply != READ:
            raise UnreadableReply("it isn't yes.", f"rule of {reply}")
        return reply, []

    runs.add([f"{REFUSED} {number}" for number in range(20)])
    assert runs.run() == 30
    runs.docile = True
    # The stored second replies of ten are read first, and refused by the other rule, too.
    assert runs.run(read=read_by_another_rule) == 10
    assert len(runs.failures()) == 10


# --- what is said early


def early_lines(said: str) -> list[str]:
    return [line for line in said.splitlines() if "of the first" in line]


@pytest.mark.slow
def test_a_run_says_at_once_which_rule_refuses_its_replies(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    runs.add([REFUSED, READ] * 8)
    runs.run()
    assert early_lines(capsys.readouterr().err) == [
        "Warning: 5 of the first 10 replies to mine were refused: the reply says 'no'. One begins"
        ' "no". What to do: try a stronger model.'
    ]


@pytest.mark.slow
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


@pytest.mark.slow
def test_stored_replies_are_not_told_of_again(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    """All replies that are read again are of failed records."""
    runs.add([REFUSED] * 20)
    runs.run()
    assert len(early_lines(capsys.readouterr().err)) == 1
    runs.add([READ])
    assert runs.run() == 1
    assert early_lines(capsys.readouterr().err) == []


def test_the_reply_is_shown_in_one_line_and_without_keys(workplace: Workplace) -> None:
    workplace.many(20)
    secret = "sk-3141592653589793"
    said = Fault(change=lambda answer: Answer(f"Your key\nis {secret}.\x07 " + "more " * 99))
    rule = on(said, task="phrase_grounding")
    with LoopbackServer(faults=[rule]) as server:
        settings = {"vlm.openai.base_url": server.base_url, "vlm.openai.api_key": secret}
        done = workplace.run(**settings)
    assert len(early_lines(done.err)) == 1, done
    [line] = early_lines(done.err)
    assert line.startswith("Warning: 5 of the first 5 replies to phrase_grounding were refused: ")
    assert 'One begins "Your key is ***.\\x07 more' in line
    assert line.endswith(". What to do: try vlm.asking: json.")
    assert "sk-3" not in done.err
    assert len(line) < 400
