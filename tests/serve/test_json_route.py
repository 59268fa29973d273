"""`serve` and its plain route: a picture and phrases in, the record out."""

from __future__ import annotations

import base64
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.testing import LoopbackServer
from tests.support.served import Served, paid_for
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow


def test_a_picture_comes_in_three_ways_and_is_paid_once(
    tmp_path: Path, pictures: Path, endpoint: LoopbackServer, variables: dict[str, Any]
) -> None:
    data = (pictures / "1.png").read_bytes()
    encoded = base64.b64encode(data).decode()
    with Served(tmp_path, "--root", str(pictures), **variables) as served:
        by_path = served.ground("1.png", "a cup")
        by_base64 = served.post("/ground", {"image": encoded, "phrases": ["a cup"]})
        by_address = served.post(
            "/ground", {"image": f"data:image/png;base64,{encoded}", "phrases": "a cup"}
        )
    answers = [by_path, by_base64, by_address]
    assert [answer.status for answer in answers] == [200] * 3
    boxes = [answer.body["expressions"][0]["instances"][0]["bbox"] for answer in answers]
    assert boxes == [boxes[0]] * 3
    record = by_path.body
    assert (record["image_path"], record["width"], record["height"]) == ("1.png", 320, 240)
    assert record["expressions"][0]["text"] == "a cup"
    assert paid_for(endpoint) == 1


def put_picture(path: Path, color: str) -> None:
    """Write a picture, as large and as old as any other that this writes."""
    Image.new("RGB", (64, 48), color).save(path)
    os.utime(path, (1_700_000_000, 1_700_000_000))


def test_a_picture_that_becomes_a_link_out_of_the_root_is_not_read(
    tmp_path: Path, pictures: Path, variables: dict[str, Any], endpoint: LoopbackServer
) -> None:
    Image.new("RGB", (777, 555)).save(tmp_path / "secret.png")
    endpoint.latency = 1.0
    spec = tmp_path / "spec.yaml"
    spec.write_text("image_grounding: {vlm: {backend: auto}, workflow: {max_workers: 1}}\n")
    options = ("-e", str(spec), "--results", "results", "--root", str(pictures))
    with Served(tmp_path, *options, **variables) as served, ThreadPoolExecutor(3) as pool:
        for number in (2, 3):  # which have both turns
            pool.submit(served.ground, f"{number}.png", "a cup")
        wait_until(lambda: paid_for(endpoint) == 1)
        late = pool.submit(served.ground, "0.png", "a cup")
        time.sleep(0.3)  # nothing shows from outside that it waits for a turn
        (pictures / "0.png").unlink()
        (pictures / "0.png").symlink_to(tmp_path / "secret.png")
        assert late.result().status == 403, late.result().body


def test_a_picture_that_changes_while_it_is_asked_about_is_another_one(
    tmp_path: Path, variables: dict[str, Any], endpoint: LoopbackServer
) -> None:
    endpoint.latency = 0.5
    options = ("--root", str(tmp_path))
    with Served(tmp_path, *options, **variables) as served, ThreadPoolExecutor(1) as pool:
        put_picture(tmp_path / "0.bmp", "red")
        first = pool.submit(served.ground, "0.bmp", "a cup")
        wait_until(lambda: paid_for(endpoint) == 1)
        put_picture(tmp_path / "0.bmp", "blue")
        assert served.ground("0.bmp", "a cup").status == 200
        put_picture(tmp_path / "0.bmp", "red")
        assert served.ground("0.bmp", "a cup").body == first.result().body
    assert paid_for(endpoint) == 2
