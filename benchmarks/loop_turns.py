"""The longest turns of the event loop in runs of `generate`: CPU during which nothing else is sent
or read.

    python -m benchmarks.loop_turns [--rounds 3] [--longest 5]

300 photographs of 1280 by 960 pixels, both steps, a check with a probe picture every 100 requests:
in the format that is stated, in another one, and with the format calibrated first. Then 210 records
of 40 phrases, and as many whose replies are all stored after the first. A turn is one
callback of the loop; its CPU time is that of the loop's thread alone, so that neither other threads
nor a busy machine count. Where it was is what a second thread saw most often at work in it, the
innermost function of the package.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import inputs
from benchmarks.report_speed import SIZE, photos
from benchmarks.turns_child import Turn
from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support.measuring import Row, median, table, workplace
from tests.support.stand_ins.probe_model import ProbeModel
from tests.support.workplace import Workplace

RECORDS, CHECK_EVERY, GOAL_MS = 300, 100, 50
PHRASE_RECORDS, PHRASES = 210, 40
WARN = {"vlm.on_suspect_boxes": "warn"}  # so that each run goes to its end
CASES = {
    "format stated": ("xyxy_1000", "xyxy_1000"),
    "another format than stated": ("xyxy_1000", "yxyx_1000"),
    "calibrated first, y before x": ("auto", "yxyx_1000"),
    "calibrated first, in pixels": ("auto", "xyxy_px"),
}
"""What is run → the format that the spec states, and that in which the model answers."""


MANY_PHRASES = {"40 phrases a picture": False, "the same, from stored replies": True}
"""What is run → whether all its records ask for the same phrases."""


def photographs(folder: Path, case: str, pictures: list[Path]) -> list[Turn]:
    """The turns of a run with both steps."""
    stated, answered = CASES[case]
    with LoopbackServer(ProbeModel(answered, outliers=0.0), record=False, latency=0.02) as server:
        place = Workplace(
            folder,
            server.base_url,
            **{"vlm.check_every": CHECK_EVERY, "vlm.box_format": stated, **WARN},
        )
        place.rows(
            {"image_path": str(path), "caption": inputs.caption(n)}
            for n, path in enumerate(pictures)
        )
        return turns_of(place, case)


def many_phrases(folder: Path, case: str) -> list[Turn]:
    """The turns of a run that grounds the phrases of a first step's file."""
    with LoopbackServer(EchoAnswers(), record=False) as server:
        place = Workplace(
            folder, server.base_url, **{"vlm.check_every": CHECK_EVERY, "workflow.steps": ["1"]}
        )
        place.picture(size=(640, 480))
        first_step = place.results / "step_0_expression_extraction" / "annotations.jsonl"
        first_step.parent.mkdir(parents=True)
        with first_step.open("w") as file:
            for number in range(PHRASE_RECORDS):
                of = 0 if MANY_PHRASES[case] else number
                expressions = [{"text": f"thing {n} of {of}"} for n in range(PHRASES)]
                row = {"image_path": "a.jpg", "image_id": f"r{number}", "caption": ""}
                file.write(json.dumps({**row, "expressions": expressions}) + "\n")
        place.rows([])
        return turns_of(place, case)


def turns_of(place: Workplace, case: str) -> list[Turn]:
    """The turns of `generate` there, the longest first."""
    left = place.folder / "turns.json"
    command = [sys.executable, "-m", "benchmarks.turns_child", str(left)]
    # a calibration is kept there
    environment = {**os.environ, "XDG_CACHE_HOME": str(place.folder / "cache")}
    done = subprocess.run(
        [*command, *place.arguments()], env=environment, capture_output=True, text=True
    )
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{case}: ended with {done.returncode}: {done.stderr[-2000:]}")
    return sorted((Turn(*turn) for turn in json.loads(left.read_text())), reverse=True)


def measure(rounds: int, most: int) -> list[Row]:
    """The longest turns of each case, in the round whose longest is the median."""
    rows = []
    with workplace() as folder:
        pictures = photos(folder / "photos", SIZE, RECORDS)
        for number, case in enumerate([*CASES, *MANY_PHRASES]):
            runs = []
            for turn in range(rounds):
                place = folder / f"{number}-{turn}"
                if case in CASES:
                    runs.append(photographs(place, case, pictures))
                else:
                    runs.append(many_phrases(place, case))
            worst = median([turns[0].cpu_ms for turns in runs])
            rows.append(
                Row(f"{case}: longest turn", f"{worst:.0f} ms", f"≤ {GOAL_MS} ms", worst <= GOAL_MS)
            )
            median_run = min(runs, key=lambda turns: abs(turns[0].cpu_ms - worst))
            # Short turns have no function of the package that took most of them.
            named = [turn for turn in median_run if not turn.where.startswith("<")]
            for turn in named[:most]:
                rows.append(Row(f"{case}: `{turn.where}`", f"{turn.cpu_ms:.0f} ms"))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--longest", type=int, default=5, help="Turns to show of each case.")
    given = parser.parse_args()
    print(table(measure(given.rounds, given.longest)))
