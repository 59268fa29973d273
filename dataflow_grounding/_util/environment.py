"""What the environment says, and the `.env` files that add to it; where the cache is.

A `.env` file gives settings, mostly keys. Its folder may be a stranger's, so such a file can set
little, and a key from another place never goes to an address that it names.
"""

import io
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from dataflow_grounding._util.errors import SpecError, errors_as
from dataflow_grounding._util.secrets import is_no_word, is_secret_variable, secrets_of
from dataflow_grounding._util.terminal import say

if TYPE_CHECKING:
    from dotenv.parser import Original

_told: set[str] = set()  # of what the user was warned: files, `/a/.env`, and lines, `/a/.env:3`


class _SetByFile(NamedTuple):
    value: str
    file: str


_set_by: dict[str, _SetByFile] = {}  # by the variable's name

_SETTABLE = re.compile(
    r"DF_(?!WORK_FOLDER$)\w+|\w+_(?:API_KEY|API_TOKEN|BASE_URL)|HF_TOKEN|OPENAI_(?:ORG|PROJECT)_ID|AZURE_OPENAI_ENDPOINT"
)
"""What a `.env` file may set: `DF_MODEL`, `OPENAI_API_KEY`, `GOOGLE_GEMINI_BASE_URL`, `HF_TOKEN` …

The file comes with a folder, perhaps a stranger's. A proxy, a CA file, `HF_ENDPOINT`, `AWS_*` or
`PYTHONPATH` could send the user's data to a stranger or run code; a folder in `DF_WORK_FOLDER` is
used as the copy of an address without asking.
"""
_SHORTEST = 8  # characters of a value that is looked for within a header


def cache_folder() -> str:
    """Return the package's cache folder, which may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    folder = home if os.path.isabs(home) else os.path.expanduser(os.path.join("~", ".cache"))
    return os.path.join(folder, "dataflow-grounding")


def read_env_files(folders: Iterable[str] = (".",)) -> list[str]:
    """Set variables that are missing from each folder's `.env`; return the paths of these files."""
    paths = []
    for folder in dict.fromkeys(folders):  # each once
        path = os.path.join(folder, ".env")
        if os.path.isfile(path):
            _add_settings(path)
            paths.append(path)
    return paths


def _add_settings(path: str) -> None:
    file = os.path.realpath(path)
    passed_over = []
    for name, setting in _settings(path).items():
        if name in os.environ:
            continue
        if not may_be_in_env_file(name):
            passed_over.append(name)
            continue
        if "${" in setting.value:
            raise SpecError(
                f"{path}, line {setting.line}: {name} holds ${{…}}, which is not filled in: write"
                " its value"
            )
        os.environ[name] = setting.value
        _set_by[name] = _SetByFile(setting.value, file)
    if passed_over:
        _warn_once(
            file,
            f"{path} does not set {', '.join(passed_over):.200}: a .env may set DF_* (but"
            " DF_WORK_FOLDER), *_API_KEY, *_API_TOKEN, *_BASE_URL and HF_TOKEN; set others in the"
            " environment",
        )


def _warn_once(file_or_line: str, warning: str) -> None:
    if file_or_line not in _told:
        _told.add(file_or_line)
        say(f"Warning: {warning}")


def may_be_in_env_file(name: str) -> bool:
    return _SETTABLE.fullmatch(name) is not None


def names_address(address: str) -> tuple[str, str] | None:
    """Return the first variable of a `.env` that names an address or a part of it, and the file."""
    # A spec may make an address of variables: `http://${oc.env:DF_PART}.host.org:8000/v1`.
    parts = urlsplit(address)
    host_and_port = parts.netloc
    if not host_and_port:
        return None
    dotted_host = f".{parts.hostname}."
    for name in _set_by:
        file = _file_of(name)
        value = os.environ.get(name, "")
        if not file or not value:  # no file set it to what it is now, or it is empty
            continue
        if value.isdecimal():
            is_part = host_and_port.endswith(f":{value}")
        else:
            # With dots around both, only whole parts are found: `ost.org` isn't in `.host.org.`.
            is_part = f".{value.strip('.').lower()}." in dotted_host
        if host_and_port in value or is_part:
            return name, file
    return None


def refuse_key_from_another_place(
    address: str, key: str | None, headers: Mapping[str, str]
) -> None:
    """Raise SpecError where a `.env` names the address and the key is from another place."""
    variable_and_file = names_address(address)
    if variable_and_file is None:
        return
    # A stranger's file could have the user's own key sent to its address.
    variable, file = variable_and_file
    # The file may have its own key sent to its address: the values that it set are left out.
    file_values = [os.environ[name] for name in _set_by if _file_of(name) == file]
    texts = [text for text in (key, *headers.values()) if text and text not in file_values]
    secret = _key_of_variable_in(texts)  # in words, for the message
    if not secret:
        secret = _secret_of_spec(key, headers, texts, file_values)
    if secret:
        raise SpecError(
            f"{variable} is set by {file}, and {secret} is not: a key goes to no address that"
            f" another place names. Put both into that file, or set {variable} in the environment,"
            " or base_url in the spec"
        )


def _key_of_variable_in(texts: list[str]) -> str:
    """`the key MY_API_KEY`, the first of the environment that is in the texts; else empty."""
    for name, content in os.environ.items():
        value = content.strip()
        is_secret = is_secret_variable(name)
        is_long = len(value) >= _SHORTEST
        if not is_secret and not is_long:
            continue
        if value in texts:
            return f"the key {name}"
        # A text may hold another value by accident.
        if is_secret and is_long and any(value in text for text in texts):
            return f"the key {name}"
    return ""


def _secret_of_spec(
    key: str | None, headers: Mapping[str, str], texts: list[str], file_values: list[str]
) -> str:
    """`the key` or `what the header NAME holds`, if the spec states a secret itself; else empty."""
    is_of_file = key not in texts
    # A key that may be a word is no secret: endpoints without keys may want any text, `EMPTY`.
    if key and not is_of_file and is_no_word(key):
        return "the key"
    for name, text in headers.items():
        # as in `Bearer KEY`, with the file's own key
        has_file_value = any(len(value) >= _SHORTEST and value in text for value in file_values)
        has_secret = any(map(is_no_word, secrets_of({name: text})))
        if has_secret and not has_file_value:
            return f"what the header {name} holds"
    return ""


def _file_of(name: str) -> str:
    """The `.env` file that set a variable to what it is now; empty if none did."""
    setting = _set_by.get(name)
    if setting is None or os.environ.get(name) != setting.value:
        return ""
    return setting.file


class _Setting(NamedTuple):
    value: str
    line: int  # where it is in its file


def _settings(path: str) -> dict[str, _Setting]:
    """What a file sets, by variable."""
    from dotenv.parser import parse_stream

    settings: dict[str, _Setting] = {}
    for binding in parse_stream(io.StringIO(_text_of(path))):
        line = _line_of(binding.original)
        if binding.error:
            # The line isn't shown, because it may hold a key.
            _warn_once(
                f"{os.path.realpath(path)}:{line}",
                f"{path}, line {line} is passed over: it should be NAME=value, quotes closed",
            )
        elif binding.key is not None and binding.value is not None:
            settings[binding.key] = _Setting(binding.value, line)
    return settings


def _line_of(original: "Original") -> int:
    """A binding begins with the empty lines above it, which don't count for its line."""
    text = original.string
    blank_beginning = text[: len(text) - len(text.lstrip())]
    return original.line + blank_beginning.count("\n")


def _text_of(path: str) -> str:
    """A file that isn't UTF-8, or has zeros, is refused: a key would be read wrongly."""
    with errors_as(SpecError, f"can't read {path}"), open(path, "rb") as file:
        data = file.read()
    bad_byte = data.find(b"\0")  # -1 without one
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad_byte = error.start
    if bad_byte >= 0:
        line = data.count(b"\n", 0, bad_byte) + 1
        raise SpecError(
            f"can't read {path}, line {line}: it is not a text in UTF-8; save it as one"
        )
    return text
