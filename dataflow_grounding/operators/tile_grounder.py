"""Operator: the boxes of each expression in the image and in overlapping tiles of it."""

from dataclasses import replace

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding.boxes.geometry import MERGE_IOU, without_duplicates
from dataflow_grounding.boxes.tiling import View, join_views, tiles_of
from dataflow_grounding.data.expressions import read_expressions
from dataflow_grounding.data.records import Record, Update, is_number
from dataflow_grounding.engine.workers import all_done
from dataflow_grounding.images.shown import ImageTile, tiles_in
from dataflow_grounding.operators._expressions import texts_of, with_answers
from dataflow_grounding.operators._nearness import batched
from dataflow_grounding.operators.operator_base import OPERATOR_REGISTRY, Ask, Image, open_image
from dataflow_grounding.operators.phrase_grounder import PhraseGrounder
from dataflow_grounding.serving.serving import Serving
from dataflow_grounding.tasks.grounding import SEVERAL_EVERYWHERE, Found
from dataflow_grounding.trust.box_watch import CHECK_EVERY, OnSuspect

CUT = "a box ends at the edge of a tile"


@OPERATOR_REGISTRY.register()
class TileGrounder(PhraseGrounder):
    """Finds the boxes of each expression in the image and in tiles of it, for small things.

    A large image is reduced before a model sees it, and what is small there is lost. This operator
    asks about the image, and about overlapping tiles of it in its full resolution. What two tiles
    show of one thing is one box (`join_views`). An image that is no larger than a tile is asked
    about alone, as by PhraseGrounder.

    Args:
        serving: The model that is asked.
        size: Width and height of a tile in pixels of the upright image; at least 64.
        overlap: The share of its side that a tile has in common with the next, at least: over 0,
            and 0.5 at most. What is smaller than the overlap is in one tile as a whole.
        phrases_per_request: Most phrases that are asked for at once.
        box_format, merge_iou, on_suspect_boxes, check_every: As PhraseGrounder's.

    Raises:
        SpecError: A setting is wrong, or the model draws no boxes.

    Example:
        >>> from dataflow_grounding import EmbeddedServing, TileGrounder
        >>> row = {"image_path": "small.png", "expressions": ["the red square"]}
        >>> record = TileGrounder(EmbeddedServing(), size=400)(row)
        >>> [instance] = record["expressions"][0]["instances"]
        >>> instance["bbox"], record["tiles"]
        ([300, 200, 334, 234], 20)
    """

    name = "tile_grounding"
    descriptions = {"zh": "在整幅图像及其重叠切片中定位每个指代表达式,并合并边界框。"}
    output_keys = {"output": "expressions", "tiles": "tiles"}

    def __init__(
        self,
        serving: Serving,
        *,
        size: int = 1024,
        overlap: float = 0.2,
        phrases_per_request: int = 16,
        box_format: str | None = None,
        merge_iou: float | None = MERGE_IOU,
        on_suspect_boxes: OnSuspect = "stop",
        check_every: int | None = CHECK_EVERY,
    ) -> None:
        is_whole = isinstance(size, int) and not isinstance(size, bool)
        if not is_whole or size < 64:
            raise SpecError("size should be a whole number from 64: a tile's side in pixels")
        is_overlap = is_number(overlap) and 0 < overlap <= 0.5
        if not is_overlap:
            raise SpecError(
                "overlap should be over 0, and 0.5 at most: it is a share of a tile's side, and"
                " without one a thing on the cut is two"
            )
        super().__init__(
            serving,
            phrases_per_request=phrases_per_request,
            box_format=box_format,
            merge_iou=merge_iou,
            on_suspect_boxes=on_suspect_boxes,
            check_every=check_every,
        )
        self.size = size
        self.overlap = overlap

    def pictures(self, image: Image) -> list[Image]:
        """Return the image and its tiles."""
        return [image, *self._tiles(image)]

    def requests_for(self, record: Record) -> int:
        """Return one for each picture and each `phrases_per_request` phrases of the record."""
        image = open_image(record, self.keys.image, self.serving.image_limits)
        return len(self.pictures(image)) * super().requests_for(record)

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds the expressions with `instances` and `status`, and how many `tiles` there are.

        An expression is `doubtful` where no tile shows how far one of its boxes reaches. Raises
        RecordError.
        """
        expressions = read_expressions(record, self.keys.expressions)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        tiles = self._tiles(image)
        texts = texts_of(expressions)
        pictures: list[Image] = [image, *tiles]
        answers: list[Found] = []
        for phrases in batched(texts, self.phrases_per_request):
            # a list for each picture, with an answer for each phrase
            answers_by_picture = await all_done(
                self.ground(picture, phrases, ask) for picture in pictures
            )
            # Turned around: the answers to each phrase, first about the image, then about tiles.
            for in_image, *in_tiles in zip(*answers_by_picture, strict=True):
                answers.append(self._joined(image, in_image, tiles, in_tiles))
        return {
            self.keys.output: with_answers(expressions, answers, ask),
            self.keys.tiles: len(tiles),
        }

    def _tiles(self, image: Image) -> list[ImageTile]:
        return tiles_in(image, tiles_of(image.size, self.size, self.overlap))

    def _joined(
        self, image: Image, in_image: Found, tiles: list[ImageTile], in_tiles: list[Found]
    ) -> Found:
        """Make the answers about one phrase, from the image and its tiles, one."""
        if not tiles:
            return in_image
        whole_view = View((0, 0, *image.size), in_image.instances)
        views = []
        for tile, found in zip(tiles, in_tiles, strict=True):
            instances = []  # with boxes in the image's pixels
            for instance in found.instances:
                instances.append(replace(instance, bbox=tile.to_image(instance.bbox)))
            views.append(View(tile.region, instances))
        things = join_views(whole_view, views)
        instances = without_duplicates([thing.instance for thing in things], self.merge_iou)
        # Several phrases may well have the whole of a tile, which is small: that is no doubt.
        doubts_about_tiles = [
            found.doubt for found in in_tiles if found.doubt != SEVERAL_EVERYWHERE
        ]
        doubt_about_reply = _first_stated([in_image.doubt, *doubts_about_tiles])
        if not instances:  # the answer about the whole image says why
            return replace(in_image, doubt=doubt_about_reply)
        doubts_about_boxes = [found.own_doubt for found in (in_image, *in_tiles)]
        if any(thing.is_cut for thing in things):
            doubts_about_boxes.append(CUT)
        return Found(
            "grounded",
            instances,
            doubt=doubt_about_reply,
            own_doubt=_first_stated(doubts_about_boxes),
        )


def _first_stated(texts: list[str]) -> str:
    return next(filter(None, texts), "")
