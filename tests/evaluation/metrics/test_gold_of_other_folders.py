"""Gold that comes back from another tool: its pictures are in other folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from tests.support.workplace import Done, write_rows
from tests.support.workplace import command as in_process


def command(*arguments: object) -> Done:
    done = in_process([str(argument) for argument in arguments])
    assert done.code == 0, done
    return done


def run_of(folder: Path, *pictures: str) -> Path:
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(pictures):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.effect_noise((64, 48), 40 + number).convert("RGB").save(path)
        cat = {"text": "a cat", "class": "cat", "instances": [{"bbox": [1, 2, 30, 40]}]}
        rows.append({"image_path": name, "width": 64, "height": 48, "expressions": [cat]})
    write_rows(folder / "annotations.jsonl", *rows)
    return folder


@pytest.mark.slow
def test_an_export_that_is_imported_is_gold_of_its_run(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "pics/a.png", "pics/b.png")
    command("export", run, "--format", "yolo", "-o", tmp_path / "out")
    command("import", tmp_path / "out", "--format", "yolo", "-o", tmp_path / "gold")
    figures = command("eval", run, "--gold", tmp_path / "gold", "--json").summary
    [row] = figures["classes"].values()
    assert (row["gold_boxes"], row["boxes"], row["f1"]) == (2, 2, 1.0)


@pytest.mark.slow
def test_pictures_are_the_same_where_the_whole_path_of_one_ends_the_other(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "pics/a.png", "pics/b.png")
    gold = run_of(tmp_path / "gold", "train/images/pics/a.png", "val/images/pics/b.png")
    for found, truth in ((run, gold), (gold, run)):
        figures = command("eval", found, "--gold", truth, "--json").summary
        assert figures["gold_boxes"] == figures["boxes"] == 2
        assert "whose paths end alike" in " ".join(figures["notes"])
    for pictures in (
        ("other/a.png", "other/b.png"),  # may be other pictures
        ("x/pics/a.png", "y/pics/a.png"),  # which of them?
    ):
        other = run_of(tmp_path / pictures[0].replace("/", "_"), *pictures)
        done = in_process(["eval", str(run), "--gold", str(other)])
        assert done.code == 2
        assert "have no record of the same image" in done.err
    # one that is there by its path is matched so, and none by its end
    some = run_of(tmp_path / "some", "pics/a.png", "images/pics/b.png")
    figures = command("eval", run, "--gold", some, "--json").summary
    assert "end alike" not in " ".join(figures["notes"])
    assert figures["expressions_missing"] == 1
