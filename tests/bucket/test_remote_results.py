"""Results in an S3 bucket: what is left there is what a folder would have, and no reply is paid for
twice.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import s3fs

from dataflow_grounding import (
    ExpressionExtractor,
    FileStorage,
    OpenAIServing,
    PhraseGrounder,
    Pipeline,
)
from dataflow_grounding._util.errors import TakenOver
from dataflow_grounding.bucket import bucket
from dataflow_grounding.review import publish
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from tests.support.forking import Forked
from tests.support.store import BUCKET, FaultyStore, faulty_store
from tests.support.waiting import wait_until
from tests.support.workplace import (
    HANGING,
    LEFT,
    STEPS,
    Done,
    Running,
    Workplace,
    caption,
    command,
    ended,
    left,
    tar_of,
)

pytestmark = pytest.mark.slow

ROWS = 30
QUICK = "import dataflow_grounding.bucket.bucket as b; b.SEND_SECONDS = 0.3"


@pytest.fixture(scope="module")
def one_store() -> Iterator[FaultyStore]:
    with faulty_store() as store:
        yield store


@pytest.fixture
def store(one_store: FaultyStore) -> Iterator[FaultyStore]:
    yield one_store
    one_store.heal()
    s3fs.S3FileSystem.clear_instance_cache()  # with the settings of one test


class Elsewhere:
    """The place of a test: a run of it in a folder, and its address in the bucket."""

    def __init__(self, place: Workplace, store: FaultyStore, name: str) -> None:
        self.place, self.store, self.name = place, store, name
        self.address = f"s3://{BUCKET}/{name}"

    def arguments(self, *more: str, **settings: Any) -> list[str]:
        self.place.results = self.address  # type: ignore[assignment]
        return self.place.arguments(*more, **settings)

    def run(self, *more: str, **settings: Any) -> Done:
        return command(self.arguments(*more, **settings))

    def start(self, *more: str) -> Running:
        """A process that rolls and beats more often than usual."""
        return Forked(self.arguments(*more), first=QUICK)

    def on_machine(self, name: str) -> Path:
        """From now on, what runs here has a work folder of this machine; returns that."""
        work = self.place.folder / name
        os.environ["DF_WORK_FOLDER"] = str(work)  # `run` puts it back
        return work

    def there(self, name: str) -> bytes:
        return self.store.data(f"{self.name}/{name}")

    def names(self) -> list[str]:
        return self.store.names(self.name)

    def delete(self, *names: str) -> None:
        for name in names:
            self.store.delete(f"{self.name}/{name}")

    def stored(self) -> int:
        """How many replies are in the bucket."""
        logs = [self.there(name) for name in self.names() if "/replies/" in name]
        return sum(b'"checks"' not in line for log in logs for line in log.splitlines())

    def left(self) -> dict[str, bytes]:
        """What the run left there, bar run.json."""
        return {name: self.there(name) for name in LEFT}

    def told(self) -> Any:
        """The run.json that is there."""
        return json.loads(self.there("run.json"))

    def alone(self) -> dict[str, bytes]:
        """What a run in a folder leaves."""
        self.place.results = self.place.folder / "alone"
        self.place.run()
        return left(self.place.results)


@pytest.fixture
def slow(server: LoopbackServer) -> LoopbackServer:
    server.latency = 0.1
    return server


@pytest.fixture(scope="module")
def alone(one_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run of ROWS in a folder leaves."""
    place = Workplace(tmp_path_factory.mktemp("alone") / "work", one_server.base_url)
    place.many(ROWS)
    assert place.run().code == 0
    return left(place.results)


@pytest.fixture
def run(
    workplace: Workplace,
    server: LoopbackServer,
    store: FaultyStore,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Elsewhere:
    monkeypatch.setenv("DF_WORK_FOLDER", "")  # which puts it back afterwards
    workplace.settings["vlm.openai.base_url"] = server.base_url
    workplace.many(ROWS)
    name = request.node.name.replace("[", "/").replace("]", "").replace(" ", "_")
    return Elsewhere(workplace, store, name)


def meanwhile(server: LoopbackServer, number: int, strike: Callable[[], object]) -> None:
    """Do something as the endpoint gets its next request of a number, which waits until it is done."""
    due = [server.received + number]

    def rule(request: ReceivedRequest) -> None:
        if due and request.index >= due[0]:
            due.clear()
            strike()

    server.faults = rule


def held(server: LoopbackServer, number: int) -> tuple[Event, Event]:
    """Set as the endpoint gets that request, and to be set for it to go on."""
    asked, goes_on = Event(), Event()
    meanwhile(server, number, lambda: (asked.set(), goes_on.wait(HANGING)))
    return asked, goes_on


FAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    "503s": {"refuse_every": 4},
    "torn uploads": {"tear": "jsonl|lock|run.json"},
}


@pytest.mark.sampled
@pytest.mark.parametrize("fault", FAULTS)
def test_a_killed_run_goes_on_through_faults(
    run: Elsewhere, slow: LoopbackServer, alone: dict[str, bytes], fault: str
) -> None:
    """What is asked again is at most what was in flight: 8 requests."""
    vars(run.store).update(FAULTS[fault])
    running = run.start()
    meanwhile(slow, 40, running.kill)
    assert ended(running).code == -9
    done = run.run()
    assert done.code == 0, done
    assert 2 * ROWS <= slow.count() <= 2 * ROWS + 8
    assert "secret" not in done.err + done.out
    again = run.run()
    assert (again.code, again.summary["already_complete"]) == (0, True), again
    faults = sum(run.store.counts[name] for name in ("refused", "torn"))
    run.store.heal()
    assert bool(faults) == (fault != "none")
    assert run.left() == alone
    assert (run.told()["state"], run.told()["spec"]["results_dir"]) == ("finished", run.address)
    assert command(["cost", run.address, "--json"]).summary["requests"] == 2 * ROWS


def test_the_estimate_of_a_new_machine_knows_what_is_stored_there(
    run: Elsewhere, server: LoopbackServer
) -> None:
    assert run.run("--shard", "1/2").code == 0
    run.on_machine("another machine")
    asking = ["estimate", "--json", "-e"]
    done = command([*asking, str(run.place.spec())]).summary
    assert done["stored"] == run.stored() > 0
    whole = command([*asking, str(run.place.spec(**{"workflow.force_reprocess": True}))]).summary
    assert done["requests"] == whole["requests"] - server.count()


def test_a_lost_machine_loses_what_it_had_not_rolled(
    run: Elsewhere, slow: LoopbackServer, alone: dict[str, bytes]
) -> None:
    running = run.start()
    meanwhile(slow, 45, lambda: (wait_until(lambda: run.stored() > 20), running.kill()))
    assert ended(running).code == -9
    stored, paid = run.stored(), slow.count()
    shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"]))
    done = run.run()
    assert done.code == 0, done
    assert slow.count() <= paid + 2 * ROWS - stored
    assert run.left() == alone


def test_shards_with_kills_are_merged_to_what_one_machine_leaves(
    run: Elsewhere, server: LoopbackServer
) -> None:
    """Of two that work at once on an input that holds the pictures; by another machine."""
    run.place.settings["vlm.openai.timeout"] = HANGING
    members = []
    for n in range(9):
        picture = run.place.folder / run.place.picture("b.jpg", (64, 48 + n))
        members += [(f"{n}.jpg", picture.read_bytes()), (f"{n}.txt", caption(n).encode())]
    run.place.input = tar_of(run.place.folder / "some.tar", members)
    # the first is at work until the second has ended
    server.latency = lambda request: HANGING if 2 <= request.index < 6 else 0.0
    first = run.start("--shard", "1/2")
    wait_until(lambda: server.received == 6, first)
    assert run.run("--shard", "2/2").code == 0
    assert first.poll() is None
    first.kill()
    ended(first)
    assert run.run("--shard", "1/2").code == 0
    assert server.count() <= 2 * 9 + 4
    run.on_machine("other machine")
    merged = command(["merge", run.address])
    assert merged.code == 0, merged
    assert run.there("report.html")
    assert run.left() == run.alone()
    named = {json.loads(line)["image_path"] for line in run.there("annotations.jsonl").splitlines()}
    assert named == {name for name in run.names() if name.startswith("pictures/")}
    assert len(named) == 9
    assert run.told()["shards"] == 2
    before = server.count()
    assert run.run().code == 0  # as one machine again
    assert server.count() == before


def test_only_shards_that_are_there_are_merged(run: Elsewhere) -> None:
    """And not those of which this machine has copies, since it merged what was there before."""
    run.place.many(2)
    merge = ["merge", run.address, "--no-report"]
    for _ in range(2):
        assert run.run("--shard", "1/1").code == 0
        assert command(merge).code == 0
        run.delete("shards/1-of-1/run.json")
        merged = command(merge)
        assert (merged.code, "shards/1-of-1 isn't finished" in merged.err) == (2, True), merged


def test_a_second_machine_takes_over_and_the_first_stops(
    run: Elsewhere, server: LoopbackServer, alone: dict[str, bytes]
) -> None:
    run.place.settings["workflow.max_workers"] = 1
    asked, goes_on = held(server, 10)
    first = run.start()
    run.place.settings["workflow.max_workers"] = 8
    assert asked.wait(HANGING)
    here = run.run()  # on the same machine, the folder's own lock
    assert (here.code, first.poll()) == (2, None), here
    assert "another run is working in" in here.err
    os.kill(first.pid, signal.SIGSTOP)  # as a machine that sleeps
    goes_on.set()
    run.on_machine("other machine")
    done = run.run()
    assert done.code == 0, done
    told = run.there("run.json")
    os.kill(first.pid, signal.SIGCONT)
    late = ended(first)
    assert (late.code, late.err.count(f"another run has taken over {run.address};")) == (2, 1), late
    assert run.there("run.json") == told
    assert run.left() == alone


def test_a_machine_that_comes_back_leaves_what_it_ran_last(
    run: Elsewhere, server: LoopbackServer
) -> None:
    """Another one worked there meanwhile: with captions of the same length, and a row more, that
    failed.
    """
    run.place.many(4)
    first = run.place.input.read_text()
    run.on_machine("one machine")
    assert run.run().code == 0
    before = run.left()
    run.on_machine("other machine")
    run.place.input.write_text(first.replace("Cup", "Mug") + '{"caption": "No picture."}\n')
    assert run.run().code == 1
    assert run.left().keys() == before.keys()
    assert run.left() != before
    run.on_machine("one machine")
    run.place.input.write_text(first)
    asked = server.count()
    assert run.run().code == 0
    assert (run.left(), server.count()) == (before, asked)
    assert run.told()["summary"]["images"] == 4
    assert run.run().summary["already_complete"]


class Two(Pipeline):
    def __init__(self, run: Elsewhere, server: LoopbackServer) -> None:
        self.storage = FileStorage(str(run.place.input), run.address)
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_px")
        self.extractor, self.grounder = ExpressionExtractor(serving), PhraseGrounder(serving)

    def forward(self) -> None:
        self.extractor.run(self.storage.step(), input_caption_key="caption")
        self.grounder.run(self.storage.step())


def test_a_pipeline_in_python_keeps_its_cache_there(run: Elsewhere, server: LoopbackServer) -> None:
    run.place.many(4)
    last = "dataflow_cache_step_step2.jsonl"
    first = Two(run, server).run()
    asked, there = server.count(), run.there(last)
    assert first.done == there.count(b"\n") == 4
    run.on_machine("other machine")
    assert Two(run, server).run(resume_step=1).done == 4
    assert server.count() == asked
    assert run.there(last) == there


def test_a_bucket_that_takes_nothing_for_a_while_is_told_once(
    run: Elsewhere,
    slow: LoopbackServer,
    store: FaultyStore,
    alone: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bucket, "SEND_SECONDS", 0.1)
    refused: list[str] = []

    def refuse(method: str, key: str, before: int) -> str | None:
        if method == "PUT":
            refused.append(key)
            return "403"
        return None

    def rule(request: ReceivedRequest) -> None:
        if request.index == 10:
            store.fault = refuse
        elif request.index == 50:
            wait_until(lambda: len(refused) > 2)
            store.heal()

    slow.faults = rule
    done = run.run(**{"workflow.max_workers": 4})
    assert (done.code, slow.count()) == (0, 2 * ROWS), done
    assert done.err.count("Warning: ") == 1, done
    assert run.left() == alone


def test_a_run_that_is_stopped_sends_the_files_of_steps_that_have_ended(
    run: Elsewhere, server: LoopbackServer, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine goes on with them."""
    monkeypatch.setattr(bucket, "SEND_SECONDS", HANGING)  # so that nothing is sent before the stop
    run.place.settings["workflow.stream"] = False
    stopped = run.run(**{"workflow.max_requests": ROWS + 5})
    assert stopped.code == 3, stopped
    sent = run.names()
    assert f"{STEPS[0]}/annotations.jsonl" in sent
    assert f"{STEPS[1]}/annotations.jsonl" not in sent
    assert run.told()["state"] == "stopped"
    run.on_machine("other machine")
    done = run.run(**{"workflow.steps": ["1"]})
    assert (done.code, server.count()) == (0, 2 * ROWS), done
    assert run.left() == alone


def test_a_run_that_was_taken_over_sends_no_page(run: Elsewhere, server: LoopbackServer) -> None:
    """Also where it has ended before another one began. Each publishes what it has of other rows."""
    run.place.many(6)
    first = Two(run, server)
    summary = first.run()
    FileStorage(str(run.place.input), run.address)  # the same folder once more
    run.on_machine("other machine")
    run.place.many(4)
    others = Two(run, server)
    publish(others.run(), others.storage)
    files = {name: run.there(name) for name in run.names()}
    assert files["annotations.jsonl"].count(b"\n") == 4
    assert "report.html" in files
    with pytest.raises(TakenOver, match=f"another run has taken over {run.address}"):
        publish(summary, first.storage)
    assert {name: run.there(name) for name in run.names()} == files


def test_replies_that_only_this_machine_has_stay(
    run: Elsewhere, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that couldn't be sent, though another machine has run there since: each question is paid
    for by each at most.
    """
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # else each of many tries waits for seconds
    s3fs.S3FileSystem.clear_instance_cache()
    run.on_machine("one machine")
    run.place.many(8)
    server.faults = lambda request: setattr(run.store, "down", True) if request.index == 4 else None
    stopped = run.run()
    assert stopped.code == 130, stopped
    assert f"can't write {run.address}" in stopped.err.splitlines()[-1]
    server.faults = ()
    run.store.heal()
    assert (server.count(), run.stored()) == (16, 0)
    run.on_machine("other machine")
    run.place.many(4)
    assert run.run().code == 0
    assert server.count() == 16 + 8
    run.on_machine("one machine")
    run.place.many(8)
    assert run.run().code == 0
    assert server.count() == 16 + 8
    assert run.stored() == 16 + 8
    assert run.left() == run.alone()


def test_a_step_is_begun_with_what_another_machine_left(
    run: Elsewhere, server: LoopbackServer
) -> None:
    """The records alone are brought, of all that is at the address."""
    run.place.many(4)
    assert run.run().code == 0
    asked = server.count()
    for name in ("photos.tar", "images/a.jpg", "images/a.json"):
        run.store.put(f"{run.name}/{name}", b"{}")
    work = run.on_machine("other machine")
    done = run.run(**{"workflow.steps": ["1"]})
    assert (done.code, done.summary["done"], server.count()) == (0, 4, asked), done
    [folder] = work.iterdir()
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert here >= {"run.json", *LEFT}
    assert here.isdisjoint({"photos.tar", "images/a.jpg", "images/a.json"})


@pytest.fixture
def few(run: Elsewhere) -> Elsewhere:
    """Four rows, done by a machine whose work folder JSON writes in another way."""
    run.place.many(4)
    run.on_machine("wörk folder")
    return run


def test_messages_and_files_name_the_address_and_not_the_folder_here(few: Elsewhere) -> None:
    plan = few.run("--dry-run")
    assert plan.summary["steps"][1]["writes"] == f"{few.address}/{STEPS[1]}/annotations.jsonl"
    done = command([one for one in few.arguments() if one != "--no-report"])
    assert done.code == 0, done
    assert done.summary["annotations"] == f"{few.address}/annotations.jsonl"
    assert few.there("report.html")
    assert few.told()["summary"]["failures_file"] == f"{few.address}/failures.jsonl"
    [folder] = Path(os.environ["DF_WORK_FOLDER"]).iterdir()
    assert f"Working in {folder.name} in {folder.parent}" in done.err
    assert str(folder) not in done.out + done.err + few.there("run.json").decode()


def test_what_is_gone_there_is_sent_again(few: Elsewhere, server: LoopbackServer) -> None:
    assert few.run().code == 0
    files, asked = {name: few.there(name) for name in (*LEFT, "run.json")}, server.count()
    for gone in (["annotations.jsonl"], few.names()):
        few.delete(*gone)
        done = few.run()
        complete = (done.code, done.summary["already_complete"], server.count())
        assert complete == (0, True, asked), done
        assert {name: few.there(name) for name in files} == files


def test_commands_read_what_is_there_as_in_a_folder(few: Elsewhere) -> None:
    assert few.run().code == 0
    few.alone()
    here, there = str(few.place.results), few.address
    for what in (["stats", "--json"], ["eval", "--json", "--gold", here], ["lint", "--json"]):
        said = [command([what[0], place, *what[1:]]) for place in (here, f"{there}/")]
        assert said[0].code == said[1].code, said
        assert said[1].out.replace(f"{there}/", here).replace(there, here) == said[0].out
        assert what[0] != "lint" or '"counts": {}' in said[1].out
    refused = command(["review", there])
    assert (refused.code, "copy it to this machine" in refused.err) == (2, True), refused
    for command_name in ("cost", "stats"):
        done = command([command_name, f"{there}/nothing"])
        assert (done.code, f"{there}/nothing" in done.err) == (2, True), done
    few.address = f"{there}/".replace("s3://", "S3://")
    out = few.place.folder / "odvg"
    exported = command(["export", few.address, "--format", "odvg", "-o", str(out), "--json"])
    assert (exported.code, exported.summary["records"]) == (0, 4), exported
    assert len([*out.rglob("*.jpg")]) == 1  # the pictures are found as well
    again = few.run()
    assert (again.code, again.summary["already_complete"]) == (0, True), again


def test_results_of_others_are_left_alone_and_a_bucket_that_is_not_there_is_told(
    run: Elsewhere, server: LoopbackServer
) -> None:
    found = command(["check", *run.arguments()[1:3]])  # which tries whether it can write there
    assert (found.code, run.names()) == (0, []), found
    run.store.put(f"{run.name}/annotations.jsonl", b"{}\n")
    refused = run.run()
    assert (refused.code, server.count()) == (2, 0)
    assert "was not made by a run here" in refused.err
    run.address = "s3://no-such-bucket/run"
    checked = command(["check", *run.arguments()[1:3]])
    assert checked.code == 2
    assert "results_dir s3://no-such-bucket/run: cannot write there" in checked.err + checked.out
    missing = run.run()
    assert (missing.code, server.count()) == (2, 0), missing
    assert "can't write s3://no-such-bucket/run" in missing.err
    run.address = "s3://"
    refused = run.run()
    assert (refused.code, "s3:// names no bucket" in refused.err) == (2, True), refused


def test_merge_takes_nothing_over_where_no_shard_is(run: Elsewhere, slow: LoopbackServer) -> None:
    merged = []
    meanwhile(slow, 8, lambda: merged.append(command(["merge", run.address])))
    done = run.run()
    assert [one.code for one in merged] == [2]
    assert f"{run.address} has no shards" in merged[0].err
    assert (done.code, slow.count()) == (0, 2 * ROWS), done
    assert command(["merge", f"{run.address}/nothing"]).code == 2
    assert not [name for name in run.names() if name.startswith("nothing")]
