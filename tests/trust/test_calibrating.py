"""Runs that begin with a calibration, against a real loopback server."""

from __future__ import annotations

import json
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.trust.calibration_file import (
    cache_path,
    load_calibration,
    prompt_version,
    store_calibration,
    stored_calibration,
)
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import Workplace, command

KEY = "sk-4b1d-very-secret-key"
NAME = "yxyx_1000"


@pytest.fixture
def place(place: Workplace, server: LoopbackServer) -> Workplace:
    """Two records, and a model whose format is unknown."""
    place.settings |= {"vlm.box_format": "auto", "vlm.check_every": None}
    place.many(2)
    server.answers = ProbeModel(NAME)
    return place


def stored(server: LoopbackServer) -> Path:
    return Path(cache_path(server.base_url, "loopback"))


def test_an_unknown_model_is_calibrated_and_its_boxes_are_right(
    place: Workplace, server: LoopbackServer
) -> None:
    done = place.run()
    assert done.code == 0, done
    assert 1 <= server.count() - 2 * 2 <= 4
    assert done.summary["requests"] == server.count()
    assert server.requests[0].task == "phrase_grounding"
    assert "calibrating, with 3 to 11 requests" in done.err
    origin = place.run_json()["box_format"]
    assert origin["name"] == NAME
    assert origin["from"].startswith("calibrated on 20")
    assert "error" in origin["from"]
    # The same model, its format stated, gives the same boxes.
    boxes = [record["expressions"] for record in place.annotations()]
    place.results = place.folder / "stated"
    assert place.run(**{"vlm.box_format": NAME}).code == 0
    assert [record["expressions"] for record in place.annotations()] == boxes


def test_calibrating_once_is_enough(
    place: Workplace, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert place.run().code == 0
    sent = server.count()
    again = place.run()
    assert (again.code, again.summary["already_complete"], server.count()) == (0, True, sent)
    place.many(3)
    assert place.run().code == 0
    assert server.count() == sent + 2  # the new row's two steps
    # Without the user's cache the run goes on in the format that it began with.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    place.many(4)
    assert place.run().code == 0
    assert server.count() == sent + 4
    # Another folder of results, and the cache of another user: it has to be found out again.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a third one"))
    place.results = place.folder / "other"
    place.many(1)
    assert place.run().code == 0
    assert server.count() == sent + 4 + 2 + 4


def test_calibrated_takes_what_is_stored(place: Workplace, server: LoopbackServer) -> None:
    nothing = place.run(**{"vlm.box_format": "calibrated"})
    assert (nothing.code, server.count()) == (2, 0)
    assert "run dataflowgrounding calibrate first" in nothing.err
    assert place.run().code == 0
    sent = server.count()
    assert place.run(**{"vlm.box_format": "calibrated"}).code == 0
    assert server.count() == sent
    assert place.run_json()["box_format"]["name"] == NAME


def alternating(request: ReceivedRequest, phrase: str) -> str:
    return "xyxy_1000" if request.index % 2 else "xyxy_px"


@pytest.mark.parametrize(
    ("model", "most"),
    [
        pytest.param(ProbeModel("xyxy_1000", blind=True), 3, id="boxes anywhere"),
        pytest.param(ProbeModel(alternating), 11, id="two formats, by the request"),
        pytest.param(lambda request: {"objects": []}, 1, id="nothing found"),
        pytest.param(lambda request: "I am sorry, I see rectangles.", 1, id="no boxes at all"),
    ],
)
def test_where_it_is_not_clear_nothing_is_run(
    place: Workplace, server: LoopbackServer, model: Any, most: int
) -> None:
    server.answers = model
    done = place.run()
    assert done.code == 2, done
    assert 1 <= server.count() <= most
    assert not stored(server).exists()
    assert "vlm.box_format" in done.err
    assert "896x672" in done.err
    assert len(done.err.strip().splitlines()) == 2
    assert not (place.results / "annotations.jsonl").exists()


@pytest.mark.parametrize("arguments", [["check"], ["generate", "--dry-run"]])
def test_check_and_dry_run_say_so_and_send_nothing(
    place: Workplace, server: LoopbackServer, arguments: list[str]
) -> None:
    done = command([*arguments, "-e", str(place.spec())])
    assert (done.code, server.count()) == (0, 0)
    assert "3 to 11 requests" in done.out


def test_no_key_is_stored(place: Workplace, server: LoopbackServer) -> None:
    server.key = KEY
    address = server.base_url.replace("http://", f"http://user:{KEY}@")
    assert place.run(**{"vlm.openai.api_key": KEY}).code == 0
    assert cache_path(address, "loopback") == str(stored(server))
    assert KEY not in stored(server).read_text()
    assert json.loads(stored(server).read_text())["prompt"] == prompt_version()
    assert not [path for path in stored(server).parent.iterdir() if path.name.startswith(".")]


def test_a_cache_that_cannot_be_written_is_told(
    place: Workplace, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    done = place.run()
    assert done.code == 0, done
    assert "can't be saved" in done.err
    sent = server.count()
    place.many(3)
    assert place.run().code == 0  # the run's own copy
    assert server.count() == sent + 2


def test_what_cannot_be_written_counts_before_an_older_file(
    place: Workplace, server: LoopbackServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run().code == 0
    earlier = load_calibration(str(stored(server)), server.base_url, "loopback")
    assert earlier is not None
    later = replace(earlier, box_format="xyxy_1", date="2999-01-01T00:00:00Z")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # no file can grow
    try:
        assert store_calibration(later) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "can't be saved" in capsys.readouterr().err
    found = stored_calibration(earlier.endpoint, "loopback")
    assert found is not None
    assert found.box_format == "xyxy_1"


def test_the_budget_counts_the_calibration(place: Workplace, server: LoopbackServer) -> None:
    place.many(5)
    done = place.run(**{"workflow.max_requests": 7})
    assert (done.code, server.count()) == (3, 7)
