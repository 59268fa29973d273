"""The reviewed records next to annotations, and the digest of the annotations they were made of."""

import hashlib
import os

from dataflow_grounding.data.rows import write_text


def reviewed_path(annotations: str) -> str:
    return f"{annotations.removesuffix('.jsonl')}.reviewed.jsonl"


def note_source(annotations: str, digest: str) -> None:
    """Note of which annotations the reviewed records next to them were made, as sha256sum does."""
    write_text(_note_path(annotations), f"{digest}  {os.path.basename(annotations)}\n")


def are_as_reviewed(annotations: str) -> bool:
    """Return whether the reviewed records were made of just these annotations."""
    try:
        with open(_note_path(annotations), "rb") as file:
            noted = file.read(64)
    except OSError:
        return False
    return noted == str(digest_of(annotations)).encode()


def _note_path(annotations: str) -> str:
    return f"{reviewed_path(annotations).removesuffix('.jsonl')}.sha256"


def digest_of(path: str) -> str | None:
    """Return the SHA-256 of a file's bytes in hex; None for what is no file or can't be read."""
    if not os.path.isfile(path):  # a pipe may never end
        return None
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()
