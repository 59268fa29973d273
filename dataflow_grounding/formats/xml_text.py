"""XML as texts, for formats that write it and keep parts of it."""

import re
from xml.etree.ElementTree import Element, ParseError, fromstring, tostring

from dataflow_grounding._util.errors import InputError

# A character that XML can't hold, such as a control character.
_NOT_XML = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def safe_for_xml(text: str) -> str:
    return _NOT_XML.sub("", text)


def element_of(xml: str) -> Element:
    """Return the element that a text is, as `text_of` wrote it. Raises InputError."""
    try:
        return fromstring(xml)
    except (ParseError, TypeError, ValueError):
        raise InputError(f"what a record keeps of its file is not XML: {xml!r:.80}") from None


def text_of(element: Element) -> str:
    """Return an element as text, without its tail, which it loses."""
    element.tail = None
    return tostring(element, encoding="unicode", short_empty_elements=False)
