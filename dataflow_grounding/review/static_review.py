"""A review without a server: a folder with the page, the records, and their pictures."""

import json
import os

from dataflow_grounding.errors import GroundingError, InputError
from dataflow_grounding.metrics.annotations import head_of
from dataflow_grounding.review.session import FILES, SIDES, Session, page_file, page_html
from dataflow_grounding.rows import write_text

_CHUNK = 500  # records in a script
_POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data:; base-uri 'none'"
)


def write_static(session: Session, folder: str) -> str:
    """Write the folder; decisions are collected by its page, in a file to download. Returns the page's path.

    Args:
        session: What is to be reviewed, and by whom.
        folder: A new folder, or an empty one.

    Raises:
        InputError: The folder has files, or can't be written.
    """
    if os.path.isdir(folder) and os.listdir(folder):
        raise InputError(f"{folder} has files already: choose another name for --static")
    queue, scripts = session.queue({}), []
    items = list(queue.undecided(queue.queued))
    shown = [{"why": q.why, "head": head_of(q.item.text), **q.item._asdict()} for q in items]
    places = sorted({queued.item.record for queued in items})
    for begin in range(0, len(places), _CHUNK):
        part = {place: session.view(place) for place in places[begin : begin + _CHUNK]}
        scripts.append(f"data-{begin // _CHUNK + 1}.js")
        _write(folder, scripts[-1], f"Object.assign(reviewData.records, {json.dumps(part)});\n")
        for place in places[begin : begin + _CHUNK]:
            for name in SIDES:
                _write_picture(session, place, name, folder)
    head = json.dumps({"who": session.who, "items": shown, "records": {}})
    _write(folder, "data.js", f"window.reviewData = {head};\n")
    for name in FILES:
        _write(folder, name, page_file(name))
    policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
    page = page_html(policy, "\n".join(f'<script src="{name}"></script>' for name in ["data.js", *scripts]))
    _write(folder, "review.html", page)
    return os.path.join(folder, "review.html")


def _write(folder: str, name: str, text: str) -> None:
    write_text(os.path.join(folder, name), text)


def _write_picture(session: Session, place: int, name: str, folder: str) -> None:
    path = os.path.join(folder, "picture", f"{place}-{name}.jpg")
    try:
        data = session.picture(place, name)
    except GroundingError:
        return  # the page says so
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise InputError(f"can't write {path}: {error.strerror or error}") from None
