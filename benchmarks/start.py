"""Start: CPU seconds and memory of `--help`, of the import, and of a bare Python for comparison.

python -m benchmarks.start
"""

from __future__ import annotations

import sys

from tests.support.measuring import COMMAND, Row, median, run, show

ROUNDS = 7
COMMANDS = {
    "python -c pass": ([sys.executable, "-c", "pass"], None),
    "import dataflow_grounding": ([sys.executable, "-c", "import dataflow_grounding"], 0.3),
    "from dataflow_grounding import PhraseGrounder, OpenAIServing, Pipeline": (
        [
            sys.executable,
            "-c",
            "from dataflow_grounding import PhraseGrounder, OpenAIServing, Pipeline",
        ],
        None,
    ),
    "dataflowgrounding --help": ([*COMMAND, "--help"], 0.3),
    "dataflowgrounding generate --help": ([*COMMAND, "generate", "--help"], 0.3),
}


def measure() -> list[Row]:
    """Start: CPU seconds and memory of `--help`, of the import, and of a bare Python for
    comparison.
    """
    rows = []
    for name, (command, goal) in COMMANDS.items():
        runs = [run(command) for _ in range(ROUNDS)]
        cpu, peak = median([used.cpu_s for used in runs]), median([used.peak_mb for used in runs])
        figure = f"{cpu:.2f} CPU s, {peak:.0f} MB"
        rows.append(
            Row(
                f"`{name}`",
                figure,
                f"≤ {goal} CPU s" if goal else "",
                cpu <= goal if goal else None,
            )
        )
    return rows


if __name__ == "__main__":
    show(measure)
