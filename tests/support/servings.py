"""Every serving that sends over the network, as a spec names it: what holds for one should hold for
all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dataflow_grounding.serving import (
    GeminiServing,
    OpenAISdkServing,
    OpenAIServing,
    Serving,
    SeveralEndpoints,
)

KEY = "sk-7f3a-nobody-elses-key-4711"
HEADER = "gateway-token-99887766-nobodys"
VERSION = "2024-10-21"
_DEPLOYMENT = f"openai/deployments/loopback?api-version={VERSION}"

Kind = Callable[[str], dict[str, Any]]
"""Of an address without a path, the settings of a spec that asks there with KEY, and HEADER where
it takes headers.
"""


def _openai(**given: Any) -> dict[str, Any]:
    named = {"base_url": "", "api_key": KEY, "extra_headers": {"X-Gateway-Token": HEADER}, **given}
    return {f"vlm.openai.{name}": value for name, value in named.items()}


def _gemini(address: str) -> dict[str, Any]:
    return {"vlm.backend": "gemini", "vlm.gemini.api_key": KEY, "vlm.gemini.base_url": address}


KINDS: dict[str, tuple[type[Serving], Kind]] = {
    "direct": (OpenAIServing, lambda at: _openai(base_url=f"{at}/v1")),
    "sdk": (OpenAISdkServing, lambda at: _openai(base_url=f"{at}/v1", client="sdk")),
    "azure": (
        OpenAIServing,
        lambda at: _openai(base_url=f"{at}/{_DEPLOYMENT}", extra_headers={"api-key": KEY}),
    ),
    "several": (SeveralEndpoints, lambda at: _openai(endpoints=[f"{at}/v1"])),
    "gemini": (GeminiServing, _gemini),
}


def secrets_in(text: str) -> list[str]:
    """Which of the secrets that the settings hold a text tells."""
    return [secret for secret in (KEY, HEADER) if secret in text]
