"""What ways of asking are worth where a model boxes what isn't there, always alike.

Pictures of 1200 x 900 with 4 of 8 colours in them, all 8 asked for. `of the decided` leaves out the
phrases of which a check couldn't tell.
"""

from __future__ import annotations

import random
from collections import Counter
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
    VerdictCollector,
)
from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.evaluation.metrics import evaluate
from dataflow_grounding.serving import OpenAIServing, Serving
from dataflow_grounding.testing import LoopbackServer

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
        VerdictCollector(serving),
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
RECALL_LOSS = 0.02
LEAST_MCC = 0.80
MOST_UNDECIDED = 0.20
MORE_F1 = 0.07  # of a check, where 20% of the things are missed
LEAST_DECIDED = {"check": 0.95, "check: fast": 0.93}
MOST_TIMES = {"check": 2.25, "check: fast": 1.5}


def mean_of(worths: Sequence[Worth]) -> Worth:
    """The mean of what a way is worth, over several seeds."""
    means = {}
    for name in Worth.__annotations__:
        values = [getattr(worth, name) for worth in worths]
        means[name] = sum(values) / len(values)
    return Worth(**means)


def goal_row(name: str, plain: Worth, reground: Worth | None) -> str:
    """The goals of a check, each under the figure that it is of; `reground` as in missed_goals."""
    least_mcc, most_undecided, f1, requests = "", "", "", ""
    if name == "check":
        least_mcc, most_undecided = f"{LEAST_MCC:.3f}", f"{MOST_UNDECIDED:.1%}"
    if name == "check" and reground is not None:
        f1, requests = f"{reground.f1:.3f}", f"<{reground.requests:.2f}"
    return (
        f"{f'goal: {name}':26} {'':9} {plain.recall - RECALL_LOSS:6.3f} {f1:>6} {'':6}"
        f" {least_mcc:>6} {LEAST_DECIDED[name]:7.3f} {most_undecided:>9} {requests:>8}"
        f" {MOST_TIMES[name]:5.2f}x"
    )


def row_of(name: str, worth: Worth, plain: Worth, note: str = "") -> str:
    """A row of the table, compared with one grounding alone."""
    row = (
        f"{name:26} {worth.precision:9.3f} {worth.recall:6.3f} {worth.f1:6.3f} {worth.n_acc:6.3f}"
        f" {worth.il_mcc:6.3f} {worth.decided_mcc:7.3f} {worth.undecided:9.1%}"
        f" {worth.requests:8.2f} {worth.times(plain):5.2f}x  {note}"
    )
    return row.rstrip()


def missed_goals(name: str, worth: Worth, plain: Worth, reground: Worth | None) -> list[str]:
    """The goals of a check that its figures miss; they hold for a judge of .92, or a better one.

    `reground`: where errors differ between answers, the way that `check` should be no worse than
    at less cost.
    """
    missed = []
    if worth.recall < plain.recall - RECALL_LOSS:
        missed.append("recall")
    if name == "check":
        if worth.il_mcc < LEAST_MCC:
            missed.append("IL_MCC")
        if worth.undecided > MOST_UNDECIDED:
            missed.append("undecided")
    if worth.decided_mcc < LEAST_DECIDED[name]:
        missed.append("decided")
    if round(worth.times(plain), 3) > MOST_TIMES[name]:
        missed.append("times")
    if name == "check" and reground is not None:
        if worth.f1 < reground.f1:
            missed.append("F1")
        if worth.requests >= reground.requests:
            missed.append("requests")
    return missed


def misses(of_seeds: Sequence[Sequence[str]], of_mean: Sequence[str]) -> str:
    """Which goals are missed by the mean, and in how many seeds; empty where none is."""
    counts = Counter(goal for missed in of_seeds for goal in missed)
    told = []
    for goal, count in counts.items():
        mark = "!" if goal in of_mean else ""
        told.append(f"{goal}{mark} {count}/{len(of_seeds)}")
    return f"misses {', '.join(told)}" if told else ""


@dataclass(frozen=True)
class Table:
    """Which rows to print, on how many pictures.

    Each figure is the mean of those of `seeds`, each with pictures and errors of its own, the same
    for all ways. `misses` counts the seeds that miss a goal; the mean misses those marked with !.
    """

    pictures: int
    seeds: Sequence[int]
    folder: Path
    absent: Sequence[float] = (0.0, 0.3, 0.9)
    accuracies: Sequence[float] = (0.85, 0.90, 0.92, 0.94)
    kinds: Sequence[bool] = (True, False)

    def worths(self, errors: Errors, way: Way) -> list[Worth]:
        """What a way is worth with a model that errs so, for each seed."""
        worths = []
        for seed in self.seeds:
            gold = scenes(self.folder, self.pictures, seed)
            worths.append(worth_of(gold, ErringModel(errors, seed=seed), way))
        return worths

    def print_rows(self) -> None:
        """Old ways and checks, where absent things are boxed."""
        for shared in self.kinds:
            for absent in self.absent:
                kind = "the same each time" if shared else "others each time"
                print(f"\nabsent things boxed: {absent:.0%}, errors {kind}\n{HEAD}")
                errors = Errors(absent=absent, noise=NOISE, shared=shared)
                self.print_ways(errors, self.accuracies)

    def print_ways(self, errors: Errors, accuracies: Sequence[float]) -> None:
        """The old ways, and both checks with judges of these accuracies; their goals above them."""
        old = {name: self.worths(errors, way) for name, way in OLD_WAYS.items()}
        plain = mean_of(old["plain"])
        for name, worths in old.items():
            print(row_of(name, mean_of(worths), plain), flush=True)
        regrounds: list[Worth] = [] if errors.shared else old["reground, verified kept"]
        reground = mean_of(regrounds) if regrounds else None
        for name in CHECKS:
            print(goal_row(name, plain, reground))
        for accuracy in accuracies:
            judged = replace(errors, accuracy=accuracy)
            for name, way in CHECKS.items():
                worths = self.worths(judged, way)
                mean = mean_of(worths)
                of_seeds = []
                for number, worth in enumerate(worths):
                    old_way = regrounds[number] if regrounds else None
                    of_seeds.append(missed_goals(name, worth, old["plain"][number], old_way))
                note = misses(of_seeds, missed_goals(name, mean, plain, reground))
                print(row_of(f"{name}, judge {accuracy:.2f}", mean, plain, note), flush=True)

    def print_all_errors(self) -> None:
        """Errors of all kinds at once."""
        for shared in self.kinds:
            kind = "the same each time" if shared else "others each time"
            what = "absent things boxed 30%, missed 10%, too large 10%, on another thing 8%"
            print(f"\n{what}, errors {kind}\n{HEAD}")
            errors = Errors(0.3, 0.1, 0.1, 0.08, NOISE, shared=shared)
            self.print_ways(errors, (0.92,))

    def print_misses(self) -> None:
        """How many of the things that were missed are found."""
        print(f"\n20% of the things missed\n{HEAD}")
        errors = Errors(missing=0.2, noise=NOISE)
        plains = self.worths(errors, PLAIN)
        plain = mean_of(plains)
        print(row_of("plain", plain, plain), flush=True)
        print(f"{'goal: check':26} {'':9} {'':6} {plain.f1 + MORE_F1:6.3f}")
        for accuracy in self.accuracies:
            worths = self.worths(replace(errors, accuracy=accuracy), CHECKS["check"])
            mean = mean_of(worths)
            of_seeds = []
            for before, worth in zip(plains, worths, strict=True):
                of_seeds.append(["F1"] if worth.f1 < before.f1 + MORE_F1 else [])
            note = misses(of_seeds, ["F1"] if mean.f1 < plain.f1 + MORE_F1 else [])
            row = row_of(f"check, judge {accuracy:.2f}", mean, plain)
            print(f"{row}  F1 {mean.f1 - plain.f1:+.3f}  {note}".rstrip(), flush=True)

    def print_guessing_judge(self) -> None:
        """A judge who tosses a coin; goal: the boxes stay as they are."""
        print(f"\na judge who tosses a coin\n{HEAD}")
        errors = Errors(absent=0.9, noise=NOISE, accuracy=0.5)
        plains = self.worths(errors, PLAIN)
        plain = mean_of(plains)
        print(row_of("plain", plain, plain), flush=True)
        print(f"{'goal: as plain':26} {plain.precision:9.3f} {plain.recall:6.3f} {plain.f1:6.3f}")
        for name, way in CHECKS.items():
            worths = self.worths(errors, way)
            of_seeds = []
            for before, worth in zip(plains, worths, strict=True):
                of_seeds.append(["F1"] if worth.f1 != before.f1 else [])
            note = misses(of_seeds, ["F1"] if any(of_seeds) else [])
            print(row_of(f"{name}, judge 0.50", mean_of(worths), plain, note), flush=True)
