"""Runs that begin with a calibration, against a real loopback server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from dataflow_grounding.trust.calibration_file import (
    cache_path,
    prompt_version,
)
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import Done, Workplace, ended, process

KEY = "sk-4b1d-very-secret-key"
AUTO = {"vlm.box_format": "auto"}


def run(workplace: Workplace, server: LoopbackServer, *arguments: str, **settings: Any) -> Done:
    return workplace.run(*arguments, **{"vlm.openai.base_url": server.base_url, **AUTO, **settings})


def stored(server: LoopbackServer) -> Path:
    return Path(cache_path(server.base_url, "loopback"))


def test_an_unknown_model_is_calibrated_and_its_boxes_are_right(workplace: Workplace) -> None:
    name = "yxyx_1000"
    workplace.many(3)
    with LoopbackServer(ProbeModel(name)) as server:
        done = run(workplace, server)
        assert done.code == 0, done
        assert 1 <= server.count() - 2 * 3 <= 4
        assert done.summary["requests"] == server.count()
        [first] = [r.task for r in server.requests[:1]]
        assert first == "phrase_grounding"
    assert "calibrating, with 3 to 11 requests" in done.err
    origin = workplace.run_json()["box_format"]
    assert origin["name"] == name
    assert origin["from"].startswith("calibrated on 20")
    assert "error" in origin["from"]
    # The same model, its format stated, gives the same boxes.
    boxes = [record["expressions"] for record in workplace.annotations()]
    stated = Workplace(workplace.folder / "stated")
    stated.many(3)
    with LoopbackServer(ProbeModel(name)) as server:
        assert (
            stated.run(**{"vlm.openai.base_url": server.base_url, "vlm.box_format": name}).code == 0
        )
    assert [record["expressions"] for record in stated.annotations()] == boxes


def test_calibrating_once_is_enough(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workplace.many(2)
    with LoopbackServer(ProbeModel("yxyx_1000")) as server:
        assert run(workplace, server).code == 0
        sent = server.count()
        again = run(workplace, server)
        assert (again.code, again.summary["already_complete"], server.count()) == (0, True, sent)
        workplace.many(3)
        assert run(workplace, server).code == 0
        assert server.count() == sent + 2  # the new row's two steps
        # Without the user's cache the run goes on in the format that it began with.
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
        workplace.many(4)
        assert run(workplace, server).code == 0
        assert server.count() == sent + 4
        # Another folder of results, and the cache of another user: it has to be found out again.
        other = Workplace(tmp_path / "other")
        other.many(1)
        assert run(other, server).code == 0
        assert server.count() == sent + 4 + 2 + 4


def test_calibrated_takes_what_is_stored(workplace: Workplace) -> None:
    workplace.many(2)
    with LoopbackServer(ProbeModel("xywh_1")) as server:
        nothing = run(workplace, server, **{"vlm.box_format": "calibrated"})
        assert (nothing.code, server.count()) == (2, 0)
        assert "run dataflowgrounding calibrate first" in nothing.err
        assert run(workplace, server).code == 0
        sent = server.count()
        assert run(workplace, server, **{"vlm.box_format": "calibrated"}).code == 0
        assert server.count() == sent
    assert workplace.run_json()["box_format"]["name"] == "xywh_1"


def alternating(request: ReceivedRequest, phrase: str) -> str:
    return "xyxy_1000" if request.index % 2 else "xyxy_px"


UNCLEAR = {
    "boxes anywhere": (ProbeModel("xyxy_1000", blind=True), 3),
    "two formats, by the request": (ProbeModel(alternating), 11),
    "nothing found": (lambda request: {"objects": []}, 1),
    "no boxes at all": (lambda request: "I am sorry, I see rectangles.", 1),
}


@pytest.mark.parametrize("what", list(UNCLEAR))
def test_where_it_is_not_clear_nothing_is_run(workplace: Workplace, what: str) -> None:
    model, most = UNCLEAR[what]
    workplace.many(2)
    with LoopbackServer(model) as server:
        done = run(workplace, server)
        assert done.code == 2, done
        assert 1 <= server.count() <= most
        assert not stored(server).exists()
    assert "vlm.box_format" in done.err
    assert "896x672" in done.err
    assert len(done.err.strip().splitlines()) == 2
    assert not (workplace.results / "annotations.jsonl").exists()


def test_check_and_dry_run_say_so_and_send_nothing(workplace: Workplace) -> None:
    from tests.support.workplace import command

    workplace.many(2)
    with LoopbackServer(ProbeModel("xyxy_1")) as server:
        spec = str(workplace.spec(**{"vlm.openai.base_url": server.base_url, **AUTO}))
        for arguments in (["check", "-e", spec], ["generate", "--dry-run", "-e", spec]):
            done = command(arguments)
            assert (done.code, server.count()) == (0, 0)
            assert "3 to 11 requests" in done.out


def test_no_key_is_stored(workplace: Workplace) -> None:
    workplace.many(1)
    with LoopbackServer(ProbeModel("yxyx_1000"), key=KEY) as server:
        address = server.base_url.replace("http://", f"http://user:{KEY}@")
        assert run(workplace, server, **{"vlm.openai.api_key": KEY}).code == 0
        assert cache_path(address, "loopback") == str(stored(server))
        assert KEY not in stored(server).read_text()
        assert json.loads(stored(server).read_text())["prompt"] == prompt_version()
    assert not [path for path in stored(server).parent.iterdir() if path.name.startswith(".")]


def test_a_cache_that_cannot_be_written_is_told(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    workplace.many(1)
    with LoopbackServer(ProbeModel("yxyx_1000")) as server:
        done = run(workplace, server)
        assert done.code == 0, done
        assert "can't be saved" in done.err
        sent = server.count()
        workplace.many(2)
        assert run(workplace, server).code == 0  # the run's own copy
        assert server.count() == sent + 2


ON_A_FULL_DISK = """
import resource
from dataclasses import replace
from dataflow_grounding.trust.calibration_file import (
    load_calibration, store_calibration, stored_calibration
)
earlier = load_calibration({path!r}, {address!r}, "loopback")
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # no file can grow
later = replace(earlier, box_format="xyxy_1", date="2999-01-01T00:00:00Z")
assert store_calibration(later) is None
print(stored_calibration(earlier.endpoint, "loopback").box_format)
"""


def test_what_cannot_be_written_counts_before_an_older_file(workplace: Workplace) -> None:
    workplace.many(1)
    with LoopbackServer(ProbeModel("yxyx_1000")) as server:
        assert run(workplace, server).code == 0
        code = ON_A_FULL_DISK.format(path=str(stored(server)), address=server.base_url)
    done = ended(process(["--version"], first=code))
    assert done.out.startswith("xyxy_1\n"), done
    assert "can't be saved" in done.err


def test_the_budget_counts_the_calibration(workplace: Workplace) -> None:
    workplace.many(5)
    with LoopbackServer(ProbeModel("yxyx_1000")) as server:
        done = run(workplace, server, **{"workflow.max_requests": 7})
        assert (done.code, server.count()) == (3, 7)
