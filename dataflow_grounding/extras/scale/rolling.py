"""Replies of a run whose folder is elsewhere.

Others' come before it asks anything, its own are sent while it works.

There, `.ckpt/replies/{writer}-{place}.jsonl` holds the lines of a writer's log from a place in it
on. Here, the log of this folder is `.ckpt/replies.jsonl`, as in any, and
`.ckpt/replies/{writer}.jsonl` those of others.
"""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dataflow_grounding._util.errors import InputError, StorageFailed, told_as
from dataflow_grounding._util.files import open_log, within
from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.threads import at_once
from dataflow_grounding.data.working_folder import CKPT, present
from dataflow_grounding.engine.run_lock import HeartLock, check_held
from dataflow_grounding.engine.shard import FOLDER, Shard
from dataflow_grounding.engine.workers import beside
from dataflow_grounding.extras.scale.mirror import KEPT, Mirror, mirror_of, stand_for

ROLL_SECONDS = 10.0
SAY_SECONDS = 10.0  # after which it is told what a run that is over waits for
ROLL_BYTES = 64 * 2**20  # of a part, at the most
CLOSED_BYTES = 4 * 2**20  # a part with less is sent again with what came since: so there are few
_WAIT_SECONDS = 300.0  # at most, until it is tried again to send
_PART = re.compile(r"(.+)-(\d{15})\.jsonl")


class Rolling:
    """The replies of the folder that a mirror stands for."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._folder = os.path.join(mirror.part, CKPT)
        self._log = mirror.here(self._folder, "replies.jsonl")
        # Of the part that is written: all before `end` is there.
        self._begin = 0
        self._end = 0

    def bring(self) -> None:
        """Bring all that is stored there. Raises InputError."""
        mirror = self._mirror
        with told_as(InputError, f"can't read {mirror.address}", again=True):
            logs = self._listed_logs()
            at_once(lambda log: self._bring(*log, logs[log]), logs)
        own_parts = logs[self._folder, mirror.id]
        self._end = max((begin + size for begin, size in own_parts.items()), default=0)
        self._begin = self._end

    def _listed_logs(self) -> dict[tuple[str, str], dict[int, int]]:
        """The logs there, by folder and writer: where each part begins, and its size."""
        mirror = self._mirror
        logs: dict[tuple[str, str], dict[int, int]]
        logs = {(self._folder, writer): {} for writer in mirror.known}
        own_part = os.path.basename(mirror.part)
        folders = [CKPT, self._folder]
        for name in mirror.listed(FOLDER, "directory"):
            if not Shard.is_apart(name, own_part):
                folders.append(os.path.join(within(FOLDER, name), CKPT))
        folders = list(dict.fromkeys(folders))
        listed = at_once(lambda folder: mirror.listed(os.path.join(folder, "replies")), folders)
        for folder, files in zip(folders, listed, strict=True):
            for name, facts in files.items():
                match = _PART.fullmatch(name)
                if match:
                    parts = logs.setdefault((folder, match[1]), {})
                    parts[int(match[2])] = facts["size"]
        return logs

    def _bring(self, folder: str, writer: str, parts: dict[int, int]) -> None:
        """Add to a log here what there is more of it.

        A part that a listing lacks is asked for by its name.
        """
        is_own = folder == self._folder and writer == self._mirror.id
        path = self._log if is_own else self._mirror.here(folder, "replies", f"{writer}.jsonl")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(open_log(path), "ab") as log:
            while True:
                end = log.tell()
                holding = [begin for begin, size in parts.items() if begin <= end < begin + size]
                begin = max(holding, default=end)
                name = _name(folder, writer, begin)
                more = self._mirror.read(name, end - begin, end - begin + CLOSED_BYTES)
                if not more:
                    break
                log.write(more)

    def roll(self) -> None:
        """Send what the log has gained, in whole lines. Raises OSError."""
        with open(self._log, "rb") as file:
            os.fsync(file.fileno())
            while True:
                file.seek(self._begin)
                data = file.read(ROLL_BYTES)
                data = data[: data.rfind(b"\n") + 1]
                end = self._begin + len(data)
                if end <= self._end:
                    break
                self._mirror.write(_name(self._folder, self._mirror.id, self._begin), data)
                self._end = end
                if len(data) >= CLOSED_BYTES:
                    self._begin = end

    def now_and_then(self, over: threading.Event) -> None:
        """Send what came; while that fails, the run goes on."""
        wait = ROLL_SECONDS
        while not over.wait(wait):
            try:
                self.roll()
                wait = ROLL_SECONDS
            except OSError as error:
                if wait == ROLL_SECONDS:
                    why = error.strerror or error
                    say(
                        f"Warning: can't write {self._mirror.address}: {why}; replies are kept in"
                        f" {self._log} meanwhile"
                    )
                wait = min(2 * wait, _WAIT_SECONDS)


def _name(folder: str, writer: str, begin: int) -> str:
    """The file there of the part of a writer's log that begins at a place."""
    return within(os.path.join(folder, "replies"), f"{writer}-{begin:015}.jsonl")


@contextmanager
def copied(results: str, *names: str, replies: bool = False) -> Iterator[str]:
    """A folder with copies of these files of results elsewhere, and of all `replies`.

    Raises InputError.
    """
    with tempfile.TemporaryDirectory() as aside:
        mirror = stand_for(results, aside)
        mirror.fetch(*names)
        if replies:
            Rolling(mirror).bring()
        yield aside


@contextmanager
def at_work(folder: str) -> Iterator[Mirror | None]:
    """Hold the lock of what a checkpoint folder stands for.

    What a run needs is brought, and what it leaves is sent, then or meanwhile. Yields the mirror;
    None where the folder stands for nothing. Raises InputError before the run, StorageFailed after
    it.
    """
    mirror = mirror_of(folder)
    if mirror is None:
        yield None
        return
    with held_elsewhere(mirror, mirror.part), _mirrored(mirror, folder):
        yield mirror


@contextmanager
def held_elsewhere(mirror: Mirror, part: str) -> Iterator[None]:
    """Hold the lock of a part of a folder elsewhere.

    Raises InputError, also for results that are not of a run.
    """
    place = f"{mirror.address}/{part}".rstrip("/")
    folder = os.path.join(part, CKPT)
    with told_as(InputError, f"can't write {mirror.address}", again=True):
        foreign = {"annotations.jsonl", "run.json"}.intersection(mirror.listed(part))
        if foreign and CKPT not in mirror.listed(part, "directory"):
            what = f"{place}/{min(foreign)} is from elsewhere, without {CKPT} beside it"
            raise InputError(f"{what}: choose another folder")
    with HeartLock(mirror, folder, place, mirror.here(folder)).held():
        yield


@contextmanager
def _mirrored(mirror: Mirror, folder: str) -> Iterator[None]:
    """Bring a folder from the store, send what changes in it now and then, and the rest at the end.

    After Ctrl-C nothing more is sent: the next run does that. Where the run itself was stopped,
    only what tells of it is. Raises StorageFailed where the store doesn't take the results.
    """
    say(
        f"Working in {mirror.here(mirror.part).rstrip('/')}; what comes of it goes to"
        f" {mirror.address}"
    )
    rolling = Rolling(mirror)
    rolling.bring()
    mirror.renew()
    kept = [os.path.join(folder, name) for name in KEPT]
    present(*kept)
    stopped: BaseException | None = None
    unsent = False
    waiting = (
        f"Waiting for {mirror.address} to take what comes of the run: all is kept in"
        f" {mirror.root}; Ctrl-C leaves it to the next run to send it"
    )
    late = threading.Timer(SAY_SECONDS, say, [waiting])
    late.daemon = True
    try:
        with beside(rolling.now_and_then):
            try:
                yield
            finally:
                late.start()
    except KeyboardInterrupt:
        # nobody heeds it but who waits for the store: a run makes an Interrupted of it
        unsent = True
        raise
    except BaseException as why:
        stopped = why
        raise
    finally:
        try:
            if not unsent:
                endings = [] if stopped is None else [".json"]
                _send_what_is_left(mirror, rolling, folder, *endings)
        except StorageFailed as error:
            if stopped is None:
                raise
            if str(error) != str(stopped):  # which is told
                say(f"Warning: {error}")
        finally:
            late.cancel()


def _send_what_is_left(mirror: Mirror, rolling: Rolling, folder: str, *endings: str) -> None:
    with told_as(
        StorageFailed, f"all is kept in {mirror.root}, but can't write {mirror.address}", again=True
    ):
        rolling.roll()
    check_held(folder)
    mirror.put(*endings)
