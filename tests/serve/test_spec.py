"""What a spec says holds for `serve`, too: check, addresses, words, the watch, replies of runs."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.testing import LoopbackServer
from tests.support.served import Served, paid_for
from tests.support.waiting import wait_until
from tests.support.workplace import command

pytestmark = pytest.mark.slow

SPEC = """
results_dir: results
autolabel_type: image_grounding
image_grounding:
  vlm:
    backend: openai
    box_format: {box_format}
    openai: {{base_url: "{base_url}", model_name: stand-in, api_key: none}}
  workflow: {workflow}
  data: {data}
"""
DATA = '{input_jsonl: "rows.jsonl"}'


def spec_in(
    folder: Path,
    endpoint: LoopbackServer,
    workflow: str = "{}",
    data: str = DATA,
    box_format: str = "xyxy_px",
) -> str:
    path = folder / "spec.yaml"
    path.write_text(
        SPEC.format(base_url=endpoint.base_url, workflow=workflow, data=data, box_format=box_format)
    )
    return str(path)


def test_what_a_run_has_paid_for_is_answered(
    tmp_path: Path, pictures: Path, endpoint: LoopbackServer
) -> None:
    rows = [{"image_path": f"{number}.png"} for number in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = '{input_jsonl: "rows.jsonl", image_root: pictures, classes: [a cup, a dog]}'
    spec = spec_in(tmp_path, endpoint, data=data)
    done = command(["generate", "-e", spec, "--no-report", "--no-progress"])
    assert done.code == 0, done
    before = paid_for(endpoint)
    record = json.loads((tmp_path / "results/annotations.jsonl").read_text().splitlines()[2])
    with Served(tmp_path, "-e", spec, "--root", str(pictures)) as served:
        answer = served.ground("2.png", "a cup", "a dog")
        assert paid_for(endpoint) == before
        served.ground("2.png", "a bird")
        assert paid_for(endpoint) == before + 1
    boxes = [one["instances"][0]["bbox"] for one in record["expressions"]]
    assert [one["instances"][0]["bbox"] for one in answer.body["expressions"]] == boxes


def test_boxes_are_checked_where_the_spec_says_so(
    tmp_path: Path, pictures: Path, endpoint: LoopbackServer
) -> None:
    workflow = "{check: true, guidance: Look twice.}"
    spec = spec_in(tmp_path, endpoint, workflow)
    with Served(tmp_path, "-e", spec, "--root", str(pictures)) as served:
        answer = served.ground("2.png", "a cup")
    assert endpoint.by_task["box_check"] > 0
    [expression] = answer.body["expressions"]
    assert "verified" in json.dumps(expression)
    asked = [one for one in endpoint.requests if one.task == "phrase_grounding"]
    assert any("Look twice." in one.system + one.text for one in asked)


def test_no_step_takes_another_picture_for_the_one_that_was_asked_about(
    tmp_path: Path, endpoint: LoopbackServer
) -> None:
    picture = tmp_path / "0.png"
    endpoint.latency = 0.5
    spec = spec_in(tmp_path, endpoint, "{check: true}")
    with Served(tmp_path, "-e", spec, "--root", str(tmp_path)) as served:
        Image.new("RGB", (320, 240), "red").save(picture)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(served.ground, "0.png", "a cup")
            wait_until(lambda: endpoint.by_task["phrase_grounding"] == 1)
            Image.new("RGB", (640, 480), "blue").save(picture)
            changed = first.result()
        assert (changed.status, "changed" in changed.body["error"]) == (503, True)
        record = served.ground("0.png", "a cup").body
    assert (record["width"], record["height"]) == (640, 480)
    assert "verified" in json.dumps(record)


@pytest.fixture
def web(pictures: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(pictures)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_addresses_are_fetched_from_named_hosts_alone(
    tmp_path: Path, endpoint: LoopbackServer, web: str
) -> None:
    data = f'{{input_jsonl: "rows.jsonl", allow_hosts: ["{web}"]}}'
    with Served(tmp_path, "-e", spec_in(tmp_path, endpoint, data=data)) as served:
        answers = [
            served.post("/ground", {"image_url": address, "phrases": ["a cup"]})
            for address in (f"http://{web}/1.png", f"http://{web}/no.png", "http://127.0.0.1:9/a")
        ]
    assert [answer.status for answer in answers] == [200, 400, 400]
    assert answers[0].body["width"] == 320
    assert "it answered 404" in answers[1].body["error"]
    assert "not one of data.allow_hosts" in answers[2].body["error"]


def test_boxes_in_another_format_stop_the_service(
    tmp_path: Path, pictures: Path, endpoint: LoopbackServer
) -> None:
    spec = spec_in(tmp_path, endpoint, box_format="yxyx_1000")
    with Served(tmp_path, "-e", spec, "--root", str(pictures)) as served:
        answers = [served.ground("1.png", "a cup"), served.ground("2.png", "a cup")]
    assert [answer.status for answer in answers] == [503, 503]
    assert "yxyx_1000" in answers[0].body["error"]


def test_an_unknown_format_is_measured_by_the_first_picture(
    tmp_path: Path, pictures: Path, variables: dict[str, Any]
) -> None:
    variables["DF_BOX_FORMAT"] = ""
    with Served(tmp_path, "--root", str(pictures), **variables) as served:
        before = served.get("/versions").body["versions"]
        for size in ((320, 240), (128, 80), (144, 88)):  # of pixels, each size is measured
            Image.new("RGB", size, "navy").save(pictures / "1.png")
            answer = served.ground("1.png", "a cup")
            assert answer.status == 200, answer
        after = served.get("/versions").body["versions"]
    assert before == ["stand-in (box format not known yet)"]
    assert after == ["stand-in xyxy_px@measured"]


def test_addresses_that_never_answer_hold_up_no_other_picture(
    tmp_path: Path, endpoint: LoopbackServer, pictures: Path
) -> None:
    count = 20  # where eight have a turn
    with socket.create_server(("127.0.0.1", 0), backlog=count) as silent:
        silent.settimeout(60)
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        spec = spec_in(tmp_path, endpoint, "{max_workers: 4}")
        options = ("-e", spec, "--root", str(pictures), "--allow-host", host)
        with Served(tmp_path, *options) as served, ThreadPoolExecutor(count) as pool:
            body = {"image_url": f"http://{host}/0.png", "phrases": ["a cup"]}
            silence = [pool.submit(served.post, "/ground", body) for _ in range(count)]
            connections = [silent.accept()[0] for _ in range(count)]  # all are asked side by side
            assert served.ground("0.png", "a cup").status == 200
            silent.close()
            for connection in connections:
                connection.close()
            assert {answer.result().status for answer in silence} == {400}


RUN = "results_dir: results\nimage_grounding:\n  vlm: {backend: embedded}\n"
LINE = "^Error: .*spec.yaml, line"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (RUN.replace("results_dir", "result_dir"), "results_dir is missing"),
        (RUN + "  data: {alow_hosts: [a.com]}\n", "data.alow_hosts is not a key of the spec"),
        (RUN + "  data: []\n", f"{LINE} 4: image_grounding.data "),
        ("image_region_caption: {vlm: {backend: embedded}}\n", "no block image_grounding"),
    ],
)
def test_a_wrong_spec_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(text)
    with pytest.raises(AssertionError, match=sentence):
        Served(tmp_path, "-e", str(spec))


@pytest.mark.parametrize("name", ["2026_11_28", "a {x} ${y} #1"])
def test_results_may_be_named_by_an_option(tmp_path: Path, name: str) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("image_grounding: {vlm: {backend: embedded}}\n")
    with Served(tmp_path, "-e", str(spec), "results_dir=no", "--results", name) as served:
        code, said = served.end()
    assert code == 0
    assert f"replies are kept in {name}." in said
    assert (tmp_path / name / ".ckpt").is_dir()
    assert not (tmp_path / "no").exists()


def test_what_a_run_reads_may_be_left_open(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        RUN + "  workflow: {steps: ['0', '1'], negatives: 3}\n"
        "  data: {input_jsonl: '???', proposals: '${oc.env:NOBODY_SETS_THIS}'}\n"
    )
    with Served(tmp_path, "-e", str(spec)) as served:
        assert served.get("/health").status == 200
