"""inspect_ai: an eval of one task without a scorer, its log as it is by default."""

from __future__ import annotations

from typing import Any

import job
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessageSystem,
    ChatMessageUser,
    ContentImage,
    ContentText,
    get_model,
)
from inspect_ai.solver import generate


def sample(number: int, row: dict[str, str], system: str) -> Sample:
    content = [ContentImage(image=row["image"]), ContentText(text=row["prompt"])]
    return Sample(
        id=number, input=[ChatMessageSystem(content=system), ChatMessageUser(content=content)]
    )


def ask_all(given: dict[str, Any]) -> list[str]:
    model = get_model(
        f"openai-api/loopback/{given['model']}", base_url=given["base_url"], api_key="sk-test"
    )
    samples = [sample(number, row, given["system"]) for number, row in enumerate(given["rows"])]
    at_once = given["in_flight"]
    [log] = eval(
        Task(dataset=samples, solver=generate()),
        model=model,
        display="none",
        log_dir=given["results"],
        max_connections=at_once,
        max_samples=at_once,
        temperature=0.7,
        max_tokens=4096,
    )
    return [
        answered.output.completion
        for answered in sorted(log.samples or [], key=lambda answered: answered.id)
    ]


if __name__ == "__main__":
    given = job.given()
    job.write(given, ask_all(given))
