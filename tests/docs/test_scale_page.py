"""The scripts of the page on scale, as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
import yaml

from tests.docs.test_pages_run import of_a_stranger
from tests.support.pages import blocks
from tests.support.store import environment, faulty_store
from tests.support.workplace import HANGING, REPOSITORY, command

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / "docs" / "scale.md"
ROWS = 4  # one for each shard of the page


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `init` writes, with fewer rows, and what one machine leaves of it."""
    folder = tmp_path_factory.mktemp("begun") / "work"
    folder.mkdir()
    run("dataflowgrounding init .", folder)
    captions = folder / "example_data" / "captions.jsonl"
    rows = captions.read_text("utf-8").splitlines(keepends=True)
    captions.write_text("".join(rows[:ROWS]), encoding="utf-8")
    run(
        "dataflowgrounding generate -e image_grounding.yaml results_dir=alone --no-progress", folder
    )
    return folder


@pytest.fixture
def work(begun: Path, tmp_path: Path) -> Path:
    """A copy of it for each test."""
    return Path(shutil.copytree(begun, tmp_path / "work"))


ASKS = """#!/bin/bash
printf '%s\\n' "$PWD" "$@" > "$0.asked"
read -r code < "$0.answered"
exit "$code"
"""
"""In place of the command: it hands its arguments to the test and ends as the test says."""


def run(script: str, folder: Path, **environment: str) -> None:
    """A script in bash; its commands run in this process, one after another."""
    env = of_a_stranger(folder.parent / "home") | environment
    place = folder.parent / "bin" / "dataflowgrounding"
    asked, answered = Path(f"{place}.asked"), Path(f"{place}.answered")
    if not place.exists():
        place.parent.mkdir()
        place.write_text(ASKS)
        place.chmod(0o755)
        os.mkfifo(asked)
        os.mkfifo(answered)
    with (folder.parent / "said").open("w") as said:
        bash = subprocess.Popen(
            ["bash", "-ec", script],
            cwd=folder,
            env={**env, "PATH": f"{place.parent}{os.pathsep}{env['PATH']}"},
            stdout=said,
            stderr=said,
        )

    def wait() -> None:
        bash.wait()
        asked.write_text("")

    waiting = Thread(target=wait, daemon=True)
    waiting.start()
    told = []
    while line := asked.read_text():
        current, *arguments = line.splitlines()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(current)
            for name in {*os.environ} - {*env}:
                patch.delenv(name)
            for name, value in env.items():
                patch.setenv(name, value)
            told.append(command(arguments))
        answered.write_text(f"{told[-1].code}\n")
    waiting.join()
    assert bash.returncode == 0, ((folder.parent / "said").read_text(), *told)


def same(work: Path) -> None:
    names = [
        path.relative_to(work / "alone") for path in (work / "alone").rglob("annotations.jsonl")
    ]
    assert len(names) == 3
    for name in names:
        assert (work / "results" / name).read_bytes() == (work / "alone" / name).read_bytes(), name


def scripts() -> list[str]:
    return [text for _, text in blocks(PAGE, "bash")]


def test_shards(work: Path) -> None:
    run(scripts()[0], work)
    same(work)


def test_a_bucket(work: Path) -> None:
    import boto3

    with faulty_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(store).items():
            patch.setenv(name, value)
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="bucket")
        run(scripts()[1], work, **environment(store))
        keys = [one["Key"] for one in s3.list_objects_v2(Bucket="bucket")["Contents"]]
        for key in keys:
            if key.endswith("/annotations.jsonl") and "/shards/" not in key:
                (work / key).parent.mkdir(parents=True, exist_ok=True)
                (work / key).write_bytes(s3.get_object(Bucket="bucket", Key=key)["Body"].read())
    same(work)


def test_slurm(work: Path) -> None:
    array, merge = scripts()[2:4]
    found = re.search(r"--array=1-(\d+)", array)
    assert found
    for number in range(1, int(found[1]) + 1):
        run(array, work, SLURM_ARRAY_TASK_ID=str(number))
    run(merge, work)
    same(work)


def test_kubernetes(work: Path) -> None:
    [text] = [text for _, text in blocks(PAGE, "yaml") if "kind: Job" in text]
    job = yaml.safe_load(text)["spec"]
    container = job["template"]["spec"]["containers"][0]
    assert container["command"] == ["bash", "-c"]
    for index in range(job["completions"]):
        run(container["args"][0], work, JOB_COMPLETION_INDEX=str(index))
    run(scripts()[3], work)
    same(work)


def test_two_laptops(work: Path) -> None:
    run(scripts()[4], work)
    same(work)
    shutil.rmtree(work / "second")


def test_ray(work: Path) -> None:
    [script] = [script for script in scripts() if "--engine ray" in script]
    own = f'dataflowgrounding() {{ {sys.executable} -m dataflow_grounding "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-ec", own + script],
        cwd=work,
        env={**of_a_stranger(work.parent / "home"), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANGING,
    )
    assert done.returncode == 0, done.stdout
    same(work)
