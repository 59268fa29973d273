"""What goes wrong at an endpoint is the same error after as many requests, whichever client sends."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataflow_grounding import ExpressionExtractor, OpenAIServing
from dataflow_grounding._util.errors import (
    EndpointRefused,
    GroundingError,
    NoCompletion,
    NoCredit,
    RequestRefused,
    ServerFault,
    TruncatedReply,
    UnreadableReply,
)
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.serving import OpenAISdkServing
from dataflow_grounding.serving.http_errors import error_of
from dataflow_grounding.testing import LoopbackServer, on
from dataflow_grounding.testing.faults import Fault
from tests.support import faults
from tests.support.endpoint import Serves

KEY = "sk-7f3a-very-secret-key"
ENDLESS = ("hang", "drip")


def pinned_to_another() -> Fault:
    detail = "Server is pinned to 'a/B'; requested 'loopback'."
    return Fault(400, body=json.dumps({"detail": detail}).encode())


AT = "AT answered"
NO_COMPLETION = "AT answered something that is not a chat completion: "
# The fault, the error that it means, how many requests are sent where max_attempts is 2, and how
# the message begins, with AT for the endpoint.
FAULTS: dict[str, tuple[Fault, type[GroundingError], int, str]] = {
    "401": (faults.unauthorized(), EndpointRefused, 1, f"{AT} 401: Incorrect API key provided. (key: Bearer ***)"),
    "403": (faults.forbidden(), EndpointRefused, 1, f"{AT} 403: You are not allowed"),
    "404": (faults.model_not_found(), EndpointRefused, 1, f"{AT} 404: The model does not exist"),
    # `transformers serve MODEL`, asked for another model (cli/serving/utils.py)
    "pinned": (pinned_to_another(), EndpointRefused, 1, f"{AT} 400: Server is pinned to 'a/B'; requested 'loopback'. "),
    "no credit": (faults.quota_exceeded(), NoCredit, 1, f"{AT} 429: You exceeded"),
    "400 with the key": (faults.bad_request(f"this: {KEY}"), RequestRefused, 3, f"{AT} 400: this: *** (key: Bearer ***)"),
    "content filter": (faults.content_filter(), RequestRefused, 1, f"{AT} 400: The response was filtered"),
    "refusal": (faults.refusal("I can't."), RequestRefused, 1, "I can't."),
    "500": (faults.server_error(500), ServerFault, 2, f"{AT} 500: The server had an error"),
    "504": (faults.server_error(504), ServerFault, 2, f"{AT} 504: The server had an error"),
    "502 with a page": (faults.html_error(502), ServerFault, 2, f"{AT} 502"),
    "redirect": (Fault(302, headers={"Location": "/elsewhere"}), EndpointRefused, 1, f"{AT} 302: (key: Bearer ***)"),
    "hang": (faults.hang(), ServerFault, 2, "AT did not answer within 0.6 s"),
    "drip": (faults.slow_drip(50), ServerFault, 2, "AT did not answer within 0.6 s"),
    "disconnect": (faults.disconnect(), ServerFault, 2, "AT: the answer broke off: "),
    "cut body": (faults.cut_body(0.6), ServerFault, 2, "AT: the answer broke off: "),
    "garbage": (faults.garbage(), NoCompletion, 2, f"{NO_COMPLETION}'\ufffd"),
    "empty": (faults.empty_body(), NoCompletion, 2, f"{NO_COMPLETION}''"),
    "JSON that breaks off": (faults.invalid_json(), NoCompletion, 2, NO_COMPLETION + "'{\"choices\":"),
    "JSON of another shape": (faults.odd_json("[]"), NoCompletion, 2, f"{NO_COMPLETION}'[]'"),
    "odd JSON with the key": (faults.odd_json(f'{{"error": "{KEY}"}}'), ServerFault, 2, f"{AT} 500 inside a 200: ***"),
    "unreadable": (faults.says("no"), UnreadableReply, 2, "there is no JSON in the reply: it begins 'no'"),
    "truncated": (faults.truncated(0.3), TruncatedReply, 2, "the reply was cut off at the token limit."),
}  # fmt: skip
# OpenAI's client raises an exception of its own for any answer but a success, and where no answer
# comes. It would also retry after 429 and 500, follow redirects, and restart its time limit with
# each byte. It passes every other answer on unread, so those are played directly alone.
OF_THE_SDK = (
    *("401", "no credit", "500", "502 with a page", "redirect"),
    *("hang", "drip", "disconnect", "cut body", "garbage"),
)
# A client of one's own has its own key, retries and time limit.
OF_A_CLIENT_OF_ONES_OWN = ("401", "500", "hang")
PLAYED = [
    *(("direct", fault) for fault in FAULTS),
    *(("sdk", fault) for fault in OF_THE_SDK),
    *(("own", fault) for fault in OF_A_CLIENT_OF_ONES_OWN),
]


def serving_by(client: str, server: LoopbackServer, timeout: float) -> OpenAIServing:
    if client == "own":
        import openai  # half a second, which whoever only collects tests needn't wait

        own = openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY)
        return OpenAIServing(model_name="loopback", client=own, timeout=timeout)
    kind = {"direct": OpenAIServing, "sdk": OpenAISdkServing}[client]
    return kind(server.base_url, "loopback", api_key=KEY, timeout=timeout, box_format="xyxy_px")


@pytest.mark.slow
@pytest.mark.parametrize(("client", "name"), PLAYED)
def test_a_fault_is_the_same_error_after_as_many_requests(
    row: dict[str, Any], serves: Serves, client: str, name: str
) -> None:
    fault, kind, sent, message = FAULTS[name]
    server = serves(faults=faults.leaky(on(fault)), key=KEY)
    # What never ends is waited for as long; nothing else may meet so short a timeout.
    timeout = 0.6 if name in ENDLESS else 60
    with holding(current_options, RunOptions(max_attempts=2)), pytest.raises(kind) as caught:
        ExpressionExtractor(serving_by(client, server, timeout))(row)
    said = str(caught.value)
    endpoints = f"{server.base_url} (loopback)", f"{server.base_url}/chat/completions"
    assert said.replace(endpoints[0], "AT").replace(endpoints[1], "AT").startswith(message)
    assert KEY not in said
    assert "\n" not in said
    assert (type(caught.value), server.count()) == (kind, sent)
    assert getattr(caught.value, "certain", True)


def test_a_code_that_repeats_the_status_is_said_once() -> None:
    """A gateway hands on the status of the server in its charge as the code, in a text."""
    body = b'{"error": {"message": "down for now", "code": "503"}}'
    assert str(error_of(503, {}, body, where="here")) == "here answered 503: down for now"
