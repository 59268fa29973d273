"""Image files of every kind: each works, or fails its record alone with a reason; none goes unsent
and answered.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.fault_cases.fault_case import Case, Outcome, Witness, calm, lost_rows
from tests.support.fault_cases.picture_bombs import chunk
from tests.support.workplace import Workplace, caption

Write = Callable[[Path], Any]


def saved(mode: str, size: tuple[int, int], kind: str) -> bytes:
    """A picture of one colour as a file's bytes."""
    from PIL import Image

    out = io.BytesIO()
    Image.new(mode, size, 100 if mode == "I;16" else 0).save(out, kind)
    return out.getvalue()


def animated(kind: str) -> bytes:
    from PIL import Image

    frames = [Image.new("RGB", (40, 30), color) for color in ("red", "green", "blue")]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=50)
    return out.getvalue()


def see_through() -> bytes:
    """A palette with a transparent colour."""
    from PIL import Image

    picture = Image.new("P", (40, 30), 0)
    picture.paste(1, (0, 0, 20, 30))  # a picture with nothing to see is refused
    picture.putpalette([255, 0, 0, 0, 255, 0] + [0] * 762)
    out = io.BytesIO()
    picture.save(out, "PNG", transparency=0)
    return out.getvalue()


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it is 60,000 x 60,000."""
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(200)

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\nshowpage\n%%EOF\n"


class Picture(NamedTuple):
    """A picture file: what the table calls it, what is promised of it, how it is written, the size
    of the upright picture or the failure's kind, and the file's name.
    """

    what: str
    promise: str
    write: Write
    expected: tuple[int, int] | str
    name: str = "odd.jpg"

    @property
    def works(self) -> bool:
        return not isinstance(self.expected, str)

    def case(self) -> Case:
        return Case(f"image: {self.what}", self.promise, functools.partial(play, [self]))


def play(pictures: Sequence[Picture], place: Workplace, full: bool) -> Outcome:
    """Such pictures between two good ones: r1 is the first of them."""
    paths = [place.picture("good.jpg")]
    for number, picture in enumerate(pictures):
        paths.append(f"{number}/{picture.name}")
        (place.folder / str(number)).mkdir()
        picture.write(place.folder / paths[-1])
    paths.append("good.jpg")
    place.rows(
        {"image_path": path, "image_id": f"r{n}", "caption": caption(n)}
        for n, path in enumerate(paths)
    )
    with Witness() as witness:
        url = {"vlm.openai.base_url": witness.server.base_url}
        done = place.run(**url)
        calm(done)
        works = {f"r{n}": picture for n, picture in enumerate(pictures, 1) if picture.works}
        fails = {f"r{n}": picture for n, picture in enumerate(pictures, 1) if not picture.works}
        assert done.code == (1 if fails else 0), done
        records = {record["image_id"]: record for record in place.annotations()}
        assert list(records) == ["r0", *works, f"r{len(paths) - 1}"]
        for name, picture in works.items():
            size = (records[name]["width"], records[name]["height"])
            assert size == picture.expected, picture.what
            assert records[name]["image_path"] == paths[int(name[1:])]
        failures = {failure["id"]: failure for failure in place.failures()}
        assert list(failures) == list(fails)
        for name, picture in fails.items():
            assert failures[name]["kind"] == picture.expected, failures[name]
            assert len(failures[name]["message"]) > 20
            assert "\n" not in failures[name]["message"]
        sent = {
            (image.format, image.orientation)
            for request in witness.server.requests
            for image in request.images
        }
        assert sent <= {("JPEG", 1), ("PNG", 1), ("WEBP", 1)}, sent
        assert witness.sent == 2 * (len(works) + 2), "no request without its image"
        assert place.run(**url).summary["requests"] == 0
        return Outcome(witness.sent, witness.twice, lost_rows(place, len(paths)))


def data(make: Callable[[], bytes]) -> Write:
    return lambda path: path.write_bytes(make())


def plain(mode: str, kind: str, size: tuple[int, int] = (40, 30)) -> Write:
    return data(lambda: saved(mode, size, kind))


def cut_short(kind: str, by: int) -> Write:
    return data(lambda: saved("RGB", (3000, 2000), kind)[:-by])


FAILS = "Only the record fails."
WORKS = "The run takes it like any other picture."
SENT_AS_JPEG = "The first picture is sent as an upright RGB JPEG."
BROKEN = "image_broken"
SMALL, LONG, LONGEST = (40, 30), (20_000, 200), (2_000_000, 2)

PICTURES = [
    Picture("truncated JPEG", FAILS, cut_short("JPEG", 3000), BROKEN),
    Picture("truncated PNG", FAILS, cut_short("PNG", 60), BROKEN),
    Picture("decompression bomb", FAILS, data(bomb), BROKEN),
    Picture("0 bytes", FAILS, data(bytes), BROKEN),
    Picture("text", FAILS, data(lambda: b"this is not a picture\n" * 20), BROKEN),
    Picture("HEIC", FAILS, data(lambda: HEIC), BROKEN, "odd.heic"),
    Picture("EPS", FAILS, data(lambda: EPS), BROKEN),
    Picture("a folder", FAILS, Path.mkdir, BROKEN),
    Picture("a broken link", FAILS, lambda path: path.symlink_to("nowhere"), "image_missing"),
    Picture("CMYK", SENT_AS_JPEG, plain("CMYK", "JPEG"), SMALL),
    Picture("16-bit PNG", SENT_AS_JPEG, plain("I;16", "PNG"), SMALL),
    Picture("GIF", SENT_AS_JPEG, data(lambda: animated("GIF")), SMALL, "odd.gif"),
    Picture("WebP", SENT_AS_JPEG, data(lambda: animated("WEBP")), SMALL, "odd.webp"),
    Picture("TIFF", SENT_AS_JPEG, plain("RGB", "TIFF"), SMALL, "odd.tif"),
    Picture("BMP", SENT_AS_JPEG, plain("RGB", "BMP"), SMALL, "odd.bmp"),
    Picture("palette with alpha", WORKS, data(see_through), SMALL, "odd.png"),
    Picture("one pixel", WORKS, plain("RGB", "PNG", (1, 1)), (1, 1), "odd.png"),
    Picture("20,000 x 200", WORKS, plain("RGB", "JPEG", LONG), LONG),
    Picture("2,000,000 x 2", WORKS, plain("1", "PNG", LONGEST), LONGEST, "odd.png"),
    Picture("PNG named .jpg", WORKS, plain("RGB", "PNG"), SMALL),
    Picture("a newline in the name", WORKS, plain("RGB", "JPEG"), SMALL, "two\nlines.jpg"),
    Picture("é 日 in the name", WORKS, plain("RGB", "JPEG"), SMALL, "é 日 .jpg"),
]
