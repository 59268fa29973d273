"""`check`: all that is wrong, in one run, and nothing sent."""

from __future__ import annotations

import pytest
from PIL import Image, features

from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace, caption, command, ended, process

EMBEDDED = {"vlm.backend": "embedded", "vlm.box_format": "auto"}


@pytest.fixture
def faulty(workplace: Workplace) -> Workplace:
    """A folder with one of each fault among its rows."""
    workplace.picture("good.jpg")
    workplace.picture("other.jpg", color="red")
    (workplace.folder / "corrupt.jpg").write_bytes(b"\xff\xd8\xff" + b"no picture at all" * 9)
    good = {"image_path": "good.jpg"}
    workplace.rows(
        [
            {**good, "caption": caption(0), "image_id": "one"},
            {"image_path": "gone.jpg", "caption": caption(1)},
            {"image_path": "corrupt.jpg", "caption": caption(2)},
            {"image_path": "other.jpg", "caption": caption(3), "image_id": "one"},
            '{"image_path": "good.jpg", "caption": "brok',
            {**good, "caption": None},
            {**good, "caption": caption(6), "pipeline_steps": [1]},
            {**good, "caption": caption(7), "image_id": "six"},
        ]
    )
    return workplace


SPEC = """results_dir: a file/out
autolabel_type: image_grounding
image_grounding:
  vlm: {vlm}
  workflow:
    max_worker: 3
  data:
    input_jsonl: captions.jsonl
"""
WITHOUT_MODEL = "{backend: openai, openai: {model_nam: x, base_url: http://127.0.0.1:9/v1}}"
MODELS = {
    WITHOUT_MODEL: ["model_nam is not a key of the spec; is it 'model_name'?"],
    "{backend: gemini}": [
        "GOOGLE_API_KEY",
        "vlm.backend to embedded, which needs neither key nor model",
    ],
}


@pytest.mark.parametrize("vlm", MODELS, ids=["the model's name is misspelt", "the key is missing"])
def test_one_of_each_fault_is_named_in_one_run(
    faulty: Workplace, monkeypatch: pytest.MonkeyPatch, vlm: str
) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    (faulty.folder / "a file").write_text("")
    path = faulty.folder / "spec.yaml"
    path.write_text(SPEC.replace("{vlm}", vlm))
    done = command(["check", "-e", str(path)])
    assert done.code == 2, done
    lines = faulty.input
    wrong_key = "image_grounding.workflow.max_worker is not a key of the spec"
    for expected in (
        f"{path}, line 6: {wrong_key}; is it 'max_workers'?",
        f"{lines}, line 2: no image 'gone.jpg'",
        f"{lines}, line 3: ",
        f"{lines}, line 4: image_id 'one' is used in line 1 too",
        f"{lines}, line 5: ",
        f"{lines}, line 6: ",
        f"{lines}, line 7: column 'pipeline_steps' should be a list of texts",
        f"a file/out: cannot write to {faulty.folder / 'a file'}",
        *MODELS[vlm],
    ):
        assert expected in done.err, expected
    assert "line 8: image_id" not in done.err
    assert len(set(done.err.splitlines())) == len(done.err.splitlines()), "nothing is said twice"
    assert "8 records checked" in done.out
    assert "Traceback" not in done.err


def test_nothing_wrong_nothing_sent_nothing_written(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(3)
    spec = workplace.spec()
    before = sorted(workplace.folder.rglob("*"))
    done = command(["check", "-e", str(spec)])
    assert (done.code, server.count()) == (0, 0), done
    assert "3 records checked, 0 problems. Nothing was sent." in done.out
    assert f"3 images found in {workplace.folder}" in done.out
    assert sorted(workplace.folder.rglob("*")) == before


def test_pictures_that_are_sent_stretched_are_counted(workplace: Workplace) -> None:
    dim = Image.frombytes("I;16", (2, 1), b"\0\0\xf0\x0f").resize((64, 48))
    dim.save(workplace.folder / "a.png")
    workplace.rows([{"image_path": "a.png", "caption": "A cup."}])
    assert "images of 16 bits" in workplace.check().out


def test_an_input_that_is_not_there_is_said_once(workplace: Workplace) -> None:
    done = workplace.check()
    assert (done.code, done.err.count("no input file")) == (2, 1), done


def test_fewer_open_files_than_workers_are_told(workplace: Workplace) -> None:
    workplace.many(1)
    spec = str(workplace.spec(**{"workflow.max_workers": 500}))
    few = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (100, 100))"
    done = ended(process(["check", "-e", spec], first=few))
    assert done.code == 0, done
    assert "max_workers is 500, but ulimit -n allows " in done.out


def test_pictures_that_would_share_a_label_file_are_told_before_they_are_paid_for(
    workplace: Workplace,
) -> None:
    for name in ("a.jpg", "a.png", "b.jpg"):
        workplace.picture(name)
    told = []
    for names in (["a.jpg", "./a.jpg", "b.jpg"], ["a.jpg", "a.png"]):
        workplace.rows({"image_path": name, "caption": "A cup"} for name in names)
        told.append(workplace.check())
    assert "label file" not in told[0].out
    assert (told[1].code, "label file" in told[1].out) == (0, True), told
    assert "1 (a.jpg and a.png)" in told[1].out


def test_a_picture_that_is_missing_is_told_with_the_folders_that_were_tried(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.picture("photos/p0.jpg")
    workplace.rows({"image_path": f"p{n}.jpg", "caption": caption(n)} for n in range(40))
    monkeypatch.chdir(workplace.folder)
    done = workplace.check()
    assert done.code == 2, done
    problems = [line for line in done.err.splitlines() if line.startswith("Problem: ")]
    assert len(problems) == 3, "alike ones are told together"
    assert f"no image 'p0.jpg': No such file or directory (looked in {workplace.folder}" in done.err
    assert problems[-1].endswith(" … and 37 more like it")
    assert "40 problems" in done.out
    assert len(workplace.check("--json").summary["problems"]) == 40


@pytest.mark.parametrize("source", ["pictures", "pictures/*"])
def test_files_of_a_folder_that_are_passed_over_are_told(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    pictures = (workplace.folder / workplace.picture("pictures/a.jpg")).parent
    for name in ("b.HEIC", "c.HEIC", "d.heic", "notes.txt", "LICENSE", ".hidden.txt"):
        (pictures / name).write_bytes(b"any")
    monkeypatch.chdir(workplace.folder)
    of_folder = {"data.input_jsonl": source, "data.classes": ["navy square"]}
    workplace.settings |= {**EMBEDDED, **of_folder}
    passed_over = "5 files passed over, by ending: 3 .heic, "
    done = workplace.check()
    assert (done.code, passed_over in done.out) == (0, True), done
    assert "1 .txt" in done.out
    assert "Convert .heic to .jpg" in done.out
    ran = command(["generate", "-e", str(workplace.spec()), "--no-progress", "--no-report"])
    assert (ran.code, passed_over in ran.err) == (0, True), ran
    (pictures / "a.jpg").unlink()
    none = workplace.check()
    assert passed_over in none.err, none


def test_pictures_of_a_folder_are_taken_in_every_format_that_is_read(workplace: Workplace) -> None:
    endings = ["jp2", "ppm", *(["avif"] if features.check("avif") else [])]
    (workplace.folder / "pictures").mkdir()
    picture = Image.new("RGB", (200, 160), "white")
    picture.paste("blue", (60, 40, 130, 110))
    for ending in endings:
        picture.save(workplace.folder / "pictures" / f"{ending}_picture.{ending.upper()}")
    ran = workplace.run(
        **{**EMBEDDED, "data.input_jsonl": "pictures", "data.classes": ["blue square"]}
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
    workplace.input.write_bytes(workplace.input.read_text("utf-8").encode("utf-16-be"))
    done = workplace.check()
    [problem] = [line for line in done.err.splitlines() if line.startswith("Problem: ")]
    assert "is in UTF-16: save it as UTF-8" in problem
    ran = workplace.run()
    assert (ran.code, ran.err.count("save it as UTF-8")) == (2, 1), ran
