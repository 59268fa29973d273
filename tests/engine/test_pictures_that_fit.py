"""Pictures that an endpoint refuses as too large are sent smaller; its limit is found out once."""

from __future__ import annotations

import base64
import io
import os
import random
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import OpenAIServing, Operator, Serving, ground, open_image
from dataflow_grounding.errors import PictureTooLarge, RequestRefused
from dataflow_grounding.images.image import ImageLimits
from dataflow_grounding.tasks import Request
from dataflow_grounding.testing import EchoAnswers, LoopbackServer, ReceivedRequest, on
from dataflow_grounding.testing.answers import asks_for_rectangles
from dataflow_grounding.testing.faults import Fault, FaultRule
from tests.support.endpoint import endpoint_of
from tests.support.workplace import LONG_AGO, Workplace, ended

MB = 1_000_000
EXAMPLES = Path(__file__).parents[2] / "example_data" / "images"
SIZE = (410, 340)  # of noise: a PNG of 0.42 MB, 0.56 in base64
MOST = 312_500
# Anthropic's words, with a sixteenth of its limit
ANTHROPIC = "image exceeds 0.3125 MB maximum: 558814 bytes > 327680 bytes"
# numbers that are no limit of a picture: an id, and a count of what was sent
NO_LIMITS = "Request 120034 rejected: request body too large, 400000 bytes"


def noise(path: Path, size: tuple[int, int] = SIZE, seed: int = 0, **coding: Any) -> str:
    """Write a picture of noise, which no coding makes small; it is an old file."""
    data = random.Random(seed).randbytes(size[0] * size[1] * 3)
    coding = coding or {"compress_level": 0}
    Image.frombytes("RGB", size, data).save(path, **coding)
    os.utime(path, LONG_AGO)
    return path.name


def in_base64(request: ReceivedRequest) -> int:
    return sum(4 * -(-image.size // 3) for image in request.images)


def in_the_middle(request: ReceivedRequest) -> Any:
    """The answer: each thing is in the middle of the picture, a quarter from each edge."""
    if request.task != "phrase_grounding" or asks_for_rectangles(request):
        return EchoAnswers()(request)
    [picture] = request.images
    size = request.input["image"]
    assert (picture.width, picture.height) == (size["width"], size["height"])  # as is stated
    box = [picture.width / 4, picture.height / 4, picture.width * 0.75, picture.height * 0.75]
    objects = []
    for phrase in request.input["phrases"]:
        objects.append({"id": phrase["id"], "label": phrase["text"], "bbox_2d": box})
    return {"objects": objects}


TOO_LARGE = Fault(413)


def above(most: int, fault: Fault = TOO_LARGE) -> FaultRule:
    """Requests with more characters of pictures than `most` are refused."""
    return on(fault, where=lambda request: in_base64(request) > most)


def taking(place: Workplace, most: int, **settings: Any) -> AbstractContextManager[LoopbackServer]:
    """An endpoint that takes so many characters of pictures."""
    return endpoint_of(place, in_the_middle, faults=above(most), **settings)


def with_pictures(workplace: Workplace, *names: str) -> None:
    """An input with a phrase about each picture."""
    workplace.rows({"image_path": name} for name in names)
    workplace.settings["data.classes"] = ["cup"]


def boxes(workplace: Workplace) -> list[list[float]]:
    found = []
    for record in workplace.annotations():
        for expression in record["expressions"]:
            found += [instance["bbox"] for instance in expression["instances"]]
    return found


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three PNGs of 0.42 MB and a small one."""
    folder = tmp_path_factory.mktemp("large")
    for number in range(3):
        noise(folder / f"{number}.png", seed=number)
    noise(folder / "small.png", (150, 100))
    assert (folder / "0.png").stat().st_size > 0.4 * MB
    return folder


@pytest.fixture
def place(workplace: Workplace, large: Path) -> Workplace:
    """A workplace with the large pictures and the small one, one request at a time."""
    for path in large.iterdir():
        os.link(path, workplace.folder / path.name)
    with_pictures(workplace, "0.png", "small.png", "1.png", "2.png")
    workplace.settings["workflow.max_workers"] = 1
    return workplace


@pytest.mark.parametrize(
    "fault",
    [Fault(413, body=b""), Fault(400, ANTHROPIC), Fault(413, NO_LIMITS)],
    ids=["413", "400 with words", "numbers that are no limit"],
)
def test_the_first_large_picture_costs_one_more_request_and_no_other_one(
    place: Workplace, fault: Fault
) -> None:
    with endpoint_of(place, in_the_middle, faults=above(MOST, fault)) as server:
        done = place.run()
        assert (done.code, done.summary["done"]) == (0, 4), done
        assert server.count(fault.status) == 1
        assert server.received == 5
        assert done.err.count("are sent smaller from now on") == 1
        assert "or fewer if those are refused" in done.err
        first_boxes = boxes(place)
        first_files = place.files()
        assert place.run().code == 0
        place.forget_all_but_replies()
        again = ended(place.start())  # by a process that knows nothing of this one
        assert (again.code, again.summary["done"]) == (0, 4), again
        assert server.received == 5
        assert place.files() == first_files
    large = [SIZE[0] / 4, SIZE[1] / 4, SIZE[0] * 0.75, SIZE[1] * 0.75]
    for box, expected in zip(first_boxes, [large, [37, 25, 112, 75], large, large], strict=True):
        assert box == pytest.approx(expected, abs=1)
    sent = {request.images[0].format for request in server.requests if in_base64(request) < MOST}
    assert sent == {"JPEG", "PNG"}  # the small one goes as it is
    # half of what was refused has room for all pixels
    assert max(request.images[0].width for request in server.requests[1:]) == SIZE[0]


def test_a_stated_limit_costs_no_request_and_is_one_of_pixels(place: Workplace) -> None:
    most = 100_000
    with taking(place, most) as server:
        assert place.run(**{"vlm.picture_bytes": most}).code == 0
        assert server.received == 4
    reduced = [request.images[0] for request in server.requests]
    reduced = [image for image in reduced if image.format == "JPEG"]
    assert len(reduced) == 3
    for image in reduced:
        assert 0.98 * most < image.width * image.height <= 1.01 * most


def test_a_limit_that_no_picture_reaches_changes_nothing(place: Workplace) -> None:
    with endpoint_of(place, in_the_middle) as server:
        assert place.run().code == 0
        assert place.run(**{"vlm.picture_bytes": 3 * MB}).code == 0
        assert server.received == 4
        assert {request.images[0].format for request in server.requests} == {"PNG"}


def test_requests_in_flight_cost_one_more_each_and_later_ones_none(workplace: Workplace) -> None:
    names = [noise(workplace.folder / f"n{number}.png", (250, 200), number) for number in range(8)]
    small = noise(workplace.folder / "a.png", (60, 40))
    with_pictures(workplace, small, *names)
    workplace.settings["workflow.max_workers"] = 4
    with taking(workplace, 125_000, latency=0.05) as server:
        done = workplace.run()
        assert (done.code, done.summary["done"]) == (0, 9), done
        assert 1 <= server.count(413) <= 4
        assert server.received == 9 + server.count(413)
        received = server.received
        workplace.forget_all_but_replies()
        assert workplace.run().code == 0
        assert server.received == received


def test_a_picture_that_is_refused_however_small_fails_alone(workplace: Workplace) -> None:
    large = noise(workplace.folder / "large.png", (250, 200))
    small = [noise(workplace.folder / f"{number}.png", (50, 40), number) for number in range(3)]
    with_pictures(workplace, small[0], large, *small[1:])
    workplace.settings["workflow.max_workers"] = 1
    refusal = above(9_000, Fault(413, "Payload too large"))
    with endpoint_of(workplace, in_the_middle, faults=refusal) as server:
        done = workplace.run()
        assert done.summary["failures"] == {"refused": 1}, done
        about_cups = [request for request in server.requests if "cup" in request.text]
        assert (server.count(413), len(about_cups)) == (3, 6)
        [failure] = workplace.failures()
        assert "Payload too large" in failure["message"]
        answered = [request for request in about_cups if in_base64(request) <= 9_000]
        assert {request.images[0].format for request in answered} == {"PNG"}  # as they are


def test_a_limit_told_for_a_small_picture_is_found_by_the_next_run(workplace: Workplace) -> None:
    picture = noise(workplace.folder / "a.png", (100, 80))  # 32,000 characters
    with_pictures(workplace, noise(workplace.folder / "b.png", (50, 40)), picture)
    workplace.settings["workflow.max_workers"] = 1
    with taking(workplace, 30_000) as server:
        assert workplace.run().code == 0
        assert server.received == 3
        workplace.forget_all_but_replies()
        assert workplace.run().code == 0
        assert server.received == 3


@pytest.mark.parametrize("stated", [MB // 2, None], ids=["stated", "found out"])
def test_tiles_fit_too(workplace: Workplace, stated: int | None) -> None:
    """Those in flight are reduced together."""
    picture = noise(workplace.folder / "large.png", (800, 650))
    with_pictures(workplace, noise(workplace.folder / "a.png", (60, 40)), picture)
    settings = {"workflow.tiles": {"size": 512}, "vlm.picture_bytes": stated}
    with taking(workplace, MB // 2, latency=0.05) as server:
        done = workplace.run(**settings)
        assert (done.code, done.summary["done"]) == (0, 2), done
        received = server.received
        if stated:
            assert (server.count(413), received) == (0, 2 + 4)
        else:
            assert server.count(413) > 1
        workplace.forget_all_but_replies()
        assert workplace.run(**settings).code == 0
        assert server.received == received


def test_what_was_noted_of_a_reply_counts_once(workplace: Workplace) -> None:
    """The whole picture is answered before a tile of it, of noise, is refused."""
    half_noise = Image.new("RGB", (1000, 500), "white")
    noisy = random.Random(3).randbytes(500 * 500 * 3)
    half_noise.paste(Image.frombytes("RGB", (500, 500), noisy), (500, 0))
    half_noise.save(workplace.folder / "half.jpg", quality=40)
    os.utime(workplace.folder / "half.jpg", LONG_AGO)
    with_pictures(workplace, "half.jpg")
    workplace.settings |= {"workflow.tiles": {"size": 600}, "workflow.max_workers": 1}

    def with_another_label(request: ReceivedRequest) -> Any:
        answer = in_the_middle(request)
        for each in answer["objects"]:
            each["label"] = "mug"
        return answer

    with endpoint_of(workplace, with_another_label, faults=above(300_000)) as server:
        done = workplace.run()
        assert done.code == 0, done
        assert server.count(413) == 1
        workplace.forget_all_but_replies()
        again = workplace.run()
    assert again.summary["requests"] == 0, again
    assert done.summary["notes"] == again.summary["notes"]


def test_probe_pictures_are_reduced_as_well(place: Workplace) -> None:
    with taking(place, MOST) as server:
        done = place.run(**{"vlm.check_every": 100})
        assert (done.code, done.summary["done"]) == (0, 4), done
        assert server.count(413) <= 2  # the first picture's, and of the probe that goes with it
        assert any(map(asks_for_rectangles, server.requests))
        received = server.received
        assert place.run(**{"vlm.check_every": 100}).code == 0
        assert server.received == received


def test_a_photo_keeps_its_quality(workplace: Workplace) -> None:
    with Image.open(EXAMPLES / "raccoon.jpg") as photo:  # of 640 x 480 px
        photo.save(workplace.folder / "photo.png")
    with_pictures(workplace, "photo.png")
    kept: list[bytes] = []

    def keeping(request: ReceivedRequest) -> Any:
        kept.extend(base64.b64decode(text) for text in request.encoded_images)
        return in_the_middle(request)

    with endpoint_of(workplace, keeping):
        assert workplace.run(**{"vlm.picture_bytes": 200_000}).code == 0
    [data] = kept
    best = io.BytesIO()
    Image.new("RGB", (8, 8)).save(best, "JPEG", quality=92)
    with Image.open(io.BytesIO(data)) as sent, Image.open(best) as like:
        assert sent.quantization == like.quantization
        assert 0.98 * 200_000 < sent.width * sent.height <= 1.01 * 200_000
    assert len(data) * 4 / 3 <= 200_000


class Comparer(Operator):
    """Asks about two pictures in one request."""

    name = "comparing"
    input_keys = {"image": "image_path"}
    output_keys = {"answer": "answer"}
    tasks = ("prompted_vqa",)

    def __init__(self, serving: OpenAIServing) -> None:
        self.serving = serving

    @property
    def limits(self) -> ImageLimits:
        assert self.serving is not None
        return self.serving.image_limits

    async def annotate(self, record: Any, ask: Any) -> dict[str, Any]:
        pictures = []
        for column in ("image_path", "other"):
            pictures.append(open_image(record, column, self.limits))
        sizes = [picture.sent_size for picture in pictures]
        question = {"prompt": "Which is larger?", "sizes": sizes}
        request: Request[Any] = Request(
            self.tasks[0], question, tuple(pictures), "Compare.", {}, lambda reply: (reply, [])
        )
        return {"answer": await ask(request)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("message", "least"),
    [
        pytest.param("Payload too large", 0.03 * MB, id="no limit is named"),
        pytest.param("Request body larger than 250000 bytes", 0.03 * MB, id="that of a request"),
    ],
)
def test_of_several_pictures_each_is_reduced(tmp_path: Path, message: str, least: float) -> None:
    row = {"image_path": "", "other": ""}
    for number, column in enumerate(row):
        row[column] = str(tmp_path / noise(tmp_path / f"{number}.png", (250, 200), number))
    with LoopbackServer(in_the_middle, faults=above(MB // 4, Fault(413, message))) as server:
        serving = OpenAIServing(server.base_url, "any", api_key="any")
        assert "scene" in Comparer(serving)(row)["answer"]
        assert (server.count(413), server.received) == (1, 2)
        [request] = [request for request in server.requests if in_base64(request) <= MB // 4]
        assert [list(size) for size in request.image_sizes] == request.input["sizes"]
        assert all(image.size * 4 / 3 > least for image in request.images)


def test_what_was_refused_before_is_asked_about_by_the_next_run(workplace: Workplace) -> None:
    small = noise(workplace.folder / "a.png", (60, 40))
    with_pictures(workplace, small, noise(workplace.folder / "b.png", (250, 200)))
    with endpoint_of(workplace, in_the_middle, faults=above(MB // 8, Fault(400, "no"))):
        done = workplace.run()
        assert done.summary["failures"] == {"refused": 1}, done
    with taking(workplace, MB // 8) as server:
        done = workplace.run()
        assert (done.code, done.summary["done"]) == (0, 2), done
        assert (server.count(413), server.received) == (1, 2)


class OwnServing(Serving):
    """A user's, which takes 125 KB."""

    model = "mine"
    box_format = "xyxy_px"
    exact_boxes = True

    def __init__(self) -> None:
        self.lengths: list[int] = []

    async def answer(self, request: Request[Any]) -> str:
        self.lengths.append(len(request.images[0].encoded()))
        if self.lengths[-1] > MB // 8:
            raise PictureTooLarge("I take 125 KB")
        return '{"objects": []}'


def test_a_serving_of_the_user_s_own_is_asked_with_smaller_pictures(tmp_path: Path) -> None:
    serving = OwnServing()
    picture = tmp_path / noise(tmp_path / "a.png", (250, 200))
    found = ground(str(picture), "the cat", serving=serving)
    assert [phrase.status for phrase in found.phrases] == ["none"]
    assert len(serving.lengths) == 2


class Careless(Comparer):
    """Opens pictures without its serving's limits."""

    limits = ImageLimits()  # type: ignore[assignment]


def test_an_operator_that_passes_over_the_limits_comes_to_an_end(tmp_path: Path) -> None:
    name = str(tmp_path / noise(tmp_path / "a.png", (250, 200)))
    with LoopbackServer(in_the_middle, faults=above(MB // 4)) as server:
        serving = OpenAIServing(server.base_url, "any", api_key="any")
        with pytest.raises(RequestRefused, match="413"):
            Careless(serving)({"image_path": name, "other": name})
        assert server.count(413) <= 5


def test_a_limit_under_which_no_picture_can_be_seen_is_refused(workplace: Workplace) -> None:
    workplace.many(1)
    done = workplace.run(**{"vlm.picture_bytes": 10})
    assert done.code == 2
    assert "picture_bytes" in done.err
