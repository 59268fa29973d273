"""What probe pictures prove of the replies between them."""

from __future__ import annotations

import pytest

from dataflow_grounding.engine.summary import most_in_another_format, what_probes_prove


@pytest.mark.parametrize(
    ("as_asked", "cleared", "share"), [(300, 0, 0.01), (95, 5, 0.105), (1, 0, 2.996)]
)
def test_the_bound_is_that_of_a_poisson_count(as_asked: int, cleared: int, share: float) -> None:
    assert most_in_another_format(as_asked, cleared) == pytest.approx(share, abs=5e-4)


def test_a_bound_is_said_once_it_tells_something() -> None:
    assert what_probes_prove(12) == "no check of the box format failed"
    assert what_probes_prove(150).endswith(
        "at most 2% of the replies can be in another format (95%)"
    )
