"""Whether phrases are found where they are, in captions that tests/support/span_fuzz.py makes up.

python -m benchmarks.span_fuzz [--captions 40000] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys

from tests.support.span_fuzz import fuzz


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--captions", type=int, default=40_000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    tally = fuzz(given.captions, given.seed)
    print(f"{tally.captions} captions, {tally.phrases} phrases: {tally.found} found")
    print(f"wrong slices {tally.wrong} (goal 0), there and not found {tally.missed} (goal 0)")
    if tally.first:
        print(tally.first)
    return 1 if tally.wrong or tally.missed else 0


if __name__ == "__main__":
    sys.exit(main())
