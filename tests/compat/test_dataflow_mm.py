"""DataFlow-MM: its operators on our servings, our operators on its servings, and its names over
ours.

DataFlow-MM is not on a package index. What is called `Their…` here is written from its public
interfaces: the same arguments, in the same order, and the same calls.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dataflow_grounding import (
    FileStorage,
    GeminiServing,
    GroundingError,
    OpenAIServing,
    PhraseGrounder,
    Pipeline,
    RunOptions,
)
from dataflow_grounding._util.errors import BudgetExceeded, PlanError, SpecError
from dataflow_grounding.compat import (
    APIVLMServing_openai,
    ImageBboxGenerator,
    PromptedVQAGenerator,
)
from dataflow_grounding.data.rows import read_records
from dataflow_grounding.engine.budget import Prices
from dataflow_grounding.operators import Operator, RegionMarker
from dataflow_grounding.testing import LoopbackServer, ReceivedRequest
from tests.support.steps import storage_in
from tests.support.workplace import REPOSITORY, command


class TheirPromptedVQAGenerator:
    """Reads conversations or prompts and pictures, a list for each row; to a serving that isn't its
    own in ShareGPT's format.
    """

    def __init__(
        self,
        serving: Any,
        system_prompt: str = "You are a helpful assistant.",
        prompt_template: Any = None,
    ):
        self.serving, self.system_prompt = serving, system_prompt
        self.prompt_template = prompt_template

    def run(
        self,
        storage: Any,
        input_conversation_key: str = "conversation",
        input_prompt_key: str | None = None,
        input_image_key: str | None = None,
        input_video_key: str | None = None,
        output_answer_key: str = "answer",
    ) -> str:
        frame = storage.read("dataframe")
        if input_prompt_key is not None:
            talks = [[{"from": "human", "value": prompt}] for prompt in frame[input_prompt_key]]
        else:
            talks = frame[input_conversation_key].tolist()
            if self.prompt_template is not None:
                talks = [
                    [{**talk[0], "value": self.prompt_template.build_prompt()}, *talk[1:]]
                    for talk in talks
                ]
        pictures = None
        if input_image_key is not None:
            pictures = [
                given if isinstance(given, list) else [given] for given in frame[input_image_key]
            ]
        for place, talk in enumerate(talks):
            there = [path for path in pictures[place] if path is not None] if pictures else []
            talk[0] = {**talk[0], "value": "<image>" * len(there) + talk[0]["value"]}
        frame[output_answer_key] = self.serving.generate_from_input_messages(
            conversations=talks,
            image_list=pictures,
            video_list=None,
            system_prompt=self.system_prompt,
        )
        storage.write(frame)
        return output_answer_key


class TheirTemplate:
    def build_prompt(self) -> str:
        return "Templated?"


class TheirServing:
    """Its serving of an endpoint: several methods, of which the one for messages takes any number
    of pictures.
    """

    model_name, max_workers = "theirs", 2

    def __init__(self, reply: str) -> None:
        self.reply = reply
        self.seen: list[Any] = []

    def generate_from_input(
        self, user_inputs: list[str], system_prompt: str = "", image_inputs: Any = None
    ) -> list[str]:
        raise AssertionError("its prompts, which are no paths of pictures")

    generate_from_input_one_image = generate_from_input

    def generate_from_input_messages(
        self,
        conversations: list[list[dict[str, str]]],
        image_list: list[list[str]] | None = None,
        video_list: Any = None,
        audio_list: Any = None,
        system_prompt: str = "You are a helpful assistant.",
    ) -> list[str]:
        [[turn]] = conversations
        [paths] = image_list or [[]]
        self.seen.append((turn, [Image.open(path).size for path in paths], system_prompt))
        return [self.reply]


def told(request: ReceivedRequest) -> str:
    earlier = [text for _, text in request.turns]
    return f"{[image.width for image in request.images]} {earlier} {request.input['prompt']}"


@pytest.fixture(autouse=True)
def _answers(server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DF_API_KEY", "k")
    server.answers = told


def ours_at(server: LoopbackServer) -> APIVLMServing_openai:
    return APIVLMServing_openai(
        api_url=server.base_url, model_name="loopback", timeout=20, box_format="xyxy_px"
    )


def picture(path: Path, width: int = 60) -> str:
    Image.new("RGB", (width, 40), "navy").save(path)
    return str(path)


@pytest.fixture
def storage(tmp_path: Path) -> FileStorage:
    """Rows with one picture, two and none, each with a prompt, a conversation and a word."""
    one, two, three = (picture(tmp_path / f"{n}.png", 60 + n) for n in range(3))
    asked = {"from": "human", "value": "<image>\nWhat is it?"}
    talk = [
        {"from": "human", "value": "hi"},
        {"from": "gpt", "value": "Hello."},
        {"from": "human", "value": "Go on."},
    ]
    rows: list[dict[str, Any]] = [
        {"image": one, "prompt": "First?", "conversation": [asked], "word": "a cup"},
        {"image": [two, three], "prompt": "Second?", "conversation": talk, "word": "a cat"},
        {"image": None, "prompt": "Third?", "conversation": [asked], "word": "a dog"},
    ]
    return storage_in(tmp_path, *rows)


WITH_PROMPTS = ("conversation", "prompt", "image")
PROMPTS = ["[60] [] First?", "[61, 62] [] Second?", "[] [] Third?"]
TALKS = ["[60] [] What is it?", "[61, 62] ['hi', 'Hello.'] Go on.", "[] [] What is it?"]
TEXTS = ["[] [] What is it?", "[] ['hi', 'Hello.'] Go on.", "[] [] What is it?"]


@pytest.mark.parametrize("kind", [TheirPromptedVQAGenerator, PromptedVQAGenerator])
@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (WITH_PROMPTS, PROMPTS),
        (("conversation", None, "image"), TALKS),
        ((), TEXTS),
    ],
)
def test_its_operator_and_ours_of_that_name_ask_the_same(
    server: LoopbackServer,
    storage: FileStorage,
    kind: type,
    keys: tuple[Any, ...],
    wanted: list[str],
) -> None:
    assert kind(ours_at(server), "Be brief.").run(storage.step(), *keys) == "answer"
    assert [row["answer"] for row in storage.step().read("dict")] == wanted
    for request in server.requests:
        assert "\nBe brief.\n" in request.text
        pictures = len(request.images)
        said = request.system + request.text
        assert (pictures > 0, pictures > 1) == ("the picture" in said, "these pictures" in said)


@pytest.mark.parametrize("compiled", [False, True])
def test_what_our_serving_answers_its_operator_is_paid_for_once(
    server: LoopbackServer, storage: FileStorage, compiled: bool
) -> None:
    class Theirs(Pipeline):
        def __init__(self) -> None:
            self.storage = FileStorage(storage.first_entry_file_name, storage.cache_path)
            self.asker = TheirPromptedVQAGenerator(ours_at(server))

        def forward(self) -> None:
            self.asker.run(self.storage.step(), input_prompt_key="prompt", input_image_key="image")

    options = RunOptions(progress=False, prices=Prices(input=1, output=1))
    for asked, replayed in ((3, 0), (0, 3)):
        pipeline = Theirs()
        if compiled:
            pipeline.compile()
        summary = pipeline.run(options=options)
        assert (summary.done, server.count()) == (3, 3)
        assert (summary.requests["sent"], summary.requests["replayed"]) == (asked, replayed)
        assert (summary.models, bool(summary.cost_usd)) == (["loopback"], asked > 0)
        assert f"{asked} requests sent, " in str(summary)
    assert json.loads(command(["cost", storage.cache_path, "--json"]).out)["requests"] == 3


def test_a_wrong_key_after_its_drawing_operator_is_refused_before_anything_is_asked(
    server: LoopbackServer, storage: FileStorage
) -> None:
    class Wrong(Pipeline):
        def __init__(self) -> None:
            self.storage = FileStorage(storage.first_entry_file_name, storage.cache_path)
            self.asker = PromptedVQAGenerator(ours_at(server))
            self.marker = ImageBboxGenerator()

        def forward(self) -> None:
            self.asker.run(self.storage.step(), input_prompt_key="prompt", input_image_key="image")
            self.marker.run(self.storage.step(), output_prompt_key="asked")
            PhraseGrounder(ours_at(server)).run(self.storage.step(), output_boxes="found")

    with pytest.raises(PlanError, match="takes no output_boxes"):
        Wrong().run()
    assert server.count() == 0


def test_a_runs_limits_hold_for_its_operators_on_our_serving(
    server: LoopbackServer, storage: FileStorage
) -> None:
    """However often they call it: the third of three calls is the one too many."""

    class Each:
        def __init__(self, serving: Any) -> None:
            self.serving = serving

        def run(self, storage: Any) -> None:
            frame = storage.read("dataframe")
            said = [{"role": "user", "content": prompt} for prompt in frame["prompt"]]
            answers = [self.serving.generate_from_input_messages([[turn]])[0] for turn in said]
            storage.write(frame.assign(answer=answers))

    class Theirs(Pipeline):
        def __init__(self) -> None:
            self.storage = FileStorage(storage.first_entry_file_name, storage.cache_path)
            self.asker = Each(ours_at(server))

        def forward(self) -> None:
            self.asker.run(self.storage.step())

    options = RunOptions(progress=False, max_requests=2)
    with pytest.raises(BudgetExceeded):
        Theirs().run(options=options)
    assert server.count() == 2
    again = Theirs().run(options=options)
    assert (again.done, again.requests["sent"], server.count()) == (3, 1, 3)


def test_ours_takes_the_arguments_of_its_operator_in_their_order() -> None:
    for name in ("__init__", "run"):
        ours, theirs = (
            inspect.signature(getattr(kind, name)).parameters.values()
            for kind in (PromptedVQAGenerator, TheirPromptedVQAGenerator)
        )
        assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]
    names = (
        "api_url key_name_of_api_key model_name image_io send_request_stream max_workers timeout"
    )
    assert list(inspect.signature(APIVLMServing_openai).parameters)[:7] == names.split()
    arguments = list(inspect.signature(ImageBboxGenerator.run).parameters)
    assert arguments[1:4] == ["storage", "input_image_key", "input_bbox_key"]


@pytest.mark.parametrize("kind", [TheirPromptedVQAGenerator, PromptedVQAGenerator])
def test_a_template_gives_the_first_turn(
    server: LoopbackServer, storage: FileStorage, kind: type
) -> None:
    asker = kind(ours_at(server), prompt_template=TheirTemplate())
    asker.run(storage.step(), input_image_key="image")
    answers = [row["answer"] for row in storage.step().read("dict")]
    assert answers == [
        "[60] [] Templated?",
        "[61, 62] ['Templated?', 'Hello.'] Go on.",
        "[] [] Templated?",
    ]


def test_a_template_that_gives_no_text_is_refused(server: LoopbackServer) -> None:
    class Pairs:
        def build_prompt(self) -> tuple[str, str]:
            return "prompt", "system prompt"

    with pytest.raises(GroundingError, match=r"build_prompt\(\) should give a text, not tuple"):
        PromptedVQAGenerator(ours_at(server), prompt_template=Pairs())


def test_its_other_operators_call_so(server: LoopbackServer, storage: FileStorage) -> None:
    """With a list of pictures for each row, which is empty for none; or without pictures, in
    OpenAI's format whoever answers.
    """
    ask, rows = ours_at(server).generate_from_input_messages, storage.step().read("dict")
    pictures = [[rows[0]["image"]], rows[1]["image"], []]
    talks = []
    for row, given in zip(rows, pictures, strict=True):
        value = "<image>" * len(given) + f"\nFind {row['word']}"
        talks.append([{"from": "human", "value": value}])
    assert ask(conversations=talks, image_list=pictures, video_list=None, system_prompt="s") == [
        "[60] [] Find a cup",
        "[61, 62] [] Find a cat",
        "[] [] Find a dog",
    ]
    plain = [[{"role": "user", "content": row["prompt"]}] for row in rows]
    assert ask(conversations=plain) == ["[] [] First?", "[] [] Second?", "[] [] Third?"]


def test_the_request_for_one_prompt_and_one_picture_is_as_it_always_was(
    server: LoopbackServer, storage: FileStorage
) -> None:
    """Else a folder of results begun before would be paid for again."""
    PromptedVQAGenerator(ours_at(server)).run(storage.step(), *WITH_PROMPTS)
    [first] = [request for request in server.requests if len(request.images) == 1]
    assert first.input == {"task": "prompted_vqa", "prompt": "First?"}
    assert first.text.startswith(
        'Task: answer about this picture.\n\nYou are a helpful assistant.\nThe "prompt" in the'
    )


def test_a_finished_run_sends_nothing_until_a_picture_of_a_list_changes(
    server: LoopbackServer, storage: FileStorage, tmp_path: Path
) -> None:
    asker = PromptedVQAGenerator(ours_at(server))
    for _ in range(2):
        asker.run(storage.reset().step(), input_image_key="image")
        assert server.count() == 3
    Image.new("RGB", (99, 40), "teal").save(tmp_path / "2.png")
    asker.run(storage.reset().step(), input_image_key="image")
    assert server.count() == 4
    assert storage.step().read("dict")[1]["answer"].startswith("[61, 99]")


def test_a_picture_that_is_missing_is_no_row_without_one(
    server: LoopbackServer, storage: FileStorage, tmp_path: Path
) -> None:
    (tmp_path / "2.png").unlink()
    PromptedVQAGenerator(ours_at(server)).run(storage.step(), *WITH_PROMPTS)
    [failure] = read_records(storage.failures_path)
    assert (failure["line"], failure["kind"]) == (2, "image_missing")
    with pytest.raises(GroundingError, match="no image"):
        ours_at(server).generate_from_input_messages(
            [[{"role": "user", "content": "?"}]], [[str(tmp_path / "2.png")]]
        )
    assert server.count() == 2
    with pytest.raises(PlanError, match="reads column 'img', which nobody provides"):
        PromptedVQAGenerator(ours_at(server)).run(storage.reset().step(), input_image_key="img")


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        (None, "should be a list of turns"),
        ([], "should be a list of turns"),
        ([{"from": "human"}], "should be a list of turns"),
        ([{"from": ["human"], "value": "What is it?"}], "its last turn should be the user's"),
        (
            [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "Hello."}],
            "should be the user's",
        ),
        ([{"from": "human", "value": " <image>"}], "and ask something"),
    ],
)
def test_a_conversation_that_asks_nothing_fails_alone(
    server: LoopbackServer, turns: Any, says: str
) -> None:
    done = PromptedVQAGenerator(ours_at(server))([{"conversation": turns}, {"prompt": "Fine?"}])
    assert [row["answer"] for row in done] == ["[] [] Fine?"]
    assert turns is None or says in str(done.failures[0][1])


def test_what_it_calls_of_a_serving_besides(server: LoopbackServer, tmp_path: Path) -> None:
    serving, path = ours_at(server), picture(tmp_path / "a.png")
    assert serving.generate_from_input(["One?", "Two?"], "s", [[path], None]) == [
        "[60] [] One?",
        "[] [] Two?",
    ]
    assert serving.generate_from_input(["One?"], system_prompt="s") == ["[] [] One?"]
    assert serving.generate_from_input([path], "What?") == ["[60] [] What?"]
    assert serving.generate_from_input_one_image([path] * 2, ["One?", "Two?"], "s") == [
        "[60] [] One?",
        "[60] [] Two?",
    ]
    ask, talk = serving.generate_from_input, serving.generate_from_input_messages
    one_image = serving.generate_from_input_one_image
    for says, call in {
        "video_inputs is not supported": lambda: ask(["One?"], video_inputs=[["a.mp4"]]),
        "video_list is not supported": lambda: talk([[]], None, [["a.mp4"]]),
        "audio_list is not supported": lambda: talk([[]], audio_list=["a.wav"]),
        "model is not supported": lambda: one_image([path], ["?"], model="x"),
        "json_schema is not supported": lambda: ask([path], json_schema={"type": "object"}),
    }.items():
        with pytest.raises(GroundingError, match=says):
            call()
    for says, wrong in {
        "give these as image_inputs": lambda: ask([path, "One?"]),
        "same length": lambda: ask(["?"], "", []),
        "should have the same length": lambda: one_image([path, path], ["?"]),
        "a path for every prompt": lambda: one_image([path, None], ["?", "?"]),
    }.items():
        with pytest.raises(ValueError, match=says):
            wrong()
    assert server.count() == 6


def test_an_answer_in_json_of_its_own_stays_whole(server: LoopbackServer) -> None:
    ask = ours_at(server).generate_from_input_messages
    for own in (
        '{"question": "What?", "answer": "A cup."}',
        '[{"box": [1, 2, 3, 4]}]',
        "(0.1, 0.2), (0.3, 0.4)",
        "A score in [0, 1) of",
    ):
        server.answers = lambda request, own=own: own
        assert ask([[{"role": "user", "content": own}]]) == [own]
    server.answers = lambda request: '{"answer": {"boxes": [1, 2]}}'
    assert ask([[{"role": "user", "content": "?"}]]) == ['{"boxes": [1, 2]}']


@pytest.mark.slow
def test_our_operators_ask_its_servings_with_any_number_of_pictures(storage: FileStorage) -> None:
    theirs = TheirServing("A cup.")
    PromptedVQAGenerator(theirs).run(storage.step(), *WITH_PROMPTS)
    assert [row["answer"] for row in storage.step().read("dict")] == ["A cup."] * 3
    assert sorted(sizes for _, sizes, _ in theirs.seen) == [[], [(60, 40)], [(61, 40), (62, 40)]]
    for turn, sizes, system in theirs.seen:
        assert turn["value"] == "<image>" * len(sizes) + turn["content"]
        assert (turn["role"], turn["from"]) == ("user", "human")
        assert system.strip()


@pytest.mark.parametrize("kind", [TheirPromptedVQAGenerator, PromptedVQAGenerator])
def test_nothing_is_sent_for_a_picture_without_regions(
    server: LoopbackServer, tmp_path: Path, kind: type
) -> None:
    storage = storage_in(tmp_path, {"image": picture(tmp_path / "a.png")})
    ImageBboxGenerator().run(storage.step())
    kind(ours_at(server)).run(storage.step(), "conversation", "prompt", "image_with_bbox")
    [row] = storage.step().read("dict")
    assert (row["valid_bboxes_num"], row["answer"], server.count()) == (0, None, 0)


def test_its_own_prompt_column_may_go_by_another_name(tmp_path: Path) -> None:
    row = {"image": picture(tmp_path / "a.png"), "bbox": [[1, 1, 9, 9]], "prompt": "mine"}
    storage = storage_in(tmp_path, row)
    with pytest.raises(PlanError, match="give it another name with output_prompt_key"):
        ImageBboxGenerator().run(storage.step())
    ImageBboxGenerator().run(storage.reset().step(), "image", "bbox", output_prompt_key="asked")
    [row] = storage.step().read("dict")
    assert row["prompt"] == "mine"
    assert row["asked"].startswith("Describe the content of each marked region")


def test_a_run_of_a_users_base_class_is_a_part_of_ours(
    server: LoopbackServer, storage: FileStorage
) -> None:
    told = []

    class Told(Operator):
        def run(self, storage: Any, **keys: Any) -> Any:
            told.append("questions")
            return super().run(storage, **keys)

    class ToldMarker(RegionMarker):
        def run(self, storage: Any, **keys: Any) -> Any:
            told.append("regions")
            return super().run(storage, **keys)

    class OwnGenerator(PromptedVQAGenerator, Told):
        pass

    class OwnMarker(ImageBboxGenerator, ToldMarker):
        pass

    OwnMarker().run(storage.step(), output_prompt_key="asked")
    OwnGenerator(ours_at(server)).run(storage.step(), input_prompt_key="prompt")
    assert told == ["regions", "questions"]


@pytest.mark.slow
def test_the_page_on_dataflow_shows_what_its_script_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (REPOSITORY / "docs" / "dataflow.md").read_text(encoding="utf-8")
    [(script, printed)] = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DF_API_KEY", "")  # put back afterwards
    exec(compile(script, "dataflow.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_the_key_is_in_the_variable_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DF_API_KEY", "k")
    monkeypatch.delenv("OTHER_KEY", raising=False)
    with pytest.raises(SpecError, match="OTHER_KEY"):
        APIVLMServing_openai("http://127.0.0.1:9/v1", "OTHER_KEY")


TALK = [
    {"from": "human", "value": "<image>What is it?"},
    {"from": "gpt", "value": "A cat."},
    {"from": "human", "value": "What colour?"},
]


SYSTEM_TURN = {"from": "system", "value": "Answer in Dutch."}


def asked(
    server: LoopbackServer, dialect: str, folder: Path, conversation: list[dict[str, str]]
) -> ReceivedRequest:
    """The request for a row with a picture and this conversation."""
    serving: Any = OpenAIServing(server.base_url, "loopback")
    if dialect == "gemini":
        serving = GeminiServing(base_url=server.address, api_key="k")
    row = {"image": picture(folder / "a.png"), "conversation": conversation}
    answer = PromptedVQAGenerator(serving)(row)["answer"]
    [request] = server.requests
    assert answer == told(request)
    assert [image.width for image in request.images] == [60]
    assert request.input["prompt"] == conversation[-1]["value"]
    assert "conversation" not in request.input
    return request


@pytest.mark.parametrize("dialect", ["openai", "gemini"])
def test_the_turns_of_a_conversation_are_messages(
    server: LoopbackServer, tmp_path: Path, dialect: str
) -> None:
    request = asked(server, dialect, tmp_path, TALK)
    assert request.turns == [("user", "What is it?"), ("assistant", "A cat.")]
    body: Any = request.body
    if dialect == "openai":
        messages = body["messages"]
        roles = [message["role"] for message in messages]
        assert roles == ["system", "user", "assistant", "user"]
        assert [part["type"] for part in messages[1]["content"]] == ["image_url", "text"]
        assert [part["type"] for part in messages[3]["content"]] == ["text"]
    else:
        assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
        assert "inlineData" in body["contents"][0]["parts"][0]


@pytest.mark.parametrize("dialect", ["openai", "gemini"])
@pytest.mark.parametrize("talk", [TALK, TALK[-1:]], ids=["a talk", "one question"])
def test_a_system_turn_joins_the_system_message(
    server: LoopbackServer, tmp_path: Path, dialect: str, talk: list[dict[str, str]]
) -> None:
    request = asked(server, dialect, tmp_path, [SYSTEM_TURN, *talk])
    assert "Answer in Dutch." in request.system
    assert "Reply with one JSON object" in request.system
    assert [role for role, _ in request.turns] == ["user", "assistant"][: len(talk) - 1]


def test_a_system_turn_is_part_of_what_a_reply_is_kept_by(server: LoopbackServer) -> None:
    asker = PromptedVQAGenerator(OpenAIServing(server.base_url, "loopback"))
    other = {"role": "system", "content": "Answer in French."}
    asker([{"conversation": [SYSTEM_TURN, *TALK]}, {"conversation": [other, *TALK]}])
    systems = [request.system for request in server.requests]
    assert sorted(text.endswith("Answer in French.") for text in systems) == [False, True]


def test_a_talk_out_of_turn_stays_data(server: LoopbackServer) -> None:
    PromptedVQAGenerator(OpenAIServing(server.base_url, "loopback"))({"conversation": TALK[1:]})
    [request] = server.requests
    assert request.turns == []
    assert request.input["conversation"] == [{"role": "assistant", "content": "A cat."}]
