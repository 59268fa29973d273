"""The scripts of the page on scale, as they stand, each as processes of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.docs.test_pages_run import blocks, of_a_stranger
from tests.support.store import environment, faulty_store
from tests.support.workplace import HANGING, REPOSITORY

pytestmark = pytest.mark.slow

PAGE = REPOSITORY / "docs" / "scale.md"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `init` writes, and what one machine leaves of it."""
    folder = tmp_path_factory.mktemp("begun") / "work"
    ended([start("dataflowgrounding init .", folder)])
    ended(
        [
            start(
                "dataflowgrounding generate -e image_grounding.yaml results_dir=alone --no-progress",
                folder,
            )
        ]
    )
    return folder


@pytest.fixture
def work(begun: Path, tmp_path: Path) -> Path:
    """A copy of it for each test."""
    return Path(shutil.copytree(begun, tmp_path / "work"))


def start(script: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    env = of_a_stranger(folder.parent / "home") | environment
    command = folder.parent / "bin" / "dataflowgrounding"
    if not command.exists():
        command.parent.mkdir()
        command.write_text(
            f'#!/bin/bash\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m dataflow_grounding "$@"\n'
        )
        command.chmod(0o755)
    env["PATH"] = f"{command.parent}{os.pathsep}{env['PATH']}"
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(["bash", "-ec", script], cwd=folder, env=env, **piped)  # type: ignore[call-overload,no-any-return]


def ended(running: list[subprocess.Popen[str]]) -> None:
    for one in running:
        out, _ = one.communicate(timeout=HANGING)
        assert one.returncode == 0, out


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
    ended([start(scripts()[0], work)])
    same(work)


def test_a_bucket(work: Path) -> None:
    import boto3

    with faulty_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(store).items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        ended([start(scripts()[1], work, **environment(store))])
        for one in boto3.client("s3").list_objects_v2(Bucket="bucket")["Contents"]:
            path = work / one["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            boto3.client("s3").download_file("bucket", one["Key"], str(path))
    same(work)


def test_slurm(work: Path) -> None:
    array, merge = scripts()[2:4]
    found = re.search(r"--array=1-(\d+)", array)
    assert found
    tasks = range(1, int(found[1]) + 1)
    ended([start(array, work, SLURM_ARRAY_TASK_ID=str(number)) for number in tasks])
    ended([start(merge, work)])
    same(work)


def test_kubernetes(work: Path) -> None:
    [text] = [text for _, text in blocks(PAGE, "yaml") if "kind: Job" in text]
    job = yaml.safe_load(text)["spec"]
    container = job["template"]["spec"]["containers"][0]
    assert container["command"] == ["bash", "-c"]
    indices = range(job["completions"])
    ended([start(container["args"][0], work, JOB_COMPLETION_INDEX=str(index)) for index in indices])
    ended([start(scripts()[3], work)])
    same(work)


def test_two_laptops(work: Path) -> None:
    ended([start(scripts()[4], work)])
    same(work)
    shutil.rmtree(work / "second")


def test_ray(work: Path) -> None:
    assert "--engine ray" in scripts()[5]
    ended([start(scripts()[5], work)])
    same(work)
