"""Recorded replies: what was recorded is played back without the endpoint; what was not is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import (
    EmbeddedServing,
    PhraseGrounder,
    RecordedServing,
    RegionMarker,
    RunOptions,
)
from dataflow_grounding._util.errors import InputError, RequestRefused
from dataflow_grounding.engine.options import current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.testing import EchoAnswers, on
from tests.support import faults
from tests.support.endpoint import Serves, serving_of


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    Image.new("RGB", (64, 48), "navy").save(tmp_path / "a.png")
    return [{"image_path": str(tmp_path / "a.png"), "expressions": [f"cup {n}"]} for n in range(12)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replies.jsonl"


def grounder(recorded: RecordedServing) -> PhraseGrounder:
    return PhraseGrounder(recorded, check_every=None)


@pytest.mark.slow
def test_what_was_recorded_is_played_back_without_the_endpoint(
    path: Path, rows: list[dict[str, Any]], serves: Serves
) -> None:
    server = serves(faults=on(faults.refusal(), containing="cup 3"))
    serving = serving_of(server, "xyxy_px")
    first = grounder(RecordedServing(path, serving))(rows[:6])
    assert (server.count(), len(first), [place for place, _ in first.failures]) == (6, 5, [3])
    again = grounder(RecordedServing(path, serving))(rows[:8])
    assert (server.count(), len(again)) == (8, 7), "only what is new is sent, and added to the file"
    played = grounder(RecordedServing(path))(rows[:8])
    assert (list(played), [type(error) for _, error in played.failures]) == (
        list(again),
        [RequestRefused],
    )
    with pytest.raises(
        RequestRefused, match=r"replies\.jsonl holds no reply to this phrase_grounding request"
    ):
        grounder(RecordedServing(path))(rows[9])


def test_a_recording_is_a_log_of_replies(
    path: Path, rows: list[dict[str, Any]], serves: Serves
) -> None:
    server = serves()
    serving = serving_of(server, "xyxy_px")
    first = grounder(RecordedServing(path, serving))(rows[:3])
    with holding(current_options, RunOptions(replies=str(path))):
        assert PhraseGrounder(serving, check_every=None)(rows[:3]) == first
    assert server.count() == 3


def test_a_recording_of_an_earlier_version_is_played_back(
    path: Path, rows: list[dict[str, Any]], serves: Serves
) -> None:
    serving = serving_of(serves(), "xyxy_px")
    first = grounder(RecordedServing(path, serving))(rows[:3])
    head, *lines = map(json.loads, path.read_text().splitlines())
    written = ("key", "reply", "finish_reason", "usage", "refusal")
    earlier = [{name: line[name] for name in written} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in [head, *earlier]))
    assert grounder(RecordedServing(path))(rows[:3]) == first


def test_boxes_are_read_by_the_users_own_row_when_they_are_played_back_too(
    path: Path, rows: list[dict[str, Any]], serves: Serves
) -> None:
    own = {"name": "mine", "models": ["loop*"], "order": "yxyx", "scale": 500}
    serving = serving_of(serves(EchoAnswers("yxyx_500")), "mine")
    serving.box_formats = [own]
    first = grounder(RecordedServing(path, serving))(rows[:2])
    assert [record["expressions"][0]["instances"] for record in first] != [[], []]
    assert grounder(RecordedServing(path))(rows[:2]) == first


@pytest.mark.slow
def test_a_torn_line_is_no_reply_and_the_next_one_is_whole(
    path: Path, rows: list[dict[str, Any]], serves: Serves
) -> None:
    server = serves()
    serving = serving_of(server, "xyxy_px")
    first = grounder(RecordedServing(path, serving))(rows[:3])
    path.write_bytes(path.read_bytes()[:-30])
    assert grounder(RecordedServing(path, serving))(rows[:3]) == first
    assert server.count() == 4
    assert grounder(RecordedServing(path))(rows[:3]) == first


def test_what_is_not_a_vlm_signs_its_records_when_it_is_played_back_too(
    tmp_path: Path, path: Path, rows: list[dict[str, Any]]
) -> None:
    first = grounder(RecordedServing(path, EmbeddedServing()))(rows[0])
    played = RecordedServing(path)
    assert grounder(played)(rows[0]) == first
    assert first["model"] == EmbeddedServing.model
    marker = RegionMarker(tmp_path / "out", serving=played)
    assert marker({"image": rows[0]["image_path"], "bbox": [[1, 2, 30, 40]]})["type"] == "with_bbox"
    assert marker.proposals == "opencv"


@pytest.mark.parametrize(
    "text", ["", "{}\n", "not JSON\n", "[1]\n", '{"recorded": 5, "box_format": 1}\n']
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(InputError, match="is not a recording of replies"):
        RecordedServing(tmp_path / "x.jsonl")
    with pytest.raises(InputError, match="no recording"):
        RecordedServing(tmp_path / "gone.jsonl")
