"""Commands under `ulimit -v`, of which 64 threads that wait for stores took more than there was."""

from __future__ import annotations

import resource
from functools import partial
from pathlib import Path

import pytest

from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Workplace, one_after_another

pytestmark = pytest.mark.slow

BYTES = 700 * 2**20


def test_a_limit_of_memory_is_kept_to(
    workplace: Workplace, server: LoopbackServer, tmp_path: Path
) -> None:
    workplace.settings["vlm.openai.base_url"] = server.base_url
    workplace.many(12)
    results, out = str(workplace.results), str(tmp_path / "out")
    lines = [
        workplace.arguments(),
        ["lint", results],
        ["export", results, "--format", "coco", "-o", out],
    ]
    limited = partial(resource.setrlimit, resource.RLIMIT_AS, (BYTES, BYTES))
    for line, done in zip(lines, one_after_another(lines, preexec_fn=limited), strict=True):
        assert done.code == 0, (line, done)
