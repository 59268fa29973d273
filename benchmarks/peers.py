"""What a request costs us, and what it costs others: CPU time, memory and requests/s, in one run,
on one server.

    python -m benchmarks.peers [--install FOLDER] [--python CLIENT=PYTHON ...]

All send the same photographs (1280 by 960 pixels, 140 KB each on average, no two alike) with a
prompt of about the same size, 64 in flight at most, to one loopback server in a process of its own,
and write the boxes of the replies to a file of JSON lines. Ours is `generate` with phrase
grounding, which also checks boxes by probe pictures. The server answers these rightly; at another,
which has no box for them, checks end after two. The other clients are the scripts in
`benchmarks/peer_ways`, each in an environment of its own: --python says where one is, --install
makes those that are missing (with pip, in FOLDER). A client without an environment isn't measured,
and the table says so. Telemetry is switched off, and requests to other machines go to a proxy that
doesn't exist.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import bare_client, inputs, request_cost
from benchmarks.process import ServerProcess
from dataflow_grounding._util.version import __version__
from tests.support.measuring import Used, median, run, workplace

WARMING, FEW, MORE, ROUNDS = 20, 400, 800, 3
QUALITY = 87  # of JPEGs: 140 KB each on average
SCRIPTS = Path(__file__).parent / "peer_ways"
OURS, UNANSWERED = "dataflow-grounding", "dataflow-grounding, probes unanswered"
BY_HAND = {  # loops as people write them: their scripts, and the package whose version is shown
    "AsyncOpenAI loop": ("with_openai.py", "openai"),
    "threads + openai": ("with_threads.py", "openai"),
    "aiohttp loop that stores": ("with_aiohttp.py", "aiohttp"),
}
SETTINGS = {
    "OPENAI_API_KEY": "sk-test",
    "DF_API_KEY": "sk-test",
    "DO_NOT_TRACK": "1",
    "TELEMETRY_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "HTTPS_PROXY": "http://127.0.0.1:9",
}


@dataclass(frozen=True)
class Client:
    """`distribution` is the package whose version is shown; `installs` what pip is given, one call
    after the other.
    """

    name: str
    script: str
    distribution: str
    installs: tuple[tuple[str, ...], ...]


PEERS = (
    Client(
        "dataflow",
        "with_dataflow.py",
        "open-dataflow",
        (
            # the rest is for local models: see docs/dataflow.md
            ("--no-deps", "open-dataflow==1.0.13"),
            (
                "numpy<2",
                "pandas==2.3.3",
                "pyarrow==20.0.0",
                "colorlog",
                "rich",
                "requests",
                "openai",
                "tqdm",
            ),
        ),
    ),
    Client("inspect_ai", "with_inspect_ai.py", "inspect-ai", (("inspect-ai", "openai"),)),
    Client("distilabel", "with_distilabel.py", "distilabel", (("distilabel[openai]", "requests"),)),
    Client("curator", "with_curator.py", "bespokelabs-curator", (("bespokelabs-curator",),)),
)
Ask = Callable[[int], Used]
"""Runs a client with this many requests."""


class NotMeasured(Exception):
    """Raised with the reason where a client can't be run."""


@dataclass(frozen=True)
class Figures:
    """What a client took in one round, or the medians of all.

    Args:
        cpu_ms: CPU time a request, whole process; `further_ms`: of each request beyond the first.
        peak_mb: The largest of its processes.
        rate: Requests/s from the process's start to its end; `further_rate`: beyond the first.
        kilobytes: Of a request's body.
    """

    cpu_ms: float
    further_ms: float
    peak_mb: float
    rate: float
    further_rate: float
    kilobytes: float


def ask_with(
    python: str, script: str, job: Mapping[str, Any], pictures: Sequence[Path], folder: Path
) -> Used:
    """A script of `peer_ways` in a process of its own; raises RuntimeError where it fails or
    answers are missing.
    """
    folder.mkdir()
    file = folder / "job.json"
    rows = []
    for number, path in enumerate(pictures):
        phrases = [{"id": 1, "text": f"mug number {number}"}, {"id": 2, "text": "wooden table"}]
        given = {
            "task": "phrase_grounding",
            "image": {"width": 1280, "height": 960},
            "phrases": phrases,
        }
        prompt = f"{bare_client.INSTRUCTIONS}\n<input>{json.dumps(given)}</input>"
        rows.append({"image": str(path), "prompt": prompt})
    file.write_text(json.dumps({**job, "results": str(folder), "rows": rows}))
    used = run(
        [python, str(SCRIPTS / script), str(file)], settings={**SETTINGS, "HOME": str(folder)}
    )
    answered = len((folder / "annotations.jsonl").read_text().splitlines())
    if answered != len(pictures):
        raise RuntimeError(f"{script} left {answered} results for {len(pictures)} pictures")
    return used


def clients(
    pythons: Mapping[str, str],
    pictures: Sequence[Path],
    folder: Path,
    answering: ServerProcess,
    unanswering: ServerProcess,
) -> dict[str, tuple[Ask, ServerProcess]]:
    """Every client that can be run and the server that it asks, by the name that the table gives
    it: ours, loops by hand, and those with a Python.
    """
    job = {
        "base_url": answering.base_url,
        "model": "loopback",
        "in_flight": request_cost.IN_FLIGHT,
        "system": bare_client.SYSTEM,
        "schema": bare_client.SCHEMA,
    }
    turns = iter(range(1_000_000))

    def with_ours(server: ServerProcess) -> tuple[Ask, ServerProcess]:
        def ask(count: int) -> Used:
            name = f"ours-{next(turns)}"
            return request_cost.ours(folder, name, list(pictures[:count]), server.base_url)

        return ask, server

    def with_script(python: str, script: str) -> tuple[Ask, ServerProcess]:
        def ask(count: int) -> Used:
            own = folder / f"{script}-{next(turns)}"
            return ask_with(python, script, job, pictures[:count], own)

        return ask, answering

    asks = {OURS: with_ours(answering), UNANSWERED: with_ours(unanswering)}
    for name, (script, _) in BY_HAND.items():
        asks[name] = with_script(sys.executable, script)
    for peer in PEERS:
        if peer.name in pythons:
            asks[peer.name] = with_script(pythons[peer.name], peer.script)
    return asks


def one_round(ask: Ask, server: ServerProcess) -> Figures:
    """A client twice, with fewer requests and with more."""
    before = server.counts_so_far()
    few = ask(FEW)
    between = server.counts_so_far()
    more = ask(MORE)
    after = server.counts_so_far()
    # Between the two runs' counts are the further requests alone: what a client sends at its
    # start is in both.
    received = after["received"] - 2 * between["received"] + before["received"]
    sent = after["bytes_received"] - 2 * between["bytes_received"] + before["bytes_received"]
    return Figures(
        cpu_ms=few.cpu_s / FEW * 1000,
        further_ms=(more.cpu_s - few.cpu_s) / (MORE - FEW) * 1000,
        peak_mb=more.peak_mb,
        rate=MORE / more.wall_s,
        further_rate=(MORE - FEW) / (more.wall_s - few.wall_s),
        kilobytes=sent / received / 1000,
    )


def medians(rounds: Sequence[Figures]) -> Figures:
    """Each figure's own."""
    names = Figures.__dataclass_fields__
    return Figures(
        **{name: median([getattr(figures, name) for figures in rounds]) for name in names}
    )


def measure(pythons: Mapping[str, str]) -> tuple[dict[str, Figures], dict[str, str]]:
    """Figures by client, and why a client has none. The clients take turns, so that a busy minute
    is no one's alone.
    """
    rounds: dict[str, list[Figures]] = {}
    reasons = {peer.name: "no environment given" for peer in PEERS if peer.name not in pythons}
    with (
        workplace() as folder,
        ServerProcess(*request_cost.ANSWERING) as answering,
        ServerProcess(*request_cost.UNANSWERING) as unanswering,
    ):
        pictures = photographs(folder, MORE)
        asks = clients(pythons, pictures, folder, answering, unanswering)
        for turn in range(ROUNDS):
            for name, (ask, server) in asks.items():
                if name in reasons:
                    continue
                print(f"round {turn + 1} of {ROUNDS}: {name}", file=sys.stderr)
                try:
                    if turn == 0:
                        ask(WARMING)  # compiles what was just installed
                    rounds.setdefault(name, []).append(one_round(ask, server))
                except RuntimeError as error:
                    reasons[name] = str(error).strip().splitlines()[-1]
    return {
        name: medians(of_client) for name, of_client in rounds.items() if name not in reasons
    }, reasons


def photographs(folder: Path, count: int) -> list[Path]:
    """The example data's photos, enlarged.

    A comment segment after the start marker makes each file different.
    """
    from PIL import Image

    files = []
    for path in sorted(inputs.PHOTOS.glob("*.jpg")):
        file = io.BytesIO()
        enlarged = Image.open(path).convert("RGB").resize(inputs.SIZE, Image.Resampling.LANCZOS)
        enlarged.save(file, "JPEG", quality=QUALITY)
        files.append(file.getvalue())
    (folder / "pictures").mkdir()
    pictures = []
    for number in range(count):
        data = files[number % len(files)]
        pictures.append(folder / "pictures" / f"{number:06}.jpg")
        pictures[-1].write_bytes(data[:2] + b"\xff\xfe\x00\x0a%08d" % number + data[2:])
    return pictures


def version(python: str, distribution: str) -> str:
    """The version that this Python has of a package; raises NotMeasured where it has none."""
    command = [python, "-c", f"import importlib.metadata as m; print(m.version({distribution!r}))"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise NotMeasured(f"{python} has no {distribution}") from None


def install(peer: Client, folder: Path) -> str:
    """The Python of an environment with this client, made where the folder has none."""
    place = folder / peer.name
    python = place / "bin" / "python"
    if not python.exists():
        venv.create(place, with_pip=True)
        for packages in peer.installs:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    return str(python)


def table(
    figures: Mapping[str, Figures], versions: Mapping[str, str], reasons: Mapping[str, str]
) -> str:
    """The table as Markdown: last the clients that weren't measured, then who is ahead of ours."""
    heads = (
        "client",
        f"CPU ms a request, whole process of {FEW}",
        "each further request",
        "peak MB",
        f"requests/s, whole process of {MORE}",
        "further requests/s",
        "KB a request",
    )
    lines = [" | ".join(("", *heads, "")).strip(), "|---" * len(heads) + "|"]
    for name, of_client in figures.items():
        cells = [
            f"{name} {versions[name]}".strip(),
            f"{of_client.cpu_ms:.2f}",
            f"{of_client.further_ms:.2f}",
            f"{of_client.peak_mb:.0f}",
            f"{of_client.rate:.0f}",
            f"{of_client.further_rate:.0f}",
            f"{of_client.kilobytes:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        f"| {name} | not measured: {reason} |{' |' * (len(heads) - 2)}"
        for name, reason in reasons.items()
    ]
    return "\n".join([*lines, "", *ahead_of_ours(figures)])


def ahead_of_ours(figures: Mapping[str, Figures]) -> list[str]:
    """A line for each client that is better than ours in something."""
    ours = figures[OURS]
    lines = []
    for name, theirs in figures.items():
        if name == UNANSWERED:
            continue
        better = {
            "CPU time of the process": theirs.cpu_ms < ours.cpu_ms,
            "CPU time of further requests": theirs.further_ms < ours.further_ms,
            "memory": theirs.peak_mb < ours.peak_mb,
            "requests/s of the process": theirs.rate > ours.rate,
            "further requests/s": theirs.further_rate > ours.further_rate,
        }
        where = [what for what, is_better in better.items() if is_better]
        if where:
            lines.append(f"{name} is ahead of ours: {', '.join(where)}.")
    return lines or ["Ours is ahead of each in each."]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join(peer.name for peer in PEERS)
    parser.add_argument(
        "--python", action="append", default=[], metavar="CLIENT=PYTHON", help=f"CLIENT: {names}"
    )
    parser.add_argument(
        "--install", type=Path, metavar="FOLDER", help="make environments here for all others"
    )
    arguments = parser.parse_args()
    pythons = dict(given.split("=", 1) for given in arguments.python if "=" in given)
    unknown = pythons.keys() - {peer.name for peer in PEERS}
    if unknown or len(pythons) < len(arguments.python):
        parser.error(f"--python takes CLIENT=PYTHON, once a client; CLIENT is one of {names}")
    versions = {OURS: __version__, UNANSWERED: __version__}
    for name, (_, distribution) in BY_HAND.items():
        versions[name] = version(sys.executable, distribution)
    reasons = {}
    for peer in PEERS:
        try:
            if arguments.install and peer.name not in pythons:
                pythons[peer.name] = install(peer, arguments.install)
            if peer.name in pythons:
                versions[peer.name] = version(pythons[peer.name], peer.distribution)
        except (NotMeasured, subprocess.CalledProcessError) as error:
            pythons.pop(peer.name, None)
            reasons[peer.name] = str(error)
    began, load = time.strftime("%Y-%m-%d"), os.getloadavg()[0]
    figures, more_reasons = measure(pythons)
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {began}; medians of {ROUNDS}"
        f" rounds; load average {load:.1f} before, {os.getloadavg()[0]:.1f} after\n"
    )
    print(table(figures, versions, {**more_reasons, **reasons}))


if __name__ == "__main__":
    main()
