"""Every spec in the docs runs, and every command in them, against loopback endpoints; README and
tutorial: test_pages_run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.formats import FORMATS
from dataflow_grounding.spec.endpoints import ENDPOINTS
from dataflow_grounding.testing import LoopbackServer
from tests.support.labelled import Box, Labelled, labelled
from tests.support.pages import Block, blocks_of, marked
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import REPOSITORY, Done, Workplace, command

pytestmark = pytest.mark.slow

KEY = "sk-from-the-docs"
PAGES = [
    REPOSITORY / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    REPOSITORY / "init_template" / "README.md",
    REPOSITORY / "skills" / "dataflow-grounding" / "SKILL.md",
]
SERVERS = ("vllm", "llama-server", "ollama", "lms", "litellm", "docker")
"""What starts a model server, which is not run here."""


BLOCKS = [*blocks_of(*PAGES)]
NAMED = "endpoint: "
"""Before a name of endpoints.yaml, the mark of its settings."""


def spec_of(name: str) -> Block:
    """The settings of endpoints.yaml as a block of a page."""
    settings = {key: value for key, value in ENDPOINTS[name].items() if key != "first"}
    text = yaml.safe_dump({"image_grounding": settings})
    return Block(REPOSITORY / "docs" / "endpoints.md", name, f"{NAMED}{name}", "yaml", text)


SPECS = [
    *(block for block in BLOCKS if block.mark.startswith("settings")),
    *map(spec_of, sorted(ENDPOINTS)),
]
WHOLE = tuple(
    REPOSITORY / name
    for name in (
        "README.md",
        "docs/tutorial.md",
        "docs/scale.md",
        "docs/detector.md",
        "docs/captions.md",
        "docs/troubleshooting.md",
    )
)
"""Pages that are run from beginning to end, in test_pages_run.py."""
COMMANDS = [block for block in BLOCKS if block.kind == "bash" and block.page not in WHOLE]


@pytest.fixture
def place(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A folder like a user's, with the files that the pages speak of, as the current one."""
    workplace.many(2)
    workplace.picture("photo.jpg")
    labelled(workplace.folder, "kitti", [Labelled("a.jpg", [Box("Car", 5, 5, 30, 40)])])
    (workplace.folder / "boxes.jsonl").write_text(
        '{"image": "photo.jpg", "bbox": [[5, 5, 25, 35]]}\n'
    )
    workplace.picture("pictures/b.jpg")
    turned = Labelled("b.jpg", [Box("cup", 19, 10, 45, 20, degrees=30)])
    labelled(workplace.folder, "label-studio", [turned], drawn=False)
    data = marked(REPOSITORY / "docs" / "endpoints.md", "file: data.yaml")
    (workplace.folder / "data.yaml").write_text(data, encoding="utf-8")
    monkeypatch.chdir(workplace.folder)
    monkeypatch.setenv("HOME", str(workplace.folder))
    for name in set(re.findall(r"\$\{oc\.env:(\w+)\}", "".join(block.text for block in SPECS))):
        monkeypatch.setenv(name, KEY)
    return workplace


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's first script leaves."""
    folder = tmp_path_factory.mktemp("first")
    for name in ("example_data", "api_pipelines"):
        shutil.copytree(REPOSITORY / name, folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runpy.run_path("api_pipelines/image_grounding_api_pipeline.py", run_name="__main__")
    return folder / "cache"


def test_the_page_has_every_name_of_default_specs() -> None:
    """What to type first and the command that writes the specs, or a row of the table."""
    page = (REPOSITORY / "docs" / "endpoints.md").read_text(encoding="utf-8")
    typed = {}
    for block in BLOCKS:
        if block.page.name == "endpoints.md" and block.kind == "bash":
            *first, last = block.text.splitlines(keepends=True)
            name = last.rstrip().removeprefix("dataflowgrounding default_specs --endpoint ")
            typed[name] = "".join(first)
    for name, settings in ENDPOINTS.items():
        if "first" in settings:
            assert typed[name] == settings["first"]
        else:
            assert f"\n| `{name}` |" in page


PARTS = {
    "captions": "captions",
    "spans": "spans",
    "unplaced": "phrases outside of the caption",
    "nothing_there": "absent",
    "scores": "scores",
    "ids": "ids",
    "verified": "verdicts",
    "classes": "classes",
    "outlines": "outlines",
}
"""What a format may say, by its name in formats.yaml, as the page's table calls it."""


def test_the_page_has_the_table_of_formats() -> None:
    page = (REPOSITORY / "docs" / "formats.md").read_text(encoding="utf-8")
    row_of_page = r"^\| `([\w-]+)`(?: \((\w+) only\))? \| .* \| `(\S+)` \| (.*) \|$"
    rows = re.findall(row_of_page, page, re.MULTILINE)
    expected = []
    lost = ""
    for name, row in FORMATS.items():
        lost_before = lost
        lost = ", ".join(words for part, words in PARTS.items() if part not in row["says"])
        cell = lost or "nothing is lost"
        if "numbers" in row:
            assert lost == lost_before
            cell = "the same; boxes are rounded"
        only = [way for way in ("in", "out") if row.get(f"{way}_only")]
        expected.append((name, "".join(only), row["file"], cell))
    assert rows == expected


@pytest.mark.parametrize(
    "block", [pytest.param(b, id=f"{b.heading} {n}") for n, b in enumerate(SPECS)]
)
def test_the_spec_of_an_endpoint_runs(place: Workplace, block: Block) -> None:
    vlm = yaml.safe_load(block.text)["image_grounding"]["vlm"]
    if vlm["backend"] == "gemini":
        pytest.importorskip("google.genai")
    (place.folder / "endpoint.yaml").write_text(block.text.replace("???", "mine"), encoding="utf-8")
    stated = vlm.get("box_format", "auto")
    model = vlm[vlm["backend"]].get("model_name") or vlm["gemini"]["model"]
    to_calibrate = stated == "calibrated" or "cosmos" in model
    written = "xyxy_1000" if to_calibrate else find_box_format(stated, model).name
    key = vlm[vlm["backend"]].get("api_key") or vlm["openai"].get("extra_headers", {}).get(
        "api-key"
    )
    with LoopbackServer(ProbeModel(written), key=KEY if key else None) as server:
        own = vlm["backend"]
        address = f"{own}.base_url={server.base_url if own == 'openai' else server.address}"
        if "/deployments/" in vlm[own].get("base_url", ""):
            address = (
                f"openai.base_url={server.address}/openai/deployments/d?api-version=2024-10-21"
            )
        arguments = ["-e", "data.yaml", "-e", "endpoint.yaml", f"image_grounding.vlm.{address}"]
        if stated == "calibrated":
            assert command(["calibrate", *arguments]).code == 0
        before = len(server.requests)
        done = command(["generate", *arguments, "--json", "--no-progress"])
        assert done.code == 0, done
        assert done.summary["done"] == 2
        assert server.by_task["expression_extraction"] == 2
        assert done.summary["grounded"] == done.summary["expressions"]
        extra = vlm.get("openai", {}).get("extra_body", {})
        extra = json.loads(json.dumps(extra).replace("???", "mine"))
        assert extra.items() <= server.requests[-1].settings.items()
        assert (
            command(["cost", "results", "--json"]).summary["requests"]
            == len(server.requests) - before
        )


def run_line(words: list[str], server: LoopbackServer, address: str) -> Done | None:
    """Run one command of a page; None for one that starts a server, asks one, or installs."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program = words[0]
    if "--base-url" in words:
        words[words.index("--base-url") + 1] = server.base_url
    is_of_serve = program == "curl" or words[:2] == ["dataflowgrounding", "serve"]  # tests/serve
    if (
        is_of_serve
        or program in (*SERVERS, "pip")
        or words[:3] == ["python", "-m", "sglang.launch_server"]
    ):
        return None
    if program == "export":
        for word in words[1:]:
            name, _, value = word.partition("=")
            os.environ[name] = server.base_url if name == "DF_BASE_URL" else value
        return None
    if program == "python":
        return python(words[1:])
    assert program == "dataflowgrounding", f"nobody runs {words}"
    with_spec = (
        words[1] in ("generate", "check", "estimate", "doctor", "calibrate") and "-e" in words
    )
    others = ("image_referring_expression", "image_region_caption")
    pipeline = next((name for name in others if f"{name}.yaml" in words), "image_grounding")
    return command([*words[1:], *([f"{pipeline}.vlm.{address}"] if with_spec else [])])


def python(words: list[str]) -> Done:
    """A script, within this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if words[0] == "-c":
            exec(words[1], {})
        else:
            runpy.run_path(words[0], run_name="__main__")
    return Done(0, out.getvalue(), err.getvalue())


def shown_below(block: Block) -> list[str]:
    """What the page says that a block's commands print, without the lines that stand for others."""
    of_page = [other for other in BLOCKS if other.page == block.page]
    below = of_page[of_page.index(block) + 1 :][:1]
    return [
        line
        for shown in below
        if shown.mark == "prints"
        for line in shown.text.splitlines()
        if line not in ("", "…")
    ]


@pytest.mark.parametrize(
    "block", [pytest.param(b, id=f"{b.page.name}, {b.heading}") for b in COMMANDS]
)
def test_the_commands_of_the_pages_run(
    place: Workplace, cache: Path, monkeypatch: pytest.MonkeyPatch, block: Block
) -> None:
    pytest.importorskip("google.genai")
    for name in ("DF_API_KEY", "DF_BASE_URL", "DF_MODEL"):
        monkeypatch.setenv(name, "")  # set back afterwards, no matter what a page exports
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    for folder in ("example_data", "api_pipelines"):  # as in a clone
        shutil.copytree(REPOSITORY / folder, folder)
    if "default_specs" not in block.text:  # an earlier block of the page has written them
        assert command(["default_specs"]).code == 0
        filled = (
            Path("image_grounding.yaml")
            .read_text()
            .replace("input_jsonl: ???", "input_jsonl: captions.jsonl")
        )
        Path("image_grounding.yaml").write_text(
            filled.replace("results_dir: ???", "results_dir: results")
        )
    if "cache/" in block.text:
        shutil.copytree(cache, "cache")
    [vllm] = [b for b in SPECS if b.mark == f"{NAMED}vllm"]
    Path("endpoint.yaml").write_text(vllm.text, encoding="utf-8")
    with (
        LoopbackServer(ProbeModel("qwen3-vl")) as other,
        LoopbackServer(ProbeModel("gemini")) as server,
    ):
        printed: set[str] = set()
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words:
                continue
            split = "endpoint.yaml" in words
            address = (
                f"openai.base_url={other.base_url}"
                if split
                else f"gemini.base_url={server.address}"
            )
            done = run_line(words, other, address)
            assert done is None or done.code == 0, f"{line}\n{done}"
            if done:
                printed |= {*done.out.splitlines(), *done.err.splitlines()}
    assert {*shown_below(block)} <= printed


def test_the_command_in_a_sentence_of_the_readme_runs(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = re.findall(
        r"`(dataflowgrounding [^`]*)`", (REPOSITORY / "README.md").read_text(encoding="utf-8")
    )
    assert sentences
    with LoopbackServer(ProbeModel("qwen3-vl")) as server:
        monkeypatch.setenv("DF_BASE_URL", server.base_url)
        monkeypatch.setenv("DF_MODEL", "Qwen/Qwen3-VL-8B-Instruct")
        for sentence in sentences:
            if any(block.text.startswith(f"{sentence} ") for block in COMMANDS):
                continue  # its page has a shorter one
            done = run_line(shlex.split(sentence), server, "")
            assert done is not None
            assert done.code == 0, done
    assert json.loads(command(["doctor", "--json"]).out)["environment"]["DF_MODEL"] is True
