"""`dataflowgrounding bench`, for an endpoint that the environment names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.workplace import Done, command

KEY = "sk-of-the-bench"


def bench(server: Any, *arguments: str, model: str = "gemini-2.5-flash-lite") -> Done:
    """The command, as it asks a server; None is one where nobody listens."""
    environment = {
        "DF_BASE_URL": server.base_url if server else "http://127.0.0.1:9/v1",
        "DF_MODEL": model,
        "DF_API_KEY": KEY,
        "DF_BOX_FORMAT": "xyxy_1000",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return command(["bench", *arguments])
