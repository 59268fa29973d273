"""`split`: no picture in two parts, nearly the same ones together, and the same parts again."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow_grounding.evaluation.figures.duplicates import first_alike
from tests.formats.data import record
from tests.support.workplace import REPOSITORY, Done, command, rows_of, write_rows

PHOTOS = sorted((REPOSITORY / "example_data/images").glob("*.jpg"))


def results(folder: Path, names: list[str]) -> Path:
    rows = []
    for n, name in enumerate(names):
        rows.append(record(name, (64, 48), [{"text": f"thing {n}"}]))
    return write_rows(folder / "annotations.jsonl", *rows)


def split(data: Path, out: Path, *options: str) -> Done:
    return command(["split", str(data), "-o", str(out), *options])


def parts_of(out: Path) -> dict[str, set[str]]:
    """Paths of pictures by part."""
    return {path.stem: {row["image_path"] for row in rows_of(path)} for path in out.glob("*.jsonl")}


def part_of(out: Path) -> dict[str, str]:
    return {name: part for part, names in parts_of(out).items() for name in names}


@pytest.mark.slow
def test_every_record_as_it_was_in_one_part(tmp_path: Path) -> None:
    names = [f"{n % 150}.jpg" for n in range(300)]
    data = results(tmp_path / "run", names)
    done = split(data.parent, tmp_path / "out")
    assert done.code == 0, done.err
    assert "150 pictures can't be read: whether others are nearly" in done.err
    written = []
    for part in ("train", "val", "test"):
        written += rows_of(tmp_path / "out" / f"{part}.jsonl")
    assert sorted(written, key=str) == sorted(rows_of(data), key=str)
    parts = parts_of(tmp_path / "out")
    assert sum(map(len, parts.values())) == 150
    assert len(parts["train"]) > len(parts["val"]) > 0 < len(parts["test"])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_parts(tmp_path: Path) -> None:
    data = results(tmp_path / "run", [f"{n}.jpg" for n in range(100)])
    for place, seed in enumerate(["7", "7", "8"]):
        assert split(data, tmp_path / f"out{place}", "--seed", seed).code == 0
    first, again, other = (part_of(tmp_path / f"out{place}") for place in range(3))
    assert first == again
    assert other != first


@pytest.mark.slow
def test_added_pictures_move_none_of_those_before(tmp_path: Path) -> None:
    names = [f"{n}.jpg" for n in range(1000)]
    for place, more in enumerate([[], ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]]):
        data = results(tmp_path / f"run{place}", [*more, *names])
        assert split(data, tmp_path / f"out{place}", "--ratios", "0.6/0.2/0.2").code == 0
    before, after = part_of(tmp_path / "out0"), part_of(tmp_path / "out1")
    assert {name: after[name] for name in names} == before
    counts = [len(names) for names in parts_of(tmp_path / "out0").values()]
    for count, share in zip(sorted(counts), (200, 200, 600), strict=True):
        assert abs(count - share) <= 32  # the square root of 1,000


def painted(folder: Path, sizes: list[int]) -> Path:
    """Records of groups of pictures, each of one colour; names are `GROUP_NUMBER.png`."""
    folder.mkdir(parents=True)
    names = []
    for group, size in enumerate(sizes):
        for number in range(size):
            names.append(f"{group}_{number}.png")
            PIL.Image.new("RGB", (8, 8), (group, group, group)).save(folder / names[-1])
    return results(folder, names)


@pytest.mark.slow
def test_a_part_without_a_picture_is_said(tmp_path: Path) -> None:
    done = split(painted(tmp_path / "run", [9, 1]), tmp_path / "out", "--ratios", "0.6/0.2/0.2")
    assert done.code == 0, done
    assert "jsonl: 0 records, 0 pictures" in done.out


@pytest.mark.slow
def test_pictures_that_are_nearly_the_same_stay_together(tmp_path: Path) -> None:
    """Photographs, each also as other files: smaller, of less quality, as PNG, turned by EXIF."""
    groups = []
    photos = PHOTOS[::2]
    (tmp_path / "run").mkdir()
    for photo in photos:
        with PIL.Image.open(photo) as opened:
            picture = opened.convert("RGB")
        stem = tmp_path / "run" / photo.stem
        endings = (".jpg", "_small.jpg", "_low.jpg", ".png", "_turned.jpg")
        files = [f"{stem}{ending}" for ending in endings]
        picture.save(files[0], quality=95)
        picture.resize((picture.width // 2, picture.height // 2)).save(files[1])
        picture.save(files[2], quality=40)
        picture.save(files[3])
        exif = PIL.Image.Exif()
        exif[0x0112] = 6
        picture.transpose(PIL.Image.Transpose.ROTATE_90).save(files[4], quality=90, exif=exif)
        groups.append([Path(file).name for file in files])
    order = [name for column in zip(*groups, strict=True) for name in column]
    run = results(tmp_path / "run", order).parent
    done = split(run, tmp_path / "out", "--ratios", "1/1", "--json")
    assert done.code == 0, done.err
    part = part_of(tmp_path / "out")
    assert len({part[group[0]] for group in groups}) == 2
    for group in groups:
        assert len({part[name] for name in group}) == 1, group
    said = done.summary
    assert (said["alike"], said["unread"]) == (4 * len(photos), 0)
    assert [one["pictures"] % 5 for one in said["parts"].values()] == [0, 0]


@pytest.mark.slow
def test_flat_pictures_are_alike_only_if_their_pixels_are(tmp_path: Path) -> None:
    names = ["red.png", "blue.png", "red again.png", "large.png"]
    data = results(tmp_path / "run", names)
    for name in names:
        size = (64, 48) if name != "large.png" else (80, 60)
        color = "blue" if name == "blue.png" else "red"
        PIL.Image.new("RGB", size, color).save(tmp_path / "run" / name)
    said = split(data, tmp_path / "out", "--json").summary
    assert (said["alike"], said["unread"]) == (1, 0)


def look_of(bits: int, light: int = 0) -> bytes:
    """A look with this dHash, and with one part so much brighter."""
    return bits.to_bytes(8, "little") + bytes([light, *[0] * 143])


@pytest.mark.slow
def test_products_on_white_are_not_alike_and_their_copies_are(tmp_path: Path) -> None:
    draw, names = random.Random(3), []
    (tmp_path / "run").mkdir()
    for n in range(60):
        with PIL.Image.new("RGB", (160, 160), "white") as shot:
            x, y = draw.randint(25, 60), draw.randint(25, 60)
            w, h = draw.randint(30, 80), draw.randint(30, 80)
            shot.paste(tuple(draw.randint(0, 190) for _ in range(3)), (x, y, x + w, y + h))
            shot.save(tmp_path / "run" / f"{n}.png")
            shot.resize((80, 80)).save(tmp_path / "run" / f"{n}.jpg", quality=30)
            names += [f"{n}.png", f"{n}.jpg"]
    done = split(results(tmp_path / "run", names), tmp_path / "out", "--json")
    assert (done.code, 56 <= done.summary["alike"] <= 66) == (0, True)


def test_a_picture_is_one_by_whatever_path_and_without_one_by_its_id(tmp_path: Path) -> None:
    paths = ["x.jpg", "./x.jpg", "a/../x.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg"]
    rows = [record(path, (9, 9), []) for path in paths]
    rows += [{"image_path": None, "image": "x.jpg", "expressions": []}]
    rows += [{"image_id": own, "expressions": []} for own in (7, "7", 8)]
    data = write_rows(tmp_path / "a.jsonl", *rows)
    assert command(["stats", str(data), "--no-pictures", "--json"]).summary["images"] == 4
    data.write_text('{"images": [], "annotations": []}\n')
    for words in (["stats", str(data)], ["split", str(data), "-o", str(tmp_path / "out")]):
        done = command(words)
        assert done.code == 2
        assert f"record 1 of {data} names no picture: `dataflowgrounding import`" in done.err


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_groups_are_those_that_comparing_all_pairs_gives(data: st.DataObject) -> None:
    bits = st.lists(st.integers(0, 63), max_size=7)
    bases = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    looks = []
    for base in data.draw(st.lists(st.sampled_from(bases), min_size=1, max_size=25)):
        for bit in data.draw(bits):
            base ^= 1 << bit
        looks.append((base, data.draw(st.sampled_from([0, 20, 32, 33, 64]))))
    group = list(range(len(looks)))
    for one in range(len(looks)):
        for other in range(one):
            (a, light), (b, its) = looks[one], looks[other]
            if (a ^ b).bit_count() <= 4 and abs(light - its) <= 32:
                low, high = sorted((group[one], group[other]))
                group = [low if place == high else place for place in group]
    assert list(first_alike([look_of(*look) for look in looks])) == group


@pytest.mark.slow
def test_many_pictures_are_grouped_in_linear_time() -> None:
    """To compare each with each other would take longer than any test may."""
    draw = random.Random(1)
    hashes = [draw.getrandbits(64) for _ in range(20_000)]
    hashes += [one ^ 0b10110 for one in hashes[:1000]]
    looks = [look_of(one) for one in hashes] + [look_of(5)] * 20_000
    assert sum(map(sys.getsizeof, looks[:1000])) <= 192 * 1000
    groups = first_alike(looks)
    assert sum(one != place for place, one in enumerate(groups)) == 1000 + 19_999


def test_a_folder_that_is_there_no_record_and_wrong_ratios(tmp_path: Path) -> None:
    data = results(tmp_path / "run", [f"{n}.jpg" for n in range(30)])
    (tmp_path / "taken").mkdir()
    cases: Mapping[tuple[str, ...], str] = {
        ("-o", str(tmp_path / "taken")): "is there already",
        ("-o", str(tmp_path / "x"), "--ratios", "0.8/0/0.2"): "above 0",
        ("-o", str(tmp_path / "x"), "--ratios", "0.8/0.2/1e9"): "above 0",
        ("-o", str(tmp_path / "x"), "--ratios", "1"): "above 0",
    }
    for options, said in cases.items():
        done = command(["split", str(data), *options])
        assert (done.code, said in done.err) == (2, True), done
    with data.open("a", encoding="utf-8") as file:
        file.write("{\n")
    done = split(data, tmp_path / "x")
    assert (done.code, f"{data}, line 31" in done.err) == (2, True), done
    data.write_text("")
    done = split(data, tmp_path / "x")
    assert (done.code, f"{data} has no picture to split" in done.err) == (2, True), done
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_parts_go_on_from_where_their_pictures_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = results(Path("run"), [photo.name for photo in PHOTOS])
    pictures = str(PHOTOS[0].parent)
    done = split(data.parent, Path("parts"), "--image-root", pictures, "--ratios", "1/1")
    assert done.code == 0, done
    one = command(["export", "parts/train.jsonl", "--format", "tao-refer", "-o", "o"])
    assert "no image" not in one.err
    parts = ["parts/train.jsonl", "parts/val.jsonl"]
    figures = command(["stats", *parts, "--json"])
    assert (figures.summary["images"], figures.summary["unread"]) == (len(PHOTOS), 0)
    assert figures.summary["leaks"] == 0
