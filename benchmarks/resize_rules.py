"""How surely a calibration sees what servers do to a picture before the model sees it.

    python -m benchmarks.resize_rules [--runs 9] [--made-up 40] [--seed 0]

calibrates simulated models with each rule of benchmarks/resize_tables.py and
processors.py (rule_runs.py there says how, and what is right). It prints for each rule how many
were right, refused and wrong. Goals: none wrong, and at most 12% refused of those whose edges are
off by 1.5% or less. The last figure is how many requests a run takes whose pictures have one size:
six or fewer for half of the runs.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.rule_tables import TABLES, of_one_size, resized


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=9, help="models for each rule (default: 9)")
    parser.add_argument(
        "--made-up", type=int, default=40, help="how many rules to make up (default: 40)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of those (default: 0)")
    parser.add_argument("--only", choices=[*TABLES, "made up"], help="one table of rules")
    given = parser.parse_args()
    began = time.perf_counter()
    tables = [table for table in [*TABLES, "made up"] if given.only in (None, table)]
    print(f"  {'':48} right refused wrong")
    missed = 0
    for table in tables:
        name = f"made up {given.seed}" if table == "made up" else table
        missed += resized(name, given.runs, given.made_up, every_row=True)
    missed += of_one_size()
    print(f"{time.perf_counter() - began:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
