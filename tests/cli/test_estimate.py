"""`estimate` against what the loopback endpoint then counts, and `cost` against what was paid."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from dataflow_grounding.boxes.geometry import Bbox
from dataflow_grounding.engine.budget import listed_price
from dataflow_grounding.operators import Operator
from dataflow_grounding.serving.token_rules import TokenRules
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.answers import Answers
from tests.support import faults
from tests.support.endpoint import endpoint_of, with_settings
from tests.support.labelled import Box, Labelled, labelled
from tests.support.stand_ins.erring_model import ErringModel, Errors
from tests.support.stand_ins.seeing_model import COLORS, draw
from tests.support.waiting import wait_until
from tests.support.workplace import REPOSITORY, Done, Workplace, command

SCENES = {
    "A red mug on a wooden table near a window.": ["a red mug", "a wooden table", "a window"],
    "Two dogs run across a lawn by a white house.": ["two dogs", "a lawn", "a white house"],
    "A man in a blue jacket holds a red umbrella.": ["a man in a blue jacket", "a red umbrella"],
    "A bus on the left passes a parked bicycle.": ["a bus on the left", "a parked bicycle"],
}


def told(place: Workplace, *arguments: str, **settings: Any) -> dict[str, Any]:
    done = command(["estimate", "-e", str(place.spec(**settings)), "--json", *arguments])
    assert done.code == 0, done
    return done.summary


def cost(place: Workplace, *arguments: str) -> Done:
    return command(["cost", str(place.results), *arguments])


def is_near(estimated: float, taken: float, share: float = 0.2) -> bool:
    return abs(estimated - taken) <= share * taken


def scenes(place: Workplace, count: int) -> None:
    """Write an input of pictures with natural captions."""
    rows = []
    for n, caption in zip(range(count), itertools.cycle(SCENES), strict=False):
        name = place.picture(f"p{n}.jpg", (320, 240), color=f"#{n % 90 + 10}{n // 90 + 10}40")
        rows.append({"image_path": name, "caption": caption})
    place.rows(rows)


@pytest.mark.parametrize(
    "pipeline", ["image_grounding", "image_referring_expression", "image_region_caption"]
)
def test_before_a_pilot_the_shipped_specs_are_foreseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: LoopbackServer, pipeline: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(REPOSITORY / "init_template" / f"{pipeline}.yaml", "spec.yaml")
    os.symlink(REPOSITORY / "example_data", "example_data")
    server.answers = EchoAnswers("xyxy_1000")
    settings = {
        "vlm.backend": "openai",
        "vlm.openai.base_url": server.base_url,
        "vlm.openai.model_name": "loopback",
        "vlm.box_format": "xyxy_1000",
        # Echoed boxes are alike for all pictures. Which of them look odd, and are asked for
        # again, depends on the order of the replies.
        "workflow.max_workers": 1,
    }
    arguments = ["-e", "spec.yaml", "results_dir=results"]
    arguments += [f"{pipeline}.{key}={value}" for key, value in settings.items()]
    before = command(["estimate", *arguments, "--json"]).summary
    assert server.count() == 0
    done = command(["generate", *arguments, "--json", "--no-report"]).summary
    assert before["requests"] == done["requests"] == server.count()
    assert before["requests"] == sum(step["requests"] for step in before["steps"])
    assert is_near(before["tokens"]["input"], done["tokens"]["input"])
    after = command(["estimate", *arguments, "--json"]).summary
    assert (after["requests"], after["tokens"]["input"]) == (0, 0)


def test_the_steps_of_image_referring_expression(
    workplace: Workplace, server: LoopbackServer
) -> None:
    cars = [Box("Car", 10 + 40 * n, 20, 45 + 40 * n, 140) for n in range(3)]
    pictures = [Labelled(f"p{n}.jpg", cars[: 1 + n % 3], (320 + 8 * n, 240)) for n in range(6)]
    labelled(workplace.folder, "kitti", pictures)
    workplace.kind = "image_referring_expression"
    of_labels = {
        "data.image_dir": str(workplace.folder / "images"),
        "data.kitti_label_dir": "labels",
    }
    path = str(workplace.written({**workplace.settings, **of_labels}))
    before = command(["estimate", "-e", path, "--json"])
    assert (before.code, server.count(), workplace.results.exists()) == (0, 0, False), before
    done = command(["generate", "-e", path, "--json", "--no-progress"])
    assert done.code == 0, done
    assert [step["requests"] for step in before.summary["steps"]] == [6] * 4
    assert before.summary["requests"] == server.count() == 6 * 4
    assert command(["estimate", "-e", path, "--json"]).summary["requests"] == 0


class Piloted(NamedTuple):
    """A pilot of 4 of 10 records and the full run, with what was told before, between and after."""

    place: Workplace
    before: dict[str, Any]
    known: dict[str, Any]
    of_more_steps: dict[str, list[str]]
    runs: list[dict[str, Any]]
    after: dict[str, Any]
    received: int


MORE_STEPS: dict[str, dict[str, Any]] = {
    "none": {},
    "zoom": {"workflow.zoom": True},
    "negatives": {"workflow.negatives": 2},  # whose check sees no boxes
}


@pytest.fixture(scope="module")
def piloted(one_server: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> Piloted:
    with_settings(one_server)
    prices = {"input": 2.0, "cached_input": 0.5, "output": 8.0}
    folder = tmp_path_factory.mktemp("piloted")
    place = Workplace(folder, one_server.base_url, **{"vlm.prices": prices})
    place.many(10)
    before, first, known = told(place), place.run("--pilot", "4"), told(place)
    more = {name: list(told(place, **step)["not_counted"]) for name, step in MORE_STEPS.items()}
    runs = [first.summary, place.run().summary]
    return Piloted(place, before, known, more, runs, told(place), one_server.count())


@pytest.mark.slow
def test_before_a_pilot_an_estimate_is_a_guess(piloted: Piloted) -> None:
    assert (piloted.before["requests"], piloted.before["measured"]) == (20, False)


@pytest.mark.slow
def test_after_a_pilot_the_estimate_goes_by_what_was_measured(piloted: Piloted) -> None:
    """Captions of no language, more tokens for an image than assumed: only a pilot can tell."""
    known, (_, run) = piloted.known, piloted.runs
    assert (known["requests"], known["stored"], known["measured"]) == (12, 8, True)
    assert run["requests"] == 12
    for name in ("input", "cached", "output"):
        assert is_near(known["tokens"][name], run["tokens"][name], 0.15), name


@pytest.mark.slow
def test_after_the_full_run_nothing_is_left_to_pay_for(piloted: Piloted) -> None:
    assert (piloted.after["requests"], piloted.after["tokens"]["input"]) == (0, 0)


@pytest.mark.slow
def test_a_step_added_after_a_pilot_is_named(piloted: Piloted) -> None:
    assert piloted.of_more_steps == {
        "none": [],
        "zoom": ["step2_box_refinement"],
        "negatives": [],
    }


@pytest.mark.slow
def test_cost_is_what_the_endpoint_billed_by_step(piloted: Piloted) -> None:
    found, runs = cost(piloted.place, "--json").summary, piloted.runs
    assert found["requests"] == piloted.received == 20
    for name, tokens in found["tokens"].items():
        assert tokens == sum(run["tokens"][name] for run in runs)
    assert found["cost_usd"] == pytest.approx(sum(run["cost_usd"] for run in runs), abs=1e-5)
    assert [(step["step"], step["requests"]) for step in found["steps"]] == [
        ("step0_expression_extraction", 10),
        ("step1_grounding", 10),
    ]
    assert piloted.place.run_json()["steps"] == found["steps"]
    assert "step1_grounding: 10 replies" in cost(piloted.place).out


BUT_TO_A_QUESTION_ASKED_AGAIN = {"where": lambda request: "earlier reply" not in request.text}


def test_retries_of_the_pilot_are_reckoned_with(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(8)
    no = faults.says("no")
    server.faults = on(no, task="phrase_grounding", **BUT_TO_A_QUESTION_ASKED_AGAIN)
    assert workplace.run("--pilot", "4").code == 0
    steps = {step["step"]: step["requests"] for step in told(workplace)["steps"]}
    assert steps == {"step0_expression_extraction": 4, "step1_grounding": 8}


def test_further_steps_are_counted_and_small_boxes_once_a_pilot_has_shown_them(
    workplace: Workplace, server: LoopbackServer
) -> None:
    scenes(workplace, 8)

    def answers(request: Any) -> Any:
        if request.task != "phrase_grounding":
            caption = request.input["caption"]
            expressions = [{"text": text, "noun_chunk": text} for text in SCENES[caption]]
            return {"cleaned_caption": caption, "expressions": expressions}
        small, part = [20, 20, 26, 26], request.image_sizes != ((320, 240),)
        box = [300, 300, 400, 400] if part else small
        return {"objects": [{"id": p["id"], "bbox_2d": box} for p in request.input["phrases"]]}

    server.answers = answers
    workplace.settings |= {
        "workflow.zoom": True,
        "vlm.on_suspect_boxes": "warn",
    }
    by_step = [step["requests"] for step in told(workplace)["steps"]]
    assert by_step == [8, 8, 0], "no box is known to be small"
    assert workplace.run("--pilot", "4").code == 0
    before, estimated = server.count(), told(workplace)["requests"]
    assert workplace.run().code == 0
    assert is_near(estimated, server.count() - before, 0.05)


def drawn(place: Workplace, count: int, small_share: float) -> None:
    """Pictures of two to four boxes of a colour, some of them small, with captions that name them."""
    chance = random.Random(0)
    rows = []
    for number in range(count):
        boxes: dict[str, list[Bbox]] = {}
        for cell, color in enumerate(chance.sample(sorted(COLORS), chance.randint(2, 4))):
            width, height = chance.randint(60, 150), chance.randint(60, 180)
            if chance.random() < small_share:
                width, height = 16, 12
            x1, y1 = 320 * (cell % 2) + chance.randint(2, 165), 240 * (cell // 2)
            y1 += chance.randint(2, 55)
            boxes[color] = [(x1, y1, x1 + width, y1 + height)]
        draw(str(place.folder / f"{number}.png"), (640, 480), boxes)
        names = ", ".join(f"the {color} box" for color in boxes)
        rows.append({"image_path": f"{number}.png", "caption": f"Hanging on the wall: {names}"})
    place.rows(rows)


def seen_by(model: ErringModel) -> Answers:
    """Answers of a model that finds what a caption of `drawn` names."""

    def answers(request: ReceivedRequest) -> dict[str, Any]:
        if request.task != "expression_extraction":
            return model(request)
        caption = request.input["caption"]
        names = caption.partition(": ")[2].split(", ")
        expressions = [{"text": name, "noun_chunk": name} for name in names]
        return {"cleaned_caption": caption, "expressions": expressions}

    return answers


ZOOM_AND_CHECK = {
    "vlm.box_format": "xyxy_1000",
    "vlm.on_suspect_boxes": "warn",
    "vlm.prices": {"input": 1.0, "cached_input": 0.25, "output": 4.0},
    "workflow.zoom": True,
    "workflow.check": True,
}


def test_zoom_and_check_are_foreseen_where_nothing_is_small_or_missing(
    workplace: Workplace, server: LoopbackServer
) -> None:
    drawn(workplace, 9, small_share=0)
    workplace.settings |= ZOOM_AND_CHECK
    server.answers = seen_by(ErringModel())
    before = told(workplace)
    assert workplace.run("--pilot", "3").code == 0
    after_pilot = told(workplace)
    assert workplace.run().code == 0
    assert len(before["not_counted"]) == 3
    assert after_pilot["not_counted"] == {}
    taken = cost(workplace, "--json").summary
    assert before["requests"] == taken["requests"] == 3 * 9
    assert after_pilot["requests"] == 3 * 6
    assert is_near(before["tokens"]["input"], taken["tokens"]["input"])
    assert 0.5 <= before["tokens"]["output"] / taken["tokens"]["output"] <= 2
    assert is_near(before["cost_usd"], taken["cost_usd"], 1 / 3)


def test_what_depends_on_found_boxes_is_named_before_a_pilot_and_counted_after_it(
    workplace: Workplace, server: LoopbackServer
) -> None:
    drawn(workplace, 20, small_share=0.25)
    workplace.settings |= ZOOM_AND_CHECK
    server.answers = seen_by(ErringModel(Errors(missing=0.1, accuracy=0.92)))
    before = told(workplace)
    text = command(["estimate", "-e", str(workplace.spec())]).out
    assert workplace.run("--pilot", "8").code == 0
    after_pilot = told(workplace)
    sent_by_pilot = server.count()
    done = workplace.run()
    assert done.code == 0, done
    assert before["not_counted"] == {
        "step2_box_refinement": "requests about small boxes",
        "step3_box_check": "enlarged pictures of small boxes, and requests about more than 40 boxes",
        "step4_missing_search": "requests for missing boxes",
    }
    assert "Not counted before generate --pilot: requests about small boxes (step2_" in text
    taken = {step["step"]: step for step in cost(workplace, "--json").summary["steps"]}
    for step in before["steps"]:
        of_step = taken[step["step"]]
        if step["step"] not in before["not_counted"]:
            assert step["requests"] == of_step["requests"]
            assert is_near(step["tokens"]["input"], of_step["tokens"]["input"])
            assert 0.5 <= step["tokens"]["output"] / of_step["tokens"]["output"] <= 2
            assert is_near(step["cost_usd"], of_step["cost_usd"], 1 / 3)
    assert taken["step2_box_refinement"]["requests"] > 5
    assert after_pilot["not_counted"] == {}
    assert is_near(after_pilot["requests"], server.count() - sent_by_pilot)
    for name in ("input", "output"):
        assert is_near(after_pilot["tokens"][name], done.summary["tokens"][name]), name
    assert is_near(after_pilot["cost_usd"], done.summary["cost_usd"])


def test_a_captions_phrases_take_several_requests_where_one_takes_few(
    workplace: Workplace, server: LoopbackServer
) -> None:
    drawn(workplace, 6, small_share=0)
    workplace.settings |= {**ZOOM_AND_CHECK, "workflow.phrases_per_request": 2}
    estimated = told(workplace)["steps"][1]
    server.answers = seen_by(ErringModel())
    assert workplace.run().code == 0
    taken = cost(workplace, "--json").summary["steps"][1]
    assert (estimated["requests"], taken["requests"]) == (12, 12)
    assert 0.5 <= estimated["tokens"]["output"] / taken["tokens"]["output"] <= 2


def test_equal_rows_and_rows_that_cant_be_sent_cost_nothing(workplace: Workplace) -> None:
    row = {"image_path": workplace.picture(), "caption": "A red mug on a table."}
    gone, another = {**row, "image_path": "gone.jpg"}, {**row, "caption": "A dog on a lawn."}
    workplace.rows([row, row, "broken", gone, another])
    found = told(workplace)
    assert (found["records"], found["requests"]) == (5, 4)


def test_what_questions_show_is_asked_only_where_its_tokens_count(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("an operator is asked for pictures")

    monkeypatch.setattr(Operator, "pictures", fail)
    workplace.rows([{"image_path": workplace.picture(), "caption": "A red mug on a table."}])
    assert told(workplace, **{"vlm.backend": "embedded"})["requests"] > 0


def test_of_many_records_a_part_is_looked_at(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataflow_grounding.jobs import estimating

    monkeypatch.setattr(estimating, "MOST", 50)
    scenes(workplace, 100)
    for n in range(0, 100, 2):
        workplace.picture(f"p{n}.jpg", (640, 600))
    workplace.settings["vlm.openai.model_name"] = "gpt-4o"
    found = told(workplace)
    assert (found["records"], found["looked_at"], found["requests"]) == (100, 50, 200)
    assert told(workplace, "--pilot", "20")["requests"] == 40


def test_estimate_writes_nothing_and_needs_no_key(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    scenes(workplace, 3)
    assert told(workplace, **{"vlm.backend": "gemini", "vlm.box_format": "auto"})["requests"] == 6
    assert not workplace.results.exists()


# --- prices


def test_prices_come_from_the_spec_then_from_the_table(workplace: Workplace) -> None:
    scenes(workplace, 3)
    unknown = told(workplace)
    assert (unknown["cost_usd"], unknown["prices"]) == (None, None)
    in_words = command(["estimate", "-e", str(workplace.spec())])
    assert "No known price: set vlm.prices" in in_words.out, in_words
    listed = told(workplace, **{"vlm.openai.model_name": "openai/gpt-4o-2024-08-06"})
    assert listed["cost_usd"] > 0
    assert "developers.openai.com" in listed["prices"]
    stated = told(workplace, **{"vlm.prices": {"input": 1e6, "cached_input": 0, "output": 0}})
    assert stated["cost_usd"] == stated["tokens"]["input"] - stated["tokens"]["cached"]
    assert stated["prices"] == "vlm.prices"


def test_every_row_of_the_table_has_its_date_and_source() -> None:
    rows = yaml.safe_load((REPOSITORY / "dataflow_grounding/engine/prices.yaml").read_text())
    assert len({row["model"] for row in rows}) == len(rows)
    for row in rows:
        assert str(row["date"]) >= "2026-01-01"
        assert row["source"].startswith("https://")
        assert 0 < row.get("cached_input", row["input"]) <= row["input"] < row["output"]
        found = listed_price(row["model"])
        assert found is not None
        assert (found.prices.input, found.prices.output) == (row["input"], row["output"])


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("gemini-3.1-flash-lite-preview", "gemini-3.1-flash-lite"),
        ("google/gemini-2.5-flash", "gemini-2.5-flash"),
        ("models/gemini-2.5-flash-preview-09-2025", "gemini-2.5-flash"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("GPT-4o", "gpt-4o"),
        ("gpt-4o-audio", None),
        ("qwen3-vl-8b", None),
        ("", None),
    ],
)
def test_names_of_models_in_the_table(name: str, row: str | None) -> None:
    found = listed_price(name)
    assert (found and found.model) == row


# Examples from the providers' pages, and by hand after their rules.
IMAGES = [
    ("gemini-3.1-flash-lite-preview", "MEDIA_RESOLUTION_HIGH", (64, 48), 1120),
    ("gemini-3.1-flash-lite-preview", "MEDIA_RESOLUTION_MEDIUM", (4000, 3000), 560),
    ("gemini-3-pro", "MEDIA_RESOLUTION_LOW", (640, 480), 280),
    ("gemini-2.5-flash", "MEDIA_RESOLUTION_HIGH", (384, 384), 258),
    ("gemini-2.5-flash", "", (960, 540), 6 * 258),
    ("gemini-2.5-flash", "MEDIA_RESOLUTION_LOW", (960, 540), 64),
    ("gpt-4o", "", (1024, 1024), 765),
    ("gpt-4o", "", (2048, 4096), 1105),
    ("gpt-4.1-2025-04-14", "", (64, 48), 255),
    ("gpt-4.1-mini", "", (1024, 1024), 1659),
    ("gpt-5-mini", "", (4000, 3000), 2489),
    ("openai/gpt-5", "", (512, 512), 210),
    ("Qwen/Qwen2.5-VL-7B-Instruct", "", (280, 280), 102),
    ("Qwen/Qwen3-VL-8B-Instruct", "", (320, 320), 102),
    ("claude-sonnet-4-5", "", (750, 1000), 1000),
    ("someone/unheard-of", "", (640, 480), 1000),
]


@pytest.mark.parametrize(("model", "resolution", "size", "tokens"), IMAGES)
def test_tokens_of_images(model: str, resolution: str, size: tuple[int, int], tokens: int) -> None:
    assert TokenRules(model, resolution).image(size) == tokens


# --- cost


def test_cost_tells_what_retries_and_samples_cost(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(4)
    no = faults.says("no")
    server.faults = on(no, task="expression_extraction", **BUT_TO_A_QUESTION_ASKED_AGAIN)
    assert workplace.run(**{"workflow.samples": 3}).code == 0
    steps = cost(workplace, "--json").summary["steps"]
    assert [
        (step["requests"], step["retries"]["requests"], step["samples"]["requests"])
        for step in steps
    ] == [(8, 4, 0), (12, 0, 8)]
    assert "of which retries: 4 replies" in cost(workplace).out


PRICES = {"input": 1.0, "output": 10.0}
ONE_BY_ONE = {"vlm.prices": PRICES, "workflow.max_workers": 1}


def test_cost_of_a_killed_run_has_the_specs_prices(workplace: Workplace) -> None:
    workplace.many(30)
    workplace.settings["vlm.prices"] = PRICES
    with endpoint_of(workplace, latency=0.1):
        running = workplace.start()
        wait_until(lambda: workplace.replies.exists() and len(workplace.replies.read_bytes()) > 0)
        running.kill()
        running.wait()
    bill = cost(workplace, "--json").summary
    assert bill["requests"] > 0
    assert bill["cost_usd"] > 0
    assert workplace.run_json()["state"] == "unfinished"


# https://ai.google.dev/gemini-api/docs/billing: a request that fails with a 400 or 500 error isn't
# charged for. A 504 is a gateway's word: the model may have worked all the same.
@pytest.mark.parametrize(("status", "is_booked"), [(500, False), (501, False), (504, True)])
def test_generate_and_cost_tell_one_figure_where_a_server_failed(
    workplace: Workplace, server: LoopbackServer, status: int, is_booked: bool
) -> None:
    workplace.many(4)
    server.faults = on(faults.server_error(status), indexes=range(2))
    done = workplace.run("--budget-usd", "5", **ONE_BY_ONE)
    assert done.code == 0, done
    assert server.count() == 8 + 2
    paid = cost(workplace, "--json").summary["cost_usd"]
    assert (done.summary["cost_usd"] > paid + 0.01) == is_booked
    if not is_booked:
        assert done.summary["cost_usd"] == pytest.approx(paid, abs=1e-5)


# DeepSeek's finish reason where its machines are short, after it has read the request:
# https://api-docs.deepseek.com/api/create-chat-completion
BROKEN_OFF = {
    "choices": [{"finish_reason": "insufficient_system_resource", "message": {"content": ""}}],
    "usage": {"prompt_tokens": 40_000, "completion_tokens": 1000},
}
NO_CHOICES = {"choices": None, "usage": {"prompt_tokens": 40_000, "completion_tokens": 1000}}


@pytest.mark.parametrize("answer", [BROKEN_OFF, NO_CHOICES], ids=["broken off", "no choices"])
def test_the_tokens_of_an_answer_that_is_no_reply_are_paid(
    workplace: Workplace, server: LoopbackServer, answer: dict[str, Any]
) -> None:
    workplace.many(4)
    server.faults = on(faults.odd_json(json.dumps(answer)), indexes=range(2))
    done = workplace.run("--budget-usd", "5", **ONE_BY_ONE)
    assert done.code == 0, done
    bill = cost(workplace, "--json").summary
    of_answers = 2 * (40_000 * 1.0 + 1000 * 10.0) / 1e6
    assert of_answers < bill["cost_usd"] < of_answers + 0.05
    assert done.summary["cost_usd"] == pytest.approx(bill["cost_usd"], abs=1e-5)
    assert done.summary["tokens"]["input"] == bill["tokens"]["input"]


def test_cost_of_a_folder_without_replies(workplace: Workplace) -> None:
    workplace.results.mkdir(parents=True)
    done = cost(workplace)
    assert done.code == 2
    assert "no stored replies" in done.err


def test_budget_usd_works_with_a_listed_price(workplace: Workplace, server: LoopbackServer) -> None:
    workplace.many(60)
    server.answers = EchoAnswers("xyxy_px")
    settings = {"vlm.openai.model_name": "gpt-4o", "vlm.openai.max_tokens": 50}
    done = workplace.run("--budget-usd", "0.1", **settings)
    assert done.code == 3, done
    assert 0.05 < done.summary["cost_usd"] <= 0.1


def test_progress_shows_cost_rate_and_time_left() -> None:
    from dataflow_grounding.engine.progress import Now, Progress

    states = iter([Now(11, 10, 0, 100, 2, 8, 0, 0.01), Now(50, 10, 2, 100, 100, 8, 0, 1.25)])
    progress = Progress(lambda: next(states), "x", False)
    assert not any("left" in part for part in progress.parts()), (
        "one record that was asked tells nothing yet"
    )
    parts = progress.parts()
    assert parts[:2] == ["50/100 records", "2 failed"]
    assert [part.split()[-1] for part in parts[2:6]] == [parts[2], "left", "stored", "USD"]
    assert parts[6:] == ["100 requests", "8 in flight"]


def test_a_stop_does_not_reckon_with_steps_that_ask_nothing(workplace: Workplace) -> None:
    for n in range(6):
        workplace.picture(f"p{n}.png", (320, 240), color=f"#{n}0a0b0")
    workplace.rows({"image_path": f"p{n}.png"} for n in range(6))
    workplace.settings |= {"data.classes": ["a red box", "a blue box"], "workflow.max_requests": 4}
    stopped = workplace.run()
    assert stopped.code == 3, stopped
    assert "This run has taken 4 replies; the rest takes about 2 more requests" in stopped.err
    workplace.results = workplace.folder / "with_checks"
    stopped = workplace.run(**{"vlm.check_every": 100})  # a probe picture, and three records
    assert stopped.summary["probes"] == 1, stopped
    assert "This run has taken 4 replies; the rest takes about 3 more requests" in stopped.err
