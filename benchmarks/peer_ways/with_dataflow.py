"""DataFlow's serving for pictures: threads, one synchronous client."""

from __future__ import annotations

import sys
import types

import dataflow
import job

# Its serving package imports PyTorch, vLLM and more for local models; only the API's serving is
# wanted here.
servings = types.ModuleType("dataflow.serving")
servings.__path__ = [f"{dataflow.__path__[0]}/serving"]
sys.modules["dataflow.serving"] = servings

from dataflow.serving.api_vlm_serving_openai import APIVLMServing_openai  # noqa: E402

if __name__ == "__main__":
    given = job.given()
    serving = APIVLMServing_openai(
        api_url=given["base_url"],
        model_name=given["model"],
        max_workers=given["in_flight"],
        temperature=0.7,
    )
    replies = serving.generate_from_input_one_image(
        [row["image"] for row in given["rows"]],
        [row["prompt"] for row in given["rows"]],
        system_prompt=given["system"],
        json_schema=given["schema"],
    )
    job.write(given, replies)
