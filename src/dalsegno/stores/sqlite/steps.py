"""Open steps as rows of the hot tier's file. Every method works inside the transaction of the cursor it is given."""

import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import msgspec

from dalsegno.core.stream import Piece
from dalsegno.ports import OpenStep, Ref
from dalsegno.stores import sqlfile
from dalsegno.stores.sqlite.file import clock_ms

STEP_BYTES_MAX = 8 * 1024 * 1024
TOUCHES = 16
"""How often, at most, a step's life is prolonged in the time of one."""
NEAR_MAX = 10_000
"""How many steps a process remembers as it left them."""


class Step(msgspec.Struct):
    """A session's open step; see the table. `n` is 0 while it has no row."""

    n: int = 0
    epoch: int = 0
    author: int = 0
    base: int = 0
    until: int = 0
    size: int = 0
    expires: int = 0


class Steps:
    """Reads and writes open steps: contiguous pieces behind a fence, which expire when nobody touches them."""

    def __init__(self, lifetime: timedelta) -> None:
        sql = sqlfile.statements("sqlite_hot")
        self._sql = sql
        self._find, self._add, self._set = sql["step_find"], sql["step_add"], sql["step_set"]
        self._extend, self._piece_put, self._piece_read = sql["step_extend"], sql["piece_put"], sql["piece_read"]
        self._near: dict[Ref, Step] = {}
        """Steps as this process left them; whether they are still so is asked by the statement that goes on from there.
        """
        self._ttl = max(1, round(lifetime.total_seconds() * 1000))
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[Piece]).decode

    def publish(self, cursor: sqlite3.Cursor, ref: Ref, epoch: int, pieces: Sequence[Piece]) -> bool:
        """Keep what continues the step. False: a newer epoch has been here."""
        if self._go_on(cursor, ref, epoch, pieces):
            return True
        step = self._step(cursor, ref)
        if epoch < step.epoch:
            return False
        if pieces and epoch > step.author:
            goes_on = epoch == step.epoch and (pieces[0].base, pieces[0].at) == (step.base, step.until)
            if not goes_on:
                self._forget(cursor, step, base=0)
            step.author = epoch
        step.epoch = epoch
        fresh = self._fitting(cursor, step, pieces)
        body = self._encode(fresh) if fresh else b""
        if step.size + len(body) > STEP_BYTES_MAX:
            fresh = []
        if fresh:
            step.until, step.size = fresh[-1].end, step.size + len(body)
        self._write(cursor, ref, step)
        if fresh:
            cursor.execute(self._piece_put, (step.n, fresh[0].at, step.until, body))
        if len(self._near) >= NEAR_MAX:
            self._near.clear()
        self._near[ref] = step
        return True

    def _go_on(self, cursor: sqlite3.Cursor, ref: Ref, epoch: int, pieces: Sequence[Piece]) -> bool:
        """The usual case, without a look: pieces that continue the step where this process left it. False: look."""
        step = self._near.get(ref)
        if step is None or step.epoch != epoch or self._is_due(step):
            return False
        at = until = step.until
        for piece in pieces:
            if piece.base != step.base or piece.at != until:
                return False
            until = piece.end
        body = self._encode(pieces)
        size = step.size + len(body)
        if until == at or size > STEP_BYTES_MAX:
            return False
        as_left = (step.n, ref.tenant, ref.id, step.epoch, step.author, step.base, at)
        if cursor.execute(self._extend, (until, size, *as_left)).rowcount != 1:
            return False
        cursor.execute(self._piece_put, (step.n, at, until, body))
        step.until, step.size = until, size
        return True

    def fence(self, cursor: sqlite3.Cursor, ref: Ref, epoch: int) -> OpenStep | None | Literal["stale"]:
        """Raise the fence and show what is there."""
        step = self._step(cursor, ref)
        if epoch < step.epoch:
            return "stale"
        step.epoch = epoch
        self._write(cursor, ref, step)
        return self._shown(cursor, step, 0)

    def read(self, cursor: sqlite3.Cursor, ref: Ref, base: int, after: int) -> OpenStep | None:
        """The open step; of the one with that `base` what ends after `after`."""
        step = self._step(cursor, ref)
        return self._shown(cursor, step, after if step.base == base else 0)

    def clear(self, cursor: sqlite3.Cursor, ref: Ref, epoch: int) -> None:
        """Forget the pieces; the fence stays."""
        self._near.pop(ref, None)
        step = self._step(cursor, ref)
        if step.n and epoch >= step.epoch:
            self._forget(cursor, step, base=step.base)
            step.epoch = epoch
            self._write(cursor, ref, step)

    def sweep(self, cursor: sqlite3.Cursor) -> None:
        """Remove some of what has expired."""
        gone = cursor.execute(self._sql["step_sweep"], {"clock": clock_ms(), "ttl": self._ttl}).fetchall()
        cursor.executemany(self._sql["piece_forget"], gone)

    def _step(self, cursor: sqlite3.Cursor, ref: Ref) -> Step:
        row = cursor.execute(self._find, (ref.tenant, ref.id)).fetchone()
        if row is None:
            return Step()
        n, epoch, author, base, until, size, expires, ttl = row
        if not expires - ttl <= clock_ms() < expires:
            # Expired, or of before the machine was started again. Its pieces go with the first that is published.
            return Step(n=n)
        return Step(n, epoch, author, base, until, size, expires)

    def _shown(self, cursor: sqlite3.Cursor, step: Step, after: int) -> OpenStep | None:
        if not step.n or not step.until:
            return None
        rows = cursor.execute(self._piece_read, (step.n, after)).fetchall()
        try:
            pieces = [piece for (body,) in rows for piece in self._decode(body) if piece.end > after]
        except msgspec.MsgspecError:
            # Another version's pieces, or damaged ones: as good as lost.
            return None
        return OpenStep(step.base, step.epoch, tuple(pieces))

    def _fitting(self, cursor: sqlite3.Cursor, step: Step, pieces: Sequence[Piece]) -> list[Piece]:
        """What continues the step without a gap; a newer step's pieces replace it."""
        fresh: list[Piece] = []
        until = step.until
        for piece in pieces:
            if piece.base > step.base:
                self._forget(cursor, step, base=piece.base)
                fresh, until = [], 0
            if piece.base == step.base and piece.at == until and piece.end > until:
                fresh.append(piece)
                until = piece.end
        if not step.until and step.n:
            # What an expired step has left behind.
            cursor.execute(self._sql["piece_forget"], (step.n,))
        return fresh

    def _forget(self, cursor: sqlite3.Cursor, step: Step, *, base: int) -> None:
        if step.n and step.until:
            cursor.execute(self._sql["piece_forget"], (step.n,))
        step.base, step.until, step.size = base, 0, 0

    def _write(self, cursor: sqlite3.Cursor, ref: Ref, step: Step) -> None:
        values = (step.epoch, step.author, step.base, step.until, step.size)
        if not step.n:
            step.expires = clock_ms() + self._ttl
            cursor.execute(self._add, (*values, step.expires, self._ttl, ref.tenant, ref.id))
            step.n = cursor.lastrowid or 0
            return
        cursor.execute(self._set, (*values, step.n))
        if self._is_due(step):
            step.expires = clock_ms() + self._ttl
            cursor.execute(self._sql["step_touch"], (step.expires, self._ttl, step.n))

    def _is_due(self, step: Step) -> bool:
        """Whether the step's life is to be prolonged. The time is in an index; it is not moved with every piece."""
        return clock_ms() + self._ttl - step.expires > self._ttl // TOUCHES
