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

from dataflow_grounding import EmbeddedServing, ground
from dataflow_grounding._util.errors import ImageMissing, MissingExtra
from dataflow_grounding._util.paths import joined, look
from dataflow_grounding.data.rows import write_rows
from dataflow_grounding.engine import image_memo
from dataflow_grounding.images import image as images
from dataflow_grounding.testing import LoopbackServer
from tests.support.endpoint import with_settings
from tests.support.labelled import Box, Labelled, labelled
from tests.support.store import BUCKET, FaultyStore, faulty_store
from tests.support.waiting import wait_until
from tests.support.workplace import HANGING, Files, Workplace, caption, command, rows_of, tar_of

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
def place(workplace: Workplace) -> Workplace:
    """Pictures in several folders, and captions of them."""
    names = [f"{n % 2}/b c{n}.jpg" for n in range(PICTURES)]
    for n, name in enumerate(names):
        workplace.picture(f"data/{name}", size=(64 + n, 48), orientation=6 if n == 1 else 1)
    workplace.input = workplace.folder / "data" / "captions.jsonl"
    workplace.rows(
        {"image_path": f"./{names[n % PICTURES]}", "caption": caption(n)} for n in range(ROWS)
    )
    return workplace


def there(root: str) -> dict[str, str]:
    """The setting that reads the captions at an address."""
    return {"data.input_jsonl": f"{root}/captions.jsonl"}


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
    place.input = KINDS[kind](rows_of(place.input), place.folder / "data")
    expected = alone(place)
    root = store.put_all(place.folder / "data", kind)
    shutil.rmtree(place.folder / "data")
    given = {"data.input_jsonl": f"{root}/{place.input.name}"}
    done = place.run(**given)
    assert done.code == 0, done
    assert place.files() == expected
    assert root in place.run_json()["image_folders"] or kind in ("tar", "b")
    assert place.run(**given).summary["already_complete"]


def test_however_pictures_are_named(place: Workplace, store: FaultyStore) -> None:
    """Below `image_root`, by an address of a store, or by one of this machine."""
    root = store.put_all(place.folder / "data", "named")
    rows = [{**row, "image_id": f"r{n}"} for n, row in enumerate(rows_of(place.input))]
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
    records = zip(place.annotations(), rows, strict=True)
    assert [{**record, "image_path": row["image_path"]} for record, row in records] == [
        json.loads(line) for line in (expected.annotations or b"").splitlines()
    ]


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
    done = place.run(**there(root))
    assert (done.code, done.summary["failures"]) == (0, {}), done
    assert done.err == "\n" or not done.err, done
    assert place.files() == expected


def test_what_does_not_pass_fails_its_records_alone(place: Workplace, store: FaultyStore) -> None:
    root = store.put_all(place.folder / "data", "gone")
    statuses = {"c0.jpg": "404", "c2.jpg": "503"}
    store.fault = lambda method, key, before: statuses.get(key[-6:])
    done = place.run(**there(root))
    of_each = ROWS // PICTURES
    kinds = {"image_missing": of_each, "machine_busy": of_each}
    assert (done.code, done.summary["failures"]) == (1, kinds), done
    assert all(failure["retry"] for failure in place.failures())
    store.fault = lambda method, key, before: "403" if key.endswith("c0.jpg") else None
    again = place.run(**there(root))
    assert (again.code, again.summary["failures"]) == (1, {"image_missing": of_each}), again
    assert all(failure["retry"] for failure in place.failures())
    store.heal()
    last = place.run(**there(root))
    told = (last.code, last.summary["done"], last.summary["requests"])
    assert told == (0, ROWS, 2 * of_each), last


def test_a_resume_fetches_no_picture_whose_reply_is_stored(
    place: Workplace, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone(place)
    monkeypatch.setattr(image_memo, "YOUNG_NS", 0)  # else nothing is kept of files so young
    settings = {"data.image_root": store.put_all(place.folder / "data", "once")}
    assert place.run(**{**settings, "workflow.max_requests": 2 * ROWS - PICTURES}).code == 3
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
    for n in (0, 2):
        picture = (place.folder / f"data/0/b c{n}.jpg").read_bytes()
        address = store.put("changing.jpg", picture)
        assert ground(address, "a cup", serving=EmbeddedServing()).size == (64 + n, 48)
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
    done = place.run(**there(root), **{"workflow.max_workers": 32})
    assert (done.code, together.is_set()) == (0, True), done
    assert 2 * ROWS <= store.count("HEAD", ".jpg") <= 2 * ROWS + 2


def test_a_store_that_hangs_holds_no_interrupt_up(place: Workplace, store: FaultyStore) -> None:
    root = store.put_all(place.folder / "data", "hanging")
    released = threading.Event()

    def hangs(method: str, key: str, before: int) -> None:
        if key.endswith(".jpg"):
            released.wait(120)

    store.fault = hangs
    running = place.start(**there(root))
    try:
        wait_until(lambda: store.count("HEAD", ".jpg") + store.count("GET", ".jpg"), running)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=HANGING)
        assert running.returncode == 130, err
    finally:
        released.set()
        running.kill()


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("coco_json", "coco/annotations.json"),
        ("kitti_label_dir", "kitti/labels"),
        ("yolo_label_dir", "yolo/labels"),
    ],
)
def test_labels_elsewhere(place: Workplace, store: FaultyStore, key: str, path: str) -> None:
    data, format = place.folder / "data", path.partition("/")[0]
    cup = [Box("cup", 1, 2, 31, 22)]
    pictures = [Labelled(f"{n}/b c{n}.jpg", cup, (64 + n, 48)) for n in range(2)]
    labelled(data / format, format, pictures, drawn=False)
    if format == "yolo":
        (data / "yolo/labels/classes.txt").write_text("cup\n")
    place.kind = "image_referring_expression"
    told = []
    for start in (str(data), store.put_all(data, format)):
        of_labels = {"data.image_dir": start, f"data.{key}": f"{start}/{path}"}
        spec = place.written({"vlm.backend": "embedded", **of_labels})
        done = command(["generate", "-e", str(spec), "--json", "--no-progress", "--no-report"])
        assert done.code in (0, 1), done
        told.append((place.results / "seed_annotations.jsonl").read_bytes())
        shutil.rmtree(place.results)
    assert told[0] == told[1]
    assert told[0].count(b"bbox") >= 2


@pytest.fixture(scope="module")
def of_remote_pictures(
    one_store: FaultyStore, one_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory
) -> Workplace:
    """The results of a run whose input and pictures are in a store alone."""
    one_store.heal()
    with_settings(one_server)
    place = Workplace(tmp_path_factory.mktemp("remote"), one_server.base_url)
    names = [place.picture(f"data/{n}.jpg", (64 + n, 48)) for n in range(PICTURES)]
    place.input = place.folder / "data" / "captions.jsonl"
    place.rows({"image_path": f"./{name[5:]}", "caption": "A cup"} for name in names)
    root = one_store.put_all(place.folder / "data", "report")
    shutil.rmtree(place.folder / "data")
    assert place.run(**there(root)).code == 0
    return place


def test_a_report_shows_remote_pictures(of_remote_pictures: Workplace) -> None:
    results = of_remote_pictures.results
    assert command(["report", str(results)]).code == 0
    assert len(list((results / "report_files" / "thumbnails").rglob("*.*"))) == PICTURES


def test_an_export_has_remote_pictures(of_remote_pictures: Workplace, tmp_path: Path) -> None:
    results = str(of_remote_pictures.results)
    assert command(["export", results, "--format", "coco", "-o", str(tmp_path)]).code == 0
    assert len(list(tmp_path.rglob("*.jpg"))) == PICTURES


def test_what_looks_at_results_takes_an_address(
    of_remote_pictures: Workplace, store: FaultyStore, tmp_path: Path
) -> None:
    here = of_remote_pictures.results / "annotations.jsonl"
    address = store.put("report/annotations.jsonl", here.read_bytes())
    told = [command(["lint", given, "--json"]).out for given in (str(here.parent), address)]
    assert told[0].replace(str(here), address) == told[1], told
    assert command(["stats", address, "--json"]).summary["records"] == PICTURES
    halves = ["-o", str(tmp_path / "parts"), "--ratios", "0.5/0.5", "--seed", "1", "--json"]
    assert command(["split", str(here.parent), *halves]).summary["unread"] == 0


def test_what_is_not_installed_is_named_in_a_line(place: Workplace) -> None:
    done = place.run(**{"data.input_jsonl": "gs://somewhere/rows.jsonl"})
    assert done.code == 2
    assert done.err.strip().splitlines()[-1].endswith("pip install 'dataflow-grounding[gs]'"), done
    with pytest.raises(MissingExtra, match=r"dataflow-grounding\[gs\]"):
        look("gs://somewhere/rows.jsonl")


def test_no_secret_of_an_address_is_told(place: Workplace, store: FaultyStore) -> None:
    secret, signature = "Zq7/hunter2-Aa81", "f00dfeedf00dfeed1234"
    paths = [
        f"s3://user:{secret}@{BUCKET}/a.jpg",
        f"s3://{BUCKET}/a.jpg?X-Amz-Signature={signature}",
        f"{place.folder}/data/0/b c0.jpg",
    ]
    place.rows({"image_path": path, "caption": caption(n)} for n, path in enumerate(paths))
    done = place.run(**{"data.image_root": f"s3://user:{secret}@{BUCKET}/root"})
    assert done.code == 1, done
    told = done.out + done.err
    for name in ("failures.jsonl", "run.json", ".ckpt/images.jsonl"):
        told += (place.results / name).read_text()
    assert [part for part in (secret, "hunter2", signature) if part in told] == []


@pytest.mark.parametrize(
    ("folder", "path", "there"),
    [
        ("s3://b/root", "a/x.jpg", "s3://b/root/a/x.jpg"),
        ("s3://b/root/", "./a//x.jpg", "s3://b/root/a/x.jpg"),
        ("s3://b/root", "../x.jpg", "s3://b/x.jpg"),
        ("s3://b/root", "gs://c/x.jpg", "gs://c/x.jpg"),
        ("hf://datasets/a/b@v1/root", "../../c/x.jpg", "hf://datasets/a/b@v1/c/x.jpg"),
        ("s3://b/root", "file:///x.jpg", "/x.jpg"),
    ],
)
def test_paths_in_folders(folder: str, path: str, there: str) -> None:
    assert joined(folder, path) == there
