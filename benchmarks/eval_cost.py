"""What `eval` costs on made-up files: python -m benchmarks.eval_cost [PHRASES]
[PHRASES_PER_IMAGE]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.support.eval_records import records
from tests.support.measuring import COMMAND, run


def main(phrases: int = 100_000, per_image: int = 4) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("gold.jsonl", "found.jsonl")]
        with paths[0].open("w") as gold, paths[1].open("w") as found:
            for rows in records(phrases, per_image):
                for file, row in zip((gold, found), rows, strict=True):
                    file.write(json.dumps(row) + "\n")
        used = run([*COMMAND, "eval", str(paths[1]), "--gold", str(paths[0]), "--json"])
    figures = used.json()
    print(
        f"{figures['expressions']:,} expressions of {figures['images']:,} images, 1,000 draws: ",
        end="",
    )
    print(
        f"{used.wall_s:.1f} s ({used.cpu_s:.1f} CPU s), {used.peak_mb:.0f} MB; ap {figures['ap']},"
        f" ece {figures['ece']}"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
