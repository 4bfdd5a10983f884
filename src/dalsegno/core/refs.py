"""The values that ports speak in: which session, which page, which replica, what may have happened."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from dalsegno.core.json import JsonObject
from dalsegno.core.session import Session
from dalsegno.core.stream import Piece


class Ref(msgspec.Struct, frozen=True):
    """Which session. A tenant is part of the name: another tenant's session does not exist."""

    tenant: str
    id: str


class Query(msgspec.Struct, frozen=True):
    """A page of a tenant's sessions, in order of id, after a given one."""

    after: str = ""
    limit: int = 100
    status: Literal["", "idle", "running", "waiting"] = ""
    user: str | None = None
    metadata: JsonObject = {}


class Page(msgspec.Struct, frozen=True):
    """Sessions, and the id to continue after when there may be more."""

    sessions: tuple[Session, ...]
    next: str | None = None


class Member(msgspec.Struct, frozen=True):
    """A replica as its peers see it. `id` is stable, `incarnation` differs each time the process starts."""

    incarnation: str
    id: str
    pid: int = 0
    url: str = ""


class Hint(msgspec.Struct, frozen=True, omit_defaults=True, array_like=True):
    """Something may have happened to a session: look. Hints may be lost, doubled or late; a poll is behind each.

    `head` is the session's last event as far as the sender knows, `units` the open step's, `ready` that it has work.
    A hint with units may carry what it tells of: the open step's last `pieces`, published under `epoch`. Then `head` is
    their base.
    """

    tenant: str
    session: str
    head: int = 0
    units: int = 0
    ready: bool = False
    epoch: int = 0
    pieces: tuple[Piece, ...] = ()


class Batch(NamedTuple):
    """Pieces of one session's open step, published under `epoch`."""

    ref: Ref
    epoch: int
    pieces: Sequence[Piece]


class OpenStep(msgspec.Struct, frozen=True):
    """What is known of a session's open step: contiguous pieces from its first unit on."""

    base: int
    epoch: int
    pieces: tuple[Piece, ...]
