"""Where endpoint, model and key come from, and what a user is told who leaves something out."""

from __future__ import annotations

import json
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
def named(monkeypatch: pytest.MonkeyPatch) -> LoopbackServer:
    """An endpoint that DF_* names."""
    with LoopbackServer(ProbeModel("qwen3-vl"), key="sk-df") as server:
        monkeypatch.setenv("DF_BASE_URL", server.base_url)
        monkeypatch.setenv("DF_MODEL", "qwen3-vl")
        monkeypatch.setenv("DF_API_KEY", "sk-df")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-another-providers")
        yield server


def given(folder: Path, vlm: str = "") -> list[str]:
    """`-e` of a spec whose `vlm` block is this."""
    text = f"results_dir: out\nimage_grounding:\n  vlm: {{{vlm}}}\n  workflow: {{steps: [0, 1]}}\n"
    (folder / "spec.yaml").write_text(text + "  data: {input_jsonl: captions.jsonl}\n")
    return ["-e", "spec.yaml"]


@pytest.mark.slow
def test_every_command_takes_the_endpoint_that_the_environment_names(
    folder: Path, named: LoopbackServer
) -> None:
    for line in (
        ["check", *given(folder)],
        ["doctor"],
        ["doctor", *given(folder)],
        ["calibrate"],
        ["generate", *given(folder, "backend: openai")],
        ["generate", *given(folder, "backend: auto"), "results_dir=auto"],
        ["ground", "a.jpg", "a cup"],
    ):
        asked = named.count(200)
        done = command(line)
        assert done.code == 0, done
        assert line[0] == "check" or named.count(200) > asked, line
        assert "sk-" not in done.out + done.err
    assert named.count(401) == 0


@pytest.mark.parametrize(
    ("variables", "backend"),
    [
        ({}, "gemini"),
        ({"GOOGLE_API_KEY": "k"}, "gemini"),
        ({"OPENAI_API_KEY": "k"}, "openai"),
        ({"DF_BASE_URL": "http://127.0.0.1:9/v1"}, "openai"),
        ({"DF_MODEL": "gemini-2.5-flash", "GOOGLE_API_KEY": "k"}, "gemini"),
        ({"DF_MODEL": "gemini-2.5-flash", "GOOGLE_API_KEY": "k", "OPENAI_API_KEY": "k"}, "gemini"),
        ({"DF_MODEL": "gemini-2.5-flash"}, "gemini"),
        ({"DF_MODEL": "gemini-2.5-flash", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, "openai"),
        ({"DF_MODEL": "gpt-x", "GOOGLE_API_KEY": "k", "OPENAI_API_KEY": "k"}, "openai"),
    ],
)
def test_default_specs_name_the_backend_of_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], backend: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert command(["default_specs"]).code == 0
    assert all(f"backend: {backend} #" in path.read_text() for path in folder.glob("image_*.yaml"))
    assert command(["default_specs", "--backend", "embedded", "results_dir=other"]).code == 0
    assert "backend: embedded #" in (folder / "other" / "image_grounding.yaml").read_text()


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


@pytest.mark.slow
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


@pytest.mark.slow
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
    steps = "image_grounding.workflow.steps=['0']"
    alone = command(["generate", "-e", "work/image_grounding.yaml", steps, "results_dir=phrases"])
    assert (alone.code, "dataflowgrounding eval" in alone.err) == (0, False), alone
    bill = command(["cost", str(results), "--json"]).summary
    assert (bill["requests"], bill["cost_usd"]) == (20, 0)


def test_auto_means_the_endpoint_that_the_spec_fills_in(folder: Path) -> None:
    with LoopbackServer(ProbeModel("qwen3-vl")) as server:
        vlm = f"backend: auto, openai: {{base_url: '{server.base_url}', model_name: qwen3-vl}}"
        done = command(["generate", *given(folder, vlm), "--json"])
    assert done.code == 0
    assert done.summary["models"] == ["qwen3-vl"]


def test_results_of_a_model_are_not_replaced_where_no_endpoint_is_named(
    folder: Path, named: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["generate", *given(folder, "backend: auto")]
    assert command(line).code == 0
    before = (folder / "out" / "annotations.jsonl").read_bytes()
    for name in ("DF_BASE_URL", "DF_MODEL", "DF_API_KEY"):
        monkeypatch.delenv(name)
    done = command(line)
    assert done.code == 2
    assert "has results of qwen3-vl, and no endpoint is named now" in done.err
    assert (folder / "out" / "annotations.jsonl").read_bytes() == before


def test_another_providers_key_is_not_sent_to_the_address_of_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another-providers")
    with LoopbackServer(ProbeModel("qwen3-vl"), key="sk-another-providers") as server:
        monkeypatch.setenv("DF_BASE_URL", server.base_url)
        monkeypatch.setenv("DF_MODEL", "qwen3-vl")
        assert command(["doctor"]).code == 4
        assert server.count(200) == 0
        monkeypatch.setenv("DF_BASE_URL", "")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
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
            "name it, here or in DF_MODEL",
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
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = command(["default_specs"]).err
    assert "check -e ./image_grounding.yaml" in told
    assert line in (folder / "image_grounding.yaml").read_text()
    given = ["results_dir=out", "image_grounding.data.input_jsonl=captions.jsonl"]
    done = command(["check", "-e", "image_grounding.yaml", *given])
    assert [one.removeprefix("Problem: ") for one in done.err.splitlines()] == (
        [f"{problem} in the environment"] if problem else []
    )


ENDPOINTS = {
    "no block": "vlm: {vlm}\n",
    "no pictures": "results_dir: ???\nautolabel_type: image_referring_expression\nimage_referring_expression:\n"
    "  vlm: {vlm}\n  data: {image_dir: '???', a_key_of_nobodys: 1}\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", ENDPOINTS.values(), ids=ENDPOINTS)
def test_asking_a_specs_model_takes_no_more_than_its_vlm(folder: Path, text: str) -> None:
    with LoopbackServer(ProbeModel("qwen3-vl")) as server:
        vlm = (
            f"{{backend: openai, openai: {{base_url: '{server.base_url}', model_name: qwen3-vl}}}}"
        )
        (folder / "spec.yaml").write_text(text.replace("{vlm}", vlm))
        for line in (["ground", "a.jpg", "a cup"], ["doctor"], ["calibrate"]):
            asked = server.count(200)
            done = command([*line, "-e", "spec.yaml"])
            assert done.code == 0, done
            assert server.count(200) > asked, line
    assert command(["generate", "-e", "spec.yaml"]).code == 2
    (folder / "spec.yaml").write_text("image_grounding:\n  vlm: {bakend: openai}\n")
    done = command(["ground", "a.jpg", "a cup", "-e", "spec.yaml"])
    assert (
        done.code,
        "spec.yaml, line 2: image_grounding.vlm.bakend is not a key of the spec; is it 'backend'?"
        in done.err,
    ) == (2, True)


@pytest.mark.slow
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
    given(folder, "backend: embedded")
    for line in (["check"], ["estimate"], ["generate", "--dry-run"], ["generate"]):
        done = command([*line, "-e", "spec.yaml", "results_dir=taos"])
        assert done.code == 2, done
        assert "taos/annotations.jsonl was not made by a run here: " in done.err
        assert "Choose another folder" in done.err
    for name, file in (("failures", "failures.jsonl"), ("report", "report.html")):
        (folder / name).mkdir()
        (folder / name / file).write_text("precious")
        done = command(["generate", "-e", "spec.yaml", f"results_dir={name}"])
        assert (done.code, f"{file} was not made by a run here" in done.err) == (2, True), done
    assert [path.read_text() for path in kept] == ["precious"] * 3
    assert sorted(path for path in (folder / "taos").rglob("*") if path.is_file()) == sorted(kept)


def test_a_run_shows_how_many_expressions_a_check_confirmed(folder: Path) -> None:
    with LoopbackServer() as server:
        vlm = f"backend: openai, openai: {{base_url: '{server.base_url}', model_name: m}}, box_format: xyxy_px, check_every: null"
        line = ["generate", *given(folder, vlm), "image_grounding.workflow.verify=reground"]
        done, again = command(line), command(line)
    words = []
    for record in map(json.loads, (folder / "out" / "annotations.jsonl").open()):
        for expression in record["expressions"]:
            words.append("verified" if expression["verified"] else "not verified")
    counts = [f"{words.count(word)} {word}" for word in sorted(set(words), reverse=True)]
    assert counts
    for said in (done.err, again.err):
        assert f"; {', '.join(counts)}\n" in said


def test_check_tells_of_rows_that_repeat_a_picture_and_its_text(folder: Path) -> None:
    paths = ["a.jpg", "./a.jpg", str(folder / "a.jpg"), "a.jpg"]
    rows = [
        {"image_path": path, "caption": "A cup" if n < 3 else "A mug"}
        for n, path in enumerate(paths)
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = command(["check", *given(folder, "backend: embedded")])
    assert done.code == 0, done
    assert "paid for once: 2 (line 2 that of line 1; line 3 that of line 1)" in done.out


@pytest.mark.slow
def test_who_is_asked_is_named_before_anything_is_sent(folder: Path, named: LoopbackServer) -> None:
    who = f"qwen3-vl at {named.base_url}"
    for line in (["check", *given(folder)], ["estimate", *given(folder)]):
        done = command(line)
        assert done.code == 0, done
        assert f"asks {who}" in done.out
        told = json.loads(command([*line, "--json"]).out)
        assert told["asks"] == who
    assert named.received == 0
    done = command(["generate", *given(folder), "--no-report"])
    assert done.err.splitlines()[0] == f"image_grounding asks {who}."
    own = command(["generate", *given(folder, "backend: embedded"), "results_dir=own"])
    assert own.err.splitlines()[0].endswith(" on this machine.")


@pytest.mark.parametrize(
    ("vlm", "variables", "said"),
    [
        ("backend: openai, openai: {model_name: m}", {}, "no address is named"),
        ("backend: openai, openai: {model_name: m, api_key: EMPTY}", {}, "no address is named"),
        ("", {"DF_MODEL": "m", "DF_API_KEY": "k"}, "no address is named"),
        ("", {"DF_MODEL": "m", "DF_API_KEY": "k", "OPENAI_API_KEY": "o"}, "no address is named"),
        ("", {"DF_MODEL": "m"}, "no address is named"),
        ("", {"DF_MODEL": "m", "DF_BASE_URL": "", "OPENAI_API_KEY": "o"}, "DF_BASE_URL"),
        ("", {"DF_BASE_URL": " ", "GOOGLE_API_KEY": "g"}, "DF_BASE_URL"),
        ("", {"OPENAI_API_KEY": "o", "GOOGLE_API_KEY": "g"}, "vlm.backend"),
        (
            "backend: openai, openai: {model_name: m}",
            {"OPENAI_BASE_URL": " ", "OPENAI_API_KEY": "o"},
            "OPENAI_BASE_URL is set to nothing",
        ),
        (
            "backend: gemini",
            {"GOOGLE_GEMINI_BASE_URL": " ", "GEMINI_API_KEY": "g"},
            "GOOGLE_GEMINI_BASE_URL is set to nothing",
        ),
    ],
)
def test_no_public_service_is_asked_that_nobody_means(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    vlm: str,
    variables: dict[str, str],
    said: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for what in ("check", "estimate", "generate"):
        done = command([what, *given(folder, vlm)])
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
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    vlm: str,
    variables: dict[str, str],
    who: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = command(["estimate", *given(folder, vlm)])
    assert done.code == 0, done
    assert who in done.out
