"""`check`: all that is wrong, in one run, and nothing sent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, features

from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace, caption, command, ended, process


def faulty(place: Workplace) -> None:
    """A folder with one of each fault among its rows."""
    place.picture("good.jpg")
    place.picture("other.jpg", color="red")
    (place.folder / "corrupt.jpg").write_bytes(b"\xff\xd8\xff" + b"no picture at all" * 9)
    place.rows(
        [
            {"image_path": "good.jpg", "caption": caption(0), "image_id": "one"},
            {"image_path": "gone.jpg", "caption": caption(1)},
            {"image_path": "corrupt.jpg", "caption": caption(2)},
            {"image_path": "other.jpg", "caption": caption(3), "image_id": "one"},
            '{"image_path": "good.jpg", "caption": "brok',
            {"image_path": "good.jpg", "caption": None},
            {"image_path": "good.jpg", "caption": caption(6), "pipeline_steps": [1]},
            {"image_path": "good.jpg", "caption": caption(7), "image_id": "six"},
        ]
    )


def spec_of(place: Workplace, vlm: str, results: str) -> str:
    path = place.folder / "spec.yaml"
    path.write_text(
        f"results_dir: {results}\nautolabel_type: image_grounding\nimage_grounding:\n  vlm:\n{vlm}"
        f"  workflow:\n    max_worker: 3\n  data:\n    input_jsonl: captions.jsonl\n"
    )
    return str(path)


MODELS = {
    "the model's name is misspelt": "    backend: openai\n    openai: {model_nam: x, base_url: http://127.0.0.1:9/v1}\n",
    "the key is missing": "    backend: gemini\n",
}


@pytest.mark.parametrize("vlm", [pytest.param(text, id=name) for name, text in MODELS.items()])
def test_one_of_each_fault_is_named_in_one_run(
    workplace: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vlm: str
) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    faulty(workplace)
    (tmp_path / "a file").write_text("")
    path = spec_of(workplace, vlm, str(tmp_path / "a file" / "out"))
    done = command(["check", "-e", path])
    assert done.code == 2, done
    lines = workplace.input
    line = 6 + vlm.count("\n")
    for expected in (
        f"{path}, line {line}: image_grounding.workflow.max_worker is not a key of the spec; is it 'max_workers'?",
        f"{lines}, line 2: no image 'gone.jpg'",
        f"{lines}, line 3: ",
        f"{lines}, line 4: image_id 'one' is used in line 1 too",
        f"{lines}, line 5: ",
        f"{lines}, line 6: ",
        f"{lines}, line 7: column 'pipeline_steps' should be a list of texts",
        "a file/out: cannot write to " + str(tmp_path / "a file"),
    ):
        assert expected in done.err, expected
    assert "line 8: image_id" not in done.err
    if "model_nam:" in vlm:
        assert "model_nam is not a key of the spec; is it 'model_name'?" in done.err
    if "gemini" in vlm:
        assert "GOOGLE_API_KEY" in done.err
        assert "vlm.backend to embedded, which needs neither key nor model" in done.err
    assert len(set(done.err.splitlines())) == len(done.err.splitlines()), "nothing is said twice"
    assert "8 records checked" in done.out
    assert "Traceback" not in done.err


def test_nothing_wrong_nothing_sent_nothing_written(workplace: Workplace) -> None:
    workplace.many(3)
    with LoopbackServer() as server:
        spec = workplace.spec(**{"vlm.openai.base_url": server.base_url})
        before = sorted(workplace.folder.rglob("*"))
        done = command(["check", "-e", str(spec)])
        assert (done.code, server.count()) == (0, 0), done
    assert "3 records checked, 0 problems. Nothing was sent." in done.out
    assert f"3 images found in {workplace.folder}" in done.out
    assert sorted(workplace.folder.rglob("*")) == before


def test_pictures_that_are_sent_stretched_are_counted(workplace: Workplace) -> None:
    workplace.many(1)
    dim = Image.frombytes("I;16", (2, 1), b"\0\0\xf0\x0f").resize((64, 48))
    dim.save(workplace.folder / "a.png")
    workplace.rows([{"image_path": "a.png", "caption": "A cup."}])
    done = command(["check", "-e", str(workplace.spec(**{"vlm.openai.base_url": "http://a"}))])
    assert "images of 16 bits" in done.out, done


def test_an_input_that_is_not_there_is_said_once(workplace: Workplace) -> None:
    done = command(
        ["check", "-e", str(workplace.spec(**{"vlm.openai.base_url": "http://127.0.0.1:9"}))]
    )
    assert done.code == 2
    assert done.err.count("no input file") == 1


def test_fewer_open_files_than_workers_are_told(workplace: Workplace) -> None:
    workplace.many(1)
    spec = str(
        workplace.spec(
            **{"workflow.max_workers": 500, "vlm.openai.base_url": "http://127.0.0.1:9/v1"}
        )
    )
    few = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (100, 100))"
    done = ended(process(["check", "-e", spec], first=few))
    assert done.code == 0, done
    assert "max_workers is 500, but ulimit -n allows " in done.out


def test_pictures_that_would_share_a_label_file_are_told_before_they_are_paid_for(
    workplace: Workplace,
) -> None:
    for name in ("a.jpg", "a.png", "b.jpg"):
        workplace.picture(name)
    workplace.rows(
        [{"image_path": name, "caption": caption(0)} for name in ("a.jpg", "./a.jpg", "b.jpg")]
    )
    path = spec_of(workplace, "    backend: embedded\n", "out")
    Path(path).write_text(Path(path).read_text().replace("max_worker:", "max_workers:"))
    assert "label file" not in command(["check", "-e", path]).out
    workplace.rows([{"image_path": name, "caption": caption(0)} for name in ("a.jpg", "a.png")])
    done = command(["check", "-e", path])
    assert (done.code, "label file" in done.out) == (0, True), done
    assert "1 (a.jpg and a.png)" in done.out


def captions_apart_from_pictures(place: Workplace, count: int) -> None:
    """A table of captions, and its pictures in a folder that no key names."""
    (place.folder / "tables").mkdir()
    place.picture("photos/summer/p0.jpg")
    for number in range(1, count):
        shutil.copy(
            place.folder / "photos/summer/p0.jpg", place.folder / f"photos/summer/p{number}.jpg"
        )
    rows = [f"p{number}.jpg,{caption(number)}" for number in range(count)]
    table = place.folder / "tables" / "captions.csv"
    table.write_text("\n".join(["image_path,caption", *rows]) + "\n")


def test_pictures_in_a_folder_nearby_are_told_with_the_key_that_names_it(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions_apart_from_pictures(workplace, 40)
    monkeypatch.chdir(workplace.folder)
    settings = {"vlm.backend": "embedded", "data.input_jsonl": "tables/captions.csv"}
    spec = str(workplace.spec(**settings))
    done = command(["check", "-e", spec])
    assert done.code == 2, done
    problems = [line for line in done.err.splitlines() if line.startswith("Problem: ")]
    assert len(problems) == 3, "alike ones are told together"
    assert problems[-1].endswith(" … and 37 more like it")
    assert "40 problems" in done.out
    assert len(json.loads(command(["check", "--json", "-e", spec]).out)["problems"]) == 40
    advice = "if the pictures are in photos/summer, add "
    [line] = [line for line in done.err.splitlines() if advice in line]
    override = line.partition(advice)[2]
    assert command(["check", "-e", spec, override]).code == 0
    ran = command(["generate", "-e", spec, "--no-progress", "--no-report"])
    assert f"next: {advice}{override}" in ran.err, ran


def test_a_few_pictures_that_are_missing_make_no_other_folder_the_right_one(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.picture("here.jpg")
    workplace.picture("attic/gone.jpg")
    names = ["here.jpg", "here.jpg", "gone.jpg"]
    workplace.rows(
        [{"image_path": name, "caption": caption(number)} for number, name in enumerate(names)]
    )
    monkeypatch.chdir(workplace.folder)
    done = command(["check", "-e", str(workplace.spec(**{"vlm.backend": "embedded"}))])
    assert "no image 'gone.jpg'" in done.err, done
    assert "Advice" not in done.err


@pytest.mark.parametrize("source", ["pictures", "pictures/*"])
def test_files_of_a_folder_that_are_passed_over_are_told(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    workplace.picture("pictures/a.jpg")
    for name in ("b.HEIC", "c.HEIC", "d.heic", "notes.txt", "LICENSE"):
        (workplace.folder / "pictures" / name).write_bytes(b"any")
    (workplace.folder / "pictures" / ".hidden.txt").write_bytes(b"any")
    monkeypatch.chdir(workplace.folder)
    settings = {
        "vlm.backend": "embedded",
        "data.input_jsonl": source,
        "data.classes": ["navy square"],
    }
    spec = str(workplace.spec(**settings))
    passed_over = "5 files passed over, by ending: 3 .heic, "
    done = command(["check", "-e", spec])
    assert (done.code, passed_over in done.out) == (0, True), done
    assert "1 .txt" in done.out
    assert "Boxes in files beside" not in done.out
    assert "Convert .heic to .jpg" in done.out
    ran = command(["generate", "-e", spec, "--no-progress", "--no-report"])
    assert (ran.code, passed_over in ran.err) == (0, True), ran
    (workplace.folder / "pictures" / "a.txt").write_bytes(b"0 0.5 0.5 0.1 0.1")
    with_labels = command(["check", "-e", spec])
    assert "Boxes in files next to the pictures are not read" in with_labels.out
    (workplace.folder / "pictures" / "a.txt").unlink()
    (workplace.folder / "pictures" / "a.jpg").unlink()
    none = command(["check", "-e", spec])
    assert passed_over in none.err, none


def test_pictures_of_a_folder_are_taken_in_every_format_that_is_read(workplace: Workplace) -> None:
    endings = ["jp2", "ppm", *(["avif"] if features.check("avif") else [])]
    (workplace.folder / "pictures").mkdir()
    for ending in endings:
        picture = Image.new("RGB", (200, 160), "white")
        picture.paste("blue", (60, 40, 130, 110))
        picture.save(workplace.folder / "pictures" / f"{ending}_picture.{ending.upper()}")
    settings = {
        "vlm.backend": "embedded",
        "data.input_jsonl": str(workplace.folder / "pictures"),
        "data.classes": ["blue square"],
    }
    ran = command(
        ["generate", "-e", str(workplace.spec(**settings)), "--no-progress", "--no-report"]
    )
    assert (ran.code, "passed over" in ran.err) == (0, False), ran
    found = {}
    for record in workplace.annotations():
        found[record["image_id"]] = [e["status"] for e in record["expressions"]]
    assert found == {f"{ending}_picture": ["grounded"] for ending in endings}


def test_json_lines_in_utf_16_are_one_problem_that_says_how_to_save_them(
    workplace: Workplace,
) -> None:
    workplace.many(3)
    lines = workplace.folder / "captions.jsonl"
    [given] = workplace.folder.glob("*.jsonl")
    lines.write_bytes(given.read_text(encoding="utf-8").encode("utf-16-be"))
    settings = {"vlm.backend": "embedded", "data.input_jsonl": str(lines)}
    done = command(["check", "-e", str(workplace.spec(**settings))])
    [problem] = [line for line in done.err.splitlines() if line.startswith("Problem: ")]
    assert "is in UTF-16: save it as UTF-8" in problem
    ran = command(["generate", "-e", str(workplace.spec(**settings)), "--no-progress"])
    assert (ran.code, ran.err.count("save it as UTF-8")) == (2, 1), ran
