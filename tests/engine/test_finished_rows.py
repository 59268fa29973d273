"""A run that goes on takes finished rows as they are, and only where the same would come out."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import (
    CaptionGrounder,
    FileStorage,
    OpenAIServing,
    PhraseGrounder,
    Pipeline,
    operator,
)
from dataflow_grounding.engine.finished_rows import NAME
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import LONG_AGO, Workplace


@pytest.fixture
def done(workplace: Workplace, server: LoopbackServer) -> Workplace:
    """Three rows, finished: the endpoint got 6 requests."""
    workplace.many(3)
    workplace.settings["vlm.openai.base_url"] = server.base_url
    first = workplace.run()
    assert (first.code, server.count()) == (0, 6), first
    (workplace.results / ".ckpt" / "finished.json").unlink()
    return workplace


def without_replies(place: Workplace) -> None:
    """From now on a row costs nothing only where it is taken as it is."""
    place.replies.unlink()


def rows_of(place: Workplace) -> Path:
    return place.results / ".ckpt" / "finished_rows.jsonl"


def test_finished_rows_need_no_reply(done: Workplace, server: LoopbackServer) -> None:
    before = done.files()
    without_replies(done)
    again = done.run()
    assert (again.code, server.count()) == (0, 6), again
    assert again.summary["replayed"] == 6, "the replies that these rows were made of"
    assert done.files() == before


def picture_copied(place: Workplace) -> None:
    """With a time of its own."""
    shutil.copy(place.folder / "a.jpg", place.folder / "b.jpg")
    os.replace(place.folder / "b.jpg", place.folder / "a.jpg")


def line_damaged(place: Workplace) -> None:
    lines = rows_of(place).read_bytes().splitlines(keepends=True)
    changed = lines[0].replace(b"grounded", b"ambiguous", 1)
    assert changed != lines[0]
    rows_of(place).write_bytes(b"".join([changed, *lines[1:]]))


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        pytest.param(picture_copied, 0, id="a copy of the picture"),
        pytest.param(line_damaged, 1, id="a line of the file"),
    ],
)
def test_a_row_counts_while_all_that_it_was_made_of_is_as_it_was(
    done: Workplace, server: LoopbackServer, change: Callable[[Workplace], None], asked: int
) -> None:
    """What asks again where they differ is in test_resume.py."""
    without_replies(done)
    change(done)
    again = done.run()
    assert (again.code, server.count() - 6) == (0, 2 * asked), again


def test_a_row_whose_picture_has_just_changed_is_not_kept(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(2)
    os.utime(workplace.folder / "a.jpg")
    workplace.settings["vlm.openai.base_url"] = server.base_url
    assert workplace.run().code == 0
    assert not rows_of(workplace).read_bytes()


HOSTILE: list[dict[str, Any]] = [
    {"columns": [{}, 5], "notes": {}, "replies": 1, "replies_at": [0, 1]},
    {"columns": [], "notes": {}, "replies": 1, "replies_at": [0, 1]},
    {"columns": [{}, {}], "notes": {"a": "b"}, "replies": 1, "replies_at": [0, 1]},
    {"columns": [{}, {}], "notes": {}, "replies": 1, "replies_at": [0]},
    {"columns": [{}, {}], "notes": {}, "replies": "1", "replies_at": [0, 1], "more": 1},
    {"columns": "\ud800"},
    {"row": "{}"},
    {},
]


def with_sum(line: dict[str, Any]) -> str:
    text = json.dumps(line, separators=(",", ":"))[:-1]
    return f'{text},"sum":{zlib.crc32(text.encode())}}}'


def as_0_2_0_wrote_it(line: dict[str, Any]) -> str:
    row = json.dumps({name: line[name] for name in line if name not in ("key", "sum")})
    return json.dumps({"key": line["key"], "row": row, "sum": zlib.crc32(row.encode())})


def test_lines_that_are_no_rows_are_passed_over(done: Workplace, server: LoopbackServer) -> None:
    whole = rows_of(done).read_text()
    first = json.loads(whole.splitlines()[0])
    lines = [with_sum({"key": first["key"], **values}) for values in HOSTILE]
    for line in (*lines, json.dumps(first), as_0_2_0_wrote_it(first)):
        rows_of(done).write_text(f"{whole}{line}\n")
        (done.results / ".ckpt" / "finished.json").unlink(missing_ok=True)
        again = done.run()
        assert (again.code, server.count()) == (0, 6), (line, again)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_a_run_does_without_a_file_that_it_can_not_use(
    done: Workplace, server: LoopbackServer, kind: str
) -> None:
    rows_of(done).unlink()
    if kind == "pipe":
        os.mkfifo(rows_of(done))
    else:
        rows_of(done).mkdir()
    assert done.run().code == 0
    assert server.count() == 6


def test_steps_of_the_users_code_keep_no_row(workplace: Workplace) -> None:
    """What else such code reads, nobody knows."""
    workplace.many(2)

    @operator(reads=["caption"], writes=["out"])
    def add(record: dict[str, Any]) -> dict[str, Any]:
        return {"out": record["caption"]}

    storage = FileStorage(str(workplace.input), str(workplace.folder / "cache"))
    add.run(storage.step())
    assert not (workplace.folder / "cache" / ".ckpt" / NAME).read_bytes()


def test_other_limits_of_pictures_are_other_settings(
    workplace: Workplace, server: LoopbackServer
) -> None:
    path = workplace.folder / workplace.picture(size=(1200, 900))
    os.utime(path, LONG_AGO)
    workplace.rows([{"image_path": "a.jpg", "expressions": ["a cup"]}])
    for largest in (1200, 600):
        serving = OpenAIServing(
            server.base_url, "m", box_format="xyxy_px", image_limits=ImageLimits(max_side=largest)
        )
        storage = FileStorage(str(workplace.input), str(workplace.folder / "cache"))
        PhraseGrounder(serving, check_every=None).run(storage.step())
    assert server.count() == 2


def test_a_picture_that_a_step_makes_is_a_part_of_a_finished_run(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.picture("made.jpg")
    workplace.rows([{"caption": "A red cup."}])
    os.utime(workplace.folder / "made.jpg", LONG_AGO)

    @operator(reads=["caption"], writes=["made"])
    def make(record: dict[str, Any]) -> dict[str, Any]:
        return {"made": "made.jpg"}

    class Made(Pipeline):
        def __init__(self) -> None:
            self.storage = FileStorage(str(workplace.input), str(workplace.folder / "cache"))
            serving = OpenAIServing(server.base_url, "m", box_format="xyxy_px")
            self.grounder = CaptionGrounder(serving, check_every=None)

        def forward(self) -> None:
            make.run(self.storage.step())
            self.grounder.run(self.storage.step(), input_image_key="made")

    def run() -> Summary:
        pipeline = Made()
        pipeline.compile()
        return pipeline.run()

    assert not run().already_complete
    assert run().already_complete
    workplace.picture("made.jpg", size=(400, 300))
    assert not run().already_complete
    assert server.count() == 2
