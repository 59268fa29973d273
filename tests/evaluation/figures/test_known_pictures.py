"""`lint`, `stats` and `estimate` open no picture that a run knows and that is as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest

from dataflow_grounding.images.image import kept_facts
from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support.opened import opened
from tests.support.workplace import Workplace, command, write_rows

pytestmark = pytest.mark.slow

LONG_AGO = 10**18  # nanoseconds: younger files may still change, and are not remembered
CHANGES = ("gone", "cut", "touched", "of the same size and time")
MEMORIES = {"damaged": b"junk\n" * 9, "empty": b"", "a folder": None}
PICTURES = ("seen.jpg", "copied.jpg", "a.png", *(f"{name}.jpg" for name in (*CHANGES, *MEMORIES)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A finished run over pictures, of which each test changes its own."""
    folder = tmp_path_factory.mktemp("known")
    with LoopbackServer(answers=EchoAnswers()) as server:
        place = Workplace(folder, server.base_url)
        rows = []
        for number, name in enumerate(PICTURES):
            noise = PIL.Image.effect_noise((64, 48), 80 + number).convert("RGB")
            noise.save(folder / name)
            os.utime(folder / name, ns=(LONG_AGO, LONG_AGO))
            rows.append({"image_path": name, "image_id": name, "caption": "A red cup."})
        place.rows(rows)
        assert place.run().code == 0
    return place


@pytest.fixture
def memory(place: Workplace) -> Iterator[Path]:
    """What the run remembers of pictures, put back at the end."""
    path = place.results / ".ckpt" / "images.jsonl"
    kept = path.read_bytes()
    yield path
    shutil.rmtree(path, ignore_errors=True)
    path.write_bytes(kept)


def lose_pixels(path: Path) -> None:
    """Zeros after the header, in a file of the same size and time."""
    data = path.read_bytes()
    path.write_bytes(data[:60] + bytes(len(data) - 60))
    os.utime(path, ns=(LONG_AGO, LONG_AGO))


def is_unreadable(place: Workplace, name: str) -> bool:
    line = ["lint", str(place.results), "--select", "DG401", "--json"]
    lines = [found["line"] for found in command(line).summary["findings"]]
    return name in [place.annotations()[number - 1]["image_path"] for number in lines]


def test_what_the_run_has_seen_is_not_opened_again(place: Workplace) -> None:
    kept_facts.clear()
    rows = write_rows(
        place.folder / "one.jsonl",
        {"image_path": "seen.jpg", "image_id": "seen.jpg", "caption": "A red cup."},
    )
    with opened() as names:
        assert not is_unreadable(place, "seen.jpg")
        spec = place.spec(**{"data.input_jsonl": str(rows)})
        estimate = command(["estimate", "-e", str(spec), "--json"])
    assert estimate.summary["stored"] == 2 * len(PICTURES)
    assert "images.jsonl" in names
    assert "seen.jpg" not in names


def test_stats_takes_the_digests_of_files_as_large_as_others_from_the_run(
    place: Workplace,
) -> None:
    [row] = [row for row in place.annotations() if row["image_path"] == "copied.jpg"]
    shutil.copy(place.folder / "copied.jpg", place.folder / "other.jpg")
    copy = write_rows(place.folder / "copy.jsonl", {**row, "image_path": "other.jpg"})
    line = ["stats", str(place.results), str(copy), "--json"]
    with opened() as names:
        assert command(line).summary["leaks"] == 1
    assert "other.jpg" in names
    assert "copied.jpg" not in names
    lose_pixels(place.folder / "copied.jpg")
    assert command(line).summary["leaks"] == 0


@pytest.mark.parametrize("change", CHANGES)
def test_a_picture_that_has_changed_since_is_opened(place: Workplace, change: str) -> None:
    path = place.folder / f"{change}.jpg"
    assert not is_unreadable(place, path.name)
    if change == "gone":
        path.unlink()
    elif change == "cut":
        path.write_bytes(path.read_bytes()[:500])
        os.utime(path, ns=(LONG_AGO, LONG_AGO))
    else:
        lose_pixels(path)
    if change == "touched":
        os.utime(path)
    assert is_unreadable(place, path.name)


def test_a_png_is_opened_as_its_header_does_not_say_that_it_can_be_decoded(
    place: Workplace,
) -> None:
    assert not is_unreadable(place, "a.png")
    lose_pixels(place.folder / "a.png")
    assert is_unreadable(place, "a.png")


@pytest.mark.parametrize("name", MEMORIES)
def test_a_memory_that_is_damaged_or_not_there_is_none(
    place: Workplace, memory: Path, name: str
) -> None:
    memory.unlink()
    content = MEMORIES[name]
    if content is None:
        memory.mkdir()
    else:
        memory.write_bytes(content)
    assert not is_unreadable(place, f"{name}.jpg")
    lose_pixels(place.folder / f"{name}.jpg")
    assert is_unreadable(place, f"{name}.jpg")
