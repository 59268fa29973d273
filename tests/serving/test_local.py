"""A model in this process: its replies, those asked together, and what goes wrong with a model or
its memory.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import shutil
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from dataflow_grounding import CaptionGenerator, ExpressionExtractor, PhraseGrounder
from dataflow_grounding._util.errors import EndpointRefused
from dataflow_grounding.serving import LocalServing
from tests.support.stand_ins.tiny_vlm import BOX_OF, OF_SQUARES, asking_for_squares, tiny_vlm
from tests.support.workplace import Workplace, ended

pytestmark = pytest.mark.slow

for needed in ("torch", "transformers", "safetensors"):
    if find_spec(needed) is None:
        pytest.skip(f"needs {needed}", allow_module_level=True)
# The libraries are imported by the tests that use them: other workers need seconds less to begin.


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm(tmp_path_factory.mktemp("models") / "tiny", OF_SQUARES)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Eight, red and blue by turns, of several sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = [str(folder / f"{number}.png") for number in range(8)]
    for number, path in enumerate(paths):
        PIL.Image.new("RGB", (90 + number * 10, 100), "blue" if number % 2 else "red").save(path)
    return paths


def serving(model: Path, **given: Any) -> LocalServing:
    return LocalServing(
        str(model), **{"temperature": 0, "box_format": "xyxy_px", "num_gpus": 0, **given}
    )


def captions(served: LocalServing, pictures: list[str]) -> list[str]:
    return [
        row["caption"]
        for row in CaptionGenerator(served)([{"image_path": path} for path in pictures])
    ]


IN_TURNS = ["A red square.", "A square."] * 4


def test_it_reads_the_text_and_sees_the_picture(model: Path, pictures: list[str]) -> None:
    assert captions(serving(model), pictures) == IN_TURNS
    rows = [
        {"image_path": path, "caption": "The square.", "expressions": ["The square"]}
        for path in pictures
    ]
    found = PhraseGrounder(serving(model))(rows)
    boxes = [row["expressions"][0]["instances"][0]["bbox"] for row in found]
    assert boxes == [BOX_OF["red"], BOX_OF["blue"]] * 4


def place_with(model: Path, workplace: Workplace) -> Workplace:
    return asking_for_squares(model, workplace, [*BOX_OF])


def test_a_run_from_a_spec_costs_nothing_and_asks_nothing_twice(
    model: Path, workplace: Workplace
) -> None:
    place = place_with(model, workplace)
    done = place.run()
    assert done.code == 0, done
    found = [row["expressions"][0]["instances"][0]["bbox"] for row in place.annotations()]
    assert found == [*BOX_OF.values()]
    assert (done.summary["requests"], done.summary["cost_usd"]) == (4, 0)
    assert "Loading" in done.err
    again = place.run()
    assert "Loading" not in again.err
    assert again.summary["requests"] == 0


class Watched:
    """Counts what `generate` is asked together, and fails where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail: Any = None) -> None:
        import transformers

        self.sizes: list[int] = []
        real = transformers.LlavaForConditionalGeneration.generate

        def generate(model: Any, **given: Any) -> Any:
            self.sizes.append(len(given["input_ids"]))
            if fail is not None:
                fail(given)
            return real(model, **given)

        monkeypatch.setattr(transformers.LlavaForConditionalGeneration, "generate", generate)


def test_what_waits_is_asked_together(
    model: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    assert captions(serving(model, max_workers=3), pictures) == IN_TURNS
    assert max(watched.sizes) in (2, 3)
    assert sum(watched.sizes) == len(pictures)


def test_a_batch_that_memory_does_not_do_for_is_halved(
    model: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(given: Any) -> None:
        import torch

        if len(given["input_ids"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    watched = Watched(monkeypatch, out_of_memory)
    assert captions(serving(model), pictures) == IN_TURNS
    assert max(watched.sizes) > 1


def test_what_one_request_breaks_fails_it_alone(
    model: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_blue(given: Any) -> None:
        if (
            given["pixel_values"][:, 2].mean(dim=(1, 2))
            > given["pixel_values"][:, 0].mean(dim=(1, 2))
        ).any():
            raise ValueError("Image features and image tokens do not match")

    Watched(monkeypatch, no_blue)
    found = CaptionGenerator(serving(model))(
        [{"image_path": path} for path in pictures], on_error="keep"
    )
    assert [row.get("caption") for row in found] == ["A red square.", None] * 4


def test_a_stop_in_the_middle_leaves_nobody_waiting(model: Path, pictures: list[str]) -> None:
    served = serving(model)
    [request] = asked_for(pictures[:1])

    async def one_gives_up() -> list[Any]:
        first, *others = [asyncio.create_task(served.answer(request)) for _ in range(4)]
        await asyncio.sleep(0.05)
        first.cancel()
        return [reply.text for reply in await asyncio.gather(*others)]

    assert asyncio.run(one_gives_up()) == ['{"caption": "A red square."}'] * 3


def test_a_reply_is_cut_off_where_no_end_comes(model: Path, pictures: list[str]) -> None:
    [request] = asked_for(pictures[:1])
    reply = asyncio.run(serving(model, max_tokens=1).answer(request))
    assert (reply.finish_reason, reply.usage.output_tokens) == ("length", 1)
    whole = asyncio.run(serving(model).answer(request))
    assert (whole.finish_reason, whole.usage.output_tokens) == ("stop", 2)
    assert whole.usage.input_tokens > len(request.text)  # this model's tokens are letters


SYSTEM = {
    "left out": "{% set messages = messages[-1:] %}",
    "refused": "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}",
    "a text": "{% if messages[0].role == 'system' %}<system>{{ '' + messages[0].content }}{% set messages = messages[1:] %}{% endif %}",
    "printed": "{% if messages[0].role == 'system' %}<system>{{ messages[0].content }}{% set messages = messages[1:] %}{% endif %}",
}
"""What templates do with a system message, put before the model's own."""


@pytest.fixture(scope="module")
def usual_tokens(model: Path, pictures: list[str]) -> int:
    [request] = asked_for(pictures[:1])
    return asyncio.run(serving(model).answer(request)).usage.input_tokens


@pytest.mark.parametrize("way", SYSTEM)
def test_no_template_loses_the_system_message(
    way: str, model: Path, usual_tokens: int, tmp_path: Path, pictures: list[str]
) -> None:
    own = Path(shutil.copytree(model, tmp_path / "own"))
    template = (own / "chat_template.jinja").read_text()
    (own / "chat_template.jinja").write_text(SYSTEM[way] + template)
    [request] = asked_for(pictures[:1])
    # "<system>" is one token, the others are letters
    lines = len("\n\n") - 1 if way in ("left out", "refused") else 0
    assert asyncio.run(serving(own).answer(request)).usage.input_tokens == usual_tokens + lines


def test_tokens_of_the_model_in_a_caption_are_letters(
    model: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    unknown: list[int] = []
    known = transformers.AutoTokenizer.from_pretrained(model).unk_token_id
    Watched(monkeypatch, lambda given: unknown.append(int((given["input_ids"] == known).sum())))
    rows = [
        {"image_path": pictures[0], "caption": caption}
        for caption in ("The square.", "The [UNK] square.")
    ]
    ExpressionExtractor(serving(model, max_workers=1))(rows)
    assert len(unknown) == 2
    assert len({*unknown}) == 1


def test_a_serving_that_was_asked_can_be_sent_elsewhere(model: Path, pictures: list[str]) -> None:
    served = serving(model)
    before = captions(served, pictures)
    assert captions(pickle.loads(pickle.dumps(served)), pictures) == before


def test_an_interrupt_ends_a_long_reply(model: Path, tmp_path: Path, workplace: Workplace) -> None:
    """One that would take minutes."""
    endless = Path(shutil.copytree(model, tmp_path / "endless"))
    settings = endless / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "eos_token_id": 5}))
    place = place_with(endless, workplace)
    place.settings["vlm.local"]["max_tokens"] = 200_000
    running = place.start(env={"OMP_NUM_THREADS": "1"})  # it works until it is stopped
    assert running.stderr is not None
    while "Loading weights" not in running.stderr.read(64):
        assert running.poll() is None
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    done = ended(running)
    assert done.code == 130, done


def asked_for(pictures: list[str]) -> list[Any]:
    """The requests for captions of pictures."""
    from dataflow_grounding.data.records import Record
    from dataflow_grounding.images.image import open_image
    from dataflow_grounding.tasks.captions import image_caption

    return [
        image_caption(open_image(Record({"image_path": path}), "image_path")) for path in pictures
    ]


def test_other_weights_are_another_model_and_a_copy_is_the_same(
    model: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(model, tmp_path / "copy"))
    first, same = serving(model).identity(), serving(copied).identity()
    assert first["revision"] == same["revision"]
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert serving(copied).identity()["revision"] != first["revision"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no/such-model", "can't have no/such-model (main) from the Hub"),
        ("{}", "holds no model: it lacks config.json"),
    ],
)
def test_a_model_that_is_not_there_is_said_before_anything(
    name: str,
    said: str,
    model: Path,
    workplace: Workplace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    place = place_with(model, workplace)
    place.settings["vlm.local"]["model_name"] = name.format(tmp_path)
    done = place.run()
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err


def test_missing_weights_are_not_made_up(model: Path, tmp_path: Path, pictures: list[str]) -> None:
    from safetensors.torch import load_file, save_file

    lacking = Path(shutil.copytree(model, tmp_path / "lacking"))
    weights = load_file(lacking / "model.safetensors")
    weights.pop(next(name for name in weights if name.endswith("o_proj.weight")))
    save_file(weights, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(EndpointRefused, match="no weights for 1 of its parts"):
        captions(serving(lacking), pictures)


def test_a_model_that_can_not_be_loaded_stops_the_run(
    model: Path, tmp_path: Path, workplace: Workplace
) -> None:
    broken = Path(shutil.copytree(model, tmp_path / "broken"))
    (broken / "config.json").write_text('{"model_type": "bert"}')
    done = place_with(broken, workplace).run()
    assert done.code == 4
    assert "can't be loaded" in done.err
    assert "Traceback" not in done.err
