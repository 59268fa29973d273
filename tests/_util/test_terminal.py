"""What comes from a server, a caption, a path or an id reaches the terminal without commands to it;
files keep it as it is.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace

from dataflow_grounding import OpenAIServing, PhraseGrounder
from dataflow_grounding._util.errors import ServerFault
from dataflow_grounding.engine.summary import Summary
from dataflow_grounding.testing import Fault, LoopbackServer, on
from tests.support.forking import Forked
from tests.support.workplace import Workplace, command, ended

EVIL = "\x1b[31mred\x1b]0;title\x07 \x9b2J \x7f\r\u202ereversed\u2066 \u2028line \ud83d"
COMMANDS = set(EVIL) - set("[]0123456789;; abcdefghijklmnopqrstuvwxyzJ\ud83d")


def harmless(*texts: str) -> bool:
    return not any(COMMANDS & set(text) for text in texts)


def test_what_a_server_says_in_an_error_is_made_visible(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.many(2)
    server.faults = on(Fault(401, body=json.dumps({"error": {"message": EVIL}}).encode()))
    done = workplace.run()
    assert done.code == 4
    assert "\\x1b[31mred" in done.err
    assert harmless(done.out, done.err)


def test_a_reply_with_commands_is_kept_as_it_is_and_printed_without(
    workplace: Workplace, server: LoopbackServer
) -> None:
    path = str(workplace.folder / workplace.picture())
    phrase = "red\x1b[31m \x9bmug\u202e"
    done = command(["ground", path, phrase, "-e", str(workplace.spec())])
    assert done.code == 0, done
    assert harmless(done.out, done.err)
    serving = OpenAIServing(server.base_url, "loopback", box_format="xyxy_px")
    record = PhraseGrounder(serving)({"image_path": path, "expressions": [phrase]})
    assert json.loads(done.out) == record
    assert record["expressions"][0]["text"] == phrase


def test_ids_captions_and_replies_stay_what_they_are_in_files(
    workplace: Workplace, server: LoopbackServer
) -> None:
    workplace.picture()
    name = "a\x1b\u202e\u2028\x85b"
    row = {"image_path": "a.jpg", "image_id": name, "caption": f"A cup {name}"}
    gone = {**row, "image_id": f"{name}2", "image_path": f"{name}\n.jpg"}
    workplace.rows([row, gone, {**row, "image_id": "3", "caption": "A mug"}])
    said = f"no answer {EVIL.translate({91: None, 93: None})}"
    evil = Fault(change=lambda answer: replace(answer, text=said))
    server.faults = on(evil, containing="A mug")
    line = [word for word in workplace.arguments() if word not in ("--json", "--no-progress")]
    done = command(line)
    assert done.code == 1, done
    [record], [missing, unread] = workplace.annotations(), workplace.failures()
    ids = (record["image_id"], missing["id"])
    assert (*ids, record["caption"]) == (name, f"{name}2", f"A cup {name}")
    assert unread["reply"] == said
    assert harmless(missing["message"], done.out, done.err)
    assert "\n" not in missing["message"]
    [_, line] = (workplace.results / "failures.jsonl").read_bytes().splitlines()
    assert line.isascii(), "half of a pair is no UTF-8"


def test_paths_and_names_of_a_spec_are_made_visible(workplace: Workplace) -> None:
    workplace.many(1)
    workplace.results = workplace.folder / "out\x1b[2J"
    arguments = workplace.arguments(**{"vlm.openai.model_name": "m\x1b[2J\u202e"})
    in_words = [argument for argument in arguments if argument != "--json"]
    told, plan = command(in_words), command([*arguments, "--dry-run"])
    words = command([*in_words, "--dry-run"])
    assert (told.code, plan.code, words.code) == (0, 0, 0), told
    assert "model m\\x1b[2J\\u202e" in told.err
    assert harmless(told.out, told.err, plan.out, words.out)
    assert json.loads(plan.out)["model"] == "m\x1b[2J\u202e"
    assert (workplace.results / "annotations.jsonl").exists()


def test_check_tells_a_problem_in_a_line(workplace: Workplace) -> None:
    workplace.rows([{"image_path": "a\n\x1b[2J.jpg", "caption": "A cup"}])
    done = workplace.check()
    assert done.code == 2, done
    assert harmless(done.out, done.err)
    assert sum("jpg" in line for line in done.err.splitlines()) == 1


def test_arguments_are_told_back_without_commands() -> None:
    done = command(["cost", ".", "more\x9b2J\u202e"])
    assert done.code == 2
    assert "unexpected extra argument" in done.err
    assert harmless(done.err)


def test_a_path_that_is_no_utf8_is_printed(workplace: Workplace) -> None:
    workplace.many(1)
    folder = os.fsdecode(os.fsencode(workplace.folder) + b"/\xff")
    assert workplace.run().code == 0
    workplace.results.rename(folder)
    told = ended(Forked(["report", folder]))
    assert "\\udcff" in told.out, told
    as_json = command(["report", "--json", folder])
    assert json.loads(as_json.out)["report"] == f"{folder}/report.html"


def test_what_a_script_prints_is_fit_for_a_terminal() -> None:
    assert "results: out\\x1b[2J" in str(Summary(done=1, annotations="out\x1b[2J"))
    assert str(ServerFault("a\x1b[2J\nb\u202e é日 👩‍👩‍👧")) == "a\\x1b[2J\\nb\\u202e é日 👩‍👩‍👧"
