"""Runs on Ray: the content that one machine leaves, nothing paid for twice, and exit codes as
everywhere.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import PIL.ImageColor
import pytest

from dataflow_grounding import FileStorage, Pipeline, operator
from dataflow_grounding._util.errors import PlanError, SpecError
from dataflow_grounding._util.secrets import learn
from dataflow_grounding.data.rows import Row
from dataflow_grounding.engine.shard import shard_of
from dataflow_grounding.scale.cluster import ray_run
from dataflow_grounding.scale.cluster._shipping import shipped, unshipped
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from tests.support.endpoint import Serves
from tests.support.forking import Forked
from tests.support.stand_ins.tiny_vlm import BOX_OF, OF_SQUARES, asking_for_squares, tiny_vlm
from tests.support.store import BUCKET, FaultyStore, faulty_store
from tests.support.waiting import wait_until
from tests.support.workplace import HANGING, Workplace, caption, command, ended, left

# Ray is imported where it is used: it takes half a second, in each process that collects tests.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray"),
]

RAY = ("--engine", "ray", "--workers", "2")
# For a cluster that a test starts itself: next to other tests its workers would get no turn.
NOT_NICE = ("RAY_worker_niceness", "0")


ROWS = 60
ONCE = 2 * ROWS  # the requests that they need


@pytest.fixture
def slow(serves: Serves) -> LoopbackServer:
    """An endpoint that takes eight at once."""
    return serves(latency=0.02, capacity=8)


@pytest.fixture
def place(workplace: Workplace, one_server: LoopbackServer) -> Workplace:
    """ROWS rows for the endpoint."""
    workplace.settings["vlm.openai.base_url"] = one_server.base_url
    workplace.many(ROWS)
    return workplace


def run_alone(place: Workplace) -> dict[str, bytes]:
    """What one machine leaves."""
    results, place.results = place.results, place.folder / "alone"
    done = place.run()
    assert done.code in (0, 1), done
    place.results, found = results, left(place.results)
    return found


@pytest.fixture(scope="module")
def alone(one_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one machine leaves of ROWS rows."""
    place = Workplace(tmp_path_factory.mktemp("alone") / "work", one_server.base_url)
    place.many(ROWS)
    return run_alone(place)


def paid(server: LoopbackServer) -> int:
    """Requests that were answered, or would have been."""
    return server.received - server.count(429)


class Machines:
    """A cluster that is there already: a head without CPUs, and machines that come and go. This
    process is connected to it, as are all runs in it: they share workers, who begin slowly.
    """

    def __init__(self, cache: Path, store: FaultyStore) -> None:
        import ray
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False}
        # Ray's hooks take signals, which the main thread alone may do: a run adds machines in another
        self.cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        self.address: str = self.cluster.address
        self.there: list[Any] = []
        self.cache, self.store = cache, store
        ray.init(address=self.address, log_to_driver=False, configure_logging=False)

    def come(self, count: int) -> None:
        """Have machines of one CPU each, as many as are lacking."""
        with pytest.MonkeyPatch.context() as there:
            there.setenv("XDG_CACHE_HOME", str(self.cache))
            while len(self.there) < count:
                self.there.append(self.cluster.add_node(num_cpus=1))

    def lose(self, count: int = 1) -> None:
        """Some are cut off."""
        for _ in range(count):
            self.cluster.remove_node(self.there.pop(), allow_graceful=False)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Their workers reach a bucket, and have a cache folder of their own."""
    import ray

    with faulty_store() as store, pytest.MonkeyPatch.context() as there:
        for name, value in (NOT_NICE, ("RAY_USAGE_STATS_ENABLED", "0")):
            there.setenv(name, value)
        # Ray tells of machines that a test has cut off while later tests read what a run prints.
        there.setattr(ray._private.worker, "print_to_stdstream", lambda *_, **__: None)
        found = Machines(tmp_path_factory.mktemp("cluster"), store)
        yield found
        ray.shutdown()
        found.cluster.shutdown()


@pytest.fixture
def cluster(machines: Machines) -> Machines:
    """With room for two workers."""
    machines.come(2)
    return machines


def workers(driver: int | None = None) -> list[int]:
    """The processes of workers that came of a process; None for this one."""
    found = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    ).stdout
    lines = [line.split(None, 2) for line in found.splitlines()[1:]]
    family = {driver or os.getpid()}
    for _ in range(4):
        family |= {int(pid) for pid, parent, _ in lines if int(parent) in family}
    return [
        int(pid) for pid, _, what in lines if int(pid) in family and what.startswith("ray::work_on")
    ]


def a_worker(driver: int | None = None) -> int:
    """One that is at work, or soon will be."""
    found: list[int] = []
    wait_until(lambda: found.extend(workers(driver)) or found)
    return found[0]


def meanwhile(server: LoopbackServer, *strikes: tuple[int, Callable[[], object]]) -> None:
    """Do something as the endpoint gets its next request of a number, which waits until it is done."""
    due = [(server.received + number, strike) for number, strike in strikes]

    def rule(request: ReceivedRequest) -> None:
        while due and request.index >= due[0][0]:
            due.pop(0)[1]()

    server.faults = rule


def of_a_slow_start(line: str) -> bool:
    """Whether a line says only that workers take long to begin, as on a busy machine."""
    return not line.strip() or line.startswith("No worker has begun yet")


def test_machines_that_come_late_and_lost_ones_cost_what_was_in_flight(
    place: Workplace,
    slow: LoopbackServer,
    alone: dict[str, bytes],
    machines: Machines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a cluster is that begins with no machine to work on, then loses a worker and a machine."""
    monkeypatch.setattr(ray_run, "SAY_SECONDS", 1.0)
    machines.lose(len(machines.there))
    say = ray_run.say
    monkeypatch.setattr(ray_run, "say", lambda text: (say(text), machines.come(2)))
    meanwhile(slow, (30, lambda: os.kill(a_worker(), signal.SIGTERM)), (60, machines.lose))
    done = place.run(*RAY)
    assert done.code == 0, done
    assert "2 workers of 1 CPU each are wanted, and Ray has 0 of 0 CPU free" in done.err
    assert len(machines.there) == 1
    assert left(place.results) == alone
    assert ONCE <= paid(slow) <= ONCE + 8 * 2
    back = place.run()
    assert back.summary["already_complete"], back


def test_ctrl_c_stops_all_and_keeps_every_reply(
    place: Workplace, slow: LoopbackServer, alone: dict[str, bytes], cluster: Machines
) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        slow.latency = 1.0  # it would take ten seconds to come to its end

    meanwhile(slow, (40, interrupt))
    done = place.run(*RAY)
    assert done.code == 130, done
    assert done.summary["stopped"].startswith("interrupted")
    assert 0 < done.summary["requests"] < ONCE
    slow.latency = 0.0
    done = place.run(*RAY)
    assert done.code == 0, done
    assert not [line for line in done.err.splitlines() if not of_a_slow_start(line)], done.err
    assert left(place.results) == alone
    assert paid(slow) == ONCE  # what was in flight was waited for


def test_a_limit_of_all_waits_for_what_each_has_in_flight(
    place: Workplace, server: LoopbackServer, cluster: Machines
) -> None:
    server.latency = 0.5
    done = place.run(*RAY, **{"workflow.max_requests": 20})
    assert done.code == 3, done
    assert "stopped before passing workflow.max_requests=20" in done.err
    assert done.summary["requests"] == server.count(200) == 20
    assert (server.received, server.abandoned) == (20, 0)
    assert server.max_in_flight <= 8  # max_workers, of both


def test_a_limit_holds_over_steps_that_run_one_after_the_other(
    place: Workplace, server: LoopbackServer, cluster: Machines
) -> None:
    limits = {"workflow.max_requests": ROWS + 10, "workflow.stream": False}
    done = place.run(*RAY, **limits)
    assert done.code == 3, done
    assert server.received <= ROWS + 10


@pytest.fixture
def unequal(place: Workplace) -> Workplace:
    """All but a few rows are of one picture, and so in one shard."""
    place.many(20)
    place.picture("b.jpg", (48, 64))
    rows = [{"image_path": "b.jpg", "caption": caption(n)} for n in range(100, 130)]
    place.rows([*place.input.read_text().splitlines(), *rows])
    return place


def test_where_one_shard_stops_at_its_part_the_same_command_goes_on(
    unequal: Workplace, server: LoopbackServer, cluster: Machines
) -> None:
    """Then rows that only moved are put where they are now, though each shard has the rows that it
    had, in the order that it had them in.
    """
    place, once = unequal, 2 * (20 + 30)
    expected = run_alone(place)
    received = server.received
    server.latency, server.max_in_flight = 0.05, 0
    limits = {"workflow.max_requests": once, "workflow.max_workers": 3}
    stopped = place.run(*RAY, **limits)
    assert stopped.code == 3, stopped
    assert "1 of 2 shards have used their parts, and the others may have left some" in stopped.err
    assert "The same command goes on" in stopped.err
    assert server.received - received < once
    done = place.run(*RAY, **limits)
    assert done.code == 0, done
    assert server.received - received == once
    assert server.max_in_flight <= 3
    assert left(place.results) == expected
    rows = [Row(n, json.loads(line)) for n, line in enumerate(place.input.read_text().splitlines())]
    rows.sort(key=lambda row: shard_of(row, 2, "image_path", None))
    place.rows([row.data or {} for row in rows])
    done = place.run(*RAY)
    assert (done.code, server.received - received) == (0, once), done
    captions = [record["caption"] for record in place.annotations()]
    assert captions == [(row.data or {})["caption"] for row in rows]


def test_a_budget_in_usd_is_used_as_by_one_machine(
    unequal: Workplace, server: LoopbackServer, cluster: Machines
) -> None:
    unequal.settings |= {
        "vlm.prices": {"input": 1.0, "output": 10.0},
        "vlm.openai.max_tokens": 300,
        "workflow.budget_usd": 0.1,
        "workflow.max_workers": 1,  # fewer than there are workers
    }
    server.latency = 0.02
    done = unequal.run(*RAY)
    assert done.code == 3, done
    assert "stopped before passing workflow.budget_usd=0.1" in done.err
    sent = server.received
    assert server.max_in_flight == 1
    assert 0.09 < done.summary["cost_usd"] <= 0.1
    unequal.results = unequal.folder / "alone"
    assert unequal.run().code == 3
    assert abs(server.received - 2 * sent) <= 1


def test_with_a_limit_a_lost_worker_stops_the_run(
    place: Workplace, slow: LoopbackServer, alone: dict[str, bytes], cluster: Machines
) -> None:
    """Begun again, its task would use its part of the limit twice."""
    meanwhile(slow, (60, lambda: os.kill(a_worker(), signal.SIGKILL)))
    done = place.run("--engine", "ray", "--workers", "1", **{"workflow.max_requests": ONCE})
    assert done.code == 130, done
    assert "Ray lost a worker" in done.err
    assert "The same command goes on" in done.err
    assert slow.received < ONCE
    assert place.run(*RAY).code == 0
    assert left(place.results) == alone
    assert paid(slow) <= ONCE + 8


def test_results_in_a_bucket_are_those_of_a_folder_and_a_lost_worker_costs_what_was_in_flight(
    place: Workplace,
    slow: LoopbackServer,
    alone: dict[str, bytes],
    cluster: Machines,
) -> None:
    """Workers and driver have no folder in common, as on machines of their own."""
    caches = [Path(os.environ["XDG_CACHE_HOME"]), cluster.cache]
    place.results = f"s3://{BUCKET}/run"  # type: ignore[assignment]
    meanwhile(slow, (25, lambda: os.kill(a_worker(), signal.SIGKILL)))
    done = place.run("--engine", "ray", "--workers", "1")
    assert done.code == 0, done
    assert 0 < done.summary["requests"] <= slow.received
    assert {name: cluster.store.data(f"run/{name}") for name in alone} == alone
    assert ONCE <= paid(slow) <= ONCE + 8
    assert not [name for name in cluster.store.names("run") if name.endswith("/rows.jsonl")]
    assert all([*cache.rglob("*.jsonl")] for cache in caches)
    assert not [path for cache in caches for path in cache.rglob("rows.jsonl")]
    again = place.run()
    assert (again.code, again.summary["already_complete"]) == (0, True), again


OWN = """
from dataflow_grounding import Pipeline, RegionMarker, operator
from wordy import words

@operator(reads=["caption"], writes=["words"])
def count(record):
    return {"words": words(record["caption"])}

class Mine(Pipeline):
    name = "mine"

    def __init__(self, storage, serving, out):
        self.storage, self.marker = storage, RegionMarker(out)

    def forward(self):
        self.marker.run(self.storage.step())
        count.run(self.storage.step())
"""


def test_a_pipeline_beside_its_spec_and_the_pictures_that_it_draws(
    workplace: Workplace, cluster: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is where the workers were started, and what a step names by the row's number is of
    that row alone.
    """
    folder = workplace.folder
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (folder / "owned.py").write_text(OWN)
    (folder / "wordy.py").write_text("def words(text):\n    return len(text.split())\n")
    colors = ("red", "lime", "blue", "yellow", "cyan", "magenta", "orange", "black")
    for color in colors:
        workplace.picture(f"{color}.png", (60, 40), color=color)
    rows = [
        {"image": f"{color}.png", "bbox": [[5, 5, 20, 20]], "caption": "A cup."} for color in colors
    ]
    workplace.rows([rows[0], "", *rows[1:]])
    mine = {
        "data": {"input_jsonl": str(workplace.input)},
        "settings": {"out": str(folder / "drawn")},
    }
    spec = {"autolabel_type": "owned:Mine", "mine": {"vlm": {"backend": "embedded"}, **mine}}
    (folder / "own.yaml").write_text(json.dumps(spec))
    for name, *how in (
        ("here",),
        ("there", *RAY),
        ("parts", "--shard", "1/2"),
        ("parts", "--shard", "2/2"),
    ):
        where = f"results_dir={folder / name}"
        done = command(["generate", "-e", str(folder / "own.yaml"), where, "--no-report", *how])
        assert done.code == 0, done
    assert command(["merge", str(folder / "parts"), "--no-report"]).code == 0
    found = {
        name: (folder / name / "annotations.jsonl").read_bytes()
        for name in ("here", "there", "parts")
    }
    assert found["there"] == found["parts"] == found["here"]
    for color, line in zip(colors, found["there"].splitlines(), strict=True):
        with PIL.Image.open(json.loads(line)["image_with_bbox"]) as drawn:
            pixel = drawn.getpixel((50, 35))
        assert (
            max(abs(a - b) for a, b in zip(pixel, PIL.ImageColor.getrgb(color), strict=True)) < 20
        ), color


def test_a_run_goes_from_one_machine_to_shards_to_ray_and_back(
    place: Workplace, slow: LoopbackServer, cluster: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice on Ray: in a cluster that is there already, and with a driver in a process of its own,
    which begins a cluster and is killed.
    """
    gone = {"image_path": "gone.jpg", "caption": "A cup."}
    place.rows([*place.input.read_text().splitlines(), "{broken", gone])
    expected = run_alone(place)
    before = paid(slow)
    assert place.run(**{"workflow.max_requests": 20}).code == 3
    assert place.run("--shard", "2/3").code in (0, 1)
    stopped = place.run(*RAY, **{"workflow.max_requests": 20})
    assert stopped.code == 3, stopped
    assert "workflow.max_requests=20" in stopped.err
    assert "The same command goes on" in stopped.err
    asked = [(request.task, request.text) for request in slow.requests[-paid(slow) + before :]]
    assert len({*asked}) == len(asked)
    priorities = []

    def kill() -> None:
        priorities.append(os.getpriority(os.PRIO_PROCESS, a_worker(driver.pid)))
        driver.kill()

    meanwhile(slow, (15, kill))
    monkeypatch.delenv(NOT_NICE[0])
    driver = place.start(*RAY)
    assert ended(driver).code == -signal.SIGKILL
    # a worker gives way to nobody else
    assert priorities == [os.getpriority(os.PRIO_PROCESS, 0)]
    done = place.run(*RAY)
    assert done.code == 1, done
    assert left(place.results) == expected
    assert before <= paid(slow) - before <= before + 8
    back = place.run()
    assert back.code == 1
    assert back.summary["requests"] == 0
    assert left(place.results) == expected


def test_a_model_in_the_process_is_loaded_by_each_worker(
    workplace: Workplace, cluster: Machines
) -> None:
    for needed in ("torch", "transformers", "safetensors"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"needs {needed}")
    import ray

    # a worker makes the model, too: to import what it needs takes seconds in each process
    made = ray.remote(tiny_vlm).options(num_cpus=1)
    model = ray.get(made.remote(workplace.folder / "tiny", OF_SQUARES))
    place = asking_for_squares(model, workplace, ["blue", "red", "red"] * 4)
    done = place.run(*RAY)
    assert (done.code, done.summary["requests"]) == (0, 2 * 12), done
    boxes = [row["expressions"][0]["instances"][0]["bbox"] for row in place.annotations()]
    assert boxes == [BOX_OF["blue"], BOX_OF["red"], BOX_OF["red"]] * 4


def test_a_wrong_key_stops_all(place: Workplace, serves: Serves, cluster: Machines) -> None:
    server = serves(key="the-right-key-1234")
    done = place.run(*RAY)
    assert done.code == 4, done
    assert server.count() <= 20
    assert not left(place.results)


class Told(Pipeline):
    """With an operator of its own, in a file that no worker can import, and paths from the current
    folder.
    """

    def __init__(self, operator: Any) -> None:
        self.storage = FileStorage("rows.jsonl", "cache", file_name_prefix="told", cache_type="csv")
        self.operator = operator

    def forward(self) -> None:
        self.operator.run(self.storage.step())


SCRIPT = """
from dataflow_grounding import FileStorage, Pipeline, as_command, operator

@operator(reads=["caption"], writes=["words"])
def count(record):
    return {"words": len(record["caption"].split())}

class Mine(Pipeline):
    def __init__(self):
        self.storage = FileStorage("rows.jsonl", "cache", file_name_prefix="mine", cache_type="csv")

    def forward(self):
        count.run(self.storage.step())

if __name__ == "__main__":
    with as_command():
        print(Mine().run_on_ray(ADDRESS, 1).done)
"""


def test_a_script_of_a_users_own_runs_there(tmp_path: Path, cluster: Machines) -> None:
    rows = "".join(f'{{"image_id": "{n}", "caption": "{"a " * n}cup"}}\n' for n in range(12))
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "mine.py").write_text(SCRIPT.replace("ADDRESS", repr(cluster.address)))
    run = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, timeout=HANGING
    )
    assert (run.stdout, run.returncode) == ("12\n", 0), run.stderr
    lines = (tmp_path / "cache" / "mine_step1.csv").read_text().splitlines()
    assert [line.rsplit(",", 1)[1] for line in lines] == ["words", *(str(n + 1) for n in range(12))]


class ElsewhereOperator:
    """An operator of another library."""

    def run(self, storage: FileStorage) -> None:
        raise AssertionError("it should not be run")


def test_what_works_on_whole_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Machines
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text('{"image_id": "1"}\n')
    with pytest.raises(PlanError, match="works on whole files"):
        Told(ElsewhereOperator()).run_on_ray()
    rows: Any = [{"image_id": "1"}]
    for wrong, said in (
        ({"address": rows}, "list is none: rows are read"),
        ({"workers": 0}, "workers should be 1"),
    ):
        with pytest.raises(SpecError, match=said):
            Told(operator(reads=["image_id"], writes=["n"])(len)).run_on_ray(**wrong)


def test_a_cluster_without_room_says_what_is_wanted_and_waits(
    place: Workplace, server: LoopbackServer, cluster: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataflow_grounding.serving import OpenAIServing

    monkeypatch.setattr(ray_run, "SAY_SECONDS", 0.5)
    monkeypatch.setattr(OpenAIServing, "num_gpus", 1, raising=False)
    say = ray_run.say
    interrupt = lambda: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    monkeypatch.setattr(ray_run, "say", lambda text: (say(text), interrupt()))
    done = place.run(*RAY)
    assert done.code == 130, done
    wanted = "2 workers of 1 CPU and 1 GPU each are wanted"
    assert f"{wanted}, and Ray has 2 of 2 CPU free on 3 nodes" in done.err
    assert server.count() == 0


def test_a_cluster_that_is_not_there(place: Workplace) -> None:
    ray = ("--engine", "ray", "--ray-address", "127.0.0.1:1")
    done = ended(Forked(place.arguments(*ray)))
    assert done.code == 2, done
    assert "can't reach Ray at 127.0.0.1:1" in done.err
    assert len(done.err.splitlines()) == 1


def test_keys_stay_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-0123456789abcdef"
    monkeypatch.setenv("DF_API_KEY", key)
    data = shipped({"key": key, "header": f"Bearer {key}", "text": "a DF_API_KEY"})
    assert key.encode() not in data
    assert unshipped(data) == {"key": key, "header": f"Bearer {key}", "text": "a DF_API_KEY"}
    monkeypatch.delenv("DF_API_KEY")
    with pytest.raises(SpecError, match="DF_API_KEY is not set on"):
        unshipped(data)
    learn(key)
    with pytest.raises(SpecError, match="not in the environment"):
        shipped({"key": key})


def test_what_can_not_be_sent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match=r"lock.*should make it when it is first asked"):
        shipped({"mine": threading.Lock()})
    monkeypatch.setenv("PWD", "/some/folder")  # no secret, whatever its name looks like
    assert b"/some/folder/a.jpg" in shipped("/some/folder/a.jpg")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engine", "ray", "--shard", "1/2"], "leave --shard out"),
        (["--workers", "2"], "--engine ray"),
        (["--ray-address", "auto"], "--engine ray"),
    ],
)
def test_options_that_do_not_go_together(place: Workplace, arguments: list[str], said: str) -> None:
    done = place.run(*arguments)
    assert done.code == 2
    assert said in done.err
