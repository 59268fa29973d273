"""Labels that were drawn on pictures as they are stored, read as labels of the upright pictures."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dataflow_grounding._util.errors import BrokenRow, InputError, RecordError
from dataflow_grounding.boxes.geometry import Size
from dataflow_grounding.boxes.orientation import Frame, upright_record
from dataflow_grounding.data.bad_entries import BadEntries
from dataflow_grounding.data.records import Record, path_of, stated_size
from dataflow_grounding.formats.imported import COLUMN, FRAME, note_turned
from dataflow_grounding.formats.reading import entry_errors
from dataflow_grounding.images.files import Header, read_header
from dataflow_grounding.images.image import find_image

_NAMED = 10  # pictures of each frame that a refusal names; there may be millions


class StoredFrame:
    """Turns the labels of one source upright, by the EXIF orientation of their pictures.

    A picture whose sides would change places tells by the size that is stated for it in which frame
    its labels are. Where that is the upright one, the source is refused as a whole.

    Args:
        origin: The source, as people call it.
        folders: Where relative paths of pictures are looked for, in this order.
    """

    def __init__(self, origin: str, folders: Iterable[str]) -> None:
        self._origin = origin
        self._folders = tuple(folders)
        # Pictures whose stored size is stated, in words, and those whose upright size is: the first
        # _NAMED, and one more.
        self._stored: list[str] = []
        self._upright: list[str] = []

    def size_of(self, record: Mapping[str, Any]) -> Size:
        """Return the size of a record's picture as it is stored. Raises InputError."""
        return self._header(record).stored_size

    def _header(self, record: Mapping[str, Any]) -> Header:
        name = path_of(record)
        try:
            picture = find_image(Record({"image": name}, self._folders), "image")
            return read_header(picture.path)
        except RecordError as error:
            raise InputError(
                f"{self._origin}: {error}; without the picture nobody knows how its labels are"
                " turned: name the folder of the pictures"
            ) from None

    def upright(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record with its labels turned upright.

        One whose upright size is stated comes back as it is: `end` refuses it.

        Raises:
            InputError: Its picture can't be read, has neither of the sizes that are stated for it,
                or a label is none that can be turned.
        """
        header = self._header(record)
        if header.orientation == 1:
            return dict(record)
        stated = stated_size(record)
        where = f"{path_of(record)} ({' x '.join(map(str, stated or header.stored_size))} px)"
        if stated not in (None, header.stored_size, header.size):
            raise InputError(
                f"{self._origin}: {where} has {header.stored_size[0]} x {header.stored_size[1]}"
                " px as it is stored: labels of another size can't be turned"
            )
        if stated not in (None, header.stored_size):
            _note(self._upright, where)
            return dict(record)
        if stated and header.stored_size != header.size:
            _note(self._stored, where)
        try:
            turned = upright_record(record, header.stored_size, header.orientation)
        except BrokenRow as error:
            raise InputError(f"{self._origin}: {path_of(record)}: {error}") from None
        if isinstance(turned.get(COLUMN), Mapping):
            turned[COLUMN] = {**turned[COLUMN], FRAME: "stored"}
        return turned

    def each_upright(
        self, records: Iterable[Mapping[str, Any]], bad: BadEntries
    ) -> Iterator[dict[str, Any]]:
        """Yield imported records, turned upright. Raises InputError, also at the end.

        Those that can't be turned are bad entries, if `bad` goes on.
        """
        for record in records:
            turned: dict[str, Any] | None = None
            with entry_errors(self._origin, bad):
                turned = self.upright(record)
            if turned is not None:
                note_turned(turned)
                yield turned
        self.end()

    def end(self) -> None:
        """Raise InputError if some picture's labels are of the upright frame, and name it."""
        if not self._upright:
            return
        upright = _names(self._upright)
        if not self._stored:
            raise InputError(
                f"{self._origin}: the labels are upright already, by the stated sizes of {upright}:"
                " read them without `stored`"
            )
        raise InputError(
            f"{self._origin}: labels of two frames: of the stored picture in"
            f" {_names(self._stored)}, of the upright one in {upright}: read each sort by itself"
        )


def stored_frame(frame: Frame, origin: str, folders: Iterable[str]) -> StoredFrame | None:
    """Return what turns the labels of a frame upright; None where they are so.

    The other arguments are those of `StoredFrame`.
    """
    return StoredFrame(origin, folders) if frame == "stored" else None


def _note(pictures: list[str], picture: str) -> None:
    if len(pictures) <= _NAMED and picture not in pictures:
        pictures.append(picture)


def _names(pictures: list[str]) -> str:
    more = " and more" if len(pictures) > _NAMED else ""
    return ", ".join(sorted(pictures[:_NAMED])) + more
