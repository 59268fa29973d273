"""Whole runs of `generate` against a model whose boxes are as photos have them (people tall, cars
wide, sizes log-normal, pictures mostly 4:3), and which may come in another format.

They have the defaults: probe pictures before the first request and once in every 100. A wrong
answer is one whose last reply came in another format.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.testing import LoopbackServer
from tests.support.pacing import lognormal
from tests.support.stand_ins.watched_model import (
    AXIS_BY_AXIS,
    MIXED,
    PEOPLE,
    SQUARES,
    WIDE,
    FormatOf,
    Scene,
    WatchedModel,
    grounding_input,
)
from tests.support.workplace import Workplace

IN_FLIGHT = 8
LATENCY = lognormal(0.03, 0.5)
SWITCHES = [
    ("order", "xyxy_1000", "yxyx_1000", Scene()),
    ("order, y first before", "yxyx_1000", "xyxy_1000", Scene()),
    ("scale", "xyxy_1000", "xyxy_px", Scene()),
    ("scale, pixels before", "xyxy_px", "xyxy_1000", Scene()),
    ("order, people only", "xyxy_1000", "yxyx_1000", Scene(things=PEOPLE)),
    ("order, small things", "xyxy_1000", "yxyx_1000", Scene(area=-6.5)),
]
BLIND = (
    "order, squares anywhere",
    "xyxy_1000",
    "yxyx_1000",
    Scene(things=SQUARES, level=False, sizes=((640, 640),)),
)
"""Nothing in the numbers changes: only the check after every 100 requests can tell."""

MINORITY_OF = (
    "yxyx_1000",
    "xywh_1000",
    "cxcywh_1000",
    "xyxy_px",
    "xyxy_100",
    "yxyx_px",
    AXIS_BY_AXIS,
)
PORTRAIT, LANDSCAPE = (480, 640), (640, 480)
HALF_PORTRAITS: tuple[Size, ...] = (LANDSCAPE, PORTRAIT)

RIGHT = {
    "all things": Scene(),
    "small things": Scene(area=-6.5),
    "people only": Scene(things=PEOPLE),
    "one corner": Scene(corner=True),
    "panoramas": Scene(sizes=WIDE),
    "one phrase per request": Scene(most_phrases=1),
    "mostly empty": Scene(empty=0.8),
    "squares anywhere": Scene(things=SQUARES, level=False),
    "one size": Scene(sizes=((800, 800),)),
    "few phrases": Scene(things=MIXED[:2]),
    "one thing always at one place": Scene(logo=True),
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: Its exit code.
        answers: Questions about its pictures that were answered.
        replied_wrong: Answers of which a reply came in another format.
        wrong: Answers whose last reply came in another format.
        unmarked: Those of them whose records are not marked as suspect.
        probes: Probe pictures.
        said: Its message.
        wrote: Whether it wrote its results.
        suspects: Records that are marked as suspect in them.
    """

    code: int
    answers: int
    replied_wrong: int
    wrong: int
    unmarked: int
    probes: int
    said: str
    wrote: bool
    suspects: int


def play(
    format_of: FormatOf,
    asked: str,
    scene: Scene,
    *,
    records: int,
    seed: int = 0,
    noise: float = 0.01,
    outliers: float = 0.05,
    swapped: float = 0.0,
    missing: float = 0.0,
) -> Outcome:
    """One run of `generate`, step 1 alone."""
    model = WatchedModel(
        format_of,
        scene,
        seed=seed,
        noise=noise,
        outliers=outliers,
        swapped=swapped,
        missing=missing,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        LoopbackServer(model, latency=LATENCY, record=False) as server,
    ):
        place = Workplace(
            Path(folder), server.base_url, **{"vlm.check_every": 100, "workflow.steps": ["1"]}
        )
        grounding_input(place, scene, records, seed)
        done = place.run(**{"vlm.box_format": asked, "workflow.max_workers": IN_FLIGHT})
        wrote = (place.results / "annotations.jsonl").exists()
        marked = marked_pictures(place) if wrote else set()
    wrong = [reply for reply in model.last_replies() if reply.written != asked]
    unmarked = [reply for reply in wrong if reply.image not in marked]
    return Outcome(
        code=done.code,
        answers=len(model.replies),  # each picture of these runs is asked about once
        replied_wrong=sum(
            any(reply.written != asked for reply in replies) for replies in model.replies.values()
        ),
        wrong=len(wrong),
        unmarked=len(unmarked),
        probes=model.probes,
        said=done.err,
        wrote=wrote,
        suspects=len(marked),
    )


def marked_pictures(place: Workplace) -> set[str]:
    """The sha256 of the pictures of the records that are marked as suspect."""
    paths = [
        Path(record["image_path"]) for record in place.annotations() if record.get("suspect_boxes")
    ]
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
