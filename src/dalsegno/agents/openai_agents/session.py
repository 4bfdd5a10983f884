"""The SDK's `Session` protocol over a store: an agent that runs elsewhere keeps its conversation in our log.

Runner.run(agent, "hi", session=DalsegnoSession(store, "customer-7"))

What was added comes back as it was, in its order, but for one thing: a result stands behind its call. The session is
the one that `dalsegno serve` would serve, and the other way round.
"""

from collections.abc import Sequence
from secrets import token_hex
from typing import Any, Protocol, cast

from agents import SessionABC, SessionSettings, TResponseInputItem

from dalsegno.agents.openai_agents.items import kept_as, own, plain, shown_as
from dalsegno.core.context import ABANDONED, PENDING
from dalsegno.core.item import OUTPUT
from dalsegno.core.json import JsonObject
from dalsegno.errors import Conflict, Refused, Unavailable

AT_ONCE = 500
ATTEMPTS = 50


class Loaded(Protocol):
    """What a store knows of a session."""

    @property
    def items(self) -> list[JsonObject]:
        """Its items."""
        ...


class Store(Protocol):
    """What is asked of a store: `dalsegno.open_store` gives one."""

    async def load(self, session: str) -> Loaded:
        """The conversation."""
        ...

    async def append(
        self, session: str, items: Sequence[JsonObject], *, expect: int | None = None, key: str | None = None
    ) -> int:
        """Add items in one commit; under a key, once."""
        ...

    async def pop(self, session: str) -> JsonObject | None:
        """Remove the last item and return it."""
        ...

    async def clear(self, session: str) -> int:
        """Remove all."""
        ...


class DalsegnoSession(SessionABC):
    """One session of a store. Any number of processes may add to it at once: none of it is lost or interleaved.

    While a turn of the session is open (it is being served, too) adding raises `Conflict`.
    """

    def __init__(self, store: Store, session_id: str, *, session_settings: SessionSettings | None = None) -> None:
        self.session_id = session_id
        self.session_settings = session_settings or SessionSettings()
        self._store = store

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The conversation; with a limit the latest items of it."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        loaded = await self._store.load(self.session_id)
        items = [shown for item in loaded.items if not _made_up(item) for shown in shown_as(item)]
        if limit is None or limit < 0:
            return items
        return items[-limit:] if limit else []

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items; all of them or none (by the 500)."""
        given = [plain(item) for item in items]
        for first in range(0, len(given), AT_ONCE):
            part = given[first : first + AT_ONCE]
            try:
                await self._append([kept_as(item) for item in part])
            except Refused as refused:
                if isinstance(refused, Conflict) or refused.code != "invalid_request":
                    raise
                await self._append([kept_as(item, fits=not _is_stray(item, part)) for item in part])

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the last item and return it; each is given to one caller only."""
        for attempt in range(ATTEMPTS):
            try:
                item = await self._store.pop(self.session_id)
                break
            except Conflict as conflict:
                if conflict.code != "version_mismatch" or attempt == ATTEMPTS - 1:
                    raise
        else:
            return None
        if item is None:
            return None
        shown = shown_as(item)
        if not shown:
            return await self.pop_item()
        if len(shown) > 1:
            await self.add_items(shown[:-1])
        return shown[-1]

    async def clear_session(self) -> None:
        """Remove all items."""
        await self._store.clear(self.session_id)

    async def _append(self, items: Sequence[JsonObject]) -> None:
        key = token_hex(16)
        try:
            await self._store.append(self.session_id, items, key=key)
        except Unavailable:
            await self._store.append(self.session_id, items, key=key)  # whether it was applied or not: the key says so


def _made_up(item: JsonObject) -> bool:
    """A result that the context has only because the log has none."""
    made = item.get("type") == OUTPUT and item.get("status") == "incomplete" and not own(item)
    return bool(made and item.get("output") in (PENDING, ABANDONED))


def _is_stray(item: JsonObject, among: Sequence[JsonObject]) -> bool:
    """A result whose call is not there; the SDK's own sessions keep those, too."""
    calls = [cast(Any, other).get("call_id") for other in among if other.get("type") == "function_call"]
    return item.get("type") == OUTPUT and item.get("call_id") not in calls
