"""Names of things: how they are spelled and which of them follow from others. Random ones are made outside the core.

A session is named by 128 random bits. Turns, items and effect keys are *derived* from the session's log, so that every
replica, every attempt and every fork computes the same name, and nothing has to be stored to find a turn by its id.
"""

import base64
import hashlib
import re
from functools import lru_cache

from dalsegno.errors import Refused

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HEX = re.compile(r"[0-9a-f]{32}")
SESSION_NAME_BYTES_MAX = 1024


def parse_session_id(text: str) -> str:
    """The canonical spelling (lower case, 36 characters) of a session id that a client gave.

    Raises `Refused("invalid_request")` for anything that is not a UUID.
    """
    lowered = text.lower()
    if _UUID.fullmatch(lowered):
        return lowered
    if _HEX.fullmatch(lowered):
        return _dashed(lowered)
    raise Refused("invalid_request", "a session id is a UUID, as in 0198f0c2-7d1e-7c3a-9b52-5f0d4f6f1a2b")


def session_named(name: str) -> str:
    """The id of the session that somebody outside calls `name`: the id itself, or the UUIDv8 that the name stands for.

    Raises `Refused("invalid_request")` for a name that is empty, or longer than 1,024 bytes, or no Unicode text.
    """
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raise Refused("invalid_unicode", "a session's name holds a lone surrogate") from None
    if not 0 < len(raw) <= SESSION_NAME_BYTES_MAX:
        raise Refused("invalid_request", f"a session's name has 1 to {SESSION_NAME_BYTES_MAX} bytes")
    if _UUID.fullmatch(name.lower()) or _HEX.fullmatch(name.lower()):
        return parse_session_id(name)
    return _v8(hashlib.blake2b(b"session/" + raw, digest_size=16).hexdigest())


@lru_cache(maxsize=4096)
def turn_id(session: str, first: int) -> str:
    """The id of the turn whose `turn.created` has the number `first`: UUIDv8, the last 32 bits are that number."""
    digest = hashlib.blake2b(f"turn/{session}/{first}".encode(), digest_size=12).hexdigest()
    return _v8(f"{digest}{first:08x}")


def turn_number(session: str, turn: str) -> int | None:
    """The `first` of a turn id, or None when no turn of this session can have that id."""
    lowered = turn.lower()
    if not _UUID.fullmatch(lowered):
        return None
    first = int(lowered[-8:], 16)
    return first if turn_id(session, first) == lowered else None


def item_id(turn: str, kind: str, number: str) -> str:
    """The id of an item of a turn: `number` is its place, as in `2_1` (epoch, count within the attempt)."""
    prefix = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}.get(kind, "it")
    return f"{prefix}_{turn[:8]}{int(turn[28:], 16):x}_{number}"


def effect_key(tenant: str, session: str, turn: str, call_id: str) -> str:
    """The key of a tool call (law 5): a function of the recorded decision and of nothing else. 22 characters."""
    return short_hash("effect", tenant, session, turn, call_id)


def undo_key(key: str) -> str:
    """The key under which the call of that key is undone: as stable, and another one."""
    return short_hash("undo", key)


def undone_digest(key: str) -> bytes:
    """What the log knows the call of that key under once it has been undone."""
    return hash16("undone", key)


def short_hash(*parts: str | bytes) -> str:
    """128 bits of a hash over parts whose borders count, in 22 URL-safe characters."""
    return base64.urlsafe_b64encode(hash16(*parts)).rstrip(b"=").decode()


def hash16(*parts: str | bytes) -> bytes:
    """16 bytes that name a sequence of parts; (`ab`, `c`) and (`a`, `bc`) differ."""
    raws = [part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part for part in parts]
    bordered = b"".join([len(raw).to_bytes(8, "big") + raw for raw in raws])
    return hashlib.blake2b(bordered, digest_size=16).digest()


def _v8(digits: str) -> str:
    return _dashed(f"{digits[:12]}8{digits[13:16]}{'89ab'[int(digits[16], 16) % 4]}{digits[17:]}")


def _dashed(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
