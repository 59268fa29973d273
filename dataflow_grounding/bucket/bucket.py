"""The border to buckets (s3://, gs://): results there are worked on in a folder of this machine.

`local` names that folder; `fill` brings what it lacks. While a run is `in_step`, new replies are
sent every SEND_SECONDS, and all else that has changed at its end. `copied` is for commands that
only read. What is said of the folder is said of the address (`show_as`). In the code, here is the
folder, and there is the bucket.

A run puts a claim there: a random id. Where another id is there later, another run has begun since,
and has taken the bucket over. Then this one sends no file any more. The next run here begins with
the files that are there.

A log of replies only grows, and a store can't append to a file. So its new lines are sent as a
part: `.ckpt/replies/{writer}-{offset}.jsonl` holds the lines of a writer's log from an offset in
bytes to the next part. A writer is a working folder, named by a random id. On this machine, the
folder's own log is `.ckpt/replies.jsonl`, as in any folder, and the logs of other writers are
`.ckpt/replies/{writer}.jsonl`.
"""

import hashlib
import json
import os
import posixpath
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple, TypeVar

from dataflow_grounding._util.addresses import is_remote
from dataflow_grounding._util.environment import cache_folder
from dataflow_grounding._util.errors import InputError, StorageFailed, TakenOver, errors_as
from dataflow_grounding._util.files import open_log, whole_file, within, write_bytes
from dataflow_grounding._util.paths import has_scheme, joined, state_of
from dataflow_grounding._util.results_names import CALIBRATION, CKPT, PICTURES, RUN_JSON, SHARDS
from dataflow_grounding._util.stores import place_of, system_errors
from dataflow_grounding._util.terminal import say, show_as
from dataflow_grounding._util.threads import in_threads, side_by_side

T = TypeVar("T")

SEND_SECONDS = 10.0  # between two times that replies are sent: what a lost machine loses
PART_BYTES = 16 * 2**20  # the most of a part
_PART = re.compile(r"(.+)-(\d{15})\.jsonl")  # "5f0c31a9-000000000004096.jsonl"
_STEP = re.compile(r"captions|step_\d+_.+")  # the folder of a step
_ROWS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".lines")
"""What files end with that a run may read."""
_MARK = ".elsewhere.json"
"""The file in a working folder's root with its address and its id as a writer; the claim of the run
whose files are here; and by path the states of files when they were sent or brought.
"""

_buckets: dict[str, "_Bucket"] = {}  # of this process, by the root of their working folder


class _Entry(NamedTuple):
    """What a store tells of a file or folder."""

    is_folder: bool
    size: int


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
        self._checkpoint = posixpath.join(subfolder, CKPT)
        self._own_log = self.here(self._checkpoint, "replies.jsonl")
        self._sent_end = 0  # how far the own log was sent, in bytes
        self._claim = ""  # what this process has put there, if it has run anything there
        _buckets[root] = self
        show_as(root, address)
        with errors_as(InputError, f"can't write in {self.folder_in_words}", again=True):
            os.makedirs(root, exist_ok=True)
            if not self._mark().get("id"):
                self._note({"address": address, "part": subfolder, "id": token_hex(8)})
        self._writer = str(self._mark()["id"])

    def _mark(self) -> dict[str, Any]:
        with suppress(OSError, TypeError, ValueError):  # it is missing or damaged
            return dict(json.loads(Path(self.root, _MARK).read_bytes()))
        return {}

    def _note(self, update: Mapping[str, object]) -> None:
        text = json.dumps({**self._mark(), **update})
        write_bytes(os.path.join(self.root, _MARK), text.encode())

    def here(self, *path: str) -> str:
        """Return where a file is on this machine; InputError where it could leave the root."""
        name = "/".join(filter(None, path))
        return within(self.root, name, self.address) if name else self.root

    def call(self, path: str, function: Callable[[Any, str], T]) -> T:
        """Call a function with fsspec's file system and a path in it; return what it returns."""
        with system_errors(self.address):
            return function(self._system, f"{self._path}/{path}".rstrip("/"))

    def listed(self, folder: str) -> dict[str, _Entry]:
        """Return by name what is right in a folder there."""
        try:
            infos = self.call(folder, lambda system, there: system.ls(there, detail=True))
        except FileNotFoundError:
            return {}
        entries: dict[str, _Entry] = {}
        for info in infos:
            path = info["name"].rstrip("/")
            # A store's web console makes an empty object for a folder, which is listed in it.
            if path != f"{self._path}/{folder}".rstrip("/"):
                entry = _Entry(info["type"] == "directory", info["size"] or 0)
                entries[posixpath.basename(path)] = entry
        return entries

    def files_there(self, folder: str) -> Iterator[str]:
        """Yield the paths of the files in a folder, its CKPT and its steps' folders."""
        for name, entry in self.listed(folder).items():
            path = posixpath.join(folder, name)
            if not entry.is_folder:
                yield path
            elif name == CKPT or _STEP.fullmatch(name):
                yield from self.files_there(path)

    def read(self, path: str) -> bytes:
        """Return a file there; no bytes where there is no such file."""
        try:
            return bytes(self.call(path, lambda system, there: system.cat_file(there)))
        except FileNotFoundError:
            return b""

    def write(self, path: str, data: bytes) -> None:
        self.call(path, lambda system, there: system.pipe_file(there, data, mode="overwrite"))

    def remove(self, path: str) -> None:
        self.call(path, lambda system, there: system.rm_file(there))

    def refuse_if_taken_over(self) -> None:
        """Raise TakenOver where another run has put its claim there."""
        # Without any claim, somebody has removed the files there, but no other run has begun.
        if self._claim and self._claim_there() not in (self._claim, ""):
            raise TakenOver.of(self.address)

    def _claim_there(self) -> str:
        return self.read(posixpath.join(self._checkpoint, "claim")).decode(errors="replace")

    def fetch(self, *paths: str) -> None:
        """Bring files here; one that isn't there is passed over."""
        in_threads(self._get, paths)

    def _get(self, path: str) -> None:
        path_here = self.here(path)
        os.makedirs(os.path.dirname(path_here), exist_ok=True)
        # alone=False: another process may fetch the same file now
        with suppress(FileNotFoundError), whole_file(path_here, alone=False) as file:
            self.call(path, lambda system, there: system.get_file(there, file.name))

    def bring_files(self, *, claiming: bool = False) -> None:
        """Bring what runs read, also over changes here, where another run has been there since.

        Raises InputError for results without a CKPT: they are somebody else's.
        """
        names = self.listed(self.subfolder)
        results = {"annotations.jsonl", RUN_JSON}.intersection(names)
        if results and CKPT not in names:
            address = f"{self.address}/{self.subfolder}".rstrip("/")
            raise InputError(
                f"{address}/{min(results)} was not made by a run here: {address} has no {CKPT}:"
                " choose another folder"
            )
        mark, claim = self._mark(), self._claim_there()
        if claiming:
            self._claim = f"{self._writer} {token_hex(8)}\n"
            with errors_as(InputError, f"can't write {self.address}", again=True):
                self.write(posixpath.join(self._checkpoint, "claim"), self._claim.encode())
        there = [path for path in self.files_there(self.subfolder) if self._is_shared(path)]
        sent = mark.get("sent") or {}
        if not claim or claim != mark.get("claim"):
            # no run needs others than rows, which may be large
            there = [p for p in there if p.endswith(_ROWS) or os.path.exists(self.here(p))]
            # A run is skipped if facts.json says that it was done before, and its outputs are the
            # same as then. Outputs of another machine take their place now.
            if there:
                Path(self.here(self._checkpoint, "facts.json")).unlink(missing_ok=True)
            self.fetch(*there)
            sent = {path: state_of(self.here(path)) for path in there}
        # Results without it count as somebody else's.
        os.makedirs(self.here(self._checkpoint), exist_ok=True)
        sent = {path: sent[path] for path in there if path in sent}  # others are gone there
        self._note({"claim": self._claim if claiming else claim, "sent": sent})

    def bring_shards(self) -> list[str]:
        """Replace the shards' files here, but for replies; return the names of their folders."""
        # The shards are merged next, so nothing of an earlier merge may be left among them.
        for file in Path(self.here(SHARDS)).glob("*/*"):
            if file.is_file():
                file.unlink()
            elif file.name != CKPT:  # replies stay
                shutil.rmtree(file)
        names = [name for name in self.listed(SHARDS) if "-of-" in name]  # "2-of-8"
        paths: list[str] = []
        for folder in (f"{SHARDS}/{name}" for name in names):
            paths += [path for path in self.files_there(folder) if path.endswith(_ROWS)]
            paths += self.files_there(f"{folder}/{PICTURES}")
        self.fetch(*paths)
        return names

    def bring_replies(self) -> None:
        """Add the replies that are stored there to the logs here, which are never replaced."""
        # A reply that the whole run, this shard or another one has paid for isn't asked for again.
        shards = [f"{within(SHARDS, name)}/{CKPT}" for name in self.listed(SHARDS)]
        for folder in {CKPT, self._checkpoint, *shards}:
            parts_of: dict[str, list[tuple[int, int, str]]] = {}  # offset, end and path by writer
            for name, entry in self.listed(f"{folder}/replies").items():
                if match := _PART.fullmatch(name):
                    part = (int(match[2]), int(match[2]) + entry.size, f"{folder}/replies/{name}")
                    parts_of.setdefault(match[1], []).append(part)
            for writer, parts in parts_of.items():
                log = self.here(folder, "replies", f"{writer}.jsonl")
                if (folder, writer) == (self._checkpoint, self._writer):
                    log = self._own_log
                    self._sent_end = max(end for _, end, _ in parts)
                os.makedirs(os.path.dirname(log), exist_ok=True)
                with open(open_log(log), "ab") as file:
                    missing = sorted(part for part in parts if part[1] > file.tell())
                    paths = [path for _, _, path in missing]
                    contents = side_by_side(self.read, paths, lambda _: True)
                    for (offset, _, _), data in zip(missing, contents, strict=True):
                        # a run that was killed here may have written some of it
                        file.write(data[max(0, file.tell() - offset) :])

    def send_replies(self) -> bool:
        """Send the whole lines that the own log has gained, as parts; return whether it had any."""
        if not os.path.exists(self._own_log):
            return False
        begun = self._sent_end
        with open(self._own_log, "rb") as file:
            os.fsync(file.fileno())  # only what this machine can't lose any more is sent
            file.seek(self._sent_end)
            while data := file.read(PART_BYTES):
                lines = data[: data.rfind(b"\n") + 1]
                if not lines:
                    break
                name = f"{self._writer}-{self._sent_end:015}.jsonl"
                self.write(posixpath.join(self._checkpoint, "replies", name), lines)
                self._sent_end += len(lines)
                file.seek(self._sent_end)
        return self._sent_end > begun

    def send_changes(self, *endings: str) -> None:
        """Send the files of the subfolder that have changed here; `endings` choose among them."""
        sent = self._mark().get("sent") or {}
        changed: dict[str, list[int]] = {}  # states by path
        for path in Path(self.here(self.subfolder)).rglob("*"):
            name = path.relative_to(self.root).as_posix()
            if self._is_shared(name) and (not endings or name.endswith(endings)):
                state = state_of(str(path))
                if state and state != sent.get(name):  # a folder has no state
                    changed[name] = state
        # run.json is sent last: whoever finds it there finds all the files that it names.
        run_file = posixpath.join(self.subfolder, RUN_JSON)
        self.send(*[path for path in changed if path != run_file])
        self.send(*[path for path in changed if path == run_file])
        # A file that changes while it is sent differs from this state, and is sent again.
        self._note({"sent": {**sent, **changed}})

    def _is_shared(self, path: str) -> bool:
        """Whether a file is sent to the bucket and brought from it."""
        names = path.split("/")
        if not self.subfolder and names[0] == SHARDS:  # each shard sends its own files
            return False
        if CKPT in names:  # the log goes its own way, and other files are of use here alone
            return names[-1] in (CALIBRATION, "images.jsonl")
        return names[0] != _MARK and not path.endswith(".part")

    def send(self, *paths: str) -> None:
        """Send files. Raises OSError, TakenOver."""
        if paths:
            self.refuse_if_taken_over()
            in_threads(self._put, paths)

    def _put(self, path: str) -> None:
        self.call(path, lambda system, there: system.put_file(self.here(path), there))

    def failing_to_read(self) -> errors_as:
        return errors_as(InputError, f"can't read {self.address}", again=True)

    def failing_to_write(self) -> errors_as:
        what = f"all is kept in {self.folder_in_words}, but can't write {self.address}"
        return errors_as(StorageFailed, what, again=True)


def local(results: str, subfolder: str = "") -> str:
    """Return the folder of this machine in which to work on `results`, or its `subfolder`."""
    if is_remote(results):
        address = _spelled(results)
        # the same folder for an address and subfolder each time
        name = hashlib.sha256(json.dumps([address, subfolder]).encode()).hexdigest()[:20]
        parent = os.environ.get("DF_WORK_FOLDER") or os.path.join(cache_folder(), "elsewhere")
        root = os.path.abspath(os.path.join(parent, name))
        bucket = _buckets.get(root) or _Bucket(address, root, subfolder)
        return bucket.here(subfolder)
    if has_scheme(results) and not os.path.isdir(results):
        raise InputError(
            f"results can't be written to {results}: name a folder, or a bucket as s3://bucket/run"
        )
    return os.path.join(results, subfolder) if subfolder else results


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
        with bucket.failing_to_read():
            bucket.bring_files()


def shards_in(folder: str) -> list[str]:
    """Return the names of the shards' folders in a results folder; brings what is there."""
    bucket = _bucket_of(folder)
    if bucket is not None:
        with bucket.failing_to_read():
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
    say(f"Working in {bucket.folder_in_words}; what comes of it goes to {bucket.address}")
    with bucket.failing_to_read():
        bucket.bring_files(claiming=True)
        bucket.bring_replies()
    over = threading.Event()
    sender = threading.Thread(target=_send_until, args=[over, bucket, taken_over], daemon=True)
    sender.start()
    stopped: BaseException | None = None  # what ended the block, if anything did
    try:
        yield
    except BaseException as why:
        stopped = why
        raise
    finally:
        over.set()
        # A run turns Ctrl-C into an error, Interrupted. A KeyboardInterrupt came outside of the
        # run: then nothing more is sent, and the next run does that.
        if not isinstance(stopped, KeyboardInterrupt):
            say(f"Sending what came of the run to {bucket.address}; Ctrl-C leaves it to the next")
            sender.join()
            _send_last(bucket, taken_over, stopped)


def _send_until(over: threading.Event, bucket: _Bucket, taken_over: Callable[[], None]) -> None:
    """Send new replies every SEND_SECONDS; the first failure is told."""
    has_told = False
    while not over.wait(SEND_SECONDS):
        try:
            with bucket.failing_to_write():
                # Also after it was taken over: these replies were paid for, and they go into a log
                # of its own, which no other run writes.
                if bucket.send_replies():
                    bucket.refuse_if_taken_over()
        except TakenOver:
            taken_over()
        except StorageFailed as error:
            if not has_told:
                say(f"Warning: {error}")
                has_told = True


def _send_last(
    bucket: _Bucket, taken_over: Callable[[], None], stopped: BaseException | None
) -> None:
    """Send what is left: replies alone where another run has the folder now.

    Raises TakenOver there, and StorageFailed, which is only said where the run was stopped.
    """
    try:
        with bucket.failing_to_write():
            bucket.send_replies()
            bucket.send_changes()
    except StorageFailed as error:
        if isinstance(error, TakenOver):
            taken_over()
        if stopped is None:
            raise
        if str(error) != str(stopped):  # else the command says it at its end
            say(f"Warning: {error}")


@contextmanager
def copied(results: str, *names: str, replies: bool = False) -> Iterator[str]:
    """Yield a results folder to read; for one in a bucket, a copy of the files `names`."""
    bucket = _bucket_of(results)
    address = _spelled(results) if is_remote(results) else bucket.address if bucket else ""
    if not address:  # the folder can be read as it is
        yield results
        return
    with tempfile.TemporaryDirectory() as aside:
        root = os.path.join(os.path.abspath(aside), posixpath.basename(address))
        copy = _Bucket(address, root)
        try:
            with copy.failing_to_read():
                copy.fetch(*names)
                if replies:
                    copy.bring_replies()
            yield root
        finally:
            del _buckets[root]  # `_Bucket` has put it there, and the folder is removed now


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


def bring(*paths: str) -> None:
    """Bring files of a working folder as they are there."""
    bucket = _bucket_of(paths[0])
    if bucket is not None:
        with bucket.failing_to_read():
            bucket.fetch(*[os.path.relpath(path, bucket.root) for path in paths])


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
    if bucket is not None:
        with errors_as(InputError, f"results_dir {bucket.address}: cannot write there"):
            bucket.write(f"{CKPT}/check", b"of what can be written")
            bucket.remove(f"{CKPT}/check")
