"""What the package raises, to be caught by name; all of them are GroundingErrors.

A SpecError, InputError, PlanError or MissingExtra comes before anything is sent. A RecordError is
about one picture or row, and a RunStopped ends a whole run.

Example:
    >>> from dataflow_grounding import EmbeddedServing, errors, ground
    >>> try:
    ...     ground("gone.jpg", ["a cat"], serving=EmbeddedServing())
    ... except errors.ImageMissing as error:
    ...     print(error)
    no image 'gone.jpg': No such file or directory
"""

from dataflow_grounding._util.errors import (
    BrokenRow,
    BudgetExceeded,
    EndpointRefused,
    EndpointUnreachable,
    FolderTaken,
    GroundingError,
    ImageBroken,
    ImageChanged,
    ImageMissing,
    InputError,
    Interrupted,
    MachineBusy,
    MissingExtra,
    NoBoxFormat,
    NoCompletion,
    NoCredit,
    NoRoom,
    NothingDone,
    NothingUsable,
    OperatorFailed,
    OutOfService,
    PictureTooLarge,
    PlanError,
    QuotaUsedUp,
    RateLimited,
    RecordError,
    RepeatedReply,
    RequestRefused,
    RunStopped,
    ServerFault,
    ServerOverloaded,
    SizeDiffers,
    SpecError,
    StorageFailed,
    SuspectBoxes,
    TierFull,
    TruncatedReply,
    UnreadableReply,
)

__all__ = [
    "BrokenRow",
    "BudgetExceeded",
    "EndpointRefused",
    "EndpointUnreachable",
    "FolderTaken",
    "GroundingError",
    "ImageBroken",
    "ImageChanged",
    "ImageMissing",
    "InputError",
    "Interrupted",
    "MachineBusy",
    "MissingExtra",
    "NoBoxFormat",
    "NoCompletion",
    "NoCredit",
    "NoRoom",
    "NothingDone",
    "NothingUsable",
    "OperatorFailed",
    "OutOfService",
    "PictureTooLarge",
    "PlanError",
    "QuotaUsedUp",
    "RateLimited",
    "RecordError",
    "RepeatedReply",
    "RequestRefused",
    "RunStopped",
    "ServerFault",
    "ServerOverloaded",
    "SizeDiffers",
    "SpecError",
    "StorageFailed",
    "SuspectBoxes",
    "TierFull",
    "TruncatedReply",
    "UnreadableReply",
]
