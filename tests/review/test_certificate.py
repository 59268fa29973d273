"""`certify`: the figures of a sample that was reviewed, attacked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding.evaluation.metrics.bounds import clopper_pearson
from dataflow_grounding.review.reviewable import Reviewable
from dataflow_grounding.review.session import Session
from tests.support.reviewing import Asked, asked_for, left
from tests.support.workplace import command, rows_of, write_rows

pytestmark = pytest.mark.slow

METHOD = {"method": "ask"}


def box(name: str, bbox: list[float]) -> dict[str, Any]:
    return {"bbox_id": name, "bbox": bbox, "score": 0.9}


WITH_ONE_ID = {
    "text": "a mug",
    "expression_id": "e",
    "instances": [box("b", [1, 2, 30, 40])],
}


def record(n: int) -> dict[str, Any]:
    """Three boxes, of which one is small and one checked and rejected, and a phrase without any."""
    name = f"r{n}"
    large, small = [10, 10, 190, 140], [5.5, 5, 25, 25]
    two = [box(f"{name}#0.0", large), box(f"{name}#0.1", small)]
    one = [box(f"{name}#1.0", large)]
    rows: list[dict[str, Any]] = [
        {"text": "two mugs", "status": "ambiguous", "instances": two},
        {"text": "a dog", "status": "grounded", "instances": one, "verified": n % 4 > 0},
        {"text": "grass", "status": "none", "instances": []},
    ]
    rows[1]["verification"] = METHOD
    phrases = []
    for number, row in enumerate(rows):
        phrases.append({"expression_id": f"{name}#{number}", "char_span": None, **row})
    made = {"model": "seer", "width": 200, "height": 150, "caption": ""}
    return {"image_id": name, "image_path": f"{name}.png", **made, "expressions": phrases}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for n in range(20):
        Image.new("RGB", (200, 150), (n, n, n)).save(tmp_path / f"r{n}.png")
    folder = tmp_path / "out"
    write_rows(folder / "annotations.jsonl", *map(record, range(20)))
    run = {"model": "seer", "box_format": {"name": "xyxy_px"}, "image_folders": [str(tmp_path)]}
    write_rows(folder / "run.json", run)
    return folder


class Review:
    """A reviewer of the page's session: states the sample, sees what it draws, decides."""

    def __init__(self, results: Path, root: str = "", **options: Any) -> None:
        self.session = Session(Reviewable(str(results), root or None), **options)
        self.items = [tuple(self.session.reviewable.named(i)) for i in self.session.sample or ()]

    def change(
        self, key: str, id: str, boxes: Any = None, right: bool = True, **more: Any
    ) -> dict[str, Any]:
        """A decision on some boxes of an expression, by default all, or on it where it has none."""
        view = self.session.view(int(key[1:]))
        e = next(e for e in view["expressions"] if e["id"] == id)
        wanted = range(len(e["instances"])) if boxes is None else boxes
        instances = [
            {"from": n, "bbox": i["bbox"], "verified": right if n in wanted else i["verified"]}
            for n, i in enumerate(e["instances"])
        ]
        return asked_for(view, id, {"instances": instances, "verified": right, **more})

    def decide(self, key: str, change: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
        uid = os.urandom(6).hex()
        decision = {"uid": uid, "record": key, **(change or {"acts": []}), **more}
        [answer] = self.session.decide([decision])["answers"]
        assert answer["error"] == ""
        return {**answer, "uid": uid}

    def judge(
        self, item: tuple[str, str, int | None], right: bool = True, **more: Any
    ) -> dict[str, Any]:
        key, id, place = item
        boxes = None if place is None else [place]
        return self.decide(key, self.change(key, id, boxes, right, **more))

    def undo(self, item: tuple[str, str, int | None], right: bool = True) -> None:
        """Judge an item, and take it back."""
        self.decide(item[0], None, undoes=self.judge(item, right)["uid"])

    def delete(self, item: tuple[str, str, int | None]) -> None:
        """Delete the phrase of an item."""
        view = self.session.view(int(item[0][1:]))
        self.decide(item[0], asked_for(view, item[1], None))

    def judge_all(self, wrong: set[Any] = frozenset(), but: set[Any] = frozenset()) -> None:  # type: ignore[assignment]
        for item in self.items:
            if item not in but:
                self.judge(item, item not in wrong)

    def left(self) -> list[Asked]:
        return left(self.session)


@pytest.fixture
def review(results: Path) -> Callable[..., Review]:
    def begin(sample: int | None = 24, who: str = "ann", seed: int = 0, **options: Any) -> Review:
        options["sample"] = None if sample is None else (sample, seed)
        return Review(results, who=who, **options)

    return begin


def lines(results: Path) -> list[Any]:
    return rows_of(results / "reviews.jsonl")


def certified(results: Path, *options: str, code: int = 0) -> dict[str, Any]:
    done = command(["certify", str(results), *options, "--json"])
    assert done.code == code, done
    found: dict[str, Any] = json.loads(done.out)
    return found


def boxes_of(items: list[Any]) -> list[Any]:
    return [item for item in items if item[2] is not None]


def chance_of(at_least: int, of: int, share: float) -> float:
    return 1 - sum(comb(of, n) * share**n * (1 - share) ** (of - n) for n in range(at_least))


@pytest.mark.parametrize(
    ("found", "of"), [(0, 1), (1, 1), (0, 200), (4, 190), (200, 200), (30, 61), (3, 5000)]
)
def test_bounds_are_those_at_which_what_was_found_has_a_chance_of_one_in_forty(
    found: int, of: int
) -> None:
    low, high = clopper_pearson(found, of)
    assert low == 0 if not found else chance_of(found, of, low) == pytest.approx(0.025, rel=1e-4)
    above = 0 if found == of else 1 - chance_of(found + 1, of, high)
    assert high == 1 if found == of else above == pytest.approx(0.025, rel=1e-4)
    if not found:
        assert high == pytest.approx(1 - 0.025 ** (1 / of), abs=1e-8)


@pytest.mark.parametrize("errors", [0, 2, None])
def test_a_sample_says_what_is_wrong_of_all_with_bounds(
    results: Path, review: Any, errors: int | None
) -> None:
    reviewer = review()
    boxes = boxes_of(reviewer.items)
    wrong = {*boxes[:errors]}
    reviewer.judge_all(wrong)
    found = certified(results)
    n, k = len(boxes), len(wrong)
    low, high = clopper_pearson(k, n)
    assert found["boxes"] == {
        "wrong": k,
        "unsettled": 0,
        "looked_at": n,
        "of": 60,
        "share": round(k / n, 6),
        "low": pytest.approx(max(low, k / 60), abs=1e-6),
        "high": pytest.approx(min(high, 1 - (n - k) / 60), abs=1e-6),
    }
    missed = found["phrases_missed"]
    asked = (missed["wrong"], missed["looked_at"], missed["of"], missed["phrases"])
    assert asked == (0, 24 - n, 20, 60)
    # a third is without a box
    assert missed["high"] == pytest.approx(clopper_pearson(0, 24 - n)[1] / 3, abs=1e-6)
    assert f"{100 * k / n:.1f}% of 60 boxes wrong (95%: " in found["sentence"]
    by = found["by"]
    for name in ("size", "status", "model"):
        assert sum(one["looked_at"] for one in by[name].values()) == n
    sizes = {"large": 40, "small, < 32² px": 20}
    assert {name: one["of"] for name, one in by["size"].items()} == sizes
    statuses = {"ambiguous": 40, "grounded": 20}
    assert {name: one["of"] for name, one in by["status"].items()} == statuses
    assert found["reviewers"] == {"ann": 24}
    said = command(["certify", str(results)]).out
    by_size = r"^by size: \d+\.\d% of large \(95%: \d+\.\d–\d+\.\d%\); "
    assert re.search(by_size, said, re.MULTILINE)


def test_a_target_is_held_against_the_upper_bound(results: Path, review: Any) -> None:
    review().judge_all()
    high = certified(results)["boxes"]["high"]
    for share, code in ((f"{100 * high + 0.1}%", 0), (str(high - 0.001), 1)):
        assert certified(results, "--max-error", share, code=code)["target"]["accepted"] is (
            code == 0
        )
    told = command(["certify", str(results), "--max-error", "3%"]).out
    why = r"boxes wrong \(95%: [\d.]+–([\d.]+)%\).*; not accepted: up to \1% of boxes may be wrong"
    assert re.search(f"{why}, 3% are allowed", told), told
    for nonsense in ("3", "-1%", "nan", "a lot", "0"):
        assert command(["certify", str(results), "--max-error", nonsense]).code == 2


def first(items: list[Any], boxes: int | None) -> Any:
    """An item of the sample, the only one of its phrase: of the phrase with two boxes, with one, or
    (None) with none.
    """
    ids = [item[1] for item in items]
    end = {2: "#0", 1: "#1", None: "#2"}[boxes]
    return next(item for item in items if item[1].endswith(end) and ids.count(item[1]) == 1)


def placed(*bbox: int, **more: Any) -> list[dict[str, Any]]:
    """The first box at another place, which is right unless `more` says another thing."""
    return [{"from": 0, "bbox": [*bbox], "verified": True, **more}]


MOVED = placed(11, 10, 190, 140)
MOVED_AS_A_WHOLE = placed(11, 11, 190, 141, verified=None, unjudged=True)
DRAWN = placed(1, 1, 9, 9, **{"from": None})


def other_of(item: Any) -> Any:
    """The other box of a phrase with two."""
    return (*item[:2], 1 - item[2])


# what a reviewer does, how many boxes the phrase has, whether the item is right by that
ACTS: dict[str, tuple[Callable[[Review, Any], Any], int | None, bool | None]] = {
    "not decided": (lambda r, i: None, 1, None),
    "only a comment": (lambda r, i: r.decide(i[0], None, comment="fine"), 1, None),
    "undone": (lambda r, i: r.undo(i), 1, None),
    "undone, then accepted": (lambda r, i: (r.undo(i, False), r.judge(i)), 1, True),
    "accepted, then rejected": (lambda r, i: (r.judge(i), r.judge(i, False)), 1, False),
    "moved by a pixel": (lambda r, i: r.judge(i, instances=MOVED), 1, False),
    "moved as a whole": (lambda r, i: r.judge(i, instances=MOVED_AS_A_WHOLE), 1, None),
    "box deleted": (lambda r, i: r.judge(i, instances=[]), 1, False),
    "phrase deleted": (lambda r, i: r.delete(i), 1, False),
    "right box, wrong phrase": (lambda r, i: r.judge(i, text="a cat", char_span=None), 1, False),
    "only the other box rejected": (lambda r, i: r.judge(other_of(i), False), 2, None),
    "the other box rejected": (lambda r, i: (r.judge(other_of(i), False), r.judge(i)), 2, True),
    "nothing there": (lambda r, i: r.judge(i), None, True),
    "missed": (lambda r, i: r.judge(i, False), None, False),
    "drawn": (lambda r, i: r.judge(i, status="grounded", instances=DRAWN), None, False),
}


@pytest.mark.parametrize(("act", "boxes", "right"), ACTS.values(), ids=ACTS)
def test_what_is_done_to_an_item_decides_whether_it_was_right(
    results: Path, review: Any, act: Any, boxes: int | None, right: bool | None
) -> None:
    reviewer = review(12)
    item = first(reviewer.items, boxes)
    reviewer.judge_all(but={item})
    act(reviewer, item)
    found = certified(results)["phrases_missed" if boxes is None else "boxes"]
    part = 1 if boxes else 1 / 3
    assert (found["wrong"], found["unsettled"]) == (right is False, right is None)
    assert found["share"] == pytest.approx(part * (not right) / found["looked_at"], abs=1e-6)
    least = part * (right is False) / found["of"]
    most = part * clopper_pearson(int(not right), found["looked_at"])[1]
    assert found["low"] >= round(least, 6)
    assert (found["low"] == 0) is (right is not False), "what is open is not known to be wrong"
    assert found["high"] == pytest.approx(most, abs=1e-6), "nor known to be right"


def test_no_sample_no_certificate(results: Path, review: Any) -> None:
    def refused(why: str) -> None:
        done = command(["certify", str(results)])
        assert (done.code, done.out) == (2, "")
        assert why in done.err
        assert len(done.err.splitlines()) == 1

    refused("annotations.jsonl has none. Run `dataflowgrounding review ")
    reviewer = review()
    reviewer.judge_all()
    log, annotations = results / "reviews.jsonl", results / "annotations.jsonl"
    whole, records = log.read_text(encoding="utf-8"), annotations.read_text(encoding="utf-8")
    [stated, *decisions] = whole.splitlines(keepends=True)
    sample = json.loads(stated)
    sample["sample"]["items"][0] = ["path of no picture", "a dog", None]
    for first, why in (
        ("", "has none"),
        (json.dumps(sample) + "\n", "has changed since one was stated"),
        (stated.replace('"seed": 0', '"seed": 7'), "has changed since one was stated"),
        ('{"sample": {"size": "all"}}\n', "has changed since one was stated"),
    ):
        log.write_text(first + "".join(decisions), encoding="utf-8")
        refused(why)
    log.write_text(whole, encoding="utf-8")
    key, id, _ = boxes_of(reviewer.items)[0]
    rows = rows_of(annotations)
    for box in rows[int(key[1:])]["expressions"][int(id[-1])]["instances"]:
        box["bbox"][3] += 1
    write_rows(annotations, *rows)
    refused("has changed since one was stated")
    review(5)
    assert certified(results)["samples"][0]["size"] == 5
    for extra in ('{"torn', '{"record": "r0", "acts": [{"id": "r0#0"}]}\n', "[]\n", "\0\n"):
        annotations.write_text(records, encoding="utf-8")
        log.write_text(whole + extra, encoding="utf-8")
        assert certified(results)["boxes"]["unsettled"] == 0, "a broken line counts for nothing"


def test_what_nobody_judged_is_unsettled_in_its_group_too(results: Path, review: Any) -> None:
    reviewer = review()
    reviewer.judge(boxes_of(reviewer.items)[0], False)
    found = certified(results)
    for name in ("wrong", "unsettled"):
        groups = found["by"]["size"].values()
        assert sum(group[name] for group in groups) == found["boxes"][name]


def test_a_line_that_is_gone_never_makes_a_figure_better(results: Path, review: Any) -> None:
    reviewer = review()
    item = boxes_of(reviewer.items)[0]
    reviewer.judge_all({item})
    reviewer.judge(item)
    reviewer.judge(item, False)
    log = results / "reviews.jsonl"
    whole = log.read_text(encoding="utf-8").splitlines(keepends=True)
    before = certified(results)["boxes"]
    for n in range(1, len(whole) - 1):
        log.write_text("".join(whole[:n] + whole[n + 1 :]), encoding="utf-8")
        after = certified(results)["boxes"]
        assert after["share"] >= before["share"], whole[n]
        assert after["high"] >= before["high"], whole[n]


def test_classes_and_the_runs_model_are_groups(results: Path, review: Any) -> None:
    records = [record(n) for n in range(20)]
    for made in records:
        del made["model"]  # as records of an endpoint's run have it
        for row, name in zip(made["expressions"], ("mug", "dog", "grass"), strict=True):
            row["class"] = name
    write_rows(results / "annotations.jsonl", *records)
    reviewer = review(80)
    dogs = {item for item in boxes_of(reviewer.items) if item[1].endswith("#1")}
    reviewer.judge_all(dogs)
    by = certified(results)["by"]
    assert (by["class"]["dog"]["share"], by["class"]["mug"]["share"]) == (1, 0)
    assert set(by["class"]) == {"dog", "mug"}
    assert set(by["model"]) == {"seer"}


def test_samples_stated_in_turn_count_as_one_with_wider_bounds(results: Path, review: Any) -> None:
    one = review()
    one.judge_all({boxes_of(one.items)[0]})
    two = review(10, seed=5)
    both = {*one.items, *two.items}
    for item in both - {*one.items}:
        two.judge(item)
    found = certified(results)
    n = len(boxes_of([*both]))
    boxes = found["boxes"]
    assert (boxes["wrong"], boxes["looked_at"], boxes["unsettled"]) == (1, n, 0)
    assert boxes["high"] == pytest.approx(clopper_pearson(1, n, 0.975)[1], abs=1e-6)
    assert [sample["size"] for sample in found["samples"]] == [24, 10]


def test_a_stale_decision_on_other_boxes_says_nothing(results: Path, review: Any) -> None:
    reviewer = review()
    reviewer.judge_all()
    rows = rows_of(results / "annotations.jsonl")
    for row in rows:
        row["expressions"][1]["instances"][0]["bbox"] = [0, 0, 50, 50]  # another run
    write_rows(results / "annotations.jsonl", *rows)
    assert command(["apply", str(results)]).code == 0
    again = boxes_of(review().items)
    judged = [item for item in again if item in reviewer.items and not item[1].endswith("#1")]
    found = certified(results)["boxes"]
    assert found["unsettled"] == len(again) - len(judged) > 0
    assert found["wrong"] == 0


def test_what_a_later_run_unsettled_is_named_and_asked_for_again(
    results: Path, review: Any
) -> None:
    """One page said "not judged: 0 to 100%", and "judged by ann" of all items."""
    reviewer = review(80)
    reviewer.judge_all()
    path = results / "annotations.jsonl"
    rows = rows_of(path)
    for row in rows[:2]:
        row["expressions"][0]["instances"][1]["bbox"] = [0, 0, 50, 50]  # another run
    write_rows(path, *rows)
    done = command(["certify", str(results)])
    assert (done.code, done.err.count("\n")) == (2, 1)
    again = f"dataflowgrounding review {path} --sample 80`: what was judged and is as it was"
    assert again in done.err
    assert command(["apply", str(results)]).code == 0
    reviewer = review(80, "ben")
    assert certified(results)["reviewers"] == {"ann": 78, "None": 2}
    said = command(["certify", str(results)]).out
    assert "not settled, as nobody judged it, or a run changed it since: " in said
    for name in ("r0 r0#0 box 2", "r1 r1#0 box 2"):
        assert name in said
    assert f"`dataflowgrounding review {results} --sample 80 --seed 0` asks for the open" in said
    asked = reviewer.left()
    assert sorted((item.id, item.box) for item in asked) == [("r0#0", 1), ("r1#0", 1)]
    for item in asked:
        reviewer.judge((item.id[:2], item.id, item.box))
    found = certified(results)
    assert (found["reviewers"], "not_settled" in found) == ({"ann": 78, "ben": 2}, False)


def test_a_box_that_was_deleted_leaves_the_next_one_to_be_judged(
    results: Path, review: Any
) -> None:
    reviewer = review(80)
    item = ("r0", "r0#0", 1)
    reviewer.judge_all(but={item, (*item[:2], 0)})
    second = {"from": 1, "bbox": reviewer.session.view(0)["expressions"][0]["instances"][1]["bbox"]}
    reviewer.decide(item[0], reviewer.change(*item[:2], instances=[second]))
    [asked] = reviewer.left()
    assert (asked.id, asked.box) == item[1:]
    reviewer.judge((*item[:2], 0))
    assert reviewer.left() == []
    found = certified(results)["boxes"]
    assert (found["wrong"], found["unsettled"]) == (1, 0)


def test_equal_boxes_of_a_phrase_are_one_to_judge(results: Path, review: Any) -> None:
    boxes = [{"bbox": [10, 10, 60, 60]}, {"bbox": [90, 10, 140, 60]}, {"bbox": [10, 10, 60, 60]}]
    phrase = {"text": "a dog", "instances": boxes}
    write_rows(results / "annotations.jsonl", {**record(0), "expressions": [phrase]})
    reviewer = review()
    assert [item[2] for item in sorted(reviewer.items)] == [0, 1]
    reviewer.judge(("r0", "r0#0", 1))
    reviewer.judge(("r0", "r0#0", 0), False)
    found = certified(results)["boxes"]
    assert (found["wrong"], found["looked_at"], found["unsettled"]) == (1, 2, 0)


ONE_BOX = {"image_id": "a", "expressions": [WITH_ONE_ID]}
BROKEN = {"image_id": "b", "expressions": ["a dog", {"text": "a mug", "instances": [{"bbox": 1}]}]}


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([ONE_BOX], ["--seed", "0"], "give --sample N"),
        ([{"image_id": "a", "expressions": []}], ["--sample", "5"], "no phrase and no box"),
        (
            [ONE_BOX, BROKEN],
            ["--sample", "5"],
            "x.jsonl, record 2: column 'expressions', expression 1: an instance needs 'bbox'",
        ),
    ],
)
def test_what_can_not_be_drawn_is_refused(
    tmp_path: Path, rows: list[Any], options: list[str], said: str
) -> None:
    path = write_rows(tmp_path / "x.jsonl", *rows)
    done = command(["review", str(path), "--no-open", *options])
    assert (done.code, said in done.err) == (2, True), done


@pytest.mark.parametrize(
    ("rows", "boxes"),
    [
        ([], 0),
        ([{"image_id": "a", "regions": [{"bbox": [0, 0, 9, 9], "type": "mug"}]}], 1),
        ([{"image_id": f"r{n}", "expressions": [WITH_ONE_ID] * 4} for n in range(5)], 20),
    ],
    ids=["without boxes", "of regions", "phrases with one id"],
)
def test_boxes_of_any_file_are_drawn(tmp_path: Path, rows: list[Any], boxes: int) -> None:
    path = write_rows(tmp_path / "x.jsonl", *rows, {"image_id": "b", "expressions": ["nothing"]})
    Review(path, who="ann", sample=(9, 0))
    done = command(["certify", str(path)])
    assert done.code == 0, done
    assert f"{'100.0' if boxes else '0.0'}% of {boxes} boxes wrong" in done.out


def test_a_verdict_that_is_none_of_ours_settles_nothing(results: Path, review: Any) -> None:
    review().judge_all()
    assert certified(results)["boxes"]["unsettled"] == 0
    rows = lines(results)
    for said in ([], {}, "yes", 1):
        for line in rows[1:]:
            for act in line["acts"]:
                act["right"] = said
        write_rows(results / "reviews.jsonl", *rows)
        assert certified(results)["boxes"]["unsettled"] > 0, said
        assert review().left(), "they can be judged once more"


def test_pictures_of_a_folder_that_only_the_review_was_told_of_are_found(results: Path) -> None:
    (results / "run.json").unlink()
    reviewer = Review(results, str(results.parent), who="ann", sample=(24, 0))
    reviewer.judge_all()
    assert certified(results)["reviewers"] == {"ann": 24}


def test_what_nobody_judged_has_bounds_and_no_share(results: Path, review: Any) -> None:
    reviewer = review()
    phrases = {item for item in reviewer.items if item[2] is None}
    reviewer.judge_all(but=phrases)
    sentence = certified(results)["sentence"]
    assert re.search(r", not judged: 0\.0 to \d+\.\d% of 60 phrases missed", sentence), sentence
    assert re.search(r"^\d+ of 24 open, counted as wrong; \d+\.\d% of 60 boxes wrong", sentence)
