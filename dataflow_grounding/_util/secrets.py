"""Keys and passwords: what the process knows of them, and texts without them.

Whoever is given a secret calls `learn`. Text from outside passes `blotted` or the like before it is
written or printed: known secrets are replaced by `***`. A secret that may be a word of a caption
("secret" itself, say) would blot innocent text; so it is blotted only out of error texts.
"""

import base64
import json
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

BLOT = "***"  # what replaces a secret

_SHORTEST = 4  # characters of a secret; what is shorter would blot innocent text
_SHORTEST_KEY = 12  # characters of what is taken for a key where none is expected
_SHORTEST_DIGITS = 12  # characters of a secret without letters that is no word
_SHORTEST_MIXED = 8  # of one with letters and what no word has
_SHORTEST_LONG = 20  # of any other that is no word, if it holds no blank

# Names of secrets, in lower case: `api_key`, `access_token`, `x-auth-token`, `sas`; but not
# `cache_key`, `keyword`, `max_tokens` or `author`.
_SECRET_NAME = re.compile(
    r"(?<!cache[_-])key(?!word|point|frame|phrase)|token(?!s|i[sz])|secret|passw|passphrase|pwd|auth(?!or(?!i))"
    r"|credential|cookie|signature|bearer|jwt|(?<![a-z])(?:sig|sas|pass)(?![a-z])"
)
# Names of headers that hold no secret: `HTTP-Referer`, `User-Agent`, `Accept`.
_PLAIN_HEADER = re.compile(
    "title|refer|agent|accept|content|version|organi[sz]ation|project", re.IGNORECASE
)
# Keys as some providers shape them: `sk-…`, `hf_…`, `ghp_…`, `AKIA…`, and JSON web tokens, `eyJ…`.
_KEY_SHAPE = re.compile(
    r"(?<![\w-])(?:(?:sk|pk|rk|nvapi|gsk|xai)-|hf_|gh[opsu]_|AKIA|AIza|eyJ)[\w-]{5,}"
)
# Values of a secret's setting, in lower case, that are none.
_NO_SECRETS = ("true", "false", "none", "null", "empty", "bearer", "basic")
# The name and password of an address, with the `@` after them: `user:password@` of
# `https://user:password@host`. A store's password may have slashes. Its `@` is looked for in 512
# characters: else each `://` of a long text would be followed by a search of all the rest.
_USER = re.compile(r"""(?<=://)(?:[^/?#\s"']*|(?!arn:)[^/?#\s"':@]+:(?!\d+/)[^?#\s"'@]{1,512})@""")
# A parameter of an address, its name and value: `key=abc` of `https://host/?key=abc.`
_PARAMETER = re.compile(r"""(?<=[?&])([\w.~%-]+)=([^&\s"'\\#<>()]*[^&\s"'\\#<>().,:])""")
# A setting that refers to a variable: `${oc.env:KEY}`, `Bearer ${oc.env:KEY}`.
_REFERENCE = re.compile(r"(?:\w+ )?\$\{oc\.env:\w+\}")

_forms: dict[str, tuple[str, ...]] = {}
"""Secrets as they are, and as JSON and addresses write them, the longest first: under `word` those
that may be words of a caption, under `odd` all others.
"""
_learning = threading.Lock()  # held while `_forms` is changed


def learn(*values: object) -> None:
    """Remember keys and tokens; those that look like words are blotted only out of error texts."""
    for value in values:
        if not isinstance(value, str):
            continue
        if len(value) >= _SHORTEST and value.lower() not in _NO_SECRETS:
            _learn_forms(value)


def _learn_forms(secret: str) -> None:
    shape = "odd" if is_no_word(secret) else "word"  # the keys of `_forms`
    if secret in _forms.get(shape, ()):
        return  # the token that goes with each request is learnt again with each
    in_json = json.dumps(secret)[1:-1]  # without the quotes around it
    in_address = quote(secret, safe="")
    forms = {secret, in_json, in_address}
    with _learning:  # without the lock, what another thread learns meanwhile would be lost
        forms_before = _forms.get(shape, ())
        _forms[shape] = tuple(sorted({*forms_before, *forms}, key=len, reverse=True))


def learn_headers(headers: Mapping[str, object]) -> None:
    for name, value in headers.items():
        if not isinstance(value, str):
            continue
        # Split at blanks and commas, and at a `=` between two texts: `Basic user=abc` has `Basic`,
        # `user` and `abc`.
        pieces = [value, *re.split(r"[\s,;]+|(?<=\w)=(?=[^\s=])", value)]
        if names_secret(name):  # `Authorization`
            learn(pieces[-1], *filter(is_no_word, pieces))
        elif not _PLAIN_HEADER.search(name):  # `X-Tenant`
            for piece in pieces:
                if is_no_word(piece) and len(piece) >= _SHORTEST_KEY and "://" not in piece:
                    learn(piece)


def texts_in(value: Any, secret: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield the texts of JSON at any depth, each with whether it is under a secret's name."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from texts_in(item, secret or names_secret(str(name)))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts_in(item, secret)
    elif isinstance(value, str):
        yield value, secret


def learn_fields(value: Any, secret: bool = False) -> None:
    """Remember the texts of JSON under a secret's name, and all that has the shape of a key."""
    for text, is_named_secret in texts_in(value, secret):
        if is_named_secret:
            learn(text)
        else:
            learn(*_keys_in(text))


def learn_address(url: str) -> str:
    """Remember the secrets in an address, and return it without them, to be shown."""
    for name, value in _PARAMETER.findall(url):
        if _is_secret_parameter(name):
            learn(value, unquote(value))
    after_scheme = url.partition("://")[2]
    host = re.split("[/?#]", after_scheme, maxsplit=1)[0]  # with a name and password before `@`
    path_and_query = after_scheme.removeprefix(host)
    learn(*_keys_in(path_and_query))
    _learn_user(host)
    return blotted_message(url)


def learn_proxies() -> None:
    """Remember the passwords of the proxies that the environment names."""
    from urllib.request import getproxies

    for name, url in getproxies().items():
        if name != "no":  # that one holds the hosts that no proxy is for
            _learn_user(url.rpartition("://")[2])


def _learn_user(host: str) -> None:
    """`user:password@host`; without an `@` nothing of it is secret."""
    credentials, at, _ = host.rpartition("@")
    if not at:
        return
    user, _, password = map(unquote, credentials.partition(":"))
    secret = password or user  # a token may be all that is before the `@`
    # as a header has it, `Authorization: Basic …`
    in_header = base64.b64encode(f"{user}:{password}".encode()).decode()
    learn(secret, credentials, in_header)


def _keys_in(text: str) -> list[str]:
    keys: list[str] = []
    for key in _KEY_SHAPE.findall(text):
        if len(key) >= _SHORTEST_KEY and re.search("[0-9]", key):
            keys.append(key)
    return keys


def names_secret(name: str) -> bool:
    """Return whether a key, header or variable of this name holds a secret."""
    return _SECRET_NAME.search(name.lower()) is not None


def is_secret_variable(name: str) -> bool:
    return names_secret(name) and name not in ("PWD", "OLDPWD")


def _is_secret_parameter(name: str) -> bool:
    return names_secret(name) or name.lower() == "code"  # Azure's functions take their key so


def is_no_word(value: str) -> bool:
    """Return whether a text can't be a word: `sk-abc123`, but not `secret`, `iPhone`, `12345`."""
    has_key_shape = _KEY_SHAPE.fullmatch(value) is not None
    is_long = len(value) >= _SHORTEST_LONG and " " not in value
    if has_key_shape or is_long:
        return True
    if not re.search("[A-Za-z]", value):
        return len(value) >= _SHORTEST_DIGITS
    if len(value) < _SHORTEST_MIXED:
        return False
    # One change of case is in words, too: `iPhone`, `YouTube`.
    has_mixed_case = len(re.findall("[a-z][A-Z]", value)) > 1
    # a digit, or a sign that captions and paths hardly have
    has_digit_or_sign = re.search(r"[^A-Za-z\s./:,'_-]", value) is not None
    return has_mixed_case or has_digit_or_sign


def _without_known(shape: str, text: str) -> str:
    """Replace the known secrets of a shape, `odd` or `word`."""
    for form in _forms.get(shape, ()):
        text = text.replace(form, BLOT)
    return text


def blotted(text: str) -> str:
    """Return a text, even a record's own, without known secrets; those that may be words stay."""
    return _without_known("odd", text) if text else text


def blotted_message(text: str) -> str:
    """Return a text for people without known secrets, and without those of addresses in it."""
    text = _without_known("odd", text)
    if "://" in text:
        text = _USER.sub(f"{BLOT}@", text)
        text = _PARAMETER.sub(_blotted_parameter, text)
    return text


def _blotted_parameter(parameter: re.Match[str]) -> str:
    name = parameter[1]
    return f"{name}={BLOT}" if _is_secret_parameter(name) else parameter[0]


def excerpt(text: str, most: int = 300) -> str:
    """Return the start of what an endpoint or a library said, in one line, without any secret."""
    # Also without those that may be words: an error may repeat the key that was sent.
    line = _without_known("word", blotted_message(" ".join(text.split())))
    return line[:most]  # it is cut last: half a key would not be recognised


def words_of(error: BaseException) -> str:
    return excerpt(f"{error}", 200) or type(error).__name__


def masked(value: Any, secret: bool = False, ours: bool = True) -> Any:
    """Return settings without secrets; where they aren't `ours`, names that sound secret count."""
    if isinstance(value, Mapping):
        inside = {}
        for name, item in value.items():
            is_secret = secret or _is_secret_setting(str(name), ours)
            # The user names what is in these.
            is_ours = ours and name not in ("extra", "extra_body", "settings")
            inside[name] = masked(item, is_secret, is_ours)
        return inside
    if isinstance(value, (list, tuple)):
        return [masked(item, secret, ours) for item in value]
    if secret:
        return _masked_secret(value)
    return blotted_message(value) if isinstance(value, str) else value


def _is_secret_setting(name: str, ours: bool) -> bool:
    return name in ("api_key", "extra_headers") if ours else names_secret(name)


def _masked_secret(value: Any) -> Any:
    if isinstance(value, str):
        # `${oc.env:KEY}` is kept
        shows_nothing = value == "" or _REFERENCE.fullmatch(value) is not None
        return value if shows_nothing else BLOT
    # A password may be a number; true, false and null are none.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return BLOT if is_number else value
