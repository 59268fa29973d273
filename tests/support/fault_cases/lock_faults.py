"""Two runs on one folder."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

from tests.support.fault_cases.fault_case import REFUSED, Case, Outcome, Witness, until
from tests.support.forking import Forked
from tests.support.waiting import wait_until
from tests.support.workplace import Workplace, command, ended


def other_labels(place: Workplace, full: bool) -> Outcome:
    """A second run of referring expressions, with other labels, in a first one's folder: it changes
    nothing there.
    """
    with Witness([until(refused := Event())]) as witness:
        names = [place.picture(f"img/{n}.jpg") for n in range(12 if full else 3)]
        specs = []
        for which, box in (("one", "2 3 22 23"), ("other", "30 10 50 30")):
            for name in names:
                label = place.folder / which / f"{Path(name).stem}.txt"
                label.parent.mkdir(exist_ok=True)
                label.write_text(f"Car 0 0 0 {box} 0 0 0 0 0 0 0\n")
            openai = {"base_url": witness.server.base_url, "model_name": "loopback"}
            spec = {
                "results_dir": str(place.results),
                "autolabel_type": "image_referring_expression",
                "image_referring_expression": {
                    "vlm": {"backend": "openai", "box_format": "xyxy_px", "openai": openai},
                    "data": {
                        "image_dir": str(place.folder / "img"),
                        "kitti_label_dir": str(place.folder / which),
                    },
                },
            }
            specs.append(place.folder / f"{which}.yaml")
            specs[-1].write_text(json.dumps(spec))
        first = Forked(["generate", "-e", str(specs[0]), "--no-progress"])
        wait_until(lambda: witness.sent >= 1, first)
        seeds = place.results / "seed_annotations.jsonl"
        before = seeds.read_bytes()
        second = command(["generate", "-e", str(specs[1]), "--no-progress"])
        refused.set()
        assert second.code == 2, second
        assert "another run is working" in second.err
        assert seeds.read_bytes() == before
        assert ended(first).code == 0
        assert seeds.read_bytes() == before
        done = {record["image_id"] for record in place.annotations()}
        return Outcome(witness.sent, witness.twice, len(names) - len(done))


LOCKS: list[Case] = [Case("a second run: with other labels", REFUSED, other_labels)]
