"""Probe pictures made of the run's own: rectangles are drawn into a copy.

A copy has the content, the size, the file type and the coding (palette, alpha, progressive) of its
picture, and goes the same way to the model. So it is answered as the picture itself is, also by a
server that treats some pictures otherwise than others.
"""

import asyncio
import io
import tempfile
from dataclasses import replace
from typing import Any

import PIL.Image
import PIL.ImageDraw
import PIL.JpegImagePlugin

from dataflow_grounding._util.errors import PictureReduced, RunStopped
from dataflow_grounding._util.files import new_file, within
from dataflow_grounding.boxes.coordinates import BoxFormat
from dataflow_grounding.data.records import Record
from dataflow_grounding.engine.plan import Ask
from dataflow_grounding.images.files import encoded
from dataflow_grounding.images.image import Image, pin
from dataflow_grounding.tasks.request import Request, Sending
from dataflow_grounding.trust.probes import (
    COLORS,
    INNER,
    NARROWEST,
    SUFFIXES,
    Probe,
    ProbedPicture,
    color_of,
    legible,
    phrase_of,
    probe_of,
    question_about,
)

# Colors that stand out from a photograph. Pink, brown and grays are those of skin and walls.
STANDING_OUT = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple")
BORDER = (255, 255, 255)  # around a rectangle, so that it is seen on ground of its own color


def drawn_into(picture: PIL.Image.Image, layout: int) -> Probe:
    """Draw rectangles into `picture`, at places that depend on its size and the layout."""
    whole_probe = probe_of(picture.size, INNER + layout)  # in all COLORS, away from the edges
    drawn_phrases = [phrase_of(color) for color in STANDING_OUT]
    pen = PIL.ImageDraw.Draw(picture)
    border = max(1, round(min(picture.size) / 200))
    boxes = {phrase: box for phrase, box in whole_probe.boxes.items() if phrase in drawn_phrases}
    # All borders come first, so that none covers a rectangle.
    for x1, y1, x2, y2 in boxes.values():
        pen.rectangle((x1 - border, y1 - border, x2 + border - 1, y2 + border - 1), fill=BORDER)
    for phrase, (x1, y1, x2, y2) in boxes.items():
        pen.rectangle((x1, y1, x2 - 1, y2 - 1), fill=COLORS[color_of(phrase)])
    return Probe(picture.size, boxes)


def copy_question(
    image: Image, asked: BoxFormat, folder: str, layout: int
) -> Request[ProbedPicture]:
    """Return the question for rectangles that are drawn into a copy of an image, in `folder`.

    Raises RecordError where the image can't be read.
    """
    original = image.file_bytes()
    copy = _copy_to_draw_on(image, original)
    probe = drawn_into(copy, layout)
    limits = image.limits
    if limits.frames:  # the copy goes in the frame that the image goes in
        limits = replace(limits, frames=(image.sent_size,))
    suffix = SUFFIXES.get(image.sent_media_type, ".jpg")
    sent_as_it_is = original if image.as_is else None
    data = _coded_like(copy, sent_as_it_is, suffix, image.fitted_limits.max_bytes)
    path = within(folder, f"probe{suffix}")
    with new_file(path) as file:  # a user's own serving may open it
        file.write(data)
    record = Record({"image_path": path})
    pin(record, "image_path", data, limits)  # also if somebody changes the file
    return question_about(record, probe, asked, limits)


def _copy_to_draw_on(image: Image, original: bytes) -> PIL.Image.Image:
    """The picture as sent, but without padding: the copy is padded when it is sent."""
    copy = image.as_sent(original)
    if copy.size != image.content_size:
        copy = copy.crop((0, 0, *image.content_size))
    # It is enlarged only if rectangles in it would be too small to see.
    size = legible(copy.size, image.limits.max_side, NARROWEST)
    if size != copy.size:
        copy = copy.resize(size, PIL.Image.Resampling.BICUBIC)
    return copy


def _coded_like(
    copy: PIL.Image.Image, original: bytes | None, suffix: str, max_bytes: int
) -> bytes:
    """The copy as a file, coded as `original` is: the picture's own file, if that is sent."""
    # A server may treat palettes, alpha, progressive JPEGs or large files in ways of their own.
    if original is None:
        return encoded(copy, max_bytes)
    out = io.BytesIO()
    with PIL.Image.open(io.BytesIO(original)) as picture:
        if suffix == ".jpg":
            # A file over `max_bytes` would be encoded again when it is sent (`Image.as_is`). So a
            # JPEG is held to the limit here: its rectangles are encoded once, not twice.
            jpeg: Any = picture
            copy.save(
                out,
                "JPEG",
                # the picture's own tables: they take half the time and bytes of the best quality
                qtables=jpeg.quantization,
                subsampling=PIL.JpegImagePlugin.get_sampling(jpeg),
                progressive=bool(jpeg.info.get("progressive")),
            )
            return out.getvalue() if out.tell() <= max_bytes else encoded(copy, max_bytes)
        # A gray picture's copy stays in color: rectangles are named by their colors.
        if picture.mode in ("P", "PA"):
            copy = copy.convert("P", palette=PIL.Image.Palette.ADAPTIVE)
        elif picture.mode in ("RGBA", "LA"):
            copy = copy.convert("RGBA")
    copy.save(out, suffix[1:].upper())
    return out.getvalue()


async def ask_about_copy(
    ask: Ask, image: Image, asked: BoxFormat, layout: int, endpoint_number: int | None = None
) -> ProbedPicture:
    """Ask for rectangles in a copy of an image, at the endpoint of this number, from 0.

    Where the request fails there are no answers, and `trouble` says why. Raises RunStopped.
    """
    try:
        try:
            return await _ask_once(ask, image, asked, layout, endpoint_number)
        except PictureReduced as reduced:
            # The endpoint refused so large a file. The image itself will be reduced, too, so the
            # copy of the smaller image is asked about.
            limits = replace(image.limits, learnt_bytes=reduced.most)
            smaller = replace(image, limits=limits)
            return await _ask_once(ask, smaller, asked, layout, endpoint_number)
    except RunStopped:
        raise
    except Exception as error:
        # No failure of a serving, or of a user's own code, on a probe is a reason to end the run:
        # the picture counts as unanswered.
        return ProbedPicture(Probe(image.size, {}), image.sent_size, [], trouble=str(error))


async def _ask_once(
    ask: Ask, image: Image, asked: BoxFormat, layout: int, endpoint_number: int | None
) -> ProbedPicture:
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        question = await asyncio.to_thread(copy_question, image, asked, folder, layout)
        sending = Sending(endpoint_number=endpoint_number, own_reply=True)
        picture, _ = await ask.aside(question.replace(sending=sending))
        return picture
