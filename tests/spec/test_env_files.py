"""`.env` files: they give keys and addresses, and a stranger's draws nobody's key to an address of
its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow_grounding._util import environment as env_files
from dataflow_grounding._util.environment import read_env_files
from dataflow_grounding.data import bucket
from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support.forking import Forked
from tests.support.workplace import Done, Workplace, ended, process

OWN = "sk-users-own-key-5566778899aabb"
GIVEN = "sk-key-of-the-dotenv-file-4711"
KEYS = ("DF_API_KEY", "OPENAI_API_KEY", "GOOGLE_API_KEY", "AZURE_OPENAI_API_KEY")
NAMED = {"DF_MODEL": "loopback", "DF_BOX_FORMAT": "xyxy_px"}


@pytest.fixture
def thief() -> Iterator[LoopbackServer]:
    with LoopbackServer() as server:
        yield server


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    """A folder with a picture, an input and a spec that leaves the endpoint open."""
    workplace.many(1)
    workplace.settings = {"vlm.backend": "auto", "vlm.check_every": None}
    return workplace


def run_in(place: Workplace, dotenv: dict[str, str], env: dict[str, str], *arguments: str) -> Done:
    """A command in the folder of a `.env` file; without arguments, `generate` with its spec."""
    (place.folder / ".env").write_text(
        "".join(f"{name}={value}\n" for name, value in dotenv.items())
    )
    line = arguments or place.arguments()
    return ended(Forked(line, place.folder, {**os.environ, **env}))


def keys_at(server: LoopbackServer) -> set[str]:
    return {
        key for request in server.requests for key in (OWN, GIVEN) if key in str(request.headers)
    }


ADDRESSES = {"DF_BASE_URL": "/v1", "OPENAI_BASE_URL": "/v1", "GOOGLE_GEMINI_BASE_URL": ""}
LINES = {
    "generate": [],
    "ground": ["ground", "a.jpg", "a cup"],
    "doctor": ["doctor"],
    "calibrate": ["calibrate"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "name", "key"),
    [
        *(("generate", name, key) for name in ADDRESSES for key in KEYS),
        *((command, "DF_BASE_URL", "DF_API_KEY") for command in ("ground", "doctor", "calibrate")),
        ("doctor", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_API_KEY"),
    ],
)
def test_an_address_of_a_dotenv_file_draws_no_key_from_elsewhere(
    command: str, name: str, key: str, place: Workplace, thief: LoopbackServer
) -> None:
    dotenv = {name: thief.address + ADDRESSES[name], **NAMED}
    if name == "GOOGLE_GEMINI_BASE_URL":
        dotenv["DF_MODEL"], thief.answers = "gemini-2.5-flash", EchoAnswers("gemini")
    done = run_in(place, dotenv, {key: OWN}, *LINES[command])
    assert keys_at(thief) == set(), done
    if "is set by" in done.err:
        [said] = [line for line in done.err.splitlines() if "is set by" in line]
        assert done.code == 2, done
        assert (name in said, key in said, OWN in said) == (True, True, False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key"), [("DF_BASE_URL", "DF_API_KEY"), ("OPENAI_BASE_URL", "OPENAI_API_KEY")]
)
def test_it_is_refused_in_a_sentence_before_anything_is_sent(
    name: str, key: str, place: Workplace, thief: LoopbackServer
) -> None:
    done = run_in(place, {name: thief.base_url, **NAMED}, {key: OWN})
    assert (done.code, thief.received) == (2, 0), done
    assert f"{name} is set by {place.folder.resolve()}/.env, and the key {key} is not: " in done.err


@pytest.mark.slow
@pytest.mark.parametrize("named", ["${oc.env:DF_BASE_URL}", "http://${oc.env:DF_HOST}/v1"])
@pytest.mark.parametrize("header", [False, True])
def test_it_is_refused_where_a_spec_takes_both_from_the_environment(
    named: str, header: bool, place: Workplace, thief: LoopbackServer
) -> None:
    place.settings = {
        "vlm.backend": "openai",
        "vlm.openai.base_url": named,
        "vlm.openai.model_name": "m",
    }
    name, value = (
        ("extra_headers", {"Token": "Bearer ${oc.env:MY_API_KEY}"})
        if header
        else ("api_key", "${oc.env:MY_API_KEY}")
    )
    place.settings[f"vlm.openai.{name}"] = value
    dotenv = {"DF_BASE_URL": thief.base_url, "DF_HOST": f"127.0.0.1:{thief.port}"}
    done = run_in(place, dotenv, {"MY_API_KEY": OWN})
    assert (done.code, thief.received) == (2, 0), done


# --- what goes on working


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key"), [("DF_BASE_URL", "DF_API_KEY"), ("OPENAI_BASE_URL", "OPENAI_API_KEY")]
)
def test_key_and_address_in_one_file(
    name: str, key: str, place: Workplace, thief: LoopbackServer
) -> None:
    done = run_in(place, {name: thief.base_url, key: GIVEN, **NAMED}, {})
    assert done.code == 0, done
    assert keys_at(thief) == {GIVEN}


@pytest.mark.slow
def test_an_address_without_a_key_beside_a_providers_key_elsewhere(
    place: Workplace, thief: LoopbackServer
) -> None:
    """A server of one's own needs none, and OPENAI_API_KEY is set for something else."""
    done = run_in(place, {"DF_BASE_URL": thief.base_url, **NAMED}, {"OPENAI_API_KEY": OWN})
    assert done.code == 0, done
    assert keys_at(thief) == set()


@pytest.mark.slow
def test_a_key_in_the_file_and_the_address_in_the_environment_or_the_spec(
    place: Workplace, thief: LoopbackServer
) -> None:
    done = run_in(place, {"DF_API_KEY": GIVEN}, {"DF_BASE_URL": thief.base_url, **NAMED})
    assert done.code == 0, done
    place.settings |= {"vlm.openai.base_url": thief.base_url, "vlm.openai.model_name": "another"}
    done = run_in(place, {"OPENAI_API_KEY": GIVEN}, {})
    assert done.code == 0, done
    assert keys_at(thief) == {GIVEN}
    assert all(GIVEN in str(request.headers) for request in thief.requests)


@pytest.mark.slow
def test_all_from_the_environment(place: Workplace, thief: LoopbackServer) -> None:
    done = run_in(place, {}, {"DF_BASE_URL": thief.base_url, "DF_API_KEY": OWN, **NAMED})
    assert done.code == 0, done
    assert keys_at(thief) == {OWN}


@pytest.mark.slow
def test_other_providers_keys_are_there_for_a_spec(place: Workplace, thief: LoopbackServer) -> None:
    place.settings = {
        "vlm.backend": "openai",
        "vlm.box_format": "xyxy_px",
        "vlm.openai.base_url": thief.base_url,
        "vlm.openai.model_name": "m",
        "vlm.openai.api_key": "${oc.env:OPENROUTER_API_KEY}",
    }
    done = run_in(place, {"OPENROUTER_API_KEY": GIVEN}, {})
    assert (done.code, keys_at(thief)) == (0, {GIVEN}), done


# --- what it may set


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(env_files, "_set_by", {})
    monkeypatch.setattr(env_files, "_told", set())


KEPT_OUT = """
    http_proxy HTTPS_PROXY all_proxy no_proxy SSL_CERT_FILE SSL_CERT_DIR SSLKEYLOGFILE
    REQUESTS_CA_BUNDLE CURL_CA_BUNDLE AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_CA_BUNDLE
    AWS_PROFILE PYTHONPATH PYTHONSTARTUP LD_PRELOAD PATH HOME XDG_CACHE_HOME TMPDIR HF_ENDPOINT
    HF_HOME RAY_ADDRESS FSSPEC_S3_ENDPOINT_URL GOOGLE_APPLICATION_CREDENTIALS
    GOOGLE_API_USE_MTLS OPENAI_CUSTOM_HEADERS OMEGACONF_MAX_YAML_EXPANDED_NODES BROWSER TERM
    NETRC
"""


@pytest.mark.usefixtures("clean")
def test_nothing_else_gets_into_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept_out = KEPT_OUT.split()
    for name in kept_out:
        os.environ.pop(name, None)
    (tmp_path / ".env").write_text("".join(f"{name}=/evil\n" for name in kept_out) + "DF_MODEL=m\n")
    before = dict(os.environ)
    read_env_files([str(tmp_path)])
    assert dict(os.environ) == {**before, "DF_MODEL": "m"}
    assert os.environ.get("http_proxy") is None
    read_env_files([str(tmp_path)])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"Warning: {tmp_path}/.env does not set http_proxy, HTTPS_PROXY, ")
    assert "a .env may set DF_*" in line


@pytest.mark.slow
@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,30}", fullmatch=True))
def test_what_a_dotenv_file_may_set_names_no_part_of_the_machine(name: str) -> None:
    if env_files._SETTABLE.fullmatch(name):
        kinds = (
            "DF_",
            "_API_KEY",
            "_API_TOKEN",
            "_BASE_URL",
            "HF_TOKEN",
            "_ID",
            "AZURE_OPENAI_ENDPOINT",
        )
        assert any(kind in name for kind in kinds)
        assert not name.lower().endswith("proxy")
        assert not name.startswith(("AWS_", "PYTHON", "SSL", "LD_")) or name.endswith(
            ("_API_KEY", "_API_TOKEN", "_BASE_URL")
        )


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("name", ["DF_BASE_URL", "DF_API_KEY", "MY_API_KEY"])
def test_nothing_is_filled_in(name: str, tmp_path: Path) -> None:
    """`http://thief/${OPENAI_API_KEY}` would take a key along in the address."""
    (tmp_path / ".env").write_text(f"DF_MODEL=m\n{name}=http://thief/${{OPENAI_API_KEY}}/v1\n")
    with pytest.raises(env_files.SpecError, match=rf"\.env, line 2: {name} holds \${{…}}"):
        read_env_files([str(tmp_path)])
    assert name not in os.environ


@pytest.mark.usefixtures("clean")
def test_a_name_twice_has_its_last_value_and_the_environment_goes_first(tmp_path: Path) -> None:
    os.environ["DF_MODEL"] = "the environment's"
    (tmp_path / ".env").write_text(
        "export DF_API_KEY=\"a\"\nDF_MODEL=m\nDF_API_KEY='b' # which counts\n"
    )
    read_env_files([str(tmp_path)])
    assert (os.environ["DF_API_KEY"], os.environ["DF_MODEL"]) == ("b", "the environment's")


@pytest.mark.slow
def test_two_files_are_two_places(place: Workplace, thief: LoopbackServer, tmp_path: Path) -> None:
    """The stranger's is next to the spec, the user's in the current folder."""
    elsewhere = tmp_path / "mine"
    elsewhere.mkdir()
    (elsewhere / ".env").write_text(f"DF_API_KEY={OWN}\n")
    (place.folder / ".env").write_text(f"DF_BASE_URL={thief.base_url}\nDF_MODEL=m\n")
    done = ended(process(place.arguments(), cwd=elsewhere))
    assert (done.code, thief.received) == (2, 0), done
    assert json.loads(done.out or "{}") == {}


# --- keys that no variable holds, parts of addresses, and where results go


@pytest.mark.slow
@pytest.mark.parametrize(
    "own",
    [
        {"vlm.openai.api_key": OWN},
        {"vlm.openai.api_key": OWN, "vlm.openai.client": "sdk"},
        {"vlm.openai.extra_headers": {"X-Auth-Token": OWN}},
        {"vlm.openai.extra_headers": {"Authorization": f"Bearer {OWN}"}},
        {"vlm.openai.extra_headers": {"Authorization": "Bearer ${oc.env:PLAIN}"}},
        {"vlm.openai.extra_headers": {"X-Plain": OWN}},
    ],
    ids=str,
)
def test_a_key_that_the_spec_states_goes_to_no_address_of_a_dotenv_file(
    own: dict[str, str], place: Workplace, thief: LoopbackServer
) -> None:
    place.settings = {
        "vlm.backend": "openai",
        "vlm.openai.model_name": "m",
        "vlm.box_format": "xyxy_px",
        **own,
    }
    done = run_in(
        place, {"DF_BASE_URL": thief.base_url}, {"PLAIN": OWN} if "PLAIN" in str(own) else {}
    )
    assert (done.code, thief.received) == (2, 0), done
    assert f"DF_BASE_URL is set by {place.folder.resolve()}/.env" in done.err
    assert OWN not in done.err


@pytest.mark.slow
@pytest.mark.parametrize("key", ["EMPTY", "none", "ollama", "lm-studio"])
def test_a_word_in_place_of_a_key_is_none(
    key: str, place: Workplace, thief: LoopbackServer
) -> None:
    place.settings |= {"vlm.backend": "openai", "vlm.openai.api_key": key}
    place.settings["vlm.openai.extra_headers"] = {"X-Title": "My set"}
    done = run_in(place, {"DF_BASE_URL": thief.base_url, **NAMED}, {})
    assert done.code == 0, done


@pytest.mark.slow
@pytest.mark.parametrize(
    "named",
    [
        "http://${oc.env:DF_HOST}:PORT/v1",
        "http://${oc.env:DF_PART}.localhost:PORT/v1",
        "http://127.0.0.1:${oc.env:DF_GATE}/v1",
    ],
)
def test_a_part_of_an_address_draws_no_key_either(
    named: str, place: Workplace, thief: LoopbackServer
) -> None:
    address = named.replace("PORT", str(thief.port))
    place.settings = {
        "vlm.backend": "openai",
        "vlm.openai.base_url": address,
        "vlm.openai.model_name": "m",
    }
    values = {"DF_HOST": "127.0.0.1", "DF_PART": "evil", "DF_GATE": str(thief.port)}
    dotenv = {name: value for name, value in values.items() if name in named}
    done = run_in(place, dotenv, {"DF_API_KEY": OWN})
    assert (done.code, thief.received) == (2, 0), done


@pytest.mark.slow
def test_a_dotenv_file_lets_no_folder_stand_for_an_address(
    place: Workplace, thief: LoopbackServer
) -> None:
    """A results folder with a mark, in a work folder that a stranger names, would be sent to the
    stranger's bucket.
    """
    place.settings |= {
        "vlm.openai.base_url": thief.base_url,
        "vlm.backend": "openai",
        "vlm.openai.model_name": "m",
    }
    place.settings["vlm.box_format"] = "xyxy_px"
    place.results.mkdir()
    stated = {"address": "memory://evil", "part": "", "id": "abcd"}
    (place.results / bucket._MARK).write_text(json.dumps(stated))
    done = run_in(place, {"DF_WORK_FOLDER": str(place.folder)}, {})
    assert done.code == 0, done
    assert "memory://evil" not in done.out + done.err
    assert "does not set DF_WORK_FOLDER" in done.err
