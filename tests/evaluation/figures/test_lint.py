"""`lint`: each rule finds its case and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding.evaluation.figures.linting import RULES
from tests.formats.data import draw, record
from tests.support.workplace import REPOSITORY, Done, command, write_rows

SIZE = (64, 48)
Row = dict[str, Any]


def good(name: str = "a.jpg") -> Row:
    """A record that no rule finds anything in."""
    left = ord(name[0]) - ord("a")  # each picture has boxes of its own
    boxes = [{"bbox": [left + 1, 2, 30, 40], "score": 0.9, "bbox_id": f"{name}#0#0"}]
    two = [{"bbox": [3.5, 4, 9, 9], "score": None}, {"bbox": [40, 4, 49, 19], "score": None}]
    said = [
        {"text": "a red mug", "instances": boxes},
        {"text": "a cat"},
        {"text": "two plates", "instances": two},
    ]
    return record(name, SIZE, said)


def changed(change: Callable[[Row, Row], object]) -> Row:
    row = copy.deepcopy(good())
    change(row, row["expressions"][0])
    return row


def box(row: Row, bbox: list[float], place: int = 0) -> None:
    row["expressions"][0]["instances"][place]["bbox"] = bbox


AGAIN: Row = {"text": "A  red mug", "char_span": [0, 9], "status": "grounded"}
AGAIN["instances"] = [{"bbox": [9, 2, 30, 40]}]
CASES: dict[str, Callable[[Row, Row], object]] = {
    "DG002": lambda row, one: one.update(instances=[{"bbox": [1, 2, 3]}]),
    "DG101": lambda row, one: box(row, [1, 2, 65, 40]),
    "DG102": lambda row, one: box(row, [-0.4, 2, 30, 48.5]),
    "DG103": lambda row, one: box(row, [30, 2, 1, 40]),
    "DG104": lambda row, one: one["instances"].append({"bbox": [1, 2, 30, 40], "score": 0.95}),
    "DG105": lambda row, one: one["instances"].append({"bbox": [1, 2, 30, 41]}),
    "DG106": lambda row, one: box(row, [0, 0, 64, 48]),
    "DG201": lambda row, one: one.update(char_span=[2, 11]),
    "DG202": lambda row, one: one.update(char_span=None),
    "DG204": lambda row, one: row["expressions"].append(AGAIN),
    "DG205": lambda row, one: row["expressions"][1].update(
        status="grounded", instances=[{"bbox": [1, 2, 30, 40.2], "score": 1}]
    ),
    "DG206": lambda row, one: one.update(text="a <image>", char_span=None),
    "DG301": lambda row, one: one.update(status="found"),
    "DG302": lambda row, one: one.update(status="none"),
    "DG303": lambda row, one: one["instances"][0].update(score=90),
}


def lint(data: Path, *options: object) -> Done:
    return command(["lint", str(data), *map(str, options)])


def found_in(folder: Path, *rows: Row, options: Sequence[str] = ()) -> list[str]:
    """The rules that find something in these rows, without their pictures."""
    data = write_rows(folder / "a.jsonl", *rows)
    return rules_of(lint(data, "--no-pictures", *options))


def rules_of(done: Done) -> list[str]:
    """Rules in the order of what is printed: `file:line: RULE message`."""
    return [line.split(": ", 1)[1].split(" ")[0] for line in done.out.splitlines()]


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_finds_its_case_alone(tmp_path: Path, rule: str) -> None:
    data = write_rows(tmp_path / "a.jsonl", good("b.jpg"), changed(CASES[rule]))
    done = lint(data, "--no-pictures")
    assert (done.code, rules_of(done)) == (1, [rule]), done
    assert done.out.startswith(f"{data}:2: {rule} ")
    assert lint(data, "--no-pictures", "--ignore", rule).code == 0
    assert lint(data, "--no-pictures", "--select", rule[:3]).code == 1
    others = ",".join(other for other in RULES if other != rule)
    assert lint(data, "--no-pictures", "--select", others).code == 0


def test_parts_of_sides_are_found_also_where_nothing_says_how_large_the_picture_is(
    tmp_path: Path,
) -> None:
    for bbox, found in (([0, 0, 1, 1], ["DG107"]), ([0, 0, 1, 2], [])):
        row = changed(lambda row, _: row.update(width=None))
        box(row, bbox)
        assert found_in(tmp_path, row) == found


@pytest.mark.parametrize("others", [["a red mug", "a dog"], ["a dog", "a red mug"]])
def test_boxes_are_the_same_only_if_each_has_its_like_on_the_other_side(
    tmp_path: Path, others: list[str]
) -> None:
    second = {"a dog": [50, 1, 60, 40], "a red mug": [1, 1, 40, 41]}
    said = []
    for text in others:
        boxes = [{"bbox": [1, 1, 40, 40]}, {"bbox": second[text]}]
        said.append({"text": text, "instances": boxes})
    same = [*said[:1], {"text": "a cat", "instances": said[0]["instances"][::-1]}]
    for found, some in (([], said), (["DG205"], same)):
        row = record("a.jpg", SIZE, copy.deepcopy(some))
        assert found_in(tmp_path, row, options=["--select", "DG205"]) == found


def test_two_words_of_one_class_may_have_the_same_boxes(tmp_path: Path) -> None:
    words = []
    for text, name in (("a person", "person"), ("a cyclist", "person"), ("a dog", "dog")):
        words.append({"text": text, "class": name, "instances": [{"bbox": [1, 1, 40, 40]}]})
    for some, count in ((words[:2], 0), (words, 2)):
        row = record("a.jpg", SIZE, copy.deepcopy(some))
        assert found_in(tmp_path, row, options=["--select", "DG205"]) == ["DG205"] * count


def test_rules_of_several_lines_and_whole_records(tmp_path: Path) -> None:
    dog = {"text": "a dog", "instances": [{"bbox": [0.1, 0.2, 0.5, 0.9]}]}
    parts = record("p.jpg", SIZE, [dog])
    data = write_rows(tmp_path / "a.jsonl", good(), "{", "[1]", good(), parts)
    said = lint(data, "--no-pictures", "--json")
    assert said.code == 1
    found = [(one["line"], one["rule"]) for one in said.summary["findings"]]
    assert found[:2] == [(2, "DG001"), (3, "DG001")]
    assert found[2:5] == [(4, "DG003")] * 3
    assert found[5:] == [(5, "DG103"), (5, "DG107")]
    assert said.summary["counts"] == {"DG001": 2, "DG003": 3, "DG103": 1, "DG107": 1}


@pytest.mark.slow
def test_pictures(tmp_path: Path) -> None:
    rows = [good("a.jpg"), good("b.jpg"), good("c.jpg"), good("turned.jpg")]
    draw(tmp_path, rows[:3])
    draw(tmp_path, rows[3:], turn=6)
    (tmp_path / "b.jpg").unlink()
    PIL.Image.new("RGB", (48, 64)).save(tmp_path / "c.jpg")
    done = lint(write_rows(tmp_path / "a.jsonl", *rows))
    assert rules_of(done) == ["DG401", "DG402", "DG101"]  # and so a box ends outside
    assert "48x64 is stated as 64x48" in done.out


def test_the_same_boxes_in_two_pictures_in_a_row(tmp_path: Path) -> None:
    """vllm-project/vllm#20261, sgl-project/sglang#5455: answers came for other pictures."""
    boxes = [[1, 2, 30, 40], [5, 6, 17, 28]]
    rows = []
    for number, shift in enumerate((0, 0, 1)):
        row = good(f"a{number}.jpg")
        moved = [[x1 + shift, *rest] for x1, *rest in boxes]
        row["expressions"][0]["instances"] = [{"bbox": box, "score": None} for box in moved]
        rows.append(row)
    done = lint(write_rows(tmp_path / "a.jsonl", *rows, rows[-1]), "--no-pictures", "--json")
    findings = done.summary["findings"]
    assert [found["line"] for found in findings if found["rule"] == "DG108"] == [2]


def test_a_picture_that_is_sent_stretched(tmp_path: Path) -> None:
    PIL.Image.frombytes("I;16", (2, 1), b"\0\0\xf0\x0f").resize((64, 48)).save(tmp_path / "a.png")
    assert rules_of(lint(write_rows(tmp_path / "a.jsonl", good("a.png")))) == ["DG403"]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif"])
def test_a_picture_that_lost_its_end_can_not_be_read(tmp_path: Path, name: str) -> None:
    PIL.Image.effect_noise((64, 48), 80).save(tmp_path / name)
    data = write_rows(tmp_path / "a.jsonl", good(name))
    assert rules_of(lint(data)) == []
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:1500])
    assert rules_of(lint(data)) == ["DG401"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["A dog", None], ["DG202"]),
        ([None, None], ["DG202", "DG202"]),
        (["a cat"], []),
    ],
)
def test_a_span_could_be_there_if_the_caption_has_the_words(
    tmp_path: Path, given: list[str | None], found: list[str]
) -> None:
    row = record("a.jpg", SIZE, [{"text": "a dog", "status": "none"} for _ in given])
    row |= {"caption": "A dog on a mat", "cleaned_caption": "A dog on a mat"}
    for one, words in zip(row["expressions"], given, strict=True):
        one["char_span"] = [0, 5] if words == "A dog" else None
        one["text"] = "a cat" if words == "a cat" else "a dog"
    assert found_in(tmp_path, row, options=["--ignore", "DG207"]) == found


@pytest.mark.parametrize(
    "word", ["<loc0001>", "<box>", "<|im_end|>", "</s>", "<ref>", " . a", "<image>"]
)
def test_words_that_some_trainer_takes_for_something_else(tmp_path: Path, word: str) -> None:
    text = f"a dog {word} b"
    row: Row = {"image_path": "a.jpg", "caption": text}
    row["expressions"] = [{"text": "a dog", "char_span": [0, 5]}]
    assert found_in(tmp_path, row) == ["DG206"]
    row["expressions"] = [{"text": text, "char_span": [0, len(text)]}]
    assert found_in(tmp_path, row) == ["DG206", "DG206"]


def test_what_is_anything_but_annotations(tmp_path: Path) -> None:
    box = {"bbox": [1, 2, 3, 4], "score": ""}
    one = {"text": "a", "status": ["x"], "char_span": {"a": 1}, "expression_id": [1]}
    one["instances"] = [box, box]
    odd = {"image_path": 7, "caption": ["a"], "width": "x", "expressions": [one, "b"]}
    done = lint(write_rows(tmp_path / "a.jsonl", odd, {"regions": 7}, {}))
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert {"DG002", "DG201", "DG301", "DG303", "DG104", "DG401"} == {*rules_of(done)}


def test_a_width_beyond_all_numbers_is_none(tmp_path: Path) -> None:
    one = {"text": "a", "instances": [{"bbox": [1, 2, 30, 40]}]}
    row = {"image_path": "a.png", "width": 10**400, "height": 48, "caption": "a"}
    data = write_rows(tmp_path / "a.jsonl", {**row, "expressions": [one]})
    for name in ("lint", "stats"):
        done = command([name, str(data), "--no-pictures"])
        assert (done.code, "rror" in done.err) == (int(name == "lint"), False), done


def test_wrong_arguments(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "a.jsonl", good())
    for options, said in (
        (["--select", "DG9"], "no rule begins with 'DG9'"),
        (["--ignore", "DG1,,"], "no rule begins with ''"),
    ):
        done = lint(data, *options)
        assert (done.code, said in done.err) == (2, True), done
    assert lint(tmp_path / "nowhere").code == 2


def test_a_finding_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "annotations.jsonl", changed(CASES["DG303"]))
    monkeypatch.chdir(tmp_path)
    done = command(["lint", ".", "--no-pictures"])
    found = f"{RULES['DG303']}: 'a red mug', [1, 2, 30, 40] in 64x48, score 90"
    assert done.out == f"./annotations.jsonl:1: DG303 {found}\n"
    assert (done.code, done.err) == (1, "1 finding\n")


def test_every_rule_is_in_the_docs() -> None:
    page = (REPOSITORY / "docs/figures.md").read_text(encoding="utf-8")
    for rule, finds in RULES.items():
        assert f"| {rule} | {finds} |" in page


def test_what_is_wrong_with_a_picture_is_told_once_for_all_of_its_records(tmp_path: Path) -> None:
    rows = []
    for text in ("a dog", "the dog", "one dog"):
        beyond = {"text": text, "class": "dog", "instances": [{"bbox": [1, 2, 90, 40]}]}
        rows.append(record("a.jpg", (60, 48), [beyond], image_id=text))
    draw(tmp_path, [{**rows[0], "width": 64}])
    data = write_rows(tmp_path / "a.jsonl", *rows, {**rows[0], "image_path": "b.jpg"})
    done = lint(data, "--ignore", "DG003")
    lines = [line.split(":")[1] for line in done.out.splitlines()]
    found = [*zip(lines, rules_of(done), strict=True)]
    assert found == [("1", "DG402"), ("1", "DG101"), ("4", "DG401"), ("4", "DG101")]
