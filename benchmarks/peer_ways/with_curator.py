"""bespokelabs-curator: an LLM of its own with a picture in its prompt."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

# curator counts tokens with an encoding that it would fetch; litellm, which it is installed with,
# ships the file.
litellm = importlib.util.find_spec("litellm")
assert litellm is not None
os.environ["TIKTOKEN_CACHE_DIR"] = str(
    Path(str(litellm.origin)).parent / "litellm_core_utils" / "tokenizers"
)

import job  # noqa: E402
from bespokelabs import curator  # noqa: E402


class Grounder(curator.LLM):
    def prompt(self, row: dict[str, Any]) -> Any:
        return row["prompt"], curator.types.Image(url=row["image"])

    def parse(self, row: dict[str, Any], reply: str) -> dict[str, Any]:
        return {"number": row["number"], "objects": json.loads(reply)["objects"]}


def ask_all(given: dict[str, Any]) -> list[str]:
    grounder = Grounder(
        model_name=given["model"],
        backend="openai",
        generation_params={"temperature": 0.7, "max_tokens": 4096},
        backend_params={
            "base_url": given["base_url"],
            "api_key": "sk-test",
            "max_concurrent_requests": given["in_flight"],
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 100_000_000_000,
        },
    )
    # Its system_prompt fails with a picture (0.1.31), so both texts are one.
    rows = [
        {"number": number, "image": row["image"], "prompt": f"{given['system']}\n{row['prompt']}"}
        for number, row in enumerate(given["rows"])
    ]
    answered = sorted(
        grounder(rows, working_dir=given["results"]).dataset, key=lambda row: row["number"]
    )
    return [json.dumps({"objects": row["objects"]}) for row in answered]


if __name__ == "__main__":
    given = job.given()
    job.write(given, ask_all(given))
