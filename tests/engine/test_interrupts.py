"""An interrupt ends a run wherever it comes from: nothing is sent after it, the lock is held till
then, nothing is paid twice.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import threading
import time
from pathlib import Path

import pytest

from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from tests.support.forking import Forked
from tests.support.waiting import wait_until
from tests.support.workplace import HANGING, REPOSITORY, caption, ended

pytestmark = pytest.mark.slow

COUNT = 24
MINE = """
import sys
from dataflow_grounding import ExpressionExtractor, FileStorage, OpenAIServing, PhraseGrounder, Pipeline


class Mine(Pipeline):
    def __init__(self, url):
        self.storage = FileStorage("in.jsonl", "cache")
        serving = OpenAIServing(url, "loopback", box_format="xyxy_px", max_workers=8)
        self.extractor = ExpressionExtractor(serving)
        self.grounder = PhraseGrounder(serving, check_every=None)

    def forward(self):
        self.extractor.run(self.storage.step())
        self.grounder.run(self.storage.step())


def run(url):
    pipeline = Mine(url)
    pipeline.compile()
    return pipeline.forward()
"""
RAN = {  # a loop without asyncio.run is a notebook's, below
    "asyncio.run": "asyncio.run(cell())",
    "a loop in a thread": "t = threading.Thread(target=lambda: asyncio.run(cell()))\nt.start()\nt.join()",
}
SCRIPT = """
import asyncio, sys, threading
from mine import run

URL = {url!r}


async def cell():
    run(URL)


{how}
sys.exit()
"""


def later(request: ReceivedRequest) -> float:
    """All but the first answers take so long that an interrupt comes meanwhile."""
    return 0.4 if request.index >= 10 else 0.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (64, 48), "navy").save(tmp_path / "a.png")
    rows = [
        {"image_path": "a.png", "image_id": f"r{n}", "caption": caption(n)} for n in range(COUNT)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def finished(folder: Path) -> int:
    lines = (folder / "cache" / "dataflow_cache_step_step2.jsonl").read_text().splitlines()
    return len(lines)


@pytest.mark.parametrize("how", RAN)
def test_one_ctrl_c_ends_it_and_the_same_again_pays_for_nothing_twice(
    folder: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LoopbackServer(latency=later) as server:
        script = SCRIPT.format(url=server.base_url, how=RAN[how])
        running = Forked([], folder, first=script)
        wait_until(lambda: server.count() > 10, running)
        running.send_signal(signal.SIGINT)
        stopped = ended(running)
        assert stopped.code != 0, stopped
        sent = server.count()
        assert sent < 2 * COUNT, "it was still at work"
        graceful = "thread" not in how  # a thread ends with its process, wherever it is
        if graceful:
            assert "Run the same command again" in stopped.err
            assert server.abandoned == 0, "what was in flight was waited for"
        server.latency = 0.0
        monkeypatch.chdir(folder)
        assert runpy.run_path("mine.py")["run"](server.base_url).exit_code == 0
        assert server.count() <= 2 * COUNT + (0 if graceful else 8)
    assert finished(folder) == COUNT


NOTEBOOK = {"first": "from mine import run\nrun({url!r})", "again": "print(run({url!r}))"}


def test_an_interrupted_cell_of_a_notebook_has_ended_and_can_be_run_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}{os.pathsep}{folder}")
    with LoopbackServer(latency=later) as server:
        cells = [
            nbformat.v4.new_code_cell(code.format(url=server.base_url))
            for code in NOTEBOOK.values()
        ]
        notebook = nbformat.v4.new_notebook(cells=cells)
        kernel = {"name": "python3", "display_name": "", "language": "python"}
        notebook.metadata["kernelspec"] = kernel
        there = {"metadata": {"path": str(folder)}}
        client = nbclient.NotebookClient(
            notebook, timeout=HANGING, allow_errors=True, resources=there
        )

        def interrupt() -> None:  # once: a second one ends it without a word
            wait_until(lambda: server.count() > 10)
            os.kill(client.km.provisioner.pid, signal.SIGINT)

        threading.Thread(target=interrupt).start()
        client.execute()
        texts = [json.dumps(cell.outputs) for cell in notebook.cells]
        assert "Run the same command again" in texts[0], texts
        assert f"{COUNT} images: {COUNT} done" in texts[1], texts
        assert server.count() == 2 * COUNT
        assert server.abandoned == 0
    assert finished(folder) == COUNT


def test_a_cancelled_task_ends_a_call_in_memory(folder: Path) -> None:
    """The run is in a thread of its own while the loop that called it stands still."""
    script = """
import asyncio, sys
from dataflow_grounding import OpenAIServing, PhraseGrounder

async def cell():
    serving = OpenAIServing({url!r}, "loopback", box_format="xyxy_px", max_workers=4)
    rows = [dict(image_path="a.png", expressions=[f"cup {{n}}"]) for n in range(40)]
    PhraseGrounder(serving, check_every=None)(rows)

try:
    asyncio.run(cell())
except KeyboardInterrupt:
    print("interrupted")
sys.exit()
"""
    with LoopbackServer(latency=later) as server:
        running = Forked([], folder, first=script.format(url=server.base_url))
        wait_until(lambda: server.count() > 10, running)
        running.send_signal(signal.SIGINT)
        stopped = ended(running)
        assert stopped.out == "interrupted\n", stopped
        assert server.count() < 40


def test_a_second_ctrl_c_does_not_wait_for_a_serving_that_blocks_the_loop(folder: Path) -> None:
    script = """
import sys, time
from dataflow_grounding import PhraseGrounder, Serving

class Blocks(Serving):
    model, box_format = "blocks", "xyxy_px"
    async def answer(self, request):
        print("blocks", flush=True)
        time.sleep(10_000)

try:
    PhraseGrounder(Blocks(), check_every=None)(dict(image_path="a.png", expressions=["cup"]))
except KeyboardInterrupt:
    print("interrupted")
sys.exit()
"""
    running = Forked([], folder, first=script)
    assert running.stdout.readline() == "blocks\n"
    for _ in range(2):
        running.send_signal(signal.SIGINT)
        time.sleep(0.2)  # two at once would be one
    assert ended(running).out == "interrupted\n"
