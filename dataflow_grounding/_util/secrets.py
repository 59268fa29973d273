"""Keys and passwords: what the process knows of them, and texts without them.

Whoever is given a secret calls `learn`; text from outside passes `blotted` or the like before it is
written or printed.
"""

import base64
import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

BLOT = "***"

_SECRET_NAME = re.compile(
    r"(?<!cache[_-])key(?!word|point|frame|phrase)|token(?!s|i[sz])|secret|passw|passphrase|pwd|auth(?!or(?!i))"
    r"|credential|cookie|signature|bearer|jwt|(?<![a-z])(?:sig|sas|pass)(?![a-z])"
)
_PLAIN_HEADER = re.compile(
    "title|refer|agent|accept|content|version|organi[sz]ation|project", re.IGNORECASE
)
_KEY_SHAPE = re.compile(
    r"(?<![\w-])(?:(?:sk|pk|rk|nvapi|gsk|xai)-|hf_|gh[opsu]_|AKIA|AIza|eyJ)[\w-]{5,}"
)
_NO_SECRETS = ("true", "false", "none", "null", "empty", "bearer", "basic")
# a store's password has slashes; with an end, as each `://` of a text looks for its own `@`
_USER = re.compile(r"""(?<=://)(?:[^/?#\s"']*|(?!arn:)[^/?#\s"':@]+:(?!\d+/)[^?#\s"'@]{1,512})@""")
_PARAMETER = re.compile(r"""(?<=[?&])([\w.~%-]+)=([^&\s"'\\#<>()]*[^&\s"'\\#<>().,:])""")
_REFERENCE = re.compile(r"(?:\w+ )?\$\{oc\.env:\w+\}")

_forms: dict[str, tuple[str, ...]] = {}
"""Secrets as JSON, Python and addresses write them, the longest first: the `odd` ones and those
like a `word`.
"""
_learning = threading.Lock()


def learn(*values: object) -> None:
    """Remember keys and tokens of four characters or more; word-like ones only blot an endpoint's
    error texts.
    """
    for value in values:
        if isinstance(value, str) and len(value) >= 4 and value.lower() not in _NO_SECRETS:
            kind, text = "odd" if is_no_word(value) else "word", json.dumps(value)[1:-1]
            if value in _forms.get(kind, ()):  # as the token that goes with each request
                continue
            forms = {
                value,
                text,
                text.replace("/", "\\/"),
                repr(value)[1:-1],
                quote(value, safe=""),
            }
            with _learning:
                _forms[kind] = tuple(sorted({*_forms.get(kind, ()), *forms}, key=len, reverse=True))


def learned() -> list[str]:
    """All that is remembered, for another process of this machine."""
    return [form for forms in list(_forms.values()) for form in forms]


def learn_headers(headers: Mapping[str, object]) -> None:
    """Remember what headers hold, as `secrets_of` tells it."""
    learn(*secrets_of(headers))


def secrets_of(headers: Mapping[str, object]) -> Iterator[str]:
    """What headers hold in secrets: of one whose name says so, its value; of others, what is long
    and no word.
    """
    for name, value in headers.items():
        if not isinstance(value, str):
            continue
        pieces = [value, *re.split(r"[\s,;]+|(?<=\w)=(?=[^\s=])", value)]
        if names_secret(name):
            yield from (pieces[-1], *filter(is_no_word, pieces))
        elif not _PLAIN_HEADER.search(name):
            yield from (
                piece
                for piece in pieces
                if is_no_word(piece) and len(piece) >= 12 and "://" not in piece
            )


def texts_in(value: Any, secret: bool = False) -> Iterator[tuple[str, bool]]:
    """The texts of JSON at any depth, each with whether a secret's name stands over it."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from texts_in(item, secret or names_secret(str(name)))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_in(item, secret)
    elif isinstance(value, str):
        yield value, secret


def learn_fields(value: Any, secret: bool = False) -> None:
    """Remember, of JSON, the values under a secret's name, at any depth, and whatever has the shape
    of a key.
    """
    for text, named in texts_in(value, secret):
        learn(*([text] if named else _keys_in(text)))


def learn_address(url: str) -> str:
    """The address as it may be shown, without what it holds in secrets, which are remembered."""
    for name, value in _PARAMETER.findall(url):
        if _is_secret_parameter(name):
            learn(value, unquote(value))
    place, _, path = re.split("[?#]", url.partition("://")[2])[0].partition("/")
    learn(*_keys_in(path))
    _learn_user(place)
    return blotted_message(url)


def learn_proxies() -> None:
    """Remember the passwords of the proxies that the environment names, also as a proxy is told
    them.
    """
    from urllib.request import getproxies

    for name, url in getproxies().items():
        if name != "no":
            _learn_user(url.rpartition("://")[2])


def _learn_user(place: str) -> None:
    """Name and password of `name:password@host`, also as a header holds them."""
    given, at, _ = place.rpartition("@")
    user, _, password = map(unquote, given.partition(":"))
    if at:
        learn(password or user, given, base64.b64encode(f"{user}:{password}".encode()).decode())


def _keys_in(text: str) -> list[str]:
    """What has the shape of a key, in a place where none is expected."""
    return [key for key in _KEY_SHAPE.findall(text) if len(key) >= 12 and re.search("[0-9]", key)]


def names_secret(name: str) -> bool:
    """Whether a key, header or variable of this name holds a secret: `api_key`, `X-Auth-Token`, …;
    not `max_tokens`.
    """
    return _SECRET_NAME.search(name.lower()) is not None


def is_secret_variable(name: str) -> bool:
    """Whether a variable of the environment holds a secret by its name: a shell's PWD is the folder
    that it is in.
    """
    return names_secret(name) and name not in ("PWD", "OLDPWD")


def _is_secret_parameter(name: str) -> bool:
    return names_secret(name) or name.lower() == "code"  # Azure's functions take their key so


def is_no_word(value: str) -> bool:
    """Whether a secret is so odd or long that it can't be a word of a caption or a path."""
    if _KEY_SHAPE.fullmatch(value) or (len(value) >= 20 and " " not in value):
        return True
    if not re.search("[A-Za-z]", value):
        return len(value) >= 12
    mixed = (
        len(re.findall("[a-z][A-Z]", value)) > 1
        or re.search(r"[^A-Za-z\s./:,'_-]", value) is not None
    )
    return mixed and len(value) >= 8


def _without(kind: str, text: str) -> str:
    for form in _forms.get(kind, ()):
        text = text.replace(form, BLOT)
    return text


def blotted(text: str) -> str:
    """`text`, which may be a record's own data, without the secrets that can't be words."""
    return _without("odd", text) if text else text


def blotted_message(text: str) -> str:
    """A text for people without secrets, and without the passwords and keys of addresses in it."""
    text = _without("odd", text)
    if "://" in text:
        text = _USER.sub(f"{BLOT}@", text)
        text = _PARAMETER.sub(
            lambda m: f"{m[1]}={BLOT}" if _is_secret_parameter(m[1]) else m[0], text
        )
    return text


def excerpt(text: str, most: int = 300) -> str:
    """The beginning of what an endpoint or a library said, on one line, without any secret."""
    line = _without("word", blotted_message(" ".join(text.split())))
    return line[:most]  # only now: half a key would not be recognised


def masked(value: Any, secret: bool = False, ours: bool = True) -> Any:
    """Settings as they may be written: what is secret is blotted out, but for references
    (`${oc.env:KEY}`).

    Of `ours` that is `api_key` and `extra_headers`; in `extra_body` and a pipeline's own `settings`
    the names tell.
    """
    if isinstance(value, Mapping):
        inside = {}
        for name, item in value.items():
            named = name in ("api_key", "extra_headers") if ours else names_secret(str(name))
            inside[name] = masked(
                item, secret or named, ours and name not in ("extra_body", "settings")
            )
        return inside
    if isinstance(value, (list, tuple)):
        return [masked(item, secret, ours) for item in value]
    if isinstance(value, str):
        if not secret:
            return blotted_message(value)
        return value if not value or _REFERENCE.fullmatch(value) else BLOT
    return (
        BLOT
        if secret and isinstance(value, (int, float)) and not isinstance(value, bool)
        else value
    )
