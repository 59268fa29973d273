"""What people write by hand without asyncio: openai's client and a pool of threads."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import job
from openai import OpenAI


def ask_all(given: dict[str, Any]) -> list[str]:
    client = OpenAI(base_url=given["base_url"])
    form = {"name": "phrase_grounding", "strict": True, "schema": given["schema"]}

    def ask(row: dict[str, str]) -> str:
        with open(row["image"], "rb") as file:
            url = "data:image/jpeg;base64," + base64.b64encode(file.read()).decode()
        content: Any = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": row["prompt"]},
        ]
        reply = client.chat.completions.create(
            model=given["model"],
            messages=[
                {"role": "system", "content": given["system"]},
                {"role": "user", "content": content},
            ],
            response_format={"type": "json_schema", "json_schema": form},
            temperature=0.7,
            max_tokens=4096,
        )
        return reply.choices[0].message.content or ""

    with ThreadPoolExecutor(given["in_flight"]) as pool:
        return list(pool.map(ask, given["rows"]))


if __name__ == "__main__":
    given = job.given()
    job.write(given, ask_all(given))
