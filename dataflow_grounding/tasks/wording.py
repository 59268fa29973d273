"""How questions are put, where a user says so: form, prompts, guidance and definitions."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from dataflow_grounding._util.errors import SpecError
from dataflow_grounding._util.nearest import nearest
from dataflow_grounding._util.settings import setting
from dataflow_grounding.tasks.prompts import load_prompt, prompt_names
from dataflow_grounding.tasks.request import Prompt, Request, filled

if TYPE_CHECKING:
    from dataflow_grounding.tasks.ways_to_ask import AskingForm

T = TypeVar("T")

INPUT = "<input>"
"""Where a prompt's file has the data: what the question is about."""
ABOUT_IMAGE = "system"
ABOUT_NO_IMAGE = "system_text_only"
SYSTEM_PROMPTS = (ABOUT_IMAGE, ABOUT_NO_IMAGE)
"""Sent before every question, about an image or about none: they have no data and no reply."""
WITH_FORMS = "phrase_grounding"
"""The task that has forms of asking: all that asks for boxes of phrases."""
LONGEST = 100_000
"""Characters of a prompt or of guidance; more is a file that was named by mistake."""

_PLACEHOLDER = re.compile(r"\{[a-z_]+\}")  # {box_format}
_KEY = re.compile(r'"([^"\s]+)":')  # a key of a reply in JSON: `"objects":`
_REPLY_LINE = re.compile(r"^\d+\. .+: (.+)$", re.MULTILINE)  # 1. the red cup: [n, n, n, n]
_FIRST_CHINESE = "\u2e80"  # from this character on, words aren't parted by blanks
_REPLY = "Reply:"  # after it a shipped prompt has the form of its reply


@dataclass(frozen=True)
class Wording:
    """How a user has questions put: what differs from the shipped words."""

    # by task, as `ejected` writes them; data goes in place of `<input>`
    prompts: Mapping[str, str] = field(default_factory=dict)
    guidance: str = ""  # sentences that every question has after its instructions
    # what counts as a term; a question gets, as data, those of its texts
    definitions: Mapping[str, str] = field(default_factory=dict)
    asking: "AskingForm | None" = None

    def __post_init__(self) -> None:
        for name, text in self.prompts.items():
            _check_prompt(name, text)
        _check_guidance(self.guidance)
        for term, definition in self.definitions.items():
            if not _is_text(term) or not _is_text(definition):
                raise SpecError(f"the definition of {term!r:.60} should be a text")
        # A form of asking may use another prompt than the usual one. Then the user's own words for
        # the usual one would never be sent.
        prompt_used = self.asking.prompt_name if self.asking else WITH_FORMS
        if WITH_FORMS in self.prompts and prompt_used not in self.prompts:
            raise SpecError(
                f"this form of asking is put by the prompt {prompt_used}, and your own is"
                f" {WITH_FORMS}: write that one, too"
            )

    def __bool__(self) -> bool:
        return bool(self.prompts or self.guidance or self.definitions or self.asking)

    def of(self, request: Request[T]) -> Request[T]:
        """Return a request as the user has it put: the same object if that changes nothing."""
        if self.asking:  # first, because it settles which prompt is used
            request = self.asking.of(request)
        instructions, prompt = self._own_prompts_for(request)
        question = request.input
        definitions = self._definitions_of(request)
        if definitions:
            question = {**question, "definitions": definitions}
            instructions = f"{instructions}\n\n{load_prompt('definitions')}"
        if self.guidance.strip():
            instructions = f"{instructions}\n\n{self.guidance.strip()}"
        if instructions == request.instructions and prompt is request.prompt:
            return request
        return replace(request, input=question, instructions=instructions, prompt=prompt)

    def _own_prompts_for(self, request: Request[T]) -> tuple[str, Prompt]:
        """Return a request's instructions and its prompt, in the user's own words."""
        instructions, prompt = request.instructions, request.prompt
        template = self.prompts.get(prompt.name or request.task)
        if template is not None:
            # "Find …: <input> Reply with …": the data of the question goes in place of <input>
            before, _, after = template.partition(INPUT)
            instructions = filled(before.strip(), prompt.words)
            prompt = replace(prompt, closing=filled(after.strip(), prompt.words))
        system = self.prompts.get(ABOUT_NO_IMAGE if request.text_only else ABOUT_IMAGE)
        if system is not None:
            prompt = replace(prompt, system=system.strip())
        return instructions, prompt

    def _definitions_of(self, request: Request[T]) -> dict[str, str]:
        if not self.definitions:
            return {}
        text = "\n".join(_texts_in(request.input)).casefold()
        return {
            term: definition
            for term, definition in self.definitions.items()
            if _is_word_in(term.strip().casefold(), text)
        }


def ejected(name: str) -> str:
    """Return a shipped prompt for a user's own file to begin with."""
    if name not in prompt_names():
        raise SpecError(f"no prompt {name!r}{_nearest(name)}")
    text = load_prompt(name)
    if name not in SYSTEM_PROMPTS:  # a system message has no data
        text += f"\n\n{INPUT}"
    return f"{text}\n"


def read_prompts(folder: str) -> dict[str, str]:
    """Read the prompts in a folder, by the names of their files without ".txt"."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".txt"))
    except OSError as error:
        raise SpecError(f"can't read the prompts in {folder}: {error.strerror}") from None
    prompts = {}
    for file_name in names:
        path = os.path.join(folder, file_name)
        try:
            with open(path, encoding="utf-8-sig") as file:
                text = file.read(LONGEST + 1)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not UTF-8"
            raise SpecError(f"can't read {path}: {why}") from None
        name = file_name.removesuffix(".txt")
        try:
            _check_prompt(name, text)
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from None
        prompts[name] = text
    return prompts


def _check_guidance(guidance: str) -> None:
    if not isinstance(guidance, str) or len(guidance) > LONGEST:
        raise SpecError(
            f"{setting('workflow.guidance')} should be a text of at most {LONGEST} characters"
        )
    if INPUT in guidance or "</input>" in guidance:
        raise SpecError(
            f"{setting('workflow.guidance')} can't hold {INPUT}: the data of a question stand there"
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= LONGEST


def _check_prompt(name: str, text: str) -> None:
    """Refuse a user's own prompt without what makes its replies readable."""
    if name not in prompt_names():
        raise SpecError(f"no prompt is called {name!r}{_nearest(name)}")
    if not _is_text(text):
        raise SpecError(f"the prompt {name} should be a text of 1 to {LONGEST} characters")
    if name in SYSTEM_PROMPTS:
        return
    if text.count(INPUT) != 1:
        what = "should have only once" if INPUT in text else "lacks"
        raise SpecError(f"the prompt {name} {what} {INPUT}, the place of the question's data")
    for part in _needed_parts(load_prompt(name)):
        if not re.search(part.pattern, text):
            raise SpecError(
                f"the prompt {name} lacks {part.text}: compare it with the shipped one, as"
                f" `dataflowgrounding prompts show {name}` prints it"
            )


class _NeededPart(NamedTuple):
    """What a user's own prompt has to hold."""

    text: str
    pattern: str  # by which it is looked for


def _needed_parts(shipped: str) -> Iterator[_NeededPart]:
    """What of a shipped prompt its replies depend on."""
    for placeholder in sorted(set(_PLACEHOLDER.findall(shipped))):
        yield _NeededPart(placeholder, re.escape(placeholder))  # such as {box_format}
    _, _, reply = shipped.rpartition(_REPLY)
    # Keys, as in `Reply: {"objects": [{"id": 1, …}]}`. A key needs a colon after it, because the
    # instructions may name it, too.
    for key in dict.fromkeys(_KEY.findall(reply)):
        yield _NeededPart(f'"{key}"', rf'"{re.escape(key)}"\s*:')
    # Values of lines, which have no keys: `[n, n, n, n]` of `1. the red cup: [n, n, n, n]`.
    for value in _REPLY_LINE.findall(reply):
        yield _NeededPart(value, re.escape(value))


def _texts_in(value: object) -> Iterator[str]:
    """All texts in a JSON value, without the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts_in(item)


def _is_word_in(term: str, text: str) -> bool:
    """Whether a term is in a text as "cup" is in "a cup, full", but not in "a cupboard"."""
    start = text.find(term)
    while start >= 0:
        end = start + len(term)
        begins_a_word = start == 0 or not _are_one_word(text[start - 1], term[0])
        ends_a_word = end == len(text) or not _are_one_word(term[-1], text[end])
        if begins_a_word and ends_a_word:
            return True
        start = text.find(term, start + 1)
    return False


def _are_one_word(left: str, right: str) -> bool:
    """Whether two neighbouring characters are of one word, where blanks part words."""
    # In scripts such as Chinese, that can't be seen: there a term may be anywhere.
    return all(char.isalnum() and char < _FIRST_CHINESE for char in (left, right))


def _nearest(name: str) -> str:
    return nearest(name, prompt_names()) or f": the prompts are {', '.join(prompt_names())}"
