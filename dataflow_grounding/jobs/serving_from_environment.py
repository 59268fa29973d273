"""The serving that the environment names, for scripts that should run with and without a key."""

from __future__ import annotations

import os

from dataflow_grounding.env_files import read_env_files
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.terminal import say


def serving_from_environment(max_workers: int = 16, timeout: float = 60) -> Serving:
    """The endpoint of `DF_BASE_URL`, `DF_MODEL` and `DF_API_KEY`; without any, the embedded grounder, and says so.

    Names that aren't set are taken from a `.env` file in the current folder. `DF_BOX_FORMAT` states the model's box
    format where it isn't known by name. Raises SpecError when the model isn't named.
    """
    read_env_files()
    environment = os.environ
    if not any(environment.get(name) for name in ("DF_API_KEY", "DF_BASE_URL", "DF_MODEL")):
        from dataflow_grounding.embedded import EmbeddedServing

        say(
            "No DF_API_KEY, DF_BASE_URL or DF_MODEL set: running on the embedded OpenCV grounder, which is not a VLM. "
            "It finds faces, people by their faces, sky, greenery, clearly coloured things and drawn shapes; other "
            "phrases get status unsupported."
        )
        return EmbeddedServing()
    from dataflow_grounding.serving.openai_compatible import OpenAIServing

    return OpenAIServing(
        api_url=environment.get("DF_BASE_URL"),
        model_name=environment.get("DF_MODEL", ""),
        box_format=environment.get("DF_BOX_FORMAT", "auto"),
        max_workers=max_workers,
        timeout=timeout,
    )
