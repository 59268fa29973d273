"""What a row, an answer's counts or a file to import may hold that a run or command has to bear."""

from __future__ import annotations

import gzip
import json
import resource
from functools import partial
from typing import Any

from dataflow_grounding.testing import Answer, EchoAnswers, Usage
from dataflow_grounding.testing.received import ReceivedRequest
from tests.support.fault_cases.fault_case import Case, Outcome, Witness, calm, lost_rows
from tests.support.workplace import Workplace, caption, command, ended, interpreter

FAILS_ALONE = "Only the record fails. No host is contacted."
COUNTED = "They are clamped, and `cost` shows their sum."
REFUSED = "The import is refused with exit 2."
SCHEMES = ("ftp", "webhdfs", "github", "dask", "sftp", "http", "s3+evil", "file\\")
USAGES = (Usage(10**400, 10**400), Usage(-5, -5), Usage(8, 8, 10**30))


def played(place: Workplace, rows: list[dict[str, Any]]) -> Outcome:
    """The rows between two that are right: those are done, each other fails, and commands read what
    came of it.
    """
    place.picture()
    whole = [{"image_path": "a.jpg"}, *rows, {"image_path": "a.jpg"}]
    place.rows({"caption": caption(n), **row, "image_id": f"r{n}"} for n, row in enumerate(whole))
    with Witness() as witness:
        done = place.run(**{"vlm.openai.base_url": witness.server.base_url})
        calm(done)
        assert done.code == 1, done
        assert {record["image_id"] for record in place.annotations()} == {
            "r0",
            f"r{len(whole) - 1}",
        }
        for line in (["stats"], ["lint"], ["report"]):
            calm(command([line[0], str(place.results), *line[1:]]))
        return Outcome(witness.sent, witness.twice, lost_rows(place, len(whole)))


def schemes(place: Workplace, full: bool) -> Outcome:
    """Pictures at addresses that rows may not name."""
    return played(place, [{"image_path": f"{scheme}://127.0.0.1:9/a.jpg"} for scheme in SCHEMES])


def monsters(place: Workplace, full: bool) -> Outcome:
    """Rows that are deep, wide, or of other kinds than they should be."""
    deep: Any = []
    for _ in range(200):
        deep = [deep]
    return played(
        place,
        [
            {"image_path": deep},
            {"image_path": "\0"},
            {"image_path": 10**400},
            {"image_path": "a.jpg", "caption": {"a": deep}},
            {"image_path": "x" * 1_000_000},
        ],
    )


def counts(place: Workplace, full: bool) -> Outcome:
    """Answers that claim more tokens than there are numbers for, or fewer than none."""
    echo = EchoAnswers()

    def answer(request: ReceivedRequest) -> Answer:
        return Answer(json.dumps(echo(request)), usage=USAGES[request.index % len(USAGES)])

    place.many(6)
    with Witness(answers=answer) as witness:
        settings = {
            "vlm.openai.base_url": witness.server.base_url,
            "vlm.prices": {"input": 1.0, "output": 1.0},
        }
        done = place.run(**settings)
        assert done.code == 0, done
        again = place.run(**settings, **{"workflow.max_workers": 2})
        told = command(["cost", str(place.results)])
        assert (again.code, told.code) == (0, 0), (again, told)
        return Outcome(witness.sent, witness.twice, lost_rows(place, 6))


def packed(place: Workplace, full: bool) -> Outcome:
    """A megabyte that unpacks to a gigabyte, where a process may have 900 MB."""
    path = place.folder / "packed.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 2**20) * 1024)
    limited = partial(resource.setrlimit, resource.RLIMIT_AS, (900 * 2**20, 900 * 2**20))
    line = ["import", str(path), "--format", "odvg", "-o", str(place.folder / "out")]
    done = ended(interpreter(line, preexec_fn=limited, cwd=place.folder))
    calm(done)
    assert (done.code, str(path) in done.err) == (2, True), done
    assert not (place.folder / "out" / "annotations.jsonl").exists()
    return Outcome()


ROWS: list[Case] = [
    Case("rows: picture addresses of any scheme", FAILS_ALONE, schemes),
    Case("rows: deep, long, of odd types", FAILS_ALONE, monsters),
    Case("huge and negative token counts", COUNTED, counts),
    Case("an import that unpacks beyond memory", REFUSED, packed),
]
