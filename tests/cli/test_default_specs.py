"""`default_specs` writes the keys that most people set; every other key can be set all the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataflow_grounding.jobs.registry import PIPELINES, load_spec
from dataflow_grounding.spec.endpoints import ENDPOINTS
from tests.support.workplace import command

BACKENDS = ("gemini", "openai", "local", "embedded")
REFERENCES = re.findall(r"\$\{oc\.env:(\w+)\}", yaml.safe_dump(ENDPOINTS))

OF_NO_SHORT_SPEC: dict[str, Any] = {
    "vlm.box_formats": [{"models": ["my-*"], "order": "xyxy", "scale": 1000}],
    "vlm.check_every": 7,
    "vlm.prices": {"input": 1, "output": 2},
    "vlm.gemini.model": "gemini-2.5-flash",
    "vlm.openai.azure.endpoint": "https://mine.openai.azure.com",
    "vlm.local.dtype": "bfloat16",
    "workflow.steps": ["0"],
    "workflow.stream": False,
    "prompts.dir": "/mine",
}
"""Keys that the short spec lacks, some with their block, each with a value that isn't its default."""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The current folder is an empty one; the providers' keys are set."""
    monkeypatch.chdir(tmp_path)
    for name in REFERENCES:
        monkeypatch.setenv(name, "k")


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


def keys(pipeline: str, path: str) -> set[str]:
    return set(keys_of(yaml.safe_load(Path(path).read_text(encoding="utf-8"))[pipeline]))


def loaded(pipeline: str, path: str, **overrides: Any) -> dict[str, Any]:
    """The spec as a run takes it; `overrides` are of the pipeline's block."""
    required = (
        {"data.input_jsonl": "in.jsonl"} if "input_jsonl: ???" in Path(path).read_text() else {}
    )
    values = {**required, **overrides}
    texts = [
        f"{pipeline}.{key}={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}"
        for key, value in values.items()
    ]
    spec = load_spec(path, ["results_dir=out", *texts])
    return spec.model_dump(by_alias=True)[pipeline]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_it_has_about_twelve_keys_each_with_a_comment_and_says_where_the_others_are(
    pipeline: str, backend: str
) -> None:
    path = written(pipeline, "--backend", backend)
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    stated = [line for line in lines if re.match(r" *\w+: \S", line) and ": #" not in line]
    assert 8 <= len(stated) <= 16, stated
    assert [line for line in stated if " # " not in line] == []
    assert [line for line in lines if "default_specs --all" in line] == [lines[3]]
    blocks = yaml.safe_load(Path(path).read_text(encoding="utf-8"))[pipeline]["vlm"].keys() & {
        *BACKENDS
    }
    assert blocks == {backend} - {"embedded"}


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_it_means_what_all_keys_mean(pipeline: str, backend: str) -> None:
    short = written(pipeline, "--backend", backend)
    whole = written(pipeline, "--all", "--backend", backend)
    assert loaded(pipeline, short) == loaded(pipeline, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDPOINTS)
def test_an_endpoint_adds_its_own_keys_and_means_what_all_keys_mean(name: str) -> None:
    settings = {key: value for key, value in ENDPOINTS[name].items() if key != "first"}
    pipeline = "image_grounding"
    plain = written(pipeline, "--backend", settings["vlm"]["backend"])
    short = written(pipeline, "--endpoint", name)
    whole = written(pipeline, "--all", "--endpoint", name)
    assert keys(pipeline, short) == keys(pipeline, plain) | set(keys_of(settings))
    to_give = {
        "azure": {"vlm.openai.model_name": "mine"},
        "openrouter": {"vlm.openai.extra_body.provider.only": ["mine"]},
    }.get(name, {})
    assert loaded(pipeline, short, **to_give) == loaded(pipeline, whole, **to_give)


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_key_that_it_does_not_have_can_be_set_as_key_value(pipeline: str) -> None:
    short = written(pipeline, "--backend", "embedded")
    whole = written(pipeline, "--all", "--backend", "embedded")
    assert keys(pipeline, whole) - keys(pipeline, short) >= set(OF_NO_SHORT_SPEC)
    after = loaded(pipeline, short, **OF_NO_SHORT_SPEC)
    assert after == loaded(pipeline, whole, **OF_NO_SHORT_SPEC)
    before = loaded(pipeline, short)
    for key in OF_NO_SHORT_SPEC:
        assert at(after, key) != at(before, key), key


def at(block: Any, key: str) -> Any:
    for name in key.split("."):
        block = block[name]
    return block


@pytest.mark.slow
def test_the_line_that_names_all_keys_can_be_typed() -> None:
    assert command(["default_specs"]).code == 0
    [line] = {
        Path(f"{name}.yaml").read_text(encoding="utf-8").splitlines()[3] for name in PIPELINES
    }
    typed = shlex.split(line.removeprefix("# All keys: dataflowgrounding "))
    assert command(typed).code == 0
    for name in PIPELINES:
        assert keys(name, f"all_keys/{name}.yaml") > keys(name, f"{name}.yaml")


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
