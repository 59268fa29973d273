"""The command line: messages, exit codes, and what each command leaves behind."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import dataflow_grounding
from dataflow_grounding.cli.main import COMMANDS
from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import HANGING, REPOSITORY, Workplace, command, ended, process


def test_help_is_one_screen_and_begins_with_what_is_used_most() -> None:
    lines = command(["--help"]).out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    headings = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Most used:", "More:", "Options:"]
    assert [lines[lines.index(heading) - 1] for heading in headings] == ["", "", ""]


@pytest.mark.slow
def test_every_command_is_in_the_help_and_has_its_own() -> None:
    whole = command(["--help"]).out
    for name, says in COMMANDS.items():
        assert f"  {name} " in whole
        assert says in whole
        done = command([name, "--help"])
        assert done.code == 0
        assert done.out.startswith(f"Usage: dataflowgrounding {name}")
    version = dataflow_grounding.__version__
    assert command(["--version"]).out == f"dataflowgrounding {version}\n"


WRONG = [
    (["generat"], "'generat' is not a command; is it 'generate'?"),
    (["generate"], "no spec: give one with -e SPEC. `dataflowgrounding init DIR`"),
    (["generate", "-e", "."], "can't read ."),
    (["generate", "-e", "no.yaml", "--frobnicate"], "No such option"),
    (["ground"], "Missing argument 'IMAGE'"),
    (["default_specs", "results=x"], "'results' is not one of autolabel_type"),
    (["default_specs", "results_dir"], "results_dir should have a value: results_dir=VALUE"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_mistakes_are_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command(arguments)
    assert (done.code, done.out) == (2, ""), done
    assert said in done.err
    assert "Traceback" not in done.err
    assert os.listdir(tmp_path) == []


BROKEN = [
    ("a: [1", "spec.yaml, line 2, is not YAML: "),
    ("just a text", "just a text is not a key"),
    ("- a\n- b\n", "mapping"),
    ("", "results_dir is missing"),
    ("results_dir: ${nowhere}\n", "nowhere"),
    ("results_dir: x\nautolabel_type: image_grounding\n", "no block image_grounding"),
    ("results_dir: x\nautolabel_type: image_grounding\nimage_grounding: 3\n", "image_grounding"),
    ("results_dir: x\nresults_dir: y\n", "results_dir"),
    ("a: &a [*a]\n", "a"),
    ("results_dir: !!python/object/apply:os.getcwd []\n", "line 1"),
    ("\tresults_dir: x\n", "line 1"),
    ("results_dir: out\nimage_grounding:\n\tvlm: {}\n", "indent with spaces"),
]


@pytest.mark.parametrize(("text", "said"), BROKEN)
def test_a_broken_spec_is_told_in_a_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    done = command(["generate", "-e", str(tmp_path / "spec.yaml")])
    assert done.code == 2, done
    assert said in done.err
    assert "Traceback" not in done.err
    assert "Internal error" not in done.err


def test_a_full_standard_output_is_told_and_the_results_are_there(workplace: Workplace) -> None:
    workplace.many(3)
    full = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
    done = ended(process(workplace.arguments(), first=full))
    assert done.code == 130
    assert done.err == "Error: can't write to standard output: No space left on device\n"
    assert len(workplace.annotations()) == 3


NOISE = """
import os, threading, time
def print_now_and_then():  # as a library written in C may do
    while True:
        for stream in (1, 2):
            try: os.write(stream, b"noise")
            except OSError: pass
        time.sleep(0.01)
threading.Thread(target=print_now_and_then, daemon=True).start()
"""


def test_closed_streams_end_no_run_and_get_into_no_file(workplace: Workplace) -> None:
    workplace.many(3)
    (workplace.folder / "sitecustomize.py").write_text(NOISE)
    line = [sys.executable, "-m", "dataflow_grounding", *workplace.arguments()]
    env = {**os.environ, "PYTHONPATH": f"{workplace.folder}:{REPOSITORY}"}
    closed = f"{shlex.join(line)} >&- 2>&-"
    assert subprocess.run(["bash", "-c", closed], env=env, timeout=HANGING).returncode == 0
    assert len(workplace.annotations()) == 3
    assert not any(b"noise" in content for _, content in workplace.everything())


@pytest.mark.parametrize(("key", "code"), [("right", 0), ("wrong", 4)])
def test_readers_that_went_away_change_no_exit_code(
    workplace: Workplace, server: LoopbackServer, key: str, code: int
) -> None:
    workplace.many(2)
    server.key = "right"
    running = process(workplace.arguments(**{"vlm.openai.api_key": key}))
    for stream in (running.stdout, running.stderr):
        assert stream
        stream.close()
    assert running.wait(HANGING) == code
    assert len(workplace.annotations()) == (2 if code == 0 else 0)


@pytest.mark.slow
def test_a_closed_pipe_ends_quietly() -> None:
    running = process(["prompts", "list"])
    assert running.stdout
    running.stdout.close()
    assert running.stderr
    assert running.stderr.read() == ""
    assert running.wait(HANGING) == 0


@pytest.mark.slow
def test_text_that_standard_output_can_not_encode_is_written_escaped(tmp_path: Path) -> None:
    arguments = ["default_specs", "results_dir=日", "autolabel_type=image_grounding"]
    latin = "import sys; sys.stdout = sys.__stdout__ = open(1, 'w', encoding='latin-1')"
    done = ended(process(arguments, first=latin, cwd=tmp_path))
    assert (done.code, done.out) == (0, "\\u65e5/image_grounding.yaml\n"), done


def test_debug_shows_where() -> None:
    done = command(["--debug", "generate", "-e", "no.yaml"])
    assert done.code == 2
    assert "Traceback" in done.err
    assert "no spec file no.yaml" in done.err


def test_default_specs_overwrite_nothing(tmp_path: Path) -> None:
    (tmp_path / "image_grounding.yaml").write_text("mine")
    done = command(["default_specs", f"results_dir={tmp_path}", "autolabel_type=image_grounding"])
    assert done.code == 2
    assert "already exists" in done.err
    assert (tmp_path / "image_grounding.yaml").read_text() == "mine"


def test_messages_go_to_stderr_and_data_to_stdout(workplace: Workplace) -> None:
    workplace.many(2)
    done = ended(process(["generate", "-e", str(workplace.spec())]))
    assert (done.code, done.out) == (0, "")
    assert "2 images: 2 done, 0 failed" in done.err
    assert "\x1b" not in done.err, "no control characters where there is no terminal"
    quiet = workplace.run()
    assert json.loads(quiet.out)["already_complete"] is True
    assert quiet.err == ""


@pytest.mark.parametrize(
    "line",
    [
        "export x --format odvg -o y --min-score",
        "eval x --gold y --iou",
        "eval x --gold y --score-cut",
        "generate -e x --budget-usd",
    ],
)
@pytest.mark.parametrize("number", ["nan", "-NaN"])
def test_nan_is_in_no_range(line: str, number: str) -> None:
    done = command(f"{line}={number}".split())
    assert (done.code, f"{number} is not in" in done.err) == (2, True), done.err
