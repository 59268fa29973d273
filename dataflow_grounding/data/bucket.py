"""The border to buckets (s3://, gs://): results there are worked on in a folder of this machine.

`local` names that folder; `fill` brings what it lacks. While a run is `in_step`, its replies and
the files of steps that have ended are sent every few seconds, and all other files at the end.
`copied` is for commands that only read. Who calls these names a folder or an address, and works on
a folder of this machine; what is said of that folder is said of the address (`show_as`). In the
code, here is the folder on this machine, and there is the bucket.

A run puts a claim there: a random id. Where another id is there later, another run has begun since,
and has taken the bucket over. Then this one sends no file any more.

A log of replies only grows, and a store can't append to a file. So a log is sent in parts: there,
`.ckpt/replies/{writer}-{offset}.jsonl` holds the lines of a writer's log from an offset in bytes
on. A writer is a working folder that has sent replies to the bucket, named by a random id. On this
machine, the folder's own log is `.ckpt/replies.jsonl`, as in any folder, and the logs of other
writers are `.ckpt/replies/{writer}.jsonl`.

`errors_as(…, again=True)` makes the library's own error of an OSError, and advises to run the same
command again: it then goes on where this one ended.
"""

import hashlib
import json
import os
import posixpath
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple, TypeAlias, TypeVar

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding._util.environment import cache_folder
from dataflow_grounding._util.errors import (
    GroundingError,
    InputError,
    StorageFailed,
    TakenOver,
    errors_as,
)
from dataflow_grounding._util.files import open_log, whole_file, within
from dataflow_grounding._util.paths import has_scheme, joined, state_of
from dataflow_grounding._util.stores import file_version, place_of, system_errors
from dataflow_grounding._util.terminal import say, show_as
from dataflow_grounding._util.threads import in_threads
from dataflow_grounding.data.records import read_object, write_bytes
from dataflow_grounding.data.results_folder import CALIBRATION, CKPT, PICTURES, SHARDS

T = TypeVar("T")

SEND_SECONDS = 5.0  # between two times that replies are sent: what a lost machine loses
SAY_SECONDS = 10.0  # after so long, a run that is over says that it waits for the store
_WAIT_SECONDS = 300.0  # the longest pause before sending is tried again
SENT_BYTES = 64 * 2**20  # the most of a part
# A part with fewer bytes is sent again, with what came since, so that there are few parts. A larger
# one is closed, and the next part begins after it.
CLOSED_BYTES = 4 * 2**20
_PART = re.compile(r"(.+)-(\d{15})\.jsonl")  # "5f0c31a9-000000000004096.jsonl"
_SHARED_OF_CKPT = (CALIBRATION, "images.jsonl")
"""Of `.ckpt`, what runs on other machines have a use for; replies go their own way."""
_MARK = ".elsewhere.json"
"""The file in a working folder's root that says of which address and subfolder it is, and names it
as a writer.
"""
_SENT = ".elsewhere.sent.json"
"""A file in that root: by each path that was sent or brought, its state here and its version there.
"""

_STEP = re.compile(r"captions|step_\d+_.+")  # the folder of a step
_ROWS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".lines")
"""What files end with that a run may read."""

_buckets: dict[str, "_Bucket"] = {}  # of this process, by the root of their working folder


class _State(NamedTuple):
    """How a file was when it was last sent or brought; a row of _SENT."""

    here: list[int] | None  # as `state_of` returns it
    there: str  # as `file_version` returns it


class _Bucket:
    """An address, and the folder `root` in which it is worked on; paths are relative to both."""

    def __init__(self, address: str, root: str, subfolder: str = "") -> None:
        self.address = address
        self.root = root
        self.subfolder = subfolder  # which is worked in: "shards/2-of-8", or "" for the whole
        # For messages about this machine's disk: `show_as` replaces the path by the address, and
        # they would say that the bucket has failed.
        self.folder_in_words = f"{os.path.basename(root)} in {os.path.dirname(root)}"
        self._system, self._path = place_of(address)  # fsspec's file system, and the path in it
        self.writer = self._name_as_writer()
        self._claim_path = posixpath.join(subfolder, CKPT, "claim")
        # What this process has put there: b"" if it has run nothing there.
        self._claim: bytes = _buckets[root]._claim if root in _buckets else b""
        _buckets[root] = self
        show_as(root, address)

    def _name_as_writer(self) -> str:
        """Return the writer's name, which is chosen when the folder is new and kept in its mark."""
        mark = os.path.join(self.root, _MARK)
        with errors_as(InputError, f"can't write in {self.folder_in_words}", again=True):
            if not os.path.exists(mark):
                os.makedirs(self.root, exist_ok=True)
                stated = {"address": self.address, "part": self.subfolder, "id": token_hex(8)}
                write_bytes(mark, json.dumps(stated).encode())
        return str(read_object(mark).get("id"))

    def here(self, *path: str) -> str:
        """Return where a file is on this machine; InputError where it could leave the root."""
        name = "/".join(filter(None, path))
        return within(self.root, name, self.address) if name else self.root

    def call(self, path: str, function: Callable[[Any, str], T]) -> T:
        """Call a function with fsspec's file system and a path in it; return what it returns."""
        with system_errors(self.address):
            return function(self._system, f"{self._path}/{path}".rstrip("/"))

    def listed(self, folder: str) -> dict[str, dict[str, Any]]:
        """Return by name what the store tells of each file and folder right in a folder there."""
        try:
            entries = self.call(folder, lambda system, there: system.ls(there, detail=True))
        except FileNotFoundError:
            return {}
        path_of_folder = f"{self._path}/{folder}".rstrip("/")
        entry_by_name: dict[str, dict[str, Any]] = {}
        for entry in entries:
            path = entry["name"].rstrip("/")
            # A store's web console makes an empty object for a folder, which is listed in it.
            is_folder_itself = path == path_of_folder
            if not is_folder_itself:
                entry_by_name[posixpath.basename(path)] = entry
        return entry_by_name

    def read(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Return the bytes [start, end) of a file there; none where there is no such file."""
        try:
            data = self.call(
                path, lambda system, there: system.cat_file(there, start=start, end=end)
            )
        except FileNotFoundError:
            return b""
        return bytes(data)

    def write(self, path: str, data: bytes) -> None:
        self.call(path, lambda system, there: system.pipe_file(there, data, mode="overwrite"))

    def remove(self, path: str) -> None:
        self.call(path, lambda system, there: system.rm_file(there))

    def put_claim(self) -> bytes:
        """Put a new claim there; return the one that was there before."""
        claim_before = self.read(self._claim_path)
        claim = f"{self.writer} {token_hex(8)}\n".encode()
        self.write(self._claim_path, claim)
        self._claim = claim
        return claim_before

    def refuse_if_taken_over(self) -> None:
        """Raise TakenOver where another run has put its claim there."""
        if not self._claim:
            return
        claim_there = self.read(self._claim_path)
        # Without any claim, somebody has removed the files there, but no other run has begun.
        if claim_there not in (self._claim, b""):
            raise TakenOver.of(self.address)

    def fetch(self, *paths: str) -> None:
        """Bring files here; one that isn't there is passed over."""
        with errors_as(InputError, f"can't read {self.address}", again=True):
            in_threads(self._get, paths)

    def _get(self, path: str) -> None:
        path_here = self.here(path)
        os.makedirs(os.path.dirname(path_here), exist_ok=True)
        # alone=False: another process may fetch the same file now
        with suppress(FileNotFoundError), whole_file(path_here, alone=False) as file:
            self.call(path, lambda system, there: system.get_file(there, file.name))

    def refuse_results_of_no_run(self) -> None:
        """Raise InputError for results without a CKPT: they are somebody else's."""
        with errors_as(InputError, f"can't read {self.address}", again=True):
            names = self.listed(self.subfolder)
        results = {"annotations.jsonl", "run.json"}.intersection(names)
        if results and CKPT not in names:
            address = f"{self.address}/{self.subfolder}".rstrip("/")
            raise InputError(
                f"{address}/{min(results)} was not made by a run here: {address} has no {CKPT}:"
                " choose another folder"
            )

    def bring_changes(self) -> None:
        """Bring what runs read where it has changed there, also over changes here."""
        synced_states = self._synced_states()
        states_here = self._states_here()
        folders = {posixpath.dirname(path) for path in states_here}
        folders |= {self.subfolder, posixpath.join(self.subfolder, CKPT)}
        new_states: dict[str, _State] = {}  # by path, of all files that are there
        versions_to_bring: dict[str, str] = {}
        for path, info in self._files_there(folders):
            if not self._is_shared(path):
                continue
            version = file_version(info)
            is_here = path in states_here
            synced = synced_states.get(path)
            if is_here and synced is not None and synced.there == version:
                new_states[path] = synced  # it hasn't changed there
            # a copy that is here is renewed, even if no run reads it
            elif is_here or self._is_read_by_runs(path):
                versions_to_bring[path] = version
        # A run is skipped if facts.json says that it was done before, and its outputs are the
        # same as then. Outputs of another machine take their place now.
        if any(path.endswith((".json", ".jsonl")) for path in versions_to_bring):
            Path(self.here(self.subfolder, CKPT, "facts.json")).unlink(missing_ok=True)
        self.fetch(*versions_to_bring)
        for path, version in versions_to_bring.items():
            new_states[path] = _State(state_of(self.here(path)), version)
        with errors_as(InputError, f"can't write in {self.folder_in_words}", again=True):
            # Results without it count as somebody else's.
            os.makedirs(self.here(self.subfolder, CKPT), exist_ok=True)
            # Files that are gone there have no state any more, so that `send_changes` sends them.
            self._keep_synced_states(new_states)

    def _synced_states(self) -> dict[str, _State]:
        rows = read_object(self.here(_SENT))
        return {path: _State(*row) for path, row in rows.items()}

    def _keep_synced_states(self, states: dict[str, _State]) -> None:
        write_bytes(self.here(_SENT), json.dumps(states).encode())

    def _files_there(self, folders: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield path and facts of each file in these folders and in their steps' folders."""
        # A step's folder is known only when the folder that it is in was listed. Folders are listed
        # side by side: each listing waits for the store.
        to_list = sorted(set(folders))
        was_listed: set[str] = set()
        while to_list:
            was_listed.update(to_list)
            with errors_as(InputError, f"can't read {self.address}", again=True):
                listings = in_threads(self.listed, to_list)
            step_folders: set[str] = set()
            for folder, entries in zip(to_list, listings, strict=True):
                for name, info in entries.items():
                    path = posixpath.join(folder, name)
                    if info["type"] == "file":
                        yield path, info
                    elif _STEP.fullmatch(name):
                        step_folders.add(path)
            # some of them were among `folders` already
            to_list = sorted(step_folders - was_listed)

    def _is_read_by_runs(self, path: str) -> bool:
        if not path.endswith(_ROWS):  # other files may be large, and no run needs them
            return False
        path_in_subfolder = posixpath.relpath(path, self.subfolder or ".")
        folder = posixpath.dirname(path_in_subfolder)
        is_folder_of_step = bool(_STEP.fullmatch(folder))
        return folder in ("", CKPT) or is_folder_of_step

    def bring_shards(self) -> list[str]:
        """Replace the shards' files here, but for replies; return the names of their folders."""
        # The shards are merged next, so nothing of an earlier merge may be left among them.
        with errors_as(InputError, f"can't write in {self.folder_in_words}", again=True):
            for file in Path(self.here(SHARDS)).glob("*/*"):
                if file.name == CKPT:  # replies stay
                    continue
                if file.is_dir():
                    shutil.rmtree(file)
                else:
                    file.unlink()
        with errors_as(InputError, f"can't read {self.address}", again=True):
            names = [name for name in self.listed(SHARDS) if "-of-" in name]  # "2-of-8"
        folders = [f"{SHARDS}/{name}" for name in names]
        picture_folders = [f"{folder}/{PICTURES}" for folder in folders]
        paths_to_bring = []
        for path, _ in self._files_there([*folders, *picture_folders]):
            if path.endswith(_ROWS) or f"/{PICTURES}/" in path:
                paths_to_bring.append(path)
        self.fetch(*paths_to_bring)
        return names

    def send_changes(self, *endings: str) -> None:
        """Send the files of the subfolder that have changed here; `endings` choose among them."""
        states: dict[str, list[int]] = {}
        for path, state in self._states_here().items():
            if not endings or path.endswith(endings):
                states[path] = state
        self.send_changed(states)

    def send_changed(self, states: dict[str, list[int]]) -> None:
        """Send those of these files that have changed here."""
        synced_states = self._synced_states()
        changed_states: dict[str, list[int]] = {}  # by path
        for path, state in states.items():
            is_unchanged = path in synced_states and synced_states[path].here == state
            if not is_unchanged:
                changed_states[path] = state
        # run.json is sent last: whoever finds it there finds all the files that it names.
        run_file = os.path.join(self.subfolder, "run.json")
        versions = self.send(*[path for path in changed_states if path != run_file])
        if run_file in changed_states:
            versions |= self.send(run_file)
        for path, state in changed_states.items():
            # A file that changes while it is sent differs from this state, and is sent again.
            synced_states[path] = _State(state, versions[path])
        with errors_as(StorageFailed, f"can't write in {self.folder_in_words}", again=True):
            self._keep_synced_states(synced_states)

    def send(self, *paths: str) -> dict[str, str]:
        """Send files; return by path the version of each there. Raises OSError, TakenOver."""
        self.refuse_if_taken_over()
        return dict(zip(paths, in_threads(self._put, paths), strict=True))

    def failing_to_write(self) -> errors_as:
        what = f"all is kept in {self.folder_in_words}, but can't write {self.address}"
        return errors_as(StorageFailed, what, again=True)

    def _put(self, path: str) -> str:
        self.call(path, lambda system, there: system.put_file(self.here(path), there))
        return file_version(self.call(path, lambda system, there: system.info(there)))

    def _states_here(self) -> dict[str, list[int]]:
        """Return by path the state of each file here that the bucket has or is to have."""
        return self._states_of(Path(self.here(self.subfolder)).rglob("*"))

    def whole_files_here(self) -> dict[str, list[int]]:
        """Return by path the state of each file of rows or facts that a run has put in place."""
        # Their writers put them in place whole. Of other files, such as labels for each picture, a
        # step that is at work may have written half.
        folder = Path(self.here(self.subfolder))
        paths = [folder / CKPT / CALIBRATION]
        for path in folder.iterdir():
            is_of_step = _STEP.fullmatch(path.name) and path.is_dir()
            paths += path.iterdir() if is_of_step else [path]
        return self._states_of(path for path in paths if path.name.endswith(_ROWS))

    def _states_of(self, paths: Iterable[Path]) -> dict[str, list[int]]:
        states: dict[str, list[int]] = {}
        for path in paths:
            path_in_root = path.relative_to(self.root).as_posix()
            if self._is_shared(path_in_root):
                state = state_of(str(path))
                if state:  # a folder has none
                    states[path_in_root] = state
        return states

    def _is_shared(self, path: str) -> bool:
        """Whether a file is sent to the bucket and brought from it."""
        names = path.split("/")
        if not self.subfolder and names[0] == SHARDS:  # each shard sends its own files
            return False
        if CKPT in names:
            # Other files there are logs, which `_Replies` sends, or are of use here alone.
            return names[-1] in _SHARED_OF_CKPT
        is_for_this_machine = path.endswith((_MARK, _SENT, ".part"))
        return not is_for_this_machine


class _Log(NamedTuple):
    folder: str
    writer: str


# The size of each part of a log, by its offset in the log, in bytes.
_SizeAtOffset: TypeAlias = dict[int, int]


class _Replies:
    """The replies of a bucket, brought to and sent from its working folder."""

    def __init__(self, bucket: _Bucket) -> None:
        self._bucket = bucket
        self._folder = posixpath.join(bucket.subfolder, CKPT)
        self._log = bucket.here(self._folder, "replies.jsonl")
        # A listing may not show the newest parts yet. Of these writers it is known that they have
        # sent some, so that their parts are also asked for by name.
        self._known_writers = {bucket.writer}
        # Offsets in bytes in the own log: where the part that is being sent begins, and how far the
        # log has been sent.
        self._part_begin = 0
        self._sent_end = 0

    def claim(self) -> None:
        """Put this run's claim there, and remember whose was there before."""
        with errors_as(InputError, f"can't write {self._bucket.address}", again=True):
            claim_before = self._bucket.put_claim().split()  # the writer, a random id
        if claim_before:
            self._known_writers.add(claim_before[0].decode(errors="replace"))

    def bring(self) -> None:
        """Add all replies that are stored there to the logs here, which are never replaced."""
        with errors_as(InputError, f"can't read {self._bucket.address}", again=True):
            parts_of_log = self._listed_parts()
            in_threads(lambda log: self._bring_log(log, parts_of_log[log]), parts_of_log)
        own_log = _Log(self._folder, self._bucket.writer)
        own_parts = parts_of_log[own_log]  # {} if it has none: this writer is a known one
        ends = [offset + size for offset, size in own_parts.items()]
        self._sent_end = max(ends, default=0)
        self._part_begin = self._sent_end  # parts of earlier runs aren't sent again

    def _listed_parts(self) -> dict[_Log, _SizeAtOffset]:
        parts_of_log: dict[_Log, _SizeAtOffset] = {}
        # A listing may miss new logs. So logs of known writers in this folder are always among
        # them, perhaps without parts.
        for writer in self._known_writers:
            parts_of_log[_Log(self._folder, writer)] = {}
        folders = self._folders_with_replies()
        listings = in_threads(lambda folder: self._bucket.listed(f"{folder}/replies"), folders)
        for folder, files in zip(folders, listings, strict=True):
            for name, info in files.items():
                match = _PART.fullmatch(name)
                if match:
                    writer, offset = match[1], int(match[2])
                    parts = parts_of_log.setdefault(_Log(folder, writer), {})
                    parts[offset] = info["size"]
        return parts_of_log

    def _folders_with_replies(self) -> list[str]:
        # A reply that the whole run, this shard or another one has paid for isn't asked for again.
        folders = {CKPT, self._folder}
        for name, info in self._bucket.listed(SHARDS).items():
            may_share_replies = not _are_blocks_of_one_split(name, self._bucket.subfolder)
            if info["type"] == "directory" and may_share_replies:
                folders.add(f"{within(SHARDS, name)}/{CKPT}")
        return list(folders)

    def _bring_log(self, log: _Log, parts: _SizeAtOffset) -> None:
        """Add to a log here the lines that only its parts there have."""
        is_own = log == (self._folder, self._bucket.writer)
        if is_own:
            path = self._log
        else:
            path = self._bucket.here(log.folder, "replies", f"{log.writer}.jsonl")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(open_log(path), "ab") as file:
            while more := self._bytes_of_log(log, parts, start=file.tell()):
                file.write(more)

    def _bytes_of_log(self, log: _Log, parts: _SizeAtOffset, start: int) -> bytes:
        """Return some bytes of a log there, from `start` on; none where it ends."""
        # Parts may overlap. Of parts with bytes 0 to 100 and 60 to 140, byte 70 is in the second.
        begins = [begin for begin, size in parts.items() if begin <= start < begin + size]
        # If no listed part has it, a new one may, which the listing missed: it begins here.
        begin_of_part = max(begins, default=start)
        name = _part_name(log.folder, log.writer, begin_of_part)
        start_in_part = start - begin_of_part
        return self._bucket.read(name, start_in_part, start_in_part + CLOSED_BYTES)

    def send(self) -> None:
        """Send the whole lines that the own log has gained."""
        with open(self._log, "rb") as file:
            os.fsync(file.fileno())  # only what this machine can't lose any more is sent
            while True:  # each time one part, of at most SENT_BYTES
                file.seek(self._part_begin)
                data = file.read(SENT_BYTES)
                whole_lines = data[: data.rfind(b"\n") + 1]
                end = self._part_begin + len(whole_lines)
                if end <= self._sent_end:  # all was sent
                    break
                name = _part_name(self._folder, self._bucket.writer, self._part_begin)
                self._bucket.write(name, whole_lines)
                self._sent_end = end
                # A smaller part is sent again, with what came since.
                if len(whole_lines) >= CLOSED_BYTES:
                    self._part_begin = end


def _part_name(folder: str, writer: str, begin: int) -> str:
    return within(f"{folder}/replies", f"{writer}-{begin:015}.jsonl")


def _are_blocks_of_one_split(name: str, own_path: str) -> bool:
    """Whether two shards are blocks of one split, which have no row in common."""
    own_name = posixpath.basename(own_path)
    if name == own_name:  # one block, whose replies are of use to itself
        return False
    block, _, count = name.rpartition("-")
    own_block, _, own_count = own_name.rpartition("-")
    are_blocks = block.startswith("block-") and own_block.startswith("block-")
    return are_blocks and count == own_count


class _Run:
    """A run that is kept in step with a bucket, and ends itself by `taken_over`."""

    def __init__(self, bucket: _Bucket, taken_over: Callable[[], None]) -> None:
        self._bucket = bucket
        self._replies = _Replies(bucket)
        self._taken_over = taken_over
        self._sent: dict[str, list[int]] = {}  # states of whole files that were sent
        self._is_over = threading.Event()  # ends the sender
        self._sender = threading.Thread(target=self._send_now_and_then, daemon=True)

    def begin(self) -> None:
        """Bring what is there, and begin to send now and then what comes."""
        bucket = self._bucket
        bucket.refuse_results_of_no_run()
        say(f"Working in {bucket.folder_in_words}; what comes of it goes to {bucket.address}")
        self._replies.claim()
        self._replies.bring()
        bucket.bring_changes()
        self._sender.start()

    def end_sender(self) -> None:
        self._is_over.set()
        self._sender.join()

    def _send_now_and_then(self) -> None:
        """Send every SEND_SECONDS; a failure is told once, and followed by longer pauses."""
        wait = SEND_SECONDS
        wait_of_files = SEND_SECONDS
        files_from = 0.0  # when files are sent again, by the process's clock
        while not self._is_over.wait(wait):
            try:
                # Also after it was taken over: these replies were paid for, and they go into a log
                # of its own, which no other run writes.
                self._replies.send()
                self._bucket.refuse_if_taken_over()
                wait = SEND_SECONDS
            except TakenOver:
                self._taken_over()
                continue
            except (OSError, StorageFailed) as error:
                if wait == SEND_SECONDS:  # the first failure
                    self._say_that_it_waits(error)
                wait = min(2 * wait, _WAIT_SECONDS)
                continue
            if time.monotonic() < files_from:
                continue
            # A file that can't be sent holds no reply back.
            try:
                self._send_whole_files()
                wait_of_files = SEND_SECONDS
            except TakenOver:
                self._taken_over()
            except (OSError, GroundingError) as error:
                if wait_of_files == SEND_SECONDS:
                    self._say_that_it_waits(error)
                wait_of_files = min(2 * wait_of_files, _WAIT_SECONDS)
                files_from = time.monotonic() + wait_of_files

    def _send_whole_files(self) -> None:
        states = self._bucket.whole_files_here()
        # It says that a run has finished before the run has written its other formats.
        states.pop(posixpath.join(self._bucket.subfolder, "run.json"), None)
        if states != self._sent:
            self._bucket.send_changed(states)
            self._sent = states

    def _say_that_it_waits(self, error: OSError | GroundingError) -> None:
        bucket = self._bucket
        if isinstance(error, OSError):
            say(
                f"Warning: can't write {bucket.address}: {error.strerror or error}; all is kept in"
                f" {bucket.folder_in_words} meanwhile"
            )
        else:
            say(f"Warning: {error}")

    def end(self, stopped: BaseException | None) -> None:
        """Send what is left: of a run that was stopped replies and whole files alone.

        Raises TakenOver where another run has the folder now, whose files must stay: only replies
        are sent then. Raises StorageFailed, which is only said where the run was stopped.
        """
        try:
            with self._bucket.failing_to_write():
                self._replies.send()
                if stopped is None:
                    self._bucket.send_changes()
                else:
                    self._bucket.send_changed(self._bucket.whole_files_here())
        except StorageFailed as error:
            if isinstance(error, TakenOver):
                self._taken_over()
            if stopped is None:
                raise
            was_stopped_by_this = str(error) == str(stopped)  # then the command says it at its end
            if not was_stopped_by_this:
                say(f"Warning: {error}")


def local(results: str, subfolder: str = "") -> str:
    """Return the folder of this machine in which to work on `results`, or its `subfolder`."""
    if is_remote(results):
        address = _spelled(results)
        bucket = _Bucket(address, _working_folder_of(address, subfolder), subfolder)
        return bucket.here(subfolder)
    if has_scheme(results) and not os.path.isdir(results):
        raise InputError(
            f"results can't be written to {results}: name a folder, or a bucket as s3://bucket/run"
        )
    return os.path.join(results, subfolder) if subfolder else results


def _working_folder_of(address: str, subfolder: str) -> str:
    """Return the folder of an address and subfolder, the same each time."""
    name = hashlib.sha256(json.dumps([address, subfolder]).encode()).hexdigest()[:20]
    parent = os.environ.get("DF_WORK_FOLDER") or os.path.join(cache_folder(), "elsewhere")
    return os.path.abspath(os.path.join(parent, name))


def _spelled(address: str) -> str:
    """Return one spelling of an address; InputError for one without a bucket, or with keys."""
    scheme, _, path = address.partition("://")
    if not path.strip("/"):
        raise InputError(f"{address} names no bucket: results_dir should be as s3://bucket/run")
    address = joined(f"{scheme.lower()}://{path}", "").rstrip("/")
    place_of(address)  # refuses an address with keys
    return address


def _bucket_of(path: str) -> _Bucket | None:
    """Return the bucket of the working folder that a path is in."""
    folder = Path(os.path.abspath(path))
    # Only folders that this process has made or found count: a stranger may have put a _MARK there.
    for root in (folder, *folder.parents):
        if str(root) in _buckets:
            return _buckets[str(root)]
    return None


def fill(folder: str) -> None:
    """Bring what a working folder lacks of its bucket, except replies."""
    bucket = _bucket_of(folder)
    if bucket is not None:
        bucket.refuse_results_of_no_run()
        bucket.bring_changes()


def shards_in(folder: str) -> list[str]:
    """Return the names of the shards' folders in a results folder; brings what is there."""
    bucket = _bucket_of(folder)
    if bucket is not None:
        return bucket.bring_shards()
    return [path.name for path in Path(folder, SHARDS).glob("[!.]*-of-*") if path.is_dir()]


@contextmanager
def in_step(checkpoint: str, taken_over: Callable[[], None]) -> Iterator[None]:
    """Take over the bucket of a checkpoint folder, and keep both in step while the block runs.

    `taken_over` is called, from any thread, when another run has claimed the bucket since.
    """
    bucket = _bucket_of(checkpoint)
    if bucket is None:
        yield
        return
    run = _Run(bucket, taken_over)
    run.begin()
    stopped: BaseException | None = None  # what ended the block, if anything did
    try:
        yield
    except BaseException as why:
        stopped = why
        raise
    finally:
        with _saying_that_it_waits(bucket):
            run.end_sender()
            # A run turns Ctrl-C into an error, Interrupted. A KeyboardInterrupt came outside of the
            # run: then nothing more is sent, and the next run does that.
            if not isinstance(stopped, KeyboardInterrupt):
                run.end(stopped)


@contextmanager
def _saying_that_it_waits(bucket: _Bucket) -> Iterator[None]:
    waiting = (
        f"Waiting for {bucket.address} to take what comes of the run: all is kept in"
        f" {bucket.folder_in_words}; Ctrl-C leaves it to the next run to send it"
    )
    timer = threading.Timer(SAY_SECONDS, say, [waiting])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def copied(results: str, *names: str, replies: bool = False) -> Iterator[str]:
    """Yield a results folder to read; for one in a bucket, a copy of the files `names`."""
    address = _address_of(results)
    if not address:  # the folder can be read as it is
        yield results
        return
    with tempfile.TemporaryDirectory() as aside:
        root = os.path.join(os.path.abspath(aside), posixpath.basename(address))
        copy = _Bucket(address, root)
        try:
            copy.fetch(*names)
            if replies:
                _Replies(copy).bring()
            yield root
        finally:
            del _buckets[root]  # `_Bucket` has put it there, and the folder is removed now


def _address_of(results: str) -> str:
    """Return the bucket's address of `results`, if it has one: its files may be newer."""
    if is_remote(results):
        return _spelled(results)
    bucket = _bucket_of(results)
    return "" if bucket is None else bucket.address


def send(path: str, *endings: str) -> None:
    """Send what is new in the working folder that a path is in."""
    bucket = _bucket_of(path)
    if bucket is not None:
        with bucket.failing_to_write():
            bucket.send_changes(*endings)


def send_files(*paths: str) -> None:
    bucket = _bucket_of(paths[0])
    if bucket is not None:
        with bucket.failing_to_write():
            bucket.send(*[os.path.relpath(path, bucket.root) for path in paths])


def bring(*paths: str) -> str:
    """Bring files of a working folder as they are there; return the first."""
    bucket = _bucket_of(paths[0])
    if bucket is not None:
        bucket.fetch(*[os.path.relpath(path, bucket.root) for path in paths])
    return paths[0]


def remove(path: str) -> None:
    """Remove a file of a working folder there, if it can be: it is of no more use."""
    bucket = _bucket_of(path)
    if bucket is not None:
        with suppress(OSError):
            bucket.refuse_if_taken_over()
            bucket.remove(os.path.relpath(path, bucket.root))


def check_writable(folder: str) -> None:
    """Write and remove a small file where a working folder's files go. Raises InputError."""
    bucket = _bucket_of(folder)
    if bucket is None:
        return
    with errors_as(InputError, f"results_dir {bucket.address}: cannot write there"):
        bucket.write(f"{CKPT}/check", b"of what can be written")
        bucket.remove(f"{CKPT}/check")
