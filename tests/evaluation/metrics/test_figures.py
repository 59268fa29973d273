"""Every measure on cases that are worked out by hand; the arithmetic is next to them."""

from __future__ import annotations

from typing import Any

import pytest

from dataflow_grounding.evaluation.metrics import Evaluation, Rules, evaluate
from tests.evaluation.metrics.cases import FAR, HALF, LEFT, MIDDLE, RIGHT, phrase, record


def figures(found: list[Any], gold: list[Any], **rules: Any) -> Evaluation:
    return evaluate(found, gold, Rules(**rules))


def approx(**expected: float | None) -> dict[str, Any]:
    """Figures as they should be, to the four decimals that are kept."""
    names = {name.replace("__", "."): value for name, value in expected.items()}
    # None is approximately None alone
    return {name: pytest.approx(value, abs=6e-5) for name, value in names.items()}


def check(run: Evaluation, **expected: float | None) -> None:
    wanted = approx(**expected)
    assert {name: run.figures[name] for name in wanted} == wanted


# IoU 1, 0.5, no answer
THREE = ([record(a=[LEFT], b=[HALF], c=[])], [record(a=[LEFT], b=[LEFT], c=[LEFT])])


def test_rec() -> None:
    # At 0.5: 2 of 3; at each of the other nine thresholds: 1 of 3; so mAcc = (2/3 + 9/3) / 10 =
    # 11/30.
    run = figures(*THREE)
    check(run, acc_0__5=2 / 3, acc_0__75=1 / 3, acc_0__9=1 / 3, macc=11 / 30, miou=1.5 / 3)


def test_of_several_answers_rec_takes_the_surest_and_of_equal_ones_the_first() -> None:
    gold = [record(a=[LEFT])]
    check(figures([record(a=[(FAR, 0.2), (LEFT, 0.9)])], gold), acc_0__5=1.0)
    check(figures([record(a=[(FAR, 0.9), (LEFT, 0.2)])], gold), acc_0__5=0.0, r5_any=1.0)
    check(figures([record(a=[LEFT, FAR])], gold), acc_0__5=1.0)
    # one without score comes after those with one
    check(figures([record(a=[LEFT, (FAR, 0.1)])], gold), acc_0__5=0.0)


def test_rec_leaves_out_phrases_with_several_or_no_gold_boxes() -> None:
    gold = [record(a=[LEFT], b=[LEFT, RIGHT], c=[])]
    check(figures([record(a=[LEFT], b=[], c=[LEFT])], gold), acc_0__5=1.0, miou=1.0)
    none = figures([record(b=[LEFT])], [record(b=[LEFT, RIGHT])])
    check(none, acc_0__5=None, macc=None, miou=None)


def test_recall_of_the_first_k() -> None:
    gold = [record(a=[LEFT, RIGHT], b=[LEFT], c=[])]
    miss = [FAR] * 4
    # a: its fifth box is RIGHT; b: the sixth is LEFT; c has no gold box and is left out.
    found = [record(a=[*miss, RIGHT], b=[*miss, FAR, LEFT], c=[LEFT])]
    check(figures(found, gold), r1_any=0.0, r5_any=1 / 2, r10_any=1.0)
    check(figures([record(a=[])], [record(a=[])]), r1_any=None)


FIVE = (
    [record(a=[LEFT], b=[LEFT], c=[], d=[FAR], e=[])],
    [record(a=[LEFT], b=[LEFT, RIGHT], c=[], d=[], e=[LEFT])],
)  # right; 1 of 2 found; none and none; a box for none; missed


def test_generalised_rec() -> None:
    # F1 = 1 for a and c: 2 of 5. Without target c, d: 1 of 2. With target a, b, e: boxes for 2 of
    # 3.
    check(figures(*FIVE), gprec_f1=0.4, n_acc=0.5, t_acc=2 / 3)
    # Two boxes where one is right: F1 = 2 · 1 / 3.
    check(figures([record(a=[LEFT, FAR])], [record(a=[LEFT])]), gprec_f1=0.0)
    # One box can't be two: LEFT twice for LEFT and a gold box of which it covers a third.
    twice = figures([record(a=[LEFT, LEFT])], [record(a=[LEFT, MIDDLE])])
    check(twice, gprec_f1=0.0, recall_at_iou_0__5=0.5)


@pytest.mark.parametrize("status", ["ambiguous", "unsupported", "pending", "failed"])
def test_gold_that_leaves_open_what_is_there_judges_nothing(status: str) -> None:
    gold = [record(a=[LEFT], b=[], open=[])]
    gold[0]["expressions"][2]["status"] = status
    plain = figures([record(a=[(LEFT, 0.5)], b=[])], [record(a=[LEFT], b=[])])
    for said in ([(FAR, 0.9)], []):
        run = figures([record(a=[(LEFT, 0.5)], b=[], open=said)], gold)
        counts = {"expressions": 3, "expressions_not_judged": 1}
        assert run.figures == {**plain.figures, **counts}
        assert run.right.all()
    same = [record(open=[LEFT])]
    check(figures(same, same), expressions_not_judged=0, acc_0__5=1.0)


@pytest.mark.parametrize(
    "status", ["ambiguous", "unsupported", "pending", "failed", "no key", "none", "not stated"]
)
def test_no_answer_is_not_there_is_none(status: str) -> None:
    said = phrase("b", [], status=status)
    [found] = [record(a=[LEFT])]
    odd = {"no key": {"text": "b"}, "not stated": phrase("b", [])}
    found["expressions"].append(odd.get(status, said))
    right = status in ("none", "not stated")
    run = figures([found], [record(a=[LEFT], b=[])])
    check(run, n_acc=float(right), gprec_f1=0.5 + 0.5 * right)


def test_cgf1() -> None:
    # Said and there: a, b; said, not there: d; not said, there: e; neither: c.
    # MCC = (2 · 1 - 1 · 1) / √(3 · 3 · 2 · 2) = 1/6. Where it is there: 2 right of 2 found and 4
    # gold: F1 = 4/6.
    check(figures(*FIVE), il_mcc=1 / 6, pmf1=2 / 3, cgf1=1 / 9)
    # HALF is right at the first of the ten thresholds alone: pmF1 = 1/10. Both kinds told apart:
    # MCC 1.
    half = figures([record(a=[HALF], b=[])], [record(a=[LEFT], b=[])])
    check(half, pmf1=0.1, il_mcc=1.0, cgf1=0.1)
    # All said to be there: no correlation.
    check(figures([record(a=[LEFT], b=[FAR])], [record(a=[LEFT], b=[])]), il_mcc=0.0, cgf1=0.0)
    # All told the wrong way round.
    check(figures([record(a=[], b=[FAR])], [record(a=[LEFT], b=[])]), il_mcc=-1.0)
    # Nothing absent in the gold: nothing to tell apart.
    check(figures([record(a=[LEFT])], [record(a=[LEFT])]), il_mcc=None, cgf1=None, pmf1=1.0)


def test_a_score_cut_counts_where_boxes_are_counted_not_where_they_are_ranked() -> None:
    found, gold = [record(a=[(LEFT, 0.4)], b=[(FAR, 0.6), LEFT])], [record(a=[LEFT], b=[])]
    check(figures(found, gold), gprec_f1=0.5, acc_0__5=1.0, boxes=3, grounded=2)
    # 0.4 goes, and what has no score stays.
    cut = figures(found, gold, score_cut=0.5)
    check(cut, gprec_f1=0.0, acc_0__5=1.0, boxes=2, grounded=1, r1_any=1.0)
    check(figures(found, gold, score_cut=0.6), boxes=2)  # at the cut it counts


def test_precision_and_recall_count_phrases_that_the_gold_does_not_have() -> None:
    found = [record(a=[LEFT, RIGHT], z=[FAR]), record("other.png", a=[LEFT])]
    run = figures(found, [record(a=[LEFT], b=[RIGHT])])
    # Right: 1. Found: 2 for a, 1 for z; what is of another image isn't compared. Gold: 2.
    check(run, precision_at_iou_0__5=1 / 3, recall_at_iou_0__5=1 / 2, boxes=3, gold_boxes=2)
    check(run, mean_iou_of_right_boxes=1.0, expressions=2, expressions_missing=1)
    check(run, expressions_not_in_gold=1, expressions_of_other_records=1)
    check(run, grounded=1, grounded_share=0.5, images=1)


def test_the_largest_overlap_is_matched_first() -> None:
    # The first box has IoU 9/10, the second 1; both in any order.
    for found in ([[0, 0, 10, 9], LEFT], [LEFT, [0, 0, 10, 9]]):
        run = figures([record(a=found)], [record(a=[LEFT])])
        check(run, mean_iou_of_right_boxes=1.0, precision_at_iou_0__5=0.5)
    # Crossed, each meets its own.
    crossed = figures([record(a=[LEFT, [0, 0, 10, 9]])], [record(a=[[0, 0, 10, 9], LEFT])])
    check(crossed, mean_iou_of_right_boxes=1.0)


RED, BLUE = [0, 9], [14, 24]  # of "a red cup and a blue cup"


def caption_of(
    *phrases: dict[str, Any], path: str = "x.png", caption: str = "a red cup and a blue cup"
) -> dict[str, Any]:
    return {"image_path": path, "caption": caption, "expressions": list(phrases)}


def test_spans_and_joint() -> None:
    red, later_red = (phrase("a red cup", [box], char_span=RED) for box in (LEFT, FAR))
    blue = phrase("blue cup", [RIGHT], char_span=[16, 24])
    gold = [caption_of(red, phrase("a blue cup", [RIGHT], char_span=BLUE))]
    found = [caption_of(red, blue)]
    run = figures(found, gold)
    # Equal: 1 of 2 and 2. Overlapping: both.
    check(run, span_exact_f1=0.5, span_overlap_f1=1.0)
    # Pairs of span and box: 2 in the gold, 2 found; with an equal span 1 is right.
    check(run, joint=2 / 4)
    begins = [caption_of(phrase("a red", [LEFT], char_span=[0, 5]))]
    check(figures(begins, gold), span_exact_f1=0.0, span_overlap_f1=2 / 3, joint=0.0)
    check(figures([caption_of(later_red, blue)], gold), joint=0.0)


def test_boxes_of_one_span_are_one_answer_in_any_order() -> None:
    one, two = (
        phrase(text, [box], char_span=RED) for text, box in (("a red cup", LEFT), ("cup", RIGHT))
    )
    gold = [caption_of(one, two)]
    for found in (caption_of(one, two), caption_of(two, one)):
        check(figures([found], gold), span_exact_f1=1.0, joint=1.0)
    check(figures([caption_of(two)], gold), span_exact_f1=1.0, joint=2 / 3)


def test_spans_of_a_missing_record_are_missed() -> None:
    spans = [phrase("a red cup", [], char_span=RED)]
    gold = [caption_of(*spans), caption_of(*spans, path="y.png"), caption_of(path="z.png")]
    run = figures([caption_of(*spans), caption_of(path="z.png")], gold)
    check(run, span_exact_f1=2 / 3, joint=None)  # 1 right, 1 found, 2 gold


def test_a_text_that_is_equal_but_elsewhere_is_another_span() -> None:
    gold = [caption_of(phrase("a cup", [LEFT], char_span=[10, 15]), caption="a cup and a cup")]
    found = [caption_of(phrase("a cup", [LEFT], char_span=[0, 5]), caption="a cup and a cup")]
    check(figures(found, gold), span_exact_f1=0.0, acc_0__5=1.0, joint=0.0)


def test_spans_of_captions_that_differ_are_left_out_and_without_spans_there_is_no_figure() -> None:
    spans = [phrase("a red cup", [LEFT], char_span=RED)]
    [gold], [found] = ([caption_of(*spans)] for _ in range(2))
    other = figures([{**found, "cleaned_caption": "A RED CUP."}], [gold])
    check(other, span_exact_f1=None, acc_0__5=1.0)
    without = figures([record(caption=gold["caption"], a_red_cup=[LEFT])], [gold])
    check(without, span_exact_f1=None, joint=None)


@pytest.mark.slow
def test_confidence() -> None:
    # Right with 0.9 and 0.8, wrong with 0.9 and 0.3. Bins by 0.1: [0.9, 0.9] is right half the
    # time, said 0.9; [0.8] always; [0.3] never. ECE = 2/4 · 0.4 + 1/4 · 0.2 + 1/4 · 0.3 = 0.325.
    four = {"a": [(LEFT, 0.9)], "b": [(FAR, 0.9)], "c": [(LEFT, 0.8)], "d": [(FAR, 0.3), FAR]}
    run = figures([record(**four, z=[(FAR, 1)])], [record(**{name: [LEFT] for name in four})])
    check(run, ece=0.325, scored_boxes=4)
    assert run.to_json()["cuts"] == []  # no score keeps boxes of which 80 % are right
    none = figures(*THREE)
    check(none, ece=None, scored_boxes=0)
    assert any(note.startswith("no scores") for note in none.notes)


def test_the_score_to_cut_at_is_the_lowest_that_is_right_often_enough() -> None:
    # From 0.9 on: 1 of 1; from 0.8 on: 1 of 2; from 0.7 on: 2 of 3; from 0.6 on: 4 of 5 (two have
    # 0.6); from 0.5 on: 4 of 6.
    scored = [(LEFT, 0.9), (FAR, 0.8), (LEFT, 0.7), (LEFT, 0.6), (LEFT, 0.6), (FAR, 0.5)]
    found = record(**{name: [box] for name, box in zip("abcdef", scored, strict=True)})
    run = figures([found], [record(**{name: [LEFT] for name in "abcdef"})])
    at_80, at_90 = run.to_json()["cuts"]
    kept = pytest.approx(5 / 6, abs=6e-5)
    assert at_80 == {"score": 0.6, "kept": kept, "right": pytest.approx(0.8)}
    assert at_90 == {"score": 0.9, "kept": pytest.approx(1 / 6, abs=6e-5), "right": 1.0}


@pytest.mark.slow
def test_groups() -> None:
    small, large = [0, 0, 31, 31], [0, 0, 100, 100]
    towers = record("y.png", tall_lightning_towers=[])
    gold = [record(a_cup=[small], a_very_big_red_dog=[large]), towers]
    gold[0]["expressions"][0]["type"] = ["drinking", "kitchen"]
    found = [{**record(a_cup=[small]), "model": "m"}, record("y.png", tall_lightning_towers=[])]
    found[1]["expressions"][0]["status"] = "none"
    groups = figures(found, gold).to_json()["groups"]
    names = {}
    for kind, table in groups.items():
        names[kind] = {name: row["expressions"] for name, row in table.items()}
    assert names == {
        "size": {"small, < 32² px": 1, "large": 1},
        "words": {"1-3": 2, "4-6": 1},
        "category": {"drinking": 1, "kitchen": 1, "dog": 1, "tower": 1},
        "status": {"not stated": 1, "missing": 1, "none": 1},
        "model": {"m": 1},
    }
    assert (groups["words"]["1-3"]["acc_0.5"], groups["words"]["4-6"]["acc_0.5"]) == (1.0, 0.0)
    assert groups["status"]["none"]["acc_0.5"] is None


@pytest.mark.slow
def test_intervals_are_of_images() -> None:
    gold = [record(f"{n}.png", a=[LEFT], b=[LEFT]) for n in range(2)]
    # Two images, one all right and one all wrong: a quarter of the draws has the one twice, a
    # quarter the other.
    half = figures([gold[0], record("1.png", a=[FAR], b=[FAR])], gold).to_json()
    assert half["intervals"]["acc_0.5"] == [0.0, 1.0]
    assert half["intervals"]["r1_any"] == [0.0, 1.0]
    # One right and one wrong in each image: half is right in any draw.
    even = figures([record(f"{n}.png", a=[LEFT], b=[FAR]) for n in range(2)], gold).to_json()
    assert even["intervals"]["acc_0.5"] == [0.5, 0.5]
    # 400 images of which 80 % are right: 0.8 ± 1.96 · √(0.8 · 0.2 / 400) = 0.8 ± 0.039.
    gold = [record(f"{n}.png", a=[LEFT]) for n in range(400)]
    found = [record(f"{n}.png", a=[FAR if n % 5 == 0 else LEFT]) for n in range(400)]
    many = figures(found, gold).to_json()
    assert many["intervals"]["acc_0.5"] == pytest.approx([0.761, 0.839], abs=0.006)
    assert "ap" not in many["intervals"]


@pytest.mark.slow
def test_two_runs() -> None:
    gold = [record(f"{n}.png", a=[LEFT]) for n in range(6)]
    first = figures([record(f"{n}.png", a=[LEFT if n < 1 else FAR]) for n in range(6)], gold)
    second = figures([record(f"{n}.png", a=[FAR if n < 1 else LEFT]) for n in range(6)], gold)
    said = first.against(second)
    # 1 right and 5 wrong against 5 right and 1 wrong, never both: p = 2 · (1 + 6) / 2⁶ = 0.21875.
    counts = {"only_first_right": 1, "only_second_right": 5}
    assert said["mcnemar"] == {**counts, "p": pytest.approx(0.21875)}
    assert said["difference"]["acc_0.5"] == pytest.approx(4 / 6, abs=2e-4)
    low, high = said["intervals"]["acc_0.5"]
    assert -0.4 < low < 4 / 6 < high <= 1
    same = first.against(first)
    assert (same["mcnemar"]["p"], same["difference"]["acc_0.5"]) == (1.0, 0)
    assert same["intervals"]["acc_0.5"] == [0, 0]
    absent = figures([record(a=[LEFT], b=[])], [record(a=[], b=[])])
    assert absent.right.tolist() == [False, True]  # no box where nothing is: right
