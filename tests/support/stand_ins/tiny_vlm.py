"""A LLaVA of a few kilobytes with weights set by hand: it answers by the task that it reads and the
colour it sees.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.workplace import REPOSITORY, Workplace

TEMPLATE = """{% for message in messages %}<{{ message.role }}>{% for part in message.content %}
{%- if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endfor %}
{%- if add_generation_prompt %}<assistant>{% endif %}"""

SIZE = 32  # of the hidden state: one dimension for each thing that the model knows
_BIAS, _ENDS, _RED = 0, 1, 2
_WORDS = ["<pad>", "<end>", "<image>", "<system>", "<user>", "<assistant>"]


def tiny_vlm(folder: Path, answers: Mapping[str, tuple[Any, Any]]) -> Path:
    """Save a model and its processor in `folder`: to a task it gives the first answer, of a red
    picture the second.

    Where the residual stream isn't changed by layers, the last token's logits are its own
    embedding's, here only "a reply begins" or "it ends", and what the one attention layer adds: the
    mean of all tokens before it, in which a task's name leaves a mark, and patches that are more
    red than blue.
    """
    import torch
    import transformers
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    texts = {name: [json.dumps(answer) for answer in both] for name, both in answers.items()}
    tokens = [*answers, *(text for both in texts.values() for text in both)]
    known = [*_WORDS, *map(chr, range(32, 127)), "\n", "[UNK]", *tokens]
    place = {word: number for number, word in enumerate(known)}
    inner = Tokenizer(models.WordLevel(place, unk_token="[UNK]"))
    inner.pre_tokenizer, inner.decoder = (
        pre_tokenizers.Split(Regex("(?m:.)"), "isolated"),
        decoders.Fuse(),
    )
    special = {"pad_token": "<pad>", "eos_token": "<end>", "unk_token": "[UNK]"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, **special, extra_special_tokens={"image_token": "<image>"}
    )
    tokenizer.add_tokens([*_WORDS[3:], *tokens])

    layers = {
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 4,
        "hidden_size": SIZE,
    }
    seen = transformers.CLIPVisionConfig(image_size=28, patch_size=14, **layers)
    told = transformers.LlamaConfig(vocab_size=len(known), max_position_embeddings=16384, **layers)
    config = transformers.LlavaConfig(
        vision_config=seen,
        text_config=told,
        image_token_index=place["<image>"],
        vision_feature_layer=-1,
    )
    model = transformers.LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 1, 0
    weights = model.state_dict()
    for name, weight in weights.items():
        weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)

    def of(ending: str) -> Any:
        [name] = [name for name in weights if name.endswith(ending)]
        return weights[name]

    patches, embedded, heads = (
        of("patch_embedding.weight"),
        of("embed_tokens.weight"),
        of("lm_head.weight"),
    )
    patches[0, 0], patches[0, 2] = 1 / 14**2, -1 / 14**2  # red less blue, and the opposite
    patches[1] = -patches[0]
    of("linear_1.weight")[_RED, 0] = of("linear_2.weight")[_RED, _RED] = 1.0
    of("language_model.layers.0.self_attn.v_proj.weight").copy_(torch.eye(SIZE))
    of("language_model.layers.0.self_attn.o_proj.weight").copy_(torch.eye(SIZE))
    embedded[place["<assistant>"], _BIAS] = 1e-4
    heads[place["<end>"], _ENDS] = 1e4
    for number, (name, both) in enumerate(texts.items()):
        embedded[place[name], 3 + number] = 1.0
        for is_red, text in enumerate(both):
            embedded[place[text], _ENDS] = 1.0
            heads[place[text], 3 + number] = 1.0
            heads[place[text], _RED], heads[place[text], _BIAS] = 0.3 * is_red, -1.0 * is_red
    model.save_pretrained(folder)
    # sides in pixels; the picture is cropped to nothing but what is there
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    processor = transformers.LlavaProcessor(
        pictures, tokenizer, 14, "default", TEMPLATE, num_additional_image_tokens=1
    )
    processor.save_pretrained(folder)
    return folder


def boxed(*box: int) -> dict[str, Any]:
    return {"objects": [{"id": 1, "label": "The square", "bbox_2d": list(box), "score": None}]}


EXPRESSIONS = {
    "cleaned_caption": "The square.",
    "expressions": [{"text": "The square", "noun_chunk": "square"}],
}
BOX_OF = {"blue": [1, 2, 10, 20], "red": [5, 6, 70, 80]}
OF_SQUARES = {
    "expression_extraction": (EXPRESSIONS, EXPRESSIONS),
    "phrase_grounding": (boxed(*BOX_OF["blue"]), boxed(*BOX_OF["red"])),
    "image_caption": ({"caption": "A square."}, {"caption": "A red square."}),
}


def asking_for_squares(model: Path, place: Workplace, colors: list[str]) -> Workplace:
    """A picture of each of the colors, and the page's spec with this model."""
    rows = []
    for number, color in enumerate(colors):
        name = place.picture(f"{number}.png", (100 + number, 90), color=color)
        rows.append({"image_path": name, "caption": "The square."})
    place.rows(rows)
    page = (REPOSITORY / "docs" / "endpoints.md").read_text(encoding="utf-8")
    written = re.search(r"<!-- local -->\n```yaml\n(.*?)```", page, re.DOTALL)
    assert written is not None
    local = yaml.safe_load(written[1])["image_grounding"]["vlm"]["local"]
    local |= {"model_name": str(model), "num_gpus": 0, "temperature": 0}
    place.settings = {
        "vlm.backend": "local",
        "vlm.local": local,
        "vlm.box_format": "xyxy_px",
        "vlm.check_every": None,
    }
    return place
