"""Names that end in the SHA-256 of what they name: the one rule of the cold tier."""

import hashlib
import re

from dalsegno.errors import Refused, Unreadable

_HASH = re.compile(r"[0-9a-f]{64}$")
_MISNAMED = "the name of an object ends in the SHA-256 of its content"


def check_name(name: str) -> None:
    """Raises `Refused` for what cannot be such a name."""
    if not _HASH.search(name):
        raise Refused("invalid_request", _MISNAMED)


def is_named_after(name: str, content: bytes) -> bool:
    """Whether the name is this content's."""
    return name.endswith(hashlib.sha256(content).hexdigest())


def check(name: str, content: bytes) -> None:
    """Raises `Refused` for content that is to be kept under another's name."""
    if not is_named_after(name, content):
        raise Refused("invalid_request", _MISNAMED)


def verified(name: str, content: bytes) -> bytes:
    """The content as it was read. Raises `Unreadable` if it is not what the name says."""
    if not is_named_after(name, content):
        raise Unreadable(f"object {name} does not match the SHA-256 in its name")
    return content
