"""Gemini's cookbook as a loop: PIL's thumbnail, Google's client, [ymin, xmin, ymax, xmax] of 0 to
1000.
"""

from __future__ import annotations

import json
import os
from typing import Any

from google import genai
from google.genai import types
from PIL import Image

client = genai.Client(
    api_key=os.environ["DF_API_KEY"],
    http_options=types.HttpOptions(base_url=os.environ["DF_ADDRESS"]),
)


def parsed(text: str) -> list[dict[str, Any]]:
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line == "```json":
            text = "\n".join(lines[number + 1 :]).split("```")[0]
            break
    items: list[dict[str, Any]] = json.loads(text)
    return items


def ground(path: str, phrases: list[str]) -> list[dict[str, Any]]:
    picture = Image.open(path)
    width, height = picture.size
    picture.thumbnail((1024, 1024))
    prompt = (
        f"Detect {', '.join(phrases)}. Output a JSON list in which each entry has box_2d, as"
        " [ymin, xmin, ymax, xmax] normalized to 0-1000, and label."
    )
    contents: Any = [prompt, picture]
    reply = client.models.generate_content(
        model=os.environ["DF_MODEL"],
        contents=contents,
        config=types.GenerateContentConfig(temperature=0.5),
    )
    boxes = []
    for item in parsed(reply.text or ""):
        y1, x1, y2, x2 = item["box_2d"]
        bbox = [x1 / 1000 * width, y1 / 1000 * height, x2 / 1000 * width, y2 / 1000 * height]
        boxes.append({"label": item["label"], "bbox": bbox})
    return boxes


with open("rows.jsonl") as rows, open("out/boxes.jsonl", "w") as out:
    for line in rows:
        row = json.loads(line)
        boxes = ground(row["image_path"], row["expressions"])
        out.write(json.dumps({"image_path": row["image_path"], "boxes": boxes}) + "\n")
        out.flush()
