"""Token counts as an endpoint claims them: no matter what they are, the run ends, and later ones and
`cost` read its folder.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from dataflow_grounding.engine.reply_line import usage_of
from dataflow_grounding.serving.serving import Reply, Usage
from dataflow_grounding.testing import Answer, EchoAnswers, ReceivedRequest
from tests.support.endpoint import Serves, endpoint_of
from tests.support.workplace import Workplace, command

pytestmark = pytest.mark.slow

HUGE = 10**400
MOST_TOKENS = 10**9
CLAIMS: dict[str, tuple[Any, Any, Any]] = {
    "huge": (HUGE, HUGE, HUGE),
    "above the bound": (MOST_TOKENS + 1, 0, 0),
    "less than nothing": (-5, -(10**30), -5),
    "less than nothing cached": (100, -HUGE, 20),
    "more cached than sent": (100, 200, 20),
    "of other kinds": (True, 1.5, "7"),
}


def test_no_claim_of_an_endpoint_spoils_a_folder(workplace: Workplace, serves: Serves) -> None:
    claims = [*CLAIMS.values()]
    workplace.many(len(claims))
    count = 2 * len(claims)
    echo = EchoAnswers("xyxy_px")

    def claiming(request: ReceivedRequest) -> Answer:
        """Each claim in a reply of each step."""
        claim = claims[request.index % len(claims)]
        return Answer(json.dumps(echo(request)), usage=_Claimed(*claim))

    server = serves(claiming)
    settings = {"vlm.openai.base_url": server.base_url, "vlm.prices": {"input": 1, "output": 1}}
    for _ in range(2):
        done = workplace.run(**settings)
        assert done.code == 0, done
        assert server.count() == count
    paid = command(["cost", str(workplace.results), "--json"]).summary
    assert paid["requests"] == count
    # of the claims that are numbers of tokens, each made twice
    assert paid["tokens"] == {"input": 400, "cached": 200, "output": 80}
    assert paid["cost_usd"] is None, "of the other replies nobody knows what they cost"
    assert command(["report", str(workplace.results)]).code == 0


def test_tokens_that_no_reply_reports_cost_nobody_knows_what(
    workplace: Workplace, serves: Serves
) -> None:
    workplace.many(2)
    echo = EchoAnswers("xyxy_px")
    server = serves(lambda request: Answer(json.dumps(echo(request)), usage=Usage()))
    settings = {"vlm.openai.base_url": server.base_url, "vlm.prices": {"input": 1, "output": 1}}
    assert workplace.run(**settings).code == 0
    done = command(["cost", str(workplace.results)])
    assert "total: 4 replies, tokens not reported\n" in done.out, done
    assert "0.0000" not in done.out


class _Claimed(Usage):
    """A claim as the loopback server adds it up."""

    def __init__(self, sent: Any, cached: Any, written: Any) -> None:
        for name, count in zip(
            ("input_tokens", "cached_tokens", "output_tokens"), (sent, cached, written), strict=True
        ):
            object.__setattr__(self, name, _Count(count) if isinstance(count, str) else count)


class _Count(str):
    """A text that stands where a number should; a sum with it is a text, too."""

    def __radd__(self, other: Any) -> str:
        return f"{other}{self}"


def test_a_folder_with_such_counts_is_read(workplace: Workplace) -> None:
    workplace.many(len(CLAIMS))
    count = 2 * len(CLAIMS)
    with endpoint_of(workplace) as server:
        assert workplace.run().code == 0
        lines = [json.loads(line) for line in workplace.replies.read_text().splitlines()]
        claims = itertools.cycle(CLAIMS.values())
        for line in lines:
            line |= {"usage": list(next(claims))} if "usage" in line else {}
        workplace.replies.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert workplace.run("--retry-failed").code == 0
        assert workplace.run(**{"workflow.output_format": "both"}).code == 0
        assert command(["estimate", "-e", str(workplace.spec())]).code == 0
        assert server.count() == count
    assert command(["cost", str(workplace.results), "--json"]).summary["requests"] == count


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_a_serving_of_the_users_own_is_no_other_door(claim: Any) -> None:
    counts = [*vars(Reply("text", usage=Usage(*claim)).usage).values()]
    assert counts == [*vars(usage_of({"usage": [*claim]})).values()]
    assert all(type(count) is int and 0 <= count <= MOST_TOKENS for count in counts)
    assert counts[1] <= counts[0]
