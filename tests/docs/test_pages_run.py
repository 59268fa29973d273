"""The commands of the README as they stand and in their order, where only the core is installed;
those of the tutorial and of pages that are longer ways to the same, within a Python of ours.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from dataflow_grounding.testing import LoopbackServer
from tests.support.pages import blocks, marked
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.wheels import is_wanted, pack
from tests.support.workplace import REPOSITORY, command, one_after_another

pytestmark = pytest.mark.slow

EXPORT = re.compile(r"^export DF_BASE_URL=\S+ DF_MODEL=\S+ DF_API_KEY=\S+$", re.MULTILINE)
DOCS = REPOSITORY / "docs"
README, TUTORIAL = REPOSITORY / "README.md", DOCS / "tutorial.md"
DETECTOR, CAPTIONS = DOCS / "detector.md", DOCS / "captions.md"
TROUBLESHOOTING = DOCS / "troubleshooting.md"
OPTIONAL = (
    *("datasets", "fsspec", "gcsfs", "google.genai", "huggingface_hub", "pyarrow", "ray", "s3fs"),
    *("supervision", "torch", "transformers", "webdataset"),
)
"""What the extras install."""


def of_a_stranger(home: Path) -> dict[str, str]:
    """An environment in which nothing is set or installed, with a home of its own."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("DF_", "OPENAI_", "GOOGLE_", "PYTHON", "XDG_"))
    }
    here = (sys.prefix, str(REPOSITORY))
    path = [part for part in os.environ["PATH"].split(os.pathsep) if not part.startswith(here)]
    return {**kept, "HOME": str(home), "PATH": os.pathsep.join(path)}


def run(command: str, folder: Path, home: Path, within: float = 600) -> str:
    """One bash process, which ends at the first command that fails; what it wrote."""
    script = folder.parent / "blocks.sh"
    script.write_text(f"set -e\n{command}", encoding="utf-8")
    done = subprocess.run(
        ["bash", script],
        cwd=folder,
        env=of_a_stranger(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=within,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


@contextlib.contextmanager
def endpoint() -> Iterator[dict[str, str]]:
    """An endpoint of the reader's own; gives what the export lines of pages set for it."""
    with LoopbackServer(ProbeModel("qwen3-vl"), key="sk-mine") as server:
        yield {
            "DF_BASE_URL": server.base_url,
            "DF_MODEL": "Qwen/Qwen3-VL-8B-Instruct",
            "DF_API_KEY": "sk-mine",
        }
        assert server.requests


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the checkout in which the README's first command has run, and with it the core
    install.

    `README_CLONE` names one, where that was done already, with what the command said in `first.out`
    next to it.
    """
    return Path(os.environ.get("README_CLONE") or made_clone(tmp_path / "dataflow-grounding"))


def made_clone(folder: Path) -> Path:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(
        listed, cwd=REPOSITORY, capture_output=True, check=True, text=True
    ).stdout.split("\0"):
        if name and (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    wheels = folder.parent / "wheels"
    of_the_core = filter(is_wanted, map(Requirement, requires("dataflow-grounding") or ()))
    pack(["hatchling", *map(str, of_the_core)], wheels)
    # what is imported is compiled then: a third less to do than for all that is installed
    settings = (
        f"PIP_COMPILE=0 PIP_NO_INDEX=1 PIP_FIND_LINKS={wheels} PATH={sys.base_prefix}/bin:$PATH"
    )
    said = run(f"export {settings}\n{marked(README, 'first')}", folder, folder.parent / "home")
    shutil.rmtree(wheels)
    (folder.parent / "first.out").write_text(said, encoding="utf-8")
    return folder


def test_the_readme_runs_as_it_stands(clone: Path, tmp_path: Path) -> None:
    """Its bash blocks in one shell, after the first command, which `made_clone` has run."""
    shown = marked(README, "printed")
    printed = (clone.parent / "first.out").read_text("utf-8")
    assert {*shown.splitlines()} <= {*printed.splitlines()}
    assert "10 images: 10 done, 0 failed" in printed
    assert (clone / "cache" / "image_grounding" / "report.html").is_file()

    passed_over = ("first", "tests", "no endpoint")
    texts = [text for mark, text in blocks(README, "bash") if mark not in passed_over]
    with endpoint() as settings:
        own = "export " + " ".join(f"{name}={value}" for name, value in settings.items())
        script, exports = EXPORT.subn(own, "\n".join(texts))
        assert exports == 1
        said = run(script, clone, tmp_path / "home")
    assert "Traceback" not in said
    assert (clone / "boxes.png").is_file()
    assert len((clone / "out" / "annotations.jsonl").read_text("utf-8").splitlines()) == 10
    assert (clone / "out" / "report.html").is_file()


def test_the_tutorial_runs_as_it_stands_without_what_is_optional(of_nobody: Path) -> None:
    shutil.copytree(REPOSITORY / "example_data" / "images", "pictures")
    turned(Path("pictures", "turned.jpg"))
    for kind in ("python", "yaml"):
        write_files(TUTORIAL, kind)
    without = f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL}))"
    lines = commands_in(EXPORT.sub("", text) for _, text in blocks(TUTORIAL, "bash"))
    with endpoint() as settings:
        ends = one_after_another(lines, env=settings, first=without)
    assert len(lines) > 8
    for line, done in zip(lines, ends, strict=True):
        assert done.code == 0, (line, done)
    lines = (of_nobody / "train" / "odvg.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 11
    for line in lines:
        check_odvg(json.loads(line), of_nobody / "train")


def write_files(page: Path, kind: str, folder: Path = Path()) -> None:
    """Write the files that a page shows."""
    for mark, text in blocks(page, kind):
        (folder / mark.removeprefix("file: ")).write_text(text, encoding="utf-8")


@pytest.fixture
def of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of a user's who has set nothing, as the current one."""
    for name in [*os.environ]:
        if name.startswith(("DF_", "OPENAI_", "GOOGLE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def commands_in(texts: Iterable[str]) -> list[list[str]]:
    """The arguments of each command of a page, bar those that only show a file."""
    commands = []
    for line in "".join(texts).replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True) or ["cat"]
        if program not in ("cat", "wc"):
            assert program == "dataflowgrounding", f"nobody runs {line}"
            commands.append(arguments)
    return commands


def run_here(texts: Iterable[str]) -> str:
    """Run the commands of a page within this process, where what is installed isn't the question."""
    said = ""
    for arguments in commands_in(texts):
        done = command(arguments)
        assert done.code == 0, f"{arguments}\n{done}"
        said += done.out + done.err
    assert "Traceback" not in said
    return said


def run_here_at_an_endpoint(page: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """All commands of a page, at an endpoint of the reader's own."""
    with endpoint() as settings:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        return run_here(EXPORT.sub("", text) for _, text in blocks(page, "bash"))


def few_examples() -> None:
    """The examples of four pictures, which have all that a pipeline begins with."""
    shutil.copytree(REPOSITORY / "example_data", "example_data")
    kept = ("astronaut", "cat", "coffee", "toys")
    for kind in ("*.jpg", "labels/**/*.txt"):
        for file in Path("example_data").rglob(kind):
            if file.stem not in kept:
                file.unlink()
    captions = Path("example_data/captions.jsonl")
    rows = captions.read_text("utf-8").splitlines(keepends=True)
    rows = [row for row in rows if Path(json.loads(row)["image_path"]).stem in kept]
    captions.write_text("".join(rows), encoding="utf-8")


def test_the_readmes_commands_run_without_an_endpoint(of_nobody: Path) -> None:
    few_examples()
    texts = [text for mark, text in blocks(README, "bash") if mark in ("", "no endpoint")]
    generated = [text for text in texts if "--backend" in text or "generate" in text]
    assert generated
    run_here(generated)
    assert len(Path("out/annotations.jsonl").read_text("utf-8").splitlines()) == 4


def test_the_readmes_python_runs_as_it_stands(of_nobody: Path) -> None:
    few_examples()
    texts = [text for _, text in blocks(README, "python")]
    for text, said in zip(texts, ("the astronaut grounded", "4 images: 4 done"), strict=True):
        Path("script.py").write_text(text, encoding="utf-8")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            runpy.run_path("script.py", run_name="__main__")
        assert said in out.getvalue()


def test_the_detectors_page_runs_to_a_data_yaml(
    of_nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(REPOSITORY / "example_data" / "images", "pictures")
    write_files(DETECTOR, "yaml")
    person = {"text": "a person", "class": "person", "instances": [{"bbox": [70, 22, 378, 512]}]}
    gold = {"image_path": "astronaut.jpg", "expressions": [person]}
    Path("gold.jsonl").write_text(json.dumps(gold) + "\n", encoding="utf-8")
    out = run_here_at_an_endpoint(DETECTOR, monkeypatch)
    data = yaml.safe_load(Path("yolo/data.yaml").read_text(encoding="utf-8"))
    assert data["names"] == {0: "person", 1: "cat", 2: "cup"}
    for part in ("train", "val", "test"):
        assert any(Path("yolo", data[part]).iterdir())
    labels = "".join(file.read_text() for file in Path("yolo").glob("*/labels/*.txt"))
    assert {line.split()[0] for line in labels.splitlines()} <= {"0", "1", "2"}
    assert labels
    assert "| class " in out


def captioned_photos() -> None:
    """What the page on captions begins with: `photos/` and `captions.csv`, and its spec; of the
    examples, the first three.
    """
    Path("photos").mkdir()
    lines = (REPOSITORY / "example_data" / "captions.jsonl").read_text("utf-8").splitlines()
    with open("captions.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "text"])
        for row in map(json.loads, lines[:3]):
            shutil.copy(REPOSITORY / "example_data" / row["image_path"], "photos")
            table.writerow([Path(row["image_path"]).name, row["caption"]])
    write_files(CAPTIONS, "yaml")


@pytest.mark.parametrize("has_endpoint", [True, False])
def test_the_page_on_captions_runs_with_an_endpoint_and_without(
    of_nobody: Path, monkeypatch: pytest.MonkeyPatch, has_endpoint: bool
) -> None:
    captioned_photos()
    if has_endpoint:
        run_here_at_an_endpoint(CAPTIONS, monkeypatch)
    else:
        run_here([text for mark, text in blocks(CAPTIONS, "bash") if mark != "endpoint"])
    records = Path("results/annotations.jsonl").read_text("utf-8").splitlines()
    assert len(records) == 3
    assert Path("train/odvg.jsonl").is_file()
    assert Path("yolo/data.yaml").is_file()


def test_the_tutorial_can_be_gone_through_without_an_endpoint(of_nobody: Path) -> None:
    captioned_photos()
    [(_, text)] = blocks(TUTORIAL, "yaml")
    spec = yaml.safe_load(text)
    spec["image_grounding"]["vlm"] = {"backend": "embedded"}
    of_table = yaml.safe_load(Path("captions.yaml").read_text("utf-8"))
    spec["image_grounding"]["data"] = of_table["image_grounding"]["data"]
    Path("grounding.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    run_here([text for _, text in blocks(TUTORIAL, "bash") if "export DF_BASE_URL" not in text])
    assert Path("train/odvg.jsonl").is_file()


def test_every_command_of_the_page_on_troubles_runs(
    of_nobody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captioned_photos()
    spec = yaml.safe_load(Path("captions.yaml").read_text("utf-8"))
    del spec["image_grounding"]["data"]["columns"]
    Path("data.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    table = Path("captions.csv").read_text("utf-8")
    table = table.replace("file,text", "image_path,caption", 1)
    Path("captions.csv").write_text(table, encoding="utf-8")
    Path("classes.txt").write_text("person\nred circle\n", encoding="utf-8")
    assert len(blocks(TROUBLESHOOTING, "bash")) > 10
    out = run_here_at_an_endpoint(TROUBLESHOOTING, monkeypatch)
    assert "3 images: 3 done, 0 failed" in out


def turned(path: Path) -> None:
    """A picture that is stored lying on its side."""
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), "navy").save(path, exif=exif.tobytes())


def check_odvg(line: dict[str, object], images: Path) -> None:
    """What MMDetection's ODVGDataset expects of a line, and that spans and boxes lie within caption
    and picture.
    """
    from PIL import Image

    with Image.open(images / str(line["filename"])) as picture:
        assert picture.size == (line["width"], line["height"])
        assert picture.getexif().get(0x0112, 1) == 1
        width, height = picture.size
    grounding = line["grounding"]
    assert isinstance(grounding, dict)
    assert grounding["regions"]
    for region in grounding["regions"]:
        [[start, end]] = region["tokens_positive"]
        assert grounding["caption"][start:end] == region["phrase"]
        for x1, y1, x2, y2 in region["bbox"]:
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
