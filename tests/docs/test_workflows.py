"""The workflows run the README's own commands, and claim of other systems only what can be so."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.workplace import REPOSITORY, one_after_another

README = ".github/workflows/readme.yml"
MARKED = re.compile(r"^<!-- (\w+) -->\n```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
WITHOUT_POSIX = """\
import os, signal, sys
for module in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[module] = None
for owner, names in (
    (os, ("fork", "getuid", "killpg", "mkfifo", "pread", "sched_getaffinity", "sysconf")),
    (signal, ("SIGHUP", "SIGKILL", "SIGTSTP")),
):
    for name in names:
        vars(owner).pop(name, None)
"""
"""Takes away what Windows doesn't have, as far as that can be done elsewhere."""


def jobs(path: str) -> dict[str, Any]:
    workflow = yaml.safe_load((REPOSITORY / path).read_text(encoding="utf-8"))
    found = workflow["jobs"]
    assert isinstance(found, dict)
    return found


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def run_job(name: str, folder: Path, readme: str) -> subprocess.CompletedProcess[str]:
    """The command of a job, where the README is another one."""
    (folder / "README.md").write_text(readme, encoding="utf-8")
    shutil.copytree(REPOSITORY / ".ci", folder / ".ci")
    [command] = commands(jobs(README)[name])
    return subprocess.run(["bash", "-e", "-c", command], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["first", "tests"])
def test_a_marked_command_runs_as_the_readme_has_it_at_that_time(tmp_path: Path, name: str) -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert name in dict(MARKED.findall(text))
    other = MARKED.sub(lambda found: found[0].replace(found[2], f"echo {found[1]} > ran\n"), text)
    assert run_job(name, tmp_path, other).returncode == 0
    assert (tmp_path / "ran").read_text() == f"{name}\n"


@pytest.mark.slow
def test_the_quick_job_leaves_out_what_is_slow(tmp_path: Path) -> None:
    text = "# Another\n\n<!-- tests -->\n```bash\nprintf '%s\\n' of-the-readme\n```\n"
    done = run_job("quick", tmp_path, text)
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["of-the-readme", "-m", "not slow"]


@pytest.mark.parametrize("name", ["first", "tests", "quick"])
def test_a_readme_without_its_marks_fails_the_job(tmp_path: Path, name: str) -> None:
    done = run_job(name, tmp_path, "# Another\n")
    assert done.returncode != 0
    assert f"<!-- {'first' if name == 'first' else 'tests'} -->" in done.stderr


@pytest.mark.slow
def test_what_runs_on_windows_needs_nothing_of_posix(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "example_data", tmp_path / "example_data")
    _, script = commands(jobs(README)["windows"])
    lines = [line.split() for line in script.splitlines()]
    assert {line.pop(0) for line in lines} == {"dataflowgrounding"}
    ends = one_after_another(lines, first=WITHOUT_POSIX, cwd=tmp_path)
    for line, done in zip(lines, ends, strict=True):
        assert done.code == 0, (line, done)
