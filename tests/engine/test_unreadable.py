"""Replies that can't be read: `run.json` counts them by reason, and where they are many, the last
lines of a run and `doctor` say so, and what to try.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import ExpressionExtractor, OpenAIServing, RunOptions
from dataflow_grounding._util.errors import OTHER_SCALE, NothingUsable
from dataflow_grounding._util.settings import speaks_of_specs
from dataflow_grounding.engine.options import current_options
from dataflow_grounding.engine.plan import holding
from dataflow_grounding.engine.unreadable import too_many_unreadable
from dataflow_grounding.testing import (
    Answer,
    CannedAnswers,
    Fault,
    FaultRule,
    LoopbackServer,
    ReceivedRequest,
    on,
)
from tests.support import faults
from tests.support.endpoint import endpoint_of
from tests.support.workplace import Workplace, command

PROSE = faults.says("I am sure that all is well.")
SAID = "of replies could not be read as asked"


def of_first(rows: int, task: str, fault: Fault = PROSE) -> FaultRule:
    """What goes wrong with the first try of these rows' question; asking again succeeds."""
    names = [caption_word(number) for number in range(rows)]

    def strikes(request: ReceivedRequest) -> bool:
        is_first_try = "earlier reply" not in request.text
        return is_first_try and any(name in request.text for name in names)

    return on(fault, task=task, where=strikes)


def caption_word(number: int) -> str:
    """The word that a row's caption and phrases have alone."""
    return "N" + "".join(chr(ord("a") + int(digit)) for digit in f"{number:03}")


def rows(place: Workplace, count: int) -> None:
    """Write an input whose captions have a name each that no other one begins with."""
    place.picture()
    place.rows(
        {"image_path": "a.jpg", "image_id": f"r{n}", "caption": f"Cup of {caption_word(n)}"}
        for n in range(count)
    )


def said_and_stated(place: Workplace, **settings: Any) -> tuple[str, dict[str, Any]]:
    """Run `generate` for people; return what it says, and the summary of `run.json`."""
    arguments = place.arguments(**settings)
    arguments.remove("--json")
    done = command(arguments)
    assert done.code == 0, done
    return done.err, place.run_json()["summary"]


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    rows(workplace, 10)
    return workplace


def test_a_run_says_which_share_of_replies_could_not_be_read_and_what_to_try(
    place: Workplace,
) -> None:
    with endpoint_of(place, faults=[of_first(3, "phrase_grounding")]) as server:
        said, stated = said_and_stated(place, **{"vlm.asking": "lists"})
        assert server.count() == stated["answered"] == 23
    assert stated["unreadable"] == 3
    assert sum(stated["unreadable_reasons"].values()) == 3
    assert stated["unreadable_forms"] == {"lists": 3}
    [line] = [line for line in said.splitlines() if SAID in line]
    assert line.startswith(f"Warning: 13% {SAID}")
    assert line.endswith(": try vlm.asking: json_lists")


def told(answered: int, unreadable: int, form: str = "auto", reason: str = "other") -> str:
    """What is told of such a run; no `form` is that of questions that have none."""
    facts: dict[str, Any] = {"answered": answered, "unreadable": unreadable}
    facts["unreadable_reasons"] = {reason: unreadable}
    facts["unreadable_forms"] = {form: unreadable} if form else {}
    with holding(speaks_of_specs, True):
        return too_many_unreadable(facts)


@pytest.mark.parametrize(
    ("form", "advised"),
    [
        ("auto", "json"),
        ("json", "lines"),
        ("json_lists", "lists"),
        ("lines", "json"),
        ("no_thinking", "json_no_thinking"),
        ("json_no_thinking", "no_thinking"),
    ],
)
def test_the_form_to_try_is_another_one_with_as_much_thinking(form: str, advised: str) -> None:
    assert told(23, 3, form) == f"13% {SAID}: try vlm.asking: {advised}"


def test_where_no_other_form_helps_it_says_what_does() -> None:
    assert told(23, 3, form="") == f"13% {SAID}: try a stronger model"
    cut_off = told(23, 3, form="", reason="cut off")
    assert cut_off == f"13% {SAID} (most: cut off): raise max_tokens"
    assert told(23, 3, reason=OTHER_SCALE).endswith(
        ": check vlm.box_format, or have it found out (calibrate)"
    )


def test_up_to_2_percent_and_two_replies_are_not_told() -> None:
    assert told(149, 3).startswith(f"2% {SAID}")
    assert told(151, 3) == told(22, 2) == ""


def test_stored_replies_of_an_earlier_run_count_in_no_other(place: Workplace) -> None:
    with endpoint_of(place, faults=[of_first(3, "phrase_grounding")]):
        _, first = said_and_stated(place)
        rows(place, 11)
        said, stated = said_and_stated(place)
    assert (first["unreadable"], stated["unreadable"]) == (3, 0)
    assert (stated["answered"], stated["unreadable_reasons"]) == (2, {})
    assert SAID not in said


# --- replies none of which can be used


def test_a_run_none_of_whose_replies_can_be_used_stops(workplace: Workplace) -> None:
    """jundot/omlx#2990: a night of loops, of which all was paid for and nothing used."""
    rows(workplace, 45)
    with endpoint_of(workplace, faults=[on(faults.truncated())]) as server:
        done = workplace.run()
        paid = server.count()
        assert (done.code, 30 <= paid <= 40) == (4, True), done
        assert "none of 30 replies to expression_extraction could be used" in done.err
        assert "(most: cut off): raise max_tokens" in done.err
        server.faults = []
        assert workplace.run("--retry-failed").code == 0
        assert server.count() <= 2 * 45 + paid


def test_json_that_is_closed_is_whole_though_the_server_calls_it_cut_off(place: Workplace) -> None:
    """vllm-project/vllm#8020, #38696: blanks or tokens up to the limit, in 23% of the calls."""
    rules = []
    ends = ["", "\n", "\n" * 300, "\n```", "\n```" + " " * 300, "<|im_end|>" * 50]
    ends += ["\n```\n### Explanation\nThe cup is on the", "\nEach box encloses the whole"]
    for number, end in enumerate(ends):
        start = "```json\n" if "`" in end else ""

        def padded(answer: Answer, start: str = start, end: str = end) -> Answer:
            return replace(answer, text=start + answer.text + end, finish_reason="length")

        rules.append(on(Fault(change=padded), containing=caption_word(number)))
    with endpoint_of(place, faults=rules) as server:
        done = place.run()
        assert (done.code, server.count()) == (0, 20), done


def test_tags_with_a_box_of_each_phrase_are_whole_before_words_up_to_the_limit(
    place: Workplace,
) -> None:
    def in_tags(answer: Answer) -> Answer:
        tags = ""
        for item in json.loads(answer.text)["objects"]:
            x1, y1, x2, y2 = item["bbox_2d"]
            tags += f"<ref>{item['label']}</ref><box>({x1},{y1}),({x2},{y2})</box>"
        return replace(answer, text=f"{tags} The cup is on", finish_reason="length")

    said = on(Fault(change=in_tags), task="phrase_grounding")
    with endpoint_of(place, faults=[said]) as server:
        done = place.run()
        assert (done.code, server.count()) == (0, 20), done
    assert {row["remark"] for row in place.annotations()} == {"The cup is on"}


def test_a_run_whose_answers_to_one_task_are_no_replies_stops_too(workplace: Workplace) -> None:
    rows(workplace, 60)
    page = on(Fault(200, body=b"<html>busy</html>"), task="phrase_grounding")
    with endpoint_of(workplace, faults=[page]) as server:
        done = workplace.run()
        assert (done.code, server.count() < 150) == (4, True), done
    assert "replies to phrase_grounding could be used" in done.err
    assert "'<html>busy</html>'; the same command asks again" in done.err
    assert "jsonl" not in done.err


def test_a_run_that_stops_shows_a_reply_and_names_the_file_that_has_them(
    workplace: Workplace,
) -> None:
    rows(workplace, 40)
    with endpoint_of(workplace, CannedAnswers("All is well.")):
        done = workplace.run()
    assert done.code == 4, done
    assert f'The last one begins "All is well."; see all in {workplace.replies}. ' in done.err
    assert workplace.replies.read_text().count('"reply": "All is well."') >= 30
    assert "failures.jsonl" not in done.err


def test_a_run_that_stops_states_no_file_of_an_earlier_run(workplace: Workplace) -> None:
    rows(workplace, 1)
    with endpoint_of(workplace) as server:
        assert workplace.run().summary["failures_file"] == str(workplace.results / "failures.jsonl")
        rows(workplace, 2)
        server.key = "another"
        done = workplace.run()
    assert done.code == 4, done
    for stated in (done.summary, workplace.run_json()["summary"]):
        assert (stated["annotations"], stated["failures_file"]) == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("is_kept", [True, False])
def test_replies_in_memory_are_shown_without_a_file_unless_one_keeps_them(
    tmp_path: Path, is_kept: bool
) -> None:
    Image.new("RGB", (64, 48), "navy").save(tmp_path / "a.png")
    picture = str(tmp_path / "a.png")
    records = [{"image_path": picture, "caption": caption_word(n)} for n in range(40)]
    kept = tmp_path / "replies.jsonl"
    options = RunOptions(replies=str(kept) if is_kept else None)
    with LoopbackServer(CannedAnswers("All is well.")) as server:
        extract = ExpressionExtractor(OpenAIServing(server.base_url, "any"))
        with holding(current_options, options), pytest.raises(NothingUsable) as stopped:
            extract(records)
    assert 'The last one begins "All is well."' in str(stopped.value)
    assert ("jsonl" in str(stopped.value)) == is_kept
    assert (f"see all in {kept}. " in str(stopped.value)) == is_kept
    assert kept.exists() == is_kept


@pytest.mark.parametrize("reason", ["length", "model_context_window_exceeded"])
def test_json_that_ends_at_the_limit_may_lack_what_would_have_come(
    place: Workplace, reason: str
) -> None:
    """The second object's phrase would be absent, though the reply was cut off before it."""
    rules = []
    for number in range(10):

        def first_alone(answer: Answer, end: str = "\n" * (number % 3)) -> Answer:
            objects = json.loads(answer.text)["objects"]
            text = json.dumps(objects[0]) + end
            return replace(answer, text=text, finish_reason=reason)

        rule = {"task": "phrase_grounding", "times_each": 1, "containing": caption_word(number)}
        rules.append(on(Fault(change=first_alone), **rule))
    with endpoint_of(place, faults=rules):
        assert place.run().code == 0
    statuses = {one["status"] for row in place.annotations() for one in row["expressions"]}
    assert statuses == {"grounded"}


# --- the counts of several runs together


def counts_of(summary: dict[str, Any]) -> dict[str, Any]:
    names = ("answered", "unreadable", "unreadable_reasons", "unreadable_forms")
    return {name: summary[name] for name in names}


def mixed() -> list[FaultRule]:
    """Unreadable replies of two reasons, to two questions."""
    cut = of_first(8, "expression_extraction", faults.truncated())
    return [cut, of_first(5, "phrase_grounding")]


@pytest.mark.slow
def test_merged_shards_have_the_counts_of_one_run(place: Workplace) -> None:
    with endpoint_of(place, faults=mixed()) as server:
        whole = place.run().summary
        place.results = place.folder / "parts"
        server.faults = mixed()
        for number in (1, 2, 3):
            assert place.run("--shard", f"{number}/3").code == 0
    done = command(["merge", str(place.results), "--no-report", "--json"])
    assert done.code == 0, done
    assert counts_of(done.summary) == counts_of(whole) == counts_of(place.run_json()["summary"])
    assert whole["unreadable"] == 13
    assert whole["unreadable_reasons"]["cut off"] == 8
    assert whole["unreadable_forms"] == {"auto": 5}


# --- doctor


def doctor(place: Workplace, *arguments: str, **settings: Any) -> str:
    """What `doctor` says, which finds nothing wrong."""
    done = command(["doctor", *arguments, "-e", str(place.spec(**settings))])
    assert done.code == 0, done
    return done.out


DAMAGED: list[tuple[str, Any]] = [
    ("unreadable_reasons", None),
    ("unreadable_reasons", ["cut off"]),
    ("unreadable_forms", {"auto": "many"}),
    ("unreadable_forms", {"auto": -1}),
    ("answered", True),
    ("answered", 1e308),
    ("unreadable", "3"),
]


@pytest.mark.slow
def test_doctor_says_it_of_the_last_run_and_believes_no_strangers_run_json(
    place: Workplace,
) -> None:
    line = f"last run: 13% {SAID}"
    with endpoint_of(place, faults=[of_first(3, "phrase_grounding")]):
        assert "last run" not in doctor(place, "--offline")
        said_and_stated(place)
        with_endpoint = doctor(place)
        assert line in with_endpoint
        assert ": try vlm.asking: json\n" in with_endpoint
    found = command(["doctor", "--json", "--offline", "-e", str(place.spec())]).summary
    assert found["endpoint"]["last_run"].startswith(f"13% {SAID}")
    other_form = doctor(place, "--offline", **{"vlm.asking": "json"})
    assert "last run" not in other_form, "the advice was taken"
    other_model = doctor(place, "--offline", **{"vlm.openai.model_name": "another"})
    assert "last run" not in other_model

    path = place.results / "run.json"
    run = json.loads(path.read_text("utf-8"))

    def told_with(name: str, value: Any) -> list[str]:
        summary = {**run["summary"], name: value}
        path.write_text(json.dumps({**run, "summary": summary}), encoding="utf-8")
        return [row for row in doctor(place, "--offline").splitlines() if "last run: " in row]

    for name, value in DAMAGED:
        assert told_with(name, value) == [], (name, value)
    [shown] = told_with("unreadable_reasons", {"\x1b[31mred\n" + "a" * 1000: 3})
    assert "\x1b" not in shown
    assert len(shown) < 200
