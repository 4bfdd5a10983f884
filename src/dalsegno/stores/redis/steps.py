"""Open steps in the words of the scripts: what they are called with and what they reply. Nothing here waits."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from dalsegno.core.stream import Piece
from dalsegno.ports import Batch, OpenStep, Ref
from dalsegno.stores.redis.line import Word
from dalsegno.stores.redis.scripts import Script, scripts

STEP_BYTES_MAX = 8 * 1024 * 1024
PIECES_AT_ONCE = 500
"""A script's stack is bounded, and others wait while it runs."""

_Shown = tuple[int, int, list[bytes]]
"""Epoch, base and pieces."""
Asked = tuple[Script, Sequence[Word]]
"""A script and its arguments."""


class Steps:
    """Asks for open steps and understands the answers."""

    def __init__(self, namespace: str, lifetime: timedelta) -> None:
        self._namespace = namespace
        self._ttl = max(1, round(lifetime.total_seconds() * 1000))
        self._scripts = scripts("redis_hot")
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Piece).decode

    def key(self, ref: Ref) -> bytes:
        """Where the session's open step is. The braces keep all that a session has in one slot of a cluster."""
        return f"{self._namespace}:{{{ref.tenant}/{ref.id}}}:step".encode()

    def publish(self, portion: Sequence[Batch]) -> Asked:
        """Keep what continues these steps: one of the `portions`."""
        words: list[Word] = [self._ttl, STEP_BYTES_MAX]
        for _, epoch, pieces in portion:
            words += (epoch, len(pieces))
            for piece in pieces:
                words += (piece.base, piece.at, piece.end, self._encode(piece))
        return self._scripts["publish"], words

    def fence(self, epoch: int) -> Asked:
        """Raise the fence and show what is there."""
        return self._scripts["fence"], (epoch, self._ttl)

    def read(self, base: int, after: int) -> Asked:
        """The open step; of the one with that `base` what ends after `after`."""
        return self._scripts["read"], (base, after)

    def clear(self, epoch: int) -> Asked:
        """Forget the pieces; the fence stays."""
        return self._scripts["clear"], (epoch, self._ttl)

    def shown(self, reply: Any, *, base: int = 0, after: int = 0) -> OpenStep | None:
        """What a script has shown."""
        if reply is None:
            return None
        try:
            epoch, found, bodies = msgspec.convert(reply, _Shown)
            known = after if found == base else 0
            pieces = tuple(piece for piece in map(self._decode, bodies) if piece.end > known)
        except msgspec.MsgspecError:
            # Another version's pieces, or damaged ones: as good as lost.
            return None
        return OpenStep(found, epoch, pieces)


def portions(batches: Sequence[Batch]) -> Iterator[list[Batch]]:
    """The same in calls that each take no more than `PIECES_AT_ONCE`; a session comes once in each."""
    portion, room = list[Batch](), PIECES_AT_ONCE
    for ref, epoch, pieces in batches:
        if not room:
            yield portion
            portion, room = [], PIECES_AT_ONCE
        while len(pieces) > room:
            yield [*portion, Batch(ref, epoch, pieces[:room])]
            portion, pieces, room = [], pieces[room:], PIECES_AT_ONCE
        portion.append(Batch(ref, epoch, pieces))
        room -= len(pieces)
    if portion:
        yield portion
