"""How surely a calibration names the format, and what a model sees of a picture: seeded runs
against simulated models.

    python -m benchmarks.calibration [--runs 9] [--formats 6]

First, models that count pixels of a picture that their server has resized, by the rules of
benchmarks/resize_tables.py; rule_runs.py there says what is right. Second, models that write in
each known order, scale and padding (right: within 0.2% of the side; 999 and 1000 differ by 0.1%).
Third, models without a format, which have to be refused; one that writes a third of its boxes in a
second format may be taken for one of the first, which has no goal.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

from benchmarks.format_runs import (
    FORMATLESS,
    IN_TWO_FORMATS,
    NAMES,
    is_refused,
    one_format,
)
from benchmarks.rule_tables import TABLES, resized
from dataflow_grounding.boxes.formats import find_box_format

KNOWN = [find_box_format(name, "") for name in NAMES]
MADE_UP = 40  # rules from a seed


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=9, help="for each rule (default: 9)")
    parser.add_argument("--formats", type=int, default=6, help="for each format (default: 6)")
    given = parser.parse_args()
    began = time.perf_counter()
    missed = sum(resized(table, given.runs) for table in TABLES)
    missed += resized("made up 0", given.runs, MADE_UP)
    said = Counter(
        (box_format.name, one_format(box_format, seed))
        for box_format in KNOWN
        for seed in range(given.formats)
    )
    right = sum(count for (_, what), count in said.items() if what == "right")
    print(
        f"formats: {right} of {said.total()} right ({len(KNOWN)} formats x {given.formats} models)"
    )
    for (name, what), count in said.items():
        if what != "right":
            print(f"  {count:4}  {name}: {what}")
    missed += sum(count for (_, what), count in said.items() if what.startswith("said"))
    for name, model_of in FORMATLESS.items():
        refused = sum(is_refused(model_of, seed) for seed in range(given.formats))
        if name not in IN_TWO_FORMATS:
            missed += given.formats - refused
        print(f"refused {refused} of {given.formats}: {name}")
    print(f"{time.perf_counter() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
