"""Processes that tests fork from one that has imported the command line are like those that begin
anew.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.warm import WarmProcess
from tests.support.workplace import Workplace, ended, process

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all processes begin anew"),
]


def test_folder_environment_streams_and_exit_code_are_its_own(workplace: Workplace) -> None:
    workplace.many(2)
    with LoopbackServer(key="sk-mine") as server:
        workplace.settings["vlm.openai.base_url"] = server.base_url
        workplace.settings["data.input_jsonl"] = workplace.input.name  # from the folder it is in
        running = workplace.start(env={"DF_API_KEY": "sk-mine"})
        assert isinstance(running, WarmProcess)
        assert ended(running).code == 0
        assert len(workplace.annotations()) == 2
        wrong = ended(workplace.start("--force"))
    assert wrong.code == 2
    assert wrong.out == ""
    assert "No such option '--force'" in wrong.err


def test_it_is_forked_also_where_opencv_or_ray_was_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As they are imported, they set LD_LIBRARY_PATH and PYTHONBREAKPOINT. Another value of the
    first is started from nothing.
    """
    monkeypatch.setenv("PYTHONBREAKPOINT", "ray.util.rpdb._driver_set_trace")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/venv/site-packages/cv2/../../lib64:")
    running = process(["--version"])
    assert isinstance(running, WarmProcess)
    assert ended(running).code == 0
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    running = process(["--version"])
    assert not isinstance(running, WarmProcess)
    assert ended(running).code == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it_alone(workplace: Workplace, number: signal.Signals) -> None:
    with LoopbackServer(latency=0.1) as server:
        workplace.settings["vlm.openai.base_url"] = server.base_url
        workplace.many(20)
        running, bystander = workplace.start(), process(["--version"])
        while server.count() < 5:
            assert running.poll() is None
        running.send_signal(number)
        code = ended(running).code
        assert ended(bystander).code == 0
        assert code == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert ended(workplace.start()).code == 0


def test_what_is_read_as_an_interpreter_begins_begins_one(workplace: Workplace) -> None:
    options: list[dict[str, Any]] = [
        {"env": {"LC_ALL": "C"}},
        {"env": {"PYTHONHASHSEED": "7"}},
        {"env": {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), sys.path[0]])}},
        {"preexec_fn": lambda: None},
    ]
    for each in options:
        running = process(["--version"], **each)
        assert not isinstance(running, WarmProcess)
        ended(running)
