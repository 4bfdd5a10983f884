"""What the log holds, over all parts: a tenant's sessions, everybody's, those to be erased, those that somebody owns.

The lists of a part are changed in the step that changes a session. Only time takes a session away without its lists:
whoever comes past a name without a row, and does not find the row where it belongs, takes the name off.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from dalsegno.core.session import Session, replace
from dalsegno.errors import Unreadable
from dalsegno.ports import Page, Query, Ref
from dalsegno.stores.damage import named
from dalsegno.stores.redis import rows
from dalsegno.stores.redis.keys import Part, name_of, ref_of
from dalsegno.stores.redis.rows import DELETED, Row
from dalsegno.stores.redis.sessions import Sessions

SCANNED_MAX = 1000
"""How many sessions one page of a listing looks at, whatever its filters leave of them."""
WINDOW_MIN = 50
WINDOW_OF_PART_MIN = 4


class Listed(NamedTuple):
    """A session on a list, and its columns; None where they are not beside it."""

    name: bytes
    columns: Sequence[Any] | None


class Window(NamedTuple):
    """What is listed behind a name, up to a name that all parts have been looked at to; None = to the end."""

    listed: Sequence[Listed]
    until: bytes | None


class Listings:
    """What one process lists."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._parts = sessions.layout.parts

    async def page(self, tenant: str, query: Query) -> Page:
        """One page of a tenant's sessions."""
        prefix = name_of(Ref(tenant, ""))
        found: list[Session] = []
        after, looked = prefix + query.after.encode(), 0
        while looked < SCANNED_MAX:
            size = self._size(max(WINDOW_MIN, query.limit) + 1)
            window = await self._window(after, b"(" + prefix[:-1] + b"0", size)
            for one in window.listed:
                session = await self._matching(one, query)
                if session is not None and len(found) == query.limit:
                    return Page(tuple(found), found[-1].id)
                if session is not None:
                    found.append(session)
            if window.until is None:
                return Page(tuple(found), None)
            looked += len(window.listed)
            after = window.until
        return Page(tuple(found), ref_of(after).id)

    async def walk(self, after: Ref | None, limit: int) -> list[Session]:
        """Sessions part by part, in order of their names, up to one that cannot be read. None of them is kept."""
        name = b"" if after is None else name_of(after)
        first = 0 if after is None else self._sessions.layout.part(name).number
        found: list[Session] = []
        for part in self._parts[first:]:
            behind = b"-" if part.number > first or not name else b"(" + name
            while len(found) < limit:
                listed = await self._listed(part, part.all, behind, b"+", limit - len(found))
                for one in listed:
                    ref = ref_of(one.name)
                    try:
                        session = await self._walked(part, ref, one)
                    except Unreadable as error:
                        if found:
                            return found
                        raise named(ref, error) from error
                    if session is not None:
                        found.append(session)
                if not listed:
                    break
                behind = b"(" + listed[-1].name
            if len(found) >= limit:
                break
        return found

    async def unerased(self, after: Ref | None, limit: int) -> dict[Ref, int]:
        """Deleted sessions that do not count as erased, and their epochs, part by part."""
        name = b"" if after is None else name_of(after)
        first = 0 if after is None else self._sessions.layout.part(name).number
        looking = (
            self._listed(part, part.unerased, b"(" + name if name and part.number == first else b"-", b"+", limit)
            for part in self._parts[first:]
        )
        found: dict[Ref, int] = {}
        for part, listed in zip(self._parts[first:], await asyncio.gather(*looking), strict=True):
            for one in listed:
                row = await self._row(part, one)
                if row is not None and len(found) < limit:
                    found[ref_of(one.name)] = row.epoch
        return found

    async def held(self, owner: str) -> list[Ref]:
        """The sessions whose lease `owner` has."""
        begin, end = b"[" + owner.encode() + b"\0", b"(" + owner.encode() + b"\1"
        asking = (self._sessions.reads.do(part.held, "ZRANGEBYLEX", part.held, begin, end) for part in self._parts)
        held: list[Ref] = []
        for part, found in zip(self._parts, await asyncio.gather(*asking), strict=True):
            for name in (entry[len(begin) - 1 :] for entry in found):
                if self._sessions.retention is None or await self.settled(part, name, owner.encode()) is not None:
                    held.append(ref_of(name))
        return held

    async def settled(self, part: Part, name: bytes, owner: bytes) -> Row | None:
        """The row of a name whose row was not found beside it. If there is none anywhere, the name is taken off."""
        keys = (part.row(name), part.all, part.unerased, part.ready, part.expiring, part.held)
        gone = await self._sessions.looks.run("tidy", keys, name, owner)
        return None if gone else await self._sessions.columns(ref_of(name))

    async def _matching(self, one: Listed, query: Query) -> Session | None:
        """The session, if it is wanted."""
        ref = ref_of(one.name)
        row = await self._row(self._sessions.layout.part(one.name), one)
        if row is None or row.status >= DELETED:
            return None
        session = (await self._sessions.meant(ref, row)).session
        wanted = query.status in ("", session.status) and query.user in (None, session.user)
        return session if wanted and not session.deleted and session.has(query.metadata) else None

    async def _walked(self, part: Part, ref: Ref, one: Listed) -> Session | None:
        row = await self._row(part, one)
        if row is None:
            return None
        session = (await self._sessions.meant(ref, row)).session
        return session if row.shelf is None else replace(session, shelved=True)

    def _size(self, wanted: int) -> int:
        """How many to ask each part for, so that there are about so many in all."""
        return wanted if len(self._parts) == 1 else max(WINDOW_OF_PART_MIN, 2 * wanted // len(self._parts))

    async def _window(self, after: bytes, end: bytes, size: int) -> Window:
        """The next of all parts together, as far as each of them has been looked at."""
        looking = (self._listed(part, part.all, b"(" + after, end, size) for part in self._parts)
        listed = await asyncio.gather(*looking)
        full = [found[-1].name for found in listed if len(found) == size]
        until = min(full, default=None)
        merged = [one for found in listed for one in found if until is None or one.name <= until]
        return Window(sorted(merged, key=lambda one: one.name), until)

    async def _listed(self, part: Part, key: bytes, begin: bytes, end: bytes, size: int) -> list[Listed]:
        reply: Any = await self._sessions.reads.run("page", (key,), begin, end, size, part.rows)
        return [Listed(name, columns) for name, columns in reply[1:]]

    async def _row(self, part: Part, one: Listed) -> Row | None:
        return rows.row(one.columns) if one.columns is not None else await self.settled(part, one.name, b"")
