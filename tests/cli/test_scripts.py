"""Scripts end as the command line does: one line for an error or Ctrl-C, and its exit codes."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from dataflow_grounding.testing import FaultRule, LoopbackServer, on
from tests.support import faults
from tests.support.forking import Forked
from tests.support.waiting import wait_until
from tests.support.workplace import REPOSITORY, Done, ended

pytestmark = pytest.mark.slow

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
[MINE] = [
    block
    for block in re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
    if "(Pipeline)" in block
]
SCRIPTS = {
    path.name: path.read_text(encoding="utf-8")
    for path in (REPOSITORY / "api_pipelines").glob("*.py")
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "example_data").symlink_to(REPOSITORY / "example_data")
    (tmp_path / "api_pipelines").mkdir()
    for name, text in {**SCRIPTS, "mine.py": MINE}.items():
        (tmp_path / "api_pipelines" / name).write_text(text, encoding="utf-8")
    return tmp_path


def started(folder: Path, name: str, **environment: str) -> Forked:
    script = str(folder / "api_pipelines" / name)
    run = f"import runpy, sys; runpy.run_path({script!r}, run_name='__main__'); sys.exit(0)"
    whole = {"PATH": os.environ["PATH"], "HOME": str(folder), "DF_BOX_FORMAT": "xyxy_px"}
    return Forked([], folder, {**whole, **environment}, first=run)


@pytest.mark.sampled
@pytest.mark.parametrize("name", ["mine.py", *SCRIPTS])
def test_ctrl_c_says_in_a_line_how_to_go_on(
    folder: Path, server: LoopbackServer, name: str
) -> None:
    server.latency = 1
    running = started(folder, name, DF_BASE_URL=server.base_url, DF_MODEL="loopback")
    wait_until(lambda: server.count() >= 2, running)
    running.send_signal(signal.SIGINT)
    done = ended(running)
    kept = "interrupted: every reply so far is kept. Run the same command again to go on"
    assert (done.code, done.err) == (130, f"Error: {kept}\n"), done


@pytest.mark.sampled
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_have_the_exit_codes_of_generate(
    folder: Path, server: LoopbackServer, name: str
) -> None:
    def ran(**environment: str) -> Done:
        return ended(started(folder, name, **environment))

    server.key = "sk-right-one"
    refused = ran(DF_BASE_URL=server.base_url, DF_MODEL="loopback", DF_API_KEY="sk-wrong-one")
    assert (refused.code, refused.err.count("\n")) == (4, 1), refused
    assert "Check the API key" in refused.err
    unnamed = ran(DF_BASE_URL=server.base_url)
    assert (unnamed.code, unnamed.err) == (
        2,
        "Error: no model is named: set model_name, or DF_MODEL in the environment\n",
    )
    assert ran().code == 0


@pytest.mark.parametrize(
    ("name", "rules", "code", "failed"),
    [
        pytest.param("mine.py", [on(faults.refusal())], 4, 10, id="all fail"),
        pytest.param("mine.py", [on(faults.refusal(), containing="astronaut")], 1, 1, id="one"),
        pytest.param("image_grounding_api_pipeline.py", [], 0, 0, id="none fails"),
    ],
)
def test_scripts_end_with_what_became_of_their_records(
    folder: Path, server: LoopbackServer, name: str, rules: list[FaultRule], code: int, failed: int
) -> None:
    server.faults = rules
    done = ended(started(folder, name, DF_BASE_URL=server.base_url, DF_MODEL="loopback"))
    assert done.code == code, done
    assert f"{10 - failed} done, {failed} failed" in done.out


AGAIN = """
from dataflow_grounding import CaptionGenerator, FileStorage, as_command, serving_from_environment
from dataflow_grounding.engine.options import RunOptions, current_options
from dataflow_grounding.engine.plan import holding

with as_command():
    step = FileStorage("example_data/captions.jsonl", "cache", "mine").step()
    captions = CaptionGenerator(serving_from_environment())
    captions.run(step, output_caption_key="said", output_cleaned_caption_key="cleaned")
    if {again}:
        with holding(current_options, RunOptions(retry_failed=True)):
            captions.run(step, output_caption_key="said", output_cleaned_caption_key="cleaned")
"""


@pytest.mark.parametrize(("again", "code"), [(False, 1), (True, 0)])
def test_a_run_of_an_operator_counts_and_one_done_again_replaces_it(
    folder: Path, server: LoopbackServer, again: bool, code: int
) -> None:
    (folder / "api_pipelines" / "again.py").write_text(AGAIN.format(again=again))
    server.faults = on(faults.refusal(), times=1)
    done = ended(started(folder, "again.py", DF_BASE_URL=server.base_url, DF_MODEL="loopback"))
    assert done.code == code, done


@pytest.mark.parametrize("name", ["image_grounding_step1.jsonl", "image_grounding_failures.jsonl"])
def test_what_another_program_left_is_not_written_over(folder: Path, name: str) -> None:
    place = folder / "cache" / "image_grounding" / name
    place.parent.mkdir(parents=True)
    place.write_text("precious\n", encoding="utf-8")
    done = ended(started(folder, "image_grounding_api_pipeline.py"))
    assert (done.code, done.err.count("\n")) == (2, 1), done
    assert f"{name} was not made by a run here" in done.err
    assert place.read_text(encoding="utf-8") == "precious\n"
