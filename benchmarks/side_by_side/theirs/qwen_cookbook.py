"""Qwen's cookbook as a loop: one picture after the other, pixels of the picture as Qwen2.5-VL
resizes it.
"""

from __future__ import annotations

import ast
import base64
import json
import os
from typing import Any

from openai import OpenAI
from PIL import Image

client = OpenAI(base_url=os.environ["DF_BASE_URL"], api_key=os.environ["DF_API_KEY"])


def resized(side: int) -> int:
    return max(28, round(side / 28) * 28)


def without_fence(text: str) -> str:
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.strip() == "```json":
            return "\n".join(lines[number + 1 :]).split("```")[0]
    return text


def items_of(text: str) -> list[dict[str, Any]]:
    text = without_fence(text)
    try:
        items: list[dict[str, Any]] = ast.literal_eval(text)
    except Exception:
        items = ast.literal_eval(text[: text.rindex('"}') + 2] + "]")  # cut off: what is whole
    return items


def ground(path: str, phrases: list[str]) -> list[dict[str, Any]]:
    with open(path, "rb") as file:
        encoded = base64.b64encode(file.read()).decode()
    url = f"data:image/png;base64,{encoded}"
    prompt = f"Outline the position of {', '.join(phrases)} and output all coordinates as JSON."
    content: Any = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": prompt},
    ]
    reply = client.chat.completions.create(
        model=os.environ["DF_MODEL"], messages=[{"role": "user", "content": content}]
    )
    width, height = Image.open(path).size
    boxes = []
    for item in items_of(reply.choices[0].message.content or ""):
        x1, y1, x2, y2 = item["bbox_2d"]
        across, down = width / resized(width), height / resized(height)
        bbox = [x1 * across, y1 * down, x2 * across, y2 * down]
        boxes.append({"label": item["label"], "bbox": bbox})
    return boxes


with open("rows.jsonl") as rows, open("out/boxes.jsonl", "w") as out:
    for line in rows:
        row = json.loads(line)
        boxes = ground(row["image_path"], row["expressions"])
        out.write(json.dumps({"image_path": row["image_path"], "boxes": boxes}) + "\n")
        out.flush()
