"""`data.input_jsonl` names what people have: tables, image folders, COCO captions, data sets,
pictures alone.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.data.class_files import read_class_file
from dataflow_grounding.data.classes import classes_of
from dataflow_grounding.data.rows import write_rows
from dataflow_grounding.jobs.input_rows import renamed
from dataflow_grounding.testing import LoopbackServer
from tests.support.forking import Forked
from tests.support.labelled import Box, Labelled, labelled
from tests.support.workplace import Workplace, command, ended, tar_of

NAMES = ["red.jpg", "green.jpg", "sub/blue.jpg"]
TEXTS = ["A red cup.", "A green dog.", "A blue hat."]
ROWS: list[dict[str, Any]] = [
    {"number": n + 1, "file_name": name, "text": text}
    for n, (name, text) in enumerate(zip(NAMES, TEXTS, strict=True))
]
COLUMNS = {"image": "file_name", "caption": "text"}
IN_BYTES = {"image": "image", "caption": "text"}
OWN = {"vlm.backend": "embedded", "vlm.box_format": "auto"}


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    """A folder with three pictures."""
    for name in NAMES:
        workplace.picture(f"pictures/{name}", color=Path(name).stem)
    return workplace


def of_rows(place: Workplace, name: str, rows: list[dict[str, Any]]) -> str:
    """A file of rows, of the kind that its name says."""
    write_rows(str(place.folder / name), rows)
    return str(place.folder / name)


def json_file(place: Workplace, name: str, value: Any) -> str:
    (place.folder / name).write_text(json.dumps(value), encoding="utf-8")
    return str(place.folder / name)


def parquet(place: Workplace, rows: list[dict[str, Any]]) -> str:
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(rows).to_parquet(place.folder / "rows.parquet")
    return str(place.folder / "rows.parquet")


def with_bytes(place: Workplace) -> list[dict[str, Any]]:
    """The rows as `datasets` stores them."""
    rows = []
    for row in ROWS:
        data = (place.folder / "pictures" / row["file_name"]).read_bytes()
        image = {"bytes": data, "path": row["file_name"]}
        rows.append({"number": row["number"], "image": image, "text": row["text"]})
    return rows


def dataset(place: Workplace) -> Any:
    datasets = pytest.importorskip("datasets")
    features = {
        "number": datasets.Value("int64"),
        "image": datasets.Image(),
        "text": datasets.Value("string"),
    }
    return datasets.Dataset.from_list(with_bytes(place), features=datasets.Features(features))


def saved(place: Workplace, splits: bool = False) -> str:
    datasets = pytest.importorskip("datasets")
    whole = datasets.DatasetDict({"train": dataset(place).select([0]), "test": dataset(place)})
    (whole if splits else dataset(place)).save_to_disk(place.folder / "saved")
    return str(place.folder / "saved")


def image_folder(place: Workplace, name: str) -> str:
    """The folder of pictures, with metadata in it."""
    return os.path.dirname(of_rows(place, f"pictures/{name}", ROWS))


def coco(place: Workplace) -> str:
    images = [{"id": 7 + n, "file_name": name, "height": 1} for n, name in enumerate(NAMES)]
    captions = [{"id": n, "image_id": 7 + n, "caption": text} for n, text in enumerate(TEXTS)]
    return json_file(place, "captions.json", {"images": images, "annotations": captions})


def by_name(place: Workplace) -> str:
    """A data set that `datasets` finds by the name of its folder."""
    return f"datasets:{image_folder(place, 'metadata.jsonl')}"


Kind = tuple[Callable[[Workplace], str], dict[str, Any]]
KINDS: dict[str, Kind] = {
    "CSV": (lambda p: of_rows(p, "rows.csv", ROWS), {"columns": COLUMNS}),
    "Parquet with pictures": (lambda p: parquet(p, with_bytes(p)), {"columns": IN_BYTES}),
    "a saved data set": (saved, {"columns": IN_BYTES}),
    "a split of a saved one": (partial(saved, splits=True), {"columns": IN_BYTES, "split": "test"}),
    "a data set by name": (by_name, {"columns": IN_BYTES}),
    "an image folder": (
        lambda p: image_folder(p, "metadata.csv"),
        {"columns": {"caption": "text"}},
    ),
    "COCO captions": (coco, {}),
}


def settings_of(place: Workplace, kind: Kind) -> dict[str, Any]:
    make, data = kind
    path = make(place)
    root = {} if path.startswith("datasets:") or os.path.isdir(path) else {"image_root": "pictures"}
    return {f"data.{key}": value for key, value in {"input_jsonl": path, **root, **data}.items()}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_of_input_is_known_and_becomes_the_same_records(
    place: Workplace, server: LoopbackServer, kind: Kind
) -> None:
    settings = settings_of(place, kind)
    done = place.run(**settings)
    assert (done.code, server.count()) == (0, 6), done
    if kind[1].get("columns") == IN_BYTES:
        assert place.run(**settings).summary["already_complete"]
    records = place.annotations()
    assert [record["caption"] for record in records] == TEXTS
    assert [(record["width"], record["height"]) for record in records] == [(64, 48)] * 3
    assert [int(record.get("number", n + 1)) for n, record in enumerate(records)] == [1, 2, 3]
    expressions = [expression for record in records for expression in record["expressions"]]
    assert {expression["status"] for expression in expressions} == {"grounded"}
    assert len({record["image_id"] for record in records}) == 3
    for record in records:
        at = [
            folder / record["image_path"] for folder in (place.folder / "pictures", place.results)
        ]
        assert any(path.is_file() for path in at), record["image_path"]
        assert "text" not in record or kind is KINDS["COCO captions"]


def test_pictures_in_a_table_are_checked_and_estimated(
    place: Workplace, server: LoopbackServer
) -> None:
    spec = str(place.spec(**settings_of(place, KINDS["Parquet with pictures"])))
    checked = command(["check", "-e", spec])
    assert (checked.code, "3 records checked, 0 problems" in checked.out) == (0, True)
    estimated = command(["estimate", "-e", spec, "--json"]).summary
    assert (estimated["records"], estimated["requests"], server.count()) == (3, 6, 0)


@pytest.mark.parametrize(
    ("kind", "image"), [("CSV", "file_name"), ("a saved data set", "image")], ids=["CSV", "saved"]
)
def test_check_prints_what_to_paste(place: Workplace, kind: str, image: str) -> None:
    settings = settings_of(place, KINDS[kind])
    del settings["data.columns"]
    spec = str(place.spec(**settings))
    done = command(["check", "-e", spec])
    assert done.code == 2
    [keys] = set(re.findall(r"add (image_grounding\.data\.columns\..*)", done.err))
    columns = "image_grounding.data.columns"
    assert shlex.split(keys) == [f"{columns}.image={image}", f"{columns}.caption=text"]
    for name in ("generate", "estimate"):
        assert command([name, "-e", spec]).err.count(keys) == 1
    assert command(["check", "-e", spec, *shlex.split(keys)]).code == 0


def test_columns_are_told_by_what_they_hold_where_their_names_say_nothing(place: Workplace) -> None:
    place.rows(
        {"a": 1, "b": f"pictures/{name}", "c": "x", "d": text, "image_url": "none"}
        for name, text in zip(NAMES, TEXTS, strict=True)
    )
    done = place.check()
    assert "columns.image=b image_grounding.data.columns.caption=d" in done.err, done


def test_a_row_keeps_its_line_and_what_is_wrong_with_it(place: Workplace) -> None:
    place.rows(["", ROWS[0], '{"file_name": "brok', "", {**ROWS[1], "file_name": "gone.jpg"}])
    place.settings |= {"data.columns": COLUMNS, "data.image_root": "pictures"}
    assert place.run().code == 1
    checked = place.check()
    found = [(failure["line"], failure["kind"]) for failure in place.failures()]
    assert found == [(3, "broken_row"), (5, "image_missing")]
    assert "not JSON" in place.failures()[0]["message"]
    assert f"{place.input}, line 3: not JSON" in checked.err


def test_a_sample_of_a_shard_that_can_not_be_read_fails_alone(place: Workplace) -> None:
    picture = (place.folder / "pictures/red.jpg").read_bytes()
    inside = [("0.txt", "é".encode("latin-1")), ("0.jpg", picture)]
    inside += [("1.json", b"[1]"), ("1.jpg", picture)]
    inside += [("2.json", b'{"n": 3}'), ("2.txt", b"A red cup."), ("2.jpg", picture)]
    place.input = tar_of(place.folder / "a.tar", inside)
    assert place.run().code == 1
    left = [(record["caption"], record["n"]) for record in place.annotations()]
    assert left == [("A red cup.", 3)]
    first, second = place.failures()
    assert [(one["line"], one["kind"]) for one in (first, second)] == [
        (1, "broken_row"),
        (2, "broken_row"),
    ]
    rule = "(names up to the first dot)"
    assert f"a.tar, sample '0' {rule}: 'utf-8' codec can't decode" in first["message"]
    assert f"a.tar, sample '1' {rule}: should be a JSON object" in second["message"]


def test_samples_of_a_shard_fail_by_their_keys(place: Workplace) -> None:
    picture = (place.folder / "pictures/red.jpg").read_bytes()
    row = json.dumps({"caption": "A red cup."}).encode()
    inside = [("a.JPG", picture), ("a.JSON", row), ("22.05.jpg", picture), ("22.05.json", row)]
    inside += [("cut.jpg", picture[: len(picture) // 2]), ("cut.json", row)]
    place.input = tar_of(place.folder / "a.tar", inside)
    place.run()
    assert [record["caption"] for record in place.annotations()] == ["A red cup."]
    dotted, cut = place.failures()
    told = "a.tar, sample '22' (names up to the first dot): no picture in it (05.jpg, 05.json)"
    assert (dotted["kind"], told in dotted["message"]) == ("broken_row", True)
    assert cut["kind"] == "image_broken"
    assert cut["message"].startswith("'cut.jpg' of the input: ")
    assert "'cut.jpg' of the input: " in place.check().err


@pytest.mark.parametrize("order", [1, -1])
def test_a_column_in_the_way_takes_no_other_columns_name(order: int) -> None:
    columns = [("caption", "short"), ("original_caption", "own"), ("recaption", TEXTS[0])]
    row = renamed(dict(columns[::order]), {"caption": "recaption"})
    assert row == {
        "caption": TEXTS[0],
        "original_caption": "own",
        "original_original_caption": "short",
    }


@pytest.mark.parametrize("named", ["pictures", "pictures/**/*"])
def test_a_reports_copies_of_pictures_are_none_however_the_input_is_named(
    place: Workplace, named: str
) -> None:
    pictures = place.folder / "pictures"
    for path in ("run/report.html", "run/report_files/README.txt"):
        (pictures / path).parent.mkdir(parents=True, exist_ok=True)
        (pictures / path).write_text("of a report")
    for path in ("run/report_files/thumbnails/a.jpg", "run/other_files/b.jpg"):
        (pictures / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pictures / "red.jpg", pictures / path)
    assert place.run(**{"data.input_jsonl": named, "data.classes": ["cup"], **OWN}).code == 0
    names = [Path(record["image_path"]).name for record in place.annotations()]
    assert names.count("b.jpg") == 1
    assert "a.jpg" not in names


def test_one_picture_is_an_input_of_one(place: Workplace) -> None:
    done = place.run(**{"data.input_jsonl": "pictures/red.jpg", "data.classes": ["cup"]})
    assert done.code == 0, done
    [record] = place.annotations()
    assert record["image_path"].endswith("red.jpg")
    assert [e["text"] for e in record["expressions"]] == ["cup"]


def test_pictures_alone_are_captioned_first(place: Workplace, server: LoopbackServer) -> None:
    # whose pictures are not taken for the user's
    place.results = place.folder / "pictures" / "results"
    (place.results / "pictures").mkdir(parents=True)
    shutil.copy(place.folder / "pictures/red.jpg", place.results / "pictures/drawn.jpg")
    place.settings["data.input_jsonl"] = "pictures"
    steps = ["image_caption", "step0_expression_extraction", "step1_grounding"]
    checked = place.check()
    assert "3 records checked, 0 problems" in checked.out, checked
    estimated = command(["estimate", "-e", str(place.spec()), "--json"]).summary
    assert [step["step"] for step in estimated["steps"]] == steps
    done = place.run()
    assert done.code == 0, done
    assert server.by_task["image_caption"] == 3
    sent = server.count()
    assert place.run(**{"workflow.steps": ["1"]}).code == 0
    assert place.run().code == 0
    assert server.count() == sent
    written = (place.results / "captions/annotations.jsonl").read_text()
    captions = [json.loads(line) for line in written.splitlines()]
    assert [record["image_path"] for record in captions] == sorted(NAMES)
    for record, captioned in zip(place.annotations(), captions, strict=True):
        assert record["caption"] == captioned["caption"]
        assert record["pipeline_steps"] == steps
    assert (place.results / "step_0_expression_extraction/annotations.jsonl").exists()


@pytest.mark.parametrize("classes", [["red car", "dog"], {"a red car": "vehicle", "dog": "animal"}])
def test_classes_are_asked_for_in_every_picture(
    place: Workplace, server: LoopbackServer, classes: Any
) -> None:
    pairs = classes if isinstance(classes, dict) else {name: name for name in classes}
    done = place.run(**{"data.input_jsonl": "pictures", "data.classes": classes})
    assert done.code == 0, done
    assert dict(server.by_task) == {"phrase_grounding": 3}
    for record in place.annotations():
        found = [(e["text"], e["class"]) for e in record["expressions"]]
        assert found == [*pairs.items()]
        assert {e["char_span"] for e in record["expressions"]} == {None}
        assert len({e["expression_id"] for e in record["expressions"]}) == 2


CLASS_FILES = {
    "lines": ("names.txt", "\ufeffred thing\n\n  dog \n"),
    "COCO": (
        "coco.json",
        '{"categories": [{"id": 9, "name": "dog"}, {"id": 2, "name": "red thing"}]}',
    ),
    "a YAML list": ("names.yaml", "- red thing\n- dog\n"),
    "Ultralytics' mapping": ("data.yml", "names:\n  1: dog\n  0: red thing\n"),
}


@pytest.mark.parametrize("name", CLASS_FILES)
def test_classes_in_a_file_are_those_of_the_list(tmp_path: Path, name: str) -> None:
    file, text = CLASS_FILES[name]
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert list(read_class_file(str(tmp_path / file))) == ["red thing", "dog"]


def test_a_run_looks_for_the_classes_of_a_file_and_states_them_and_secrets_stay_out(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.folder / "names.txt").write_text("zebra\nred thing\n", encoding="utf-8")
    monkeypatch.setenv("MY_CLASSES", "names.txt")
    monkeypatch.setenv("MY_OWN_KEY", "sk-hidden-4711")
    place.settings |= {**OWN, "data.input_jsonl": "pictures"}
    place.settings["vlm.openai.api_key"] = "${oc.env:MY_OWN_KEY}"
    done = place.run(**{"data.classes": "${oc.env:MY_CLASSES}"})
    assert done.code == 0, done
    [classes] = {tuple(e["class"] for e in r["expressions"]) for r in place.annotations()}
    assert classes == ("zebra", "red thing")
    assert "sk-hidden" not in (place.results / "run.json").read_text(encoding="utf-8")
    stated = place.run_json()["spec"]["image_grounding"]["data"]["classes"]
    assert stated == [*classes], "exports number classes as run.json has them"
    assert classes_of(str(place.results)) == [*classes]
    assert place.run(**{"data.classes": [*classes]}).summary["requests"] == 0


def test_tables_of_classes_are_in_the_order_of_the_spec(place: Workplace) -> None:
    """By their boxes and their names they would be the other way round."""
    settings = {**OWN, "data.input_jsonl": "pictures"}
    done = place.run(**settings, **{"data.classes": {"a zebra": "zebra", "red thing": "thing"}})
    assert done.code == 0, done
    assert [row["class"] for row in done.summary["classes"]] == ["zebra", "thing"]
    assert place.run_json()["summary"]["classes"] == done.summary["classes"]
    assert command(["report", str(place.results)]).code == 0
    page = (place.results / "report.html").read_text("utf-8")
    [table] = re.findall(r'<table class="classes".*?</table>', page, re.DOTALL)
    assert re.findall(r"<bdi>(.*?)</bdi>", table) == ["zebra", "thing"]


BAD_CLASS_FILES = {
    "nothing in it": ("names.txt", b"\n \n", "names.txt has no names of classes in it"),
    "not UTF-8": ("names.txt", b"caf\xe9\n", "names.txt is not a text in UTF-8"),
    "no JSON": ("names.json", b"{", "can't read the names of classes in"),
    "a name twice": ("names.txt", b"dog\ncat\ndog\n", "'dog' is there twice"),
}


@pytest.mark.parametrize(("name", "content", "said"), BAD_CLASS_FILES.values(), ids=BAD_CLASS_FILES)
def test_a_file_of_classes_that_can_not_be_read_is_told_in_one_line(
    workplace: Workplace, name: str, content: bytes, said: str
) -> None:
    file = workplace.folder / name
    file.write_bytes(content)
    settings = {"vlm.backend": "embedded", "data.input_jsonl": workplace.picture()}
    spec = str(workplace.spec(**settings))
    done = command(["check", "-e", spec, f"image_grounding.data.classes={file}"])
    of_key = "Problem: image_grounding.data.classes"
    [problem] = [line for line in done.err.splitlines() if line.startswith(of_key)]
    assert (done.code, said in problem) == (2, True), done
    assert problem.count("data.classes") == 1
    assert "Traceback" not in done.err


def test_region_captions_take_other_columns_and_pictures_alone(place: Workplace) -> None:
    rows = [{"file": name, "boxes": [[5, 5, 20, 20]], "number": n} for n, name in enumerate(NAMES)]
    place.kind = "image_region_caption"
    data = {"data.input_jsonl": of_rows(place, "boxes.jsonl", rows), "data.image_root": "pictures"}
    path = str(place.written({"vlm.backend": "embedded", **data}))
    checked = command(["check", "-e", path])
    assert "add image_region_caption.data.columns.image=file" in checked.err, checked
    keys = [f"image_region_caption.data.columns.{key}" for key in ("image=file", "bbox=boxes")]
    assert command(["generate", "-e", path, *keys]).code == 0
    found = [(record["number"], record["regions"][0]["bbox"]) for record in place.annotations()]
    assert found == [(n, [5, 5, 25, 25]) for n in range(3)]
    alone = f"image_region_caption.data.input_jsonl={place.folder / 'pictures'}"
    assert command(["generate", "-e", path, alone, f"results_dir={place.folder}/more"]).code == 0


def _empty(place: Workplace) -> str:
    (place.folder / "empty").mkdir()
    return "empty"


def _boxes(place: Workplace) -> str:
    path = labelled(place.folder, "coco", [Labelled("a.jpg", [Box("cup", 1, 2, 4, 6)])])
    return str(path.rename(place.folder / "boxes.json"))


def _named_otherwise(place: Workplace) -> str:
    rows = [{"file": name, "text": text} for name, text in zip(NAMES, TEXTS, strict=True)]
    return os.path.dirname(of_rows(place, "pictures/metadata.jsonl", rows))


def _metadata_below(place: Workplace) -> str:
    """As the parts of Hugging Face's imagefolder have it: its captions were passed over."""
    of_rows(place, "pictures/sub/metadata.jsonl", ROWS)
    return "pictures"


Bad = tuple[Callable[[Workplace], str], dict[str, Any]]
COLUMN = "data.columns"


def _table(place: Workplace) -> str:
    return of_rows(place, "rows.csv", ROWS)


def _splits(place: Workplace) -> str:
    return saved(place, splits=True)


def _pictures(place: Workplace) -> str:
    return "pictures"


DOG = {"data.classes": ["dog"]}
BAD: dict[str, Bad] = {
    "no such column": (_table, {COLUMN: {"image": "filename"}}),
    "metadata without file_name": (_named_otherwise, {COLUMN: {"caption": "text"}}),
    "metadata in a folder below": (_metadata_below, DOG),
    "an empty folder": (_empty, {}),
    "no picture matches": (lambda p: "nothing/*.png", {}),
    "COCO without captions": (_boxes, {}),
    "several splits": (_splits, {}),
    "no such split": (_splits, {"data.split": "val"}),
    "captions beside classes": (_pictures, {**DOG, COLUMN: {"caption": "text"}}),
    "nobody who writes captions": (_pictures, {"vlm.backend": "embedded"}),
    "classes that are no list": (_pictures, {"data.classes": "dog"}),
}
SAID = {
    "no such column": "image_grounding.data.columns.image: {folder}/rows.csv has no column 'filename'; is it 'file_name'?",
    "metadata without file_name": "metadata.jsonl has no column 'image_path'; if 'file' should be taken, add image_grounding.data.columns.image=file",
    "metadata in a folder below": "{folder}/pictures has rows in sub/metadata.jsonl: is the input {folder}/pictures/sub?"
    " The pattern {folder}/pictures/**/*.jpg takes pictures without them",
    "an empty folder": "{folder}/empty has no pictures in it (.jpg, ",
    "no picture matches": "matches {folder}/nothing/*.png",
    "COCO without captions": "boxes.json is a COCO file without captions: boxes go into the pipeline"
    " image_referring_expression, as data.coco_json; or into image_region_caption, as JSON lines of"
    ' {"image": FILE_NAME, "bbox": [[x, y, width, height], ...]}',
    "several splits": "saved has several splits: set data.split to one of train, test",
    "no such split": "saved has no split 'val': set data.split to one of train, test",
    "captions beside classes": "columns.caption is not one of image, image_id: captions aren't read with image_grounding.data.classes",
    "nobody who writes captions": "pictures without captions, and embedded-opencv can't write captions: choose another vlm.backend, or name what",
    "classes that are no list": "/dog. Name a file of class names, or give a list of them: [person, cup]",
}


def test_a_pattern_takes_pictures_without_the_metadata_below(place: Workplace) -> None:
    _metadata_below(place)
    pattern = {"data.input_jsonl": "pictures/**/*.jpg", "data.classes": ["cup"]}
    done = place.check("--json", **pattern)
    assert (done.summary["records"], "has rows" in done.out) == (3, False), done


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_one_line_before_anything_is_sent(
    place: Workplace, server: LoopbackServer, case: str
) -> None:
    make, settings = BAD[case]
    spec = str(place.spec(**{"data.input_jsonl": make(place), **settings}))
    said = SAID[case].replace("{folder}", str(place.folder))
    for name in ("check", "generate"):
        done = command([name, "-e", spec])
        assert done.code == 2, done
        assert sum(said in line for line in done.err.splitlines()) == 1, done
    assert server.count() == 0


@pytest.mark.slow
def test_a_data_set_without_its_library_names_the_extra(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(place, KINDS["a saved data set"])
    monkeypatch.setitem(sys.modules, "datasets", None)
    done = place.check(**settings)
    assert done.code == 2
    assert done.err.count("pip install 'dataflow-grounding[datasets]'") == 1


MOST_MEMORY = """
import re
import pandas, pyarrow.parquet
from dataflow_grounding.cli.main import main

def memory(kind):
    return int(re.search(rf"Vm{kind}:\\s*(\\d+)", open("/proc/self/status").read())[1])

before = memory("RSS")
try:
    main()
finally:
    print(memory("HWM") - before, file=sys.__stderr__)
"""


def test_pictures_in_parquet_are_never_all_in_memory(workplace: Workplace) -> None:
    import pyarrow.parquet

    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    schema = pyarrow.schema([("image", picture), ("caption", pyarrow.string())])
    how = {"compression": None, "use_dictionary": False}
    big = workplace.folder / "big.parquet"
    with pyarrow.parquet.ParquetWriter(big, schema, **how) as writer:
        for group in range(24):
            data = [f"{group} {n} ".encode() * 50_000 for n in range(20)]
            images = [{"bytes": one, "path": f"{n}.jpg"} for n, one in enumerate(data)]
            rows = [{"image": image, "caption": f"A cup {group}."} for image in images]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    settings = {
        "vlm.backend": "embedded",
        "data.input_jsonl": "big.parquet",
        "data.columns": {"image": "image"},
    }
    line = ["dataflowgrounding", "check", "--json", "-e", str(workplace.spec(**settings))]
    (workplace.results / "pictures").mkdir(parents=True)  # else a check leaves none there
    code = f"import sys; sys.argv = {line!r}\n{MOST_MEMORY}"
    done = ended(Forked([], workplace.folder, first=code))
    assert done.summary["records"] == 480, done
    assert len(os.listdir(workplace.results / "pictures")) == 480
    # in kB: at most 64 MB of the 120 MB are read at once, and all at once take 460
    assert int(done.err.split()[-1]) < 280 * 1024


def test_a_pilot_takes_out_no_more_pictures_than_it_needs_and_deleted_ones_are_taken_out_again(
    place: Workplace, server: LoopbackServer
) -> None:
    settings = settings_of(place, KINDS["Parquet with pictures"])
    assert place.run("--pilot", "1", **settings).summary["done"] == 1
    assert len(os.listdir(place.results / "pictures")) == 1
    sent = server.count()
    assert place.run(**settings).summary["done"] == 3
    assert server.count() == 3 * sent
    shutil.rmtree(place.results / "pictures")
    assert place.run(**settings).summary["done"] == 3
    assert server.count() == 3 * sent
    assert len(os.listdir(place.results / "pictures")) == 3


RETRYING = """
import logging, sys
from dataflow_grounding.cli.main import main
try:
    main()
finally:
    logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
"""


@pytest.mark.slow
def test_a_data_set_that_can_not_be_had_is_told_in_one_line(
    place: Workplace, tmp_path: Path
) -> None:
    pytest.importorskip("datasets")
    spec = str(place.spec(**{"vlm.backend": "embedded", "data.input_jsonl": "datasets:no/such"}))
    offline = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = ended(Forked(["check", "-e", spec], tmp_path, offline, first=RETRYING))
    assert done.out.endswith("\n0 records checked, 1 problem. Nothing was sent.\n")
    asks = r"is the name right, and this machine online\?"
    assert re.fullmatch(f"Problem: can't load datasets:no/such: .*: {asks}\n", done.err)
