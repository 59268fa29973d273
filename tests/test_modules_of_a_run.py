"""A run takes what it needs: what few runs need is imported where it is used."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.places.workplace import Workplace
from dataflow_grounding.extras.testing import LoopbackServer

MOST = 147  # of the package; 203 before rare shapes, inputs and servings came out
NEEDLESS = (
    "dataflow_grounding.extras.scale",
    "dataflow_grounding.replies._any_shape",
    "dataflow_grounding.serving.gemini",
    "dataflow_grounding.serving.local",
    "dataflow_grounding.extras.formats.inputs",
    "dataflow_grounding.jobs.user_pipeline",
    "dataflow_grounding.operators.box_checker",
)
SCRIPT = """
import sys
from dataflow_grounding.cli.main import main
try:
    main()
finally:
    print(*(name for name in sys.modules if name.startswith("dataflow_grounding")), sep="\\n")
"""


def test_a_run_of_a_spec_imports_what_it_needs(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.settings["vlm.openai.base_url"] = server.base_url
    workplace.many(3)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *workplace.arguments()],
        capture_output=True,
        text=True,
        check=True,
    )
    modules = [line for line in done.stdout.splitlines() if line.startswith("dataflow_grounding")]
    assert [name for name in modules if name.startswith(NEEDLESS)] == []
    assert len(modules) <= MOST, len(modules)
