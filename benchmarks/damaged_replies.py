"""How damaged replies are read, and how long any text takes.

    python -m benchmarks.damaged_replies [--replies 100000] [--seed 0]

Draws replies and damages of reply_damages.py, which says what is wrong. Then 1 MB
of each of some kinds of text is read: how much processor time it takes. It exits with 1 if anything
is wrong, or takes longer than 2 s.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict

from benchmarks.reply_damages import (
    AROUND,
    DAMAGES,
    KINDS,
    damaged_replies,
    long_text,
    read_any,
    verdict,
)

MOST_SECONDS = 2.0
"""Of processor time for 1 MB of any text."""
SHOWN = 3
"""Wrong readings that are shown of each kind of damage."""


def seconds_for(piece: str) -> float:
    """The most processor time that 1 MB of a piece takes, with any of AROUND around it."""
    most = 0.0
    for around in AROUND:
        text = long_text(piece, around, 1_000_000)
        began = time.process_time()
        read_any(text)
        most = max(most, time.process_time() - began)
    return most


def print_costs() -> int:
    """Print the processor time for 1 MB of each kind of text; return how many take too long."""
    print("\n| 1 MB of | s of processor time |")
    print("|---|---|")
    slow = 0
    for name, piece in KINDS.items():
        seconds = seconds_for(piece)
        missed = "" if seconds <= MOST_SECONDS else " **missed**"
        slow += seconds > MOST_SECONDS
        print(f"| {name} | {seconds:.2f}{missed} |", flush=True)
    return slow


def print_verdicts(replies: int, seed: int) -> int:
    """Print how damaged replies were read; return how many were read wrong."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in DAMAGES}
    examples: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, reply, damaged in damaged_replies(replies, seed):
        outcome, why = verdict(reply, damaged)
        counts[name][outcome] += 1
        if outcome == "wrong":
            phrases = [*reply.phrases.values()]
            shown = f"    asked {phrases}\n    from  {reply.text!r}\n    to    {damaged.text!r}"
            examples[name, reply.form.name].append(f"{shown}\n    read  {why}")
    print("| damage | replies | same | marked | refused | wrong |")
    print("|---|---|---|---|---|---|")
    for name, count in counts.items():
        row = [count[outcome] for outcome in ("same", "marked", "refused", "wrong")]
        print(f"| {name} | {count.total()} | {' | '.join(map(str, row))} |")
    total = sum((count for count in counts.values()), Counter[str]())
    row = [total[outcome] for outcome in ("same", "marked", "refused", "wrong")]
    print(f"| all | {total.total()} | {' | '.join(map(str, row))} |")
    for (name, form), texts in examples.items():
        print(f"\n{name}, {form}: {len(texts)} wrong")
        for text in sorted(texts, key=len)[:SHOWN]:
            print(text)
    return total["wrong"]


def main() -> int:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--replies", type=int, default=100_000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    wrong = print_verdicts(given.replies, given.seed)
    slow = print_costs()
    print(
        f"\n{wrong} wrong (goal 0), {slow} of {len(KINDS)} kinds above {MOST_SECONDS:g} s (goal 0)"
    )
    return 1 if wrong or slow else 0


if __name__ == "__main__":
    sys.exit(main())
