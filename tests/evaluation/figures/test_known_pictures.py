"""`lint`, `stats` and `estimate` open no picture that a run knows and that is as it was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import PIL.Image
import pytest

from dataflow_grounding.images.image import kept_facts
from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support.opened import opened
from tests.support.workplace import Workplace, command

LONG_AGO = 10**18  # nanoseconds: younger files may still change, and are not remembered


def worked(folder: Path, name: str) -> Workplace:
    """A finished run over one picture."""
    with LoopbackServer(answers=EchoAnswers()) as server:
        place = Workplace(folder, server.base_url)
        PIL.Image.effect_noise((64, 48), 80).convert("RGB").save(folder / name)
        os.utime(folder / name, ns=(LONG_AGO, LONG_AGO))
        place.rows([{"image_path": name, "image_id": "a", "caption": "A red cup."}])
        assert place.run().code == 0
    return place


def lose_pixels(path: Path) -> None:
    """Zeros behind the header, in a file of the same size and time."""
    data = path.read_bytes()
    path.write_bytes(data[:60] + bytes(len(data) - 60))
    os.utime(path, ns=(LONG_AGO, LONG_AGO))


def unreadable(place: Workplace) -> int:
    counts: dict[str, int] = command(
        ["lint", str(place.results), "--select", "DG4", "--json"]
    ).summary["counts"]
    return counts.get("DG401", 0)


@pytest.mark.slow
def test_what_the_run_has_seen_is_not_opened_again(tmp_path: Path) -> None:
    place = worked(tmp_path, "a.jpg")
    kept_facts.clear()
    with opened() as names:
        assert unreadable(place) == 0
        estimate = command(["estimate", "-e", str(place.spec()), "--json"])
    assert estimate.summary["stored"] == 2
    assert "images.jsonl" in names
    assert "a.jpg" not in names


@pytest.mark.slow
def test_stats_takes_the_digests_of_files_as_large_as_others_from_the_run(tmp_path: Path) -> None:
    place = worked(tmp_path, "a.jpg")
    copy = json.loads((place.results / "annotations.jsonl").read_text())
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    (tmp_path / "copy.jsonl").write_text(json.dumps({**copy, "image_path": "b.jpg"}) + "\n")
    line = ["stats", str(place.results), str(tmp_path / "copy.jsonl"), "--json"]
    with opened() as names:
        assert command(line).summary["leaks"] == 1
    assert "b.jpg" in names
    assert "a.jpg" not in names
    lose_pixels(tmp_path / "a.jpg")
    assert command(line).summary["leaks"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("change", ["gone", "cut", "touched", "of the same size and time"])
def test_a_picture_that_has_changed_since_is_opened(tmp_path: Path, change: str) -> None:
    place, path = worked(tmp_path, "a.jpg"), tmp_path / "a.jpg"
    assert unreadable(place) == 0
    if change == "gone":
        path.unlink()
    elif change == "cut":
        path.write_bytes(path.read_bytes()[:500])
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    else:
        lose_pixels(path)
    if change == "touched":
        os.utime(path)
    assert unreadable(place) == 1


@pytest.mark.slow
def test_a_png_is_opened_as_its_header_does_not_say_that_it_can_be_decoded(tmp_path: Path) -> None:
    place, path = worked(tmp_path, "a.png"), tmp_path / "a.png"
    assert unreadable(place) == 0
    lose_pixels(path)
    assert unreadable(place) == 1


@pytest.mark.slow
@pytest.mark.parametrize("memory", [b"junk\n" * 9, b"", None])
def test_a_memory_that_is_damaged_or_not_there_is_none(
    tmp_path: Path, memory: bytes | None
) -> None:
    place = worked(tmp_path, "a.jpg")
    kept = place.results / ".ckpt" / "images.jsonl"
    kept.unlink()
    if memory is None:
        kept.mkdir()
    else:
        kept.write_bytes(memory)
    assert unreadable(place) == 0
    lose_pixels(tmp_path / "a.jpg")
    assert unreadable(place) == 1
