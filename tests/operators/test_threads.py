"""Calls from several threads of a process that has imported nothing yet."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace

pytestmark = pytest.mark.slow

SCRIPT = """
import sys, threading
from dataflow_grounding import OpenAIServing, ground

errors = []

def call():
    try:
        ground(sys.argv[1], "a cup", serving=OpenAIServing(sys.argv[2], "loopback", box_format="xyxy_px"))
    except BaseException as error:
        errors.append(repr(error))

threads = [threading.Thread(target=call) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(errors)
"""


def test_the_first_calls_of_a_process_may_come_from_eight_threads(workplace: Workplace) -> None:
    path = workplace.folder / workplace.picture()
    with LoopbackServer() as server:
        line = [sys.executable, "-c", SCRIPT, str(path), server.base_url]
        done = subprocess.run(line, capture_output=True, text=True, cwd=workplace.folder)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done
