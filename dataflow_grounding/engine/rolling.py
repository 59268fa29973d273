"""Replies of a run whose folder is remote: those of other runs are brought, its own are sent.

Replies that other machines have stored are brought before a run asks anything; the run's own are
sent while it works.

A log of replies only grows, and a store can't append to a file. So a log is sent in parts: there,
`.ckpt/replies/{writer}-{offset}.jsonl` holds the lines of a writer's log from an offset in bytes
on. On this machine, this folder's own log is `.ckpt/replies.jsonl`, as in any folder, and the logs
of other writers are `.ckpt/replies/{writer}.jsonl`.
"""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex

from dataflow_grounding._util.errors import InputError, StorageFailed, errors_as
from dataflow_grounding._util.files import open_log, within
from dataflow_grounding._util.terminal import say
from dataflow_grounding._util.threads import in_threads
from dataflow_grounding.data.mirror import CKPT, KEPT, Mirror, make_mirror, mirror_of
from dataflow_grounding.data.working_folder import SHARDS, present
from dataflow_grounding.engine.run_lock import check_held, lose
from dataflow_grounding.engine.shard import Shard
from dataflow_grounding.engine.workers import in_background

ROLL_SECONDS = 10.0  # between two times that replies are sent
SAY_SECONDS = 10.0  # after so long, a run that is over says that it waits for the store
ROLL_BYTES = 64 * 2**20  # the most of a part
# A part with fewer bytes is sent again, with what came since, so that there are few parts. A larger
# one is closed, and the next part begins after it.
CLOSED_BYTES = 4 * 2**20
_WAIT_SECONDS = 300.0  # the longest pause before sending is tried again
# "5f0c31a9-000000000004096.jsonl": the writer, and the offset in bytes where the part begins.
_PART = re.compile(r"(.+)-(\d{15})\.jsonl")


class Rolling:
    """The replies of a remote folder, brought to and sent from its mirror on this machine.

    A run that sends puts a claim there first: a random id. At each sending it looks whether the
    claim is still its own; if not, another run has begun there since.
    """

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._claim = f"{mirror.id} {token_hex(8)}".encode()
        self._claim_path = os.path.join(mirror.part, CKPT, "claim")
        self._folder = os.path.join(mirror.part, CKPT)
        self._log = mirror.here(self._folder, "replies.jsonl")
        # Offsets in bytes in the own log: where the part that is being sent begins, and how far the
        # log has been sent.
        self._part_begin = 0
        self._sent_end = 0

    def claim(self) -> None:
        """Take the folder over. Raises InputError."""
        with errors_as(InputError, f"can't write {self._mirror.address}", again=True):
            before = self._mirror.read(self._claim_path).split()
            if before:  # its replies are looked for, no matter what a listing says
                self._mirror.known.add(before[0].decode(errors="replace"))
            self._mirror.write(self._claim_path, self._claim)

    def _is_taken_over(self) -> bool:
        # A claim that is gone, as with all that was there, is nobody's.
        return self._mirror.read(self._claim_path) not in (self._claim, b"")

    def bring(self) -> None:
        """Bring all replies that are stored there, of this folder's own log, too.

        What the store has of that one counts as sent. Raises InputError.
        """
        mirror = self._mirror
        with errors_as(InputError, f"can't read {mirror.address}", again=True):
            logs = self._listed_logs()
            in_threads(lambda log: self._bring(log[0], log[1], logs[log]), logs)
        own_parts = logs[self._folder, mirror.id]
        self._sent_end = max((begin + size for begin, size in own_parts.items()), default=0)
        self._part_begin = self._sent_end

    def _listed_logs(self) -> dict[tuple[str, str], dict[int, int]]:
        # Logs of other shards are among them, except those that can't have a row of this one; so
        # are those of this folder that are known of though nothing is listed, with no parts.
        mirror = self._mirror
        logs: dict[tuple[str, str], dict[int, int]]
        logs = {(self._folder, writer): {} for writer in mirror.known}
        own_part = os.path.basename(mirror.part)
        folders = [CKPT, self._folder]
        for name in mirror.listed(SHARDS, "directory"):
            if not Shard.is_apart(name, own_part):
                folders.append(os.path.join(within(SHARDS, name), CKPT))
        folders = list(dict.fromkeys(folders))
        listed = in_threads(lambda folder: mirror.listed(os.path.join(folder, "replies")), folders)
        for folder, files in zip(folders, listed, strict=True):
            for name, facts in files.items():
                match = _PART.fullmatch(name)
                if match:
                    parts = logs.setdefault((folder, match[1]), {})
                    parts[int(match[2])] = facts["size"]
        return logs

    def _bring(self, folder: str, writer: str, parts: dict[int, int]) -> None:
        # `parts` has the sizes of the parts that were listed, by offset. A listing may lack new
        # parts: so in the end the one that would come next is asked for by its name.
        is_own = folder == self._folder and writer == self._mirror.id
        path = self._log if is_own else self._mirror.here(folder, "replies", f"{writer}.jsonl")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(open_log(path), "ab") as log:
            while True:
                end = log.tell()
                # The part that has the bytes from `end` on; of several, the one that began last.
                going_on = [begin for begin, size in parts.items() if begin <= end < begin + size]
                begin = max(going_on, default=end)
                name = _part_name(folder, writer, begin)
                more = self._mirror.read(name, end - begin, end - begin + CLOSED_BYTES)
                if not more:
                    break
                log.write(more)

    def roll(self) -> None:
        """Send what the own log has gained, in whole lines; a line that has no end waits.

        What belongs to the part that was sent last is sent with that part once more, until this has
        CLOSED_BYTES. A run that finds another's claim there is noted as lost. Raises OSError where
        the log can't be read, or the store doesn't take it.
        """
        if self._is_taken_over():
            lose(self._mirror.here(self._folder))
        with open(self._log, "rb") as file:
            os.fsync(file.fileno())  # only what this machine can't lose any more is sent
            while True:
                file.seek(self._part_begin)
                data = file.read(ROLL_BYTES)
                data = data[: data.rfind(b"\n") + 1]
                end = self._part_begin + len(data)
                if end <= self._sent_end:
                    break
                name = _part_name(self._folder, self._mirror.id, self._part_begin)
                self._mirror.write(name, data)
                self._sent_end = end
                if len(data) >= CLOSED_BYTES:
                    self._part_begin = end

    def now_and_then(self, over: threading.Event) -> None:
        """Send what came every ROLL_SECONDS until `over` is set.

        While that fails, the run goes on; it is said once, and tried again after longer and longer
        pauses.
        """
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


def _part_name(folder: str, writer: str, begin: int) -> str:
    return within(os.path.join(folder, "replies"), f"{writer}-{begin:015}.jsonl")


@contextmanager
def copied(results: str, *names: str, replies: bool = False) -> Iterator[str]:
    """Yield a temporary folder with copies of these files of remote results.

    Those that aren't there are left out. With `replies`, all stored replies are there, too. Raises
    InputError.
    """
    with tempfile.TemporaryDirectory() as aside:
        mirror = make_mirror(results, aside)
        mirror.fetch(*names)
        if replies:
            Rolling(mirror).bring()
        yield aside


@contextmanager
def mirrored(folder: str) -> Iterator[Mirror | None]:
    """Take over the remote results that a checkpoint folder mirrors; keep both in step.

    What a run needs is brought before the block. What it leaves is sent during the block and at its
    end. Yields the mirror; None where the folder is in none. Raises InputError before the block,
    StorageFailed at its end.
    """
    mirror = mirror_of(folder)
    if mirror is None:
        yield None
        return
    _refuse_results_of_no_run(mirror)
    with _mirrored(mirror, folder):
        yield mirror


def _refuse_results_of_no_run(mirror: Mirror) -> None:
    part = mirror.part
    address = f"{mirror.address}/{part}".rstrip("/")
    with errors_as(InputError, f"can't read {mirror.address}", again=True):
        foreign = {"annotations.jsonl", "run.json"}.intersection(mirror.listed(part))
        if foreign and CKPT not in mirror.listed(part, "directory"):
            what = f"{address}/{min(foreign)} was not made by a run here: {address} has no {CKPT}"
            raise InputError(f"{what}: choose another folder")


@contextmanager
def _mirrored(mirror: Mirror, folder: str) -> Iterator[None]:
    # `folder` is the part's checkpoint folder on this machine. After Ctrl-C nothing more is sent:
    # the next run does that. Where the run itself was stopped, only replies and the `.json` files
    # that say so are sent.
    say(
        f"Working in {mirror.here(mirror.part).rstrip('/')}; what comes of it goes to"
        f" {mirror.address}"
    )
    rolling = Rolling(mirror)
    rolling.claim()
    rolling.bring()
    mirror.renew()
    needed_for_run = [os.path.join(folder, name) for name in KEPT]
    present(*needed_for_run)
    stopped: BaseException | None = None
    was_interrupted = False
    late = _word_on_the_wait(mirror)
    try:
        with in_background(rolling.now_and_then):
            try:
                yield
            finally:
                late.start()
    except KeyboardInterrupt:
        # It comes from the wait for the store: a run makes an Interrupted of its own Ctrl-C.
        was_interrupted = True
        raise
    except BaseException as why:
        stopped = why
        raise
    finally:
        try:
            if not was_interrupted:
                _send_at_end(mirror, rolling, folder, stopped)
        finally:
            late.cancel()


def _word_on_the_wait(mirror: Mirror) -> threading.Timer:
    waiting = (
        f"Waiting for {mirror.address} to take what comes of the run: all is kept in"
        f" {mirror.root}; Ctrl-C leaves it to the next run to send it"
    )
    timer = threading.Timer(SAY_SECONDS, say, [waiting])
    timer.daemon = True
    return timer


def _send_at_end(
    mirror: Mirror, rolling: Rolling, folder: str, stopped: BaseException | None
) -> None:
    # For a run that was stopped, that is only a warning.
    if stopped is None:
        _send_what_is_left(mirror, rolling, folder)
        return
    try:
        _send_what_is_left(mirror, rolling, folder, ".json")
    except StorageFailed as error:
        if str(error) != str(stopped):  # what stopped the run is said anyhow
            say(f"Warning: {error}")


def _send_what_is_left(mirror: Mirror, rolling: Rolling, folder: str, *endings: str) -> None:
    # With `endings`, these are only files whose path ends so, after the store of replies, which is
    # always sent. Files go only while no other run has taken the folder over: its files must stay.
    with errors_as(
        StorageFailed, f"all is kept in {mirror.root}, but can't write {mirror.address}", again=True
    ):
        rolling.roll()
    check_held(folder)
    mirror.put(*endings)
