"""Where the steps of a pipeline read and write: the user's file, then one file per step."""

import copy
import os
from collections.abc import Callable
from contextvars import ContextVar
from itertools import chain
from typing import Any, Literal, TypeVar

from dataflow_grounding._util.errors import InputError
from dataflow_grounding._util.paths import plain_path
from dataflow_grounding._util.secrets import excerpt
from dataflow_grounding.bucket import bucket
from dataflow_grounding.data.dataframes import from_dataframe, plain_row, to_dataframe
from dataflow_grounding.data.reviewed import are_as_reviewed, reviewed_path
from dataflow_grounding.data.rows import check_file_type, read_records, write_rows

S = TypeVar("S", bound="FileStorage")
PREFIX = "dataflow_cache_step"  # of steps' files, as DataFlow has it
STORAGE_ATTRIBUTES = (
    "first_entry_file_name",
    "cache_path",
    "file_name_prefix",
    "cache_type",
    "operator_step",
)
"""What DataFlow's storages have as well, by which FileStorage is made like one of them."""

before_looking: ContextVar[Callable[[], None] | None] = ContextVar("before_looking", default=None)
"""Runs the steps that a pipeline's `forward()` has called so far. It is set while `forward()` is
called only to note its steps; who asks for a file of a step then needs the file to be there.
"""


def is_storage(thing: Any) -> bool:
    """Whether a thing is a storage, ours or one with the attributes that DataFlow's have."""
    return all(hasattr(thing, name) for name in STORAGE_ATTRIBUTES)


def run_noted_steps() -> None:
    """Run the steps that `forward()` has called so far, because their files are asked for."""
    run_steps = before_looking.get()
    if run_steps is not None:
        run_steps()


class FileStorage:
    """Step 0 is the user's file, step k is `{cache_path}/{file_name_prefix}_step{k}.{cache_type}`.

    `step()` gives the storage pinned to the next step: it reads that step's file and writes the one
    after.

    Args:
        first_entry_file_name: The user's file: JSON lines, or by its ending `.json`, `.csv`,
            `.tsv`, `.parquet`.
        cache_path: The folder, or its address (s3://, …), of the steps' files and of `.ckpt`, which
            holds the replies that were paid for.
        file_name_prefix: How the names of the steps' files begin.
        cache_type: The type of the steps' files: jsonl, json, csv, tsv or parquet; not pickle, as
            reading one runs its code.
        image_root: The folder of relative image paths; without it they are looked for next to the
            user's file, then in the current folder.

    Raises:
        GroundingError: For a type that can't be written, or not without an optional part.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     storage = FileStorage(f"{folder}/captions.jsonl", f"{folder}/cache")
        ...     path = storage.step().write([{"image_path": "a.jpg", "caption": "A cat on a rug."}])
        ...     storage.step().read("dict")
        [{'image_path': 'a.jpg', 'caption': 'A cat on a rug.'}]
    """

    # The folders of images, where something else than `image_root` and the input decides them.
    folders: tuple[str, ...] | None = None
    strays: list[str] | None = None
    """While a pipeline's `forward()` runs: what to say of steps that other threads called. The
    pipeline sets it, and refuses these steps; None where they are no mistake.
    """
    made_of: str = ""
    """The user's own input, where `first_entry_file_name` was made of it."""

    def __init__(
        self,
        first_entry_file_name: str,
        cache_path: str = "./cache",
        file_name_prefix: str = PREFIX,
        cache_type: str = "jsonl",
        *,
        image_root: str | None = None,
    ) -> None:
        self.first_entry_file_name = plain_path(os.fspath(first_entry_file_name))
        self.cache_path = bucket.local(os.fspath(cache_path))
        self.file_name_prefix = file_name_prefix
        self.cache_type = check_file_type(cache_type)
        self.image_root = plain_path(os.fspath(image_root)) if image_root else None
        self.operator_step = -1

    def __repr__(self) -> str:
        """The class, its input, its folder, and its step once there is one; keys are masked."""
        step = f", operator_step={self.operator_step}" if self.operator_step >= 0 else ""
        return excerpt(
            f"{type(self).__name__}({self.first_entry_file_name!r}, {self.cache_path!r}{step})"
        )

    @classmethod
    def like(cls, storage: Any) -> "FileStorage":
        """Return `storage` itself, or a FileStorage for another library's with the same attributes.

        DataFlow's storage is such; the new one has its files and its step, and no `image_root`.
        Raises InputError for anything else; GroundingError for a type that can't be written.
        """
        if isinstance(storage, FileStorage):
            return storage
        if not is_storage(storage):
            raise InputError(
                f"run() takes a FileStorage, not {type(storage).__name__}: give it storage.step()"
            )
        ours = FileStorage(
            storage.first_entry_file_name,
            storage.cache_path,
            storage.file_name_prefix,
            storage.cache_type,
        )
        ours.operator_step = storage.operator_step
        return ours

    def step(self: S) -> S:
        """Go on to the next step, and return a copy that stays at it."""
        self.operator_step += 1
        return copy.copy(self)

    def in_folder(self: S, folder: str) -> S:
        """Return a copy that reads and writes the steps' files in another folder, as JSON lines."""
        storage = copy.copy(self)
        storage.cache_path = folder
        storage.cache_type = "jsonl"
        return storage

    def reset(self: S) -> S:
        """Go back to before the first step."""
        self.operator_step = -1
        return self

    def path_of(self, step: int) -> str:
        """Return the file that step `step` reads, which step `step - 1` wrote.

        In a pipeline's `forward()` the steps that it has called are run first. Raises InputError
        before the first `step()`.
        """
        if step < 0:
            raise InputError("call storage.step() before reading or writing")
        if step == 0:
            return self.first_entry_file_name
        run_noted_steps()  # who asks for the path is about to look into the file
        return os.path.join(
            self.cache_path, f"{self.file_name_prefix}_step{step}.{self.cache_type}"
        )

    @property
    def input_path(self) -> str:
        """The file that this step reads. Raises InputError before the first `step()`."""
        return self.path_of(self.operator_step)

    @property
    def output_path(self) -> str:
        """The file that this step writes. Raises InputError before the first `step()`."""
        self.path_of(self.operator_step)  # for its error: below, step -1 would write the input
        return self.path_of(self.operator_step + 1)

    @property
    def checkpoint_folder(self) -> str:
        """The folder of what resuming needs, for all steps; the store of replies is in it."""
        return os.path.join(self.cache_path, ".ckpt")

    @property
    def failures_path(self) -> str:
        """The file with one line per failed record; asking for it is as for `path_of`."""
        run_noted_steps()
        return os.path.join(self.cache_path, f"{self.file_name_prefix}_failures.jsonl")

    @property
    def image_folders(self) -> tuple[str, ...]:
        """The folders where relative image paths are looked for, in order."""
        if self.folders is not None:
            return self.folders
        if self.image_root:
            return (self.image_root,)
        return (os.path.dirname(self.first_entry_file_name) or ".", ".")

    def begin(self) -> None:
        """Look at the file that this step reads before a run of it. By default, do nothing."""

    def read(self, output_type: Literal["dataframe", "dict"] = "dataframe") -> Any:
        """Return this step's rows.

        Args:
            output_type: `dataframe` for a pandas DataFrame, every value as it is; `dict` for a list
                of dicts.

        Returns:
            The rows, in the file's order.

        Raises:
            InputError: For a file that can't be read, or with a broken row; names file and line.
                For another `output_type`.
        """
        if output_type not in ("dataframe", "dict"):
            raise InputError(f"read() gives a 'dataframe' or a 'dict', not {output_type!r}")
        rows = read_records(self.input_path)
        if output_type == "dict":
            return rows
        return to_dataframe(rows)

    def write(self, data: Any) -> str:
        """Write this step's output, whole or not at all.

        Args:
            data: A pandas DataFrame or a list of dicts; NaN is written as null, dates as text.

        Returns:
            The file's path.

        Raises:
            InputError: For rows that aren't dicts, or that the file's type can't hold; the old file
                stays.
        """
        is_frame = hasattr(data, "to_dict")  # told so because pandas may not be installed
        rows = from_dataframe(data) if is_frame else map(plain_row, data)
        write_rows(self.output_path, rows)
        return self.output_path

    def get_keys_from_dataframe(self) -> list[str]:
        """Return the columns of this step's rows, in the order in which they first come."""
        return list(dict.fromkeys(chain.from_iterable(self.read("dict"))))


class ResultsStorage(FileStorage):
    """The storage of a `results_dir`, with a folder for each step: `step_0_…/annotations.jsonl`."""

    steps: tuple[str, ...] = ()  # the names of the steps' folders
    reads: str = ""  # another file in `cache_path` that this step reads

    @property
    def input_path(self) -> str:
        """The file of the step before or, where a person reviewed this, what `apply` made of it."""
        if self.reads:
            return os.path.join(self.cache_path, self.reads)
        return self._reviewed or super().input_path

    @property
    def _reviewed(self) -> str | None:
        path = reviewed_path(super().input_path)
        return path if self.operator_step > 0 and os.path.exists(path) else None

    def begin(self) -> None:
        """Refuse a reviewed file that was made of other annotations than the step before has now.

        Raises InputError.
        """
        annotations = super().input_path  # of the step before, not reviewed
        if self.input_path != self._reviewed or are_as_reviewed(annotations):
            return
        folder = os.path.dirname(annotations)
        raise InputError(
            f"{self.input_path} may be of other annotations than {folder} has now:"
            f" `dataflowgrounding apply {folder}` writes it again, with what still holds,"
            f" or delete {os.path.basename(self.input_path)}"
        )

    def path_of(self, step: int) -> str:
        """Return the file that a step reads: `annotations.jsonl` of the step before."""
        if step <= 0:  # the user's file, or the error for no step
            return super().path_of(step)
        folder = f"step_{step - 1}"  # its name until compile() names it
        if step <= len(self.steps):
            folder = self.steps[step - 1]
        return os.path.join(self.cache_path, folder, "annotations.jsonl")

    @property
    def failures_path(self) -> str:
        """`failures.jsonl` next to the step folders."""
        return os.path.join(self.cache_path, "failures.jsonl")
