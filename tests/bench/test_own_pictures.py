"""`bench --pictures DIR --gold FILE`: ways of asking compared on a user's own pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding.bench.choosing import choice_of
from dataflow_grounding.testing import LoopbackServer
from tests.support.benching import bench
from tests.support.endpoint import Serves
from tests.support.half_filled import scenes
from tests.support.stand_ins.asking_model import AskingModel
from tests.support.stand_ins.heeding_model import Heeding

OWN = ("--pictures", "pictures", "--gold", "gold.jsonl")


def write_gold(records: list[dict[str, Any]], path: str = "gold.jsonl") -> None:
    """Write records as a gold file that names pictures by their last part."""
    named = [{**record, "image_path": Path(record["image_path"]).name} for record in records]
    Path(path).write_text("".join(json.dumps(record) + "\n" for record in named))


@pytest.fixture
def gold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The gold records of 20 pictures in `pictures`, which `gold.jsonl` has, too."""
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    records = scenes(Path("pictures"), 20)
    write_gold(records)
    return records


@pytest.fixture
def server(serves: Serves) -> LoopbackServer:
    """A model that gets 40% right, and 90% in lines."""
    return serves(Heeding(AskingModel({"without JSON": 0.9, "": 0.4})), keep_bodies=True)


def test_the_best_way_is_told_with_the_keys_that_ask_so(
    gold: list[dict[str, Any]], server: LoopbackServer
) -> None:
    Path("pictures", "0-3.png").unlink()
    done = bench(server, *OWN, "--ways", "lines,plain")
    assert done.code == 0, done
    assert "1 picture of gold.jsonl not in pictures: 0-3.png" in done.err
    # the first way stays unless another is shown to be better
    assert "best: lines, as no other way was shown to be better." in done.err
    document = json.loads(Path("bench_own/bench.json").read_text())
    figures = {way: of_way["figures"] for way, of_way in document["ways"].items()}
    low, high = figures["lines"]["all"]["mean_f1"]["interval"]
    assert low <= 0.9 <= high
    assert len(figures["plain"]["scores"]) == len(gold) - 1
    sent = server.count()
    again = bench(server, *OWN, "--ways", "plain,lines")
    assert (again.code, server.count()) == (0, sent)
    assert "best: lines (vlm.asking: lines), +" in again.err
    assert ["lines", "+0"] in [line.split(".")[0].split() for line in again.out.splitlines()]


@pytest.mark.slow
def test_a_form_of_asking_is_a_way_and_no_setting(gold: list[dict[str, Any]]) -> None:
    Path("spec.yaml").write_text("vlm: {asking: json}\n", encoding="utf-8")
    done = bench(None, *OWN, "-e", "spec.yaml", "--ways", "json,plain")
    assert done.code == 2
    assert "leave out vlm.asking" in done.err


@pytest.mark.slow
def test_of_several_better_ways_the_best_is_chosen_by_wider_intervals() -> None:
    """Where there are more ways, one is better by chance more often."""
    scores = {"plain": [0.3] * 16, "json": [0.4] * 16, "lines": [n / 16 for n in range(5, 21)]}
    ways = {way: {"figures": {"scores": of_way}} for way, of_way in scores.items()}
    choice = choice_of({"ways": ways}, "plain")
    assert (choice.best, [gain.way for gain in choice.gains]) == ("lines", ["json", "lines"])
    [alone] = choice_of({"ways": {way: ways[way] for way in ("plain", "lines")}}, "plain").gains
    of_two = choice.gains[1]
    assert 0 < of_two.low < alone.low < alone.value < alone.high < of_two.high


WRONG = {
    "no gold": (["--pictures", "pictures", "--gold", "nowhere.jsonl"], "no nowhere.jsonl"),
    "gold without a folder": (["--gold", "gold.jsonl"], "--gold goes with --pictures DIR"),
    "no such folder": (["--pictures", "nowhere", "--gold", "gold.jsonl"], "no folder nowhere"),
    "a folder without gold": (["--pictures", "pictures"], "goes with --gold FILE"),
    "no number": (["--pictures", "many"], "should be a number from 1, or a folder"),
    "an unknown way": ([*OWN, "--ways", "plain,psychic"], "'psychic' is not one of plain"),
    "no boxes": ([*OWN, "--ways", "plain,spans"], "leave spans out of --ways"),
    "no picture in common": (
        ["--pictures", "empty", "--gold", "gold.jsonl"],
        "gold.jsonl and empty have no picture in common: gold.jsonl names 0-0.png",
    ),
    "too few": (["--pictures", "pictures", "--gold", "few.jsonl"], "few.jsonl has phrases for 3 pictures of pictures: a comparison needs 8 or more"),
}  # fmt: skip


@pytest.mark.slow
def test_what_cannot_be_compared_is_told_in_a_line(gold: list[dict[str, Any]]) -> None:
    Path("empty").mkdir()
    write_gold(gold[:3], "few.jsonl")
    for name, (arguments, message) in WRONG.items():
        done = bench(None, *arguments)
        assert done.code == 2, name
        [line] = [line for line in done.err.splitlines() if line.startswith("Error: ")]
        assert message in line, name
