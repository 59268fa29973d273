"""What `eval` costs on made-up files: python -m benchmarks.eval_cost [PHRASES]
[PHRASES_PER_IMAGE]
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.measuring import COMMAND, run

NOUNS = ("man", "dog", "car", "tree", "cup", "sign", "house", "bird", "chair", "lamp")


def records(phrases: int, per_image: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Gold and predictions: one to three boxes a phrase, a tenth not there, noise of some pixels,
    scores to match.
    """
    chance = random.Random(0)
    for number in range(phrases // per_image):
        texts = [
            f"a {chance.choice(NOUNS)} of {chance.choice(NOUNS)} {n}" for n in range(per_image)
        ]
        caption, gold, found = ", ".join(texts), [], []
        for text in texts:
            boxes = []
            for _ in range(0 if chance.random() < 0.1 else chance.choice((1, 1, 1, 2, 3))):
                x, y, side = chance.uniform(0, 800), chance.uniform(0, 600), chance.uniform(10, 400)
                boxes.append([x, y, x + side, y + side * chance.uniform(0.5, 2)])
            at = caption.index(text)
            both = {"text": text, "char_span": [at, at + len(text)]}
            gold.append({**both, "instances": [{"bbox": box} for box in boxes]})
            noise, kept = chance.expovariate(0.1), [box for box in boxes if chance.random() < 0.9]
            moved = [[edge + chance.uniform(-noise, noise) for edge in box] for box in kept]
            moved += [[0.0, 0.0, 50.0, 50.0]] * (chance.random() < 0.1)
            score = round(chance.uniform(0.3, 1) / (1 + noise / 50), 3)
            found.append({**both, "instances": [{"bbox": box, "score": score} for box in moved]})
        row = {"image_path": f"{number}.jpg", "caption": caption, "width": 1280, "height": 960}
        yield {**row, "expressions": gold}, {**row, "expressions": found}


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
