"""`.env` files: they give keys and addresses that the environment leaves open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding.testing import LoopbackServer
from tests.support.forgetting import forgetting
from tests.support.workplace import Done, Workplace, command

OWN = "sk-users-own-key-5566778899aabb"
GIVEN = "sk-key-of-the-dotenv-file-4711"
NAMED = {"DF_MODEL": "loopback", "DF_BOX_FORMAT": "xyxy_px"}


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    """A folder with a picture, an input and a spec that leaves the endpoint open."""
    workplace.many(1)
    workplace.settings = {"vlm.backend": "auto", "vlm.check_every": None}
    return workplace


@pytest.fixture
def dotenv(tmp_path: Path) -> Iterator[Path]:
    """A `.env` file, which isn't there yet, of a new process."""
    with forgetting():
        yield tmp_path / ".env"


def run_in(place: Workplace, dotenv: dict[str, str], env: dict[str, str], *arguments: str) -> Done:
    """A command in the folder of a `.env` file, as in a new process; without arguments, `generate`
    of all records with its spec.
    """
    (place.folder / ".env").write_text(
        "".join(f"{name}={value}\n" for name, value in dotenv.items())
    )
    line = arguments or place.arguments("image_grounding.workflow.force_reprocess=true")
    with forgetting(place.folder):
        os.environ.update(env)
        return command(line)


def spec_of(place: Workplace, **openai: Any) -> None:
    """Let the spec name the backend, a model, and what else of `vlm.openai` is given."""
    place.settings = {"vlm.backend": "openai", "vlm.box_format": "xyxy_px"}
    given = {"model_name": "m", **openai}
    place.settings |= {f"vlm.openai.{name}": value for name, value in given.items()}


DF, OPENAI, SPEC = ({name: "THIEF"} for name in ("DF_BASE_URL", "OPENAI_BASE_URL", "base_url"))
BELONGING: dict[str, tuple[dict[str, str], dict[str, str], dict[str, str], set[str]]] = {
    "both in one file": ({**DF, "DF_API_KEY": GIVEN, **NAMED}, {}, {}, {GIVEN}),
    # A server of one's own needs none, and OPENAI_API_KEY is set for something else.
    "a provider's key is set": ({**DF, **NAMED}, {"OPENAI_API_KEY": OWN}, {}, set()),
    "the address in the environment": ({"DF_API_KEY": GIVEN}, {**DF, **NAMED}, {}, {GIVEN}),
    "the address in the spec": ({"OPENAI_API_KEY": GIVEN}, {}, SPEC, {GIVEN}),
    "another provider's key": (
        {"OPENROUTER_API_KEY": GIVEN},
        {},
        {**SPEC, "api_key": "${oc.env:OPENROUTER_API_KEY}"},
        {GIVEN},
    ),
}


@pytest.mark.parametrize(("dotenv", "env", "spec", "sent"), BELONGING.values(), ids=BELONGING)
def test_keys_that_belong_to_their_addresses_are_sent(
    place: Workplace,
    server: LoopbackServer,
    dotenv: dict[str, str],
    env: dict[str, str],
    spec: dict[str, str],
    sent: set[str],
) -> None:
    def given(values: dict[str, str]) -> dict[str, str]:
        return {name: value.replace("THIEF", server.base_url) for name, value in values.items()}

    if spec:
        spec_of(place, **given(spec))
    done = run_in(place, given(dotenv), given(env))
    assert done.code == 0, done
    assert server.requests
    for request in server.requests:
        held = {key for key in (OWN, GIVEN) if key in str(request.headers)}
        assert held == sent, request.headers


def test_a_name_twice_has_its_last_value_and_the_environment_goes_first(dotenv: Path) -> None:
    os.environ["DF_MODEL"] = "the environment's"
    dotenv.write_text("export DF_API_KEY=\"a\"\nDF_MODEL=m\nDF_API_KEY='b' # which counts\n")
    read_env_files([str(dotenv.parent)])
    assert (os.environ["DF_API_KEY"], os.environ["DF_MODEL"]) == ("b", "the environment's")


@pytest.mark.parametrize("key", ["EMPTY", "ollama"])
def test_a_word_in_place_of_a_key_is_none(
    place: Workplace, server: LoopbackServer, key: str
) -> None:
    place.settings |= {"vlm.backend": "openai", "vlm.openai.api_key": key}
    place.settings["vlm.openai.extra_headers"] = {"X-Title": "My set"}
    done = run_in(place, {"DF_BASE_URL": server.base_url, **NAMED}, {})
    assert done.code == 0, done
