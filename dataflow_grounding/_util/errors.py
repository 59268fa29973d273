"""Every exception of the package, in one tree.

Each message is one line that says what is wrong and what to do. A RecordError is about one record,
and the others go on; a RunStopped ends the run. The functions at the end turn errors of the system
into ours: files, memory or threads that run out, disks that are full or don't answer.
"""

import errno
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from dataflow_grounding._util.terminal import quoted, shown


class GroundingError(Exception):
    """Base of all errors that the package raises on purpose.

    Its text is meant for a user, and made fit to be shown.
    """

    _lines = True  # whether its text may have several lines
    # The serving's Usage, where the answer that it is about states one: it may have to be paid.
    billed: Any = None

    def __init_subclass__(cls, **attributes: str | bool | int) -> None:
        """Set a class's attributes from its head: `class ImageBroken(…, kind="image_broken")`."""
        for name, value in attributes.items():
            setattr(cls, name, value)

    def __init__(self, *arguments: object) -> None:
        shown_arguments = []
        for argument in arguments:
            if isinstance(argument, str):
                argument = shown(argument, self._lines)  # without secrets and control characters
            shown_arguments.append(argument)
        super().__init__(*shown_arguments)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of the error: its text says what to do, hundreds of lines don't."""
        return [f"{type(self).__name__}: {self}"]


class SpecError(GroundingError):
    """The spec, a command's argument or a setting is wrong: found before the first request."""


class InputError(GroundingError):
    """A data file can't be used as a whole: missing, not of its format, or short of columns."""


class FolderTaken(InputError):
    """Another run is at work in the folder."""


class PlanError(GroundingError):
    """The steps of a pipeline don't fit together, or don't fit the data.

    It is found before the first request.
    """


class MissingExtra(GroundingError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(what, extra)  # both, as an unpickled one is made of them

    def __str__(self) -> str:
        what, extra = self.args
        return f"{what} needs an optional part: pip install 'dataflow-grounding[{extra}]'"


class MissingPackage(MissingExtra):
    """A package of the full install is missing, as an install without it leaves it out."""

    def __str__(self) -> str:
        what, package = self.args
        return f"{what} needs {package}, which isn't installed: pip install {package}"


class RecordError(GroundingError):
    """One record can't be done; the others go on.

    `kind` is for scripts; `passing` says that a later run may do it.
    """

    _lines = False
    # Subclasses state these in their head; `attempts` and `reply` are set on the error itself.
    kind = "record"
    passing = False
    attempts = 0  # requests sent for it
    reply: str | None = None  # the reply that could not be used, raw


class BrokenRow(RecordError, kind="broken_row"):
    """A row of the input can't be read, or lacks what the step needs."""


class ImageMissing(RecordError, kind="image_missing", passing=True):
    """The record's image file is not there."""


class ImageBroken(RecordError, kind="image_broken"):
    """The record's image file is there but can't be used as a picture."""


class ImageChanged(ImageBroken, passing=True):
    """The record's image file was replaced while the record was worked on."""


class MachineBusy(RecordError, kind="machine_busy", passing=True):
    """This machine is short of open files, memory or threads, or its disk doesn't answer.

    Wait, then try again.
    """


class SizeDiffers(RecordError, kind="size_differs"):
    """The record's boxes are in a picture of another size than its image file has."""


class OperatorFailed(RecordError, kind="operator_failed"):
    """An operator's own code raised while it worked on this record."""


class UnreadableReply(RecordError, kind="unreadable_reply"):
    """A reply came, and what it says can't be read.

    Args:
        message: What could not be read, and where. The next try shows it to the model.
        reason: A word or two for it, the same for all replies of the kind: `run.json` counts by it.
    """

    def __init__(self, message: str, reason: str = "other") -> None:
        super().__init__(message)
        self.reason = reason


OTHER_SCALE = "another scale"
"""The reason of a reply whose numbers don't fit the box format."""
REPLY_CUT_OFF = "cut off"
"""The reason of a TruncatedReply, unless another one is stated."""
ALL_THINKING = "only thoughts"
"""The reason of a reply without a text whose tokens all went into thinking."""


class TruncatedReply(UnreadableReply, kind="truncated_reply"):
    """The reply was cut off at the model's token limit."""

    def __init__(self, message: str, reason: str = REPLY_CUT_OFF) -> None:
        super().__init__(message, reason)


class RepeatedReply(RecordError, kind="repeated_reply"):
    """A gateway's cache answered with a reply that another question of its kind has had already.

    As a further answer to the same question it says nothing. It isn't asked for again.
    """


class RequestRefused(RecordError, kind="refused"):
    """The endpoint or the model refused this one request.

    It has a content filter, or can't take such a request. The engine makes it `passing` where it
    was an error and no reply: nothing was paid for, and the next run asks again.
    """


class PictureTooLarge(RequestRefused):
    """The endpoint takes no picture, or no request, of so many bytes."""


class PictureReduced(RecordError, kind="refused", passing=True):
    """Pictures are sent with fewer bytes from now on: the question has to be made once more.

    `most` is how many characters one may have in base64.
    """

    def __init__(self, message: str, most: int = 0) -> None:
        super().__init__(message)
        self.most = most


class CreditTooLow(RecordError, kind="no_credit", passing=True):
    """The account's credit is too low for this request, and may do for a smaller one."""


class ServerFault(RecordError, kind="server_fault", passing=True):
    """The endpoint failed to answer this request: a 5xx, a timeout, a cut connection.

    Trying again may help.
    """

    may_be_billed = True  # whether the model may have worked for a reply that was lost on its way
    is_quota = False  # whether a day's quota is used up: no shorter wait helps


class NoCompletion(ServerFault):
    """The endpoint answered with no reply at all: a page, a stream, another API's JSON."""


class Redirected(ServerFault):
    """The endpoint sent the request to another address, to which nothing is sent."""


class ServerOverloaded(ServerFault, kind="server_overloaded"):
    """The endpoint is busy (503, 529): wait, then try again.

    `retry_after` is the seconds that it asks to wait; None where it asks for none.
    """

    may_be_billed = False

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(ServerOverloaded, kind="rate_limited"):
    """The endpoint takes fewer requests (429): waited for without using up attempts."""


class TierFull(RateLimited):
    """The endpoint has no room for more at the service tier that was asked for.

    It is not billed, and doesn't say how many requests the endpoint takes.
    """


class EndpointUnreachable(ServerFault, kind="unreachable"):
    """No connection to the endpoint: name lookup, refused, unreachable."""

    may_be_billed = False


class RunStopped(GroundingError):
    """The run stops; everything paid for is stored, and the same command goes on.

    `exit_code` is the command's.
    """

    exit_code = 130
    summary: dict[str, object] | None = None  # what was done before the stop


class EndpointRefused(RunStopped, exit_code=4):
    """No request can succeed: wrong key, model or address.

    Without `certain` it may be about one request alone: a run that has had answers goes on then,
    until some such requests in a row were refused.
    """

    def __init__(self, message: str, *, certain: bool = True) -> None:
        super().__init__(message)
        self.certain = certain


class NoCredit(EndpointRefused, exit_code=3):
    """The account has no credit left: top it up, and run again to go on.

    Without `certain` the endpoint says that less would do: the second in a row counts.
    """


class BudgetExceeded(RunStopped, exit_code=3):
    """The next request could pass the budget."""


class QuotaUsedUp(BudgetExceeded):
    """The endpoint answers nothing more for longer than `workflow.max_wait`."""


class OutOfService(RunStopped, exit_code=3):
    """The endpoint answers nothing for longer than `workflow.max_wait`: run again to go on."""


class NothingUsable(RunStopped, exit_code=4):
    """Some tens of replies came, and none of them could be read: further ones would be wasted."""


class NothingDone(RunStopped, exit_code=4):
    """No row got through an operator that a script runs alone."""


class SuspectBoxes(RunStopped, exit_code=2):
    """The run's boxes are not in the format that was asked for (`vlm.on_suspect_boxes: stop`)."""


class NoBoxFormat(RunStopped, exit_code=2):
    """A request has boxes, and its operator has chosen no format in which a model reads them."""


class NoRoom(RunStopped, exit_code=2):
    """A cluster has no room for a single worker."""


class StorageFailed(RunStopped):
    """Results can't be written: no room, no permission."""


class TakenOver(StorageFailed, exit_code=2):
    """Another run works in the folder by now."""

    @classmethod
    def of(cls, place: str) -> "TakenOver":
        return cls(f"another run has taken over {place}; the replies of this one are kept")


class Interrupted(RunStopped):
    """The user, or the system, asked the run to stop."""


def concerns_all(error: BaseException) -> bool:
    """Return whether the next request to the same endpoint would meet this error, too.

    That isn't so for a caller's own limit, interrupt or full disk.
    """
    if isinstance(error, QuotaUsedUp):  # of the endpoint, though it is a kind of BudgetExceeded
        return True
    is_ones_own = isinstance(error, (BudgetExceeded, Interrupted, StorageFailed))
    return isinstance(error, GroundingError) and not is_ones_own


def _name_public_module() -> None:
    for value in list(globals().values()):
        if isinstance(value, type) and issubclass(value, GroundingError):
            value.__module__ = "dataflow_grounding.errors"


_name_public_module()


SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN}
"""Numbers of the system's errors: no files or memory are left for now."""

_AWAY = {
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
}
"""The disk, or the server of a network's disk, doesn't answer."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

NO_MEMORY = "it takes more memory than there is"


class errors_as(AbstractContextManager[None]):
    """Turn an OSError or MemoryError of the block into an error of class `kind`.

    Its message begins with `what` could not be done: "can't write a.csv: No space left on device".
    With `again`, it advises to run the same command again. A class enters a block in a third of a
    generator's time, and every stored reply and written row enters one.
    """

    __slots__ = ("_again", "_kind", "_what")

    def __init__(self, kind: type[GroundingError], what: str, *, again: bool = False) -> None:
        self._kind = kind
        self._what = what
        self._again = again

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError):
            reason = str(error.strerror or error)
        elif isinstance(error, MemoryError):
            reason = NO_MEMORY
        else:
            return
        advice = ""
        if self._again:
            reason = reason.rstrip(".")
            advice = ". Fix that, then run the same command again"
        raise self._kind(f"{self._what}: {reason}{advice}") from None


@contextmanager
def needs_extra(
    what: str, extra: str, missing: type[MissingExtra] = MissingExtra
) -> Iterator[None]:
    """Raise MissingExtra where an import in the block fails: `what` needs the part `extra`."""
    try:
        yield
    except ImportError:
        raise missing(what, extra) from None


needs_package = partial(needs_extra, missing=MissingPackage)
"""The same for a package."""


def cant_read(path: str, error: OSError | GroundingError) -> RecordError:
    """Return why an image can't be read: MachineBusy, which is tried again, or ImageMissing."""
    message = f"can't read {quoted(path)}: {getattr(error, 'strerror', None) or error}"
    if isinstance(error, OSError) and (error.errno in SHORT or error.errno in _AWAY):
        return MachineBusy(message)
    return ImageMissing(message)


def message_of(error: BaseException) -> str:
    """Return what an error says; "" where its own `__str__` fails."""
    try:
        return str(error)
    except Exception:
        return ""


def machine_fault(error: BaseException) -> MachineBusy | RunStopped | None:
    """Return MachineBusy or StorageFailed if this machine is why the error came, else None.

    It is for errors of libraries: some say only in words what this machine has too little of.
    """
    words = " ".join(message_of(error).split())[:200]
    # Pillow's decoders raise an OSError that says "out of memory", OpenSSL has "malloc failure".
    by_words = "out of memory" in words or "malloc failure" in words
    if isinstance(error, MemoryError) or by_words:
        reason = f": {words}" if words else ""
        return MachineBusy(f"there is not enough memory{reason}")
    if isinstance(error, RuntimeError) and "start new thread" in words:  # "can't start new thread"
        return MachineBusy(f"this machine {words}")
    if isinstance(error, OSError) and error.errno in SHORT:
        return MachineBusy(f"this machine has none left: {words}")
    if isinstance(error, OSError) and error.errno in _FULL:
        return StorageFailed(f"can't write: {words}. Fix that, then run the same command again")
    return None
