"""Gold and predictions of as many phrases as one likes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

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
