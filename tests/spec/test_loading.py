"""Specs: what the shipped ones hold, and how files, overrides and the environment come together."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.engine.budget import Prices
from dataflow_grounding.jobs.registry import PIPELINES, kind_named, load_spec
from dataflow_grounding.serving import GeminiServing, OpenAIServing
from dataflow_grounding.testing import LoopbackServer
from tests.support.forgetting import forgetting
from tests.support.workplace import Workplace, command

KEY = "sk-from-a-file"


def block_of(annotation: Any) -> type[BaseModel] | None:
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, BaseModel)), None)


def compared(stated: dict[str, Any], model: type[BaseModel], where: str) -> None:
    """The YAML's keys are the schema's, and its values the schema's defaults."""
    assert list(stated.keys() - model.model_fields.keys()) == [], where
    for name, field in model.model_fields.items():
        place = f"{where}.{name}"
        assert name in stated, f"{place} is missing in the YAML"
        inner = block_of(field.annotation)
        if stated[name] == "???":
            assert field.is_required() or place == ".results_dir", place
        elif inner is not None and isinstance(stated[name], dict):
            compared(stated[name], inner, place)
        else:
            assert stated[name] == field.default, place


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_all_default_specs_have_every_key_with_its_default_and_a_comment(
    tmp_path: Path, pipeline: str
) -> None:
    where = [f"results_dir={tmp_path}", f"autolabel_type={pipeline}"]
    done = command(["default_specs", "--all", *where])
    assert done.code == 0, done
    text = (tmp_path / f"{pipeline}.yaml").read_text()
    stated = yaml.safe_load(text)
    assert set(stated) == {"results_dir", "autolabel_type", pipeline}
    compared(stated[pipeline], kind_named(pipeline).block, pipeline)
    for key in ("backend", "box_format", "max_workers", "timeout", "max_attempts"):
        [line] = [line for line in text.splitlines() if line.strip().startswith(f"{key}:")][:1]
        assert "#" in line, f"{key} has no comment"


def written(folder: Path, name: str, text: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def with_data(more: str) -> str:
    """The spec, with more keys in its `data`."""
    return BASE.replace("{input_jsonl: in.jsonl", f"{{{more}input_jsonl: in.jsonl")


def with_openai(more: str) -> str:
    """The spec, with other keys next to the name of the model."""
    return BASE.replace("timeout: 5", more)


BASE = """
results_dir: out
autolabel_type: image_grounding
image_grounding:
  vlm: {backend: openai, openai: {model_name: one, timeout: 5}}
  data: {input_jsonl: in.jsonl, image_root: pictures}
"""


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """Its path."""
    return written(tmp_path, "spec.yaml", BASE)


def refused(*words: str) -> str:
    """What `generate` says that ends with one line."""
    done = command(["generate", *words])
    assert (done.code, done.err.count("\n")) == (2, 1), done
    return done.err


def test_later_files_go_over_earlier_ones_and_paths_are_their_own_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = written(tmp_path / "a", "base.yaml", BASE)
    block = "{vlm: {openai: {model_name: two}}, data: {input_jsonl: other.jsonl}}"
    over = written(tmp_path / "b", "over.yaml", f"image_grounding: {block}\n")
    monkeypatch.chdir(tmp_path)
    spec = load_spec([base, over], ["image_grounding.data.image_root=here"])
    assert spec.results_dir == str(tmp_path / "a" / "out")
    openai, data = spec.block.vlm.openai, spec.block.data
    assert (openai.model_name, openai.timeout) == ("two", 5)
    assert data.input_jsonl == str(tmp_path / "b" / "other.jsonl")
    assert data.image_root == str(tmp_path / "here")
    overridden = load_spec(base, ["results_dir=out put/ñ"])
    assert overridden.results_dir == str(tmp_path / "out put" / "ñ")


def test_values_may_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    monkeypatch.setenv("MY_DATA", str(tmp_path / "data"))
    host = '"http://${oc.env:MY_HOST,localhost}/v1"'
    text = with_openai(f'api_key: "${{oc.env:MY_KEY}}", base_url: {host}')
    text = text.replace("in.jsonl", '"${oc.env:MY_DATA}/in.jsonl"')
    # blocks that are none of this run's
    text += "wandb: {key: '???'}\nimage_referring_expression: {data: '???'}\n"
    block = load_spec(written(tmp_path, "spec.yaml", text)).block
    assert (block.vlm.openai.api_key, block.vlm.openai.base_url) == (KEY, "http://localhost/v1")
    assert block.data.input_jsonl == str(tmp_path / "data" / "in.jsonl")


@pytest.mark.parametrize("empty", ["", "  "])
def test_a_variable_that_holds_nothing_is_named_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: str
) -> None:
    monkeypatch.setenv("MY_ADDRESS", empty)
    path = written(tmp_path, "spec.yaml", with_openai('base_url: "${oc.env:MY_ADDRESS}"'))
    told = "vlm.openai.base_url is what MY_ADDRESS holds, which is empty"
    with pytest.raises(SpecError, match=told):
        load_spec([path])
    meant = written(tmp_path, "spec.yaml", with_openai("base_url: \"${oc.env:MY_ADDRESS,''}\""))
    assert load_spec([meant]).block.vlm.openai.base_url == empty


@pytest.mark.parametrize("where", ["work", "current"])
def test_dotenv_files_next_to_the_spec_and_in_the_current_folder_give_keys(
    workplace: Workplace, server: LoopbackServer, tmp_path: Path, where: str
) -> None:
    workplace.many(1)
    server.key = KEY
    arguments = workplace.arguments()
    written(tmp_path / where, ".env", f'OPENAI_API_KEY="{KEY}"\n')
    (tmp_path / "current").mkdir(exist_ok=True)
    with forgetting(tmp_path / "current"):
        done = command(arguments)
    assert done.code == 0, done


def test_everything_wrong_is_named_with_file_line_and_nearest_key(tmp_path: Path) -> None:
    text = """
results_dir: ???
autolabel_type: image_grounding
image_grounding:
  vlm:
    backend: openaix
    opanai: {model_name: x}
  workflow:
    max_worker: 3
    stream: perhaps
    steps: ["???"]
  data:
    image_root: x
"""
    path = written(tmp_path, "spec.yaml", text)
    with pytest.raises(SpecError) as caught:
        load_spec(path, ["image_grounding.workflow.max_attempt=2"])
    assert sorted(str(caught.value).splitlines()) == sorted(
        [
            f"{path}, line 2: results_dir is '???': give it a value",
            f"{path}, line 6: image_grounding.vlm.backend should be 'gemini', 'openai', 'local', 'embedded', 'auto' or module:Class, a serving of your own; is it 'openai'?",
            f"{path}, line 7: image_grounding.vlm.opanai is not a key of the spec; is it 'openai'?",
            f"{path}, line 9: image_grounding.workflow.max_worker is not a key of the spec; is it 'max_workers'?",
            f"{path}, line 10: image_grounding.workflow.stream should be true or false",
            f"{path}, line 11: image_grounding.workflow.steps[0] is '???': give it a value",
            f"{path}, line 12: image_grounding.data.input_jsonl is missing: give it a value",
            "image_grounding.workflow.max_attempt is not a key of the spec; is it 'max_attempts'?",
        ]
    )


def test_a_wrong_value_is_never_repeated(tmp_path: Path) -> None:
    text = with_openai(f"timeout: {KEY}, api_key: [{KEY}]")
    with pytest.raises(SpecError) as caught:
        load_spec(written(tmp_path, "spec.yaml", text))
    assert KEY not in str(caught.value)


ODD = {
    "no YAML": "{x: [1",
    "a number of 5,000 digits": f"x: {'9' * 5_000}",
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_yaml_that_can_not_be_read_is_refused_in_a_line_that_names_the_file(
    tmp_path: Path, text: str
) -> None:
    said = refused("-e", written(tmp_path, "spec.yaml", f"{BASE}{text}\n"))
    assert said.startswith("Error: ")
    assert "spec.yaml" in said


CLASSES_IN_FILE = {
    "a list": "classes: [tree, cup], ",
    "a mapping": "classes: {a tree: tree}, ",
}
CLASSES_GIVEN: dict[str, Any] = {
    "{a red circle: circle, a cup: cup}": {"a red circle": "circle", "a cup": "cup"},
    "[circle, cup]": ["circle", "cup"],
}


@pytest.mark.parametrize("stated", CLASSES_IN_FILE)
@pytest.mark.parametrize("classes", CLASSES_GIVEN)
def test_classes_as_a_list_or_a_mapping_replace_what_the_spec_says(
    tmp_path: Path, stated: str, classes: str
) -> None:
    spec = written(tmp_path, "spec.yaml", with_data(CLASSES_IN_FILE[stated]))
    expected = CLASSES_GIVEN[classes]
    if stated == "a mapping" and isinstance(expected, dict):
        expected = {"a tree": "tree", **expected}  # mappings are merged, as everywhere in specs
    over = f"image_grounding:\n  data:\n    classes: {classes}\n"
    by_override = load_spec(spec, [f"image_grounding.data.classes={classes}"])
    by_file = load_spec([spec, written(tmp_path, "over.yaml", over)], [])
    for loaded in (by_override, by_file):
        assert loaded.block.data.model_dump()["classes"] == expected


WRONG_ITEMS = {
    "a class twice": ("classes:\n      - cat\n      - cup\n      - cat", 6),
    "a class with another key": ("classes:\n      cat: cat\n      cup:\n        says: 3", 6),
    "a definition of nothing": ("glossary:\n      cat: a cat\n      cup: ''", 5),
    "a host": ("allow_hosts:\n      - a.example\n      - http://b.example/c", 5),
}


@pytest.mark.parametrize(("text", "line"), WRONG_ITEMS.values(), ids=WRONG_ITEMS)
def test_what_is_wrong_in_a_list_is_told_with_its_own_line(
    tmp_path: Path, spec: str, text: str, line: int
) -> None:
    over = written(tmp_path, "over.yaml", f"image_grounding:\n  data:\n    {text}\n")
    with pytest.raises(SpecError, match=f"over.yaml, line {line}: image_grounding.data"):
        load_spec([spec, over], [])


@pytest.mark.parametrize("key", ["classes.0", "classes.dog"])
def test_an_item_of_a_list_is_not_overridden_alone(tmp_path: Path, key: str) -> None:
    spec = written(tmp_path, "spec.yaml", with_data("classes: [cat, cup], "))
    said = refused("-e", spec, f"image_grounding.data.{key}=dog", "--dry-run")
    assert "an item of a list can't be overridden alone: give the whole list" in said


def test_an_empty_mapping_of_the_command_line_clears_the_specs(tmp_path: Path) -> None:
    spec = written(tmp_path, "spec.yaml", with_data("glossary: {cup: with a handle}, "))
    assert load_spec(spec, []).block.data.glossary == {"cup": "with a handle"}
    assert not load_spec(spec, ["image_grounding.data.glossary={}"]).block.data.glossary


@pytest.mark.parametrize("name", ["set #1", "007", "12:30", "@home", "x, y"])
def test_a_text_of_an_override_is_as_it_is_typed(spec: str, name: str) -> None:
    key = "image_grounding.vlm.openai.model_name"
    loaded = load_spec(spec, [f"results_dir=/{name}", f"{key}={name}"])
    assert (loaded.results_dir, loaded.block.vlm.openai.model_name) == (f"/{name}", name)


def test_other_overrides_are_yaml_and_a_wrong_one_is_named(spec: str) -> None:
    overrides = [
        "image_grounding.workflow.max_workers=0x10",
        "image_grounding.workflow.stream=no",
        "image_grounding.vlm.openai.extra_body={top_p: 0.5, stop: ['#']}",
        "+image_grounding.vlm.openai.model_name='a #b'",
    ]
    block = load_spec(spec, overrides).block
    assert (block.workflow.max_workers, block.workflow.stream) == (16, False)
    assert block.vlm.openai.extra_body == {"top_p": 0.5, "stop": ["#"]}
    assert block.vlm.openai.model_name == "a #b"
    said = refused("-e", spec, "results_dir={x", "--dry-run")
    assert "results_dir: its value isn't YAML" in said


def test_a_spec_may_come_through_a_pipe(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, BASE.encode())
    os.close(writer)
    assert load_spec(f"/dev/fd/{reader}").block.vlm.openai.model_name == "one"
    os.close(reader)


def test_a_dotenv_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"B=2\n\xff\xfeA=1")
    with forgetting(tmp_path):
        done = command(["default_specs", f"results_dir={tmp_path}"])
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert "can't read ./.env: it is not a text in UTF-8" in done.err


def test_a_bad_line_of_a_dotenv_file_is_passed_over_and_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ["", f"{KEY} not a setting", "", f'A="{KEY}', "OPENAI_API_KEY=sk-good-one", ""]
    written(tmp_path, ".env", "\n".join(lines))
    spec = written(tmp_path, "spec.yaml", BASE)
    address = "image_grounding.vlm.openai.base_url=http://127.0.0.1:9/v1"
    with forgetting(tmp_path):
        os.environ.pop("OPENAI_API_KEY", None)
        done = command(["doctor", "--offline", "-e", spec, address])
        assert os.environ["OPENAI_API_KEY"] == "sk-good-one"
    assert done.code == 0, done
    assert KEY not in done.out + done.err + caplog.text


NO_SETTINGS = [
    ("vlm.openai.temperature", ".nan"),
    ("vlm.openai.timeout", ".inf"),
    ("vlm.openai.extra_body", "{top_p: .nan}"),
    ("vlm.prices", "{input: .nan, output: 1}"),
    ("workflow.budget_usd", ".inf"),
]


@pytest.mark.parametrize(("key", "value"), NO_SETTINGS)
def test_numbers_that_are_none_are_refused_with_their_key(spec: str, key: str, value: str) -> None:
    said = refused("-e", spec, f"image_grounding.{key}={value}")
    assert f"image_grounding.{key}" in said
    assert not Path(spec).with_name("out").exists()


def test_true_is_no_number(tmp_path: Path) -> None:
    path = written(tmp_path, "spec.yaml", f"{BASE}  workflow: {{negatives: true}}\n")
    with pytest.raises(SpecError, match=r"workflow.negatives: give it a number, not true"):
        load_spec(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (partial(OpenAIServing, "http://localhost/v1", "m", temperature=math.nan), "nan"),
        (partial(OpenAIServing, "http://localhost/v1", "m", timeout=math.inf), "inf"),
        (partial(GeminiServing, timeout=math.inf), "inf"),
        (partial(Prices, math.nan, 1), "input"),
    ],
)
def test_what_is_no_number_is_refused_in_python_too(make: Callable[[], object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()


def test_a_budget_without_end_is_refused(workplace: Workplace) -> None:
    workplace.many(1)
    done = workplace.run("--budget-usd", "inf", **{"vlm.prices": {"input": 1, "output": 1}})
    assert (done.code, "budget_usd inf" in done.err) == (2, True)
