"""A loop around one call that turns a reply into detections, by the name of the model's family, as
supervision's `Detections.from_vlm` does.
"""

from __future__ import annotations

import base64
import json
import os
import re
from typing import Any

import numpy
from openai import OpenAI
from PIL import Image

client = OpenAI(base_url=os.environ["DF_BASE_URL"], api_key=os.environ["DF_API_KEY"])
SCALES = {"qwen_3_vl": ("bbox_2d", 1000), "gemini_2_5": ("box_2d", 1000), "florence": ("box", 1)}


def from_vlm(
    family: str, reply: str, resolution_wh: tuple[int, int], classes: list[str]
) -> tuple[Any, list[str]]:
    """Boxes as an array of xyxy, and the class of each; none where the reply is no JSON."""
    key, scale = SCALES[family]
    fenced = re.search(r"```json(.*?)```", reply, re.DOTALL)
    try:
        items = json.loads(fenced.group(1) if fenced else reply)
    except json.JSONDecodeError:
        return numpy.empty((0, 4)), []
    items = [item for item in items if item.get("label") in classes]
    numbers = numpy.array([item[key] for item in items], dtype=float).reshape(-1, 4)
    if family.startswith("gemini"):
        numbers = numbers[:, [1, 0, 3, 2]]
    return numbers / scale * numpy.array([*resolution_wh] * 2), [item["label"] for item in items]


def ask(path: str, phrases: list[str]) -> str:
    with open(path, "rb") as file:
        url = "data:image/png;base64," + base64.b64encode(file.read()).decode()
    prompt = f"Detect {', '.join(phrases)}. Answer with a JSON list of bbox_2d and label."
    content: Any = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": prompt},
    ]
    reply = client.chat.completions.create(
        model=os.environ["DF_MODEL"], messages=[{"role": "user", "content": content}]
    )
    return reply.choices[0].message.content or ""


with open("rows.jsonl") as rows, open("out/boxes.jsonl", "w") as out:
    for line in rows:
        row = json.loads(line)
        path, phrases = row["image_path"], row["expressions"]
        with Image.open(path) as picture:
            size = picture.size
        xyxy, names = from_vlm("qwen_3_vl", ask(path, phrases), size, phrases)
        boxes = [
            {"label": name, "bbox": bbox} for name, bbox in zip(names, xyxy.tolist(), strict=True)
        ]
        out.write(json.dumps({"image_path": path, "boxes": boxes}) + "\n")
        out.flush()
