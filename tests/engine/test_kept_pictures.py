"""A picture that has to be encoded is encoded once for all steps of its record, in little memory."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import threading
from collections.abc import Callable
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding import PhraseGrounder
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine import image_memo
from dataflow_grounding.images import image as images
from dataflow_grounding.images.image import open_image
from dataflow_grounding.serving import OpenAIServing
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.answers import extracted
from tests.support.workplace import LONG_AGO, Workplace, caption

ROWS = 20
AT_WORK = 10  # rows, where two requests may be in flight


@pytest.fixture
def turned(workplace: Workplace, server: LoopbackServer) -> Workplace:
    """Rows whose pictures lie on their side, so that none is sent as it is."""
    rows = []
    for number in range(ROWS):
        name = workplace.picture(f"{number}.jpg", orientation=6, color=f"#{9 * number:02x}3030")
        os.utime(workplace.folder / name, LONG_AGO)
        rows.append({"image_path": name, "caption": caption(number)})
    workplace.rows(rows)
    workplace.settings["vlm.openai.base_url"] = server.base_url
    workplace.settings["workflow.max_workers"] = 2
    return workplace


@pytest.fixture
def encodings(turned: Workplace, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """An entry for each picture that is encoded from now on."""
    saved: list[Any] = []
    save = PIL.Image.Image.save

    def noted(picture: PIL.Image.Image, file: Any, *arguments: Any, **settings: Any) -> None:
        saved.append(file)
        save(picture, file, *arguments, **settings)

    monkeypatch.setattr(PIL.Image.Image, "save", noted)
    return saved


def bytes_kept() -> int:
    gc.collect()  # what other tests have left in cycles
    return sum(len(encoded.data) for encoded in images.kept_encoded.values())


def room_for(pictures: int, place: Workplace) -> int:
    """The bytes of so many pictures, which are all alike, and of what other tests keep."""
    record = Record({"image_path": str(place.folder / "0.jpg")})
    of_one = len(base64.b64decode(open_image(record, "image_path").encoded()))
    del record
    return bytes_kept() + pictures * of_one


def test_pictures_of_rows_at_work_are_encoded_once(
    turned: Workplace,
    server: LoopbackServer,
    encodings: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is room for half of them: those at work, and those of requests that end just now."""
    monkeypatch.setattr(images, "MAX_KEPT_BYTES", room_for(2 * AT_WORK, turned))
    encodings.clear()
    before = bytes_kept()
    done = turned.run()
    assert (done.code, server.count()) == (0, 2 * ROWS), done
    assert len(encodings) == ROWS
    assert bytes_kept() <= before


def test_what_is_kept_of_pictures_is_bounded(
    turned: Workplace,
    server: LoopbackServer,
    encodings: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A picture for which there is no room is encoded for each step, to the same bytes."""
    most = room_for(2, turned)
    monkeypatch.setattr(images, "MAX_KEPT_BYTES", most)
    encodings.clear()
    kept: list[int] = []

    def latency(_: ReceivedRequest) -> float:
        kept.append(sum(len(encoded.data) for encoded in images.kept_encoded.values()))
        return 0.0

    server.latency = latency
    done = turned.run()
    assert (done.code, server.count()) == (0, 2 * ROWS), done
    assert 0 < max(kept) <= most
    assert ROWS < len(encodings) < 2 * ROWS
    assert len({digest for request in server.requests for digest in request.image_digests}) == ROWS


def test_a_record_in_memory_keeps_its_picture_while_it_is_at_work(
    turned: Workplace, server: LoopbackServer
) -> None:
    gc.collect()
    before = len(images.kept_encoded)
    kept: list[int] = []

    def latency(_: ReceivedRequest) -> float:
        kept.append(len(images.kept_encoded) - before)
        return 0.0

    server.latency = latency
    serving = OpenAIServing(server.base_url, "any", max_workers=2, box_format="xyxy_px")
    rows = []
    for number in range(ROWS):
        path = str(turned.folder / f"{number}.jpg")
        rows.append({"image_path": path, "expressions": ["a cup"]})
    PhraseGrounder(serving, check_every=None)(rows)
    assert len(kept) == ROWS
    assert 0 < max(kept) <= AT_WORK


def replaced_at(
    number: int, place: Workplace, **picture: Any
) -> Callable[[ReceivedRequest], float]:
    """Latencies of 0 s; another file is moved to the picture's place before this request is
    answered, and has its time, as `cp -p` leaves it.
    """

    def latency(request: ReceivedRequest) -> float:
        if request.index == number:
            place.picture("other.jpg", color="red", **picture)
            os.utime(place.folder / "other.jpg", LONG_AGO)
            (place.folder / "other.jpg").replace(place.folder / "a.jpg")
        return 0.0

    return latency


@pytest.fixture
def one_row(workplace: Workplace, server: LoopbackServer) -> Workplace:
    workplace.rows([{"image_path": "a.jpg", "caption": "A red cup"}])
    workplace.settings["vlm.openai.base_url"] = server.base_url
    return workplace


@pytest.mark.parametrize("orientation", [1, 6], ids=["sent as it is", "encoded"])
@pytest.mark.parametrize("step", [0, 1])
def test_all_steps_of_a_record_are_shown_one_picture(
    one_row: Workplace, server: LoopbackServer, orientation: int, step: int
) -> None:
    """Its file is replaced while a step waits: the next run asks about the new one."""
    one_row.picture(orientation=orientation)
    os.utime(one_row.folder / "a.jpg", LONG_AGO)
    server.latency = replaced_at(step, one_row, orientation=orientation)
    done = one_row.run()
    assert (done.code, done.summary["notes"]) == (0, {"image_changed": 1}), done
    first, second = server.requests
    assert first.image_digests == second.image_digests
    assert one_row.run().code == 0
    third, fourth = server.requests[2:]
    assert third.image_digests == fourth.image_digests != first.image_digests


def test_what_a_row_is_noted_for_counts_once_though_it_is_done_again(
    one_row: Workplace, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its picture is replaced after its first step has noted something. The second step finds that
    out, as there is no room to keep the picture: then the row begins again.
    """
    monkeypatch.setattr(images, "MAX_KEPT_BYTES", 0)
    one_row.picture(orientation=6)
    os.utime(one_row.folder / "a.jpg", LONG_AGO)

    def plate_for_a_cup(request: ReceivedRequest) -> Any:
        if request.task == "expression_extraction":
            return {**extracted("A red cup"), "expressions": [{"text": "a plate"}]}
        return EchoAnswers()(request)

    server.answers = plate_for_a_cup
    server.latency = replaced_at(0, one_row, orientation=6)
    done = one_row.run()
    tasks = [request.task for request in server.requests]
    assert tasks == ["expression_extraction", "expression_extraction", "phrase_grounding"]
    notes = done.summary["notes"]
    assert (notes["image_changed"], notes["not_in_caption"]) == (1, 1), done


def test_a_disk_that_is_slow_three_times_in_a_row_is_read_by_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def are_here() -> list[bool]:
        memo = image_memo.ImageMemo(None)
        here = threading.get_ident()
        return [await memo.of_disk(threading.get_ident) == here for _ in range(5)]

    monkeypatch.setattr(image_memo, "SLOW", -1.0)  # seconds: however quick it is
    assert asyncio.run(are_here()) == [True] * 3 + [False] * 2
