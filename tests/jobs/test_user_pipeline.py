"""A pipeline of the user's own, run from a spec with the commands that the shipped ones have."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataflow_grounding import FileStorage, OpenAIServing, operators
from dataflow_grounding.jobs.job import Kind
from dataflow_grounding.jobs.registry import PIPELINES, kind_named
from dataflow_grounding.pipelines import shipped
from dataflow_grounding.testing import EchoAnswers, LoopbackServer
from tests.support.workplace import Done, Workplace, command, ended, process

pytestmark = pytest.mark.slow

MODULE = '''
from dataflow_grounding import ExpressionExtractor, Operator, Pipeline, PhraseGrounder
from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.images.image import open_image
from dataflow_grounding.replies import read_object
from dataflow_grounding.tasks.request import Request, STRING, object_of


class MoodFinder(Operator):
    """Asks for the mood of a picture."""

    name = "mood"
    input_keys = {"image": "image_path"}
    output_keys = {"mood": "mood"}

    def __init__(self, serving, language):
        self.serving = serving
        self.language = language

    def facts(self):
        return {"language": self.language}

    def needs(self):
        return [f"moods are told in {self.language}"]

    async def annotate(self, record, ask):
        image = open_image(record, self.keys.image, self.serving.image_limits)
        schema = object_of(mood=STRING)
        question = {"language": self.language, "caption": record["caption"]}
        return {self.keys.mood: await ask(Request("mood", question, (image,), "What mood?", schema, read_mood))}


def read_mood(reply):
    data, notes = read_object(reply, required="mood")
    return data["mood"], notes


class Moods(Pipeline):
    name = "moods"
    questions = {"mood": "Would you call it that?"}

    def __init__(self, storage, serving, language="en", boxes=True, api_token=None):
        if language.startswith("my-key"):
            raise ValueError("no entry with " + language)
        if language == "xx":
            raise SpecError("there is no language 'xx'")
        self.storage = storage
        self.boxes = boxes
        self.mood = MoodFinder(serving, language)
        self.extractor = ExpressionExtractor(serving)
        self.grounder = PhraseGrounder(serving)

    def forward(self):
        self.mood.run(self.storage.step())
        if self.boxes:
            self.extractor.run(self.storage.step(), input_image_key="image_path", input_caption_key="caption")
            self.grounder.run(self.storage.step(), input_image_key="image_path", input_expressions_key="expressions")


class Later(Moods):
    name = "later"

    def forward(self):
        self.mood.tasks = ("mood",)  # of which no prompt is known
        self.extractor.run(self.storage.step(), input_image_key="image_path", input_caption_key="caption")
        self.mood.run(self.storage.step())


class Titled(Moods):
    def forward(self):
        self.extractor.run(self.storage.step(), input_caption_key="title")


class Loud:
    def run(self, storage, input_key="mood", output_key="loud"):
        frame = storage.read()
        frame[output_key] = frame[input_key].str.upper()
        storage.write(frame)


class EndsElsewhere(Moods):
    name = "loud"

    def __init__(self, storage, serving):
        super().__init__(storage, serving, boxes=False)
        self.loud = Loud()

    def forward(self):
        super().forward()
        self.loud.run(self.storage.step())


class Asking(Pipeline):
    name = "asking"

    def __init__(self, storage, serving):
        from dataflow_grounding.compat import PromptedVQAGenerator

        self.storage = storage
        self.vqa = PromptedVQAGenerator(serving)

    def forward(self):
        self.vqa.run(self.storage.step(), input_prompt_key="caption", input_image_key="image_path")


class Nameless(Moods):
    name = None


class Compiled(Moods):
    def __init__(self, storage, serving, *, language="en"):
        super().__init__(storage, serving, language)
        self.compile()


class Skipping(Moods):
    def forward(self):
        self.storage.step()
        super().forward()


class Picky(MoodFinder):
    def look_over(self, record):
        return next(word for word in record["caption"].split() if word == "3")


class PickyMoods(Moods):
    def __init__(self, storage, serving):
        super().__init__(storage, serving, boxes=False)
        self.mood = Picky(serving, "en")


def leave(step):
    raise SystemExit(0)


def write_moods(step):
    import json
    with open(step.storage.output_path) as file:
        moods = [json.loads(line).get("mood", "") for line in file]
    with open(step.storage.output_path.replace("annotations.jsonl", "moods.txt"), "w") as file:
        file.write("\\n".join(moods))
'''


def answers(request: Any) -> Any:
    if request.task == "mood":
        return {"mood": f"calm, {request.input['language']}"}
    return EchoAnswers()(request)


@pytest.fixture
def server(serves: Callable[..., LoopbackServer]) -> LoopbackServer:
    return serves(answers)


class Moods:
    """A folder with a module, a spec next to it, and 4 rows; each module has a name that no other
    test's has.
    """

    def __init__(self, folder: Path, base_url: str) -> None:
        self.place = Workplace(folder, base_url)
        self.place.many(4)
        self.module = f"moods_of_{abs(hash(str(folder)))}"
        (folder / f"{self.module}.py").write_text(MODULE)
        self.results = self.place.results = folder / "out"
        self.spec: dict[str, Any] = {"results_dir": "out", "autolabel_type": f"{self.module}:Moods"}
        openai = {"base_url": base_url, "model_name": "loopback"}
        vlm = {"backend": "openai", "box_format": "xyxy_px", "check_every": None, "openai": openai}
        self.block: dict[str, Any] = {"vlm": vlm, "data": {"input_jsonl": "captions.jsonl"}}
        self.spec["moods"] = self.block

    def use(self, name: str, block: str = "moods") -> None:
        """Have another pipeline of the module run, whose settings are in a block of this name."""
        self.spec["autolabel_type"] = f"{self.module}:{name}"
        self.spec[block] = self.spec.pop("moods")

    def edit(self, *changes: tuple[str, str]) -> None:
        """Have other code in the module."""
        path = self.place.folder / f"{self.module}.py"
        text = path.read_text()
        for old, new in changes:
            text = text.replace(old, new)
        path.write_text(text)

    def path(self) -> str:
        path = self.place.folder / "spec.yaml"
        path.write_text(json.dumps(self.spec, indent=1))
        return str(path)

    def do_in_process(self, name: str, *more: str) -> Done:
        """A command in a process of its own: nothing is imported yet, and the folder is not the
        current one.
        """
        return ended(process([name, "-e", self.path(), *more], cwd="/"))

    def do(self, name: str, *more: str) -> Done:
        """A command within this process, which imports the module as it is now."""
        sys.modules.pop(self.module, None)
        return command([name, "-e", self.path(), *more])

    def told(self, name: str, *more: str) -> Any:
        """A command within this process, and what it says as JSON."""
        done = command([name, "-e", self.path(), "--json", *more])
        assert done.code == 0, done
        return done.summary


@pytest.fixture
def moods(tmp_path: Path, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> Moods:
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Moods(tmp_path / "work", server.base_url)


def test_check_estimate_generate_again_and_report(moods: Moods, server: LoopbackServer) -> None:
    moods.block["settings"] = {"language": "sv"}
    checked = moods.do("check")
    assert (checked.code, "4 records checked, 0 problems" in checked.out) == (0, True), checked
    assert "moods are told in sv" in checked.out
    estimated = moods.told("estimate")
    steps = ["step0_mood", "step1_expression_extraction", "step2_grounding"]
    assert [step["step"] for step in estimated["steps"]] == steps
    assert server.count() == 0
    done = moods.do_in_process("generate", "--json", "--no-progress")
    assert done.code == 0, done
    assert server.count() == 12 == estimated["requests"]
    records = moods.place.annotations()
    assert [record["mood"] for record in records] == ["calm, sv"] * 4
    assert all(e["instances"] for record in records for e in record["expressions"])
    assert {record["source"] for record in records} == {"moods"}
    assert (moods.results / "step_0_mood" / "annotations.jsonl").exists()
    run = moods.place.run_json()
    assert run["operators"]["step0_mood"] == {"language": "sv"}
    assert run["spec"]["moods"]["settings"] == {"language": "sv"}
    assert run["box_format"]["name"] == "xyxy_px"

    again = moods.do("generate", "--json", "--no-progress")
    assert (again.code, server.count()) == (0, 12), again
    assert moods.told("estimate")["requests"] == 0
    assert command(["report", str(moods.results)]).code == 0
    assert "report.html" in {path.name for path in moods.results.iterdir()}
    assert command(["cost", str(moods.results), "--json"]).summary["requests"] == 12


def test_check_reads_a_caption_in_a_column_of_another_name(moods: Moods) -> None:
    moods.place.rows({"image_path": "a.jpg", "title": title} for title in ("A dog.", "A cat.", 7))
    moods.use("Titled")
    checked = moods.do("check")
    assert checked.code == 2, checked
    assert "line 3: column 'title' should be a text" in checked.err, checked


def test_check_reports_the_rows_where_look_over_raises(moods: Moods) -> None:
    moods.use("PickyMoods")
    done = moods.do("check")
    assert done.code == 2, done
    assert "StopIteration in mood" in done.out + done.err
    assert f"{moods.module}.py:" in done.out + done.err


def test_a_secret_among_the_settings_stands_in_no_file_and_no_message(moods: Moods) -> None:
    secret = "my-key-0123456789abcdef"
    moods.block["settings"] = {"api_token": secret}
    assert moods.do("generate", "--no-progress").code == 0
    assert moods.place.run_json()["spec"]["moods"]["settings"] == {"api_token": "***"}
    moods.block["settings"]["language"] = secret
    done = moods.do("generate", "--no-progress")
    assert (done.code, "no entry with ***" in done.err) == (2, True), done
    for path in moods.results.rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes(), path


def test_a_pilot_asks_the_pipelines_own_question_and_serves_the_full_run(
    moods: Moods, server: LoopbackServer
) -> None:
    pilot = moods.do("generate", "--pilot", "1", "--no-progress")
    assert (pilot.code, server.count()) == (0, 3), pilot
    assert "step_0_mood/annotations.jsonl: Would you call it that?" in pilot.err
    assert moods.do("generate", "--no-progress").code == 0
    assert server.count() == 12


def test_steps_in_parts(moods: Moods, server: LoopbackServer) -> None:
    for steps, said in {
        "[1]": "run step 0 first",
        "[0,2]": "between step0_mood and step2_grounding there is a step",
    }.items():
        done = moods.do("generate", f"moods.workflow.steps={steps}")
        assert (done.code, said in done.err) == (2, True), done
    assert server.count() == 0
    for steps in ("[0]", "[1,2]"):
        assert moods.do("generate", f"moods.workflow.steps={steps}").code == 0
    assert server.count() == 12


def test_a_task_of_ones_own_in_a_later_step_is_estimated(
    moods: Moods, server: LoopbackServer
) -> None:
    moods.use("Later", "later")
    steps = moods.told("estimate")["steps"]
    assert [step["requests"] for step in steps] == [4, 4]
    assert min(step["tokens"]["input"] for step in steps) >= 4 * 1000  # with the picture
    assert server.count() == 0


def test_a_pipeline_without_boxes_has_no_box_format(moods: Moods, server: LoopbackServer) -> None:
    moods.block["settings"] = {"boxes": False}
    moods.block["vlm"]["box_format"] = "auto"  # of which nothing is known for this model
    planned = moods.do("generate", "--dry-run")
    assert (planned.code, "boxes" in planned.out.splitlines()[0]) == (0, False), planned
    assert "calibrat" not in moods.do("check").out
    assert moods.told("estimate")["calibration_first"] is False
    assert moods.do("generate", "--no-progress").code == 0
    assert server.count() == 4
    assert moods.place.run_json()["box_format"] == {"name": None, "from": None}


def test_a_pipeline_without_a_name_has_its_block_under_pipeline_and_may_have_empty_settings(
    moods: Moods,
) -> None:
    moods.block["settings"] = None
    moods.block["vlm"]["openai"]["extra_body"] = None
    moods.use("Nameless", "pipeline")
    assert moods.told("generate", "--no-progress")["done"] == 4
    assert all("source" not in record for record in moods.place.annotations())
    assert moods.place.run_json()["spec"]["pipeline"]["settings"] == {}


def test_what_user_code_prints_is_not_in_the_answer(moods: Moods) -> None:
    told = ["imported", "made", "planned", "at work", "by a process", "written"]
    at_work = "print('at work'); os.system('echo by a process'); image = open_image("
    moods.edit(
        ("\nclass MoodFinder", "\nimport os\nprint('imported')\n\nclass MoodFinder"),
        ("self.storage = storage\n", "self.storage = storage; print('made')\n"),
        ("self.mood.run(", "print('planned'); self.mood.run("),
        ("image = open_image(", at_work),
        ("import json\n", "import json; print('written')\n"),
    )
    moods.block["workflow"] = {"output_format": f"{moods.module}:write_moods"}
    for arguments, least in (
        (["estimate", "--json"], told[:3]),
        (["generate", "--json", "--no-progress"], told),
        (["check"], told[:3]),
    ):
        # what it prints by a process goes past this process's own standard output
        do = moods.do_in_process if least == told else moods.do
        done = do(*arguments)
        assert done.code == 0, done
        assert "--json" not in arguments or isinstance(json.loads(done.out), dict)
        assert [word for word in told if word in done.out] == []
        assert [word for word in least if word not in done.err] == []


def test_a_pipeline_may_compile_itself(moods: Moods, server: LoopbackServer) -> None:
    moods.use("Compiled")
    checked = moods.do("check")
    assert (checked.code, "4 records checked, 0 problems" in checked.out) == (0, True), checked
    assert moods.do("generate", "--no-progress").code == 0
    assert moods.do("generate", "--no-progress").code == 0
    assert server.count() == 12
    folders = {path.name for path in moods.results.glob("step_*")}
    assert folders == {"step_0_mood", "step_1_expression_extraction", "step_2_grounding"}


def test_a_writer_of_ones_own_that_breaks_off_costs_no_results(
    moods: Moods, server: LoopbackServer
) -> None:
    moods.block["workflow"] = {"output_format": f"{moods.module}:leave"}
    done = moods.do("generate", "--json", "--no-progress")
    assert (done.code, done.out) == (2, ""), done
    [line] = done.err.splitlines()
    assert line.startswith(
        f"Error: workflow.output_format {moods.module}:leave failed; the annotations are written"
    )
    assert f"{moods.module}.py, line " in line
    assert len(moods.place.annotations()) == 4
    assert moods.place.run_json()["summary"]["done"] == 4
    assert list(moods.results.rglob("*.part")) == []
    moods.block["workflow"] = {"output_format": f"{moods.module}:write_moods"}
    assert moods.do("generate", "--no-progress").code == 0
    written = (moods.results / "step_0_mood" / "moods.txt").read_text()
    assert written == "\n".join(["calm, en"] * 4)
    assert server.count() == 12


def test_a_spec_without_code_of_the_users_own_imports_nothing_from_its_folder(
    workplace: Workplace,
) -> None:
    workplace.many(1)
    (workplace.folder / "supervision.py").write_text("raise SystemExit('imported')")
    before = [*sys.path]
    workplace.settings["vlm.openai.base_url"] = "http://127.0.0.1:9/v1"
    assert workplace.run("--dry-run").code == 0
    assert sys.path == before


def test_a_module_of_another_folder_by_the_same_name_is_not_taken_for_it(
    moods: Moods, tmp_path: Path
) -> None:
    """Python imports a name once: the second folder's spec would run the first one's pipeline."""
    moods.told("check")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(moods.place.folder, elsewhere)
    own = elsewhere / f"{moods.module}.py"
    own.write_text(f"{MODULE}\n# changed\n")
    done = command(["check", "-e", str(elsewhere / "spec.yaml")])
    assert done.code == 2, done
    assert f"in this process, not {own}: give one of them another name" in done.err
    moods.told("check")  # the first goes on as before


OF_MOODS = {
    "no_such_module:Moods": "spec.yaml, line 3: autolabel_type: no module 'no_such_module'",
    "MODULE:Mods": "autolabel_type: there is no 'Mods' in WORK/MODULE.py; is it 'Moods'?",
    "MODULE:MoodFinder": "MODULE:MoodFinder is not a subclass of dataflow_grounding.Pipeline",
    "MODULEraising:Moods": "WORK/MODULEraising.py, line 2",
    "MODULEneedy:Moods": "module 'MODULEneedy' needs 'not_installed', which is not installed",
    "image_groundin": "is it 'image_grounding'?",
    "MODULE:Skipping": "MODULE:Skipping: forward() should run each operator on a step() of",
}
"""`autolabel_type`, where the block is `moods` → what is told."""
SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"langage": "sv"}, "unexpected keyword argument 'langage'; it takes language, boxes, api_"),
    ({"language": "xx"}, "there is no language 'xx'"),
]
WORKFLOWS: list[tuple[dict[str, Any], str]] = [
    ({"output_format": "unifed"}, "workflow.output_format 'unifed' is not one of unified, jsonl"),
    ({"steps": ["7"]}, "workflow.steps ['7']: the steps are 0, 1, 2"),
]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *(({"autolabel_type": kind}, said) for kind, said in OF_MOODS.items()),
        *(({"moods.settings": settings}, said) for settings, said in SETTINGS),
        *(({"moods.workflow": workflow}, said) for workflow, said in WORKFLOWS),
        ({"moods.stetings": {}}, "moods.stetings is not a key of the spec; is it 'settings'?"),
        ({"moods": "DROP"}, "there is no block moods, which the pipeline needs"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    moods: Moods, changes: dict[str, Any], expected: str
) -> None:
    (moods.place.folder / f"{moods.module}raising.py").write_text("\n1 / 0\n")
    (moods.place.folder / f"{moods.module}needy.py").write_text("import not_installed\n")
    for key, value in changes.items():
        block, _, inner = key.rpartition(".")
        target = moods.spec[block] if block else moods.spec
        if value == "DROP":
            del target[inner]
        else:
            target[inner] = value
    text = json.dumps(moods.spec).replace("MODULE", moods.module)
    moods.spec = json.loads(text)
    for name, begins in (("check", "Problem: "), ("generate", "Error: ")):
        done = command([name, "-e", moods.path()])
        said = done.err.replace(moods.module, "MODULE").replace(str(moods.place.folder), "WORK")
        assert done.code == 2, done
        [line] = said.splitlines()
        assert line.startswith(begins), line
        assert expected in line


@pytest.mark.parametrize("kind", [*map(kind_named, PIPELINES)], ids=PIPELINES)
def test_the_questions_of_a_pilot_are_about_operators_that_there_are(kind: Kind) -> None:
    classes = [getattr(operators, name) for name in operators.__all__]  # vars() has what was used
    names = {
        one.name for one in classes if isinstance(one, type) and issubclass(one, operators.Operator)
    }
    assert set(kind.pipeline.questions) <= names


@pytest.mark.parametrize("name", ["facts", "needs"])
def test_what_an_operator_cannot_say_of_itself_costs_no_results(moods: Moods, name: str) -> None:
    moods.edit((f"def {name}(self):", f"def {name}(self):\n        1 / 0"))
    done = command(["check", "-e", moods.path()])
    assert done.code == 0, done
    assert ("raised ZeroDivisionError" in done.out) == (name == "needs")
    assert command(["generate", "-e", moods.path()]).code == 0
    facts = moods.place.run_json()["operators"]["step0_mood"]
    assert ("ZeroDivisionError" in facts.get("error", "")) == (name == "facts")


def test_a_pipeline_that_ends_with_an_operator_from_elsewhere_publishes_its_file(
    moods: Moods,
) -> None:
    moods.use("EndsElsewhere", "loud")
    moods.told("generate", "loud.workflow.steps=['0']")
    assert "loud" not in moods.place.annotations()[0]
    for steps in (["1"], ["0", "1"]):
        (moods.results / "annotations.jsonl").unlink()
        moods.told("generate", f"loud.workflow.steps={steps}")
        assert [record["loud"] for record in moods.place.annotations()] == ["CALM, EN"] * 4


def test_rows_with_several_pictures_or_none_are_checked_and_run(
    moods: Moods, server: LoopbackServer
) -> None:
    moods.use("Asking", "asking")
    several = ["a.jpg"] * 3
    pictures = {"What?": "a.jpg", "Which?": several, "Why?": None}
    rows = [{"caption": caption, "image_path": path} for caption, path in pictures.items()]
    moods.place.rows([{"caption": "Where?", "image_path": [*several, "gone.jpg"]}, *rows])
    checked = moods.do("check")
    assert "line 1: no image 'gone.jpg'" in checked.out + checked.err, checked
    moods.place.rows(rows)
    checked = moods.do("check")
    assert (checked.code, "3 records checked, 0 problems" in checked.out) == (0, True), checked
    assert moods.told("estimate")["requests"] == 3
    assert moods.told("generate")["done"] == 3
    assert sorted(len(request.images) for request in server.requests) == [0, 1, 3]


def test_a_copy_of_the_shipped_pipelines_writes_what_they_write(
    server: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = Path(shipped.__file__).read_text(encoding="utf-8")
    taken = {"collections.abc", "dataflow_grounding", "typing"}
    assert {*re.findall(r"^from (\S+)", text, re.MULTILINE)} == taken, "what is at the door"
    (tmp_path / "copy_of_shipped.py").write_text(text, encoding="utf-8")
    Workplace(tmp_path).picture()
    (tmp_path / "in.jsonl").write_text('{"image_path": "a.jpg", "caption": "A cup."}\n')
    serving = OpenAIServing(server.base_url, "loopback", api_key="k", box_format="xyxy_px")
    written = []
    for module in (shipped, importlib.import_module("copy_of_shipped")):
        storage = FileStorage("in.jsonl", module.__name__, "out")
        module.ImageGroundingPipeline(storage, serving, check=True, negatives=1).run()
        steps = sorted((tmp_path / module.__name__).glob("out_step*.jsonl"))
        written.append([step.read_text(encoding="utf-8") for step in steps])
    assert written[0] == written[1]
    assert len(written[0]) > 1
