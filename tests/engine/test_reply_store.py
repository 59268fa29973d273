"""The store of a run's replies, as those find it who only read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from tests.support.endpoint import endpoint_of
from tests.support.workplace import Workplace, command

pytestmark = pytest.mark.slow

COUNT = 6


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    workplace.many(COUNT)
    workplace.settings |= {"vlm.check_every": 100, "vlm.box_format": "xyxy_1000"}
    return workplace


def run(place: Workplace, server: LoopbackServer) -> int:
    return place.run(**{"vlm.openai.base_url": server.base_url}).code


def test_an_estimate_touches_no_store_not_even_a_line_that_is_being_written(
    place: Workplace,
) -> None:
    with endpoint_of(place, EchoAnswers("xyxy_1000")) as server:
        before = command(["estimate", "-e", str(place.spec()), "--json"]).summary
        assert (before["stored"], place.replies.parent.exists()) == (0, False)
        assert run(place, server) == 0
        with place.replies.open("ab") as store:
            store.write(b'{"key": "0123')
        held = place.replies.read_bytes()
        after = command(["estimate", "-e", str(place.spec()), "--json"]).summary
    assert (after["requests"], after["stored"]) == (0, 2 * COUNT)
    assert place.replies.read_bytes() == held


def replaced_by_a_copy(store: Path) -> None:
    """As `sed -i`, an editor or a sync client does."""
    copy = store.with_suffix(".copy")
    shutil.copy(store, copy)
    copy.replace(store)


def moved(store: Path) -> None:
    store.rename(store.with_suffix(".old"))


def emptied(store: Path) -> None:
    os.truncate(store, 0)


def folder_removed(store: Path) -> None:
    shutil.rmtree(store.parent)


def results_removed(store: Path) -> None:
    shutil.rmtree(store.parent.parent)


class Changing:
    """Answers as EchoAnswers do, and changes the run's store with the seventh answer."""

    def __init__(self, store: Path, change: Callable[[Path], None]) -> None:
        self.store = store
        self.change = change
        self.given = 0

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        self.given += 1
        if self.given == 7:
            self.change(self.store)
        return EchoAnswers("xyxy_1000")(request)


@contextmanager
def changing(place: Workplace, change: Callable[[Path], None]) -> Iterator[Changing]:
    """A model behind a server that runs of the place ask, one request after the other."""
    model = Changing(place.replies, change)
    with LoopbackServer(model) as server:
        place.settings |= {"vlm.openai.base_url": server.base_url, "workflow.max_workers": 1}
        yield model


@pytest.mark.parametrize("change", [replaced_by_a_copy, moved, Path.unlink])
def test_a_store_that_is_moved_or_replaced_during_a_run_is_put_back(
    place: Workplace, change: Callable[[Path], None]
) -> None:
    with changing(place, change) as model:
        done = place.run()
        given = model.given
        assert done.code == 0, done
        assert done.err.count("All that was in it is there again") == 1
        (place.results / "annotations.jsonl").unlink()
        assert place.run().code == 0
    assert model.given == given


@pytest.mark.parametrize("change", [emptied, folder_removed, results_removed])
def test_a_run_whose_store_is_lost_stops_and_says_so(
    place: Workplace, change: Callable[[Path], None]
) -> None:
    with changing(place, change) as model:
        done = place.run()
        assert done.code == 130, done
        assert model.given in (7, 8), "the seventh may be a check's, next to which a row is asked"
        [line] = done.err.splitlines()
        if change is emptied:
            assert "another program changed" in line
            return
        assert "was removed during the run" in line
        assert place.run().code == 0
    assert model.given <= 2 * COUNT + 2, "the answer that was on its way, and a check"
