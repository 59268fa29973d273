"""What replies say next to their answers: wordings, the model's manner, and what is rare."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.data.manners import Manners, joined_remarks, manners_of, wordings_of

PHRASES = ("a red cup", "the dog", "a man in a hat", "two bikes")
CHINESE = ("红色杯子", "狗", "帽子")


def said(remark: Any, phrases: Sequence[str] = PHRASES) -> dict[str, Any]:
    return {"remark": remark, "expressions": [{"text": phrase} for phrase in phrases]}


def counted(*records: dict[str, Any]) -> Manners:
    manners = Manners()
    for record in records:
        manners.add(wordings_of(record))
    return manners


ONE_MANNER = [
    ("I found {} objects.", ("2", "two", "16", "0")),
    ("I found {}.", ("1 object", "two objects", "the red cup", "red cups", "a dog and 2 bikes")),
    ("Sure! I've located {}.", ("the red cup", "the dog, a red cup, and the man in a hat")),
    ("{} in the image.", ("There is one dog", "There are two dogs", "There are 3 objects")),
    ("Here are the boxes for {}:", ('"dog"', "**the dog** and `red cup`", "the two bikes")),
    ("HERE IS {}", ("The Dog", "A Red  Cup.", "the man in a hat!")),
    ("Ich habe {} gefunden.", ("ein Objekt", "zwei Objekte", "12 Objekte")),
    ("J'ai trouvé {}.", ("un objet", "deux objets")),
    ("He encontrado {}.", ("un objeto", "dos objetos")),
]


@pytest.mark.parametrize(("manner", "fillings"), ONE_MANNER)
def test_one_manner_of_thirty_records_is_one_wording_and_never_rare(
    manner: str, fillings: Sequence[str]
) -> None:
    remarks = [manner.format(fillings[number % len(fillings)]) for number in range(30)]
    manners = counted(*map(said, remarks))
    assert manners.rare == 0
    assert not any(manners.is_rare(wordings_of(said(remark))) for remark in remarks)
    assert set(manners.common().values()) == {30}


def test_scripts_without_spaces_are_masked_too() -> None:
    remarks = (
        "我找到了2个物体。",
        "我找到了两个物体。",
        "我找到了红色杯子。",
        "我找到了狗和帽子。",
    )
    manners = counted(*[said(remark, CHINESE) for remark in remarks], said("图片很暗。", CHINESE))
    assert manners.common() == {}
    assert len({tuple(wordings_of(said(remark, CHINESE))) for remark in remarks}) == 1
    assert wordings_of(said("图片很暗。", CHINESE)) == {"图片很暗": "图片很暗"}


def test_a_wording_is_read_as_it_was_said_with_masks() -> None:
    manners = counted(*[said(f"I found {number} objects.") for number in range(2, 8)])
    assert manners.common() == {"I found N objects": 6}
    assert manners.line() == "6 records: I found N objects"
    [text] = wordings_of(said("Only *the dog*, the red cup and 2 bikes are <b>clear</b>.")).values()
    assert text == "Only … are b clear /b"


def test_phrases_alone_are_no_wording_and_other_columns_no_remark() -> None:
    for remark in (
        "The dog, the red cup.",
        "1. a man in a hat 2. two bikes",
        "🎉",
        "",
        None,
        7,
        ["x"],
    ):
        assert wordings_of(said(remark)) == {}
    for rows in (None, "a text", [None, 3, {"text": 5}], {"text": "a"}):
        assert wordings_of({"remark": "It is dark.", "expressions": rows}) == {
            "it is dark": "It is dark"
        }


def test_a_remark_is_rare_if_one_of_its_sentences_is() -> None:
    usual = [said(f"I found {number} objects.") for number in range(30)]
    odd = said("I found 2 objects. The second one is a guess.")
    manners = counted(*usual, odd)
    assert manners.rare == 1
    assert manners.is_rare(wordings_of(odd))
    assert not manners.is_rare(wordings_of(usual[0]))
    assert not manners.is_rare(())
    assert manners.line() == ("31 records: I found N objects; 1 remark that came once or seldom")


@pytest.mark.parametrize(
    ("times", "records", "is_manner"),
    [(4, 4, False), (5, 5, True), (5, 500, True), (5, 501, False), (6, 600, True)],
)
def test_a_manner_comes_with_five_records_and_a_hundredth_of_all(
    times: int, records: int, is_manner: bool
) -> None:
    silent = [said(None)] * (records - times)
    manners = counted(*[said("It is dark.")] * times, *silent)
    assert manners.records == records
    assert (manners.common() == {"It is dark": times}) is is_manner
    assert manners.rare == (0 if is_manner else times)


def test_a_list_that_is_cut_off_is_the_manner_of_those_that_are_whole() -> None:
    phrases = [f"the {color} mug next to the sink" for color in ("red", "blue", "green", "grey")]
    whole = "Here are the boxes that you asked for: " + ", ".join(phrases * 3)
    cut = [said(whole[: 200 - number], phrases) for number in range(8)]
    short = [said(f"Here are the boxes that you asked for: {phrases[0]}.", phrases)] * 4
    manners = counted(*cut, *short)
    assert manners.rare == 0
    assert manners.is_rare(wordings_of(said("Here are the boxes that I made up.", phrases)))


@pytest.mark.slow
def test_the_order_of_records_and_how_they_are_shared_out_change_nothing() -> None:
    records = [said(f"I found {n} objects.") for n in range(40)]
    records += [said(f"I have found {n} things") for n in range(20)]
    records += [said(f"Odd {word}.") for word in ("one", "way", "day")] + [said(None)] * 9
    facts = set()
    for seed in range(5):
        random.Random(seed).shuffle(records)
        first, second = counted(*records[:30]), counted(*records[30:])
        first.add_all(second)
        for manners in (counted(*records), first):
            facts.add(json.dumps([manners.records, manners.rare, manners.common()]))
    assert len(facts) == 1


def test_of_more_wordings_than_are_kept_the_manner_is_still_known() -> None:
    manners = Manners(most_kept=100)
    for number in range(3000):
        letters = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        manners.add({f"odd {letters}": f"Odd {letters}"} if number % 3 else {"usual": "Usual"})
    assert manners.common() == {"Usual": 1000}
    assert 1900 <= manners.rare <= 2000
    assert manners.is_rare(["odd b"])


def test_remarks_of_several_answers_are_one_text_of_two_hundred_characters() -> None:
    assert joined_remarks(["", ""]) == ""
    assert joined_remarks(["a. … b.", "b.", "c."]) == "a. … b. … c."
    assert len(joined_remarks(["x" * 150, "y" * 150])) == 200


def test_files_are_counted_together(tmp_path: Path) -> None:
    paths = []
    for name in "ab":
        path = tmp_path / f"{name}.jsonl"
        rows = [json.dumps(said("It is dark.")) for _ in range(3)]
        path.write_text("\n".join([*rows, "{broken"]) + "\n")
        paths.append(str(path))
    assert manners_of(paths).common() == {"It is dark": 6}
