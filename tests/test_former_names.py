"""Scripts that were copied from version 0.1 import rooms by their names of then."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from dataflow_grounding.extras.review import publish
from dataflow_grounding.extras.formats.base import Format
import dataflow_grounding.extras.testing
import dataflow_grounding
from dataflow_grounding.formats import format as module

assert Format is module.Format is dataflow_grounding.Format
assert publish is dataflow_grounding.publish
assert module.__spec__.name == "dataflow_grounding.formats.format"
assert dataflow_grounding.extras.testing.LoopbackServer
try:
    import dataflow_grounding.extras.nothing
except ModuleNotFoundError as error:
    print(error)
"""


def test_they_find_this_versions_modules() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (
        0,
        "No module named 'dataflow_grounding.nothing'\n",
    ), done.stderr
