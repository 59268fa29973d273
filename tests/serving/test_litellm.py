"""Behind LiteLLM's own proxy: plain, a cache, a fallback. What else a gateway does is played by
`stand_ins/gateway.py`, in tests/engine.

`LITELLM` names its command, as in `LITELLM=/opt/litellm/bin/litellm`; without it these skip. It has
an environment of its own, as it pins what others need in other versions.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from tests.support.waiting import wait_until
from tests.support.workplace import Workplace

LITELLM = os.environ.get("LITELLM", "")
KEY = "sk-loopback-0123456789abcdef"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LITELLM, reason="LITELLM doesn't name LiteLLM's command"),
]


@dataclass
class Proxy:
    """LiteLLM, and what is behind it."""

    base_url: str
    model: LoopbackServer
    unsure: LoopbackServer

    def settings(self, model: str, **settings: Any) -> dict[str, Any]:
        return {
            "vlm.openai.base_url": self.base_url,
            "vlm.openai.api_key": KEY,
            "vlm.openai.model_name": model,
            **settings,
        }


def unsure() -> Any:
    """Answers each question with another box each time."""
    asked = Counter[str]()

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        phrases = request.input.get("phrases")
        if phrases is None:
            return EchoAnswers()(request)  # type: ignore[return-value]
        x, y = divmod(asked[request.text] % 49, 7)
        asked[request.text] += 1
        box = [9 * x, 6 * y, 9 * x + 5, 6 * y + 4]
        objects = [{"id": each["id"], "label": each["text"], "bbox_2d": box} for each in phrases]
        return {"objects": objects}

    return answers


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("litellm")
    with LoopbackServer(EchoAnswers()) as model, LoopbackServer(unsure()) as never_sure:
        behind = {
            "m": model.base_url,
            "unsure": never_sure.base_url,
            "falls": f"http://127.0.0.1:{_free_port()}/v1",
        }
        models = []
        for name, url in behind.items():
            of_it = {"model": f"openai/{name}-behind", "api_base": url, "api_key": "x"}
            models.append({"model_name": name, "litellm_params": of_it})
        config = {
            "model_list": models,
            "litellm_settings": {
                "cache": True,
                "cache_params": {"type": "local"},
                "fallbacks": [{"falls": ["m"]}],
            },
            "general_settings": {"master_key": KEY},
        }
        (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
        port = _free_port()
        line = [LITELLM, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
        env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
        env.pop("PYTHONPATH", None)
        with (folder / "log").open("wb") as log:
            running = subprocess.Popen(line, cwd=folder, env=env, stdout=log, stderr=log)
        try:
            wait_until(lambda: _is_up(port) or running.poll() is not None)
            assert running.poll() is None, (folder / "log").read_text()[-2000:]
            yield Proxy(f"http://127.0.0.1:{port}/v1", model, never_sure)
        finally:
            running.terminate()
            running.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2):
            return True
    except OSError:
        return False


def statuses(place: Workplace) -> list[tuple[str, Any]]:
    found = []
    for row in place.annotations():
        for expression in row["expressions"]:
            found.append((expression["status"], expression.get("disagreement")))
    return found


def test_a_plain_run_has_the_records_that_it_has_directly(
    proxy: Proxy, workplace: Workplace
) -> None:
    workplace.many(20)
    done = workplace.run(**proxy.settings("m"))
    assert done.code == 0, done
    assert done.summary["kept_replies"] == 0
    through = workplace.annotations()
    direct = Workplace(workplace.folder / "direct", **workplace.settings)
    direct.many(20)
    assert direct.run(**{"vlm.openai.base_url": proxy.model.base_url}).code == 0
    for row in direct.annotations():
        assert row["expressions"] == through.pop(0)["expressions"]


def test_samples_through_its_cache_are_as_sure_as_directly(
    proxy: Proxy, workplace: Workplace
) -> None:
    found = {}
    for name, settings in {
        "direct": {"vlm.openai.base_url": proxy.unsure.base_url},
        "through": proxy.settings("unsure"),
        "again": proxy.settings("unsure"),
    }.items():
        place = Workplace(workplace.folder / name, **workplace.settings)
        place.many(20)
        done = place.run(**settings, **{"workflow.samples": 3})
        assert done.code == 0, done
        assert done.summary["repeated_replies"] == 0
        found[name] = statuses(place)
    assert set(found["direct"]) == {("ambiguous", True)}
    assert found["through"] == found["again"] == found["direct"]


def test_a_fallback_is_said_and_counted(proxy: Proxy, workplace: Workplace) -> None:
    workplace.many(3)
    done = workplace.run(**proxy.settings("falls"))
    assert done.code == 0, done
    assert done.err.count("(fallback) answers at") == 1
    [(name, count)] = done.summary["answered_by"].items()
    assert name.endswith("(fallback)")
    assert count == done.summary["answered"]
    off = {"vlm.openai.extra_body": {"disable_fallbacks": True}}
    assert workplace.run(**proxy.settings("falls"), **off).code == 4
