"""`python -m dataflow_grounding.testing`: the loopback server by itself, until SIGTERM or Ctrl-C; then its counts."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
from pathlib import Path

from dataflow_grounding.testing.answers import Answers, CannedAnswers, EchoAnswers
from dataflow_grounding.testing.gold import GoldAnswers
from dataflow_grounding.testing.pacing import Latency, TokenBucket, lognormal
from dataflow_grounding.testing.server import LoopbackServer


def main() -> None:
    """Serve until told to stop."""
    arguments = parser().parse_args()
    stop = {signal.SIGTERM, signal.SIGINT}
    # Blocked before the server's thread begins, so that no thread but this one takes them.
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    latency: Latency = (
        lognormal(arguments.latency, arguments.sigma, arguments.seed) if arguments.sigma else arguments.latency
    )
    server = LoopbackServer(
        answers(arguments),
        latency=latency,
        capacity=arguments.capacity,
        rate=TokenBucket(arguments.rate) if arguments.rate else None,
        key=arguments.key,
        record=False,
        port=arguments.port,
    )
    with server:
        print(server.base_url, flush=True)
        if arguments.port_file:
            write_whole(arguments.port_file, str(server.port))
        signal.sigwait(stop)
        used = resource.getrusage(resource.RUSAGE_SELF)
        counts = {
            **server.statistics(),
            "cpu_s": round(used.ru_utime + used.ru_stime, 3),
            "peak_rss_kb": used.ru_maxrss,
        }
        if arguments.stats_file:
            write_whole(arguments.stats_file, json.dumps(counts, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m dataflow_grounding.testing", description=__doc__)
    add = parser.add_argument
    add(
        "--answers", choices=("echo", "canned"), default="echo", help="canned throws bodies away unread (default: echo)"
    )
    add("--text", help="the text that canned answers give")
    add("--gold", type=Path, help="answer from this JSONL file of annotated records")
    add("--image-root", type=Path, help="where the gold's images lie")
    add("--box-format", default="xyxy_px", help="how boxes are written (default: xyxy_px)")
    add("--latency", type=float, default=0.0, help="seconds, the mean where --sigma is given")
    add("--sigma", type=float, default=0.0, help="shape of log-normal latencies")
    add("--seed", type=int, default=0, help="of the latencies")
    add("--capacity", type=int, help="answer 429 when so many are being served")
    add("--rate", type=float, help="answer 429 above so many requests a second")
    add("--key", help="the only key that is taken")
    add("--port", type=int, default=0, help="0 takes a free one")
    add("--port-file", type=Path, help="written once the server listens")
    add("--stats-file", type=Path, help="written at the end, as JSON")
    return parser


def answers(arguments: argparse.Namespace) -> Answers:
    """The answers that the arguments ask for."""
    if arguments.gold:
        return GoldAnswers(arguments.gold, box_format=arguments.box_format, image_root=arguments.image_root)
    if arguments.answers == "canned":
        return CannedAnswers(arguments.text) if arguments.text else CannedAnswers()
    return EchoAnswers(arguments.box_format)


def write_whole(path: Path, text: str) -> None:
    """Write so that a reader finds the whole file or none."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(text)
    os.replace(beside, path)


if __name__ == "__main__":
    main()
