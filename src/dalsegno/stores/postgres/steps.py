"""Open steps in the words of the statements: what they are asked and what they answer. Nothing here waits."""

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, TypeAlias

import msgspec

from dalsegno.core.stream import Piece
from dalsegno.ports import OpenStep, Ref
from dalsegno.stores.postgres.arrays import Bodies, Numbers, Texts

STEP_BYTES_MAX = 8 * 1024 * 1024

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Piece]).decode

Row: TypeAlias = tuple[Any, ...]


class Act(IntEnum):
    """What is written: see `step_write.sql`."""

    FENCE = 0
    PUBLISH = 1
    CLEAR = 2


class Write(NamedTuple):
    """A change to a session's step under an epoch. `run`: pieces of one step without a gap between them."""

    ref: Ref
    epoch: int
    act: Act
    run: Sequence[Piece] = ()


class Written(NamedTuple):
    """What became of it. `base` and `until`: the step that was found, and how far it reached before this."""

    stale: bool
    kept: bool
    base: int
    until: int


class Read(NamedTuple):
    """A question for a session's step; see port `Hot`."""

    ref: Ref
    base: int
    after: int


def runs(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces in their order, cut wherever the step changes or something is missing. Usually that is nowhere."""
    run: list[Piece] = []
    for piece in pieces:
        if run and (piece.base, piece.at) != (run[-1].base, run[-1].end):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def rest(run: Sequence[Piece], written: Written) -> list[Piece]:
    """What is still to be written of a run whose beginning was there already."""
    if written.stale or written.kept or run[0].base != written.base or not run[0].at < written.until < run[-1].end:
        return []
    found = [piece for piece in run if piece.at >= written.until]
    return found if found and found[0].at == written.until else []


def writing(writes: Sequence[Write]) -> dict[str, Any]:
    """The parameters of `step_write`, without its limits."""
    first_last = [(write.run[0], write.run[-1]) if write.run else None for write in writes]
    return {
        **_names([write.ref for write in writes]),
        "epoch": Numbers(write.epoch for write in writes),
        "act": Numbers(write.act for write in writes),
        "base": Numbers(ends[0].base if ends else 0 for ends in first_last),
        "at": Numbers(ends[0].at if ends else 0 for ends in first_last),
        "until": Numbers(ends[1].end if ends else 0 for ends in first_last),
        "body": Bodies(_body(write.run) for write in writes),
    }


def written(count: int, rows: Sequence[Row]) -> list[Written | None]:
    """The answers of `step_write` to that many writes; None: there was no row to clear, or
    it was swept away meanwhile."""
    answers: list[Written | None] = [None] * count
    for nth, *answer in rows:
        answers[nth - 1] = Written(*answer)
    return answers


def reading(reads: Sequence[Read]) -> dict[str, Any]:
    """The parameters of `step_read`."""
    return {
        **_names([read.ref for read in reads]),
        "base": Numbers(read.base for read in reads),
        "after": Numbers(read.after for read in reads),
    }


def shown(reads: Sequence[Read], rows: Sequence[Row]) -> list[OpenStep | None]:
    """The answers of `step_read`."""
    answers: list[OpenStep | None] = [None] * len(reads)
    for nth, base, epoch, bodies in rows:
        read = reads[nth - 1]
        known = read.after if read.base == base else 0
        try:
            pieces = tuple(piece for body in bodies or () for piece in _decode(body) if piece.end > known)
        except msgspec.MsgspecError:
            # Another version's pieces, or damaged ones: as good as lost.
            continue
        answers[nth - 1] = OpenStep(base, epoch, pieces)
    return answers


def _names(refs: Sequence[Ref]) -> dict[str, Texts]:
    return {"tenant": Texts(ref.tenant for ref in refs), "id": Texts(ref.id for ref in refs)}


def _body(run: Sequence[Piece]) -> bytes | None:
    # What says nothing is not kept.
    return _encode([piece for piece in run if piece.end > piece.at]) if run else None
