"""A step like TAO's auto-label: four threads, a checkpoint for each picture by its name, failures
stored as having no instances, exit status 0 in any case.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from openai import OpenAI

client = OpenAI(base_url=os.environ["DF_BASE_URL"], api_key=os.environ["DF_API_KEY"])
checkpoints = Path("out/.ckpt")


def ask(path: str, phrases: list[str]) -> list[dict[str, Any]]:
    prompt = (
        f"Ground each phrase: {', '.join(phrases)}. Answer with a JSON list of bbox_2d"
        " ([x1, y1, x2, y2], 0-1000) and label."
    )
    content: Any = [{"type": "text", "text": prompt}]
    if os.path.exists(path):
        url = "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()
        content.insert(0, {"type": "image_url", "image_url": {"url": url}})
    reply = client.chat.completions.create(
        model=os.environ["DF_MODEL"], messages=[{"role": "user", "content": content}]
    )
    text = reply.choices[0].message.content or ""
    text = text.strip().removeprefix("```json").removesuffix("```")
    items: list[dict[str, Any]] = json.loads(text)
    return items


def ground(row: dict[str, Any]) -> dict[str, Any]:
    checkpoint = checkpoints / (Path(row["image_path"]).stem + ".json")
    if checkpoint.exists():
        stored: dict[str, Any] = json.loads(checkpoint.read_text())
        return stored
    boxes = []
    try:
        width, height = row.get("width", 1920), row.get("height", 1080)
        for item in ask(row["image_path"], row["expressions"]):
            x1, y1, x2, y2 = item["bbox_2d"]
            bbox = [x1 * width / 1000, y1 * height / 1000, x2 * width / 1000, y2 * height / 1000]
            boxes.append({"label": item["label"], "bbox": bbox, "score": item.get("score", 0.9)})
    except Exception as error:
        logging.warning("%s: %s", row["image_path"], error)
        boxes = []
    result = {"image_path": row["image_path"], "boxes": boxes}
    checkpoint.write_text(json.dumps(result))
    return result


checkpoints.mkdir(exist_ok=True)
rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
with ThreadPoolExecutor(4) as pool:
    results = list(pool.map(ground, rows))
with open("out/boxes.jsonl", "w") as out:
    for result in results:
        out.write(json.dumps(result) + "\n")
