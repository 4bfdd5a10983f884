"""What Dalsegno asks of the world. Every promise is a numbered sentence; the conformance suites quote them.

Nothing here runs. `stores` keep these promises on a product, `testing` checks that they do, `runtime` relies on them.
Every method may raise `Unavailable` (the tier did not answer) and `Unreadable` (it answered something damaged).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from dalsegno.core.append import Decide, Decision, Known
from dalsegno.core.claim import Claimed
from dalsegno.core.effect import DidNotHappen, Finding, Happened
from dalsegno.core.event import Event
from dalsegno.core.refs import Batch, Hint, Member, OpenStep, Page, Query, Ref
from dalsegno.core.session import Session
from dalsegno.core.tool import Call, Output, Tool, ToolFunction, Transaction, Undo
from dalsegno.errors import DalsegnoError, LeaseLost

__all__ = ["Agent", "Blobs", "Cache", "Fleet", "Hot", "Ids", "Log", "Transactions", "Warm"]
__all__ += ["Batch", "Call", "DidNotHappen", "Failures", "Finding", "Happened", "Hint", "Known", "Member", "OpenStep"]
__all__ += ["Output", "Page", "Query", "Ref", "Tool", "ToolFunction", "Transaction", "Undo"]

R = TypeVar("R")

Failures: TypeAlias = Mapping[Ref, DalsegnoError | LeaseLost]
"""Why not, for those sessions whose pieces were not taken."""


class Log(Protocol):
    """The warm tier: sessions and their events. The only truth (law 1).

    1. What `commit` returned as written is on stable storage and is read by everyone from then on.
    2. For one session, decisions happen one after another: each is given the session as the one before it left it,
       and its events, session and key are written together or not at all.
    3. Event numbers are 1, 2, 3 … without gaps, also after any crash; a number is never used for something else.
    4. A write decided on an epoch or head that is no longer the session's is refused by the store itself.
    5. Bytes come back as they were given; bytes that do not match their checksum raise `Unreadable`.
    6. `claim` gives a session to one claimant only, and only if it is ready and its owner is gone (see `Fleet`).
       A claimant that is not alive itself gets nothing: after an outage nobody takes the turns of the living.
    7. Nothing of one tenant is found under another.
    8. A caller that is cancelled while it waits for its commit is told so once that has been decided, either way.
    """

    async def commit(self, ref: Ref, decide: Decide[R], *, digest: bytes | None = None) -> Decision[R]:
        """Let `decide` see the session, what is known under `digest`, and the store's clock; carry out what it returns.

        `decide` is pure and may be called more than once; the last call's decision is carried out and returned.
        Raises `Unavailable(outcome="unknown")` when the connection broke while it may have been committed.
        """
        ...

    async def load(self, ref: Ref) -> Session | None:
        """The session as folded up to its head, a tombstone (`deleted`) for a deleted one, None for one never
        created.
        """
        ...

    async def read(self, ref: Ref, *, after: int, limit: int = 1000) -> Sequence[Event]:
        """Up to `limit` events after number `after`, in order, as one consistent prefix of the log."""
        ...

    async def heads(self, refs: Sequence[Ref]) -> Mapping[Ref, int]:
        """How many events each has by now; none of those that were never created. Of any tenant: for the poll behind
        the hints, which asks for all sessions that are followed here at once.
        """
        ...

    async def claim(self, owner: str, *, limit: int, chances: int = 1) -> Sequence[Claimed]:
        """Take up to `limit` ready sessions that nobody alive owns (`core.claim.claim`), the longest waiting first.

        Of those whose turn is on its last attempt, at most `chances`.
        """
        ...

    async def list(self, tenant: str, query: Query) -> Page:
        """The sessions that match, deleted ones left out. A page may hold fewer than `limit` and still have a
        `next`.
        """
        ...

    async def erase(self, ref: Ref, epoch: int) -> None:
        """Remove a deleted session's events except its last, and its keys, for good. The tombstone stays; once nothing
        else is left it counts as erased, if its epoch is `epoch`.
        """
        ...


@runtime_checkable
class Transactions(Protocol):
    """Stores whose database tools may share (effect class `transactional`).

    1. What the tool wrote and what `commit` decided become durable together or not at all.
    2. A refused or fenced decision undoes what the tool wrote.
    3. After `timeout` the transaction is undone and the next call raises `TookTooLong`. Whatever else stops it raises
       `Unavailable`: run the tool again, once it is known that nothing was committed.
    """

    @property
    def alone(self) -> bool:
        """Whether nobody else can write the log while a transaction is open."""
        ...

    def transaction(self, ref: Ref, *, timeout: timedelta) -> AbstractAsyncContextManager[Transaction]:
        """Begin; leaving the context without `commit` undoes everything."""
        ...


class Fleet(Protocol):
    """Who is alive. Kept where the log is, since claims ask it in the same transaction.

    1. Between `join` and `leave` the member counts as alive as long as its process lives and beats in time.
    2. The beat comes from a thread of its own: a busy event loop does not lose it.
    3. A member that misses its time to live counts as dead until it beats again.
    4. Where the operating system tells, `bury` notices a dead process at once.
    """

    async def join(self, member: Member, *, ttl: timedelta) -> None:
        """Become alive and stay so; `ttl` is renewed at a third of it."""
        ...

    async def bury(self) -> Sequence[str]:
        """Look for dead members, let their sessions go, and name their incarnations."""
        ...

    async def members(self) -> Sequence[Member]:
        """The living."""
        ...

    async def holdings(self, incarnation: str) -> Sequence[Ref]:
        """The sessions that a member owns: asked for when the answer to a claim was lost."""
        ...

    async def leave(self) -> None:
        """Stop being alive, in order."""
        ...


class Hot(Protocol):
    """The hot tier: pieces of open steps, and hints. It may lose everything at any moment (P10).

    1. `publish` and `fence` under an epoch lower than one that either has seen are refused with `LeaseLost`.
    2. What `read` returns is a contiguous beginning of one step, under the newest epoch; or nothing.
    3. A piece that follows a lost one is not returned.
    4. Everything expires by itself.
    5. No call takes longer than 250 ms; what cannot be done in that time is dropped, or raises `Unavailable`.
    6. What is published together succeeds or fails each by itself.
    """

    async def publish(self, batches: Sequence[Batch]) -> Failures:
        """Add pieces to open steps, at most one batch for each. Pieces with a new `base` replace those of the step
        before. Raises `Unavailable` where it is the same for all.
        """
        ...

    async def fence(self, ref: Ref, epoch: int) -> OpenStep | None:
        """Refuse older epochs from now on, and return what was published of the open step."""
        ...

    async def read(self, ref: Ref, *, base: int = 0, after: int = 0) -> OpenStep | None:
        """The open step; of the step with that `base` only the pieces that end after unit `after`."""
        ...

    async def clear(self, ref: Ref, epoch: int) -> None:
        """The step is done: forget its pieces."""
        ...

    async def tell(self, hints: Sequence[Hint]) -> None:
        """Send hints to every replica, this one included."""
        ...

    def listen(self, heard: Callable[[Hint], None]) -> AbstractAsyncContextManager[None]:
        """Call `heard` for every hint that arrives, on the event loop, until the context ends."""
        ...


@runtime_checkable
class Cache(Protocol):
    """Hot tiers that keep near what any replica could work out again. It may lose everything at any moment (P10).

    1. `get` returns what was put under that name, whole, or nothing.
    2. A lower version never replaces a higher one, however late it arrives.
    3. Everything expires by itself, `keep` after it was put; what is too large is not kept at all.
    4. After `forget` nothing is found under that `ref`, not even what arrives after it, for as long as that may be.
    5. No call takes longer than 250 ms; what cannot be done in that time is dropped, or raises `Unavailable`.
    """

    async def put(self, ref: Ref, name: str, version: int, content: bytes, *, keep: timedelta) -> None:
        """Keep `content`, unless what is kept under that name is newer."""
        ...

    async def get(self, ref: Ref, name: str) -> tuple[int, bytes] | None:
        """The version and the content."""
        ...

    async def forget(self, ref: Ref) -> None:
        """Remove all that is kept under that `ref`, for good."""
        ...


class Blobs(Protocol):
    """The cold tier: immutable objects under names that contain the hash of their content.

    1. `put` creates or finds the same bytes; an object is never changed or seen half written.
    2. `get` returns bytes whose SHA-256 is the one in the name, or raises `Unreadable`.
    3. After `delete` nothing under the prefix is readable.
    """

    async def put(self, name: str, content: bytes) -> None:
        """Create the object. `name` ends in the SHA-256 of `content`."""
        ...

    async def get(self, name: str) -> bytes | None:
        """The whole object, verified; None if there is none."""
        ...

    async def delete(self, prefix: str) -> None:
        """Remove every object whose name begins with `prefix`."""
        ...

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Sequence[str]:
        """Names that begin with `prefix`, in an order of the tier's own, those behind `after`."""
        ...


class Ids(Protocol):
    """Where randomness comes from."""

    def session(self) -> str:
        """A new session id: UUIDv7."""
        ...

    def incarnation(self) -> str:
        """A name for this start of a process that no other start ever had."""
        ...


class Warm(Log, Fleet, Protocol):
    """A product that keeps the log keeps the fleet, too.

    1. `unerased` names a deleted session from its deletion on until it counts as erased, however damaged it is and
       wherever an erasure was broken off; and again after any later write to it.
    2. A `walk` from the beginning to its end comes past every session that was there when it began. One that cannot be
       read ends its page; at the beginning of a page it raises `Damaged` (or `Shelved`): go on behind the one it names.
    3. What was shelved raises `Shelved` where it is needed, and is never an empty or shorter log. Sessions, keys and
       whatever was written since are served as before.
    """

    async def unerased(self, *, after: Ref | None = None, limit: int) -> Mapping[Ref, int]:
        """Deleted sessions, of any tenant, and their epochs; in an order of the store's own, those behind `after`."""
        ...

    async def walk(self, *, after: Ref | None = None, limit: int) -> Sequence[Session]:
        """Sessions of any tenant, deleted ones too, in an order of the store's own, those behind `after`.

        `shelved` is set where a shelf is kept.
        """
        ...

    async def keys(self, ref: Ref) -> Mapping[bytes, Known]:
        """All that is known under the session's keys."""
        ...

    async def shelve(self, ref: Ref, shelf: bytes, *, head: int, epoch: int) -> bool:
        """Remove all events of an idle session that stands at `head` under `epoch`, in one step with keeping `shelf`,
        which says where they are (opaque here).

        False: it stands elsewhere, is at work, is deleted or has a shelf already, and nothing was done.
        """
        ...

    async def unshelve(self, ref: Ref, shelf: bytes, events: Sequence[Event]) -> None:
        """Put the events of that shelf back, in one step with forgetting it. If the session has no such shelf any more,
        or is deleted, this does nothing.
        """
        ...

    async def close(self) -> None:
        """Let go of files, threads and connections."""
        ...


class Agent(Protocol):
    """Who thinks: a user's agent, behind one of the adapters in `agents`.

    1. Everything it does goes through the turn it is given; between turns it remembers nothing.
    2. Run again on the same log it takes the same path up to the end of the log.
    """

    @property
    def name(self) -> str:
        """The name that sessions ask for it by."""
        ...

    async def run(self, turn: Any) -> None:
        """Answer the turn; returning completes it, raising fails it."""
        ...
