"""Nothing paid for is lost or paid for twice: each sentence of that promise, against a loopback
endpoint that counts.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dataflow_grounding import (
    CaptionGrounder,
    FileStorage,
    OpenAIServing,
    PhraseGrounder,
    Pipeline,
    operator,
)
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.testing import (
    Answer,
    EchoAnswers,
    LoopbackServer,
    ReceivedRequest,
    Usage,
    on,
)
from dataflow_grounding.testing.faults import Fault
from tests.support import faults
from tests.support.endpoint import endpoint_of
from tests.support.fault_cases.fault_case import undisturbed
from tests.support.takes import Takes
from tests.support.workplace import LONG_AGO, Done, Rows, Workplace, caption, rows_of

KEY = "image_grounding.vlm.openai"


@pytest.fixture
def ten(workplace: Workplace, server: LoopbackServer) -> Workplace:
    """Ten records, each with a picture of its own, done: 20 requests were sent."""
    rows = []
    for n in range(10):
        workplace.picture(f"p{n}.bmp", color=f"#{n:02}{n:02}30")  # all have the same size
        os.utime(workplace.folder / f"p{n}.bmp", LONG_AGO)  # so that its row is kept
        rows.append({"image_path": f"p{n}.bmp", "caption": caption(n)})
    workplace.rows(rows)
    workplace.settings["vlm.openai.base_url"] = server.base_url
    done = workplace.run()
    assert (done.code, server.count()) == (0, 20), done
    return workplace


# --- what asks again, and what costs nothing

Change = Callable[[Workplace], object]
MARK = ".ckpt/facts.json"


def gone(*names: str) -> Change:
    """These files of the results are gone."""

    def change(place: Workplace) -> None:
        for name in names:
            for path in place.results.glob(name):
                path.unlink()

    return change


def in_rows(changed: Callable[[Rows], Rows]) -> Change:
    return lambda place: place.rows(changed(rows_of(place.input)))


def in_store(changed: Callable[[list[bytes]], list[bytes]]) -> Change:
    """The lines of the store are changed so, and read."""

    def change(place: Workplace) -> None:
        lines = place.replies.read_bytes().splitlines(keepends=True)
        place.replies.write_bytes(b"".join(changed(lines)))
        gone(MARK)(place)

    return change


def as_once(line: bytes) -> bytes:
    """With fewer keys, in another order."""
    kept = json.loads(line)
    return json.dumps({"reply": kept["reply"], "v": 0, "key": kept["key"]}).encode() + b"\n"


def renamed(place: Workplace) -> None:
    rows = rows_of(place.input)
    for n, row in enumerate(rows):
        os.rename(place.folder / row["image_path"], place.folder / f"new name {n}.bmp")
        row |= {"image_path": f"new name {n}.bmp", "image_id": f"id{n}", "note": "new"}
    place.rows(rows)


def swapped(place: Workplace) -> None:
    os.rename(place.folder / "p4.bmp", place.folder / "kept.bmp")
    os.rename(place.folder / "p5.bmp", place.folder / "p4.bmp")
    os.rename(place.folder / "kept.bmp", place.folder / "p5.bmp")


def edited_in_place(place: Workplace) -> None:
    place.picture("p4.bmp", color="white")
    os.utime(place.folder / "p4.bmp", LONG_AGO)


NEW_CAPTION = {"caption": caption(55)}
NEW_ROW = {"image_path": "p0.bmp", "caption": caption(77)}
NO_LINES = b"not a line of a store\n\n{}\n[]\n"
# What is changed, how, and how many requests that costs.
Changes = list[tuple[str, Change, int]]
OF_FILES: Changes = [
    ("the mark of a finished run is gone", gone(MARK), 0),
    ("what is known of images is gone", gone(MARK, ".ckpt/images.jsonl"), 0),
    ("the results are gone", gone("**/annotations.jsonl", "failures.jsonl", "run.json"), 0),
    ("all but the replies is gone", Workplace.forget_all_but_replies, 0),
    ("a store of an older version", in_store(lambda lines: [*map(as_once, lines)]), 0),
    (
        "a damaged line in the store",
        in_store(lambda lines: [lines[0][:60] + b"\x00\xff" + lines[0][62:], *lines[1:]]),
        1,
    ),
    ("a last line of zeros", in_store(lambda lines: [*lines[:-1], bytes(len(lines[-1]))]), 1),
    ("a torn last line", in_store(lambda lines: [*lines[:-1], lines[-1][:40]]), 1),
    ("every line twice, and no lines", in_store(lambda lines: [*lines, *lines, NO_LINES]), 0),
]
OF_ROWS: Changes = [
    ("rows reordered", in_rows(lambda rows: rows[::-1]), 0),
    ("two images of one size and time exchanged", swapped, 4),
    ("an image edited in place, with its time", edited_in_place, 2),
    ("a caption changed", in_rows(lambda rows: [{**rows[0], **NEW_CAPTION}, *rows[1:]]), 2),
    ("a row added at the top", in_rows(lambda rows: [NEW_ROW, *rows]), 2),
    ("a row removed", in_rows(lambda rows: rows[1:]), 0),
    ("rows and images renamed, a column added", renamed, 0),
    ("every row twice", in_rows(lambda rows: rows * 2), 0),
]
OF_SETTINGS: dict[str, tuple[list[str], int]] = {
    "another model": ([f"{KEY}.model_name=other"], 20),
    "another temperature": ([f"{KEY}.temperature=0.1"], 20),
    "another box format": (["image_grounding.vlm.box_format=xyxy_64"], 10),
    "another key": ([f"{KEY}.api_key=sk-another"], 0),
    "step by step": (["image_grounding.workflow.stream=false"], 0),
    "step 1 alone": (["image_grounding.workflow.steps=[1]"], 0),
    "a pilot": (["--pilot", "3"], 0),
    "force_reprocess": (["image_grounding.workflow.force_reprocess=true"], 20),
    "--retry-failed with no failures": (["--retry-failed"], 0),
}


def is_complete(done: Done) -> bool:
    return (done.code, done.summary["already_complete"]) == (0, True)


@pytest.mark.parametrize("changes", [OF_FILES, OF_ROWS], ids=["files", "rows"])
def test_only_what_changed_is_asked_again(
    ten: Workplace, server: LoopbackServer, changes: Changes
) -> None:
    """In one folder, one change after the other: what one has cost is stored before the next."""
    for name, change, sent in changes:
        before, files = server.count(), ten.files()
        change(ten)
        done = ten.run()
        assert (done.code, server.count() - before) == (0, sent), (name, done)
        if changes is OF_FILES:
            assert ten.files() == files, name
            assert (ten.results / "failures.jsonl").exists(), name
            assert ten.run_json()["summary"]["done"] == 10, name
    assert is_complete(ten.run())


def test_only_what_a_setting_changes_is_asked_again(ten: Workplace, server: LoopbackServer) -> None:
    for name, (arguments, sent) in OF_SETTINGS.items():
        before = server.count()
        done = ten.run(*arguments)
        assert (done.code, server.count() - before) == (0, sent), (name, done)
        if sent and "force" not in name:
            gone(MARK)(ten)
            assert ten.run(*arguments).code == 0
            assert server.count() - before == sent, (name, "it is stored")
            assert is_complete(ten.run(*arguments)), name


def test_a_complete_run_says_so(ten: Workplace, server: LoopbackServer) -> None:
    stamps = {path: path.stat().st_mtime_ns for path, _ in ten.everything()}
    done = ten.run()
    assert is_complete(done)
    assert (done.summary["requests"], done.summary["done"]) == (0, 10)
    later = {path: path.stat().st_mtime_ns for path, _ in ten.everything()}
    assert later == stamps, "nothing was written again"


def test_no_budget_needs_no_request_when_all_is_there(
    ten: Workplace, server: LoopbackServer
) -> None:
    gone(MARK)(ten)
    assert ten.run("image_grounding.workflow.max_requests=0").code == 0
    assert server.count() == 20


def test_two_equal_rows_are_paid_for_once(workplace: Workplace) -> None:
    workplace.picture("a.jpg")
    workplace.picture("b.jpg")  # the same bytes under another name
    rows = [{"image_path": f"{name}.jpg", "caption": caption(1)} for name in "abaab" * 10]
    workplace.rows(rows)
    workplace.settings["workflow.max_workers"] = 2
    with endpoint_of(workplace, latency=0.05) as server:
        done = workplace.run()
        assert (done.code, server.count()) == (0, 2), done
        server.latency = 0.0
        done = workplace.run("image_grounding.workflow.force_reprocess=true")
        assert (done.code, server.count()) == (0, 4), done
    records = workplace.annotations()
    ids = [e["expression_id"] for record in records for e in record["expressions"]]
    assert len(set(ids)) == len(ids) == 100
    assert len({json.dumps([e["text"] for e in record["expressions"]]) for record in records}) == 1


def test_a_pilot_is_spread_over_the_input_with_the_full_runs_ids(workplace: Workplace) -> None:
    rows = []
    for place in range(12):
        folder = f"folder{place // 4}"
        workplace.picture(f"{folder}/a.jpg", size=(64, 48 + place // 4))
        rows.append({"image_path": f"{folder}/a.jpg", "caption": caption(place)})
    workplace.rows(rows)
    with endpoint_of(workplace):
        assert workplace.run("--pilot", "5").code == 0
        of_pilot = workplace.annotations()
        assert workplace.run("--pilot", "5").summary["requests"] == 0
        assert workplace.run().summary["requests"] == 14
    of_all = workplace.annotations()
    assert of_pilot == [of_all[place] for place in (0, 3, 5, 8, 10)]
    assert of_pilot[1]["image_id"] == "folder0/a"


def test_a_pilot_of_a_table_in_which_columns_are_renamed_is_spread_too(
    workplace: Workplace,
) -> None:
    workplace.picture()
    table = workplace.folder / "rows.csv"
    lines = [f"a.jpg,{caption(place)}\n" for place in range(6)]
    table.write_text("file,text\n" + "".join(lines))
    workplace.settings |= {
        "data.input_jsonl": str(table),
        "data.columns": {"image": "file", "caption": "text"},
    }
    with endpoint_of(workplace):
        assert workplace.run("--pilot", "2").code == 0
    captions = [record["caption"] for record in workplace.annotations()]
    assert captions == [caption(0), caption(3)]


def test_a_pilot_of_a_pipe_takes_its_first_rows_and_says_so(workplace: Workplace) -> None:
    workplace.many(4)
    pipe = workplace.folder / "pipe.jsonl"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[workplace.input.read_bytes()])
    workplace.settings["data.input_jsonl"] = str(pipe)
    with endpoint_of(workplace):
        writer.start()
        done = workplace.run("--pilot", "2")
        writer.join()
    assert f"{pipe} can be read once only: the pilot takes its first 2 rows" in done.err, done
    assert [record["image_id"] for record in workplace.annotations()] == ["r0", "r1"]


# --- failures: which are tried again, and when

# A fault, its kind, and how many requests a record costs that meets it in its first step: at first,
# by the same command again, and with --retry-failed.
FAILURES: dict[str, tuple[Fault, str, int, int, int]] = {
    "a server fault is tried again": (faults.server_error(500), "server_fault", 3, 3, 3),
    "a refusal stands": (faults.refusal(), "refused", 1, 0, 1),
    "a filtered reply stands": (faults.filtered_reply(), "refused", 1, 0, 1),
    "a request that an error refuses is asked again": (faults.content_filter(), "refused", 1, 1, 1),
    "so is a flagged one": (Fault(403, "Your input was flagged."), "refused", 1, 1, 1),
    "and one about no image": (Fault(404, "No such image."), "refused", 1, 1, 1),
    "an unreadable reply stands": (faults.says("I see a cup."), "unreadable_reply", 3, 0, 3),
    "a truncated caption reply stands": (faults.truncated(), "truncated_reply", 3, 0, 3),
}


def is_sign_of_life(request: ReceivedRequest) -> bool:
    """Whether it only asks if the endpoint works: after a fault that was answered last."""
    return re.fullmatch("Cup [0-9a-f]{8}", request.input.get("caption", "")) is not None


def test_failures(workplace: Workplace) -> None:
    """Every second record meets one of them."""
    workplace.many(20)
    kinds = {2 * n + 1: case for n, case in enumerate(FAILURES.values())}
    rules = [on(fault, containing=f"Cup {n} ") for n, (fault, *_) in kinds.items()]
    with endpoint_of(workplace, faults=rules) as server:

        def sent(*arguments: str) -> dict[int, int]:
            """How many requests a run costs for each record that fails."""
            before = len(server.requests)
            assert workplace.run(*arguments).code == 1
            texts = [r.text for r in server.requests[before:] if not is_sign_of_life(r)]
            return {n: sum(f"Cup {n} " in text for text in texts) for n in kinds}

        def as_said(counts: dict[int, int], column: int) -> bool:
            # A fault is the request's own once something that was sent later is answered. Where
            # nothing was yet, and the endpoint then answers a small question, the request is sent
            # once more.
            return all(
                0 <= counts[n] - case[column] <= (case[1] == "server_fault")
                for n, case in kinds.items()
            )

        # The first request also finds out what the endpoint takes; let it be another record's.
        assert workplace.run("--pilot", "1").code == 0
        first = sent()
        assert as_said(first, 2), first
        assert server.count() >= 2 * (20 - len(kinds)) + sum(first.values())
        failed = [(f["id"], f["kind"], f["attempts"]) for f in workplace.failures()]
        assert failed == [(f"r{n}", case[1], first[n]) for n, case in kinds.items()]
        records = [record["image_id"] for record in workplace.annotations()]
        assert records == [f"r{n}" for n in range(20) if n not in kinds]
        again = sent()
        assert as_said(again, 3), again
        retried = sent("--retry-failed")
        assert as_said(retried, 4), retried
        server.faults = ()
        before = server.count()
        assert workplace.run("--retry-failed").code == 0
        assert server.count() == before + 2 * len(kinds), "mended, each is asked once more"
        assert workplace.failures() == []
        assert workplace.files() == undisturbed(20)
        assert workplace.run("--retry-failed").code == 0
        assert server.count() == before + 2 * len(kinds)


def test_an_image_that_was_missing_is_tried_again_by_the_same_command(workplace: Workplace) -> None:
    workplace.picture("a.jpg")
    workplace.rows(
        [{"image_path": f"{name}.jpg", "caption": caption(n)} for n, name in enumerate("ab")]
    )
    with endpoint_of(workplace) as server:
        assert (workplace.run().code, server.count()) == (1, 2)
        workplace.picture("b.jpg")
        assert (workplace.run().code, server.count()) == (0, 4)


def test_no_error_text_ever_lands_in_a_data_column(workplace: Workplace) -> None:
    workplace.many(20)
    mark = "ZZ-error-text"
    rules = [
        on(faults.bad_request(mark), share=0.2, seed=1),
        on(faults.server_error(500), share=0.3, seed=2),
        on(faults.says(mark), share=0.2, seed=3),
        on(faults.refusal(mark), share=0.1, seed=4),
    ]
    with endpoint_of(workplace, faults=rules):
        done = workplace.run()
    assert done.summary["done"] + done.summary["failed"] == 20
    for content in workplace.files():
        assert content is None or (mark.encode() not in content and b"rror" not in content)
    for record in workplace.annotations():
        assert all(e["status"] in ("grounded", "none") for e in record["expressions"])


# --- budget


def test_max_requests_is_never_passed_and_the_same_command_goes_on(workplace: Workplace) -> None:
    """At two endpoints together, whatever they answer."""
    count = 10
    workplace.many(count)
    often_busy = {"latency": 0.005, "faults": [on(faults.too_many_requests(0), share=0.2)]}
    with LoopbackServer(**often_busy) as one, LoopbackServer(**often_busy) as other:
        both = {
            "vlm.openai.base_url": "",
            "vlm.openai.endpoints": [one.base_url, other.base_url],
            "workflow.max_requests": 7,
        }
        codes = []
        for _ in range(8):
            before = one.count() + other.count()
            done = workplace.run(**both)
            codes.append(done.code)
            if done.code != 3:
                assert one.count() + other.count() - before <= 7
                break
            assert one.count() + other.count() - before == 7
            assert "max_requests=7" in done.err
            assert "; the rest takes about" in done.err
        assert codes[-1] == 0
        assert set(codes[:-1]) == {3}
        assert one.count(200) + other.count(200) == 2 * count
    assert workplace.files() == undisturbed(count)


def test_max_requests_counts_those_that_find_out_what_the_endpoint_takes(
    workplace: Workplace,
) -> None:
    workplace.many(3)
    with endpoint_of(workplace, takes=Takes(response_formats=())) as server:
        done = workplace.run("image_grounding.workflow.max_requests=2")
        assert (done.code, server.count()) == (3, 2), done
        done = workplace.run("image_grounding.workflow.max_requests=8")
        assert (done.code, server.count()) == (0, 10), done
        assert done.summary["requests"] == 8


PRICES = {"input": 100.0, "output": 1000.0, "cached_input": 100.0}


@pytest.fixture
def priced(workplace: Workplace) -> Workplace:
    workplace.many(40)
    workplace.settings |= {"vlm.openai.max_tokens": 300, "vlm.prices": PRICES}
    return workplace


def test_budget_usd_is_never_passed_and_is_used_up(priced: Workplace) -> None:
    priced.settings["workflow.max_workers"] = 16
    with endpoint_of(priced, latency=0.01) as server:
        done = priced.run("--budget-usd", "6")
        assert done.code == 3, done
        # What is in flight is waited for before it stops: under two worst cases are left.
        assert 6 - 2 * 1.0 < done.summary["cost_usd"] <= 6
        assert "budget_usd=6" in done.err
        assert "USD" in done.err.split("the rest takes about")[1]
        first = server.count()
        assert priced.run("--budget-usd", "6").code in (0, 3)
        assert server.count() > first, "the budget is one run's"
        assert priced.run("--budget-usd", "100").code == 0
        assert server.count() == 80


@pytest.mark.parametrize(
    ("usage", "most"),
    [
        pytest.param(Usage(0, 0), 20, id="no usage"),
        pytest.param(Usage(-5_000, 0, -5_000), 20, id="less than nothing"),
        pytest.param(Usage(8_000, 10_000_000, 0), 20, id="more cached than sent"),
        # what it tells counts, and the worst case for the rest
        pytest.param(Usage(0, 0, 1), 32, id="of the reply alone"),
        pytest.param(Usage(100, 0, 0), 32, id="of the question alone"),
    ],
)
def test_a_budget_holds_whatever_usage_the_endpoint_claims(
    priced: Workplace, usage: Usage, most: int
) -> None:
    echo = EchoAnswers()
    with endpoint_of(
        priced, lambda request: Answer(json.dumps(echo(request)), usage=usage)
    ) as server:
        done = priced.run("--budget-usd", "10")
        assert done.code == 3, done
        assert server.count() < most


def test_unanswered_requests_count_at_their_worst_case(priced: Workplace) -> None:
    with endpoint_of(priced, faults=[on(faults.cut_body(0.5))]) as server:
        done = priced.run("--budget-usd", "3")
        assert done.code == 3, done
        assert server.count() <= 6


@pytest.mark.parametrize("budget", ["nan", "-1", "much"])
def test_a_budget_that_is_none_is_refused(priced: Workplace, budget: str) -> None:
    done = priced.run("--budget-usd", budget)
    assert done.code == 2, done


def test_other_limits_of_pictures_are_other_settings(
    workplace: Workplace, server: LoopbackServer
) -> None:
    path = workplace.folder / workplace.picture(size=(1200, 900))
    os.utime(path, LONG_AGO)
    workplace.rows([{"image_path": "a.jpg", "expressions": ["a cup"]}])
    for largest in (1200, 600):
        serving = OpenAIServing(
            server.base_url, "m", box_format="xyxy_px", image_limits=ImageLimits(max_side=largest)
        )
        storage = FileStorage(str(workplace.input), str(workplace.folder / "cache"))
        PhraseGrounder(serving, check_every=None).run(storage.step())
    assert server.count() == 2


def test_a_picture_that_a_step_makes_is_a_part_of_a_finished_run(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.picture("made.jpg")
    workplace.rows([{"caption": "A red cup."}])
    os.utime(workplace.folder / "made.jpg", LONG_AGO)

    @operator(reads=["caption"], writes=["made"])
    def make(record: dict[str, Any]) -> dict[str, Any]:
        return {"made": "made.jpg"}

    class Made(Pipeline):
        def __init__(self) -> None:
            self.storage = FileStorage(str(workplace.input), str(workplace.folder / "cache"))
            serving = OpenAIServing(server.base_url, "m", box_format="xyxy_px")
            self.grounder = CaptionGrounder(serving, check_every=None)

        def forward(self) -> None:
            make.run(self.storage.step())
            self.grounder.run(self.storage.step(), input_image_key="made")

    def run() -> Summary:
        pipeline = Made()
        pipeline.compile()
        return pipeline.run()

    assert not run().already_complete
    assert run().already_complete
    workplace.picture("made.jpg", size=(400, 300))
    assert not run().already_complete
    assert server.count() == 2
