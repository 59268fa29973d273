"""A remote results folder (s3://, gs://, …), and the folder on this machine that mirrors it.

All is written here, on a disk, as for any other folder, and then sent where the address says:
nothing that was paid for hangs on a network, and what can't be sent now is sent by the next
command.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from dataflow_grounding._util.environment import cache_folder
from dataflow_grounding._util.errors import InputError, StorageFailed, errors_as
from dataflow_grounding._util.files import whole_file, within
from dataflow_grounding._util.paths import joined, state_of, system_errors
from dataflow_grounding._util.stores import file_version, place_of
from dataflow_grounding._util.threads import in_threads
from dataflow_grounding.data.records import read_object, write_bytes

CKPT = ".ckpt"
"""The folder in a results folder where a run keeps its replies and what it has found out."""
known_mirrors: set[str] = set()
"""Folders of this machine that mirror an address, besides those in `mirrors_folder`."""
T = TypeVar("T")
KEPT = ("calibration.json", "images.jsonl")
"""Of `.ckpt`, what runs on other machines have a use for; replies go their own way."""
_MARK = ".elsewhere.json"
"""The file in a mirror's root that makes it a mirror; see `_STATED`."""
_SENT = ".elsewhere.sent.json"
"""A file in a mirror's root. By each path that was sent or brought, it has a list of two: the
file's state here (see `_util.paths.state_of`), and its version there (see `file_version`)."""
_STATED = ("address", "part", "id")
"""What the mark file says. The part is a shard's folder, or "" for the whole; the id is of this
folder here alone."""


class Mirror:
    """The local folder `root`, a copy of what is at `address`.

    `make_mirror` makes the folder. Paths are relative to the root, as to the address, with `/`.
    """

    def __init__(self, root: str) -> None:
        stated = read_object(os.path.join(root, _MARK))
        self.root = root
        self.address, self.part, self.id = (str(stated.get(name)) for name in _STATED)
        # ids of all that are known to have worked there, no matter what a listing says
        self.known = {self.id}
        self._system, self._path = place_of(self.address)

    def here(self, *path: str) -> str:
        """Return where a file is on this machine: its path's parts below the root.

        Empty ones don't count; without any it is the root. Raises InputError where they could lead
        out of it.
        """
        name = "/".join(filter(None, path))
        return within(self.root, name, self.address) if name else self.root

    def call(self, path: str, function: Callable[[Any, str], T]) -> T:
        """Return what a function returns that is given the fsspec file system and a path in that.

        `path` is from the address. The file system's library tries again by itself. Raises OSError.
        """
        with system_errors(self.address):
            return function(self._system, f"{self._path}/{path}".rstrip("/"))

    def listed(self, folder: str, entry_type: str = "file") -> dict[str, dict[str, Any]]:
        """Return what is directly in a folder there: by name, what the store tells of each.

        `entry_type` is "file" or "directory". A folder that isn't there has nothing. Raises
        OSError.
        """
        try:
            entries = self.call(folder, lambda system, there: system.ls(there, detail=True))
        except FileNotFoundError:
            return {}
        listed: dict[str, dict[str, Any]] = {}
        for entry in entries:
            if entry["type"] == entry_type:
                listed[os.path.basename(entry["name"].rstrip("/"))] = entry
        return listed

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return the bytes [start, end) of a file there, from its beginning or to its end for None.

        Empty where there is no such file. Raises OSError.
        """
        try:
            data = self.call(
                path, lambda system, there: system.cat_file(there, start=start, end=end)
            )
        except FileNotFoundError:
            return b""
        return bytes(data)

    def write(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        """Write a file there, whole or not at all; with mode "create" only where there is none.

        A file that is there then stays, and nothing says so. Raises OSError.
        """
        with suppress(FileExistsError):
            self.call(path, lambda system, there: system.pipe_file(there, data, mode=mode))

    def remove(self, path: str) -> None:
        """Remove a file there. Raises OSError, also where it isn't there."""
        self.call(path, lambda system, there: system.rm_file(there))

    def fetch(self, *paths: str) -> None:
        """Bring files here. One that isn't there is passed over; see `_get`.

        Raises InputError.
        """
        with errors_as(InputError, f"can't read {self.address}", again=True):
            in_threads(self._get, paths)

    def renew(self) -> None:
        """Bring those files of the part that are here, and there not as they were sent or brought.

        What was changed here and not sent yet is overwritten by them. Where any of them is JSON,
        the run is no longer known as finished here, also if bringing it fails then. Files that are
        gone there are forgotten as sent, so that `put` sends them again. Raises InputError.
        """
        own = self._states_here()
        sent = read_object(self.here(_SENT))
        with errors_as(InputError, f"can't read {self.address}", again=True):
            there = self._versions_there({os.path.dirname(path) for path in own})
            kept: dict[str, Any] = {}
            changed: list[str] = []
            for path in own:
                if path not in there:
                    continue
                if path in sent and sent[path][-1] == there[path]:
                    kept[path] = sent[path]
                else:
                    changed.append(path)
            if any(path.endswith((".json", ".jsonl")) for path in changed):
                # What a run finished here is no longer what is there.
                Path(self.here(self.part, CKPT, "finished.json")).unlink(missing_ok=True)
            self.fetch(*changed)
            for path in changed:
                kept[path] = [state_of(self.here(path)), there[path]]
            write_bytes(self.here(_SENT), json.dumps(kept).encode())

    def _versions_there(self, folders: Iterable[str]) -> dict[str, str]:
        asked = list(folders)
        versions: dict[str, str] = {}
        for folder, entries in zip(asked, in_threads(self.listed, asked), strict=True):
            for name, info in entries.items():
                path = f"{folder}/{name}" if folder else name
                versions[path] = file_version(info)
        return versions

    def put(self, *endings: str) -> None:
        """Send those files of the part that have changed here since they were sent or brought.

        With `endings` only those whose path ends in one of them. The part's `run.json` is sent
        last. Raises StorageFailed.
        """
        sent = read_object(self.here(_SENT))
        changed: dict[str, list[int]] = {}
        for path, state in self._states_here().items():
            is_sent = path in sent and sent[path][0] == state
            is_meant = not endings or path.endswith(endings)
            if is_meant and not is_sent:
                changed[path] = state
        # Whoever finds run.json there then finds all the files that it names.
        run_file = os.path.join(self.part, "run.json")
        versions = self.send(*[path for path in changed if path != run_file])
        if run_file in changed:
            versions |= self.send(run_file)
        for path, state in changed.items():
            sent[path] = [state, versions[path]]
        with errors_as(StorageFailed, f"can't write in {self.root}", again=True):
            write_bytes(self.here(_SENT), json.dumps(sent).encode())

    def send(self, *paths: str) -> dict[str, str]:
        """Send files; return by path the version of each there, as `file_version` says it.

        Raises StorageFailed.
        """
        with errors_as(
            StorageFailed, f"all is kept in {self.root}, but can't write {self.address}", again=True
        ):
            return dict(zip(paths, in_threads(self._put, paths), strict=True))

    def _states_here(self) -> dict[str, list[int]]:
        # Return by path the state of each file of the part that may have to be sent. It has to be
        # where its state is another one than when it was sent last.
        states: dict[str, list[int]] = {}
        for path in Path(self.here(self.part)).rglob("*"):
            path_in_root = path.relative_to(self.root)
            if not self._is_to_be_sent(path_in_root):
                continue
            state = state_of(str(path))
            if state:
                states[path_in_root.as_posix()] = state
        return states

    def _is_to_be_sent(self, path: Path) -> bool:
        # Not so are shards' files, unless the part is a shard, and what only this machine has a use
        # for: the mirror's own files, half-written ones, and of `.ckpt` all but KEPT.
        if not self.part and path.parts[0] == "shards":
            return False
        if CKPT in path.parts:
            return path.name in KEPT
        return not path.name.endswith((_MARK, _SENT, ".part"))

    def _put(self, path: str) -> str:
        self.call(path, lambda system, there: system.put_file(self.here(path), there))
        return file_version(self.call(path, lambda system, there: system.info(there)))

    def _get(self, path: str) -> None:
        # Bring a file here. Raises OSError. One that isn't there is passed over, and the copy here
        # stays. In a mirror of the whole folder, though, the copy of a shard's file is removed: it
        # is the shard's to have.
        os.makedirs(os.path.dirname(self.here(path)), exist_ok=True)
        try:
            with whole_file(self.here(path), alone=False) as file:
                self.call(path, lambda system, there: system.get_file(there, file.name))
        except FileNotFoundError:
            if not self.part and path.startswith("shards/"):
                Path(self.here(path)).unlink(missing_ok=True)


def mirrors_folder() -> str:
    """Return the folder in which mirrors are made."""
    return os.environ.get("DF_WORK_FOLDER") or os.path.join(cache_folder(), "elsewhere")


def is_mirrored(path: str) -> bool:
    """Whether a path is in a folder that may be a mirror of an address.

    Only folders at the places where this program makes mirrors count: a stranger's folder might
    claim to be one.
    """
    absolute_path = Path(os.path.abspath(path))
    mirrors_in = Path(os.path.abspath(mirrors_folder()))
    for folder in (absolute_path, *absolute_path.parents):
        if folder.parent == mirrors_in or str(folder) in known_mirrors:
            return True
    return False


def mirror_folder(results: str, part: str = "") -> str:
    """Return the folder of this machine in which to work for results that are remote.

    Args:
        results: The address of the results folder, `s3://bucket/run`.
        part: The folder in it that is worked in, such as a shard's; "" for all of it.

    Raises:
        InputError: It is no address of a folder, or has keys in it.
    """
    scheme, _, path_there = results.partition("://")
    if not path_there.strip("/"):
        raise InputError(f"{results} names no bucket: results_dir should be as s3://bucket/run")
    results = joined(f"{scheme.lower()}://{path_there}", "").rstrip("/")  # however it is spelled
    place_of(results)  # which refuses an address with keys
    name = hashlib.sha256(json.dumps([results, part]).encode()).hexdigest()[:20]
    root = os.path.join(mirrors_folder(), name)
    make_mirror(results, root, part)
    return os.path.join(root, part) if part else root


def make_mirror(address: str, root: str, part: str = "") -> Mirror:
    """Make a local folder the mirror of an address, and return it.

    A folder that is a mirror already keeps its address and part. Raises InputError if the folder
    can't be written.
    """
    # `mirror_of` trusts a mark only in folders that this process has made mirrors.
    known_mirrors.add(os.path.abspath(root))
    mark = os.path.join(root, _MARK)
    with errors_as(InputError, f"can't write in {root}", again=True):
        if not os.path.exists(mark):
            os.makedirs(root, exist_ok=True)
            values = (address.rstrip("/"), part, token_hex(8))
            stated = dict(zip(_STATED, values, strict=True))
            write_bytes(mark, json.dumps(stated).encode())
    return Mirror(root)


def mirror_of(path: str) -> Mirror | None:
    """Return the mirror that a path is in; None if it is in none.

    A stranger's folder may have the mark of a mirror too: it is none.
    """
    absolute = Path(os.path.abspath(path))
    own_mirrors = Path(os.path.abspath(mirrors_folder()))
    for folder in (absolute, *absolute.parents):
        is_known = folder.parent == own_mirrors or str(folder) in known_mirrors
        if is_known and os.path.exists(folder / _MARK):
            return Mirror(str(folder))
    return None


def check_writable(folder: str) -> None:
    """Write and remove a small file, to see that the address of a mirror can be written.

    Raises InputError where it can't. A folder in no mirror is not looked at.
    """
    mirror = mirror_of(folder)
    if mirror is None:
        return
    with errors_as(InputError, f"results_dir {mirror.address}: cannot write there"):
        mirror.write(f"{CKPT}/check", b"of what can be written")
        mirror.remove(f"{CKPT}/check")
