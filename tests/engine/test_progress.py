"""The progress line on a real terminal: as wide as it has room for, also when that changes; the
rate is that of late.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
from collections.abc import Iterator

import pytest

from dataflow_grounding.engine import progress
from dataflow_grounding.testing import LoopbackServer
from tests.support.workplace import Running, Workplace, caption, command, process

pytestmark = pytest.mark.slow

OVER = "\r\x1b[K"


class Terminal:
    """A pseudo-terminal; `text` is what was written to it."""

    def __init__(self, columns: int) -> None:
        self.side, self.theirs = pty.openpty()
        self.resize(columns)
        self.text = ""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read_while(self, running: Running, narrow: int | None = None) -> None:
        """Read what a process prints; `narrow` columns once it has said what time is left."""
        while running.poll() is None or select.select([self.side], [], [], 0)[0]:
            if select.select([self.side], [], [], 0.1)[0]:
                self.text += os.read(self.side, 4096).decode()
            if narrow is not None and " s left" in self.text:
                self.resize(narrow)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal(70)
    yield made
    os.close(made.side)
    os.close(made.theirs)


def lines_of(text: str) -> list[str]:
    """What stood on the progress line, one after the other."""
    return [line for line in text.split(OVER)[1:] if " records" in line]


def watched(
    workplace: Workplace, terminal: Terminal, server: LoopbackServer, narrow: int | None = None
) -> str:
    """What a run prints on the terminal."""
    spec = str(
        workplace.spec(**{"vlm.openai.base_url": server.base_url, "workflow.max_workers": 2})
    )
    # what is printed on standard error goes to the terminal
    opened = f"os.open({os.ttyname(terminal.theirs)!r}, os.O_RDWR | os.O_NOCTTY)"
    running = process(
        ["generate", "-e", spec, "--json"],
        env={"TERM": "xterm"},
        first=f"import os; os.dup2({opened}, 2)",
    )
    terminal.read_while(running, narrow)
    running.communicate()
    assert running.returncode == 0, terminal.text
    return terminal.text


def test_the_line_fits_the_terminal_also_when_it_is_resized(
    workplace: Workplace, terminal: Terminal
) -> None:
    workplace.many(20)
    with LoopbackServer(latency=0.25) as server:
        text = watched(workplace, terminal, server, narrow=34)
    lines = lines_of(text)
    wide = r"expression_extraction \+ grounding: \d+/20 records, \d+\.\d/s, \d+ s left"
    assert any(re.fullmatch(wide, line) for line in lines)
    assert max(map(len, lines)) < 70
    assert re.fullmatch(r"\d+/20 records, \d+\.\d/s, \d+ s left", lines[-1])
    assert "records" not in text.split(OVER)[-1], "it is taken away at the end"
    assert ", 0.0/s" not in text


def test_on_a_resume_the_time_left_is_told_when_it_is_known_and_what_was_stored_at_80_columns(
    workplace: Workplace, terminal: Terminal
) -> None:
    terminal.resize(80)
    latency = 0.0
    with LoopbackServer(latency=lambda _: latency) as server:
        workplace.many(30)
        assert workplace.run(**{"vlm.openai.base_url": server.base_url}).code == 0
        workplace.many(46)
        latency = 0.3
        lines = lines_of(watched(workplace, terminal, server))
    told = [line for line in lines if " left" in line]
    assert told
    for line in told:
        numbers = re.search(r"\b(\d+)/46 records, (\d+\.\d)/s, (\d+) s left, 30 stored", line)
        assert numbers, line
        done, rate, left = int(numbers[1]), float(numbers[2]), int(numbers[3])
        # two requests at once, two a record, 0.3 s each; those that were stored took no time
        assert rate < 5, line
        assert (46 - done) / (rate + 0.05) - 1 < left < (46 - done) / (rate - 0.05) + 1, line


def test_a_line_of_columns_is_no_record(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workplace.picture("a.jpg")
    lines = ["image_path,caption", *(f"a.jpg,{caption(number)}" for number in range(6))]
    workplace.input = workplace.folder / "rows.csv"
    workplace.input.write_text("\n".join(lines))
    monkeypatch.setattr(progress, "LINE_EVERY", 0.1)
    with LoopbackServer(latency=0.15) as server:
        arguments = workplace.arguments(
            **{"vlm.openai.base_url": server.base_url, "workflow.max_workers": 2}
        )
        arguments.remove("--no-progress")
        said = command(arguments).err
    assert set(re.findall(r"/(\d+) records", said)) == {"6"}, said
