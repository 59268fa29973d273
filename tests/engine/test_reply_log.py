"""The log of replies: which of them count, as whoever reads it in order knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dataflow_grounding.engine.reply_log import Marks, ReplyLog

GROUP, OTHER = "xyxy_1000 aa", "yxyx_1000 bb"


def key(number: int) -> str:
    return f"{number + 1:016x}{number + 1:016x}"


def put(log: ReplyLog, *numbers: int, group: str = GROUP) -> None:
    for number in numbers:
        log.put(key(number), {"task": "t", "reply": str(number), "of": group})


def counting(path: Path, trusting: bool = False) -> list[str]:
    """The replies that a later run takes, with ? for a suspect one."""
    log = ReplyLog(str(path))
    Marks(log, GROUP, trusting)
    lines = [log.get(key(number)) for number in range(9)]
    log.close()
    return [line["reply"] + "?" * bool(line.get("suspect")) for line in lines if line]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replies.jsonl"


def relies(path: Path) -> bool:
    log = ReplyLog(str(path))
    relied_on = Marks(log, GROUP, trusting=False).relied_on
    log.close()
    return relied_on


def test_replies_are_open_until_a_check_that_was_sent_after_them_goes_well(path: Path) -> None:
    log = ReplyLog(str(path))
    put(log, 0, 1)
    put(log, 2, group=OTHER)
    marks = Marks(log, GROUP, trusting=False)
    up_to = marks.here()
    put(log, 3)
    marks.good(up_to)
    log.close()
    assert counting(path) == ["0", "1", "2", "3"]
    assert relies(path), "the last one came after the check was sent"
    log = ReplyLog(str(path))
    marks = Marks(log, GROUP, trusting=False)
    marks.good(marks.here())
    log.close()
    assert not relies(path)


def test_a_failed_check_sets_open_replies_aside_and_those_that_follow_in_its_run(
    path: Path,
) -> None:
    log = ReplyLog(str(path))
    put(log, 0)
    marks = Marks(log, GROUP, trusting=False)
    marks.good(marks.here())
    put(log, 1, 2)
    assert marks.bad() == 2
    put(log, 3)  # it was under way, or the run only warns
    put(log, 4, group=OTHER)
    log.close()
    assert counting(path) == ["0", "4"]
    assert counting(path, trusting=True) == ["0", "1?", "2?", "3?", "4"]
    log = ReplyLog(str(path))
    put(log, 1)
    marks = Marks(log, GROUP, trusting=False)
    marks.good(marks.here())
    log.close()
    assert counting(path) == ["0", "1", "4"], "what is set aside stays so"


def compact(line: bytes) -> bytes:
    return json.dumps(json.loads(line), separators=(",", ":")).encode() + b"\n"


def in_another_order(line: bytes) -> bytes:
    return json.dumps(dict(reversed(json.loads(line).items()))).encode() + b"\n"


@pytest.mark.parametrize("written", [compact, in_another_order])
def test_keys_in_another_order_say_the_same(path: Path, written: Callable[[bytes], bytes]) -> None:
    log = ReplyLog(str(path))
    put(log, 0, 1)
    marks = Marks(log, GROUP, trusting=False)
    marks.bad()
    put(log, 2)
    log.put(key(3), {"reply": '"of": "x" "mark": "y"', "of": OTHER})
    log.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(map(written, lines)))
    assert counting(path) == ['"of": "x" "mark": "y"']
    assert counting(path, trusting=True)[:3] == ["0?", "1?", "2?"]


@pytest.mark.parametrize(
    "mark",
    [
        {"mark": GROUP, "says": "good"},
        {"mark": GROUP, "says": "good", "up_to": "x"},
        {"mark": GROUP, "says": "good", "up_to": -5},
        {"mark": [GROUP], "says": "bad", "up_to": 5},
    ],
)
def test_a_damaged_mark_says_nothing(path: Path, mark: dict[str, object]) -> None:
    log = ReplyLog(str(path))
    put(log, 0)
    log.put(key(99), mark)
    log.close()
    assert counting(path) == ["0"]
    assert relies(path)


def test_a_refusal_here_gives_way_to_an_answer_in_another_part_of_the_run(tmp_path: Path) -> None:
    here, there = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")
    for path, line in ((here, {"reply": "", "refusal": "no"}), (there, {"reply": "yes"})):
        log = ReplyLog(path)
        log.put(key(1), line)
        log.close()
    log = ReplyLog(here, others=[there])
    found = log.get(key(1))
    log.close()
    assert found
    assert found["reply"] == "yes"
