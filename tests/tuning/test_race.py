import random

import pytest

from dataflow_grounding.extras.tuning.race import Race


def run(race: Race, accuracy: dict[str, float], seed: int = 0, phrases: int = 6) -> Race:
    chance = random.Random(seed)
    while race.round:
        for picture in race.round.pictures:
            for way in race.round.ways:
                right = sum(chance.random() < accuracy[way] for _ in range(phrases))
                race.tell(way, picture, right / phrases)
        race.judge()
    return race


def test_default_stays_where_all_are_the_same():
    for seed in range(20):
        race = Race("a", ["b", "c"], pictures=40)
        while race.round:
            for way in race.round.ways:
                for picture in race.round.pictures:
                    race.tell(way, picture, random.Random(f"{seed}/{picture}").random())
            race.judge()
        assert race.winner == "a"
        assert race.chance("b") == 0.5


def test_much_better_way_is_found_with_fewer_requests_than_allowed():
    race = run(Race("a", ["b", "c"], pictures=40), {"a": 0.4, "b": 0.9, "c": 0.4})
    assert race.winner == "b"
    assert race.requests < 100
    assert race.ended == "one way is clearly the best"


def test_much_worse_ways_end_the_race():
    race = run(Race("a", ["b", "c"], pictures=40), {"a": 0.9, "b": 0.2, "c": 0.2})
    assert race.winner == "a"
    assert race.ended == "only the default is left"
    assert set(race.left) == {"b", "c"}
    assert race.requests < 60


@pytest.mark.parametrize("max_requests", [0, 5, 30, 160])
def test_budget_is_never_passed(max_requests):
    ways = list("bcdefgh")
    costs = {"b": 3.0, "c": 0.5}
    accuracy = dict.fromkeys(["a", *ways], 0.5)
    race = Race("a", ways, pictures=40, max_requests=max_requests, costs=costs)
    run(race, accuracy)
    assert race.requests <= max_requests
    assert race.ended


def test_gain_counts_for_less_where_the_others_differ_little():
    few = Race("a", ["b", "c", "d"], pictures=40)
    many = Race("a", ["b", "c", "d"], pictures=40)
    chance = random.Random(0)
    for picture in range(40):
        luck = chance.gauss(0, 0.2)
        few_scores = {"a": 0.4, "b": 0.45 + luck, "c": 0.4, "d": 0.4}
        many_scores = {"a": 0.4, "b": 0.45 + luck, "c": 0.1, "d": 0.1}
        for way in few.ways:
            few.tell(way, picture, few_scores[way])
            many.tell(way, picture, many_scores[way])
    assert 0.5 < few.chance("b") < many.chance("b") < 1


def test_refuses_ways_of_one_name_and_no_pictures():
    with pytest.raises(ValueError, match="different names"):
        Race("a", ["a"], pictures=3)
    with pytest.raises(ValueError, match="pictures"):
        Race("a", ["b"], pictures=0)
