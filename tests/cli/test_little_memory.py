"""Commands under `ulimit -v`, of which 64 threads that wait for stores took more than there was."""

from __future__ import annotations

import resource
from functools import partial
from pathlib import Path

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace, ended, process

pytestmark = pytest.mark.slow

BYTES = 700 * 2**20


@pytest.mark.parametrize(
    "command",
    ["generate", "lint", "export"],
    ids=lambda command: f"{command} in 700 MB",
)
def test_a_limit_of_memory_is_kept_to(workplace: Workplace, tmp_path: Path, command: str) -> None:
    with LoopbackServer() as server:
        workplace.settings["vlm.openai.base_url"] = server.base_url
        workplace.many(12)
        assert command == "generate" or workplace.run().code == 0
        results, out = str(workplace.results), str(tmp_path / "out")
        more = {"export": [results, "--format", "coco", "-o", out]}
        line = (
            workplace.arguments()
            if command == "generate"
            else [command, *more.get(command, [results])]
        )
        limited = partial(resource.setrlimit, resource.RLIMIT_AS, (BYTES, BYTES))
        done = ended(process(line, preexec_fn=limited, cwd=workplace.folder), 60)
    assert done.code == 0, done
