"""Operator: a caption of each image."""

from dataflow_grounding import OPERATOR_REGISTRY, Ask, Operator, Record, Serving, Update, open_image
from dataflow_grounding.boxes.regions import check_stated_size
from dataflow_grounding.data.expressions import Region, check_labels_were_read, read_regions
from dataflow_grounding.english.spans import clean_caption
from dataflow_grounding.tasks import image_caption
from dataflow_grounding.trust.choice import choice_of


@OPERATOR_REGISTRY.register()
class CaptionGenerator(Operator):
    """Writes a caption of the whole image.

    A model is shown only the picture. A serving that can't see what things are (the embedded one)
    gets the regions, so this step has to follow the one that describes them.

    Args:
        serving: The model that is asked.

    Example:
        >>> from dataflow_grounding import CaptionGenerator, EmbeddedServing
        >>> region = {"bbox": [300, 200, 500, 400], "type": "square", "color": "red"}
        >>> record = {"image_path": "square.png", "regions": [region]}
        >>> CaptionGenerator(EmbeddedServing())(record)["caption"]
        'A red square.'
    """

    name = "image_caption"
    tasks = ("image_caption",)
    input_keys = {"image": "image_path"}
    output_keys = {"caption": "caption", "cleaned_caption": "cleaned_caption"}
    descriptions = {"zh": "为整幅图像生成描述文本。"}

    def __init__(self, serving: Serving) -> None:
        self.serving: Serving = self.checked_serving(serving)
        if serving.needs_labels:
            self.format_choice = choice_of(serving)
            self.input_keys = {"image": "image_path", "regions": "regions"}  # type: ignore[misc]

    async def annotate(self, record: Record, ask: Ask) -> Update:
        """Adds `caption` and `cleaned_caption`.

        Raises RecordError: also where the record's regions are in a picture of another size, or the
        labels that it was made from couldn't be read.
        """
        check_labels_were_read(record)
        image = open_image(record, self.keys.image, self.serving.image_limits)
        if record.get("regions"):
            # A later step, which describes the regions, would raise the same, but after the caption
            # was paid for.
            check_stated_size(record, image.size, image.file.path)
        request = image_caption(image)
        if self.serving.needs_labels:  # the embedded one, which makes the caption of the regions
            regions = read_regions(record, self.keys.regions)
            request = image_caption(image, [Region(item.bbox, item.type) for item in regions])
        caption = await ask(request)
        return {
            self.keys.caption: caption,
            self.keys.cleaned_caption: clean_caption(caption),
        }
