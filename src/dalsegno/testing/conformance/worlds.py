"""What a backend gives the suite: a harness around an empty tier of its product, with hands behind the store's back.

A test gets a world of its own. Whatever a world does besides `open` bypasses the store's own methods (raw statements,
raw files), because a store that errs in writing may err in the same way in reading.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from dalsegno.ports import Blobs, Cache, Hot, Ref, Transaction, Transactions, Warm


class LogWorld(Protocol):
    """An empty database that nothing else uses. The world closes what it opened."""

    @property
    def ttl(self) -> timedelta:
        """A time to live that beats can keep on a busy machine, and that a test can wait for."""
        ...

    async def open(self) -> Warm:
        """Another handle to the same database, as another process would have it."""
        ...

    async def seqs(self, ref: Ref) -> Sequence[int]:
        """The numbers of the session's events as they are stored, in the order of their numbers."""
        ...

    async def keys(self, ref: Ref) -> int:
        """How many digests are stored for the session."""
        ...

    async def damage(self, ref: Ref, *, seq: int) -> None:
        """Change a byte of a stored event's data."""
        ...

    async def lose(self, ref: Ref, *, seq: int) -> None:
        """Remove a stored event."""
        ...

    async def outdate(self, ref: Ref) -> None:
        """Make the stored session one that another version wrote, in a shape that today's cannot read."""
        ...

    async def kill(self, log: Warm) -> None:
        """End the handle's process without a word, as `kill -9` would. The handle is not used any more."""
        ...

    async def pass_time(self, duration: timedelta) -> None:
        """Let so much time pass on the store's clocks while members that are not paused beat."""
        ...


class FleetWorld(LogWorld, Protocol):
    """A world whose members can be stopped and go on."""

    @property
    def own_thread(self) -> bool:
        """Whether beats come from a thread of their own; only memory may say no."""
        ...

    async def pause(self, log: Warm) -> None:
        """Stop the handle's beats, as SIGSTOP would."""
        ...

    async def resume(self, log: Warm) -> None:
        """Let them go on, as SIGCONT would."""
        ...


class Shared(Warm, Transactions, Protocol):
    """A log whose database tools may share."""


class TransactionWorld(LogWorld, Protocol):
    """A world whose database has a table for a tool to write to."""

    @property
    def endings(self) -> Sequence[str]:
        """Statements that would end the transaction behind its owner's back."""
        ...

    async def open(self) -> Shared: ...

    async def put(self, transaction: Transaction, name: str, number: int) -> None:
        """Write a number under a name, with `transaction.execute`."""
        ...

    async def look(self, name: str) -> int | None:
        """The number as others see it."""
        ...


class HotWorld(Protocol):
    """An empty hot tier."""

    @property
    def lifetime(self) -> timedelta:
        """How long an open step is kept that nobody touches."""
        ...

    async def open(self) -> Hot:
        """Another handle to the same tier, as another process would have it."""
        ...

    async def pass_time(self, duration: timedelta) -> None:
        """Let so much time pass on the tier's clock."""
        ...


class CacheWorld(Protocol):
    """An empty hot tier that keeps things near."""

    @property
    def lifetime(self) -> timedelta:
        """A short time for an entry to be kept, on the tier's clock."""
        ...

    async def open(self) -> Cache:
        """Another handle to the same tier, as another process would have it."""
        ...

    async def pass_time(self, duration: timedelta) -> None:
        """Let so much time pass on the tier's clock."""
        ...


class BlobsWorld(Protocol):
    """An empty cold tier."""

    async def open(self) -> Blobs:
        """Another handle to the same tier, as another process would have it."""
        ...

    async def names(self) -> Sequence[str]:
        """The names of the objects that are stored."""
        ...

    async def damage(self, name: str) -> None:
        """Change a byte of a stored object."""
        ...
