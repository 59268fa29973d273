"""A results folder elsewhere (s3://, gs://, …), and the folder of this machine in which commands
work for it.

All is written here, on a disk, as for any other folder, and then sent where the address says:
nothing that was paid for hangs on a network, and what can't be sent now is sent by the next
command.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from dataflow_grounding._util.errors import InputError, StorageFailed, told_as
from dataflow_grounding._util.files import whole_file, within
from dataflow_grounding._util.paths import joined, state_of, system_errors
from dataflow_grounding._util.threads import at_once
from dataflow_grounding.data.records import read_object, write_bytes
from dataflow_grounding.data.working_folder import CKPT, mirrors_folder, standing
from dataflow_grounding.extras.scale.elsewhere import place_of, version_told

T = TypeVar("T")
KEPT = ("calibration.json", "images.jsonl")
"""Of `.ckpt`, what runs on other machines have a use for; replies go their own way."""
_MARK, _SENT = ".elsewhere.json", ".elsewhere.sent.json"
_STATED = ("address", "part", "id")
"""The part is what is worked on: a shard's folder, "" for the whole; the id of this folder of this
machine alone.
"""


class Mirror:
    """The folder `root` of this machine, as `working_folder` makes it, which stands for all that is
    at `address`.
    """

    def __init__(self, root: str) -> None:
        stated = read_object(os.path.join(root, _MARK))
        self.root = root
        self.address, self.part, self.id = (str(stated.get(name)) for name in _STATED)
        # ids of all that are known to have worked there, whatever a listing says
        self.known = {self.id}
        self._system, self._path = place_of(self.address)

    def here(self, *path: str) -> str:
        """Where a file is on this machine."""
        name = "/".join(filter(None, path))
        return within(self.root, name, self.address) if name else self.root

    def ask(self, path: str, what: Callable[[Any, str], T]) -> T:
        """What `what` returns of the file system, whose library tries again by itself, and a file.
        Raises OSError.
        """
        with system_errors(self.address):
            return what(self._system, f"{self._path}/{path}".rstrip("/"))

    def listed(self, folder: str, kind: str = "file") -> dict[str, dict[str, Any]]:
        """The names of what is directly in a folder there, and what its store tells of each. Raises
        OSError.
        """
        with suppress(FileNotFoundError):
            found = self.ask(folder, lambda system, there: system.ls(there, detail=True))
            return {
                os.path.basename(one["name"].rstrip("/")): one
                for one in found
                if one["type"] == kind
            }
        return {}

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of a file there between two places; none without a file. Raises OSError."""
        with suppress(FileNotFoundError):
            return bytes(
                self.ask(path, lambda system, there: system.cat_file(there, start=start, end=end))
            )
        return b""

    def write(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        """Make a file there, whole or not at all; with `create` only where there is none. Raises
        OSError.
        """
        with suppress(FileExistsError):
            self.ask(path, lambda system, there: system.pipe_file(there, data, mode=mode))

    def remove(self, path: str) -> None:
        """Remove a file there. Raises OSError."""
        self.ask(path, lambda system, there: system.rm_file(there))

    def fetch(self, *paths: str) -> None:
        """Bring files. Of those that are not there, copies of other parts' are removed here. Raises
        InputError.
        """
        with told_as(InputError, f"can't read {self.address}", again=True):
            at_once(self._get, paths)

    def renew(self) -> None:
        """Bring files of the part that others changed there; those gone there will be sent again.
        Raises InputError.
        """
        own, sent = self._own(), read_object(self.here(_SENT))
        with told_as(InputError, f"can't read {self.address}", again=True):
            folders = list({os.path.dirname(path) for path in own})
            listed = zip(folders, at_once(self.listed, folders), strict=True)
            told = {
                (f"{at}/" if at else "") + name: info
                for at, names in listed
                for name, info in names.items()
            }
            there = {path: version_told(info) for path, info in told.items()}
            kept = {
                path: sent[path]
                for path in own
                if path in there and sent.get(path, [""])[-1] == there[path]
            }
            new = [path for path in own if path in there and path not in kept]
            if any(path.endswith((".json", ".jsonl")) for path in new):
                # what a run left here is not what is there
                Path(self.here(self.part, CKPT, "finished.json")).unlink(missing_ok=True)
            self.fetch(*new)
            kept |= {path: [state_of(self.here(path)), there[path]] for path in new}
            write_bytes(self.here(_SENT), json.dumps(kept).encode())

    def put(self, *endings: str) -> None:
        """Send files of the part that have changed here, those that end so; `run.json` last. Raises
        StorageFailed.
        """
        sent, last = read_object(self.here(_SENT)), os.path.join(self.part, "run.json")
        new = {
            path: state for path, state in self._own().items() if sent.get(path, [None])[0] != state
        }
        new = {path: state for path, state in new.items() if path.endswith(endings or "")}
        there = self.send(*(new.keys() - {last})) | self.send(*(new.keys() & {last}))
        with told_as(StorageFailed, f"can't write in {self.root}", again=True):
            write_bytes(
                self.here(_SENT),
                json.dumps({**sent, **{at: [new[at], there[at]] for at in new}}).encode(),
            )

    def send(self, *paths: str) -> dict[str, str]:
        """Send files; returns what each is there then, as `version_told` says. Raises
        StorageFailed.
        """
        with told_as(
            StorageFailed, f"all is kept in {self.root}, but can't write {self.address}", again=True
        ):
            return dict(zip(paths, at_once(self._put, paths), strict=True))

    def _own(self) -> dict[str, list[int]]:
        """The files of the part, and what tells each from an earlier one; those of `.ckpt` as far
        as they are kept.
        """
        found = {}
        for path in Path(self.here(self.part)).rglob("*"):
            within = path.relative_to(self.root)
            own = (
                path.name in KEPT
                if CKPT in within.parts
                else not path.name.endswith((_MARK, _SENT, ".part"))
            )
            if (
                own
                and (self.part or within.parts[0] != "shards")
                and (state := state_of(str(path)))
            ):
                found[str(within)] = state
        return found

    def _put(self, path: str) -> str:
        self.ask(path, lambda system, there: system.put_file(self.here(path), there))
        return version_told(self.ask(path, lambda system, there: system.info(there)))

    def _get(self, path: str) -> None:
        os.makedirs(os.path.dirname(self.here(path)), exist_ok=True)
        try:
            with whole_file(self.here(path), alone=False) as file:
                self.ask(path, lambda system, there: system.get_file(there, file.name))
        except FileNotFoundError:
            if not self.part and path.startswith("shards/"):
                Path(self.here(path)).unlink(missing_ok=True)


def working_folder(results: str, part: str = "") -> str:
    """The folder of this machine in which to work for `part` of an address. Raises InputError."""
    scheme, _, place = results.partition("://")
    if not place.strip("/"):
        raise InputError(f"{results} names no bucket: results_dir should be as s3://bucket/run")
    results = joined(f"{scheme.lower()}://{place}", "").rstrip("/")  # however it is spelled
    place_of(results)  # which refuses an address with keys
    name = hashlib.sha256(json.dumps([results, part]).encode()).hexdigest()[:20]
    root = os.path.join(mirrors_folder(), name)
    stand_for(results, root, part)
    return os.path.join(root, part) if part else root


def stand_for(address: str, root: str, part: str = "") -> Mirror:
    """Let a folder of this machine stand for an address, unless it does. Raises InputError."""
    standing.add(os.path.abspath(root))
    with told_as(InputError, f"can't write in {root}", again=True):
        if not os.path.exists(mark := os.path.join(root, _MARK)):
            os.makedirs(root, exist_ok=True)
            stated = dict(zip(_STATED, (address.rstrip("/"), part, token_hex(8)), strict=True))
            write_bytes(mark, json.dumps(stated).encode())
    return Mirror(root)


def mirror_of(path: str) -> Mirror | None:
    """The mirror that a path is in, if it is in one: a stranger's folder, which may say so too, is
    none.
    """
    at = Path(os.path.abspath(path))
    work = Path(os.path.abspath(mirrors_folder()))
    for folder in (at, *at.parents):
        is_known = folder.parent == work or str(folder) in standing
        if is_known and os.path.exists(folder / _MARK):
            return Mirror(str(folder))
    return None


def address_of(path: str) -> str:
    """What a path in a folder that stands for an address is called there; else the path."""
    mirror = mirror_of(path)
    if mirror is None:
        return path
    return f"{mirror.address}/{os.path.relpath(path, mirror.root)}".removesuffix("/.")


def bring(place: str, paths: Sequence[str]) -> None:
    """Bring files of the mirror that a place is in, as `Mirror.fetch`; nothing if it is in none."""
    mirror = mirror_of(place)
    if mirror is not None:
        mirror.fetch(*(os.path.relpath(path, mirror.root) for path in paths))


def send_new(path: str, *endings: str) -> None:
    """Send what is new in the folder of a file, as `Mirror.put`."""
    mirror = mirror_of(path)
    if mirror is not None:
        mirror.put(*endings)


def check_writable(folder: str) -> None:
    """Write what tells that a folder's address can be written, and remove it. Raises InputError."""
    mirror = mirror_of(folder)
    if mirror is None:
        return
    with told_as(InputError, f"results_dir {mirror.address}: cannot write there"):
        mirror.write(f"{CKPT}/check", b"of what can be written")
        mirror.remove(f"{CKPT}/check")
