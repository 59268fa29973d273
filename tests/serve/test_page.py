"""The example of docs/serve.md is what `serve` answers."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.support.served import Served
from tests.support.workplace import REPOSITORY

pytestmark = pytest.mark.slow


def test_the_pages_request_has_the_pages_answer(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "serve.md").read_text()
    [request] = re.findall(r"^curl .*?(?=^```)", page, re.DOTALL | re.MULTILINE)
    [answer] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    body = json.loads(shlex.split(request)[-1])
    with Served(tmp_path, "--root", str(REPOSITORY / "example_data" / "images")) as served:
        assert served.post("/ground", body).body == json.loads(answer)
