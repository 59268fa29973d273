"""Inputs made from public bug reports, with the outcome that is right; where they are at hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import read_boxes
from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.faults import Fault
from tests.support.workplace import Workplace

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases" / "cases.jsonl"
Case = dict[str, Any]
# Which of two answers counts is said in words of English: docs/replies.md refuses these.
TWO_ANSWERS = ("r06b", "h07")


def cases(*kinds: str) -> list[Any]:
    if not CASES.is_file():
        return [pytest.param({}, marks=pytest.mark.skip(reason="the cases are not here"))]
    rows = [json.loads(line) for line in CASES.open(encoding="utf-8")]
    return [pytest.param(row, id=row["id"]) for row in rows if row["kind"] in kinds]


@pytest.mark.parametrize("case", cases("reply"))
def test_a_reply(case: Case) -> None:
    asked = case["input"]
    right = case["right"]

    def read() -> Any:
        return read_boxes(
            asked["reply"],
            format=asked["format"],
            phrases=asked["phrases"],
            image_size=asked["image_size"],
        )

    if right.get("unreadable") or case["id"] in TWO_ANSWERS:
        with pytest.raises(UnreadableReply):
            read()
        return
    reading = read()
    if right.get("doubtful"):
        assert reading.doubtful
    else:
        boxes = [[box.id, *(round(edge, 6) for edge in box.bbox)] for box in reading.boxes]
        assert boxes == right["boxes"]


def strikes(case: Case) -> Callable[[ReceivedRequest], bool]:
    """Which requests a case's `when` means."""
    when = case["input"]["when"]
    groundings = 0

    def strike(request: ReceivedRequest) -> bool:
        nonlocal groundings
        is_grounding = request.task == "phrase_grounding"
        groundings += is_grounding
        if when == "every request":
            return True
        if "json_schema" in when:
            return bool(
                (request.settings.get("response_format") or {}).get("type") == "json_schema"
            )
        if when == "every grounding request":
            return is_grounding
        numbers = [int(number) for number in re.findall(r"\d+", when)] or [3, 3]
        return is_grounding and numbers[0] <= groundings <= numbers[1]

    return strike


def streamed(text: str) -> str:
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": {"role": "assistant"}}]}]
    for start in range(0, len(text), 7):
        delta = {"content": text[start : start + 7]}
        chunks.append({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"])


def fault_of(case: Case, request: ReceivedRequest) -> Fault:
    given = case["input"]
    answer = json.dumps(EchoAnswers("xyxy_px")(request))
    headers = given.get("headers") or {}
    if given["body"] == "§SSE§":
        body = streamed(answer)
    else:
        body = json.dumps(given["body"], ensure_ascii=False)
        body = body.replace("§ANSWER§", json.dumps(answer)[1:-1])
    return Fault(given["status"], body=body.encode(), headers=headers)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases("http", "gemini"))
def test_an_answer(workplace: Workplace, case: Case) -> None:
    if case.get("id") == "h19":
        pytest.skip("a finding of lint: tests/evaluation/figures/test_lint.py")
    workplace.many(80 if case["id"] == "h20" else 10)
    strike = strikes(case)

    def rule(request: ReceivedRequest) -> Fault | None:
        return fault_of(case, request) if strike(request) else None

    with LoopbackServer(faults=[rule]) as server:
        settings: dict[str, Any] = {"vlm.openai.base_url": server.base_url}
        if case["kind"] == "gemini":
            del workplace.settings["vlm.openai.base_url"]
            settings = {
                "vlm.backend": "gemini",
                "vlm.gemini.api_key": "none",
                "vlm.gemini.base_url": server.address,
            }
        done = workplace.run(**settings)
        sent = len(server.requests)
    right = case["right"]
    if case["id"] in TWO_ANSWERS:
        assert (done.code, "none of 30 replies" in done.err) == (4, True), done
    elif right.startswith(("all ten records", "tries json_object")):
        assert done.code == 0, done
        assert done.summary["done"] == 10
    elif right.startswith("refused"):
        assert done.summary["failures"] == {"refused": 1}, done
    elif right.startswith("a run none of whose"):
        assert (done.code, 8 <= sent <= 50) == (4, True), done
    else:  # it stops and says it
        assert (done.code, sent <= 10) == (4, True), done
        assert "image input" in done.err or "maximum context" in done.err
