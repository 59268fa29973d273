"""What a record costs, counted and not timed: calls of the package's own functions in a run that is
always the same.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import FrameType

import pytest

import dataflow_grounding
from dataflow_grounding import FileStorage, OpenAIServing, PhraseGrounder
from dataflow_grounding._util.loop_thread import loop_thread
from dataflow_grounding.data.rows import write_rows
from dataflow_grounding.testing import CannedAnswers, LoopbackServer

pytestmark = pytest.mark.slow

PACKAGE = str(Path(dataflow_grounding.__file__).parent)
PICTURE = Path(PACKAGE).parent / "example_data" / "images" / "cat.jpg"
RECORDS = 40
CALLS = 780
"""Of the package's functions for a record. Lower it where a change saves some; none may add a
tenth.
"""
PHRASES = ["wooden table", "mug"]
OBJECTS = [{"id": 1, "label": "wooden table", "bbox_2d": [0, 520, 1000, 980], "score": 0.9}]
OBJECTS += [{"id": 2, "label": "mug", "bbox_2d": [100, 120, 300, 420], "score": 0.8}]


def storage_in(folder: Path, records: int) -> FileStorage:
    """Rows of that many pictures, no two of which have the same bytes."""
    folder.mkdir()
    data, rows = PICTURE.read_bytes(), []
    for number in range(records):
        path = folder / f"{number:03}.jpg"
        # a comment behind the start marker
        path.write_bytes(data[:2] + b"\xff\xfe\x00\x0a%08d" % number + data[2:])
        os.utime(path, (10**9, 10**9))  # of a picture that may still change less is remembered
        rows.append({"image_path": str(path), "expressions": PHRASES})
    write_rows(str(folder / "rows.jsonl"), rows)
    return FileStorage(str(folder / "rows.jsonl"), str(folder / "cache"))


def calls_of_run(folder: Path, records: int) -> int:
    """How often functions of the package are called on this thread and on that of the loop, while
    it runs; the server's is another one.
    """
    calls = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    storage = storage_in(folder, records)
    with LoopbackServer(CannedAnswers(json.dumps({"objects": OBJECTS}))) as server:
        serving = OpenAIServing(
            server.base_url, "loopback", api_key="k", max_workers=4, box_format="qwen3-vl"
        )
        grounder = PhraseGrounder(serving, check_every=None)  # checks' pictures are drawn by lot
        loop = loop_thread().loop
        loop.call_soon_threadsafe(sys.setprofile, count)
        sys.setprofile(count)
        try:
            grounder.run(
                storage.step(), input_image_key="image_path", input_expressions_key="expressions"
            )
        finally:
            sys.setprofile(None)
            loop.call_soon_threadsafe(sys.setprofile, None)
    return calls


def test_a_record_takes_no_more_calls_than_it_did(tmp_path: Path) -> None:
    calls_of_run(tmp_path / "first", 1)  # what is made when it is first used
    start = calls_of_run(tmp_path / "start", 1)
    a_record = (calls_of_run(tmp_path / "run", RECORDS + 1) - start) / RECORDS
    assert a_record <= 1.1 * CALLS, f"{a_record:.0f} calls, and {CALLS} were enough"
