"""The clients of benchmarks/peers.py that need no environment of their own."""

from pathlib import Path

import pytest

from benchmarks import peers
from benchmarks.process import ServerProcess
from benchmarks.request_cost import REPLY

pytestmark = pytest.mark.slow

PROBE_BYTES = 150_000  # of a request with a probe picture, at most


@pytest.mark.parametrize("loop", ["AsyncOpenAI loop", "aiohttp loop that stores"])
def test_ours_and_a_loop_by_hand_send_the_same_pictures(tmp_path: Path, loop: str) -> None:
    pictures = peers.photographs(tmp_path, 8)
    encoded = sum(path.stat().st_size for path in pictures) * 4 / 3
    with ServerProcess("--answers", "canned", "--text", REPLY) as server:
        asks = peers.clients({}, pictures, tmp_path, server.base_url)
        asks[peers.OURS](8)
        ours = server.counts_so_far()
        asks[loop](8)
        both = server.counts_so_far()
    # Canned replies say nothing of a probe picture, so ours asks a little more than once to check
    # the boxes' scale.
    assert ours["received"] in (9, 10, 11)
    assert both["received"] - ours["received"] == 8
    assert encoded < ours["bytes_received"] < encoded * 1.05 + 3 * PROBE_BYTES
    assert encoded < both["bytes_received"] - ours["bytes_received"] < encoded * 1.05


def test_where_ours_is_behind_is_said() -> None:
    ours = peers.Figures(
        cpu_ms=2, further_ms=1, peak_mb=100, rate=500, further_rate=800, kilobytes=190
    )
    loop = peers.Figures(
        cpu_ms=4, further_ms=2, peak_mb=90, rate=300, further_rate=400, kilobytes=190
    )
    text = peers.table(
        {peers.OURS: ours, "loop": loop}, {peers.OURS: "1.0", "loop": "2.0"}, {"other": "no pip"}
    )
    assert "| loop 2.0 | 4.00 | 2.00 | 90 | 300 | 400 | 190.0 |" in text
    assert "| other | not measured: no pip |" in text
    assert text.endswith("loop is ahead of ours: memory.")
