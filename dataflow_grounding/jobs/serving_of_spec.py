"""The serving that a spec's `vlm` block names."""

from __future__ import annotations

from dataflow_grounding.serving.base import Serving
from dataflow_grounding.spec import VlmBlock, WorkflowBlock


def serving_of(vlm: VlmBlock, workflow: WorkflowBlock) -> Serving:
    """The serving that `vlm` names. Raises SpecError."""
    serving = _backend(vlm, workflow)
    serving.box_formats = tuple(vlm.box_formats)
    return serving


def _backend(vlm: VlmBlock, workflow: WorkflowBlock) -> Serving:
    if vlm.backend == "embedded":
        from dataflow_grounding.embedded import EmbeddedServing

        return EmbeddedServing()
    if vlm.backend == "gemini":
        from dataflow_grounding.serving.gemini import GeminiServing

        gemini = vlm.gemini
        return GeminiServing(
            gemini.model,
            workflow.max_workers,
            gemini.timeout,
            api_key=gemini.api_key or None,
            base_url=gemini.base_url or None,
            media_resolution=gemini.media_resolution,
            temperature=gemini.temperature,
            max_output_tokens=gemini.max_output_tokens,
            box_format=vlm.box_format,
        )
    from dataflow_grounding.serving.openai_compatible import OpenAIServing

    block = vlm.openai
    return OpenAIServing(
        api_url=block.base_url or None,
        model_name=block.model_name,
        key_name_of_api_key="OPENAI_API_KEY",
        max_workers=workflow.max_workers,
        timeout=block.timeout,
        api_key=block.api_key or None,
        temperature=block.temperature,
        max_tokens=block.max_tokens,
        box_format=vlm.box_format,
        extra_body=block.extra_body,
        extra_headers=block.extra_headers,
    )
