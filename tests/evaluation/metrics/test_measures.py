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
    check(figures(*THREE), acc_0__5=2 / 3, miou=1.5 / 3)


def test_of_several_answers_rec_takes_the_surest_and_of_equal_ones_the_first() -> None:
    gold = [record(a=[LEFT])]
    check(figures([record(a=[(FAR, 0.2), (LEFT, 0.9)])], gold), acc_0__5=1.0)
    check(figures([record(a=[(FAR, 0.9), (LEFT, 0.2)])], gold), acc_0__5=0.0)
    check(figures([record(a=[LEFT, FAR])], gold), acc_0__5=1.0)
    # one without score comes after those with one
    check(figures([record(a=[LEFT, (FAR, 0.1)])], gold), acc_0__5=0.0)


def test_rec_leaves_out_phrases_with_several_or_no_gold_boxes() -> None:
    gold = [record(a=[LEFT], b=[LEFT, RIGHT], c=[])]
    check(figures([record(a=[LEFT], b=[], c=[LEFT])], gold), acc_0__5=1.0, miou=1.0)
    none = figures([record(b=[LEFT])], [record(b=[LEFT, RIGHT])])
    check(none, acc_0__5=None, miou=None)


FIVE = (
    [record(a=[LEFT], b=[LEFT], c=[], d=[FAR], e=[])],
    [record(a=[LEFT], b=[LEFT, RIGHT], c=[], d=[], e=[LEFT])],
)  # right; 1 of 2 found; none and none; a box for none; missed


def test_generalised_rec() -> None:
    # Without target c, d: 1 of 2. With target a, b, e: boxes for 2 of 3.
    check(figures(*FIVE), n_acc=0.5, t_acc=2 / 3)
    # One box can't be two: LEFT for LEFT and a gold box of which it covers a third.
    check(figures([record(a=[LEFT])], [record(a=[LEFT, MIDDLE])]), recall_at_iou_0__5=0.5)


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
    check(run, n_acc=float(right))


def test_il_mcc() -> None:
    # Said and there: a, b; said, not there: d; not said, there: e; neither: c.
    # MCC = (2 · 1 - 1 · 1) / √(3 · 3 · 2 · 2) = 1/6.
    check(figures(*FIVE), il_mcc=1 / 6)
    # Both kinds told apart.
    check(figures([record(a=[HALF], b=[])], [record(a=[LEFT], b=[])]), il_mcc=1.0)
    # All said to be there: no correlation.
    check(figures([record(a=[LEFT], b=[FAR])], [record(a=[LEFT], b=[])]), il_mcc=0.0)
    # All told the wrong way round.
    check(figures([record(a=[], b=[FAR])], [record(a=[LEFT], b=[])]), il_mcc=-1.0)
    # Nothing absent in the gold: nothing to tell apart.
    check(figures([record(a=[LEFT])], [record(a=[LEFT])]), il_mcc=None)


def test_a_score_cut_counts_where_boxes_are_counted_not_where_they_are_ranked() -> None:
    found, gold = [record(a=[(LEFT, 0.4)], b=[(FAR, 0.6), LEFT])], [record(a=[LEFT], b=[])]
    check(figures(found, gold), t_acc=1.0, acc_0__5=1.0, boxes=3, grounded=2)
    # 0.4 goes, and what has no score stays.
    cut = figures(found, gold, score_cut=0.5)
    check(cut, t_acc=0.0, acc_0__5=1.0, boxes=2, grounded=1)
    check(figures(found, gold, score_cut=0.6), boxes=2)  # at the cut it counts


def test_precision_and_recall_count_phrases_that_the_gold_does_not_have() -> None:
    found = [record(a=[LEFT, RIGHT], z=[FAR]), record("other.png", a=[LEFT])]
    run = figures(found, [record(a=[LEFT], b=[RIGHT])])
    # Right: 1. Found: 2 for a, 1 for z; what is of another image isn't compared. Gold: 2.
    check(run, precision_at_iou_0__5=1 / 3, recall_at_iou_0__5=1 / 2, boxes=3, gold_boxes=2)
    check(run, expressions=2, expressions_missing=1)
    check(run, expressions_not_in_gold=1, expressions_of_other_records=1)
    check(run, grounded=1, images=1)


def test_the_largest_overlap_is_matched_first() -> None:
    # The first box has IoU 9/10, the second 1: one is right, in any order.
    for found in ([[0, 0, 10, 9], LEFT], [LEFT, [0, 0, 10, 9]]):
        check(figures([record(a=found)], [record(a=[LEFT])]), precision_at_iou_0__5=0.5)
    # Crossed, each meets its own.
    crossed = figures([record(a=[LEFT, HALF])], [record(a=[HALF, LEFT])], threshold=1)
    check(crossed, precision_at_iou_1=1.0)


@pytest.mark.slow
def test_thousands_of_boxes_are_counted_as_few_are() -> None:
    boxes = [[20 * n, 0, 20 * n + 10, 10] for n in range(2000)]
    many = figures([record(a=boxes)], [record(a=boxes[1000:])])
    check(many, precision_at_iou_0__5=0.5, recall_at_iou_0__5=1.0)


RED, BLUE = [0, 9], [14, 24]  # of "a red cup and a blue cup"


def caption_of(
    *phrases: dict[str, Any], path: str = "x.png", caption: str = "a red cup and a blue cup"
) -> dict[str, Any]:
    return {"image_path": path, "caption": caption, "expressions": list(phrases)}


def test_spans() -> None:
    red = phrase("a red cup", [LEFT], char_span=RED)
    blue = phrase("blue cup", [RIGHT], char_span=[16, 24])
    gold = [caption_of(red, phrase("a blue cup", [RIGHT], char_span=BLUE))]
    # Equal: 1 of 2 and 2.
    check(figures([caption_of(red, blue)], gold), span_exact_f1=0.5)
    begins = [caption_of(phrase("a red", [LEFT], char_span=[0, 5]))]
    check(figures(begins, gold), span_exact_f1=0.0)


def test_spans_of_a_missing_record_are_missed() -> None:
    spans = [phrase("a red cup", [], char_span=RED)]
    gold = [caption_of(*spans), caption_of(*spans, path="y.png"), caption_of(path="z.png")]
    run = figures([caption_of(*spans), caption_of(path="z.png")], gold)
    check(run, span_exact_f1=2 / 3)  # 1 right, 1 found, 2 gold


def test_a_text_that_is_equal_but_elsewhere_is_another_span() -> None:
    gold = [caption_of(phrase("a cup", [LEFT], char_span=[10, 15]), caption="a cup and a cup")]
    found = [caption_of(phrase("a cup", [LEFT], char_span=[0, 5]), caption="a cup and a cup")]
    check(figures(found, gold), span_exact_f1=0.0, acc_0__5=1.0)


def test_spans_of_captions_that_differ_are_left_out_and_without_spans_there_is_no_figure() -> None:
    spans = [phrase("a red cup", [LEFT], char_span=RED)]
    [gold], [found] = ([caption_of(*spans)] for _ in range(2))
    other = figures([{**found, "cleaned_caption": "A RED CUP."}], [gold])
    check(other, span_exact_f1=None, acc_0__5=1.0)
    without = figures([record(caption=gold["caption"], a_red_cup=[LEFT])], [gold])
    check(without, span_exact_f1=None)


@pytest.mark.slow
def test_intervals_are_of_images() -> None:
    gold = [record(f"{n}.png", a=[LEFT], b=[LEFT]) for n in range(2)]
    # Two images, one all right and one all wrong: a quarter of the draws has the one twice, a
    # quarter the other.
    half = figures([gold[0], record("1.png", a=[FAR], b=[FAR])], gold).to_json()
    assert half["intervals"]["acc_0.5"] == [0.0, 1.0]
    # One right and one wrong in each image: half is right in any draw.
    even = figures([record(f"{n}.png", a=[LEFT], b=[FAR]) for n in range(2)], gold).to_json()
    assert even["intervals"]["acc_0.5"] == [0.5, 0.5]
    # 400 images of which 80 % are right: 0.8 ± 1.96 · √(0.8 · 0.2 / 400) = 0.8 ± 0.039.
    gold = [record(f"{n}.png", a=[LEFT]) for n in range(400)]
    found = [record(f"{n}.png", a=[FAR if n % 5 == 0 else LEFT]) for n in range(400)]
    many = figures(found, gold).to_json()
    assert many["intervals"]["acc_0.5"] == pytest.approx([0.761, 0.839], abs=0.006)
    low, high = many["intervals"]["ap"]
    assert low < many["ap"] < high


@pytest.mark.slow
def test_two_runs() -> None:
    gold = [record(f"{n}.png", a=[LEFT]) for n in range(6)]
    first = figures([record(f"{n}.png", a=[LEFT if n < 1 else FAR]) for n in range(6)], gold)
    second = figures([record(f"{n}.png", a=[FAR if n < 1 else LEFT]) for n in range(6)], gold)
    said = first.against(second)
    assert said["difference"]["acc_0.5"] == pytest.approx(4 / 6, abs=2e-4)
    low, high = said["intervals"]["acc_0.5"]
    assert -0.4 < low < 4 / 6 < high <= 1
    same = first.against(first)
    assert same["difference"]["acc_0.5"] == 0
    assert same["intervals"]["acc_0.5"] == [0, 0]
