"""A run takes what it needs: what few runs need is imported where it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.places.workplace import Workplace
from dataflow_grounding.extras.testing import LoopbackServer

pytestmark = pytest.mark.slow

MOST = 120  # of the package, 18 of them `__init__`; lower it where a change saves some
NEEDLESS = (
    "dataflow_grounding.extras",
    "dataflow_grounding.boxes.regions",
    "dataflow_grounding.trust.calibration_file",
    "dataflow_grounding.data.classes",
    "dataflow_grounding.data.dataframes",
    "dataflow_grounding.engine.results_elsewhere",
    "dataflow_grounding.engine.shard",
    "dataflow_grounding.replies.forms",
    "dataflow_grounding.replies.words",
    "dataflow_grounding.serving.gemini",
    "dataflow_grounding.serving.local",
    "dataflow_grounding.jobs.user_pipeline",
    "dataflow_grounding.operators.box_checker",
    "dataflow_grounding.operators.region_operator",
    "dataflow_grounding.serving._service_tier",
    "dataflow_grounding.spec.user_code",
    "dataflow_grounding.tasks.wording",
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
