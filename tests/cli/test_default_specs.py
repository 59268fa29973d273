"""`default_specs` writes the keys that most people set; every other key can be set all the same."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflow_grounding.jobs.registry import PIPELINES, load_spec
from dataflow_grounding.spec.endpoints import ENDPOINTS
from dataflow_grounding.testing import LoopbackServer
from tests.support.endpoint import with_settings
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import Workplace, command

KEY = "sk-of-the-provider"
BACKENDS = ("gemini", "openai", "local", "embedded")
REFERENCES = re.findall(r"\$\{oc\.env:(\w+)\}", yaml.safe_dump(ENDPOINTS))


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The current folder is an empty one; the providers' keys are set."""
    monkeypatch.chdir(tmp_path)
    for name in REFERENCES:
        monkeypatch.setenv(name, KEY)


def written(pipeline: str, *arguments: str) -> str:
    """The path of the spec that `default_specs` writes with these arguments."""
    folder = "_".join(["of", *arguments]).replace("--", "")
    where = [f"results_dir={folder}", f"autolabel_type={pipeline}"]
    done = command(["default_specs", *arguments, *where])
    assert done.code == 0, done
    return done.out.strip()


def keys_of(block: dict[str, Any]) -> Iterator[str]:
    for name, value in block.items():
        if isinstance(value, dict) and value:
            yield from (f"{name}.{key}" for key in keys_of(value))
        else:
            yield name


def keys(path: str) -> set[str]:
    """The keys of the block of `image_grounding`, dotted."""
    return set(keys_of(yaml.safe_load(Path(path).read_text("utf-8"))["image_grounding"]))


def loaded(pipeline: str, path: str, **overrides: Any) -> dict[str, Any]:
    """The spec as a run takes it; `overrides` are of the pipeline's block."""
    if "input_jsonl: ???" in Path(path).read_text("utf-8"):
        overrides["data.input_jsonl"] = "in.jsonl"
    texts = [f"{pipeline}.{key}={value}" for key, value in overrides.items()]
    return load_spec(path, ["results_dir=out", *texts]).model_dump(by_alias=True)[pipeline]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_it_has_about_twelve_keys_each_with_a_comment_and_says_where_the_others_are(
    pipeline: str, backend: str
) -> None:
    text = Path(written(pipeline, "--backend", backend)).read_text(encoding="utf-8")
    lines = text.splitlines()
    stated = [line for line in lines if re.match(r" *\w+: \S", line) and ": #" not in line]
    assert 8 <= len(stated) <= 16, stated
    assert [line for line in stated if " # " not in line] == []
    assert [line for line in lines if "default_specs --all" in line] == [lines[3]]
    blocks = yaml.safe_load(text)[pipeline]["vlm"].keys() & {*BACKENDS}
    assert blocks == {backend} - {"embedded"}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_it_means_what_all_keys_mean(pipeline: str, backend: str) -> None:
    short = written(pipeline, "--backend", backend)
    whole = written(pipeline, "--all", "--backend", backend)
    assert loaded(pipeline, short) == loaded(pipeline, whole)


TO_GIVE = {
    "azure": {"vlm.openai.model_name": "mine"},
    "openrouter": {"vlm.openai.extra_body.provider.only": "[mine]"},
}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_endpoint_adds_its_own_keys_and_means_what_all_keys_mean(name: str) -> None:
    settings = {key: value for key, value in ENDPOINTS[name].items() if key != "first"}
    pipeline = "image_grounding"
    plain = written(pipeline, "--backend", settings["vlm"]["backend"])
    short = written(pipeline, "--endpoint", name)
    whole = written(pipeline, "--all", "--endpoint", name)
    assert keys(short) == keys(plain) | set(keys_of(settings))
    given = TO_GIVE.get(name, {})
    assert loaded(pipeline, short, **given) == loaded(pipeline, whole, **given)


def test_the_line_that_names_all_keys_can_be_typed() -> None:
    assert command(["default_specs"]).code == 0
    texts = [Path(f"{name}.yaml").read_text(encoding="utf-8") for name in PIPELINES]
    [line] = {text.splitlines()[3] for text in texts}
    typed = shlex.split(line.removeprefix("# All keys: dataflowgrounding "))
    assert command(typed).code == 0
    assert sorted(os.listdir("all_keys")) == [f"{name}.yaml" for name in sorted(PIPELINES)]
    assert keys("all_keys/image_grounding.yaml") > keys("image_grounding.yaml")


@pytest.mark.parametrize(
    ("line", "named"),
    [((), False), (("--backend", "gemini"), True), (("--endpoint", "vllm"), True)],
)
def test_where_nothing_names_an_endpoint_it_says_whom_the_specs_ask(
    line: tuple[str, ...], named: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DF_BASE_URL", "DF_MODEL", "OPENAI_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    done = command(["default_specs", *line])
    assert ("so these ask Gemini: see --backend" in done.err) is not named


# --- specs of a server or provider


def contains(whole: Any, part: Any) -> bool:
    if isinstance(part, Mapping):
        return all(key in whole and contains(whole[key], value) for key, value in part.items())
    return bool(whole == part)


@pytest.mark.parametrize("name", ENDPOINTS)
def test_each_written_spec_passes_check_and_sends_its_settings(
    workplace: Workplace, server: LoopbackServer, name: str
) -> None:
    workplace.many(1)
    assert command(["default_specs", "--endpoint", name]).code == 0
    vlm = yaml.safe_load(Path("image_grounding.yaml").read_text())["image_grounding"]["vlm"]
    backend = vlm["backend"]
    with_settings(server, ProbeModel("xyxy_1000"), key=KEY, keep_bodies=True)
    changed = {
        "data.input_jsonl": str(workplace.input),
        "vlm.box_format": "xyxy_1000",
        f"vlm.{backend}.base_url": server.base_url if backend == "openai" else server.address,
    }
    if not vlm[backend]["api_key"]:
        changed["vlm.openai.api_key"] = KEY
    if vlm[backend].get("model_name") == "???":
        changed["vlm.openai.model_name"] = "mine"
    if name == "openrouter":
        changed["vlm.openai.extra_body.provider.only"] = "[mine]"
    spec = ["-e", "image_grounding.yaml", "results_dir=out"]
    spec += [f"image_grounding.{key}={value}" for key, value in changed.items()]
    checked = command(["check", *spec])
    assert (checked.code, checked.err) == (0, ""), checked
    assert server.requests == []
    done = command(["generate", *spec, "--no-progress", "--no-report"])
    assert done.code == 0, done
    settings = ENDPOINTS[name]["vlm"][backend]
    extra = settings.get("extra_body", settings.get("extra", {}))
    given = yaml.safe_load(yaml.safe_dump(extra).replace("???", "mine"))
    assert contains(server.requests[-1].body, given), server.requests[-1].body


@pytest.mark.parametrize("name", ENDPOINTS)
def test_nothing_but_the_settings_differs_from_the_plain_spec(name: str) -> None:
    pipeline = "image_grounding"
    of_each = ["--backend", "gemini"], ["--endpoint", name]
    paths = [written(pipeline, "--all", *words) for words in of_each]
    texts = [Path(path).read_text(encoding="utf-8") for path in paths]
    expected, named = map(yaml.safe_load, texts)
    for block in ("vlm", "workflow"):
        stated = expected[pipeline][block]
        for key, value in ENDPOINTS[name].get(block, {}).items():
            stated[key] = {**stated[key], **value} if key in ("openai", "gemini") else value
    assert named == expected
    plain, of_named = (re.findall(r" # .*", text) for text in texts)
    assert plain == of_named


def test_what_to_type_first_stands_above_the_spec() -> None:
    assert command(["default_specs", "--endpoint", "ollama"]).code == 0
    assert Path("image_grounding.yaml").read_text().splitlines()[:3] == [
        "# First type:",
        "#   ollama pull qwen3-vl:8b-instruct",
        "#   OLLAMA_CONTEXT_LENGTH=16384 ollama serve",
    ]


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("openrouter", "image_grounding.vlm.openai.extra_body.provider.only[0] is '???'"),
        ("azure", "AZURE_RESOURCE_NAME"),
    ],
)
def test_what_is_still_to_be_given_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, missing: str
) -> None:
    monkeypatch.delenv("AZURE_RESOURCE_NAME")
    assert command(["default_specs", "--endpoint", name]).code == 0
    done = command(["check", "-e", "image_grounding.yaml", "results_dir=out"])
    assert (done.code, missing in done.err) == (2, True), done


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["vlm"], f"endpoint 'vlm' is not one of {', '.join(ENDPOINTS)}; is it 'vllm'?"),
        (["vllm", "--backend", "openai"], "--endpoint states the backend: leave --backend out"),
    ],
)
def test_a_wrong_endpoint_is_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    done = command(["default_specs", f"results_dir={tmp_path}", "--endpoint", *arguments])
    assert (done.code, done.out, done.err) == (2, "", f"Error: {told}\n")
    assert list(tmp_path.iterdir()) == []
