"""Threads, requests, base64 and a regular expression: a question for each phrase, three tries, all
written at the end.
"""

from __future__ import annotations

import base64
import json
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import requests

BOX = re.compile(r"\[\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*,\s*([\d.]+)\s*\]")


def ask(path: str, phrase: str) -> list[float] | None:
    for _ in range(3):
        try:
            with open(path, "rb") as file:
                url = "data:image/png;base64," + base64.b64encode(file.read()).decode()
            prompt = f"Give the bounding box of {phrase} as [x1, y1, x2, y2] in pixels."
            content = [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": prompt},
            ]
            reply = requests.post(
                os.environ["DF_BASE_URL"] + "/chat/completions",
                headers={"Authorization": "Bearer " + os.environ["DF_API_KEY"]},
                json={
                    "model": os.environ["DF_MODEL"],
                    "messages": [{"role": "user", "content": content}],
                },
                timeout=60,
            )
            reply.raise_for_status()
            match = BOX.search(reply.json()["choices"][0]["message"]["content"])
            return [float(number) for number in match.groups()] if match else None
        except Exception as error:
            print(f"{path}: {error}")
            time.sleep(0.5)
    return None


def ground(row: dict[str, list[str]]) -> dict[str, object]:
    boxes = []
    for phrase in row["expressions"]:
        bbox = ask(str(row["image_path"]), phrase)
        if bbox:
            boxes.append({"label": phrase, "bbox": bbox})
    return {"image_path": row["image_path"], "boxes": boxes}


with open("rows.jsonl") as file:
    rows = [json.loads(line) for line in file]
with ThreadPoolExecutor(4) as pool:
    results = list(pool.map(ground, rows))
with open("out/boxes.jsonl", "w") as out:
    for result in results:
        out.write(json.dumps(result) + "\n")
