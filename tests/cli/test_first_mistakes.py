"""Mistakes of a first hour: each message says what is wrong, where, and what to do, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace, command

SPEC = """
results_dir: results
autolabel_type: image_grounding
image_grounding:
  vlm: {backend: auto}
  data:
    input_jsonl: captions.csv
    image_root: photos
    columns: {image: file, caption: text}
"""
GENERATE = "generate -e captions.yaml"


@pytest.fixture(autouse=True)
def folder(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new user's folder: two photos, a table of captions and a spec. No endpoint is named."""
    for name in ("a.jpg", "b.jpg"):
        workplace.picture(f"photos/{name}")
    (workplace.folder / "captions.csv").write_text("file,text\na.jpg,A red cup.\nb.jpg,A bus.\n")
    (workplace.folder / "captions.yaml").write_text(SPEC)
    misspelt = SPEC.replace("image_grounding:", "image_groundng:")
    (workplace.folder / "misspelt.yaml").write_text(misspelt)
    monkeypatch.chdir(workplace.folder)
    return workplace.folder


MISTAKES = {
    "generate -e caption.yaml": "no spec file caption.yaml; is it 'captions.yaml'?",
    "generate -e nowhere/x.yaml": "no spec file nowhere/x.yaml: dataflowgrounding default_specs writes one",
    f"{GENERATE} image_grounding.data.input_jsonl=captons.csv": "captons.csv; is it 'captions.csv'?",
    f"{GENERATE} image_grounding.vlm.backend=opnai": "image_grounding.vlm.backend should be 'gemini',"
    " 'openai', 'local', 'embedded', 'auto' or module:Class, a serving of your own; is it 'openai'?",
    f"{GENERATE} image_grounding.workflow.max_workers=many": "image_grounding.workflow.max_workers should be a whole number",
    f"{GENERATE} vlm.backend=embedded": "vlm is not a key of the spec; is it 'image_grounding.vlm'?",
    f"{GENERATE} max_workers=3": "max_workers is not a key of the spec; is it 'image_grounding.workflow.max_workers'?",
    "default_specs autolabel_type=image_groundig": "; is it 'image_grounding'?",
    "default_specs result_dir=.": "; is it 'results_dir'?",
    f"{GENERATE} foo=1": "foo is not a key of the spec",
    f"{GENERATE} autolabel_type=grounding": "Error: autolabel_type 'grounding' is not one of"
    " image_grounding, image_referring_expression, image_region_caption, nor of the form module:name;"
    " is it 'image_grounding'?",
    "generate -e misspelt.yaml": "image_groundng is not a key of the spec; is it 'image_grounding'?",
    "ground photos/a.jpg cup -e misspelt.yaml": "image_groundng is not a key of the spec; is it 'image_grounding'?",
    "ground c.jpg cup": "no image 'c.jpg': No such file or directory (looked in the current folder)",
    "report results": "no results/annotations.jsonl: is results the results_dir of a finished run?",
    "report captions.csv": "captions.csv is a file: name the folder of the run that it is of",
    "export results --format yolo -o yolo": "there is no results: name a finished run's results_dir, or a file of records",
}


@pytest.mark.parametrize(("line", "said"), MISTAKES.items())
def test_a_mistake_is_told_once_with_what_to_do(line: str, said: str) -> None:
    done = command(line.split())
    assert done.code == 2, done
    [told] = done.err.splitlines()
    assert told.startswith("Error: ")
    assert told.endswith(said)


def test_the_check_command_tells_each_mistake_once(folder: Path) -> None:
    broken = folder / "photos" / "b.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    done = command(["check", "-e", "captions.yaml", "image_grounding.vlm.backend=opnai"])
    assert done.code == 2
    backend, picture = done.err.splitlines()
    assert backend.startswith("Problem: image_grounding.vlm.backend should be 'gemini'")
    assert picture.endswith("photos/b.jpg' is a broken image: Truncated File Read"), picture
    assert "captions.csv, line 3: '" in picture
    assert "A run asks" not in done.out


@pytest.mark.parametrize(
    ("named", "code", "said"),
    [
        ({"DF_BASE_URL": "127.0.0.1:9"}, 2, "DF_BASE_URL should begin with http:// or https://"),
        ({"DF_MODEL": ""}, 2, "no model is named: set vlm.openai.model_name, or DF_MODEL in the"),
        ({"DF_API_KEY": "sk-wrong-1234567"}, 4, "Check the API key."),
    ],
)
def test_a_wrong_endpoint_is_told_by_what_the_user_set(
    monkeypatch: pytest.MonkeyPatch,
    server: LoopbackServer,
    named: dict[str, str],
    code: int,
    said: str,
) -> None:
    server.key = "sk-right-1234567"
    right = {"DF_BASE_URL": server.base_url, "DF_MODEL": "qwen3-vl", "DF_API_KEY": server.key}
    for name, value in {**right, **named}.items():
        monkeypatch.setenv(name, value)
    done = command(["ground", "photos/a.jpg", "a cup"])
    assert (done.code, done.out) == (code, ""), done
    [line] = done.err.splitlines()
    assert line.startswith("Error: ")
    assert said in line
