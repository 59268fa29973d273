"""Every benchmark, one after the other, as one table with goals beside figures.

    python -m benchmarks.all

Takes about eight minutes on two idle cores and 1 GB under TMPDIR; on busy ones longer,
and wall times say little there. Each benchmark is a command of its own, too.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time

from benchmarks.places.measuring import Row, run, table

NAMES = ("request_cost", "large_runs", "wall", "streaming", "start", "image_cost")


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    began = time.perf_counter()
    machine = f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before the start"
    print(
        f"{machine}, Python {platform.python_version()}, {platform.system()},"
        f" {time.strftime('%Y-%m-%d')}"
    )
    missed = 0
    for name in NAMES:
        done = run([sys.executable, "-m", f"benchmarks.{name}", "--json"])
        rows = [Row(**row) for row in done.json()]
        missed += sum(row.reached is False for row in rows)
        print(f"\n{name} ({done.wall_s:.0f} s)\n\n{table(rows)}", flush=True)
    print(f"\n{missed} goals missed; {(time.perf_counter() - began) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
