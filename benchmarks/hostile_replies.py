"""What becomes of replies that were written to be wrong: no bar, only a count.

    python -m benchmarks.hostile_replies [FILE …]

Words next to an answer decide nothing, so most of these are read. The table says of how many a
person is told: "said" has a remark, "doubtful" a doubt about its boxes. A file has a reply a line,
as hostile_replies.jsonl has it; rows that are right (`"right": "read"`) are left out.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.replies import read_boxes

OUTCOMES = ("clean", "said", "doubtful", "refused")
RIGHT = ("read", "clean")
OWN = Path(__file__).with_name("hostile_replies.jsonl")


def outcome_of(row: dict[str, Any]) -> str:
    """Return what becomes of a reply: one of OUTCOMES."""
    asked = {key: row[key] for key in ("format", "image_size", "phrases")}
    try:
        reading = read_boxes(row["reply"], **asked)
    except UnreadableReply:
        return "refused"
    if reading.unread:  # a run asks again
        return "refused"
    if reading.doubts or reading.doubtful:
        return "doubtful"
    return "said" if reading.remark else "clean"


def main() -> int:
    """Print the table, and the ids of those that are read without a word."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    clean: list[str] = []
    for path in map(Path, sys.argv[1:] or [str(OWN)]):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            if row["right"] in RIGHT:
                continue
            outcome = outcome_of(row)
            counts[row["kind"]][outcome] += 1
            if outcome == "clean":
                clean.append(row["id"])
    print(f"| kind | {' | '.join(OUTCOMES)} |")
    print("|---|---|---|---|---|")
    total = sum(counts.values(), Counter[str]())
    for kind, count in [*counts.items(), ("all", total)]:
        print(f"| {kind} | {' | '.join(str(count[outcome]) for outcome in OUTCOMES)} |")
    print(f"clean: {', '.join(clean) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
