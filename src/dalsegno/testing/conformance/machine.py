"""Any `Log` beside the memory store, which is taken to be right: the same acts, and after each the same state.

Hypothesis finds the acts. Times are left out of the comparison, since each store has a clock of its own.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, TypeAlias, TypeVar

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from dalsegno.core.append import Appended, Decision, Draft, Keep, Known, Write, append
from dalsegno.core.event import Event
from dalsegno.core.input import Approval, Cancel, Input, Message, ToolResult
from dalsegno.core.lease import Lease
from dalsegno.core.lifecycle import erase_again
from dalsegno.core.session import Session
from dalsegno.errors import Unreadable
from dalsegno.ports import Member, Query, Ref, Warm
from dalsegno.testing.conformance.acts import DONE, admission, delete, history, note, session, speak, waiting, work
from dalsegno.testing.conformance.memory import MemoryWorld
from dalsegno.testing.conformance.worlds import LogWorld

R = TypeVar("R")
FAR_AWAY_MS = 2**45

SEATS = st.sampled_from([0, 1])
REFS = st.sampled_from([session(1), session(2), session(3), session(1, tenant="other")])
KEYS = st.sampled_from([None, None, "k1", "k2"])
TEXTS = st.sampled_from(["hi", "a\0b", "𝄋"])
MESSAGES = st.builds(
    Message, content=TEXTS, on_busy=st.sampled_from(["queue", "reject", "interrupt", "rollback", "steer"])
)
ANSWERS: st.SearchStrategy[Input] = st.one_of(
    st.builds(Cancel, hide=st.booleans()),
    st.builds(Approval, call_id=st.just("c1"), decision=st.sampled_from(["approve", "deny"])),
    st.builds(ToolResult, call_id=st.just("c1"), output=TEXTS),
)
DRAFTS = st.one_of(
    st.builds(note, TEXTS),
    st.builds(waiting, expires_at=st.sampled_from([None, 1, FAR_AWAY_MS])),
    st.just(DONE),
)
QUERIES = st.builds(
    Query, limit=st.sampled_from([1, 2, 100]), status=st.sampled_from(["", "idle", "running", "waiting"])
)


class Side:
    """One of the two stores: its world, and the handles of the two replicas that use it."""

    def __init__(self, world: LogWorld, logs: Sequence[Warm]) -> None:
        self.world = world
        self.logs = list(logs)

    async def replace(self, seat: int, name: str) -> Sequence[str]:
        """The replica of a seat dies and is buried; another takes the seat."""
        await self.world.kill(self.logs[seat])
        dead = await self.logs[1 - seat].bury()
        self.logs[seat] = await _joined(self.world, name)
        return sorted(dead)


Act: TypeAlias = Callable[[Side], Coroutine[Any, Any, R]]
"""Something done to one side."""


class LogMachine(RuleBasedStateMachine):
    """The acts. `log_machine` makes a subclass with a store to compare."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._count = 2
        self._names = ["r0", "r1"]
        self._refs: set[Ref] = set()

    def open_world(self) -> AbstractAsyncContextManager[LogWorld]:
        """The world of the store that is compared."""
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        """Two replicas on each side."""
        self._store, self._model = self._runner.run(self._begin())

    def teardown(self) -> None:
        """Nothing stays behind."""
        self._runner.run(self._stack.aclose())
        self._runner.close()

    @rule(target=leases, seat=SEATS, ref=REFS, said=MESSAGES, key=KEYS, replica=st.sampled_from(["free", "full"]))
    def say(self, seat: int, ref: Ref, said: Input, key: str | None, replica: str) -> object:
        """Somebody speaks; a session comes to be. A replica that has room runs it at once."""
        self._refs.add(ref)
        wanted = admission(ref, said, key=key, taker=self._names[seat] if replica == "free" else None)
        decision = self._both(lambda side: speak(side.logs[seat], wanted))
        lease = decision.result.lease if isinstance(decision, Write) else None
        return lease if lease is not None else multiple()

    @precondition(lambda self: self._refs)
    @rule(seat=SEATS, ref=REFS, said=ANSWERS, key=KEYS)
    def answer(self, seat: int, ref: Ref, said: Input, key: str | None) -> None:
        """Somebody decides, or wants a turn to stop."""
        if ref in self._refs:
            self._both(lambda side: speak(side.logs[seat], admission(ref, said, key=key)))

    @precondition(lambda self: self._refs)
    @rule(target=leases, seat=SEATS)
    def claim(self, seat: int) -> object:
        """A replica takes whatever it can."""
        claimed = self._both(lambda side: _claim(side.logs[seat], self._names[seat]))
        return multiple(*(one.lease for one in claimed if one.lease is not None))

    @rule(seat=SEATS, lease=leases, data=st.lists(DRAFTS, max_size=2), digest=st.sampled_from([None, b"d" * 16]))
    def write(self, seat: int, lease: Lease, data: list[Any], digest: bytes | None) -> None:
        """Whoever has or had a lease writes."""
        ref, drafts = Ref(lease.tenant, lease.session), [Draft(one, lease.turn, digest) for one in data]
        self._both(lambda side: _tried(side.logs[seat].commit(ref, partial(_append, lease=lease, drafts=drafts))))

    @rule(target=leases, seat=SEATS, lease=consumes(leases), data=DRAFTS, then=st.sampled_from(["release", "take"]))
    def finish(self, seat: int, lease: Lease, data: Any, then: Any) -> object:
        """A turn ends or is parked, and its lease is given back or goes on to the next turn."""
        decision = self._both(lambda side: _tried(work(side.logs[seat], lease, data, then=then)))
        held = decision.result.lease if isinstance(decision, Write) else None
        return held if held is not None else multiple()

    @precondition(lambda self: self._refs)
    @rule(seat=SEATS)
    def kill(self, seat: int) -> None:
        """A replica dies, and another one comes."""
        name, self._count = f"r{self._count}", self._count + 1
        assert self._both(lambda side: side.replace(seat, name)) == [self._names[seat]]
        self._names[seat] = name

    @precondition(lambda self: len(self._refs) > 1)
    @rule(seat=SEATS, ref=st.sampled_from([session(3), session(1, tenant="other")]))
    def end(self, seat: int, ref: Ref) -> None:
        """A session is deleted, if it is there; if it was, somebody who was fenced off has it erased again."""
        found = self._both(lambda side: side.logs[seat].load(ref))
        if found is not None and found.deleted:
            self._both(lambda side: side.logs[seat].commit(ref, erase_again))
        elif found is not None:
            self._both(lambda side: delete(side.logs[seat], ref))

    @precondition(lambda self: self._refs)
    @rule(seat=SEATS, ref=st.sampled_from([session(3), session(1, tenant="other")]), late=st.sampled_from([0, 0, 1]))
    def erase(self, seat: int, ref: Ref, late: int) -> None:
        """Somebody erases a session, if it is deleted; perhaps under an epoch that has passed."""
        found = self._both(lambda side: side.logs[seat].load(ref))
        epoch = 0 if found is None else found.epoch - late
        self._both(lambda side: side.logs[seat].erase(ref, epoch))

    @precondition(lambda self: self._refs)
    @rule(ref=REFS)
    def upgrade(self, ref: Ref) -> None:
        """The stored session becomes another version's."""
        if ref in self._refs and self._both(lambda side: side.logs[0].load(ref)) is not None:
            self._both(lambda side: side.world.outdate(ref))

    @precondition(lambda self: self._refs)
    @rule(seat=SEATS, ref=REFS, after=st.integers(0, 9), limit=st.integers(1, 4), query=QUERIES)
    def look(self, seat: int, ref: Ref, after: int, limit: int, query: Query) -> None:
        """Somebody reads a page of a log and a listing, and asks what is known under a digest."""
        self._both(lambda side: side.logs[seat].read(ref, after=after, limit=limit))
        self._both(lambda side: _listed(side.logs[seat], query))
        self._both(lambda side: side.logs[seat].commit(ref, _look, digest=b"d" * 16))

    @invariant()
    def both_hold_the_same(self) -> None:
        """Sessions, logs, raw rows, owners, the living and the unerased are the same on both sides."""
        for ref in self._refs:
            self._both(partial(_whole, ref=ref))
        if self._refs:
            self._both(lambda side: _owners(side, self._names))

    async def _begin(self) -> tuple[Side, Side]:
        world, model = await self._stack.enter_async_context(self.open_world()), MemoryWorld()
        self._stack.push_async_callback(model.close)
        sides = [Side(side, [await _joined(side, name) for name in self._names]) for side in (world, model)]
        return sides[0], sides[1]

    def _both(self, act: Act[R]) -> R:
        """Do it to the store and to the model, compare, and return what the model said."""
        got, wanted = self._runner.run(_each(act, self._store, self._model))
        assert _timeless(got) == _timeless(wanted)
        return wanted


def log_machine(open_world: Callable[[], AbstractAsyncContextManager[LogWorld]]) -> type[LogMachine]:
    """The machine for a store; its `TestCase` is what pytest collects."""

    class Machine(LogMachine):
        def open_world(self) -> AbstractAsyncContextManager[LogWorld]:
            return open_world()

    return Machine


async def _each(act: Act[R], store: Side, model: Side) -> tuple[R, R]:
    return await act(store), await act(model)


async def _joined(world: LogWorld, name: str) -> Warm:
    log = await world.open()
    await log.join(Member(name, name), ttl=world.ttl)
    return log


async def _claim(log: Warm, owner: str) -> Any:
    # Who waits longest is a matter of milliseconds here, and no two clocks agree on them: so nobody has to wait.
    claimed = await log.claim(owner, limit=100, chances=100)
    return sorted(claimed, key=lambda one: (one.session.tenant, one.session.id))


async def _tried(deciding: Coroutine[Any, Any, Decision[R]]) -> Decision[R] | str:
    """What was decided, or why it cannot be: not everything that the machine thinks of can happen to a turn."""
    try:
        return await deciding
    except Unreadable as error:
        return str(error)


def _append(
    found: Session | None, known: Known | None, now: int, *, lease: Lease, drafts: Sequence[Draft]
) -> Decision[Appended]:
    return append(found, now, lease=lease, drafts=drafts)


def _look(found: Session | None, known: Known | None, now: int) -> Keep[Any]:
    return Keep((found, known))


async def _listed(log: Warm, query: Query) -> Any:
    found: list[Session] = []
    after: str | None = ""
    while after is not None:
        page = await log.list("acme", msgspec.structs.replace(query, after=after))
        found, after = [*found, *page.sessions], page.next
    return found


async def _whole(side: Side, *, ref: Ref) -> Any:
    reader = side.logs[0]
    known = sorted((await reader.keys(ref)).items())
    return await reader.load(ref), await history(reader, ref), known, await side.world.seqs(ref)


async def _owners(side: Side, names: Sequence[str]) -> Any:
    reader = side.logs[1]
    held = [sorted((ref.tenant, ref.id) for ref in await reader.holdings(name)) for name in names]
    unerased = sorted((ref.tenant, ref.id, epoch) for ref, epoch in (await reader.unerased(limit=10)).items())
    walked = sorted(await reader.walk(limit=100), key=lambda one: (one.tenant, one.id))
    return held, sorted(member.incarnation for member in await reader.members()), unerased, walked


def _timeless(value: Any) -> Any:
    """The value without the store's clock in it."""
    if isinstance(value, Event):
        return msgspec.structs.replace(value, at=0)
    if isinstance(value, Session):
        return msgspec.structs.replace(value, created_at=0, updated_at=0)
    if isinstance(value, msgspec.Struct):
        fields = {name: _timeless(getattr(value, name)) for name in value.__struct_fields__}
        return type(value).__name__, fields
    if isinstance(value, list | tuple):
        return [_timeless(one) for one in value]
    return value
