"""A run that goes on takes finished rows as they are, and only where the same would come out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace, caption


@pytest.fixture
def done(workplace: Workplace, server: LoopbackServer) -> Workplace:
    """Six rows, finished: the endpoint got 12 requests."""
    workplace.many(6)
    workplace.settings["vlm.openai.base_url"] = server.base_url
    first = workplace.run()
    assert (first.code, server.count()) == (0, 12), first
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
    assert (again.code, server.count()) == (0, 12), again
    assert again.summary["replayed"] == 12, "the replies that these rows were made of"
    assert done.files() == before


def test_rows_that_are_added_are_asked_about_alone(done: Workplace, server: LoopbackServer) -> None:
    without_replies(done)
    rows = done.input.read_text().splitlines()
    done.rows([*rows, {**json.loads(rows[0]), "caption": caption(40)}])
    assert done.run().summary["done"] == 7
    assert server.count() == 14


def caption_changed(place: Workplace) -> list[str]:
    rows = [json.loads(line) for line in place.input.read_text().splitlines()]
    place.rows([{**rows[0], "caption": caption(50)}, *rows[1:]])
    return []


def picture_touched(place: Workplace) -> list[str]:
    row = json.loads(place.input.read_text().splitlines()[0])
    os.utime(place.folder / row["image_path"])
    return []


def line_damaged(place: Workplace) -> list[str]:
    lines = rows_of(place).read_bytes().splitlines(keepends=True)
    changed = lines[0].replace(b"grounded", b"ambiguous", 1)
    assert changed != lines[0]
    rows_of(place).write_bytes(b"".join([changed, *lines[1:]]))
    return []


def model_changed(place: Workplace) -> list[str]:
    return ["image_grounding.vlm.openai.model_name=other"]


def forced(place: Workplace) -> list[str]:
    return ["image_grounding.workflow.force_reprocess=true"]


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        pytest.param(caption_changed, 1, id="a caption"),
        pytest.param(picture_touched, 6, id="the picture's time"),
        pytest.param(line_damaged, 1, id="a line of the file"),
        pytest.param(model_changed, 6, id="the model"),
        pytest.param(forced, 6, id="all is asked again"),
    ],
)
def test_a_row_counts_while_all_that_it_was_made_of_is_as_it_was(
    done: Workplace, server: LoopbackServer, change: Callable[[Workplace], list[str]], asked: int
) -> None:
    without_replies(done)
    again = done.run(*change(done))
    assert (again.code, server.count() - 12) == (0, 2 * asked), again


def test_a_row_whose_picture_has_just_changed_is_not_kept(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(2)
    os.utime(workplace.folder / "a.jpg")
    workplace.settings["vlm.openai.base_url"] = server.base_url
    assert workplace.run().code == 0
    assert not rows_of(workplace).read_bytes()
