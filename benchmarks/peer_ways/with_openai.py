"""What people write by hand: AsyncOpenAI, a semaphore, a gather."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import job
from openai import AsyncOpenAI


async def ask_all(given: dict[str, Any]) -> list[str]:
    client = AsyncOpenAI(base_url=given["base_url"])
    places = asyncio.Semaphore(given["in_flight"])
    form = {"name": "phrase_grounding", "strict": True, "schema": given["schema"]}

    async def ask(row: dict[str, str]) -> str:
        async with places:
            with open(row["image"], "rb") as file:
                url = "data:image/jpeg;base64," + base64.b64encode(file.read()).decode()
            content: Any = [
                {"type": "image_url", "image_url": {"url": url}},
                {"type": "text", "text": row["prompt"]},
            ]
            reply = await client.chat.completions.create(
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

    return await asyncio.gather(*map(ask, given["rows"]))


if __name__ == "__main__":
    given = job.given()
    job.write(given, asyncio.run(ask_all(given)))
