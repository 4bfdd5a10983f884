"""Claims: every part is asked what may be claimed, the longest waiting are decided on, and each is written by itself.

The look promises nothing. The write of a claim carries all it depends on, in the slot of its session: the row is the
one that was looked at, the claimant lives, the owner does not. Who comes second to a session looks again.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from dalsegno.core.append import Write
from dalsegno.core.claim import ATTEMPTS_MAX, Claimed, claim
from dalsegno.errors import DalsegnoError, Shelved, Unavailable, Unreadable
from dalsegno.stores.redis import rows
from dalsegno.stores.redis.keys import Part, ref_of
from dalsegno.stores.redis.listings import Listings
from dalsegno.stores.redis.rows import Kept, Row
from dalsegno.stores.redis.sessions import Sessions

ROUNDS = 5

_log = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A session that may be claimed, as it was seen."""

    part: Part
    name: bytes
    row: Row
    now: int


class Choice(NamedTuple):
    """A claim that has been decided."""

    candidate: Candidate
    kept: Kept
    write: Write[Claimed]

    @property
    def takes_chance(self) -> bool:
        """Whether the turn is on its last attempt."""
        lease = self.write.result.lease
        return lease is not None and lease.attempt >= ATTEMPTS_MAX


class Claims:
    """What one process claims."""

    def __init__(self, sessions: Sessions, listings: Listings) -> None:
        self._sessions = sessions
        self._listings = listings

    async def claim(self, owner: str, limit: int, chances: int) -> Sequence[Claimed]:
        """See port `Log`. What was lost to others, or cannot be had, makes room for another round."""
        claimed: list[Claimed] = []
        passed: set[bytes] = set()
        problems: list[DalsegnoError] = []
        for _ in range(ROUNDS):
            room = limit - len(claimed)
            found = await self._look(owner, room + len(passed), chances, problems)
            offered = [one for one in found if one.name not in passed][:room]
            chosen = await self._choose(owner, offered, chances, problems)
            passed |= {one.name for one in offered} - {one.candidate.name for one in chosen}
            won = await self._write(owner, chosen, problems)
            claimed += [one.write.result for one in won]
            chances -= sum(one.takes_chance for one in won)
            if not offered or len(claimed) >= limit:
                break
        # Whoever is told that nobody knows looks what it holds, and finds what it was not told, too.
        lost = [one for one in problems if isinstance(one, Unavailable) and one.outcome == "unknown"]
        if lost or (problems and not claimed):
            raise (lost or problems)[0]
        return claimed

    async def _look(self, owner: str, limit: int, chances: int, problems: list[DalsegnoError]) -> list[Candidate]:
        """What may be claimed, the longest waiting first. A part that does not answer keeps nobody from the others."""
        parts = self._sessions.layout.parts
        looking = (self._look_at(part, owner, limit, chances) for part in parts)
        found: list[Candidate] = []
        for answer in await asyncio.gather(*looking, return_exceptions=True):
            if isinstance(answer, DalsegnoError):
                problems.append(Unavailable(str(answer), outcome="not_applied"))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found += answer
        found.sort(key=lambda one: (max(one.row.since, one.row.ready_at or 0), ref_of(one.name).id))
        return found

    async def _look_at(self, part: Part, owner: str, limit: int, chances: int) -> list[Candidate]:
        keys = (part.ready, part.held, part.expiring, part.members)
        now, *offers = await self._sessions.looks.run("claimable", keys, owner, limit, chances, part.rows)
        found: list[Candidate] = []
        for name, holder, columns in offers:
            if columns is None:
                await self._listings.settled(part, name, holder)
                continue
            try:
                found.append(Candidate(part, name, rows.row(columns), now))
            except Unreadable as error:
                await self._park(part, name, columns[0], error)
        return found

    async def _choose(
        self, owner: str, offered: Sequence[Candidate], chances: int, problems: list[DalsegnoError]
    ) -> list[Choice]:
        chosen: list[Choice] = []
        for one in offered:
            ref = ref_of(one.name)
            try:
                kept = await self._sessions.meant(ref, one.row)
                decision = claim(kept.session, one.now, owner=owner, chances=chances)
            except Shelved as error:
                # It cannot be read here, but it can be brought back: nobody else has to wait for that.
                problems.append(error)
                continue
            except Unreadable as error:
                await self._park(one.part, one.name, one.row.stamp, error)
                continue
            except Unavailable as error:
                problems.append(Unavailable(str(error), outcome="not_applied"))
                continue
            if isinstance(decision, Write):
                choice = Choice(one, kept, decision)
                chances -= choice.takes_chance
                chosen.append(choice)
        return chosen

    async def _park(self, part: Part, name: bytes, stamp: bytes, error: Unreadable) -> None:
        """One damaged session must not stop every other one (P5). It is not offered again until it is written."""
        ref = ref_of(name)
        _log.error("session %s of %s cannot be claimed, an operator must look: %s", ref.id, ref.tenant, error)
        with suppress(Unavailable):
            await self._sessions.looks.run("park", (part.row(name), part.ready), stamp, name)

    async def _write(self, owner: str, chosen: Sequence[Choice], problems: list[DalsegnoError]) -> list[Choice]:
        """Those that were written, each by itself, all together on their way."""
        by = owner, max((one.candidate.now for one in chosen), default=0)
        writing = (self._sessions.wrote(ref_of(one.candidate.name), one.kept, one.write, claim=by) for one in chosen)
        won: list[Choice] = []
        for choice, written in zip(chosen, await asyncio.gather(*writing, return_exceptions=True), strict=True):
            if isinstance(written, DalsegnoError):
                problems.append(written)
            elif isinstance(written, BaseException):
                raise written
            elif written:
                won.append(choice)
        return won
