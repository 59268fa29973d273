"""Makes frontier.svg, the picture of docs/cascade.md: a pilot of 40 pictures, with two stand-in
models on this machine.

python docs/pictures/frontier.py
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.places.workplace import Workplace, command  # noqa: E402
from benchmarks.stand_ins.check_quality import scenes  # noqa: E402
from benchmarks.stand_ins.models_by_name import ModelsByName  # noqa: E402
from benchmarks.stand_ins.seeing_model import COLORS  # noqa: E402
from dataflow_grounding.extras.testing import LoopbackServer  # noqa: E402

PICTURE = Path(__file__).with_name("frontier.svg")
PILOT = 40
ALL = 1000
PRICES = {"input": 0.10, "output": 0.40}
DEARER = {"input": 1.25, "output": 10.0}


def main() -> None:
    """Run the pilot, print its table, and keep its picture."""
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder, "work"))
        gold = scenes(place.folder, PILOT, seed=5)
        rows = [{"image_path": record["image_path"]} for record in gold]
        place.rows(rows[number % PILOT] for number in range(ALL))
        gold_path = place.folder / "gold.jsonl"
        gold_path.write_text("".join(json.dumps(record) + "\n" for record in gold))
        with LoopbackServer(ModelsByName(), keep_bodies=True, record=False) as server:
            large = {"openai": {"model_name": "large"}, "prices": DEARER}
            spec = place.spec(
                **{
                    "vlm.openai.base_url": server.base_url,
                    "vlm.box_format": "xyxy_1000",
                    "vlm.prices": PRICES,
                    "vlm.cascade": [
                        "small",
                        {**large, "box_format": "xyxy_1000", "check_every": None},
                    ],
                    "workflow.check": True,
                    "data.classes": [f"the {color} box" for color in sorted(COLORS)[:2]],
                }
            )
            pilot = ["--pilot", str(PILOT), "--gold", str(gold_path), "--no-progress"]
            done = command(["generate", "-e", str(spec), *pilot, "--no-report"])
        if done.code:
            raise SystemExit(str(done))
        print(done.out)  # noqa: T201
        shutil.copy(place.results / "frontier.svg", PICTURE)


if __name__ == "__main__":
    main()
