"""How soon the standing check stops a run whose boxes are in another format, and whether it stops a
right one.

    python -m benchmarks.box_watch [--seeds 5] [--right 100]

Whole runs of `generate` over the loopback server, with the defaults: probe pictures before the
first request and once in every 100, and every reply judged. Boxes are as photos have them (people
tall, cars wide, sizes log-normal, pictures mostly 4:3), and come after 30 ms. A wrong record is one
whose last reply came in another format; it is *shown* where that reply's own numbers show it: a box
out of the picture, or numbers twenty times likelier in another format, given all the right boxes of
the run. The goal is ten, and three times the eight requests that are in flight: one round in which
replies are odd, one in which they are asked for again, and one for the probe picture.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stand_ins.watched_model import (
    AXIS_BY_AXIS,
    MIXED,
    PEOPLE,
    SQUARES,
    WIDE,
    FormatOf,
    GivenReply,
    Scene,
    WatchedModel,
)
from dataflow_grounding.boxes.formats import find_box_format
from dataflow_grounding.boxes.geometry import Size, box_of
from dataflow_grounding.testing import LoopbackServer
from dataflow_grounding.trust.format_readings import OUTSIDE, SeenBox, Sent
from dataflow_grounding.trust.reply_judge import (
    ASK_AGAIN_RATIO,
    JudgedReply,
    ReplyJudge,
)
from tests.support.measuring import Row, table
from tests.support.pacing import lognormal
from tests.support.workplace import Workplace

IN_FLIGHT = 8
LATENCY = lognormal(0.03, 0.5)
# Nothing is held while a doubtful reply is asked for again, or a probe picture is on its way.
GOAL = 10 + 3 * IN_FLIGHT
SWITCH = 60
NOISES = (0.005, 0.015, 0.03)
WRONG = [
    ("xyxy_1000", "yxyx_1000"),
    ("yxyx_1000", "xyxy_1000"),
    ("xyxy_1000", "xyxy_100"),
    ("xyxy_1000", "xyxy_1"),
    ("xyxy_1000", "xywh_1000"),
    ("xyxy_1000", "cxcywh_1000"),
    ("xyxy_1000", "xyxy_px"),
    ("xyxy_1000", "yxyx_px"),
    ("xyxy_px", "xyxy_1000"),
    ("xyxy_px", "xywh_px"),
]
SWITCHES = [
    ("order", "xyxy_1000", "yxyx_1000", Scene()),
    ("order, y first before", "yxyx_1000", "xyxy_1000", Scene()),
    ("scale", "xyxy_1000", "xyxy_px", Scene()),
    ("scale, pixels before", "xyxy_px", "xyxy_1000", Scene()),
    ("order, people only", "xyxy_1000", "yxyx_1000", Scene(things=PEOPLE)),
    ("order, small things", "xyxy_1000", "yxyx_1000", Scene(area=-6.5)),
]
BLIND = (
    "order, squares anywhere",
    "xyxy_1000",
    "yxyx_1000",
    Scene(things=SQUARES, level=False, sizes=((640, 640),)),
)
"""Nothing in the numbers changes: only the check after every 100 requests can tell."""

MINORITY_OF = (
    "yxyx_1000",
    "xywh_1000",
    "cxcywh_1000",
    "xyxy_px",
    "xyxy_100",
    "yxyx_px",
    AXIS_BY_AXIS,
)
SHARES = (0.03, 0.10, 0.25)
PORTRAIT, LANDSCAPE = (480, 640), (640, 480)
FEW_PORTRAITS: tuple[Size, ...] = (LANDSCAPE,) * 24 + (PORTRAIT,)
HALF_PORTRAITS: tuple[Size, ...] = (LANDSCAPE, PORTRAIT)

RIGHT = {
    "all things": Scene(),
    "small things": Scene(area=-6.5),
    "people only": Scene(things=PEOPLE),
    "one corner": Scene(corner=True),
    "panoramas": Scene(sizes=WIDE),
    "one phrase per request": Scene(most_phrases=1),
    "mostly empty": Scene(empty=0.8),
    "squares anywhere": Scene(things=SQUARES, level=False),
    "one size": Scene(sizes=((800, 800),)),
    "few phrases": Scene(things=MIXED[:2]),
    "one thing always at one place": Scene(logo=True),
}
FORMATS = (
    "xyxy_1000",
    "yxyx_1000",
    "xyxy_px",
    "xywh_1000",
    "xyxy_1",
    "cxcywh_px",
    "xyxy_100",
    "gemini",
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: Its exit code.
        answers: Questions about its pictures that were answered.
        again: Replies that were asked for again.
        replied_wrong: Answers of which a reply came in another format.
        wrong: Answers whose last reply came in another format.
        unmarked: Those of them whose records are not marked as suspect.
        shown: Those of these whose own numbers show it.
        probes: Probe pictures.
        said: Its message.
        wrote: Whether it wrote its results.
        suspects: Records that are marked as suspect in them.
    """

    code: int
    answers: int
    again: int
    replied_wrong: int
    wrong: int
    unmarked: int
    shown: int
    probes: int
    said: str
    wrote: bool
    suspects: int


def play(
    format_of: FormatOf,
    asked: str,
    scene: Scene,
    *,
    records: int,
    seed: int = 0,
    noise: float = 0.01,
    outliers: float = 0.05,
    swapped: float = 0.0,
    missing: float = 0.0,
) -> Outcome:
    """One run of `generate`, step 1 alone."""
    model = WatchedModel(
        format_of,
        scene,
        seed=seed,
        noise=noise,
        outliers=outliers,
        swapped=swapped,
        missing=missing,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        LoopbackServer(model, latency=LATENCY, record=False) as server,
    ):
        place = Workplace(
            Path(folder), server.base_url, **{"vlm.check_every": 100, "workflow.steps": ["1"]}
        )
        grounding_input(place, scene, records, seed)
        done = place.run(**{"vlm.box_format": asked, "workflow.max_workers": IN_FLIGHT})
        wrote = (place.results / "annotations.jsonl").exists()
        marked = marked_pictures(place) if wrote else set()
    wrong = [reply for reply in model.last_replies() if reply.written != asked]
    unmarked = [reply for reply in wrong if reply.image not in marked]
    return Outcome(
        code=done.code,
        answers=len(model.replies),  # each picture of these runs is asked about once
        again=model.given - len(model.replies),
        replied_wrong=sum(
            any(reply.written != asked for reply in replies) for replies in model.replies.values()
        ),
        wrong=len(wrong),
        unmarked=len(unmarked),
        shown=shown_by_themselves(model, asked, unmarked),
        probes=model.probes,
        said=done.err,
        wrote=wrote,
        suspects=len(marked),
    )


def marked_pictures(place: Workplace) -> set[str]:
    """The sha256 of the pictures of the records that are marked as suspect."""
    paths = [
        Path(record["image_path"]) for record in place.annotations() if record.get("suspect_boxes")
    ]
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def shown_by_themselves(model: WatchedModel, asked: str, wrong: list[GivenReply]) -> int:
    """How many wrong answers show by their own numbers that they are, next to all the right boxes
    of the run.
    """
    judge = ReplyJudge(find_box_format(asked, ""))
    for reply in model.last_replies():
        if reply.written == asked:
            judge.learn(judged(judge, reply))
    shown = 0
    for reply in wrong:
        verdict = judged(judge, reply)
        outside = any(max(box) > 1 + OUTSIDE or min(box) < -OUTSIDE for box in verdict.corners)
        shown += outside or verdict.ratio >= ASK_AGAIN_RATIO
    return shown


def judged(judge: ReplyJudge, reply: GivenReply) -> JudgedReply:
    return judge.judge(
        [SeenBox(box_of(numbers), None, text) for text, numbers in reply.numbers], Sent(reply.size)
    )


def grounding_input(place: Workplace, scene: Scene, records: int, seed: int = 0) -> None:
    """What step 0 would have written: records, each with another picture."""
    draw = random.Random(seed)
    pictures = {}
    for width, height in set(scene.sizes):
        pictures[width, height] = (
            place.folder / place.picture(f"{width}x{height}.jpg", (width, height))
        ).read_bytes()
    rows = []
    for number in range(records):
        path = place.folder / f"{number}.jpg"
        path.write_bytes(pictures[draw.choice(scene.sizes)] + b"%d" % number)
        phrases = [
            draw.choice(scene.things).phrase for _ in range(draw.randint(1, scene.most_phrases))
        ]
        expressions = [{"text": text} for text in dict.fromkeys(phrases)]
        rows.append({"image_path": str(path), "caption": "", "expressions": expressions})
    before = place.results / "step_0_expression_extraction" / "annotations.jsonl"
    before.parent.mkdir(parents=True)
    before.write_text("".join(json.dumps(row) + "\n" for row in rows))
    place.rows([])


# --- Another format from the start, or from some reply on


def stopped(outcomes: list[Outcome], fitting: str) -> tuple[str, bool]:
    """The figures of runs that should be stopped, and whether all were: soon, unwritten, the right
    format named.
    """
    worst = max(outcome.wrong for outcome in outcomes)
    whole = all(outcome.code == 2 and not outcome.wrote for outcome in outcomes)
    named = sum(f"{fitting} would fit" in outcome.said for outcome in outcomes)
    middle = sorted(outcome.wrong for outcome in outcomes)[len(outcomes) // 2]
    probes = max(outcome.probes for outcome in outcomes)
    figure = (
        f"{worst} ({middle} in the middle one; {probes} probes; named {named} of {len(outcomes)})"
    )
    return (figure if whole else f"not stopped: {figure}"), whole


def from_the_start(asked: str, written: str, seeds: int) -> Row:
    """A run that is wrong from its first answer on."""
    outcomes = [
        play(lambda *_: written, asked, Scene(), records=60, seed=seed, noise=0.02)
        for seed in range(seeds)
    ]
    figure, whole = stopped(outcomes, written)
    reached = whole and all(outcome.wrong <= GOAL for outcome in outcomes)
    return Row(
        f"asked {asked}, answered {written}: most wrong answers", figure, f"≤ {GOAL}", reached
    )


def switched(what: str, before: str, after: str, scene: Scene, seeds: int, goal: int = GOAL) -> Row:
    """A run that goes wrong at its 60th answer."""

    def format_of(number: int, size: Size) -> str:
        return before if number < SWITCH else after

    outcomes = [
        play(format_of, before, scene, records=240, seed=seed, noise=NOISES[seed % 3])
        for seed in range(seeds)
    ]
    figure, whole = stopped(outcomes, after)
    reached = whole and all(outcome.wrong <= goal for outcome in outcomes)
    title = f"{what} changed at answer {SWITCH} ({before} to {after}): most wrong answers"
    return Row(title, figure, f"≤ {goal}", reached)


# --- A part of the replies in another format


def written_wrong(outcomes: list[Outcome]) -> tuple[int, int, int]:
    """Wrong records that were written as right, those of them that show it, and all that had a
    wrong reply.
    """
    wrote = [outcome for outcome in outcomes if outcome.wrote]
    wrong = sum(outcome.unmarked for outcome in wrote)
    return (
        wrong,
        sum(outcome.shown for outcome in wrote),
        sum(outcome.replied_wrong for outcome in outcomes),
    )


def minority_row(title: str, outcomes: list[Outcome]) -> Row:
    """Whether none that shows itself was written, and of the others nine in ten were caught."""
    wrong, shown, total = written_wrong(outcomes)
    ended = sum(not outcome.wrote for outcome in outcomes)
    caught = 1 - wrong / total if total else 1.0
    figure = (
        f"{shown} shown; {caught:.0%} of {total} caught; {ended} of {len(outcomes)} runs stopped"
    )
    return Row(title, figure, "0 shown; ≥ 90% caught", shown == 0 and caught >= 0.9)


def minorities(share: float, written: str, seeds: int, records: int) -> Row:
    """Runs in which a part of the replies comes in another format."""
    outcomes = []
    for seed in range(seeds):
        draw = random.Random(f"{seed}/{share}/{written}")

        def format_of(number: int, size: Size, draw: random.Random = draw) -> str:
            return written if draw.random() < share else "xyxy_1000"

        outcomes.append(
            play(
                format_of, "xyxy_1000", Scene(), records=records, seed=seed, noise=NOISES[seed % 3]
            )
        )
    return minority_row(
        f"{share:.0%} of the replies in {written}, {records} records: written as done", outcomes
    )


def portraits(title: str, sizes: tuple[Size, ...], seeds: int) -> Row:
    """Runs in which x and y are swapped in upright pictures alone."""

    def format_of(number: int, size: Size) -> str:
        return "yxyx_1000" if size[1] > size[0] else "xyxy_1000"

    scene = Scene(sizes=sizes)
    outcomes = [
        play(format_of, "xyxy_1000", scene, records=150, seed=seed, noise=NOISES[seed % 3])
        for seed in range(seeds)
    ]
    return minority_row(f"x and y swapped in portraits, {title}: written as done", outcomes)


# --- Runs that are right


def right_runs(count: int) -> list[Row]:
    """Runs that are right, in every format and of every kind of picture: none is stopped, few
    replies asked again.

    Half of them are as usual: noise of 0.5 to 3% of the side, 5% of the boxes anywhere at all. The
    others are odd: noise to 6%, a fifth of the boxes anywhere, and in turn corners swapped in 15%,
    or 40% missing.
    """
    outcomes: dict[str, list[Outcome]] = {"usual": [], "odd": []}
    false: list[str] = []
    for seed in range(count):
        draw = random.Random(seed)
        kind = list(RIGHT)[seed % len(RIGHT)]
        written = FORMATS[(seed + seed // len(RIGHT)) % len(FORMATS)]
        name = list(outcomes)[seed // len(RIGHT) % 2]
        is_odd = name == "odd"
        noise = draw.uniform(0, 0.06) if is_odd else NOISES[seed % 3]
        outcome = play(
            lambda *_, f=written: f,
            written,
            RIGHT[kind],
            records=150,
            seed=seed,
            noise=noise,
            outliers=draw.uniform(0, 0.2) if is_odd else 0.05,
            swapped=0.15 if is_odd and seed % 3 == 1 else 0.0,
            missing=0.4 if is_odd and seed % 3 == 2 else 0.0,
        )
        outcomes[name].append(outcome)
        if outcome.code != 0 or outcome.answers != 150:
            false.append(f"{kind}, {written}, noise {noise:.1%}: {outcome.said.strip()}")
    suspects = sum(outcome.suspects for some in outcomes.values() for outcome in some)
    figure = f"{len(false)} of {count}; {suspects} records marked" + "".join(
        f"; {what}" for what in false
    )
    rows = [Row("runs that are right and are stopped", figure, "0", not false)]
    return rows + [cost_row(name, some) for name, some in outcomes.items()]


def cost_row(name: str, outcomes: list[Outcome]) -> Row:
    """How many requests such runs take for each that they have to make; the goal is
    for usual ones.
    """
    answers = sum(outcome.answers for outcome in outcomes) or 1
    again = sum(outcome.again for outcome in outcomes) / answers
    probes = sum(outcome.probes for outcome in outcomes) / answers
    figure = f"{1 + again + probes:.3f} ({again:.1%} asked again, {probes:.1%} probe pictures)"
    title = f"requests for each request of a right run of 150, {name} ones"
    if name != "usual":
        return Row(title, figure, "", None)
    return Row(title, figure, "≤ 1.05", 1 + again + probes <= 1.05)


def measure(seeds: int, right: int) -> list[Row]:
    """All rows."""
    rows = [from_the_start(asked, written, seeds) for asked, written in WRONG]
    rows += [switched(*case, seeds) for case in SWITCHES]
    # What is in flight when a check is due, and what is sent while the check is.
    rows.append(switched(*BLIND, seeds, goal=100 + 2 * IN_FLIGHT))
    rows += [minorities(share, written, seeds, 170) for share in SHARES for written in MINORITY_OF]
    rows.append(portraits("half of all", HALF_PORTRAITS, seeds))
    rows.append(portraits("4% of all", FEW_PORTRAITS, seeds))
    return [*rows, *right_runs(right)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="runs of each wrong kind (default: 5)")
    parser.add_argument("--right", type=int, default=100, help="runs that are right (default: 100)")
    given = parser.parse_args()
    rows = measure(given.seeds, given.right)
    print(table(rows))
    return 1 if any(row.reached is False for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
