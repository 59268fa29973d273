"""Model names: the family that a name is of, behind routers' prefixes, with sizes, dates and quantisation after it."""

import re
from collections.abc import Iterator
from functools import lru_cache

# What routers, clouds and packers write before a model's name, joined by a dot, a dash or a low line.
_PREFIXES = (
    "us eu apac global jp au ca gov databricks anthropic amazon google openai qwen nvidia deepseek moonshotai zai org "
    "meta xai microsoft opengvlab openbmb unsloth lmstudio community bartowski ggml mlx mradermacher"
)
# What may follow a family's name without making another model of it. What isn't here may be a fine-tune, or a model
# for something else (…-embedding, …-image, …-coder), which writes boxes in numbers of its own or none at all.
_WORDS = (
    "instruct chat thinking it base pretrained mpo hf preview latest exp default "
    "flash flashx lite plus turbo pro mini nano fast tiny small large "
    "gguf awq gptq exl2 mlx dwq bnb autoround quantized dynamic block moe ud i1 unsloth qat "
    "free beta nitro floor extended exacto cloud maas"
)
_KINDS = (
    r"\d+(?:\.\d+)?[bm]|[ae]\d+(?:\.\d+)?b",  # sizes: 7b, 0.8b, 450m, a3b, e4b
    r"20\d\d[-.]?\d\d(?:[-.]?\d\d)?|\d\d-20\d\d|\d\d-\d\d|\d{6}|\d{3,4}",  # dates, builds: 2025-09-23, 05-20, 0711, 001
    r"v\d+(?:[-.:]\d+)*|\d+k",  # v1, v1:0, v1-5; a context of 200k
    r"i?q\d(?:[-_](?:k|[01]|xxs|xs|s|m|l|xl|nl))*|\d-?bit|(?:int|fp|mxfp|nvfp|nf|bf|f)\d+|w\d+a\d+|\d+(?:\.\d+)?bpw",
    r"\d{5}-of-\d{5}",  # parts of a file
)
_AFTER = re.compile(rf"(?:[-_.:@+\s\[\]()]+(?:{'|'.join((*_WORDS.split(), *_KINDS))}))*[\])]*")


def squeezed(name: str) -> str:
    """Return `name` in lower case without the signs that are written differently from place to place."""
    return re.sub(r"[-_.\s]", "", name.lower())


def bare_names(model: str) -> list[str]:
    """Return the model's name without its path and tag, squeezed: as it is, and without each prefix in front of it.

    "openrouter/google/gemini-2.5-flash:free" gives "gemini25flash".
    """
    return [squeezed(re.split(r"[:@]", name, maxsplit=1)[0]) for name in _without_prefixes(model)]


def is_of_family(model: str, family: str) -> bool:
    """Whether `model` is a name of the family: `family`, then only sizes, dates, versions, quantisation and the like.

    `family` is the name's beginning; case and the signs - _ . don't count, # is one digit.
    """
    return any(_matches(name, family) for name in _without_prefixes(model))


def _matches(name: str, family: str) -> bool:
    name = re.sub(r"(?<=\d)p(?=\d)", ".", name)  # 2p5: where a name may hold no dot
    beginning = _pattern(family).match(name)
    return beginning is not None and _AFTER.fullmatch(name, beginning.end()) is not None


@lru_cache(maxsize=1024)
def _pattern(family: str) -> re.Pattern[str]:
    signs = [r"\d" if sign == "#" else re.escape(sign) for sign in squeezed(family)]
    return re.compile(r"[-_.\s]*".join(signs) + r"(?![a-z\d])")


def _without_prefixes(model: str) -> Iterator[str]:
    # After a # comes where the model is deployed.
    name = re.split(r"[/\\]", model.lower().partition("#")[0].strip().rstrip("/\\"))[-1]
    yield name
    while (prefix := re.match(r"([a-z]+)[._-]", name)) and prefix[1] in _PREFIXES.split():
        name = name[prefix.end() :]
        yield name
