"""`.env` files: they give keys and addresses, and a stranger's draws nobody's key to an address of
its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.data import bucket
from dataflow_grounding.testing import EchoAnswers, LoopbackServer
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


def keys_at(server: LoopbackServer) -> set[str]:
    return {
        key for request in server.requests for key in (OWN, GIVEN) if key in str(request.headers)
    }


KEYS = ("DF_API_KEY", "OPENAI_API_KEY", "GOOGLE_API_KEY", "AZURE_OPENAI_API_KEY")
ADDRESSES = {"DF_BASE_URL": "/v1", "OPENAI_BASE_URL": "/v1", "GOOGLE_GEMINI_BASE_URL": ""}
REFUSED = {
    ("DF_BASE_URL", "DF_API_KEY"),
    ("OPENAI_BASE_URL", "DF_API_KEY"),
    ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    ("GOOGLE_GEMINI_BASE_URL", "GOOGLE_API_KEY"),
}
"""An address and the key that would be sent there."""
LINES = {"ground": ["ground", "a.jpg", "a cup"], "doctor": ["doctor"], "calibrate": ["calibrate"]}


CASES = [
    *((None, name, key) for name in ADDRESSES for key in KEYS),
    *((line, "DF_BASE_URL", "DF_API_KEY") for line in LINES),
    ("doctor", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_API_KEY"),
]


@pytest.mark.parametrize(("line", "name", "key"), CASES)
def test_an_address_of_a_dotenv_file_draws_no_key_from_another_place(
    place: Workplace, server: LoopbackServer, line: str | None, name: str, key: str
) -> None:
    """It is refused in a sentence before anything is sent."""
    dotenv = {name: server.address + ADDRESSES[name], **NAMED}
    if name == "GOOGLE_GEMINI_BASE_URL":
        dotenv["DF_MODEL"], server.answers = "gemini-2.5-flash", EchoAnswers("gemini")
    done = run_in(place, dotenv, {key: OWN}, *(LINES[line] if line else []))
    assert keys_at(server) == set(), done
    file = place.folder.resolve() / ".env"
    said = f"{name} is set by {file}, and the key {key} is not: "
    assert OWN not in done.out + done.err, done
    is_refused = (name, key) in REFUSED and line != "doctor"  # which goes on, without the key
    assert (said in done.err) == is_refused, done
    if is_refused:
        assert (done.code, server.received) == (2, 0), done


IN_SPEC = {"api_key": "${oc.env:MY_API_KEY}"}
IN_HEADER = {"extra_headers": {"Token": "Bearer ${oc.env:MY_API_KEY}"}}


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("${oc.env:DF_BASE_URL}", IN_SPEC),
        ("${oc.env:DF_BASE_URL}", IN_HEADER),
        ("http://${oc.env:DF_HOST}/v1", IN_SPEC),
        ("http://${oc.env:DF_HOST}/v1", IN_HEADER),
        # where the key is DF_API_KEY, which no spec has to name
        ("http://${oc.env:DF_NAME}:PORT/v1", {}),
        ("http://${oc.env:DF_PART}.localhost:PORT/v1", {}),
        ("http://127.0.0.1:${oc.env:DF_GATE}/v1", {}),
    ],
)
def test_it_is_refused_where_a_spec_takes_both_or_a_part_of_the_address_from_the_environment(
    place: Workplace, server: LoopbackServer, address: str, own: dict[str, Any]
) -> None:
    port = str(server.port)
    values = {
        "DF_BASE_URL": server.base_url,
        "DF_HOST": f"127.0.0.1:{port}",
        "DF_NAME": "127.0.0.1",
        "DF_PART": "evil",
        "DF_GATE": port,
    }
    spec_of(place, base_url=address.replace("PORT", port), **own)
    dotenv = {name: value for name, value in values.items() if name in address}
    done = run_in(place, dotenv, {"MY_API_KEY" if own else "DF_API_KEY": OWN})
    assert (done.code, server.received) == (2, 0), done
    assert " is set by " in done.err, done


# --- what goes on working


DF, OPENAI, SPEC = ({name: "THIEF"} for name in ("DF_BASE_URL", "OPENAI_BASE_URL", "base_url"))
BELONGING: dict[str, tuple[dict[str, str], dict[str, str], dict[str, str], set[str]]] = {
    "both in one file": ({**DF, "DF_API_KEY": GIVEN, **NAMED}, {}, {}, {GIVEN}),
    "both in it, OpenAI's": ({**OPENAI, "OPENAI_API_KEY": GIVEN, **NAMED}, {}, {}, {GIVEN}),
    # A server of one's own needs none, and OPENAI_API_KEY is set for something else.
    "a provider's key is set": ({**DF, **NAMED}, {"OPENAI_API_KEY": OWN}, {}, set()),
    "the address in the environment": ({"DF_API_KEY": GIVEN}, {**DF, **NAMED}, {}, {GIVEN}),
    "the address in the spec": ({"OPENAI_API_KEY": GIVEN}, {}, SPEC, {GIVEN}),
    "all in the environment": ({}, {**DF, "DF_API_KEY": OWN, **NAMED}, {}, {OWN}),
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


# --- what it may set


KEPT_OUT = """
    http_proxy HTTPS_PROXY all_proxy no_proxy SSL_CERT_FILE SSL_CERT_DIR SSLKEYLOGFILE
    REQUESTS_CA_BUNDLE CURL_CA_BUNDLE AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_CA_BUNDLE
    AWS_PROFILE PYTHONPATH PYTHONSTARTUP LD_PRELOAD PATH HOME XDG_CACHE_HOME TMPDIR HF_ENDPOINT
    HF_HOME RAY_ADDRESS FSSPEC_S3_ENDPOINT_URL GOOGLE_APPLICATION_CREDENTIALS
    GOOGLE_API_USE_MTLS OPENAI_CUSTOM_HEADERS OMEGACONF_MAX_YAML_EXPANDED_NODES BROWSER TERM
    NETRC
"""


def test_nothing_else_gets_into_the_environment(
    dotenv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_out = KEPT_OUT.split()
    for name in kept_out:
        os.environ.pop(name, None)
    dotenv.write_text("".join(f"{name}=/evil\n" for name in kept_out) + "DF_MODEL=m\n")
    before = dict(os.environ)
    for _ in range(2):
        read_env_files([str(dotenv.parent)])
        assert dict(os.environ) == {**before, "DF_MODEL": "m"}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Warning: {dotenv} does not set http_proxy, HTTPS_PROXY, ")
    assert "a .env may set DF_*" in line


@pytest.mark.parametrize("name", ["DF_BASE_URL", "DF_API_KEY", "MY_API_KEY"])
def test_nothing_is_filled_in(name: str, dotenv: Path) -> None:
    """`http://thief/${OPENAI_API_KEY}` would take a key along in the address."""
    dotenv.write_text(f"DF_MODEL=m\n{name}=http://thief/${{OPENAI_API_KEY}}/v1\n")
    with pytest.raises(SpecError, match=rf"\.env, line 2: {name} holds \${{…}}"):
        read_env_files([str(dotenv.parent)])
    assert name not in os.environ


def test_a_name_twice_has_its_last_value_and_the_environment_goes_first(dotenv: Path) -> None:
    os.environ["DF_MODEL"] = "the environment's"
    dotenv.write_text("export DF_API_KEY=\"a\"\nDF_MODEL=m\nDF_API_KEY='b' # which counts\n")
    read_env_files([str(dotenv.parent)])
    assert (os.environ["DF_API_KEY"], os.environ["DF_MODEL"]) == ("b", "the environment's")


def test_two_files_are_two_places(place: Workplace, server: LoopbackServer, tmp_path: Path) -> None:
    """The stranger's is next to the spec, the user's in the current folder."""
    elsewhere = tmp_path / "mine"
    elsewhere.mkdir()
    (elsewhere / ".env").write_text(f"DF_API_KEY={OWN}\n")
    (place.folder / ".env").write_text(f"DF_BASE_URL={server.base_url}\nDF_MODEL=m\n")
    with forgetting(elsewhere):
        done = command(place.arguments())
    assert (done.code, server.received) == (2, 0), done
    assert json.loads(done.out or "{}") == {}


# --- keys that no variable holds, and where results go


@pytest.mark.parametrize(
    "openai",
    [
        {"api_key": OWN},
        {"api_key": OWN, "client": "sdk"},
        {"extra_headers": {"X-Auth-Token": OWN}},
        {"extra_headers": {"Authorization": f"Bearer {OWN}"}},
        {"extra_headers": {"Authorization": "Bearer ${oc.env:PLAIN}"}},
        {"extra_headers": {"X-Plain": OWN}},
    ],
)
def test_a_key_that_the_spec_states_goes_to_no_address_of_a_dotenv_file(
    place: Workplace, server: LoopbackServer, openai: dict[str, Any]
) -> None:
    spec_of(place, **openai)
    done = run_in(place, {"DF_BASE_URL": server.base_url}, {"PLAIN": OWN})
    assert (done.code, server.received) == (2, 0), done
    assert f"DF_BASE_URL is set by {place.folder.resolve()}/.env" in done.err
    assert OWN not in done.err


@pytest.mark.parametrize("key", ["EMPTY", "none", "ollama", "lm-studio"])
def test_a_word_in_place_of_a_key_is_none(
    place: Workplace, server: LoopbackServer, key: str
) -> None:
    place.settings |= {"vlm.backend": "openai", "vlm.openai.api_key": key}
    place.settings["vlm.openai.extra_headers"] = {"X-Title": "My set"}
    done = run_in(place, {"DF_BASE_URL": server.base_url, **NAMED}, {})
    assert done.code == 0, done


def test_a_dotenv_file_lets_no_folder_stand_for_an_address(
    place: Workplace, server: LoopbackServer
) -> None:
    """A results folder with a mark, in a work folder that a stranger names, would be sent to the
    stranger's bucket.
    """
    spec_of(place, base_url=server.base_url)
    place.results.mkdir()
    stated = {"address": "memory://evil", "part": "", "id": "abcd"}
    (place.results / bucket._MARK).write_text(json.dumps(stated))
    done = run_in(place, {"DF_WORK_FOLDER": str(place.folder)}, {})
    assert done.code == 0, done
    assert "memory://evil" not in done.out + done.err
    assert "does not set DF_WORK_FOLDER" in done.err
