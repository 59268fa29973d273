"""What an endpoint's level makes of refusals that come late."""

from __future__ import annotations

from dataflow_grounding.engine.limiter import Level, Sent


def grow(level: Level, places: int) -> None:
    while level.places < places:
        answered(level, level.send())


def answered(level: Level, sent: Sent) -> None:
    level.note_answer()
    level.answered(sent)


def test_a_refusal_at_a_probe_is_not_counted_with_a_flight_of_long_ago() -> None:
    level = Level(most=1000)
    grow(level, 100)
    for number in [level.send() for _ in range(14)]:
        level.refused(number, in_flight=100)
    assert level.places == 85  # cut once for the flight, of which 86 were accepted
    while level.places <= level.found.places:
        before_probe = level.send()
        answered(level, before_probe)
    probed = level.places
    level.refused(before_probe, in_flight=probed)
    assert level.places == probed  # it was sent before the probe, and tells nothing of it
    level.refused(level.send(), in_flight=probed)
    assert level.places == probed - 1  # back to where the probe began


def test_refusals_of_one_flight_are_counted_together() -> None:
    level = Level(most=1000)
    grow(level, 100)
    numbers = [level.send() for _ in range(100)]
    for number in numbers[:30]:
        level.refused(number, in_flight=100)
    assert level.places == 70
