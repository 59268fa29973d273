"""`python -m dataflow_grounding.testing`: the loopback server by itself, to try things
without a key; until Ctrl-C.
"""

import argparse
import signal
import time
from contextlib import suppress

from dataflow_grounding.data.records import JsonObject
from dataflow_grounding.testing import Answers, EchoAnswers, LoopbackServer, ReceivedRequest
from dataflow_grounding.testing.received import BadRequest


class _WithText:
    """EchoAnswers, and `text` for every task that they don't know."""

    reads = EchoAnswers.reads

    def __init__(self, box_format: str, text: str) -> None:
        self._shipped = EchoAnswers(box_format)
        self._text = text

    def __call__(self, request: ReceivedRequest) -> JsonObject | str:
        try:
            return self._shipped(request)
        except BadRequest:
            return self._text


def main() -> None:
    """Print the base URL and serve until told to stop."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    answers: Answers = EchoAnswers(arguments.box_format)
    if arguments.text is not None:
        answers = _WithText(arguments.box_format, arguments.text)
    server = LoopbackServer(
        answers,
        latency=arguments.latency,
        key=arguments.key,
        port=arguments.port,
        record=False,
    )
    with suppress(KeyboardInterrupt), server:
        print(server.base_url, flush=True)
        while True:
            # a library's thread may have got the signal, which doesn't wake this one
            time.sleep(0.1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dataflow_grounding.testing", description=__doc__
    )
    parser.add_argument(
        "--text",
        help="the reply to tasks of your own, which are refused without it; the shipped ones have"
        " invented, valid answers",
    )
    parser.add_argument(
        "--box-format",
        default="auto",
        help="how boxes are written (default: as by the model that is asked for)",
    )
    parser.add_argument(
        "--latency", type=float, default=0.0, help="seconds that a reply takes (default: 0)"
    )
    parser.add_argument("--key", help="the only API key that is accepted (default: any)")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    return parser


if __name__ == "__main__":
    main()
