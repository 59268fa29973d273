"""`default_specs --endpoint NAME` writes a spec with the settings of a server or provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflow_grounding.spec.endpoints import ENDPOINTS
from dataflow_grounding.testing import LoopbackServer
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import Workplace, command

KEY = "sk-of-the-provider"


@pytest.fixture
def folder(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a picture and its caption; the providers' keys are set."""
    workplace.many(1)
    monkeypatch.chdir(workplace.folder)
    for variable in re.findall(r"\$\{oc\.env:(\w+)\}", yaml.safe_dump(ENDPOINTS)):
        monkeypatch.setenv(variable, KEY)
    return workplace.folder


def contains(whole: Any, part: Any) -> bool:
    if isinstance(part, Mapping):
        return all(key in whole and contains(whole[key], value) for key, value in part.items())
    return bool(whole == part)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDPOINTS)
def test_each_written_spec_passes_check_and_sends_its_settings(folder: Path, name: str) -> None:
    assert command(["default_specs", "--endpoint", name]).code == 0
    vlm = yaml.safe_load(Path("image_grounding.yaml").read_text())["image_grounding"]["vlm"]
    own = vlm[vlm["backend"]]
    with LoopbackServer(ProbeModel("xyxy_1000"), key=KEY, keep_bodies=True) as server:
        address = server.base_url if vlm["backend"] == "openai" else server.address
        changed = {
            "data.input_jsonl": "captions.jsonl",
            "vlm.box_format": "xyxy_1000",
            f"vlm.{vlm['backend']}.base_url": address,
        }
        if not own["api_key"]:
            changed["vlm.openai.api_key"] = KEY
        if own.get("model_name") == "???":
            changed["vlm.openai.model_name"] = "mine"
        if name == "openrouter":
            changed["vlm.openai.extra_body.provider.only"] = "[mine]"
        spec = ["-e", "image_grounding.yaml", "results_dir=out"]
        spec += [f"image_grounding.{key}={value}" for key, value in changed.items()]
        checked = command(["check", *spec])
        assert (checked.code, checked.err) == (0, ""), checked
        assert server.requests == []
        done = command(["generate", *spec, "--no-progress"])
        assert done.code == 0, done
    settings = ENDPOINTS[name]["vlm"][vlm["backend"]]
    extra = settings.get("extra_body", settings.get("extra", {}))
    given = yaml.safe_load(yaml.safe_dump(extra).replace("???", "mine"))
    assert contains(server.requests[-1].body, given), server.requests[-1].body


@pytest.mark.parametrize("name", ENDPOINTS)
def test_nothing_but_the_settings_differs_from_the_plain_spec(tmp_path: Path, name: str) -> None:
    pipeline = "image_grounding"
    specs = []
    for folder, arguments in (("plain", ["--all"]), ("named", ["--all", "--endpoint", name])):
        where = [f"results_dir={tmp_path / folder}", f"autolabel_type={pipeline}"]
        (tmp_path / folder).mkdir()
        assert command(["default_specs", *arguments, *where]).code == 0
        specs.append((tmp_path / folder / f"{pipeline}.yaml").read_text(encoding="utf-8"))
    plain, named = specs
    expected = yaml.safe_load(plain)
    for block in ("vlm", "workflow"):
        for key, value in ENDPOINTS[name].get(block, {}).items():
            if key in ("openai", "gemini"):
                expected[pipeline][block][key] |= value
            else:
                expected[pipeline][block][key] = value
    assert yaml.safe_load(named) == expected
    comments = [re.findall(r" # .*", text) for text in specs]
    assert comments[0] == comments[1]


def test_what_to_type_first_stands_above_the_spec(tmp_path: Path) -> None:
    assert command(["default_specs", "--endpoint", "ollama", f"results_dir={tmp_path}"]).code == 0
    assert (tmp_path / "image_grounding.yaml").read_text().splitlines()[:3] == [
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
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, missing: str
) -> None:
    monkeypatch.delenv("AZURE_RESOURCE_NAME")
    assert command(["default_specs", "--endpoint", name]).code == 0
    done = command(["check", "-e", "image_grounding.yaml", "results_dir=out"])
    assert (done.code, missing in done.err) == (2, True), done


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["--endpoint", "vlm"],
            f"endpoint 'vlm' is not one of {', '.join(ENDPOINTS)}; is it 'vllm'?",
        ),
        (
            ["--endpoint", "vllm", "--backend", "openai"],
            "--endpoint states the backend: leave --backend out",
        ),
    ],
)
def test_a_wrong_endpoint_is_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    done = command(["default_specs", *arguments, f"results_dir={tmp_path}"])
    assert (done.code, done.out, done.err) == (2, "", f"Error: {told}\n")
    assert list(tmp_path.iterdir()) == []
