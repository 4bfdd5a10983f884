"""What the cases do to a store, in a word each. Only the ports and the core's decisions are used."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from dalsegno.core import lifecycle
from dalsegno.core.admit import Admission, Admitted, admit
from dalsegno.core.append import Appended, Decide, Decision, Draft, Known, Then, Write, append, record
from dalsegno.core.claim import Claimed
from dalsegno.core.event import (
    Action,
    Data,
    Event,
    ItemDone,
    SessionCreated,
    TurnCompleted,
    TurnWaiting,
)
from dalsegno.core.input import Input, Message, key_for
from dalsegno.core.item import message
from dalsegno.core.lease import Lease
from dalsegno.core.session import Session
from dalsegno.core.stream import Piece
from dalsegno.ports import Batch, Hot, Log, Member, Ref, Warm
from dalsegno.testing.conformance.worlds import LogWorld

R = TypeVar("R")

EVENTUALLY_SECONDS = 10.0
DONE = TurnCompleted(usage=None)


def session(number: int = 1, *, tenant: str = "acme") -> Ref:
    """The name of a session; sessions are in order of their number."""
    return Ref(tenant, f"01990000-0000-7000-8000-{number:012x}")


def admission(ref: Ref, said: str | Input = "hello", *, key: str | None = None, taker: str | None = None) -> Admission:
    """An input on its way into a log; the session is created if need be."""
    heard = Message(content=said) if isinstance(said, str) else said
    keyed = key_for(key, heard) if key is not None else None
    return Admission(ref.tenant, ref.id, heard, keyed, taker, SessionCreated())


async def speak(log: Log, wanted: Admission) -> Decision[Admitted]:
    """Say it to the session."""
    ref = Ref(wanted.tenant, wanted.session)
    digest = wanted.key.digest if wanted.key else None
    return await log.commit(ref, partial(admit, admission=wanted), digest=digest)


async def accept(log: Log, ref: Ref, said: str | Input = "hello", *, taker: str | None = None) -> Admitted:
    """Say it to the session; it must be admitted."""
    return written(await speak(log, admission(ref, said, taker=taker)))


async def begin(log: Log, ref: Ref, *, owner: str) -> Lease:
    """A new session whose first turn `owner` runs."""
    lease = (await accept(log, ref, taker=owner)).lease
    assert lease is not None, f"the session is free and ready, but {owner} did not get it"
    return lease


async def work(log: Log, lease: Lease, *told: Data, then: Then = "hold") -> Decision[Appended]:
    """Append to the turn that `lease` is for."""
    drafts = [Draft(data, lease.turn) for data in told]
    return await log.commit(
        Ref(lease.tenant, lease.session),
        lambda session, known, now: append(session, now, lease=lease, drafts=drafts, then=then),
    )


async def change(log: Log, ref: Ref, *told: Data) -> Session:
    """Append what no turn and no lease is needed for."""

    def decide(session: Session | None, known: Known | None, now: int) -> Decision[Session]:
        fresh, events = record(session or Session(ref.id, ref.tenant), [Draft(data) for data in told], now)
        return Write(fresh, events, fresh)

    return written(await log.commit(ref, decide))


async def delete(log: Log, ref: Ref) -> int:
    """End the session for good, whoever owns it; the epoch that it has then."""
    return written(await log.commit(ref, lifecycle.delete)).epoch


async def interrupted(world: LogWorld, log: Log, refs: Sequence[Ref], *, rounds: int) -> dict[Ref, Sequence[int]]:
    """Say something to each session, and cancel that after so many rounds of the event loop.

    What was stored at the moment when each caller learned what had become of it; nothing if nobody was interrupted.
    """
    found: dict[Ref, Sequence[int]] = {}

    async def say(ref: Ref) -> None:
        try:
            await accept(log, ref)
        finally:
            found[ref] = await world.seqs(ref)

    saying = [asyncio.create_task(say(ref)) for ref in refs]
    for _ in range(rounds):
        await asyncio.sleep(0)
    cancelled = [one for one in saying if one.cancel()]
    for ended in await asyncio.gather(*saying, return_exceptions=True):
        assert ended is None or isinstance(ended, asyncio.CancelledError), ended
    return found if cancelled else {}


async def joined(world: LogWorld, name: str) -> Warm:
    """A handle whose process is a living member of that incarnation."""
    log = await world.open()
    await log.join(Member(name, f"replica-{name}"), ttl=world.ttl)
    return log


async def only(log: Log, owner: str) -> Claimed:
    """Claim, and find exactly one session."""
    claimed = await log.claim(owner, limit=10)
    assert len(claimed) == 1, f"one session was to be claimed, but {len(claimed)} were"
    return claimed[0]


async def leased(log: Log, owner: str) -> Lease:
    """Claim exactly one session that has something left to run."""
    lease = (await only(log, owner)).lease
    assert lease is not None, "the claim brought no lease"
    return lease


async def history(log: Log, ref: Ref) -> list[Event]:
    """The whole log of a session, page by page."""
    events: list[Event] = []
    while page := await log.read(ref, after=events[-1].seq if events else 0, limit=500):
        events.extend(page)
    return events


def written(decision: Decision[R]) -> R:
    """The result of a decision that must have been written."""
    assert isinstance(decision, Write), f"this was to be written, but came back as {decision}"
    return decision.result


def always(decision: Decision[R]) -> Decide[R]:
    """Somebody who has decided before looking."""
    return lambda session, known, now: decision


def note(text: str = "") -> ItemDone:
    """A finished item."""
    return ItemDone(message(text, item_id="msg_1"))


def waiting(*, expires_at: int | None = None) -> TurnWaiting:
    """The turn waits for the approval of call `c1`."""
    return TurnWaiting((Action("approval", "c1", "pay", expires_at=expires_at),))


async def publish(hot: Hot, ref: Ref, epoch: int, pieces: Sequence[Piece]) -> None:
    """Add pieces to one session's open step. Raises why they were not taken."""
    failed = await hot.publish([Batch(ref, epoch, pieces)])
    if ref in failed:
        raise failed[ref]


async def eventually(predicate: Callable[[], Awaitable[bool]], *, description: str) -> None:
    """Ask until the answer is yes; fail with the description when that takes too long."""
    deadline = time.monotonic() + EVENTUALLY_SECONDS
    while not await predicate():
        assert time.monotonic() < deadline, f"waited {EVENTUALLY_SECONDS:g} s until {description}"
        await asyncio.sleep(0.005)
