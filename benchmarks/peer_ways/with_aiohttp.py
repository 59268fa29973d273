"""Thirty lines of aiohttp that store each reply before it is read, and skip what is stored."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from typing import Any

import aiohttp
import job


def body_of(given: dict[str, Any], row: dict[str, str]) -> bytes:
    with open(row["image"], "rb") as file:
        url = "data:image/jpeg;base64," + base64.b64encode(file.read()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": row["prompt"]},
    ]
    form = {"name": "phrase_grounding", "strict": True, "schema": given["schema"]}
    message = {
        "model": given["model"],
        "messages": [
            {"role": "system", "content": given["system"]},
            {"role": "user", "content": content},
        ],
        "response_format": {"type": "json_schema", "json_schema": form},
        "temperature": 0.7,
        "max_tokens": 4096,
    }
    return json.dumps(message).encode()


async def ask_all(given: dict[str, Any]) -> list[str]:
    stored: dict[str, str] = {}
    places = asyncio.Semaphore(given["in_flight"])
    store = os.open(f"{given['results']}/replies.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    headers = {"Authorization": "Bearer sk-test", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def ask(row: dict[str, str]) -> str:
            async with places:
                body = body_of(given, row)
                key = hashlib.sha256(body).hexdigest()
                if key not in stored:
                    url = f"{given['base_url']}/chat/completions"
                    async with session.post(url, data=body) as reply:
                        reply.raise_for_status()
                        answer = await reply.json()
                    text: str = answer["choices"][0]["message"]["content"]
                    os.write(store, json.dumps({"key": key, "reply": text}).encode() + b"\n")
                    stored[key] = text
                return stored[key]

        return await asyncio.gather(*map(ask, given["rows"]))


if __name__ == "__main__":
    given = job.given()
    job.write(given, asyncio.run(ask_all(given)))
