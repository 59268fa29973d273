"""Where endpoint, model and key come from, and what a user is told who leaves something out."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from dataflow_grounding import (
    EmbeddedServing,
    OpenAIServing,
    PhraseGrounder,
    serving_from_environment,
)
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.serving import GeminiServing
from dataflow_grounding.testing import LoopbackServer
from tests.support.endpoint import with_settings
from tests.support.forking import Forked
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import Workplace, command, ended


@pytest.fixture
def folder(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a picture and its caption."""
    workplace.many(2)
    monkeypatch.chdir(workplace.folder)
    return workplace.folder


@pytest.fixture
def named(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> LoopbackServer:
    """An endpoint that DF_* names."""
    with_settings(server, ProbeModel("qwen3-vl"), key="sk-df")
    for name, value in {
        "DF_BASE_URL": server.base_url,
        "DF_MODEL": "qwen3-vl",
        "DF_API_KEY": "sk-df",
        "OPENAI_API_KEY": "sk-another-providers",
    }.items():
        monkeypatch.setenv(name, value)
    return server


def given(vlm: str = "") -> list[str]:
    """`-e` of a spec whose `vlm` block is this."""
    text = f"results_dir: out\nimage_grounding:\n  vlm: {{{vlm}}}\n  workflow: {{steps: [0, 1]}}\n"
    Path("spec.yaml").write_text(text + "  data: {input_jsonl: captions.jsonl}\n")
    return ["-e", "spec.yaml"]


def of_server(server: LoopbackServer, backend: str) -> str:
    """A `vlm` block of that backend which states an endpoint."""
    return f"backend: {backend}, openai: {{base_url: '{server.base_url}', model_name: qwen3-vl}}"


def setenv(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_every_command_takes_the_endpoint_that_the_environment_names(
    folder: Path, named: LoopbackServer
) -> None:
    for line in (
        ["doctor"],
        ["doctor", *given()],
        ["calibrate"],
        ["generate", *given("backend: openai"), "--no-report"],
        ["generate", *given("backend: auto"), "results_dir=auto", "--no-report"],
        ["ground", "a.jpg", "a cup"],
    ):
        asked = named.count(200)
        done = command(line)
        assert done.code == 0, done
        assert named.count(200) > asked, line
        assert "sk-" not in done.out + done.err
    assert named.count(401) == 0


@pytest.mark.parametrize(
    ("variables", "backend"),
    [
        ({}, "gemini"),
        ({"GOOGLE_API_KEY": "k"}, "gemini"),
        ({"OPENAI_API_KEY": "k"}, "openai"),
        ({"DF_BASE_URL": "http://127.0.0.1:9/v1"}, "openai"),
        ({"DF_MODEL": "gemini-2.5-flash", "GOOGLE_API_KEY": "k", "OPENAI_API_KEY": "k"}, "gemini"),
        ({"DF_MODEL": "gemini-2.5-flash"}, "gemini"),
        ({"DF_MODEL": "gemini-2.5-flash", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, "openai"),
        ({"DF_MODEL": "gpt-x", "GOOGLE_API_KEY": "k", "OPENAI_API_KEY": "k"}, "openai"),
    ],
)
def test_default_specs_name_the_backend_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], backend: str
) -> None:
    monkeypatch.chdir(tmp_path)
    setenv(monkeypatch, variables)
    assert command(["default_specs"]).code == 0
    texts = [path.read_text() for path in tmp_path.glob("image_*.yaml")]
    assert [f"backend: {backend} #" in text for text in texts] == [True] * 3


@pytest.mark.slow
def test_scripts_take_the_same_endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert isinstance(serving_from_environment(), EmbeddedServing)
    monkeypatch.setenv("DF_MODEL", "gemini-2.5-flash")
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    gemini = serving_from_environment(timeout=7)
    assert isinstance(gemini, GeminiServing)
    assert (gemini.model, gemini.timeout) == ("gemini-2.5-flash", 7)
    monkeypatch.delenv("GOOGLE_API_KEY")
    assert "GEMINI_API_KEY" in " ".join(GeminiServing("gemini-2.5-flash").obstacles())
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    assert "API key" not in " ".join(GeminiServing("gemini-2.5-flash").obstacles())
    monkeypatch.setenv("DF_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("DF_BOX_FORMAT", "yxyx_512")
    openai = serving_from_environment(max_workers=3)
    assert isinstance(openai, OpenAIServing)
    assert (openai.endpoint, openai.max_workers, openai.box_format) == (
        "http://127.0.0.1:9/v1",
        3,
        "yxyx_512",
    )


SCRIPT = """
import sys
from dataflow_grounding import GroundingError, PhraseGrounder, serving_from_environment
serving_from_environment()
for name in ("gone.jpg", "a.jpg", "a.jpg"):
    grounder = PhraseGrounder(serving_from_environment())
    try:
        print(len(grounder([{"image_path": name, "expressions": ["a cup"]}])))
    except GroundingError as error:
        print(0)
        print(error, file=sys.stderr)
sys.exit(0)
"""


@pytest.mark.parametrize("key", ["", "OPENAI_API_KEY", "GOOGLE_API_KEY"])
def test_the_embedded_grounder_says_so_once_and_why_a_key_is_not_used(
    folder: Path, key: str
) -> None:
    environment = {"PATH": os.environ["PATH"], **({key: "k"} if key else {})}
    done = ended(Forked([], folder, environment, first=SCRIPT))
    assert done.out.split() == ["0", "1", "1"], done
    first, notice = done.err.splitlines()
    assert "gone.jpg" in first, "the notice comes with the first answer"
    assert "embedded OpenCV grounder" in notice
    assert ("is set" in notice or "set, but no model" in notice) == bool(key)
    assert key in notice


def test_a_run_shows_what_it_found_writes_its_report_and_says_what_is_next(folder: Path) -> None:
    assert command(["init", "work"]).code == 0
    done = command(["generate", "-e", "work/image_grounding.yaml"])
    assert done.code == 0
    assert len(re.findall(r"^  images/\S+: .+ \[\d+, \d+, \d+, \d+\]", done.err, re.MULTILINE)) == 5
    results = folder / "work" / "results" / "image_grounding"
    assert f"report: {results / 'report.html'}" in done.err
    assert (results / "report.html").is_file()
    assert f"next: with boxes drawn by hand, dataflowgrounding eval {results}" in done.err
    assert "dataflowgrounding cost" not in done.err  # nothing was paid for
    bill = command(["cost", str(results), "--json"]).summary
    assert (bill["requests"], bill["cost_usd"]) == (20, 0)
    steps = "image_grounding.workflow.steps=['0']"
    alone = command(["generate", "-e", "work/image_grounding.yaml", steps, "results_dir=phrases"])
    assert (alone.code, "dataflowgrounding eval" in alone.err) == (0, False), alone


def test_auto_means_the_endpoint_that_the_spec_fills_in(
    folder: Path, server: LoopbackServer
) -> None:
    server.answers = ProbeModel("qwen3-vl")
    done = command(["generate", *given(of_server(server, "auto")), "--json", "--no-report"])
    assert done.code == 0
    assert done.summary["models"] == ["qwen3-vl"]


def test_results_of_a_model_are_not_replaced_where_no_endpoint_is_named(
    folder: Path, named: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["generate", *given("backend: auto"), "--no-report"]
    assert command(line).code == 0
    before = (folder / "out" / "annotations.jsonl").read_bytes()
    for name in ("DF_BASE_URL", "DF_MODEL", "DF_API_KEY"):
        monkeypatch.delenv(name)
    done = command(line)
    assert done.code == 2
    assert "has results of qwen3-vl, and no endpoint is named now" in done.err
    assert (folder / "out" / "annotations.jsonl").read_bytes() == before


def test_another_providers_key_is_not_sent_to_the_address_of_the_environment(
    server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-another-providers"
    with_settings(server, ProbeModel("qwen3-vl"), key=key)
    own = {"DF_BASE_URL": server.base_url, "DF_MODEL": "qwen3-vl", "OPENAI_API_KEY": key}
    setenv(monkeypatch, own)
    assert command(["doctor"]).code == 4
    assert server.count(200) == 0
    setenv(monkeypatch, {"DF_BASE_URL": "", "OPENAI_BASE_URL": server.base_url})
    assert command(["doctor"]).code == 0


def test_doctor_shows_what_is_there_when_half_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DF_BASE_URL", "http://127.0.0.1:9/v1")
    done = command(["doctor"])
    assert done.code == 4
    assert "DF_BASE_URL: set" in done.out
    assert "Error: no model is named" in done.out


def test_a_picture_is_not_drawn_over(folder: Path) -> None:
    before = (folder / "a.jpg").read_bytes()
    done = command(["ground", "a.jpg", "a cup", "--draw", "./a.jpg"])
    assert (done.code, "it is the picture itself" in done.err) == (2, True)
    assert (folder / "a.jpg").read_bytes() == before


def test_the_embedded_grounder_takes_no_other_format() -> None:
    with pytest.raises(SpecError, match=r"writes boxes as xyxy_px alone: leave out .*box_format"):
        PhraseGrounder(EmbeddedServing(), box_format="xyxy_1000")


@pytest.mark.parametrize(
    ("variables", "line", "problem"),
    [
        (
            {"OPENAI_API_KEY": "k"},
            'model_name: "" # empty: DF_MODEL',
            "no model is named: set vlm.openai.model_name, or DF_MODEL",
        ),
        ({"OPENAI_API_KEY": "k", "DF_MODEL": "qwen3-vl"}, 'model_name: "" # empty: DF_MODEL', ""),
        ({"GOOGLE_API_KEY": "k"}, "model: gemini-3.1-flash-lite-preview", ""),
        ({"GOOGLE_API_KEY": "k", "DF_MODEL": "gemini-2.5-flash"}, "model: gemini-2.5-flash #", ""),
    ],
)
def test_default_specs_pass_check_or_say_what_to_fill_in(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    line: str,
    problem: str,
) -> None:
    setenv(monkeypatch, variables)
    told = command(["default_specs"]).err
    assert "check -e ./image_grounding.yaml" in told
    assert line in (folder / "image_grounding.yaml").read_text()
    given = ["results_dir=out", "image_grounding.data.input_jsonl=captions.jsonl"]
    done = command(["check", "-e", "image_grounding.yaml", *given])
    assert [one.removeprefix("Problem: ") for one in done.err.splitlines()] == (
        [f"{problem} in the environment"] if problem else []
    )


NO_BLOCK = "vlm: {vlm}\n"
NO_PICTURES = """results_dir: ???
autolabel_type: image_referring_expression
image_referring_expression:
  vlm: {vlm}
  data: {image_dir: '???', a_key_of_nobodys: 1}
"""


@pytest.mark.parametrize("text", [NO_BLOCK, NO_PICTURES], ids=["no block", "no pictures"])
def test_asking_a_specs_model_takes_no_more_than_its_vlm(
    folder: Path, server: LoopbackServer, text: str
) -> None:
    server.answers = ProbeModel("qwen3-vl")
    vlm = f"{{{of_server(server, 'openai')}}}"
    (folder / "spec.yaml").write_text(text.replace("{vlm}", vlm))
    for line in (["ground", "a.jpg", "a cup"], ["doctor"], ["calibrate"]):
        asked = server.count(200)
        done = command([*line, "-e", "spec.yaml"])
        assert done.code == 0, done
        assert server.count(200) > asked, line
    assert command(["generate", "-e", "spec.yaml"]).code == 2


def test_a_wrong_key_of_a_specs_vlm_is_told_where_it_alone_is_read(folder: Path) -> None:
    (folder / "spec.yaml").write_text("image_grounding:\n  vlm: {bakend: openai}\n")
    done = command(["ground", "a.jpg", "a cup", "-e", "spec.yaml"])
    wrong = "image_grounding.vlm.bakend is not a key of the spec; is it 'backend'?"
    assert (done.code, f"spec.yaml, line 2: {wrong}" in done.err) == (2, True), done


def test_results_that_another_program_left_are_not_written_over(folder: Path) -> None:
    step = folder / "taos" / "step_1_grounding"
    (step / ".ckpt").mkdir(parents=True)
    kept = [
        folder / "taos" / "annotations.jsonl",
        step / "annotations.jsonl",
        step / ".ckpt" / "a.json",
    ]
    for path in kept:
        path.write_text("precious")
    given("backend: embedded")
    for line in (["check"], ["estimate"], ["generate", "--dry-run"], ["generate"]):
        done = command([*line, "-e", "spec.yaml", "results_dir=taos"])
        assert done.code == 2, done
        assert "taos/annotations.jsonl was not made by a run here: " in done.err
        assert "Choose another folder" in done.err
    assert [path.read_text() for path in kept] == ["precious"] * 3
    assert sorted(path for path in (folder / "taos").rglob("*") if path.is_file()) == sorted(kept)


@pytest.mark.parametrize("file", ["failures.jsonl", "report.html"])
def test_a_file_that_another_program_left_is_not_written_over(folder: Path, file: str) -> None:
    (folder / "out").mkdir()
    (folder / "out" / file).write_text("precious")
    done = command(["generate", *given("backend: embedded")])
    assert (done.code, f"{file} was not made by a run here" in done.err) == (2, True), done
    assert (folder / "out" / file).read_text() == "precious"


def test_check_tells_of_rows_that_repeat_a_picture_and_its_text(workplace: Workplace) -> None:
    workplace.picture()
    paths = ["a.jpg", "./a.jpg", str(workplace.folder / "a.jpg"), "a.jpg"]
    captions = ["A cup", "A cup", "A cup", "A mug"]
    pairs = zip(paths, captions, strict=True)
    workplace.rows({"image_path": path, "caption": caption} for path, caption in pairs)
    done = workplace.check()
    assert done.code == 0, done
    assert "paid for once: 2 (line 2 that of line 1; line 3 that of line 1)" in done.out


def test_who_is_asked_is_named_before_anything_is_sent(folder: Path, named: LoopbackServer) -> None:
    who = f"qwen3-vl at {named.base_url}"
    for name in ("check", "estimate"):
        done = command([name, *given()])
        assert done.code == 0, done
        assert f"asks {who}" in done.out
        assert command([name, *given(), "--json"]).summary["asks"] == who
    assert named.received == 0
    done = command(["generate", *given(), "--no-report"])
    assert done.err.splitlines()[0] == f"image_grounding asks {who}."
    own = command(["generate", *given("backend: embedded"), "results_dir=own", "--no-report"])
    assert own.err.splitlines()[0].endswith(" on this machine.")


NO_ADDRESS = "no address is named"
OPENAI = "backend: openai, openai: {model_name: m}"
NOBODY_MEANT = [
    (OPENAI, {}, NO_ADDRESS),
    ("backend: openai, openai: {model_name: m, api_key: EMPTY}", {}, NO_ADDRESS),
    ("", {"DF_MODEL": "m", "DF_API_KEY": "k"}, NO_ADDRESS),
    ("", {"DF_MODEL": "m", "DF_API_KEY": "k", "OPENAI_API_KEY": "o"}, NO_ADDRESS),
    ("", {"DF_MODEL": "m"}, NO_ADDRESS),
    ("", {"DF_MODEL": "m", "DF_BASE_URL": "", "OPENAI_API_KEY": "o"}, "DF_BASE_URL"),
    ("", {"DF_BASE_URL": " ", "GOOGLE_API_KEY": "g"}, "DF_BASE_URL"),
    ("", {"OPENAI_API_KEY": "o", "GOOGLE_API_KEY": "g"}, "vlm.backend"),
    (OPENAI, {"OPENAI_BASE_URL": " ", "OPENAI_API_KEY": "o"}, "OPENAI_BASE_URL is set"),
    ("backend: gemini", {"GOOGLE_GEMINI_BASE_URL": " ", "GEMINI_API_KEY": "g"}, "BASE_URL is set"),
]


@pytest.mark.parametrize(("vlm", "variables", "said"), NOBODY_MEANT)
def test_no_public_service_is_asked_that_nobody_means(
    folder: Path, monkeypatch: pytest.MonkeyPatch, vlm: str, variables: dict[str, str], said: str
) -> None:
    setenv(monkeypatch, variables)
    for what in ("check", "estimate", "generate"):
        done = command([what, *given(vlm)])
        assert done.code == 2, done
        assert said in done.err
        assert "A run asks" not in done.out  # nobody, but for looking over the rows
    assert not (folder / "out" / "annotations.jsonl").exists()


@pytest.mark.parametrize(
    ("vlm", "variables", "who"),
    [
        ("", {"DF_MODEL": "m", "OPENAI_API_KEY": "o"}, "m at https://api.openai.com/v1"),
        (
            "backend: openai, openai: {model_name: m, api_key: k,"
            " base_url: 'https://api.openai.com/v1'}",
            {},
            "m at https://api.openai.com/v1",
        ),
        ("", {"GOOGLE_API_KEY": "g"}, "https://generativelanguage.googleapis.com"),
        ("backend: gemini", {"GOOGLE_API_KEY": "g", "OPENAI_API_KEY": "o"}, "googleapis.com"),
    ],
)
def test_one_that_is_named_or_alone_has_its_key_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, vlm: str, variables: dict[str, str], who: str
) -> None:
    setenv(monkeypatch, variables)
    done = command(["estimate", *given(vlm)])
    assert done.code == 0, done
    assert who in done.out
