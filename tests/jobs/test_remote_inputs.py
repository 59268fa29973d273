"""Remote inputs and pictures: an S3 on this machine, with faults; what comes of them is what
local files give.
"""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import (
    EmbeddedServing,
    ground,
)
from dataflow_grounding._util.errors import ImageMissing, MissingExtra
from dataflow_grounding._util.paths import joined, look
from dataflow_grounding.data.rows import write_rows
from dataflow_grounding.engine import image_memo
from dataflow_grounding.testing import LoopbackServer
from tests.support.labelled import Box, Labelled, labelled
from tests.support.store import BUCKET, FaultyStore, faulty_store
from tests.support.waiting import wait_until
from tests.support.workplace import HANGING, Files, Workplace, caption, command, tar_of

pytestmark = pytest.mark.slow

PICTURES, ROWS = 3, 6


@pytest.fixture(scope="module")
def one_store() -> Iterator[FaultyStore]:
    with faulty_store() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_MAX_ATTEMPTS", "1")  # so that botocore's own tries are left out
        yield running


@pytest.fixture
def store(one_store: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> FaultyStore:
    monkeypatch.setattr("dataflow_grounding._util.stores.PAUSES", (0.01, 0.02, 0.04))
    monkeypatch.setattr("dataflow_grounding.engine.workers.BUSY_SECONDS", 1.0)
    one_store.heal()
    return one_store


@pytest.fixture
def place(workplace: Workplace, server: LoopbackServer) -> Workplace:
    """Pictures in several folders, and captions of them."""
    workplace.settings["vlm.openai.base_url"] = server.base_url
    pictures = workplace.folder / "data"
    for n in range(PICTURES):
        workplace.picture(
            f"data/{n % 2}/b c{n}.jpg", size=(64 + n, 48), orientation=6 if n == 1 else 1
        )
    workplace.input = pictures / "captions.jsonl"
    named = (n % PICTURES for n in range(ROWS))
    workplace.rows(
        {"image_path": f"./{n % 2}/b c{n}.jpg", "caption": caption(number)}
        for number, n in enumerate(named)
    )
    return workplace


def rows_of(place: Workplace) -> list[dict[str, Any]]:
    return [json.loads(line) for line in place.input.read_text().splitlines()]


def alone(place: Workplace, **settings: Any) -> Files:
    """What local files give."""
    place.results = place.folder / "local"
    done = place.run(**settings)
    assert done.code in (0, 1), done
    files, place.results = place.files(), place.folder / "results"
    return files


def as_tar(rows: list[dict[str, Any]], folder: Path) -> Path:
    """A WebDataset shard of rows and their pictures."""
    members = []
    for n, row in enumerate(rows):
        members.append((f"part/{n:04}.jpg", (folder / row["image_path"]).read_bytes()))
        members.append((f"part/{n:04}.txt", row["caption"].encode()))
        members.append((f"part/{n:04}.json", json.dumps({"n": n}).encode()))
    return tar_of(folder / "a.tar", members)


def with_bytes(rows: list[dict[str, Any]], folder: Path) -> Path:
    """A Parquet file with the pictures in it."""
    import pyarrow
    import pyarrow.parquet

    stored = [
        {**row, "image_path": {"bytes": (folder / row["image_path"]).read_bytes(), "path": "a"}}
        for row in rows
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(stored), folder / "b.parquet")
    return folder / "b.parquet"


def of_type(ending: str) -> Callable[[list[dict[str, Any]], Path], Path]:
    def write(rows: list[dict[str, Any]], folder: Path) -> Path:
        write_rows(str(folder / f"rows.{ending}"), rows)
        return folder / f"rows.{ending}"

    return write


KINDS = {
    **{ending: of_type(ending) for ending in ("jsonl", "json", "csv", "parquet")},
    "tar": as_tar,
    "b": with_bytes,
}


@pytest.mark.sampled
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_elsewhere_gives_what_the_same_one_here_does(
    place: Workplace, store: FaultyStore, kind: str
) -> None:
    place.input = KINDS[kind](rows_of(place), place.folder / "data")
    expected = alone(place)
    root = store.put_all(place.folder / "data", kind)
    shutil.rmtree(place.folder / "data")
    done = place.run(**{"data.input_jsonl": f"{root}/{place.input.name}"})
    assert done.code == 0, done
    assert place.files() == expected
    run = json.loads((place.results / "run.json").read_text())
    assert root in run["image_folders"] or kind in ("tar", "b")
    assert place.run(**{"data.input_jsonl": f"{root}/{place.input.name}"}).summary[
        "already_complete"
    ]


def test_however_pictures_are_named(place: Workplace, store: FaultyStore) -> None:
    """Below `image_root`, by an address of a store, or by one of this machine."""
    root = store.put_all(place.folder / "data", "named")
    rows = [{**row, "image_id": f"r{n}"} for n, row in enumerate(rows_of(place))]
    place.rows(rows)
    expected = alone(place)
    starts = (".", root, f"file://{place.folder}/data")
    place.input = place.folder / "rows.jsonl"
    place.rows(
        {**row, "image_path": f"{starts[n % len(starts)]}/{row['image_path'][2:]}"}
        for n, row in enumerate(rows)
    )
    done = place.run(**{"data.image_root": root})
    assert done.code == 0, done
    assert [
        {**record, "image_path": row["image_path"]}
        for record, row in zip(place.annotations(), rows, strict=True)
    ] == [json.loads(line) for line in (expected.annotations or b"").splitlines()]


def test_a_folder_and_a_glob_there_name_the_pictures_in_it(
    place: Workplace, store: FaultyStore
) -> None:
    root, classes = store.put_all(place.folder / "data", "named"), {"data.classes": ["cup"]}
    expected = alone(place, **{"data.input_jsonl": f"{place.folder}/data", **classes})
    for given in (root, f"{root}/**/*.jpg"):
        shutil.rmtree(place.results, ignore_errors=True)
        done = place.run(**{"data.input_jsonl": given, **classes})
        assert (done.code, place.files()) == (0, expected), done


def test_what_passes_changes_nothing(place: Workplace, store: FaultyStore) -> None:
    expected = alone(place)
    root = store.put_all(place.folder / "data", "faults")
    passing = {
        "c0.jpg": ("503", "503"),
        "c1.jpg": ("500", "cut"),
        "c2.jpg": ("slow",),
        ".jsonl": ("503", "cut"),
    }

    def fault(method: str, key: str, before: int) -> str | None:
        if method == "LIST":  # which is late
            return "empty"
        faults = next((one for end, one in passing.items() if key.endswith(end)), ())
        return faults[before] if before < len(faults) else None

    store.fault = fault
    done = place.run(**{"data.input_jsonl": f"{root}/captions.jsonl"})
    assert (done.code, done.summary["failures"]) == (0, {}), done
    assert done.err == "\n" or not done.err, done
    assert place.files() == expected


def test_what_does_not_pass_fails_its_records_alone(place: Workplace, store: FaultyStore) -> None:
    root = store.put_all(place.folder / "data", "gone")
    statuses = {"c0.jpg": "404", "c2.jpg": "503"}
    store.fault = lambda method, key, before: statuses.get(key[-6:])
    done = place.run(**{"data.input_jsonl": f"{root}/captions.jsonl"})
    of_each = ROWS // PICTURES
    kinds = {"image_missing": of_each, "machine_busy": of_each}
    assert (done.code, done.summary["failures"]) == (1, kinds), done
    assert all(failure["retry"] for failure in place.failures())
    store.fault = lambda method, key, before: "403" if key.endswith("c0.jpg") else None
    again = place.run(**{"data.input_jsonl": f"{root}/captions.jsonl"})
    assert (again.code, again.summary["failures"]) == (1, {"image_missing": of_each}), again
    assert all(failure["retry"] for failure in place.failures())
    store.heal()
    last = place.run(**{"data.input_jsonl": f"{root}/captions.jsonl"})
    told = (last.code, last.summary["done"], last.summary["requests"])
    assert told == (0, ROWS, 2 * of_each), last


def test_a_resume_fetches_no_picture_whose_reply_is_stored(
    place: Workplace, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone(place)
    for path in (place.folder / "data").rglob("*.jpg"):
        store.put(f"once/{path.relative_to(place.folder / 'data')}", path.read_bytes())
    monkeypatch.setattr(image_memo, "YOUNG_NS", 0)  # else nothing is kept of files so young
    settings = {"data.image_root": f"s3://{BUCKET}/once"}
    assert place.run(**{**settings, "workflow.max_requests": 2 * ROWS - PICTURES}).code == 3
    from dataflow_grounding.images import image as images

    for kept in (images.kept_facts, images.kept_files):
        kept.clear()
        vars(kept).pop("held", None)
    store.heal()
    assert place.run(**settings).code == 0
    assert store.count("GET", ".jpg") <= PICTURES
    assert store.count("HEAD", ".jpg") >= PICTURES
    store.heal()
    (place.results / "annotations.jsonl").unlink()
    (place.results / "step_1_grounding/annotations.jsonl").unlink()
    assert place.run(**settings).code == 0
    assert store.count("GET", ".jpg") == 0
    assert place.files() == expected


def test_a_picture_that_changes_is_another_one(place: Workplace, store: FaultyStore) -> None:
    address = store.put("changing.jpg", (place.folder / "data/0/b c0.jpg").read_bytes())
    assert ground(address, "a cup", serving=EmbeddedServing()).size == (64, 48)
    store.put("changing.jpg", (place.folder / "data/0/b c2.jpg").read_bytes())
    assert ground(address, "a cup", serving=EmbeddedServing()).size == (66, 48)
    with pytest.raises(ImageMissing, match="No such file"):
        ground(f"s3://{BUCKET}/none.jpg", "a cup", serving=EmbeddedServing())


def test_pictures_are_fetched_side_by_side(place: Workplace, store: FaultyStore) -> None:
    """A store is asked once for the picture of a row, and once at the end, whether it has changed;
    before the first row for one or two.
    """
    root = store.put_all(place.folder / "data", "many")
    together = threading.Event()

    def until_all_are_asked_for(method: str, key: str, before: int) -> None:
        if method == "GET" and key.endswith(".jpg"):
            if store.getting >= PICTURES:
                together.set()
            together.wait(60)

    store.fault = until_all_are_asked_for
    done = place.run(**{"data.input_jsonl": f"{root}/captions.jsonl", "workflow.max_workers": 32})
    assert (done.code, together.is_set()) == (0, True), done
    assert 2 * ROWS <= store.count("HEAD", ".jpg") <= 2 * ROWS + 2


def test_a_store_that_hangs_holds_no_interrupt_up(place: Workplace, store: FaultyStore) -> None:
    root = store.put_all(place.folder / "data", "hanging")
    released = threading.Event()
    store.fault = lambda method, key, before: (
        (key.endswith(".jpg") and released.wait(120) and None) or None
    )
    running = place.start(**{"data.input_jsonl": f"{root}/captions.jsonl", "vlm.check_every": None})
    try:
        wait_until(lambda: store.count("HEAD", ".jpg") + store.count("GET", ".jpg"), running)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=HANGING)
        assert running.returncode == 130, err
    finally:
        released.set()
        running.kill()


def test_labels_elsewhere(place: Workplace, store: FaultyStore) -> None:
    data = place.folder / "data"
    cup = [Box("cup", 1, 2, 31, 22)]
    pictures = [Labelled(f"{n % 2}/b c{n}.jpg", cup, (64 + n, 48)) for n in range(PICTURES)]
    for format in ("coco", "kitti", "yolo"):
        labelled(data / format, format, pictures, drawn=False)
    (data / "yolo/labels/classes.txt").write_text("cup\n")
    root, block = store.put_all(data, "labels"), "image_referring_expression"
    for key, name in {
        "coco_json": "coco/annotations.json",
        "kitti_label_dir": "kitti/labels",
        "yolo_label_dir": "yolo/labels",
    }.items():
        told = []
        for start in (str(data), root):
            out = place.folder / f"{key}{len(told)}"
            settings = [
                f"results_dir={out}",
                f"{block}.data.image_dir={start}",
                f"{block}.data.{key}={start}/{name}",
            ]
            spec = place.folder / "referring.yaml"
            spec.write_text(
                f"autolabel_type: {block}\n{block}: {{vlm: {{backend: embedded}}, data: {{}}}}\n"
            )
            done = command(
                ["generate", "-e", str(spec), "--json", "--no-progress", "--no-report", *settings]
            )
            assert done.code in (0, 1), done
            told.append((out / "seed_annotations.jsonl").read_bytes())
        assert told[0] == told[1]
        assert told[0].count(b"bbox") >= PICTURES


def test_reports_and_exports_show_remote_pictures(place: Workplace, store: FaultyStore) -> None:
    root = store.put_all(place.folder / "data", "report")
    shutil.rmtree(place.folder / "data")
    assert place.run(**{"data.input_jsonl": f"{root}/captions.jsonl"}).code == 0
    assert command(["report", str(place.results)]).code == 0
    assert len(list((place.results / "report_files" / "thumbnails").rglob("*.*"))) == PICTURES
    out = place.folder / "out"
    assert command(["export", str(place.results), "--format", "coco", "-o", str(out)]).code == 0
    assert len(list(out.rglob("*.jpg"))) == PICTURES
    address = store.put(
        "report/annotations.jsonl", (place.results / "annotations.jsonl").read_bytes()
    )
    here = str(place.results / "annotations.jsonl")
    told = [command(["lint", given, "--json"]).out for given in (str(place.results), address)]
    assert told[0].replace(here, address) == told[1], told
    assert command(["stats", address, "--json"]).summary["records"] == ROWS
    halves = ["-o", str(place.folder / "s"), "--ratios", "0.5/0.5", "--seed", "1", "--json"]
    assert command(["split", str(place.results), *halves]).summary["unread"] == 0


def test_what_is_not_installed_is_named_in_a_line(place: Workplace) -> None:
    done = place.run(**{"data.input_jsonl": "gs://somewhere/rows.jsonl"})
    assert done.code == 2
    assert done.err.strip().splitlines()[-1].endswith("pip install 'dataflow-grounding[gs]'"), done
    with pytest.raises(MissingExtra, match=r"dataflow-grounding\[gs\]"):
        look("gs://somewhere/rows.jsonl")


def test_no_secret_of_an_address_is_told(place: Workplace, store: FaultyStore) -> None:
    secret, signature = "Zq7/hunter2-Aa81", "f00dfeedf00dfeed1234"
    place.rows(
        {"image_path": path, "caption": caption(n)}
        for n, path in enumerate(
            [
                f"s3://user:{secret}@{BUCKET}/a.jpg",
                f"s3://{BUCKET}/a.jpg?X-Amz-Signature={signature}",
                f"{place.folder}/data/0/b c0.jpg",
            ]
        )
    )
    done = place.run(**{"data.image_root": f"s3://user:{secret}@{BUCKET}/root"})
    assert done.code == 1, done
    told = done.out + done.err + (place.results / "failures.jsonl").read_text()
    told += (place.results / "run.json").read_text() + (
        place.results / ".ckpt/images.jsonl"
    ).read_text()
    assert secret not in told
    assert "hunter2" not in told
    assert signature not in told


@pytest.mark.parametrize(
    ("folder", "path", "there"),
    [
        ("s3://b/root", "a/x.jpg", "s3://b/root/a/x.jpg"),
        ("s3://b/root/", "./a//x.jpg", "s3://b/root/a/x.jpg"),
        ("s3://b", "x.jpg", "s3://b/x.jpg"),
        ("s3://b/root", "../x.jpg", "s3://b/x.jpg"),
        ("s3://b/root", "../../../other/x.jpg", "s3://b/other/x.jpg"),
        ("s3://b/root", "gs://c/x.jpg", "gs://c/x.jpg"),
        ("hf://datasets/a/b@v1/root", "../../c/x.jpg", "hf://datasets/a/b@v1/c/x.jpg"),
        ("hf://a/b/root", "../../../c/x.jpg", "hf://a/b/c/x.jpg"),
        ("s3://b/root", "/x.jpg", "/x.jpg"),
        ("s3://b/root", "file:///x.jpg", "/x.jpg"),
        ("file:///root", "x.jpg", "/root/x.jpg"),
        ("root", "../x.jpg", "root/../x.jpg"),
    ],
)
def test_paths_in_folders(folder: str, path: str, there: str) -> None:
    assert joined(folder, path) == there
