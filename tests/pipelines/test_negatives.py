"""`workflow.negatives` in a run: from the spec to the records, the exports and the figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dataflow_grounding import BoxChecker, NegativePhraser
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from tests.support.endpoint import serving_of
from tests.support.half_filled import NOISE, scenes
from tests.support.labelled import kitti, labelled, pictures_of
from tests.support.referring_place import ReferringPlace
from tests.support.stand_ins.erring_model import Errors, about_probes
from tests.support.stand_ins.phrasing_model import (
    PhrasingModel,
    is_there,
    steps_of,
    with_some_told,
)
from tests.support.workplace import Done, Workplace, command

pytestmark = pytest.mark.slow

PICTURES, FEW = 4, 2
ERRORS = Errors(absent=0.3)
STEPS = ("negative_phrases", "box_check")
TASKS = ("negative_phrases", "phrase_grounding", "box_check")


class Model(PhrasingModel):
    """Boxes some of what is absent, and judges well; finds the phrases of captions, too."""

    def __init__(self, errors: Errors = ERRORS, careless: float = 0.3) -> None:
        super().__init__(errors, careless=careless, box_format="xyxy_px", seed=5)
        self.received: list[ReceivedRequest] = []

    def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
        self.received.append(request)
        if request.task == "expression_extraction":
            caption = request.input["caption"]
            found = re.findall(r"the \w+ box", caption)
            expressions = [{"text": text, "noun_chunk": text[4:]} for text in found]
            return {"cleaned_caption": caption, "expressions": expressions}
        return super().__call__(request)

    def asked(self, task: str) -> list[ReceivedRequest]:
        """The requests of a task that are about records, not about probes."""
        of_task = [request for request in self.received if request.task == task]
        return [request for request in of_task if not about_probes(request)]

    @property
    def of_records(self) -> int:
        """How many requests of all tasks but the captions' were about records."""
        return sum(len(self.asked(task)) for task in TASKS)


def captioned(gold: dict[str, Any]) -> str:
    """A caption that names all but one of the boxes."""
    there = [e["text"] for e in gold["expressions"] if e["instances"]]
    return f"We see {' and '.join(there[:-1])}."


def place_in(folder: Path, results: Path, base_url: str) -> Workplace:
    place = Workplace(folder, base_url, **{"workflow.negatives": 5, "vlm.check_every": 100})
    place.results = results
    return place


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Pictures with boxes, in a folder with the input of a run."""
    folder = tmp_path_factory.mktemp("drawn")
    drawn = scenes(folder, PICTURES, seed=5, shrink=2)
    rows = [{"image_path": record["image_path"], "caption": captioned(record)} for record in drawn]
    Workplace(folder).rows(rows)
    return drawn


@pytest.fixture
def place(gold: list[dict[str, Any]], tmp_path: Path, server: LoopbackServer) -> Workplace:
    """The folder of `gold`, and results of the test's own."""
    return place_in(Path(gold[0]["image_path"]).parent, tmp_path / "results", server.base_url)


@pytest.fixture
def small_place(place: Workplace) -> Workplace:
    """That folder with FEW of its pictures."""
    rows = place.input.read_text(encoding="utf-8").splitlines()[:FEW]
    place.input = place.results.with_name("few.jsonl")
    place.rows(rows)
    return place


def finished(place: Workplace, **settings: Any) -> Done:
    done = place.run(**settings)
    assert done.code == 0, done
    return done


class Ran(NamedTuple):
    """A run with the settings of `place`."""

    place: Workplace
    model: Model
    done: Done

    @property
    def annotations(self) -> bytes | None:
        return self.place.files().annotations


@pytest.fixture(scope="module")
def ran(gold: list[dict[str, Any]], one_server: LoopbackServer) -> Ran:
    folder = Path(gold[0]["image_path"]).parent
    place = place_in(folder, folder / "results", one_server.base_url)
    one_server.answers = model = Model()
    return Ran(place, model, finished(place))


def negatives_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in record["expressions"] if item.get("source") == "negative"]


def test_what_is_kept_is_absent_and_says_what_was_changed(
    ran: Ran, gold: list[dict[str, Any]]
) -> None:
    changes = set()
    for truth, record in zip(gold, ran.place.annotations(), strict=True):
        kept = negatives_of(record)
        assert 0 < len(kept) <= 5
        own = {item["expression_id"] for item in record["expressions"] if item not in kept}
        for item in kept:
            assert (item["status"], item["instances"], item["verified"]) == ("none", [], True)
            assert not is_there(item["text"], truth)
            assert not {"rejected", "doubtful"} & set(item)
            assert item["verification"]["there"] is False
            assert (item.get("changed_from") in own) is (item["change"] != "other_image")
            changes.add(item["change"])
        assert "doubtful" not in record or record["doubtful"] is False
    assert changes == {"attribute", "relation", "number", "noun", "other_image"}


def test_what_is_left_out_says_why(ran: Ran, gold: list[dict[str, Any]]) -> None:
    there = 0
    for truth, record in zip(gold, ran.place.annotations(), strict=True):
        for candidate in record["negative_candidates"]:
            assert candidate["reason"]
            there += is_there(candidate["text"], truth)
    assert there > 0  # the model made some up that are there, and they were found out


def test_texts_and_ids_are_there_once_and_negatives_are_counted(ran: Ran) -> None:
    records = ran.place.annotations()
    for record in records:
        assert_all_differ(record)
    counted = ran.done.summary["notes"]["negatives"]
    assert counted == sum(len(negatives_of(record)) for record in records)


def assert_all_differ(record: dict[str, Any]) -> None:
    for name in ("text", "expression_id"):
        values = [item[name] for item in record["expressions"]]
        assert len(set(values)) == len(values)


def test_hardly_any_negative_is_there_with_a_judge_that_errs(
    tmp_path: Path, server: LoopbackServer
) -> None:
    """`benchmarks.box_quality --part negatives` has more pictures and judges."""
    gold = scenes(tmp_path, 14, seed=2, shrink=2)
    errors = Errors(absent=0.3, missing=0.1, noise=NOISE, accuracy=0.92)
    records: Any = with_some_told(gold)
    server.answers = PhrasingModel(errors, careless=0.3, seed=2)
    phrases = [item["text"] for item in gold[0]["expressions"]]
    for step in steps_of(serving_of(server), 5, phrases):
        records = step(records)
    texts = []
    for truth, record in zip(gold, records, strict=True):
        texts += [(item["text"], truth) for item in negatives_of(record)]
    assert len(texts) > 50
    assert not [text for text, truth in texts if is_there(text, truth)]


def test_the_judge_is_asked_about_what_was_not_found_alone(ran: Ran) -> None:
    requests = ran.model.asked("box_check")
    assert len(requests) == PICTURES
    assert not any(request.input["boxes"] for request in requests)
    all_asked = [{phrase["text"] for phrase in request.input["phrases"]} for request in requests]
    found_in_all = 0
    for record in ran.place.annotations():
        kept = {item["text"] for item in negatives_of(record)}
        left_out = record["negative_candidates"]
        found = {item["text"] for item in left_out if item["reason"] == "it was found"}
        assert any(asked >= kept and not asked & found for asked in all_asked)
        found_in_all += len(found)
    assert found_in_all > 0


def test_without_negatives_nothing_is_asked_and_what_was_stays_as_it_was(
    small_place: Workplace, server: LoopbackServer
) -> None:
    place = small_place
    server.answers = model = Model()
    finished(place, **{"workflow.negatives": 0})
    assert not model.asked("negative_phrases")
    plain = place.annotations()
    finished(place)
    first, sent = place.annotations(), server.count()
    assert any(negatives_of(record) for record in first)
    for path in place.results.rglob("annotations.jsonl"):
        path.unlink()
    finished(place)
    assert (place.annotations(), server.count()) == (first, sent), "the replies are stored"
    for before, after in zip(plain, first, strict=True):
        assert not negatives_of(before)
        left = [item for item in after["expressions"] if item.get("source") != "negative"]
        assert left == before["expressions"]


def test_with_a_check_boxes_and_negatives_are_judged_in_one_request(
    small_place: Workplace, server: LoopbackServer
) -> None:
    place = small_place
    place.settings["workflow.check"] = True
    server.answers = model = Model(Errors())
    told = estimated(place)
    assert server.count() == 0
    finished(place)
    requests = model.asked("box_check")
    assert len(requests) == told["box_check"] == FEW
    assert all(request.input["boxes"] for request in requests)
    assert len(model.asked("negative_phrases")) == FEW
    # phrases, and whether they are found; with tests of judge or format
    assert 2 * FEW <= told["negative_phrases"] <= 2 * FEW + 2, told
    for record in place.annotations():
        assert negatives_of(record)
        assert all(item["verification"] for item in record["expressions"])


def estimated(place: Workplace | ReferringPlace) -> dict[str, int]:
    """How many requests each step is said to take."""
    done = command(["estimate", "-e", str(place.spec()), "--json"])
    assert done.code == 0, done
    return {step["step"].partition("_")[2]: step["requests"] for step in done.summary["steps"]}


@pytest.mark.parametrize("task", TASKS)
def test_a_record_that_gets_no_negatives_keeps_its_boxes(
    small_place: Workplace, server: LoopbackServer, task: str
) -> None:
    place = small_place

    class Silent(Model):
        def __call__(self, request: ReceivedRequest) -> dict[str, Any]:
            answer = super().__call__(request)
            if request.task != task or about_probes(request):
                return answer
            if task == "phrase_grounding" and not self.asked("negative_phrases"):
                return answer  # of the caption's phrases
            return {"said": "nothing"}

    server.answers = Silent(careless=0.0)
    done = place.run(**{"workflow.max_attempts": 1, "workflow.stream": False})
    assert done.code == 1, done
    records = place.annotations()
    assert len(records) == FEW
    for record in records:
        assert all(item["instances"] for item in record["expressions"][:3])
        kept = negatives_of(record)
        assert not kept or (task == "negative_phrases" and kept[0]["change"] == "other_image")
    assert {row["step"].partition("_")[2] for row in place.failures()} <= set(STEPS)
    assert place.failures()


def test_a_wrong_number_is_told(place: Workplace) -> None:
    for count in (-1, 101, "many", 2.5):
        done = command(["check", "-e", str(place.spec(**{"workflow.negatives": count}))])
        assert done.code != 0
        assert "workflow.negatives" in done.err + done.out


def test_phrases_of_other_images_are_the_same_in_each_run_and_never_the_images_own(
    place: Workplace, server: LoopbackServer, ran: Ran, gold: list[dict[str, Any]]
) -> None:
    chosen = []
    server.answers = Model()
    place.input = place.results.with_name("more.jsonl")
    rows = [*gold, gold[0]]
    place.rows({"image_path": r["image_path"], "caption": captioned(r)} for r in rows)
    finished(place)
    for records in (ran.place.annotations(), place.annotations()[:PICTURES]):
        others = []
        for record in records:
            rows_of_it = [*negatives_of(record), *record["negative_candidates"]]
            texts = {item["text"] for item in rows_of_it if item["change"] == "other_image"}
            assert len(texts) <= 2
            assert not any(text in record["caption"] for text in texts)
            others.append(texts)
        chosen.append(others)
    assert any(chosen[0])
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize(
    ("there", "count", "reason"),
    [(False, 0, ""), (True, 1, "it may be there"), (None, None, "it may be there")],
)
def test_only_what_is_not_found_and_called_absent_is_kept(
    server: LoopbackServer,
    gold: list[dict[str, Any]],
    there: bool | None,
    count: int | None,
    reason: str,
) -> None:
    says = {
        "negative_phrases": {"negatives": [{"id": 1, "change": "noun", "text": "a cow"}]},
        "phrase_grounding": {"objects": []},
        "box_check": {"phrases": [{"id": 1, "there": there, "count": count}]},
    }
    own = {"text": "a dog", "instances": [{"bbox": [1, 2, 300, 400]}]}
    record = {"image_path": gold[0]["image_path"], "expressions": [own]}
    server.answers = lambda request: says[request.task]
    serving = serving_of(server, "xyxy_px")
    record = NegativePhraser(serving, check_every=None)(record)
    record = BoxChecker(serving, check_every=None, only_negatives=True)(record)
    dog, *cow = record["expressions"]
    assert dog["instances"][0]["bbox"] == [1, 2, 300, 400]
    assert "verification" not in dog
    assert [item["text"] for item in cow] == ([] if reason else ["a cow"])
    assert [item["reason"] for item in record["negative_candidates"]] == [reason][: bool(reason)]
    assert "doubtful" not in record


def test_what_the_caption_tells_is_no_candidate(
    server: LoopbackServer, gold: list[dict[str, Any]]
) -> None:
    negatives = [
        {"id": 2, "change": "attribute", "text": "the tiny Box"},
        {"id": 2, "change": "attribute", "text": "the huge box"},
        {"id": 1, "change": "noun", "text": "the old cup"},
    ]
    record = {"image_path": gold[0]["image_path"], "caption": "By the tiny box is a cup."}
    told = {"text": "the old cup on the table", "instances": []}
    there = {"text": "a box", "instances": [{"bbox": [1, 2, 30, 40]}], "expression_id": "mine"}
    absent = {"text": "a cow", "status": "none"}
    record["expressions"] = [told, absent, {**there, "text": "a cup"}, there]
    says = {"negative_phrases": {"negatives": negatives}, "phrase_grounding": {"objects": []}}
    server.answers = lambda request: says[request.task]
    phraser = NegativePhraser(serving_of(server, "xyxy_px"), check_every=None)
    made = phraser(record)["expressions"][4:]
    assert [(item["text"], item["changed_from"]) for item in made] == [("the huge box", "mine")]


def test_an_image_that_has_negatives_gets_no_more_than_it_lacks(
    server: LoopbackServer, gold: list[dict[str, Any]]
) -> None:
    server.answers = Model(Errors())
    serving = serving_of(server, "xyxy_px")
    counts = []
    records: Any = with_some_told(gold)
    for count in (1, 3, 3):
        for step in steps_of(serving, count, ["the cyan box", "a dog"]):
            records = step(records)
        assert not records.failures
        counts.append(sum(len(negatives_of(record)) for record in records))
        for record in records:
            assert_all_differ(record)
    assert counts == [PICTURES, 3 * PICTURES, 3 * PICTURES]
    sent = server.count()
    assert NegativePhraser(serving, 3)(records)[0]["negative_candidates"] == []
    assert server.count() == sent


def test_classes_keep_their_table(small_place: Workplace, server: LoopbackServer) -> None:
    place = small_place
    classes = ["the red box", "the blue box"]
    server.answers = Model()
    done = finished(place, **{"data.classes": classes})
    assert any(len(negatives_of(record)) > len(classes) for record in place.annotations())
    assert {row["class"] for row in done.summary["classes"]} == set(classes)


def test_a_detectors_boxes_may_have_negatives_too(
    place: Workplace, server: LoopbackServer, gold: list[dict[str, Any]]
) -> None:
    names = [expression["text"] for expression in gold[0]["expressions"]]
    pictures = pictures_of(gold, (600, 450))
    place.input = labelled(place.folder, "coco", pictures, classes=names, drawn=False)
    server.answers = Model()
    finished(place, **{"data.proposals": "coco"})
    for truth, record in zip(gold, place.annotations(), strict=True):
        assert negatives_of(record)
        assert not any(is_there(item["text"], truth) for item in negatives_of(record))


def test_region_types_are_phrases_of_other_images_in_a_referring_run(
    tmp_path: Path, server: LoopbackServer
) -> None:
    place = ReferringPlace(tmp_path / "work", server.base_url, **{"workflow.negatives": 3})
    for name, kind in (("a", "Car"), ("b", "Tram")):
        place.picture(f"{name}.png", color=(len(name), ord(name), 9))
        place.label(f"{name}.txt", [kitti(kind, 20, 30, 200, 300)])
    assert [*estimated(place)][-2:] == list(STEPS)
    done = place.run()
    assert done.code == 0, done
    assert server.by_task["negative_phrases"] == 2
    others = []
    for record in place.annotations():
        # this server says of every phrase that it is there
        assert not negatives_of(record)
        made = record["negative_candidates"]
        others.append([item["text"] for item in made if item["change"] == "other_image"])
    assert others == [["Tram"], ["Car"]]


def test_stats_tells_the_kinds_and_warns_of_too_many(ran: Ran, tmp_path: Path) -> None:
    place = ran.place
    negatives = [item for record in place.annotations() for item in negatives_of(record)]
    phrases = sum(len(record["expressions"]) for record in place.annotations())
    figures = command(["stats", str(place.results), "--json"]).summary
    assert sum(figures["negative_kinds"].values()) == len(negatives)
    assert set(figures["negative_kinds"]) == {item["change"] for item in negatives}
    assert figures["made_up_share"] == round(len(negatives) / phrases, 4)
    assert "made_up_share" not in figures["advice"]
    many = tmp_path / "many.jsonl"
    [record, *_] = place.annotations()
    made_up = [{**negatives[0], "text": f"{negatives[0]['text']} {number}"} for number in range(4)]
    record["expressions"] = [record["expressions"][0], *made_up]
    many.write_text(json.dumps(record) + "\n", encoding="utf-8")
    done = command(["stats", str(many)])
    assert "80.0%" in done.out
    assert "lower workflow.negatives" in done.out


def test_shards_make_the_same_negatives_as_one_run(
    place: Workplace, server: LoopbackServer, ran: Ran
) -> None:
    server.answers = Model()
    for number in (1, 2):
        assert place.run("--shard", f"{number}/2").code == 0
    merged = command(["merge", str(place.results)])
    assert merged.code == 0, merged
    assert place.files().annotations == ran.annotations
    assert all(negatives_of(record) for record in place.annotations())


def test_a_run_that_stops_amid_its_negatives_pays_for_nothing_twice(
    place: Workplace, server: LoopbackServer, ran: Ran
) -> None:
    server.answers = model = Model()
    assert place.run(**{"workflow.max_requests": 15, "workflow.max_workers": 1}).code == 3
    assert 0 < len(model.asked("box_check")) < PICTURES
    finished(place)
    # what goes on vouches again for the box format, for which one reply may be asked for twice
    assert ran.model.of_records <= model.of_records <= ran.model.of_records + 1
    assert place.files().annotations == ran.annotations
