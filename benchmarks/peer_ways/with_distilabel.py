"""distilabel: a pipeline of two steps, which read the pictures and ask, each in a process of its
own.
"""

import base64
from typing import Any

import job
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, StepInput, step
from distilabel.steps.tasks import TextGenerationWithImage


# No `from __future__ import annotations` in this file: distilabel looks for the hint `StepInput`
# itself.
@step(inputs=["path"], outputs=["image"])
def ReadPictures(inputs: StepInput) -> Any:
    for row in inputs:
        with open(row["path"], "rb") as file:
            row["image"] = base64.b64encode(file.read()).decode()
    yield inputs


def ask_all(given: dict[str, Any]) -> list[str]:
    rows = [
        {"number": number, "path": row["image"], "instruction": row["prompt"]}
        for number, row in enumerate(given["rows"])
    ]
    at_once = given["in_flight"]
    with Pipeline(cache_dir=given["results"]) as pipeline:
        model = OpenAILLM(
            model=given["model"],
            base_url=given["base_url"],
            api_key="sk-test",
            generation_kwargs={"temperature": 0.7, "max_new_tokens": 4096},
        )
        asked = TextGenerationWithImage(
            llm=model,
            image_type="base64",
            system_prompt=given["system"],
            input_batch_size=at_once,
            add_raw_input=False,
        )
        (
            LoadDataFromDicts(data=rows, batch_size=at_once)
            >> ReadPictures(input_batch_size=at_once)
            >> asked
        )
    answered = pipeline.run(use_cache=False)["default"]["train"].select_columns(
        ["number", "generation"]
    )
    return [row["generation"] for row in sorted(answered, key=lambda row: row["number"])]


if __name__ == "__main__":
    given = job.given()
    job.write(given, ask_all(given))
