"""What is kept near, as bytes: a transcript, to be gone on with instead of reading its part of the log again, and what
a tool came to.

The bytes name what they are: the format, and whose they are. What is not whole, or not this, is nothing; whether the
log really has the event that a transcript ends with is for whoever reads the log to see.
"""

from datetime import timedelta

import msgspec

from dalsegno.core.context import Transcript
from dalsegno.core.ids import hash16

FORMAT = 3
"""Counts changes of how a log is folded (`core.context`) and of how the outcome is written here."""
CONTEXT = "context"
RESULT = "result"
CONTEXT_KEPT = timedelta(minutes=10)
WORTH_EVENTS = 200
"""Fewer are read from the log in less than 2 ms; to look for them elsewhere first is not worth it."""
WORTH_BYTES_MAX = 4 * 1024 * 1024
GROWN = 4
"""A transcript is frozen again when a quarter of it is new. So the next reader reads a quarter at most, and each event
is frozen some five times at most, however long the conversation becomes."""
DIGEST_BYTES = 16

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Transcript).decode


def worth(transcript: Transcript, *, near: int, least: int = WORTH_EVENTS) -> bool:
    """Whether whoever reads the log next would gain enough, when a transcript up to event `near` is kept already."""
    length, grown = transcript.head - transcript.through, transcript.head - near
    fits = least <= length and transcript.weight <= WORTH_BYTES_MAX and transcript.last is not None
    return fits and grown * GROWN >= length


def freeze(transcript: Transcript, *, tenant: str) -> bytes:
    """The transcript as it is now."""
    return seal(_encode(transcript), CONTEXT, tenant, transcript.session)


def thaw(content: bytes, *, tenant: str, session: str) -> Transcript | None:
    """The transcript that was frozen, to be added to; None for anything else."""
    body = unseal(content, CONTEXT, tenant, session)
    try:
        return None if body is None else _decode(body)
    except msgspec.MsgspecError:
        return None


def seal(body: bytes, *names: str) -> bytes:
    """The bytes behind a digest of them, of the names that they go by, and of today's format."""
    return hash16(str(FORMAT), *names, body) + body


def unseal(content: bytes, *names: str) -> bytes | None:
    """The bytes that were sealed under these names; None for anything else."""
    body = content[DIGEST_BYTES:]
    return body if content[:DIGEST_BYTES] == hash16(str(FORMAT), *names, body) else None
