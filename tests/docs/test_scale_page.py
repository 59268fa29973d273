"""The scripts of the page on scale, as they stand, each as processes of their own."""

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

from tests.docs.test_pages_run import blocks, of_a_stranger
from tests.support.forking import Forked
from tests.support.store import environment, faulty_store
from tests.support.workplace import HANGING, REPOSITORY

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / "docs" / "scale.md"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `init` writes, and what one machine leaves of it."""
    folder = tmp_path_factory.mktemp("begun") / "work"
    folder.mkdir()
    run("dataflowgrounding init .", folder)
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


def run(script: str, folder: Path, command: str = ASKS, **environment: str) -> None:
    """A script in bash; each of its commands is a process of its own."""
    env = of_a_stranger(folder.parent / "home") | environment
    place = folder.parent / "bin" / "dataflowgrounding"
    asked, answered = Path(f"{place}.asked"), Path(f"{place}.answered")
    place.parent.mkdir(exist_ok=True)
    place.write_text(command)
    place.chmod(0o755)
    for pipe in (asked, answered):
        if not pipe.exists():
            os.mkfifo(pipe)
    said = []

    def answer() -> None:
        while line := asked.read_text():
            current, *arguments = line.splitlines()
            one = Forked(arguments, Path(current), env)
            said.extend(one.communicate(timeout=HANGING))
            answered.write_text(f"{one.returncode}\n")

    answering = Thread(target=answer, daemon=True)
    answering.start()
    path = f"{place.parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=folder,
        env={**env, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANGING,
    )
    asked.write_text("")
    answering.join()
    assert done.returncode == 0, (done.stdout, *said)


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
        boto3.client("s3").create_bucket(Bucket="bucket")
        run(scripts()[1], work, **environment(store))
        for one in boto3.client("s3").list_objects_v2(Bucket="bucket")["Contents"]:
            path = work / one["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            boto3.client("s3").download_file("bucket", one["Key"], str(path))
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
    assert "--engine ray" in scripts()[5]
    own = f"PYTHONPATH={REPOSITORY} exec {sys.executable} -m dataflow_grounding"
    run(scripts()[5], work, f'#!/bin/bash\n{own} "$@"\n')
    same(work)
