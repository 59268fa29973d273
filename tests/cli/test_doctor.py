"""`doctor`, `completion`, and what a pilot tells."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dataflow_grounding import Serving
from dataflow_grounding.cli.main import main
from dataflow_grounding.jobs.diagnosis import endpoint_of
from dataflow_grounding.tasks import Request
from dataflow_grounding.testing import (
    CannedAnswers,
    EchoAnswers,
    LoopbackServer,
    ReceivedRequest,
    on,
)
from tests.support import faults
from tests.support.endpoint import with_settings
from tests.support.forking import Forked
from tests.support.takes import Takes
from tests.support.workplace import REPOSITORY, Done, Workplace, command, ended, process

KEY = "sk-doctor-secret"
FORM = "reply_form"  # the task of the question whose schema a free answer breaks


def test_what_is_installed_and_which_keys_are_set_but_not_their_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    done = command(["doctor"])
    assert done.code == 0, done
    assert "OPENAI_API_KEY: set" in done.out
    assert re.search(r"^not set: .*\bGOOGLE_API_KEY\b", done.out, re.MULTILINE), done.out
    assert "extra gemini: " in done.out
    assert KEY not in done.out + done.err
    found = command(["doctor", "--json"]).summary
    assert found["environment"]["OPENAI_API_KEY"] is True
    assert set(found["extras"]) >= {"gemini", "parquet"}


def test_every_extra_of_the_package_is_looked_for() -> None:
    text = (REPOSITORY / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    # one that is empty is an old name; two are for who works on the package or its pages
    extras = set(re.findall(r"^(\w+) = \[[^\]]", section, re.MULTILINE)) - {"dev", "docs"}
    assert set(command(["doctor", "--json"]).summary["extras"]) == extras


@pytest.mark.slow
def test_an_extra_that_is_missing_is_named_with_what_to_install() -> None:
    without = (
        "import importlib.metadata as m; version = m.version\n"
        "def without(name):\n"
        "    if name == 'google-genai': raise m.PackageNotFoundError(name)\n"
        "    return version(name)\n"
        "m.version = without"
    )
    done = ended(Forked(["doctor"], env={}, first=without))
    start = "optional, not installed: "
    [line] = [line for line in done.out.splitlines() if line.startswith(start)]
    names, _, how = line.removeprefix(start).partition(". ")
    assert names.split(", ")[0] == "gemini"
    assert how.endswith("to add one: pip install 'dataflow-grounding[gemini]'")


SCHEMA = "response_format json_schema"
TAKES = [
    (Takes(), f"{SCHEMA}, max_tokens, a system message, temperature"),
    (Takes(response_formats=("json_object",)), "response_format json_object, max_tokens"),
    (Takes(response_formats=()), "no response_format"),
    (Takes(max_completion_tokens=True), f"{SCHEMA}, max_completion_tokens"),
    (
        Takes(system_messages=False, temperature=False),
        f"{SCHEMA}, max_tokens, no system message, no temperature",
    ),
]


def asked(place: Workplace, *arguments: str, code: int = 0, **settings: Any) -> Done:
    """How `doctor` ends that asks the endpoint of a spec."""
    done = command(["doctor", *arguments, "-e", str(place.spec(**settings))])
    assert done.code == code, done
    return done


@pytest.mark.parametrize(("takes", "said"), TAKES, ids=[said for _, said in TAKES])
def test_what_an_endpoint_takes(
    workplace: Workplace, server: LoopbackServer, takes: Takes, said: str
) -> None:
    server.takes = takes
    told = asked(workplace).out
    assert server.count(200) == 2
    assert server.count() <= 7
    assert f"accepts: {said}" in told
    assert "reply: as asked for" in told
    assert "tokens: " in told
    assert not workplace.results.exists()


def schema_in(told: str) -> list[str]:
    """What `doctor` says of the schema."""
    start = "schema: "
    return [line.removeprefix(start) for line in told.splitlines() if line.startswith(start)]


def written(form: str) -> Callable[[ReceivedRequest], str | dict[str, Any]]:
    """Answers whose JSON is written like this where a schema is asked for."""
    invented = EchoAnswers()

    def answers(request: ReceivedRequest) -> str | dict[str, Any]:
        answer = invented(request)
        return form.format(json.dumps(answer)) if request.task == FORM else answer

    return answers


IN_PROSE = written("Here is what I found:\n```json\n{}\n```\nLet me know if you need more.")
FREE = "ignored or refused: a reply came as free text"
OTHER_JSON = "not kept: a reply came as JSON of another form"
NOT_KNOWN = "not known: .*"
SCHEMAS: dict[str, tuple[dict[str, Any], str]] = {
    "kept": ({}, "kept"),
    "ignored": ({"answers": IN_PROSE}, FREE),
    "not taken": ({"takes": Takes(response_formats=())}, FREE),
    "JSON alone": ({"takes": Takes(response_formats=("json_object",))}, OTHER_JSON),
    "after thoughts": ({"answers": written("<think>One word.</think>{}")}, "kept"),
    "in a fence": ({"answers": written("```json\n{}\n```")}, "kept"),
    "with words": ({"answers": written("Here it is: {}")}, FREE),
    "with more keys": ({"answers": written('{{"word": "blue", "more": {}}}')}, OTHER_JSON),
    "a list": ({"answers": written("[{}]")}, OTHER_JSON),
}
FAULTS = {
    "a fault": (faults.server_error(), f"{NOT_KNOWN}answered 500: The server had an error.*"),
    "refused": (faults.bad_request("no enum"), f"{NOT_KNOWN}answered 400: no enum.*"),
    "cut off": (faults.truncated(), f"{NOT_KNOWN}the reply was cut off at the token limit.*"),
    "empty": (faults.says(""), f"{NOT_KNOWN}the reply is empty.*"),
    "the model refuses": (faults.refusal("I can't look."), "not known: I can't look."),
}
for name, (fault, said) in FAULTS.items():
    SCHEMAS[name] = ({"faults": on(fault, task=FORM)}, said)


@pytest.mark.parametrize(("served", "said"), SCHEMAS.values(), ids=SCHEMAS)
def test_whether_an_endpoint_keeps_to_a_schema_is_measured(
    workplace: Workplace, server: LoopbackServer, served: dict[str, Any], said: str
) -> None:
    for name, value in served.items():
        setattr(server, name, value)
    [told] = schema_in(asked(workplace).out)
    assert re.fullmatch(said, told), told


def test_each_of_several_endpoints_is_asked(workplace: Workplace, server: LoopbackServer) -> None:
    with LoopbackServer(IN_PROSE) as ignores:
        addresses = [server.base_url, ignores.base_url]
        settings = {"vlm.openai.base_url": "", "vlm.openai.endpoints": addresses}
        found = asked(workplace, "--json", **settings).summary
    assert [part["schema"] for part in found["endpoint"]["endpoints"]] == ["kept", FREE]


def test_only_doctor_asks_about_a_schema(workplace: Workplace, server: LoopbackServer) -> None:
    workplace.many(2)
    assert workplace.run().code == 0
    assert FORM not in server.by_task
    asked(workplace)
    assert server.by_task[FORM] == 1


@pytest.mark.slow
def test_nobody_asks_a_serving_that_answers_certain_tasks_alone_about_a_schema(
    workplace: Workplace,
) -> None:
    told = asked(workplace, **{"vlm.backend": "embedded"}).out
    assert "reply: as asked for" in told
    assert "accepts: " not in told
    assert schema_in(told) == []


class OfOwnTasks(Serving):
    """A serving of the user's own, which knows the shipped tasks."""

    model = "mine"

    async def answer(self, request: Request[Any]) -> str:
        answers = {"expression_extraction": {"cleaned_caption": "A square.", "expressions": []}}
        return json.dumps(answers[request.task])


def test_a_serving_that_fails_at_an_unknown_task_is_no_problem() -> None:
    found = endpoint_of(OfOwnTasks(), send=True)
    assert found["schema"] == f"not known: KeyError: '{FORM}'"
    assert "problems" not in found or not found["problems"]


def test_geminis_endpoint(workplace: Workplace, server: LoopbackServer) -> None:
    pytest.importorskip("google.genai")
    server.answers, server.key = EchoAnswers("gemini"), KEY
    gemini = {"vlm.gemini.api_key": KEY, "vlm.gemini.base_url": server.address}
    workplace.settings = {"vlm.backend": "gemini", **gemini}
    done = asked(workplace, "--json")
    assert server.count() == 2
    endpoint = done.summary["endpoint"]
    assert (endpoint["reply"], endpoint["schema"]) == ("as asked for", "kept")
    assert KEY not in done.out


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param(faults.unauthorized(), "Check the API key", id="wrong key"),
        pytest.param(faults.model_not_found(), "the model's name", id="wrong model"),
    ],
)
def test_an_endpoint_that_refuses(
    workplace: Workplace, server: LoopbackServer, fault: faults.Fault, said: str
) -> None:
    with_settings(server, faults=faults.leaky(on(fault)))
    done = asked(workplace, code=4, **{"vlm.openai.api_key": KEY})
    assert said in done.out
    assert KEY not in done.out + done.err


def test_a_wrong_models_name_is_told_with_those_that_the_endpoint_has(
    workplace: Workplace, server: LoopbackServer
) -> None:
    error = {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}
    server.faults = on(faults.Fault(404, body=json.dumps({"error": error}).encode()))
    many = [f"m{n}" for n in range(30)]
    server.models = ["llava", *many, "Qwen3-VL-8B", "x\x1b[31m" + "y" * 500]
    workplace.settings["vlm.openai.model_name"] = "qwen3-vl-8b"
    out = asked(workplace, code=4).out
    [line] = [line for line in out.splitlines() if line.startswith("Error: ")]
    assert "The model `x` does not exist. Check the address and the model's name." in line
    assert "name. It has Qwen3-VL-8B, llava, m0, " in line
    assert line.endswith(", … (33).")
    assert "\x1b" not in out
    server.models = ["qwen3-vl-8b"]
    assert "It has" not in asked(workplace, code=4).out


@pytest.mark.parametrize("listed", [b'{"data": [7]}', b"[" * 99_999, b" " * 2_000_000])
def test_an_endpoint_without_a_list_of_models_says_no_more_than_before(
    workplace: Workplace, listed: bytes
) -> None:
    class OnlyList(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(listed)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), OnlyList) as server:
        serving = partial(server.serve_forever, poll_interval=0.01)
        threading.Thread(target=serving, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/v1"
        done = asked(workplace, code=4, **{"vlm.openai.base_url": address})
        server.shutdown()
    assert "It has" not in done.out
    assert "Check the address and the model's name.\n" in done.out


def test_a_model_that_answers_something_else_is_a_problem(
    workplace: Workplace, server: LoopbackServer
) -> None:
    server.answers = CannedAnswers("I'd rather talk about the weather.")
    told = asked(workplace, code=1).out
    assert "reply: not readable" in told
    assert "Error: the endpoint works, but the model didn't answer as it was asked to." in told
    assert "use a stronger model" in told


def test_without_an_endpoint_it_says_who_answers() -> None:
    [line] = [line for line in command(["doctor"]).out.splitlines() if "endpoint:" in line]
    assert "set DF_BASE_URL and DF_MODEL" in line
    assert line.endswith("Until then the embedded grounder answers (backend auto)")


def test_an_endpoint_that_isnt_there(workplace: Workplace) -> None:
    workplace.settings["vlm.openai.base_url"] = "http://127.0.0.1:9/v1"
    assert "no connection" in asked(workplace, code=4).out
    asked(workplace, "--offline")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = command(["completion", shell])
    assert done.code == 0
    assert "_DATAFLOWGROUNDING_COMPLETE" in done.out


Completed = Callable[[str], list[str]]


def asked_by_a_shell(words: str) -> dict[str, str]:
    """The variables in which a shell's completion script asks for the last of some words."""
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    return {**asked, "_DATAFLOWGROUNDING_COMPLETE": "bash_complete"}


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch) -> Completed:
    """What is offered for the last of some words."""

    monkeypatch.setattr("sys.argv", ["dataflowgrounding"])

    def offered(words: str) -> list[str]:
        for name, value in asked_by_a_shell(words).items():
            monkeypatch.setenv(name, value)
        out = io.TextIOWrapper(io.BytesIO(), "utf-8")  # click writes bytes
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
            main()
        out.seek(0)
        return [word.removeprefix("plain,") for word in out.read().split()]

    return offered


@pytest.mark.slow
def test_a_shell_gets_what_is_offered_alone() -> None:
    done = ended(process([], env=asked_by_a_shell("dataflowgrounding est")))
    assert (done.out, done.err) == ("plain,estimate\n", "")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("nothing --pi", []),
        ("generate --pi", ["--pilot"]),
        ("export results --format od", ["odvg", "odvg-mmdet", "odvg-tao"]),
        ("import labels --format label", ["label-studio", "labelme"]),
        ("default_specs --endpoint vl", ["vllm"]),
        ("prompts show phrase_grounding_li", ["phrase_grounding_lines", "phrase_grounding_lists"]),
        ("report my_res", ["file,my_res"]),  # the shell completes it as a path
        ("generate -e my_sp", ["file,my_sp"]),
    ],
)
def test_options_formats_names_and_paths_are_completed(
    words: str, offered: list[str], completed: Completed
) -> None:
    assert completed(f"dataflowgrounding {words}") == offered


# --- pilots


def test_a_pilot_says_what_to_look_at_and_how_to_go_on(workplace: Workplace) -> None:
    workplace.many(3)
    line = ["generate", "-e", str(workplace.spec()), "--no-progress", "--no-report"]
    done = command([*line, "--pilot", "2"])
    assert done.code == 0, done
    for said in (
        str(workplace.results / "step_0_expression_extraction" / "annotations.jsonl"),
        "cleaned_caption and expressions",
        str(workplace.results / "step_1_grounding" / "annotations.jsonl"),
        "expressions[].instances",
        "max_tokens",
        "without --pilot continues",
    ):
        assert said in done.err
    assert "Before the full run" not in command(line).err


def test_a_plain_pilot_keeps_to_max_workers(workplace: Workplace, server: LoopbackServer) -> None:
    workplace.many(16)
    server.latency = 0.01
    workplace.settings["workflow.max_workers"] = 3
    assert workplace.run("--pilot", "12").code == 0
    assert server.max_in_flight <= 3
