"""The serving that the environment names, for scripts that should run with and without a key."""

from dataflow_grounding.env_files import read_env_files
from dataflow_grounding.jobs.serving_of_spec import serving_of
from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import VlmBlock, WorkflowBlock
from dataflow_grounding.spec.environment import with_environment
from dataflow_grounding.spec.schema import GeminiBlock, OpenAIBlock


def serving_from_environment(max_workers: int = 16, timeout: float = 60) -> Serving:
    """The endpoint that the environment names, as a spec with `vlm.backend: auto` has it; else the embedded grounder.

    Args:
        max_workers: Most requests in flight.
        timeout: Seconds, for one request.

    Returns:
        With `DF_BASE_URL` or `DF_API_KEY`: the OpenAI-compatible endpoint, with the model `DF_MODEL`. With `DF_MODEL`
        alone: Gemini or OpenAI, by `GOOGLE_API_KEY` or `OPENAI_API_KEY`. Without these: the embedded grounder, which
        says so when it first answers. `DF_BOX_FORMAT` states the model's box format where it isn't known by name.
        Names that aren't set are taken from a `.env` file in the current folder.

    Raises:
        SpecError: The model isn't named.
    """
    read_env_files()
    vlm = VlmBlock(backend="auto", openai=OpenAIBlock(timeout=timeout), gemini=GeminiBlock(timeout=timeout))
    return serving_of(with_environment(vlm), WorkflowBlock(steps=[], max_workers=max_workers))
