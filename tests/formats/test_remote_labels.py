"""Label files and shards in a store give what the same ones here do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dataflow_grounding import InputError
from dataflow_grounding.formats import read
from tests.support.labelled import FORMATS, Box, Labelled, labelled, saved
from tests.support.store import FaultyStore, faulty_store

LOCAL_ALONE = {"yolo", "yolo-obb", "kitti", "dota"}
PICTURES = [
    Labelled("a.png", [Box("cup", 10, 20, 30, 40)]),
    Labelled("sub/b.png", [Box("cup", 1, 2, 3, 4)]),
]


@pytest.fixture
def store() -> Iterator[str]:
    yield "memory://labels"
    MemoryFileSystem().rm("/labels", recursive=True)


def put(folder: Path, address: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            MemoryFileSystem().pipe_file(f"{address}/{name}", path.read_bytes())


def boxes_of(path: str, format: str) -> list[Any]:
    records = read(path, format)
    return [(record["image_path"], record["expressions"]) for record in records]


@pytest.mark.parametrize("format", sorted(FORMATS.keys() - LOCAL_ALONE))
def test_labels_in_a_store_are_read_as_local_ones(format: str, store: str, tmp_path: Path) -> None:
    path = labelled(tmp_path, format, PICTURES, classes=["cup"])
    put(tmp_path, store)
    local = boxes_of(str(tmp_path), format)
    assert len(local) == len(PICTURES)
    assert boxes_of(store, format) == local
    if path.is_file():
        assert boxes_of(f"{store}/{path.relative_to(tmp_path)}", format) == local


@pytest.mark.parametrize("format", sorted(LOCAL_ALONE))
def test_a_format_of_local_folders_alone_says_so(format: str, store: str, tmp_path: Path) -> None:
    labelled(tmp_path, format, PICTURES, classes=["cup"])
    put(tmp_path, store)
    with pytest.raises(InputError, match=f"memory://labels: {format} is read from this machine"):
        boxes_of(store, format)


@pytest.mark.parametrize("format", ["cvat", "voc"])
def test_xml_in_a_store_is_guarded_too(format: str, store: str, tmp_path: Path) -> None:
    saved(
        tmp_path / "annotations.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'
    )
    put(tmp_path, store)
    with pytest.raises(InputError, match=r"memory://labels/annotations\.xml .*it has a DOCTYPE"):
        boxes_of(f"{store}/annotations.xml", format)


@pytest.fixture(scope="module")
def buckets() -> Iterator[FaultyStore]:
    with faulty_store() as store:
        yield store


@pytest.mark.parametrize("format", ["labelme", "voc"])
def test_a_folder_in_a_store_is_listed_once(
    format: str, buckets: FaultyStore, tmp_path: Path
) -> None:
    lists = []
    for count in (2, 5):
        names = [f"sub/{number}.png" for number in range(count)]
        labelled(tmp_path, format, [Labelled(name, []) for name in names])
        address = buckets.put_all(tmp_path, format)
        buckets.heal()  # counts from 0
        assert [record["image_path"] for record in read(address, format)] == names
        assert not [key for _, key in buckets.asked if key.endswith(".png")]
        lists.append(buckets.count("LIST"))
    assert lists[0] == lists[1]


@pytest.mark.parametrize("format", ["labelme", "voc"])
def test_labels_here_are_read_without_the_pictures_store(
    format: str, buckets: FaultyStore, tmp_path: Path
) -> None:
    labelled(tmp_path, format, PICTURES[:1])
    buckets.heal()
    buckets.denies = (403, "AccessDenied", "Access Denied")
    records = list(read(str(tmp_path), format, image_root="s3://bucket/pictures"))
    assert [record["image_path"] for record in records] == ["a.png"]
    assert not buckets.asked
