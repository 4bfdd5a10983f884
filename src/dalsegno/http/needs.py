"""What this room asks of the runtime: the one object that does everything behind the routes. Nothing here runs."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from dalsegno.core.admit import Receipt
from dalsegno.core.cursor import Cursor
from dalsegno.core.event import Event, SessionCreated
from dalsegno.core.input import Input
from dalsegno.core.json import JsonObject
from dalsegno.core.session import Session
from dalsegno.core.stream import Frame
from dalsegno.core.turn import Turn
from dalsegno.ports import Page, Query, Ref


class Stream(Protocol):
    """One client's frames. It ends after a terminal event; `Unavailable` says that the client must resume elsewhere."""

    @property
    def ended(self) -> bool:
        """Nothing can follow: there is nothing to stream at all."""
        ...

    @property
    def shared(self) -> bool:
        """Others follow the same session here: what is encoded for one is good for all."""
        ...

    def __aiter__(self) -> "Stream": ...

    async def __anext__(self) -> Frame: ...

    async def aclose(self) -> None:
        """Let go of everything. May be called at any time and more than once."""
        ...


class Health(Protocol):
    """How the replica is."""

    @property
    def ready(self) -> bool: ...

    @property
    def draining(self) -> bool: ...

    @property
    def replica(self) -> str: ...

    @property
    def tiers(self) -> dict[str, str]: ...

    @property
    def degraded(self) -> list[str]: ...


class Service(Protocol):
    """Sessions as clients see them. Every method may raise `Refused`, `Unavailable` and `Unreadable`."""

    @property
    def draining(self) -> bool: ...

    async def create(self, tenant: str, *, id: str | None, opening: SessionCreated) -> Session: ...

    async def get(self, ref: Ref) -> Session: ...

    async def list(self, tenant: str, query: Query) -> Page: ...

    async def update(self, ref: Ref, metadata: JsonObject, *, head: int | None) -> Session: ...

    async def delete(self, ref: Ref) -> None: ...

    async def fork(self, ref: Ref, *, at: int | None) -> Session: ...

    async def items(self, ref: Ref, *, after: int, limit: int) -> "tuple[Sequence[JsonObject], int | None]": ...

    async def admit(
        self, ref: Ref, said: Input, *, key: str | None = None, opening: SessionCreated | None = None
    ) -> Receipt: ...

    async def turn(self, ref: Ref, turn: str, *, wait: timedelta) -> Turn: ...

    async def events(self, ref: Ref, *, after: int, limit: int) -> Sequence[Event]: ...

    async def follow(self, ref: Ref, *, after: Cursor | None, turn: str | None = None) -> Stream: ...

    async def restore(self, tenant: str, events: Sequence[Event]) -> Session: ...

    async def artifact(self, tenant: str, artifact: str) -> bytes: ...

    async def health(self) -> Health: ...
