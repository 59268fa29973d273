"""The answer in a reply: without the model's thinking, other turns, and tokens of the template.

What opens and closes each part is a table, `channels` in grammar.yaml. What follows the thinking
is the answer; a reply that ends inside of it has none.

Some servers leave the tokens of the chat template in a reply, such as <|im_start|>assistant. Then
it may have several messages: to the user, to the model itself (its thinking) or to a tool.
"""

import re
from typing import NamedTuple

from dataflow_grounding._util.errors import UnreadableReply
from dataflow_grounding._util.lazy import lazy_pattern, load_table
from dataflow_grounding.replies.items import are_parts
from dataflow_grounding.replies.json_text import strict_json

_CHANNELS: dict[str, list[str]] = load_table(__package__, "grammar.yaml")["channels"]
_ENDS_INSIDE = "the reply ends inside the model's thinking"


def _any_of(name: str) -> re.Pattern[str]:
    return lazy_pattern(lambda: "|".join(_CHANNELS[name]), re.IGNORECASE)


_MARK = lazy_pattern(
    lambda: (
        f"(?P<opens>{'|'.join(_CHANNELS['thinking_opens'])})"
        f"|(?P<closes>{'|'.join(_CHANNELS['thinking_closes'])})"
    ),
    re.IGNORECASE,
)
_MESSAGE = _any_of("message_begins")  # the header of a message; its group, if any, says whose
_MESSAGE_END = _any_of("message_ends")
_SIDE = _any_of("side_messages")  # a header of a message that is none to the user
_ASKED = _any_of("asking")  # a header of the one who asks
# The beginning of the assistant's turn in plain text.
_ROLE = lazy_pattern(lambda: "|".join(_CHANNELS["roles"]), re.IGNORECASE | re.DOTALL)
_ANSWER = lazy_pattern(
    lambda: (
        f"(?:{'|'.join(_CHANNELS['answer_opens'])})(.*?)"
        f"(?:{'|'.join(_CHANNELS['answer_closes'])}|$)"
    ),
    re.IGNORECASE | re.DOTALL,
)
_TOKENS = _any_of("tokens")
_COMMENTED = lazy_pattern(r"\s*(?:#[^\n]*(?:\n\s*|$))+")
# After the mark of a fence; "example" and "draft" are words, which say what is in it.
_LANGUAGE = lazy_pattern(
    r"[ \t]*(?:json\w*|python|js|javascript|te?xt|plaintext|html|xml|markdown|md)?(?=\s|[\[{]|$)"
)
# A block of code, and the outcomes that Gemini names where its result is one.
_CODE = lazy_pattern(r"[ \t]*(?:python|py|javascript|js)[ \t]*\n")
_RESULT = lazy_pattern(r"[ \t]*(?:failed|deadline_exceeded)?[ \t]*\n")
_GLM_OPENS = "<|begin_of_box|>"
_GLM_CLOSES = "<|end_of_box|>"


class Answer(NamedTuple):
    """An answer, and the words around the fence or the tokens that it is in."""

    text: str
    before: str = ""
    after: str = ""


def answer_of(reply: str) -> str:
    """Return a reply's answer: without thinking, code, other messages and a template's tokens."""
    has_headers = "<" in reply  # each header of a message has one
    text = _last_message(reply) if has_headers else reply
    text = _after_code(text)
    text = _without_thinking(text)
    text = _contents_of_answer_tags(text)
    role = _ROLE.match(text)
    if role is not None:  # "Assistant: [1, 2, 3, 4]"
        text = text[role.end() :]
    if "<" in text:
        text = _TOKENS.sub(" ", text)
    text = text.strip()
    if not text:
        raise UnreadableReply("the reply is empty", "empty")
    if text.startswith("#") and _COMMENTED.fullmatch(text):
        text = re.sub(r"^\s*#+", "", text, flags=re.MULTILINE)  # an answer in a program's comments
    if text.startswith('"'):
        # All of the text may be one string of JSON: "{\"objects\": []}"
        strings = strict_json(f"[{text}]")
        if isinstance(strings, list) and len(strings) == 1:
            text = str(strings[0])
    return text


def enclosed(text: str) -> Answer:
    """Return what is in a fence or in GLM's tokens for an answer, else all of the text."""
    if _GLM_OPENS in text:
        before, _, rest = text.partition(_GLM_OPENS)
        inside, _, after = rest.partition(_GLM_CLOSES)
        if _GLM_OPENS in after:
            raise UnreadableReply("the reply has several answers", "several answers")
        return Answer(inside, before, after)
    return _in_fence(text) if "```" in text else Answer(text)


def _in_fence(text: str) -> Answer:
    parts = text.split("```")  # in turn outside and inside of a fence
    has_mark_too_many = len(parts) == 4 and not parts[3].strip()
    if has_mark_too_many:  # "```[…]``` ```": the answer's fence is closed, and a further one empty
        parts.pop()
    outside_fences, in_fences = parts[0::2], parts[1::2]
    breaks_off = len(parts) % 2 == 0
    # A single fence that breaks off has the answer as far as it goes. A second one may have become
    # another answer.
    if breaks_off and len(in_fences) > 1:
        raise UnreadableReply("a further fenced answer breaks off", "several answers")
    blocks = [_LANGUAGE.sub("", part, count=1) for part in in_fences]
    blocks = [block for block in blocks if block.strip()]
    if not blocks:
        return Answer(" ".join(parts))  # all fences are empty, and the answer is outside of them
    if len({block.strip() for block in blocks}) == 1:  # one block, or equal ones
        inside = blocks[0].rstrip("`")  # "[1, 2, 3, 4]``" breaks off within the closing mark
    elif are_parts([strict_json(block) for block in blocks]):
        inside = "\n".join(blocks)  # a block for each phrase
    else:
        raise UnreadableReply("the reply has several fenced answers", "several answers")
    return Answer(inside, outside_fences[0], " ".join(outside_fences[1:]))


def _last_message(reply: str) -> str:
    """Return the last message in the reply that is for the user and isn't empty."""
    headers = list(_MESSAGE.finditer(reply))
    if not headers:
        return _until_end(reply)
    # Text before the first header, such as <|im_start|>assistant, is a message, too. A side message
    # is one to the model itself (its thinking) or to a tool.
    before_all = reply[: headers[0].start()]
    answer = "" if _SIDE.search(before_all) else _until_end(before_all)
    ends = [header.start() for header in headers[1:]] + [len(reply)]
    for header, end in zip(headers, ends, strict=True):
        content = _until_end(reply[header.end() : end])
        is_from_user = _ASKED.search(header[0]) is not None
        is_side_message = _SIDE.search(header[0]) is not None
        if is_from_user and answer.strip():
            # After its answer the model went on and made up the user's next question.
            break
        is_to_user = not is_from_user and not is_side_message
        if is_to_user and content.strip():
            answer = content
    if not answer.strip():
        raise UnreadableReply(_ENDS_INSIDE, "only thinking")
    return answer


def _until_end(text: str) -> str:
    """Return the text up to the first end of a message that has something before it."""
    end = _MESSAGE_END.search(text)
    while end is not None:
        if text[: end.start()].strip():
            return text[: end.start()]
        text = text[end.end() :]
        end = _MESSAGE_END.search(text)
    return text


def _without_thinking(text: str) -> str:
    """Return "[1, 2, 3, 4]" of "<think>A cat?</think>[1, 2, 3, 4]"."""
    outside: list[str] = []  # "a", "c" and "e" of "a<think>b</think>c<think>d</think>e"
    start, is_inside = 0, False
    for mark in _MARK.finditer(text):
        opens = mark["opens"] is not None
        if opens and not is_inside:
            outside.append(text[start : mark.start()])
        elif not is_inside:  # "a</think>b": the thinking was opened in the prompt
            outside = [""]
        start, is_inside = mark.end(), opens
    if is_inside:
        raise UnreadableReply(_ENDS_INSIDE, "only thinking")
    if start == 0:
        return text
    # What is before all thinking is left out, too: the answer comes after it. The mark between
    # two answers keeps them from being read as one.
    answer = " … ".join(part for part in [*outside[1:], text[start:]] if part.strip())
    if not answer:
        raise UnreadableReply("nothing follows the model's thinking", "only thinking")
    return answer


def _after_code(text: str) -> str:
    """Return what follows the code that Gemini ran, and its last result."""
    # A block of code, one of its result, and so on, then the answer (google-generativeai,
    # `response.text`)
    parts = text.split("```")  # in turn outside and inside of a block: blocks have the odd indices
    index_of_answer = 0
    for i in range(1, len(parts) - 3, 2):
        code, between, result, _answer = parts[i : i + 4]
        if _CODE.match(code) and not between.strip() and _RESULT.match(result):
            index_of_answer = i + 3
    answer = "```".join(parts[index_of_answer:])
    return answer if answer.strip() else text


def _contents_of_answer_tags(text: str) -> str:
    """Return "[1, 2]", then "Done.", of "I look. <answer>[1, 2]</answer> Done."."""
    if "<" not in text and "[TOOL_CALL]" not in text:
        return text
    tags = [match for match in _ANSWER.finditer(text) if match[1].strip()]
    answers = {match[1].strip() for match in tags}
    if len(answers) > 1:
        raise UnreadableReply("the reply has several answers in tags", "several answers")
    if not answers:
        return text
    answer = answers.pop()
    before = text[: tags[0].start()]
    after = text[tags[-1].end() :]
    draft = before.strip()
    # `strict_json` returns arrays and objects alone, and null is an answer, too.
    is_draft_an_answer = draft == "null" or strict_json(draft) is not None
    if is_draft_an_answer and draft != answer:
        raise UnreadableReply("the reply has several answers", "several answers")
    has_box = any(map(str.isdigit, answer))  # a box's numbers have digits
    if has_box:
        return f"{answer}\n{after}".strip()  # the words before are taken for thinking
    # The answer says that nothing is there. The words before it may contradict that.
    return f"{before}\n{answer}\n{after}".strip()
