"""What a row, an answer's counts or a file to import may hold that a run or command has to bear."""

from __future__ import annotations

from typing import Any

from tests.support.fault_cases.fault_case import Case, Outcome, Witness, calm, lost_rows
from tests.support.workplace import Workplace, caption, command

FAILS_ALONE = "Only the record fails. No host is contacted."
SCHEMES = ("ftp", "webhdfs", "github", "dask", "sftp", "http", "s3+evil", "file\\")


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
    return played(place, [{"image_path": f"{scheme}://127.0.0.1:9/a.jpg"} for scheme in SCHEMES])


def monsters(place: Workplace, full: bool) -> Outcome:
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


ROWS: list[Case] = [
    Case("rows: picture addresses of any scheme", FAILS_ALONE, schemes),
    Case("rows: deep, long, of odd types", FAILS_ALONE, monsters),
]
