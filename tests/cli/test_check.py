"""`check`: all that is wrong, in one run, and nothing sent."""

from __future__ import annotations

import functools
import json
import resource
from pathlib import Path

import pytest

from benchmarks.places.workplace import Workplace, caption, command, ended, process
from dataflow_grounding.extras.testing import LoopbackServer


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
            {"image_path": "good.jpg", "caption": caption(6), "image_id": "six"},
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
    "the model is right": "    backend: embedded\n",
    "the model's name is misspelt": "    backend: openai\n    openai: {model_nam: x, base_url: http://127.0.0.1:9/v1}\n",
    "the key is missing": "    backend: gemini\n",
    "the box format is unknown": "    backend: openai\n    box_format: xyzw\n    openai: {model_name: m, base_url: http://127.0.0.1:9/v1}\n",
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
        "a file/out: cannot write to " + str(tmp_path / "a file"),
    ):
        assert expected in done.err, expected
    assert "line 7: image_id" not in done.err
    if "model_nam:" in vlm:
        assert "model_nam is not a key of the spec; is it 'model_name'?" in done.err
    if "gemini" in vlm:
        assert "GOOGLE_API_KEY" in done.err
    if "xyzw" in vlm:
        assert "xyzw" in done.err
    assert len(set(done.err.splitlines())) == len(done.err.splitlines()), "nothing is said twice"
    assert "7 records checked" in done.out
    assert "Traceback" not in done.err


def test_as_json(workplace: Workplace) -> None:
    faulty(workplace)
    done = command(
        ["check", "--json", "-e", spec_of(workplace, MODELS["the model is right"], "out")]
    )
    found = json.loads(done.out)
    assert (done.code, found["records"], len(found["problems"])) == (2, 7, 6)


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


def test_an_input_that_is_not_there_is_said_once(workplace: Workplace) -> None:
    done = command(
        ["check", "-e", str(workplace.spec(**{"vlm.openai.base_url": "http://127.0.0.1:9"}))]
    )
    assert done.code == 2
    assert done.err.count("no input file") == 1


@pytest.mark.slow
def test_fewer_open_files_than_workers_are_told(workplace: Workplace) -> None:
    workplace.many(1)
    spec = str(
        workplace.spec(
            **{"workflow.max_workers": 500, "vlm.openai.base_url": "http://127.0.0.1:9/v1"}
        )
    )
    few = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (100, 100))
    done = ended(process(["check", "-e", spec], preexec_fn=few))
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
