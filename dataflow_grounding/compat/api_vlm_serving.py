"""Our servings behind DataFlow's operators, and DataFlow's `APIVLMServing_openai`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from dataflow_grounding.compat.prompted_vqa import PromptedVQAGenerator
from dataflow_grounding.errors import SpecError
from dataflow_grounding.serving.openai_compatible import OpenAIServing


class GeneratesFromInput:
    """What DataFlow's operators call of a serving, for a serving of ours: mixed in before it.

    Each input takes a request, retried and paced as everywhere; one that fails raises its GroundingError for the call.
    """

    def start_serving(self) -> None:
        """Nothing to start."""

    def cleanup(self) -> None:
        """Nothing to give back: connections are closed after each call."""

    def generate_from_input(
        self, user_inputs: Sequence[str], system_prompt: str = "Describe the image in detail.", **_: Any
    ) -> list[str]:
        """A text for each picture; `user_inputs` are their paths, `system_prompt` is asked of each."""
        return self.generate_from_input_one_image(user_inputs, [system_prompt] * len(user_inputs))

    def generate_from_input_one_image(
        self, image_paths: Sequence[str], text_prompts: Sequence[str], system_prompt: str = "", **_: Any
    ) -> list[str]:
        """A text for each picture and its prompt. Raises ValueError when there aren't as many of both."""
        if len(image_paths) != len(text_prompts):
            raise ValueError("image_paths and text_prompts should have the same length")
        asker = PromptedVQAGenerator(self, system_prompt)
        rows = [{"image": path, "prompt": text} for path, text in zip(image_paths, text_prompts, strict=True)]
        return [row["answer"] for row in asker(rows, on_error="raise")]


class APIVLMServing_openai(GeneratesFromInput, OpenAIServing):
    """OpenAIServing with the arguments of DataFlow's class of this name. Raises SpecError when the key is not set."""

    def __init__(
        self,
        api_url: str = "https://api.openai.com/v1",
        key_name_of_api_key: str = "DF_API_KEY",
        model_name: str = "o4-mini",
        max_workers: int = 10,
        timeout: int = 1800,
        image_io: Any = None,
        send_request_stream: bool = False,
        *,
        box_format: str = "auto",
    ) -> None:
        if image_io is not None:
            raise SpecError("image_io is not supported: pictures are read from their paths")
        if not os.environ.get(key_name_of_api_key):
            raise SpecError(f"no API key: set the environment variable {key_name_of_api_key}")
        super().__init__(
            api_url, model_name, key_name_of_api_key, max_workers, timeout, temperature=None, box_format=box_format
        )
        self.api_url, self.model_name = api_url, model_name
