"""The law of rows: no matter what a row says of its picture, it is that record's failure, and no host is
asked unasked.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fsspec.registry import known_implementations

from dataflow_grounding import EmbeddedServing, PhraseGrounder, ground
from dataflow_grounding._util import stores
from dataflow_grounding._util.errors import GroundingError, MissingExtra, RecordError
from dataflow_grounding.data.records import Record
from dataflow_grounding.data.results_folder import image_folders_of
from dataflow_grounding.images.image import find_image
from tests.support.reviewing import look_at_all
from tests.support.workplace import Workplace, caption, command

OWN = {"file", "http", "https", "s3", "s3a", "gs", "gcs", "hf"}
SCHEMES = sorted({*known_implementations, "gopher", "x-unheard.of"} - OWN)
STORES = [
    "s3://bucket/a.jpg",
    "gs://bucket/a.jpg",
    "hf://datasets/a/b/c.jpg",
    "hf://",
    "S3://bucket/b.jpg",
]
WEB = ["http://127.0.0.1:9/a.jpg", "HTTPS://127.0.0.1:9/a.jpg"]
ODD: list[Any] = [
    *("", None, 7, True, ["a.jpg"], {"bytes": 7}, 10**400),
    *("a\0.jpg", "a\nb.jpg", "\ud800.jpg", "gone.jpg", "empty.jpg", "locked/a.jpg", "pipe"),
    *("x" * 5000, "/" * 5000, ".", "~", "/dev/zero", "file:///dev/zero", "file://"),
    *("://x", "s3:/bucket", "simplecache::ftp://127.0.0.1/x"),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that fsspec was to open; the stores of the extras aren't installed."""
    addresses: list[str] = []

    def place_of(address: str) -> Any:
        addresses.append(address)
        raise MissingExtra("a store", "s3")

    monkeypatch.setattr(stores, "place_of", place_of)
    return addresses


def rows(schemes: list[str] = SCHEMES) -> list[dict[str, Any]]:
    """A good row at either end, and one of every kind between them."""
    addresses = [f"{scheme}://127.0.0.1:9/a.jpg" for scheme in schemes]
    addresses += [f"{scheme.upper()}://u:p@127.0.0.1:9/a.jpg" for scheme in schemes]
    given = ["good.jpg", *addresses, *STORES, *WEB, *ODD, "good.jpg"]
    found = {"status": "grounded", "instances": [{"bbox": [1, 2, 30, 40], "score": 0.5}]}
    expressions = [{"text": "a cup", **found}]
    return [
        {"image_path": path, "image_id": f"r{n}", "caption": caption(n), "expressions": expressions}
        for n, path in enumerate(given)
    ]


@pytest.fixture
def place(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    workplace.picture("good.jpg")
    (workplace.folder / "empty.jpg").touch()
    os.mkfifo(workplace.folder / "pipe")
    monkeypatch.chdir(workplace.folder)
    return workplace


def test_no_row_ends_a_run_and_none_asks_a_host(place: Workplace, asked: list[str]) -> None:
    names = ("image_path", "image_id", "caption")
    given = [{name: row[name] for name in names} for row in rows()]
    place.rows(map(json.dumps, given))
    done = place.run()
    assert done.code == 1, done
    assert [record["image_id"] for record in place.annotations()] == ["r0", f"r{len(given) - 1}"]
    told = {failure["id"]: failure for failure in place.failures()}
    assert len(told) == len(given) - 2
    for row in given[1 : 1 + 2 * len(SCHEMES)]:
        failure = told[row["image_id"]]
        if "_" in row["image_path"]:  # no address has such a scheme: it is a file that isn't there
            continue
        assert failure["kind"] == "broken_row", failure
        assert "data.image_root" in failure["message"]
        assert "u:p@" not in failure["message"]
    assert {stores.scheme_of(address) for address in asked} <= OWN
    assert place.check().code == 2  # which lists what it found
    assert command(["estimate", "-e", str(place.spec())]).code == 0


def test_no_row_ends_a_command(place: Workplace, asked: list[str]) -> None:
    results = place.folder / "given"
    results.mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows(SCHEMES[::8]))
    (results / "annotations.jsonl").write_text(text)
    folders = [str(place.folder), "ftp://127.0.0.1:9/x"]
    (results / "run.json").write_text(json.dumps({"image_folders": folders}))
    for line in (
        "stats",
        "lint",
        "report --single-file",
        "split -o parts --ratios 0.5/0.5",
        "export --format coco -o as_coco",
        "export --format webdataset -o as_webdataset",
        "export --format llava -o llava --images reference --target qwen3-vl",
    ):
        name, *options = line.split()
        done = command([name, str(results), *options])
        assert done.code == (1 if name in ("lint", "export") else 0), done
        assert "Traceback" not in done.err
    look_at_all(str(results))
    assert {stores.scheme_of(address) for address in asked} <= OWN


def test_in_memory_a_row_fails_alone(place: Workplace, asked: list[str]) -> None:
    grounder = PhraseGrounder(EmbeddedServing())
    given = [{**row, "expressions": ["a cup"]} for row in rows()]
    done = grounder(given)
    assert len(done) == 2
    assert len(done.failures) == len(given) - 2
    assert all(isinstance(error, RecordError) for _, error in done.failures)
    for row in (*given[1 : 1 + len(SCHEMES)], {"image_path": STORES[0]}):
        with pytest.raises(GroundingError) as told:
            ground(row["image_path"], "a cup", serving=EmbeddedServing())
        assert "\n" not in str(told.value)
    assert {stores.scheme_of(address) for address in asked} <= OWN


def test_a_scheme_that_the_user_named_may_stand_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def look(path: str) -> stores.State:
        looked.append(path)
        return stores.State(1, 1, "file")

    monkeypatch.setattr("dataflow_grounding.images.image.look", look)
    for path in ("abfs://box/b.jpg", "ABFS://box/b.jpg", "b.jpg", "s3://bucket/b.jpg"):
        find_image(Record({"image": path}, ("abfs://box/a",)), "image")
    assert len(looked) == 4
    # of this machine's files no store is asked
    assert find_image(Record({"image": __file__}, ("abfs://box/a",)), "image").path == __file__
    assert len(looked) == 4
    for path in ("ftp://box/b.jpg", "abf://box/b.jpg"):
        with pytest.raises(RecordError, match="which rows may not"):
            find_image(Record({"image": path}, ("abfs://box/a",)), "image")


def test_a_folder_that_run_json_names_is_no_more_trusted_than_a_row(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(
        json.dumps({"image_folders": ["/data", "ftp://a/b", "s3://bucket/a", "http:x"]})
    )
    (tmp_path / "annotations.jsonl").touch()
    trusted = ("/data", "s3://bucket/a", "http:x", str(tmp_path), ".")
    assert image_folders_of(str(tmp_path)) == trusted
    assert image_folders_of(str(tmp_path), "ftp://a/b") == ("ftp://a/b",)
