"""Every fault that a run should survive, played for real, as one table.

    python -m benchmarks.faults [--only NAME] [--quick] [--json]

`sent` are requests that the endpoint received; `twice` counts questions for which it was paid more
than once though the first answer could be used; `lost` counts rows that are neither in the results
nor among the failures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from importlib.util import find_spec
from pathlib import Path

from benchmarks.fault_cases.every_fault import CASES, SECTIONS
from tests.support.fault_cases.fault_case import Case, Outcome
from tests.support.workplace import Workplace


def main() -> int:
    """Print the table; exits with 1 when a fault was not survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="faults whose name holds this text")
    parser.add_argument(
        "--quick", action="store_true", help="fewer kills and shorter waits, as in the tests"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per fault")
    arguments = parser.parse_args()
    if not arguments.json:
        print(f"| {'fault':52} | {'':6} | {'sent':>6} | {'twice':>5} | {'lost':>4} | {'s':>5} |")
        print(f"|{'-' * 54}|{'-' * 8}|{'-' * 7}:|{'-' * 6}:|{'-' * 5}:|{'-' * 6}:|")
    cases = [case for case in CASES if arguments.only in case.name]
    for case in [case for case in cases if case.needs and find_spec(case.needs) is None]:
        print(f"not played, as {case.needs} is not installed: {case.name}", file=sys.stderr)
        cases.remove(case)
    played = [show(case, full=not arguments.quick, as_json=arguments.json) for case in cases]
    outcomes = [outcome for outcome, _ in played]
    survived = sum(passed for _, passed in played)
    if not arguments.json:
        print_sums(cases, outcomes)
        allowed = sum(one.twice_allowed for one in outcomes)
        twice = sum(one.twice for one in outcomes)
        print(
            f"{survived} of {len(cases)} survived, {twice} paid for again, of at most"
            f" {allowed} in flight"
        )
    return 0 if survived == len(cases) else 1


def print_sums(cases: list[Case], outcomes: list[Outcome]) -> None:
    """Print a line for each section of the page: its cases, and the sums of what was measured."""
    print("\n| faults | played | sent | twice | lost |\n|---|--:|--:|--:|--:|")
    measured = {case.name: outcome for case, outcome in zip(cases, outcomes, strict=True)}
    for heading, section in SECTIONS.items():
        of_section = [measured[case.name] for case in section if case.name in measured]
        sums = [sum(getattr(one, name) for one in of_section) for name in ("sent", "twice", "lost")]
        print(f"| {heading} | {len(of_section)} | {' | '.join(map(str, sums))} |")


def show(case: Case, *, full: bool, as_json: bool) -> tuple[Outcome, bool]:
    """Play one fault and print its line; what was measured, and whether it was survived."""
    start = time.monotonic()
    outcome, why = Outcome(), ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcome = case.play(Workplace(Path(folder) / "work"), full)
        except Exception as error:
            why = "".join(traceback.format_exception(error)[-3:])
    seconds = time.monotonic() - start
    passed = not why and not outcome.lost and outcome.twice <= outcome.twice_allowed
    word = "passed" if passed else "failed"
    if as_json:
        print(
            json.dumps(
                {
                    "fault": case.name,
                    "passed": passed,
                    **vars(outcome),
                    "seconds": round(seconds, 1),
                }
            )
        )
    else:
        print(
            f"| {case.name:52} | {word} | {outcome.sent:6} | {outcome.twice:5} | {outcome.lost:4} |"
            f" {seconds:5.1f} |",
            flush=True,
        )
    if why:
        print(why, file=sys.stderr)
    return outcome, passed


if __name__ == "__main__":
    sys.exit(main())
