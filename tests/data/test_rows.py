"""Data files: every row and number as given, broken rows named, written whole or not at all,
hostile files refused.
"""

from __future__ import annotations

import csv
import datetime
import json
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest

from dataflow_grounding._util.errors import InputError
from dataflow_grounding.data.dataframes import from_dataframe, to_dataframe
from dataflow_grounding.data.rows import read_records, read_rows, write_rows

HUGE = 123456789012345678901234567890
NAMES = ("image_path", "n", "f", "small", "third", "yes", "nothing")
ROWS: list[dict[str, Any]] = [
    dict(zip(NAMES, values, strict=True))
    for values in (
        ("a/x.jpg", 1, 1.0, 5e-324, 0.1, True, None),
        ("süß/图.jpg", -7, -0.0, 1e-9, 2 / 3, False, None),
        ('q"u,o\nte', 2**53 + 1, 1e300, 0.25, 0.3, True, None),
    )
]
BOXED = {"bbox": [0.5, 1, 2.25, 3], "score": None}
BOXES = {"expressions": [{"text": "a dog", "char_span": [0, 5], "instances": [BOXED]}]}
TABLES = pytest.mark.parametrize(("ending", "mark"), [("csv", ","), ("tsv", "\t")])


def write(path: Path, data: str | bytes) -> str:
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))
    return str(path)


def as_lines(rows: list[dict[str, Any]], end: str = "\n") -> str:
    return "".join(json.dumps(row) + end for row in rows)


def exact(value: Any) -> str:
    """A value with the types of its numbers, for comparing: 1 is not 1.0, and -0.0 is not 0.0."""
    return repr(value)


MARK = b"\xef\xbb\xbf"
WAYS: dict[str, tuple[str, str | bytes]] = {
    "JSON lines": ("x.jsonl", as_lines(ROWS)),
    "JSON lines of another ending": ("x.ndjson", as_lines(ROWS)),
    "JSON lines without ending": ("x", as_lines(ROWS)),
    "no newline at the end": ("x.jsonl", as_lines(ROWS).rstrip("\n")),
    "Windows line ends": ("x.jsonl", as_lines(ROWS, "\r\n")),
    "blank lines": ("x.jsonl", "\n\n" + as_lines(ROWS, "\n  \n") + "\n\t\n"),
    "byte order mark": ("x.jsonl", MARK + as_lines(ROWS).encode()),
    "not escaped": ("x.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)),
    "JSON array": ("x.json", json.dumps(ROWS, indent=2)),
    "JSON array with a mark": ("x.JSON", MARK + json.dumps(ROWS).encode()),
    "JSON lines called .json": ("x.json", as_lines(ROWS)),
}


@pytest.mark.parametrize(("name", "data"), WAYS.values(), ids=WAYS)
def test_rows_are_read_as_given(tmp_path: Path, name: str, data: str | bytes) -> None:
    assert exact(read_records(write(tmp_path / name, data))) == exact(ROWS)


def test_odd_lines_are_read_as_json_reads_them(tmp_path: Path) -> None:
    """The last of two equal keys counts; half of a surrogate pair, escaped or as bytes, is kept;
    lines may be huge.
    """
    huge = "x" * 3_000_000
    data = (
        f'{{"a": 1, "a": 2}}\n{{"a": "\\ud800"}}\n\n{{"a": "{huge}"}}\n'.encode()
        + b'{"a": "\xed\xa0\x80"}'
    )
    rows = list(read_rows(write(tmp_path / "x.jsonl", data)))
    assert [(row.line, row.data) for row in rows] == [
        *((1, {"a": 2}), (2, {"a": "\ud800"}), (4, {"a": huge}), (5, {"a": "\ud800"}))
    ]


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_what_is_written_is_read_again_with_every_number(tmp_path: Path, ending: str) -> None:
    path = str(tmp_path / f"x.{ending}")
    rows = [{**row, **BOXES} for row in ROWS]
    write_rows(path, rows)
    found = read_records(path)
    assert [row["image_path"] for row in found] == [row["image_path"] for row in rows]
    if ending == "parquet":  # there a list of numbers has one type
        assert found == rows
    else:
        assert exact(found) == exact(rows)
        write_rows(path, [{"n": HUGE, "half": "\ud800", "é": "\x00"}])
        assert read_records(path) == [{"n": HUGE, "half": "\ud800", "é": "\x00"}]


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_table_holds_texts_lists_and_objects(tmp_path: Path, ending: str) -> None:
    path = str(tmp_path / f"x.{ending}")
    row = {"id": "007", "quote": 'a "b", c\nd', "empty": "", "brackets": "[not json"}
    row |= {"list": [1, 2.5, None], **BOXES}
    write_rows(path, [row, {"id": "2", "more": "é"}])
    empty = {"quote": "", "empty": "", "brackets": "", "list": "", "expressions": ""}
    assert read_records(path) == [{**row, "more": ""}, {**empty, "id": "2", "more": "é"}]


@TABLES
def test_a_table_is_written_to_the_byte(tmp_path: Path, ending: str, mark: str) -> None:
    path = tmp_path / f"x.{ending}"
    first = {"id": "007", "n": HUGE, "f": 1.0, "t": 5e-324}
    write_rows(str(path), [first, {"id": f'a{mark}"\n', "n": None, "f": True}])
    lines = ["id,n,f,t", f"007,{HUGE},1.0,5e-324", '"a,""\n",,True,', ""]
    assert path.read_bytes().decode() == "\r\n".join(lines).replace(",", mark)


@TABLES
def test_cells_are_texts_whatever_they_look_like(tmp_path: Path, ending: str, mark: str) -> None:
    cells = ["007", "1.50", "NA", "nan", "null", "None", "True", "1e5", "2024-01-01", "#a"]
    cells += ["", " x ", str(HUGE)]
    names = [f"c{number}" for number in range(len(cells))]
    path = write(tmp_path / f"x.{ending}", f"{mark.join(names)}\n{mark.join(cells)}\n")
    assert read_records(path) == [dict(zip(names, cells, strict=True))]


CSVS: dict[str, tuple[bytes, list[dict[str, Any]]]] = {
    "Windows": (b"a,b\r\n1,x\r\n\r\n", [{"a": "1", "b": "x"}]),
    "byte order mark": (b"\xef\xbb\xbfa,b\n1,x", [{"a": "1", "b": "x"}]),
    "line breaks in cells": (b'a,b\n"1\r\n2","x""y"\n', [{"a": "1\r\n2", "b": 'x"y'}]),
    "no list after all": (b'a,b\n"[1, 2","[NaN]"\n', [{"a": "[1, 2", "b": "[NaN]"}]),
    "a list": (b'a,b\n"[1, 2.50]","{""x"": null}"\n', [{"a": [1, 2.5], "b": {"x": None}}]),
    "only names": (b"a,b\n", []),
    "one column": (b"a\n1\n2\n", [{"a": "1"}, {"a": "2"}]),
}


@pytest.mark.parametrize(("data", "rows"), CSVS.values(), ids=CSVS)
def test_csv(tmp_path: Path, data: bytes, rows: list[dict[str, Any]]) -> None:
    assert read_records(write(tmp_path / "x.csv", data)) == rows


AROUND = b'{"a": 1}\n%s\n{"a": 3}'
BAD_LINES: dict[str, tuple[str, bytes, list[int], str]] = {
    "cut off": ("x.jsonl", b'{"a": 1}\n{"a":\n{"a": 3}\n', [2], "not JSON"),
    "not UTF-8": ("x.jsonl", b'{"a": 1}\n\n{"a": "\xff"}\n{"a": 3}', [3], "not JSON"),
    "NaN": ("x.jsonl", b'{"a": 1}\n{"a": NaN}\n{"a": 3}\n', [2], "NaN"),
    "infinite": ("x.jsonl", b'{"a": 1}\n{"a": -Infinity}\n{"a": 1e999}\n{"a": 3}', [2, 3], ""),
    "no object": ("x.jsonl", b'{"a": 1}\n[1]\n"x"\nnull\n7\n{"a": 3}', [2, 3, 4, 5], "JSON object"),
    "nested without end": ("x.jsonl", AROUND % (b"[" * 100_000), [2], "not JSON"),
    "in a JSON array": ("x.json", b'[{"a": 1}, 5, {"a": NaN}, {"a": 3}]', [2, 3], ""),
    "too few cells": ("x.csv", b'a,b\n1,"x\ny"\n2\n3,z\n', [4], "1 cells, the header 2"),
    "too many cells": ("x.csv", b"a,b\n1,x\n2,x,y\n3,z\n", [3], "3 cells"),
    "text after a quote": ("x.csv", b'a,b\n1,x\n"2"2,y\n3,z\n', [3], "not CSV"),
    "a quote without end": ("x.csv", b'a,b\n1,x\n3,z\n2,"y\n5,x\n', [4], "not CSV"),
    "too few cells in a TSV": ("x.tsv", b'a\tb\n1\t"x\ny"\n2\n3\tz\n', [4], "1 cells, the header"),
    "a CSV line that is not UTF-8": ("x.csv", b"a,b\n1,x\n2,\xff\n3,z\n", [3], "UTF-8"),
}


@pytest.mark.parametrize(("name", "data", "lines", "says"), BAD_LINES.values(), ids=BAD_LINES)
def test_a_broken_row_is_named_by_its_line_and_the_others_are_read(
    tmp_path: Path, name: str, data: bytes, lines: list[int], says: str
) -> None:
    path = write(tmp_path / name, data)
    rows = list(read_rows(path))
    assert [row.line for row in rows if row.error] == lines
    assert [str(row.data["a"]) for row in rows if row.data] == ["1", "3"]
    with pytest.raises(InputError) as caught:
        read_records(path)
    assert f"{path}, line {lines[0]}: " in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


USELESS: dict[str, tuple[str, bytes, str]] = {
    "an empty CSV": ("x.csv", b"", "first line is empty"),
    "a CSV with two equal names": ("x.csv", b"a,b,a\n1,2,3\n", "'a'"),
    "a CSV with semicolons": (
        "x.csv",
        b"a;b\n1;2\n",
        "';' between its columns: save it with commas",
    ),
    "a JSON text": ("x.json", b'"rows"', "array"),
    "a COCO file": ("x.json", b'{"info": {}, "images": [{"id": 1}]}', "import .* --format coco"),
    "an empty JSON": ("x.json", b"", "not JSON"),
    "a JSON that is not UTF-8": ("x.json", b'[{"a": "\xff\xfe"}]', "not JSON"),
    "a JSON nested without end": ("x.json", b"[" * 200_000, "nested"),
    "no Parquet": ("x.parquet", b"PAR1 or not", "Parquet"),
    "an empty Parquet": ("x.parquet", b"", "Parquet"),
}


@pytest.mark.parametrize(("name", "data", "says"), USELESS.values(), ids=USELESS)
def test_a_file_that_is_no_data_is_refused_in_one_line(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(InputError, match=says) as caught:
        read_records(path)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no input file"):
        read_records(str(tmp_path / "gone.jsonl"))
    for ending in ("jsonl", "json", "csv", "tsv", "parquet"):
        (tmp_path / f"folder.{ending}").mkdir()
        with pytest.raises(InputError, match="folder"):
            read_records(str(tmp_path / f"folder.{ending}"))


def test_parquet_has_nan_dates_nesting_and_narrow_numbers(tmp_path: Path) -> None:
    frame = pandas.DataFrame(
        {
            "f": [0.5, float("nan")],
            "single": numpy.array([0.1, 2], dtype=numpy.float32),
            "maybe": pandas.array([1, None], dtype="Int64"),
            "day": [datetime.date(2024, 2, 29), None],
            "time": pandas.to_datetime(["2024-02-29 12:00", None]),
            "nested": [{"a": [{"b": 1.5}]}, {"a": []}],
        }
    )
    frame.to_parquet(tmp_path / "x.parquet")
    first, second = read_records(str(tmp_path / "x.parquet"))
    assert first["day"] == "2024-02-29"
    assert first["time"].startswith("2024-02-29 12:00")
    assert (first["f"], first["single"]) == (0.5, float(numpy.float32(0.1)))
    assert (first["nested"], second["nested"]) == ({"a": [{"b": 1.5}]}, {"a": []})
    assert {second[name] for name in ("f", "maybe", "day", "time")} == {None}
    assert exact(first["maybe"]) == "1", "a whole number beside a missing one stays whole"
    json.dumps([first, second], allow_nan=False)


def test_a_dataframe_becomes_plain_json() -> None:
    frame = pandas.DataFrame(
        {
            "box": [numpy.array([1.5, 2, 3, 4]), None],
            "n": numpy.array([1, 2], dtype=numpy.int32),
            "maybe": pandas.array([None, 2], dtype="Int64"),
            "na": [[pandas.NA], [pandas.NaT]],
            "inf": [float("inf"), numpy.float64("nan")],
            "when": [numpy.datetime64("2024-01-01T00:00:00", "ns"), None],
            "flag": [numpy.True_, False],
            7: ["a", "b"],
        },
        index=[10, 20],
    )
    first = {"box": [1.5, 2.0, 3.0, 4.0], "n": 1, "maybe": None, "na": [None], "inf": None}
    second = {"box": None, "n": 2, "maybe": 2, "na": [None], "inf": None}
    assert from_dataframe(frame) == [
        {**first, "when": "2024-01-01 00:00:00", "flag": True, "7": "a"},
        {**second, "when": None, "flag": False, "7": "b"},
    ]


def test_a_dataframe_keeps_whole_numbers_whole_beside_missing_ones() -> None:
    rows = [{"n": 1, "deep": {"a": [1]}}, {"f": 2.5}, {"n": None}]
    assert exact(from_dataframe(to_dataframe(rows))) == exact(
        [{"n": None, "deep": None, "f": None, **r} for r in rows]
    )


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    write_rows(str(path), [{"a": "old"}])
    before = path.read_bytes()

    def rows() -> Iterator[dict[str, Any]]:
        yield {"a": "new"}
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        write_rows(str(path), rows())
    with pytest.raises((ValueError, TypeError)):
        write_rows(str(path), [{"a": "new"}, {"a": float("nan")}])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "rows",
    [[{"n": 1}, {"n": "x"}], [{"n": {}}], [{"n": 10**30}]],
    ids=["two types", "an empty object", "a huge number"],
)
def test_what_parquet_cannot_hold_is_said_in_one_line(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path / "x.parquet"
    with pytest.raises(InputError, match="cache_type jsonl") as caught:
        write_rows(str(path), rows)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_half_of_a_surrogate_pair_does_not_cost_the_file(tmp_path: Path, ending: str) -> None:
    path = str(tmp_path / f"x.{ending}")
    write_rows(path, [{"a": "\ud83d é", "deep": ["\ud800"]}])
    assert read_records(path)[0]["a"] == "\\ud83d é"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("[]", []),
        ('\ufeff[{"a": 1}, {"b": [2]}]', [{"a": 1}, {"b": [2]}]),
        ('[{"a": "' + "x" * 200_000 + '"} ,\n{"a": 2}]', None),
        ('{"a": 1}', [{"a": 1}]),
        ('{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ('[{"a": NaN}, 123, {"a": 2}]', ["NaN is not a JSON", "be a JSON object", {"a": 2}]),
        ('[{"a": 1}, ]', "is not JSON: "),
        ('[{"a": 1} {"a": 2}]', "is not JSON: Expecting ',' delimiter"),
        ('[{"a": 1}', "is not JSON: "),
        ('[{"a": 1}] x', "should hold a JSON array"),
        ("[" * 100_000, "nested too deeply"),
        ("7", "should hold a JSON array"),
    ],
)
def test_json_lists_are_read_one_object_at_a_time(tmp_path: Path, text: str, rows: Any) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    if isinstance(rows, str):
        with pytest.raises(InputError, match=rows):
            list(read_rows(str(path)))
        return
    found = list(read_rows(str(path)))
    for row, wanted in zip(found, rows or json.loads(text), strict=True):
        assert row.data == wanted if isinstance(wanted, dict) else wanted in str(row.error)


@pytest.mark.slow
def test_a_long_json_list_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    row = json.dumps({"a": "x" * 1000, "b": [1.5, 2, 3]})
    path.write_text("[" + ",\n".join([row] * 8_000) + "]")
    tracemalloc.start()
    assert sum(1 for _ in read_rows(str(path))) == 8_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


def test_nothing_is_left_of_a_file_that_a_full_disk_kept_from_being_written(tmp_path: Path) -> None:
    path, before = str(tmp_path / "x.jsonl"), resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal that comes with it
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_rows(path, ROWS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


FORMULAS = [
    "=1+1",
    "@SUM(A1)",
    "-2+3",
    "'=1",
    "''@a",
    "=",
    "'",
    "+cmd|' /C calc'!A0",
    "\t=1",
    "\r=1",
]


@pytest.mark.parametrize("text", FORMULAS)
@TABLES
def test_no_text_is_a_formula_for_a_spreadsheet(
    tmp_path: Path, text: str, ending: str, mark: str
) -> None:
    path = tmp_path / f"x.{ending}"
    rows = [{"image_path": "a.jpg", "caption": text, f"{text}!": "b"}]
    write_rows(str(path), rows)
    with open(path, encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file, delimiter=mark) for cell in row]
    assert not {cell[:1] for cell in cells} & set("=+-@\t\r")
    assert read_records(str(path)) == rows


@pytest.mark.parametrize("number", ["-5", "+1", "-2.5e-3", "-.5", "-7."])
def test_numbers_below_zero_stay_numbers(tmp_path: Path, number: str) -> None:
    write_rows(str(tmp_path / "x.csv"), [{"n": number, "x": -2.5}])
    assert (tmp_path / "x.csv").read_text() == f"n,x\n{number},-2.5\n"
