"""`ground()`: phrases in one image, in Python."""

from __future__ import annotations

import asyncio
import doctest
import json
import pickle
import threading
import traceback
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas
import pytest
from PIL import Image

from dataflow_grounding import (
    EmbeddedServing,
    GroundingError,
    OpenAIServing,
    Serving,
    errors,
    ground,
    grounded,
)
from dataflow_grounding.grounded import Grounded, aground
from dataflow_grounding.serving import Reply
from dataflow_grounding.tasks import Request
from dataflow_grounding.testing import LoopbackServer
from tests.support import faults
from tests.support.workplace import ended, process

OBJECTS = {
    "objects": [
        {"id": 1, "label": "a", "bbox_2d": [480, 540, 1440, 949], "score": 0.5},
        {"id": 3, "label": "c", "bbox_2d": [0, 0, 10, 20], "score": 0.25},
    ]
}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("warehouse") / "warehouse.png"
    Image.new("RGB", (1920, 1080), "navy").save(path)
    return path


@pytest.fixture(scope="module")
def found(picture: Path) -> Grounded:
    with LoopbackServer(lambda request: OBJECTS) as server:
        return ground(picture, ["a", "b", "c"], serving=serving(server))


def serving(server: LoopbackServer, **settings: Any) -> Serving:
    return OpenAIServing(server.base_url, "loopback", box_format="xyxy_px", timeout=60, **settings)


class Zoomed(Serving):
    """Finds a small box in the whole picture, and another one in a part of it."""

    model = "zoomed"
    box_format = "xyxy_px"
    takes_probes = False
    asked = 0

    async def answer(self, request: Request[Any]) -> Reply:
        self.asked += 1
        whole = request.images[0].sent_size == (1920, 1080)
        box = [960, 540, 990, 560] if whole else [0, 0, 30, 30]
        return Reply(json.dumps({"objects": [{"id": 1, "bbox_2d": box}]}))


def test_with_zoom_small_boxes_are_looked_for_again(picture: Path) -> None:
    model = Zoomed()
    ways: dict[str, Any] = {"serving": model, "samples": 2, "check_every": None}
    [plain], [zoomed] = (ground(picture, "a", **ways, zoom=zoom) for zoom in (False, True))
    assert model.asked == 2 + 2 + 2
    assert plain.bbox == (960, 540, 990, 560)
    assert zoomed.bbox != plain.bbox


@pytest.mark.slow
def test_boxes_are_pixels_and_have_their_phrase(found: Grounded) -> None:
    assert [(box.phrase, box.bbox, box.score) for box in found] == [
        ("a", (480, 540, 1440, 949), 0.5),
        ("c", (0, 0, 10, 20), 0.25),
    ]
    assert [phrase.status for phrase in found.phrases] == ["grounded", "none", "grounded"]
    assert (found.size, found.model, len(found)) == ((1920, 1080), "loopback", 2)


@pytest.mark.slow
def test_normalized_is_datature_vis_example_the_other_way(found: Grounded) -> None:
    assert found.normalized(1024)[0] == pytest.approx((256, 512, 768, 900), abs=0.5)
    assert found[0].normalized() == found.normalized()[0]
    assert found[0].normalized(1) == pytest.approx((0.25, 0.5, 0.75, 949 / 1080))


@pytest.mark.slow
def test_supervision_gets_the_same_boxes(found: Grounded) -> None:
    pytest.importorskip("supervision")
    detections = found.to_supervision()
    assert detections.xyxy.tolist() == [[480, 540, 1440, 949], [0, 0, 10, 20]]
    assert detections.class_id.tolist() == [0, 2]
    assert detections.confidence.tolist() == [0.5, 0.25]
    assert detections.data["class_name"].tolist() == ["a", "c"]


def test_without_supervision_the_extra_is_named(
    found: Grounded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(GroundingError, match=r"dataflow-grounding\[supervision\]"):
        found.to_supervision()


class Refusing(Serving):
    model = "refusing"
    box_format = "xyxy_px"

    async def answer(self, request: Request[Any]) -> Reply:
        return Reply("", refusal="no")


@pytest.mark.slow
def test_all_that_goes_wrong_is_one_exception(picture: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    wrong: list[tuple[str, Path, Any, dict[str, Any]]] = [
        ("no image", tmp_path / "no.png", "a", {}),
        ("not a readable image", broken, "a", {}),
        ("no", picture, "a", {}),  # what the model says
        ("' ' is not one", picture, " ", {}),
        ("5 is not one", picture, ["a", 5], {}),
        ("a text or several, not DataFrame", picture, pandas.DataFrame([{"phrase": "a cup"}]), {}),
        ("takes no zooom", picture, "a", {"zooom": True}),
        ("1 or more", picture, "a", {"samples": 0}),
    ]
    for message, path, phrases, settings in wrong:
        with pytest.raises(GroundingError, match=message):
            ground(path, phrases, serving=Refusing(), **settings)
    with (
        LoopbackServer(faults=lambda request: faults.unauthorized()) as server,
        pytest.raises(GroundingError, match="401"),
    ):
        ground(picture, "a", serving=serving(server))


@pytest.mark.slow
def test_the_example_of_its_docstring_runs() -> None:
    done = doctest.testmod(grounded)
    assert (done.attempted > 2, done.failed) == (True, 0)


@pytest.mark.slow
def test_in_asyncio_many_are_at_work_and_the_loop_goes_on(picture: Path) -> None:
    """No answer comes until three are asked for at once, and the loop has gone on meanwhile."""
    ticks = at_work = 0

    class Held(OpenAIServing):
        held = False

        async def answer(self, request: Request[Any]) -> Reply:
            nonlocal at_work
            at_work += 1
            while self.held and (at_work <= 3 or ticks <= 10):
                await asyncio.sleep(0.01)
            return await super().answer(request)

    with LoopbackServer() as server:
        ours = Held(server.base_url, "loopback", box_format="xyxy_px")
        ground(picture, "a first cup", serving=ours, check_every=None)
        ours.held = True
        at_work = 0

        async def count() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.02)
                ticks += 1

        async def all_of_them() -> list[Any]:
            ticking = asyncio.ensure_future(count())
            asked = [
                aground(picture, f"cup {n}", serving=ours, check_every=None) for n in range(12)
            ]
            found = await asyncio.gather(*asked)
            ticking.cancel()
            return found

        found = asyncio.run(all_of_them())
        assert [each.phrases[0].text for each in found] == [f"cup {n}" for n in range(12)]
    with pytest.raises(GroundingError, match="name at least one thing"):
        asyncio.run(aground(picture, []))


def test_what_is_raised_can_be_caught_by_the_name_that_it_shows_and_pickled() -> None:
    with pytest.raises(errors.ImageMissing) as caught:
        ground("gone.jpg", ["a cup"], serving=EmbeddedServing())
    shown = traceback.format_exception_only(caught.value)[0]
    assert shown.startswith("dataflow_grounding.errors.ImageMissing: no image 'gone.jpg'")
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert (kind.__module__, kind.__name__) == ("dataflow_grounding.errors", name)
        error = kind("it", "parquet") if name == "MissingExtra" else kind("it")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (kind, str(error))


def test_an_error_of_ones_own_keeps_its_module() -> None:
    class Mine(errors.RecordError):
        pass

    assert Mine.__module__ == __name__


FORKED = """
import asyncio, os
from dataflow_grounding import EmbeddedServing
from dataflow_grounding.grounded import aground

def asked():
    found = asyncio.run(aground(picture, "a cup", serving=EmbeddedServing()))
    return found.phrases[0].status

before = asked()
child = os.fork()
if child == 0:
    os._exit(0 if asked() == before else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_a_forked_process_has_threads_of_its_own(picture: Path) -> None:
    """One that waited for its parent's would not come to an end."""
    done = ended(process([], first=f"picture = {str(picture)!r}\n{FORKED}"))
    assert done.code == 0, done


@pytest.mark.slow
def test_an_address_is_fetched_where_that_is_allowed(picture: Path) -> None:
    folder = partial(SimpleHTTPRequestHandler, directory=picture.parent)
    site = ThreadingHTTPServer(("127.0.0.1", 0), folder)
    threading.Thread(target=site.serve_forever).start()
    host = f"127.0.0.1:{site.server_address[1]}"
    address = f"http://{host}/{picture.name}"
    try:
        with LoopbackServer(lambda request: OBJECTS) as server:
            asked = serving(server)
            with pytest.raises(errors.ImageMissing, match="it is fetched with allow_http=True"):
                ground(address, "a", serving=asked)
            with pytest.raises(errors.BrokenRow, match="an address of this machine"):
                ground(address, "a", serving=asked, allow_http=True)
            assert server.count() == 0
            found = ground(address, "a", serving=asked, allow_hosts=[host])
            assert [box.bbox for box in found] == [(480, 540, 1440, 949)]
            assert (found.image_path, found.draw().size) == (address, (1920, 1080))
    finally:
        site.shutdown()
        site.server_close()


def test_rows_are_refused_with_what_to_call() -> None:
    row = {"image_path": "a.jpg"}
    rows: Any
    for rows in (row, [row], ["a.jpg"], pandas.DataFrame([row])):
        with pytest.raises(errors.SpecError, match=r"call PhraseGrounder\(serving\)\(rows\)"):
            ground(rows, "a", serving=EmbeddedServing())


@pytest.mark.slow
def test_a_notebook_shows_an_error_of_ours_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    cell = "from dataflow_grounding import ground\nground('gone.jpg', 'a cup')"
    shell = "from IPython.core.interactiveshell import InteractiveShell\n"
    shell += f"InteractiveShell().run_cell({cell!r})\nraise SystemExit"
    done = ended(process([], first=shell, cwd=tmp_path, env={"IPYTHONDIR": str(tmp_path)}))
    [line] = done.out.splitlines()
    assert line.startswith("ImageMissing: no image 'gone.jpg'")
