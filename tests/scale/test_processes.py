"""`generate --processes N`: what one process leaves, within one process's limits, whoever is
killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.places.store import BUCKET, environment, faulty_store
from benchmarks.places.waiting import wait_until
from benchmarks.places.workplace import Done, Workplace, caption, ended, lives, process
from dataflow_grounding.data.rows import RowWriter
from dataflow_grounding.extras.testing import EchoAnswers, LoopbackServer, faults, on

pytestmark = pytest.mark.slow

STEPS = ("step_0_expression_extraction", "step_1_grounding")
TWO = ("--processes", "2")
WORKER = "process_worker"


def left(results: Path) -> dict[str, bytes]:
    """What a run leaves for its user, bar run.json."""
    names = (
        "annotations.jsonl",
        "failures.jsonl",
        *(f"{step}/annotations.jsonl" for step in STEPS),
    )
    return {name: (results / name).read_bytes() for name in names if (results / name).exists()}


@pytest.fixture
def slow() -> Iterator[LoopbackServer]:
    with LoopbackServer(EchoAnswers(), latency=0.02) as server:
        yield server


def place_at(workplace: Workplace, server: LoopbackServer, rows: int) -> Workplace:
    workplace.settings["vlm.openai.base_url"] = server.base_url
    workplace.many(rows)
    return workplace


def alone(place: Workplace, **settings: Any) -> tuple[dict[str, bytes], int]:
    """What one process leaves, and how many requests it sends."""
    results, place.results = place.results, place.folder / "alone"
    done = place.run(**settings)
    assert done.code in (0, 1), done
    place.results, files = results, left(place.results)
    return files, done.summary["requests"]


def together(place: Workplace, *arguments: str, **settings: Any) -> Done:
    return ended(place.start(*TWO, *arguments, **settings))


def workers_of(driver: subprocess.Popen[str]) -> list[int]:
    """The processes of a driver's workers."""
    listed = subprocess.run(
        ["ps", "-wweo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    lines = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [int(pid) for pid, parent, what in lines if int(parent) == driver.pid and WORKER in what]


def test_two_processes_leave_what_one_does_with_as_many_requests(
    workplace: Workplace, slow: LoopbackServer
) -> None:
    place = place_at(workplace, slow, 60)
    place.rows(
        [
            *place.input.read_text().splitlines(),
            "{broken",
            {"image_path": "gone.jpg", "caption": "A cup."},
        ]
    )
    expected, once = alone(place)
    slow.max_in_flight, before = 0, slow.count()
    driver = place.start(*TWO)
    wait_until(lambda: len(workers_of(driver)) == 2, driver)
    done = ended(driver)
    assert (done.code, done.err) == (1, ""), done
    assert left(place.results) == expected
    assert slow.count() - before == once == done.summary["requests"]
    assert 4 < slow.max_in_flight <= 8
    run = json.loads((place.results / "run.json").read_text())
    assert (run["state"], run["summary"]["requests"]) == ("finished", once)
    again = place.run()
    assert (again.code, again.summary["requests"], left(place.results)) == (1, 0, expected)


def test_a_killed_worker_is_replaced_and_costs_what_was_in_flight(
    workplace: Workplace, slow: LoopbackServer
) -> None:
    place = place_at(workplace, slow, 250)
    expected, once = alone(place)
    before = slow.count()
    driver = place.start(*TWO)
    wait_until(lambda: slow.count() - before > 60, driver)
    os.kill(workers_of(driver)[0], signal.SIGKILL)
    done = ended(driver)
    assert (done.code, done.err) == (0, ""), done
    assert left(place.results) == expected
    assert once <= slow.count() - before <= once + 8


def test_a_killed_driver_leaves_no_worker_and_one_process_goes_on(
    workplace: Workplace, slow: LoopbackServer
) -> None:
    place = place_at(workplace, slow, 200)
    expected, once = alone(place)
    before = slow.count()
    driver = place.start(*TWO)
    wait_until(lambda: slow.count() - before > 60, driver)
    workers = workers_of(driver)
    driver.kill()
    ended(driver)
    wait_until(lambda: not any(map(lives, workers)))
    assert slow.count() - before < once
    assert ended(place.start()).code == 0
    assert left(place.results) == expected
    # a worker that nobody leads finishes what is in flight, and keeps it
    assert slow.count() - before == once


def test_what_killed_workers_left_half_written_goes_when_another_run_has_done_it(
    workplace: Workplace, slow: LoopbackServer
) -> None:
    place = place_at(workplace, slow, 200)
    driver = place.start(*TWO)
    wait_until(lambda: slow.count() > 60, driver)
    workers = workers_of(driver)
    driver.kill()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    ended(driver)
    shards = place.results / "shards"
    assert list(shards.rglob("annotations.jsonl.part"))
    assert list(shards.rglob("failures.jsonl.part"))
    rows = next(shards.rglob("rows.jsonl"))
    rows.with_name("rows.jsonl.part").touch()  # as of a driver that was killed
    kept = sorted(path for path in shards.rglob("*") if path.suffix != ".part")
    of_one_at_work = shards / "1-of-4" / "failures.jsonl"
    with closing(RowWriter(str(of_one_at_work))):
        assert ended(place.start()).code == 0
        assert list(shards.rglob("*.part")) == [of_one_at_work.with_suffix(".jsonl.part")]
    assert set(kept) <= set(shards.rglob("*"))


def test_workers_that_are_done_end_with_a_driver_that_never_hears_of_it(
    workplace: Workplace,
) -> None:
    with LoopbackServer(EchoAnswers(), latency=0.1) as server:
        driver = place_at(workplace, server, 6).start(*TWO)
        wait_until(lambda: server.count(200) >= 2, driver)
        workers = workers_of(driver)
        driver.send_signal(signal.SIGSTOP)
        # a worker that had no rows yet gets none any more: so many answers may not come
        answers = -1
        while answers < server.count(200):
            answers = server.count(200)
            time.sleep(2.0)  # the last report goes unanswered for one
        driver.kill()
        ended(driver)
        wait_until(lambda: not any(map(lives, workers)))


@pytest.mark.parametrize("sent", [0, 60], ids=["while they begin", "at work"])
def test_ctrl_c_stops_all_and_three_processes_go_on(
    workplace: Workplace, slow: LoopbackServer, sent: int
) -> None:
    place = place_at(workplace, slow, 100)
    expected, once = alone(place)
    before = slow.count()
    driver = process(place.arguments(*TWO), cwd=place.folder, start_new_session=True)
    wait_until(lambda: workers_of(driver) if sent == 0 else slow.count() - before > sent, driver)
    workers = workers_of(driver)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    done = ended(driver)
    assert (done.code, len(done.err.splitlines())) == (130, 1), done
    assert done.summary["stopped"].startswith("interrupted")
    assert not any(map(lives, workers))
    assert sent <= done.summary["requests"] == slow.count() - before < once
    assert ended(place.start("--processes", "3")).code == 0
    assert left(place.results) == expected
    assert slow.count() - before == once


def test_workers_that_always_die_end_the_run_in_a_sentence(
    workplace: Workplace, slow: LoopbackServer
) -> None:
    place = place_at(workplace, slow, 4)
    (place.folder / "deadly").mkdir()
    (place.folder / "deadly" / "sitecustomize.py").write_text(
        f"import os, sys\nif any({WORKER!r} in word for word in sys.orig_argv):\n    os.kill(os.getpid(), 9)\n"
    )
    path = os.pathsep.join([str(place.folder / "deadly"), str(Path(__file__).resolve().parents[2])])
    done = ended(place.start(*TWO, env={"PYTHONPATH": path}))
    assert done.code == 130, done
    assert len(done.err.splitlines()) == 1, done
    [line] = done.err.splitlines()
    assert (
        "this machine lost 10 workers that were to begin: ended by signal 9. The same command goes on"
        in line
    )
    assert place.run().code == 0


@pytest.mark.parametrize(
    ("limit", "most"),
    [
        ({"workflow.max_requests": 20}, 20),
        ({"workflow.max_requests": 20, "vlm.check_every": 5}, 20),
    ],
)
def test_the_requests_of_all_are_limited(
    workplace: Workplace, slow: LoopbackServer, limit: dict[str, Any], most: int
) -> None:
    done = together(place_at(workplace, slow, 60), **limit)
    assert done.code == 3, done
    assert f"max_requests={most}" in done.err
    assert slow.count() == most


def test_the_cost_of_all_is_limited(workplace: Workplace, slow: LoopbackServer) -> None:
    prices = {"vlm.prices": {"input": 100.0, "output": 1000.0}, "vlm.openai.max_tokens": 300}
    done = together(place_at(workplace, slow, 60), "--budget-usd", "8", **prices)
    assert done.code == 3, done
    assert 2 < done.summary["cost_usd"] <= 8


def test_max_workers_is_of_all(workplace: Workplace, slow: LoopbackServer) -> None:
    slow.latency = 0.05
    done = together(place_at(workplace, slow, 40), **{"workflow.max_workers": 3})
    assert (done.code, slow.max_in_flight) == (0, 3), done


def test_max_workers_is_of_all_endpoints(workplace: Workplace) -> None:
    busy = [0, 0]  # now, at most

    def latency(_: Any) -> float:
        busy[1] = max(busy[1], one.in_flight + other.in_flight)
        return 0.03

    with (
        LoopbackServer(EchoAnswers(), latency=latency) as one,
        LoopbackServer(EchoAnswers(), latency=latency) as other,
    ):
        place = place_at(workplace, one, 60)
        both = {"vlm.openai.base_url": "", "vlm.openai.endpoints": [one.base_url, other.base_url]}
        done = together(place, **both, **{"workflow.max_workers": 4})
    assert done.code == 0, done
    assert min(one.count(), other.count()) > 0
    assert busy[1] == 4


def test_what_the_endpoint_takes_is_found_out_together(workplace: Workplace) -> None:
    limit = faults.too_many_requests()
    with LoopbackServer(EchoAnswers(), latency=0.02, capacity=5, limit_fault=limit) as server:
        done = together(place_at(workplace, server, 150), **{"workflow.max_workers": 32})
        assert done.code == 0, done
        assert server.count(429) <= server.count(200) * 0.15
    sustained = json.loads((workplace.results / "run.json").read_text())["sustained_concurrency"]
    assert 3 <= sustained <= 7


def test_a_key_written_in_a_spec_is_nowhere_else(workplace: Workplace) -> None:
    key = "sk-a0B1c2D3e4F5g6H7"
    bad = on(faults.bad_request(), containing="Cup 3 ")
    with LoopbackServer(EchoAnswers(), faults=[bad], latency=0.02, key=key, leaky=True) as server:
        place = place_at(workplace, server, 40)
        driver = place.start(*TWO, **{"vlm.openai.api_key": key})
        wait_until(lambda: server.count() > 10, driver)
        lines = [
            Path(f"/proc/{pid}/{name}").read_bytes()
            for pid in workers_of(driver)
            for name in ("cmdline", "environ")
        ]
        done = ended(driver)
        assert done.code == 1, done
        assert len(lines) == 4
        server.key = "another"
        wrong = together(place, **{"vlm.openai.api_key": key, "workflow.force_reprocess": True})
    assert wrong.code == 4, wrong
    assert not [line for line in lines if key.encode() in line]
    assert key not in done.out + done.err + wrong.out + wrong.err
    assert not [path for path, data in place.everything() if key.encode() in data]


@pytest.mark.parametrize("kind", ["folder", "JSON list", "Parquet"])
def test_inputs_of_every_kind(workplace: Workplace, slow: LoopbackServer, kind: str) -> None:
    place = place_at(workplace, slow, 1)
    rows = [
        {
            "image_path": place.picture(f"pictures/{n}.jpg"),
            "image_id": f"r{n}",
            "caption": caption(n),
        }
        for n in range(9)
    ]
    settings: dict[str, Any] = {}
    if kind == "folder":
        settings["data.input_jsonl"] = str(place.folder / "pictures")
        settings["workflow.steps"] = ["0"]
    elif kind == "JSON list":
        settings["data.input_jsonl"] = str(place.folder / "rows.json")
        (place.folder / "rows.json").write_text(json.dumps(rows))
    else:
        pandas = pytest.importorskip("pandas")
        settings["data.input_jsonl"] = str(place.folder / "rows.parquet")
        pandas.DataFrame(rows).to_parquet(place.folder / "rows.parquet")
    expected, _ = alone(place, **settings)
    done = together(place, **settings)
    assert done.code == 0, done
    assert left(place.results) == expected


OWN = """
from dataflow_grounding import Pipeline, operator
from wordy import words

print("imported")

@operator(reads=["caption"], writes=["words"])
def count(record):
    print("counting")
    return {"words": words(record["caption"])}

class Mine(Pipeline):
    name = "mine"

    def __init__(self, storage, serving):
        self.storage = storage

    def forward(self):
        count.run(self.storage.step())
"""


def test_a_pipeline_beside_its_spec(workplace: Workplace) -> None:
    folder = workplace.folder
    (folder / "owned.py").write_text(OWN)
    (folder / "wordy.py").write_text("def words(text):\n    return len(text.split())\n")
    workplace.many(12)
    mine = {"vlm": {"backend": "embedded"}, "data": {"input_jsonl": str(workplace.input)}}
    (folder / "own.yaml").write_text(json.dumps({"autolabel_type": "owned:Mine", "mine": mine}))
    for name, *how in (("one",), ("two", *TWO)):
        line = [
            "generate",
            "-e",
            str(folder / "own.yaml"),
            f"results_dir={folder / name}",
            "--no-report",
            *how,
        ]
        done = ended(process(line, cwd=folder.parent))
        assert done.code == 0, done
        assert done.err.count("counting\n") >= 7
        assert done.err.count("imported\n") <= 2  # what several workers say is told once
    assert (folder / "two" / "annotations.jsonl").read_bytes() == (
        folder / "one" / "annotations.jsonl"
    ).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shard", "1/2"), "--processes makes parts of its own: leave --shard out"),
        (("--engine", "ray"), "--processes are of this machine: with --engine ray, say --workers"),
        (
            ("image_grounding.vlm.backend=local",),
            "vlm.backend local has its model in one process: leave --processes out",
        ),
    ],
)
def test_options_that_do_not_go_together(
    workplace: Workplace, arguments: tuple[str, ...], said: str
) -> None:
    workplace.many(2)
    done = workplace.run(*TWO, *arguments)
    assert done.code == 2
    [line] = done.err.splitlines()
    assert said in line


def test_a_pilot_a_plan_and_one_process(workplace: Workplace, slow: LoopbackServer) -> None:
    place = place_at(workplace, slow, 40)
    plan = place.run(*TWO, "--dry-run")
    assert (plan.code, slow.count()) == (0, 0), plan
    pilot = together(place, "--pilot", "10")
    assert (pilot.code, pilot.summary["done"], slow.count()) == (0, 10, 20), pilot
    one = place.run("--processes", "1")
    assert (one.code, one.summary["requests"]) == (0, 60), one
    assert not list(place.results.glob("shards/*-1"))


def test_run_json_says_what_the_endpoint_takes_as_that_of_one_process(
    workplace: Workplace, slow: LoopbackServer
) -> None:
    place = place_at(workplace, slow, 24)
    alone(place)
    assert together(place).code == 0
    one, several = (
        json.loads((folder / "run.json").read_text())["serving"]
        for folder in (place.folder / "alone", place.results)
    )
    assert one["takes"] == several["takes"] != ""


def test_each_block_ends_with_a_check_of_the_box_format(
    workplace: Workplace, slow: LoopbackServer
) -> None:
    place = place_at(workplace, slow, 48)
    done = together(place, **{"vlm.check_every": 100})
    assert done.code == 0, done
    asked = [
        request.image_digests[0] for request in slow.requests if request.task == "phrase_grounding"
    ]
    [(own, count)] = Counter(asked).most_common(1)
    assert count == 48
    assert len(asked) - count >= 4
    assert asked[-1] != own


def test_one_line_tells_how_far_all_are(workplace: Workplace, slow: LoopbackServer) -> None:
    place = place_at(workplace, slow, 120)
    line = [word for word in place.arguments(*TWO) if word != "--no-progress"]
    screen, end = os.openpty()
    running = process(line, cwd=place.folder, stderr=end, env={"TERM": "xterm"})
    os.close(end)
    shown = b""
    try:
        while data := os.read(screen, 4096):
            shown += data
    except OSError:  # nobody writes there any more
        pass
    os.close(screen)
    out, _ = running.communicate(timeout=120)
    assert running.returncode == 0, out
    told = [part for part in shown.decode().split("\r\x1b[K") if "records" in part]
    assert len(told) > 4
    assert all("/120 records" in part for part in told)
    assert len({part.partition("/120")[0] for part in told}) > 1


def test_results_in_a_bucket_are_those_of_a_folder(
    workplace: Workplace, slow: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3 = pytest.importorskip("boto3")
    place = place_at(workplace, slow, 60)
    expected, once = alone(place)
    before = slow.count()
    with faulty_store() as store:
        for name, value in environment(store).items():
            monkeypatch.setenv(name, value)
        bucket = boto3.client("s3")
        bucket.create_bucket(Bucket=BUCKET)
        place.results = f"s3://{BUCKET}/run"  # type: ignore[assignment]
        done = together(place)
        assert done.code == 0, done
        files = {
            name: bucket.get_object(Bucket=BUCKET, Key=f"run/{name}")["Body"].read()
            for name in expected
        }
        assert files == expected
        assert slow.count() - before == once
        again = ended(place.start())
        assert (again.code, again.summary["already_complete"]) == (0, True), again
