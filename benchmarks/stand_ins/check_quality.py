"""What ways of asking are worth where a model boxes what isn't there, always alike.

Pictures of 1200 x 900 with 4 of 8 colours in them, all 8 asked for. `of the decided` leaves out the
phrases of which a check couldn't tell.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.stand_ins.box_scores import SIZE
from benchmarks.stand_ins.erring_model import ErringModel, Errors
from benchmarks.stand_ins.seeing_model import COLORS, draw
from dataflow_grounding import (
    BoxChecker,
    BoxMender,
    BoxVerifier,
    CropJudge,
    DoubtGrounder,
    MissingFinder,
    Operator,
    PhraseGrounder,
)
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.extras.evaluation.metrics import evaluate
from dataflow_grounding.extras.testing import LoopbackServer
from dataflow_grounding.serving import OpenAIServing, Serving

NOISE = 0.006
EXTRACTION = 1.0  # requests a picture of the step before grounding, which is not run here


@dataclass(frozen=True)
class Worth:
    """What a way of asking is worth: shares in [0, 1], and requests a picture from grounding on.

    `decided_mcc` is IL_MCC of the decided, `undecided` their share of the phrases that the check
    was asked about.
    """

    precision: float
    recall: float
    f1: float
    n_acc: float
    il_mcc: float
    decided_mcc: float
    undecided: float
    requests: float

    def times(self, plain: Worth) -> float:
        """Requests as a multiple of those of extraction and one grounding."""
        return (EXTRACTION + self.requests) / (EXTRACTION + plain.requests)


def scenes(folder: Path, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Gold records of pictures with half of the colours in them; the others have no boxes."""
    chance = random.Random(seed)
    records = []
    for number in range(count):
        there = chance.sample(sorted(COLORS), len(COLORS) // 2)
        boxes: dict[str, list[Bbox]] = {}
        for cell, color in zip(chance.sample(range(8), len(there)), there, strict=True):
            width, height = chance.randint(60, 260), chance.randint(60, 400)
            x1 = 300 * (cell % 4) + chance.randint(5, 295 - width)
            y1 = 450 * (cell // 4) + chance.randint(5, 445 - height)
            boxes[color] = [(x1, y1, x1 + width, y1 + height)]
        path = folder / f"{seed}-{number}.png"
        draw(str(path), SIZE, boxes)
        expressions = []
        for color in sorted(COLORS):
            instances = [{"bbox": list(bbox)} for bbox in boxes.get(color, [])]
            expressions.append({"text": f"the {color} box", "instances": instances})
        records.append({"image_path": str(path), "caption": "", "expressions": expressions})
    return records


@dataclass(frozen=True)
class Way:
    """A way of asking: answers per phrase, and the operators after grounding.

    `steps` makes them, of the serving that grounds, which is the judge too. `kept`: only boxes of
    verified expressions count.
    """

    samples: int
    steps: Callable[[Serving], Sequence[Operator]]
    kept: bool = False


PLAIN = Way(1, lambda serving: [])
REGROUND = Way(1, lambda serving: [BoxVerifier(serving)], kept=True)
OLD_WAYS = {
    "plain": PLAIN,
    "3 samples": Way(3, lambda serving: []),
    "reground, verified kept": REGROUND,
}


def full_check(serving: Serving) -> list[Operator]:
    """The steps of `workflow.check: true`."""
    return [
        BoxChecker(serving, decides=False),
        MissingFinder(serving),
        CropJudge(serving),
        DoubtGrounder(serving),
        BoxMender(serving),
    ]


def fast_check(serving: Serving) -> list[Operator]:
    """The step of `workflow.check: fast`."""
    return [BoxChecker(serving)]


CHECKS = {"check": Way(1, full_check), "check: fast": Way(1, fast_check)}


def worth_of(gold: list[dict[str, Any]], model: ErringModel, way: Way) -> Worth:
    """Ground the gold's phrases and take them through the way's steps."""
    found: Any = []
    for record in gold:
        texts = [expression["text"] for expression in record["expressions"]]
        found.append({"image_path": record["image_path"], "caption": "", "expressions": texts})
    with LoopbackServer(model, keep_bodies=True, record=False) as server:
        serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_1000")
        operators = [PhraseGrounder(serving, samples=way.samples), *way.steps(serving)]
        for operator in operators:
            found = operator(found)
            if found.failures:
                raise found.failures[0][1]
        requests = server.count() / len(gold)
    if way.kept:
        found = [with_verified(record) for record in found]
    figures = evaluate(found, gold).figures
    decided = [decided_part(record) for record in found]
    texts = [{e["text"] for e in record["expressions"]} for record in decided]
    gold_part = []
    for record, there in zip(gold, texts, strict=True):
        expressions = [e for e in record["expressions"] if e["text"] in there]
        gold_part.append({**record, "expressions": expressions})
    phrases = sum(len(record["expressions"]) for record in gold)
    decided_mcc = 0.0  # where nothing is decided, or nothing that there is
    if any(e["instances"] for record in gold_part for e in record["expressions"]):
        decided_mcc = evaluate(decided, gold_part).figures["il_mcc"] or 0.0
    precision = figures["precision_at_iou_0.5"] or 0.0
    recall = figures["recall_at_iou_0.5"] or 0.0
    return Worth(
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / max(precision + recall, 1e-9),
        n_acc=figures["n_acc"] or 0.0,
        il_mcc=figures["il_mcc"] or 0.0,
        decided_mcc=decided_mcc,
        undecided=1 - sum(map(len, texts)) / phrases,
        requests=requests,
    )


def with_verified(record: dict[str, Any]) -> dict[str, Any]:
    """The record, without boxes of expressions that were not verified."""
    expressions = []
    for expression in record["expressions"]:
        if expression.get("verified", True) is not True:
            expression = {**expression, "instances": [], "status": "none"}
        expressions.append(expression)
    return {**record, "expressions": expressions}


def decided_part(record: dict[str, Any]) -> dict[str, Any]:
    """The record, without expressions of which a check couldn't tell."""
    expressions = [e for e in record["expressions"] if e.get("verified", True) is not None]
    return {**record, "expressions": expressions}


HEAD = (
    f"{'':26} {'precision':>9} {'recall':>6} {'F1':>6} {'n_acc':>6} {'IL_MCC':>6}"
    f" {'decided':>7} {'undecided':>9} {'requests':>8} {'times':>6}"
)
GOAL = (
    f"{'goal: check':26} {'':9} {'-.020':>6} {'':6} {'':6} {'.800':>6} {'.950':>7} {'20.0%':>9}"
    f" {'':8} {'2.25x':>6}\n{'goal: check: fast':26} {'':9} {'-.020':>6} {'':6} {'':6} {'':6}"
    f" {'.930':>7} {'':9} {'':8} {'1.50x':>6}"
)


def row_of(name: str, worth: Worth, plain: Worth, missed: Sequence[str] = ()) -> str:
    """A row of the table, with the goals that it misses, beside one grounding alone."""
    misses = f"  misses {', '.join(missed)}" if missed else ""
    return (
        f"{name:26} {worth.precision:9.3f} {worth.recall:6.3f} {worth.f1:6.3f} {worth.n_acc:6.3f}"
        f" {worth.il_mcc:6.3f} {worth.decided_mcc:7.3f} {worth.undecided:9.1%}"
        f" {worth.requests:8.2f} {worth.times(plain):5.2f}x{misses}"
    )


def missed_goals(name: str, worth: Worth, plain: Worth, reground: Worth | None) -> list[str]:
    """The goals of a check that its figures miss; they hold for a judge of .92, or a better one.

    `reground`: where errors differ between answers, the way that the check should be no worse than
    at less cost.
    """
    missed = []
    if worth.recall < plain.recall - 0.02:
        missed.append("recall")
    if name == "check":
        if worth.il_mcc < 0.8:
            missed.append("IL_MCC")
        if worth.undecided > 0.2:
            missed.append("undecided")
    if worth.decided_mcc < (0.95 if name == "check" else 0.93):
        missed.append("decided")
    if round(worth.times(plain), 3) > (2.25 if name == "check" else 1.5):
        missed.append("times")
    if reground is not None:
        if worth.f1 < reground.f1:
            missed.append("F1 of reground")
        if worth.requests >= reground.requests:
            missed.append("cost of reground")
    return missed


@dataclass(frozen=True)
class Table:
    """Which rows to print, on how many pictures, of which seed."""

    pictures: int
    seed: int
    folder: Path
    absent: Sequence[float] = (0.0, 0.3, 0.9)
    accuracies: Sequence[float] = (0.85, 0.90, 0.92, 0.94)
    kinds: Sequence[bool] = (True, False)

    def worth(self, gold: list[dict[str, Any]], errors: Errors, way: Way) -> Worth:
        """What a way is worth with a model that errs so."""
        return worth_of(gold, ErringModel(errors, seed=self.seed), way)

    def print_rows(self) -> None:
        """Old ways and checks, where absent things are boxed."""
        gold = scenes(self.folder, self.pictures, self.seed)
        for shared in self.kinds:
            for absent in self.absent:
                kind = "the same each time" if shared else "made anew each time"
                print(f"\nabsent things boxed: {absent:.0%}, errors {kind}\n{HEAD}\n{GOAL}")
                errors = Errors(absent=absent, noise=NOISE, shared=shared)
                self.print_ways(gold, errors, self.accuracies)

    def print_ways(
        self, gold: list[dict[str, Any]], errors: Errors, accuracies: Sequence[float]
    ) -> None:
        """The old ways, and both checks with judges of these accuracies."""
        old = {}
        for name, way in OLD_WAYS.items():
            old[name] = self.worth(gold, errors, way)
            print(row_of(name, old[name], old["plain"]), flush=True)
        reground = None if errors.shared else old["reground, verified kept"]
        for accuracy in accuracies:
            judged = replace(errors, accuracy=accuracy)
            for name, way in CHECKS.items():
                worth = self.worth(gold, judged, way)
                missed = missed_goals(name, worth, old["plain"], reground)
                row = row_of(f"{name}, judge {accuracy:.2f}", worth, old["plain"], missed)
                print(row, flush=True)

    def print_all_errors(self) -> None:
        """Errors of all kinds at once."""
        gold = scenes(self.folder, self.pictures, self.seed)
        for shared in self.kinds:
            kind = "the same each time" if shared else "made anew each time"
            what = "absent things boxed 30%, missed 10%, too large 10%, on another thing 8%"
            print(f"\n{what}, errors {kind}\n{HEAD}\n{GOAL}")
            errors = Errors(0.3, 0.1, 0.1, 0.08, NOISE, shared=shared)
            self.print_ways(gold, errors, (0.92,))

    def print_misses(self) -> None:
        """How many of the things that were missed are found; goal: F1 up by 7 points."""
        gold = scenes(self.folder, self.pictures, self.seed)
        print(f"\n20% of the things missed; goal: F1 +.070\n{HEAD}")
        errors = Errors(missing=0.2, noise=NOISE)
        plain = self.worth(gold, errors, PLAIN)
        print(row_of("plain", plain, plain), flush=True)
        for accuracy in self.accuracies:
            worth = self.worth(gold, replace(errors, accuracy=accuracy), CHECKS["check"])
            missed = [] if worth.f1 >= plain.f1 + 0.07 else ["F1"]
            row = row_of(f"check, judge {accuracy:.2f}", worth, plain, missed)
            print(f"{row}  F1 {worth.f1 - plain.f1:+.3f}", flush=True)

    def print_guessing_judge(self) -> None:
        """A judge who tosses a coin; goal: the boxes stay as they are."""
        gold = scenes(self.folder, self.pictures, self.seed)
        print(f"\na judge who tosses a coin; goal: as plain\n{HEAD}")
        errors = Errors(absent=0.9, noise=NOISE, accuracy=0.5)
        plain = self.worth(gold, errors, PLAIN)
        print(row_of("plain", plain, plain), flush=True)
        for name, way in CHECKS.items():
            worth = self.worth(gold, errors, way)
            missed = [] if worth.f1 == plain.f1 else ["F1"]
            print(row_of(f"{name}, judge 0.50", worth, plain, missed), flush=True)
