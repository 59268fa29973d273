"""How long a run takes with pictures in an object store that answers after 30 ms, against pictures
on this disk.

python -m benchmarks.remote_pictures [--pictures 300] [--delay 0.03]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support.object_store import BUCKET, object_store
from tests.support.workplace import Workplace, caption


def serve(delay: float) -> None:
    """A store in a process of its own, until its standard input ends; says where it is."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with object_store() as store:
        sys.stdout.write(store.environment["AWS_ENDPOINT_URL"] + " " + store.direct.geturl() + "\n")
        sys.stdout.flush()
        sys.stdin.readline()
        store.delay = delay
        sys.stdin.read()
        sys.stderr.write(
            f"asked: GET {store.count('GET')}, HEAD {store.count('HEAD')}; most at once"
            f" {store.most_at_once}\n"
        )


def compare(pictures: int, delay: float, latency: float) -> None:
    """The seconds of each run."""
    child = [
        sys.executable,
        "-m",
        "benchmarks.remote_pictures",
        "--serve",
        "--delay",
        str(delay),
    ]
    with subprocess.Popen(
        child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        address, direct = process.stdout.readline().split()
        os.environ |= {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
        }
        os.environ |= {"AWS_DEFAULT_REGION": "us-east-1"}
        import boto3

        client = boto3.client("s3", endpoint_url=direct)
        with (
            LoopbackServer(EchoAnswers(), latency=latency) as server,
            tempfile.TemporaryDirectory() as folder,
        ):
            place = Workplace(
                Path(folder) / "work", server.base_url, **{"workflow.max_workers": 16}
            )
            for n in range(pictures):
                name = place.picture(f"{n}.jpg", size=(640, 480 + n % 7))
                client.put_object(Bucket=BUCKET, Key=name, Body=(place.folder / name).read_bytes())
            place.rows({"image_path": f"{n}.jpg", "caption": caption(n)} for n in range(pictures))
            process.stdin.write("\n")
            process.stdin.flush()
            for where in (str(place.folder), f"s3://{BUCKET}"):
                place.results = place.folder / f"results{len(where)}"
                out, err = place.start(**{"data.image_root": where}).communicate()
                summary = json.loads(out)
                sys.stdout.write(f"{where}: {summary['seconds']} s, {summary['done']} done\n{err}")
        process.stdin.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--delay", type=float, default=0.03)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--serve", action="store_true")
    given = parser.parse_args()
    serve(given.delay) if given.serve else compare(given.pictures, given.delay, given.latency)


if __name__ == "__main__":
    main()
