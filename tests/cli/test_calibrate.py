"""`calibrate`: what it prints, stores, draws and refuses."""

from __future__ import annotations

import json
from pathlib import Path

from dataflow_grounding.testing import LoopbackServer
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import Workplace, command


def test_it_names_the_format_and_stores_it(workplace: Workplace, server: LoopbackServer) -> None:
    server.answers = ProbeModel("yxyx_100")
    address = ["--base-url", server.base_url, "--model", "loopback"]
    settings = {"vlm.box_format": "calibrated"}
    done = command(["calibrate", "--json", "-e", str(workplace.spec(**settings))])
    assert done.code == 0, done
    assert server.count() == 6  # three, and as many in shapes that a run may send
    found = done.summary
    told = (found["box_format"], found["model"], found["requests"])
    assert told == ("yxyx_100", "loopback", 6)
    assert 0 < found["error_px"] < 20
    assert json.loads(Path(found["stored"]).read_text())["box_format"] == "yxyx_100"
    said = command(["calibrate", *address])
    assert said.out.startswith("loopback writes yxyx_100: error ")
    assert server.count() == 12  # asked again: that is what it is for
    workplace.many(1)
    run = workplace.run(**settings)
    # a check with its picture, and its question twice
    assert (run.code, server.count()) == (0, 14)


def test_a_key_in_the_place_of_spec_and_address_is_asked_for(tmp_path: Path) -> None:
    for arguments, expected in [
        ([], "no endpoint: give a spec"),
        (["-e", "a.yaml", "--model", "b"], "either a spec"),
        (["--base-url", "http://127.0.0.1:9/v1"], "no model is named"),
        (["--base-url", "http://127.0.0.1:9/v1", "--model", "b", "vlm.x=1"], "vlm.x=1"),
    ]:
        done = command(["calibrate", *arguments])
        assert (done.code, expected in done.err) == (2, True), done


def test_the_embedded_grounder_has_nothing_to_calibrate(workplace: Workplace) -> None:
    done = command(["calibrate", "-e", str(workplace.spec(**{"vlm.backend": "embedded"}))])
    assert (done.code, "nothing to calibrate" in done.err) == (2, True)


def test_an_unclear_answer_exits_with_2_and_says_what_it_saw(server: LoopbackServer) -> None:
    server.answers = ProbeModel("xyxy_1000", blind=True)
    done = command(["calibrate", "--base-url", server.base_url, "--model", "m"])
    assert done.code == 2
    assert "vlm.box_format" in done.err
    assert "12 of 12 boxes, numbers from" in done.err
    assert len(done.err.strip().splitlines()) == 1
