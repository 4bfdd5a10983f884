"""The suite can fail: logs that are wrong on purpose, each with the case that must catch it.

A wrong store is the memory store with one thing forgotten, as the docstring says. The case passes on the store that it
was made from (`test_memory`).
"""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from dalsegno.core import codec
from dalsegno.core.append import Fenced, Write
from dalsegno.core.claim import claim
from dalsegno.core.event import Event
from dalsegno.core.session import Session, fold
from dalsegno.errors import DalsegnoError, Unreadable
from dalsegno.ports import Page, Query
from dalsegno.stores.memory import MemoryDatabase, MemoryLog
from dalsegno.testing.conformance import (
    ClaimCases,
    ErasureCases,
    FleetCases,
    LogCases,
    StorageCases,
    WalkCases,
    acts,
    log_machine,
)
from dalsegno.testing.conformance.memory import MemoryWorld

CAUGHT = (AssertionError, pytest.fail.Exception, DalsegnoError)

# ---------------------------------------------------------------------------- wrong databases


class LooksThenWrites(MemoryLog):
    """Decides on what it read before, in another transaction than the write's."""

    async def commit(self, ref, decide, *, digest=None):
        session = await self.load(ref)
        decision = decide(session, None, self.database._unix_ms())
        await asyncio.sleep(0)
        if isinstance(decision, Write):
            self.database._write(ref, self.database.rows.get(ref), decision, self.database._unix_ms())
        return decision


class ForgetsTheFence(MemoryDatabase):
    """Believes whatever it is given to write."""

    def decide(self, ref, decide, *, digest=None):
        row = self.rows.get(ref)
        known = None if row is None or digest is None else row.known.get(digest)
        session = None if row is None else self.session(ref, row)
        decision = decide(session, known and msgspec.msgpack.decode(known), self._unix_ms())
        if isinstance(decision, Write):
            self._write(ref, row, decision, self._unix_ms())
        return decision


class ChecksTheHeadOnly(ForgetsTheFence):
    """Refuses a stale head, but not a stale epoch."""

    def decide(self, ref, decide, *, digest=None):
        head = self.rows[ref].head if ref in self.rows else 0

        def checked(*args):
            decision = decide(*args)
            if isinstance(decision, Write) and decision.session.head != head + len(decision.events):
                return Fenced()
            return decision

        return super().decide(ref, checked, digest=digest)


class LosesTheKey(MemoryDatabase):
    """Writes the message and forgets under which key."""

    def _write(self, ref, row, write, now):
        super()._write(ref, row, msgspec.structs.replace(write, keys=()), now)


class ReplacesTheKey(MemoryDatabase):
    """The last of a digest stays."""

    def _write(self, ref, row, write, now):
        if row is not None:
            for digest, _ in write.keys:
                row.known.pop(digest, None)
        super()._write(ref, row, write, now)


class SharesKeys(MemoryDatabase):
    """Finds a key in whichever session it was used."""

    def _write(self, ref, row, write, now):
        super()._write(ref, row, write, now)
        everything = {digest: known for stored in self.rows.values() for digest, known in stored.known.items()}
        for stored in self.rows.values():
            stored.known = dict(everything)


class WritesOneByOne(MemoryLog):
    """Lets others look in the middle of a write."""

    async def commit(self, ref, decide, *, digest=None):
        database = self.database
        row = database.rows.get(ref)
        decision = decide(row and database.session(ref, row), None, database._unix_ms())
        assert isinstance(decision, Write)
        for event in decision.events:
            part = msgspec.structs.replace(decision.session, head=event.seq)
            database._write(ref, database.rows.get(ref), Write(part, (event,), None), event.at)
            await asyncio.sleep(0)
        return decision


class WritesInParts(MemoryDatabase):
    """Events first, the session after: an error in between leaves half of it."""

    def _write(self, ref, row, write, now):
        for count in range(1, len(write.events) + 1):
            part = msgspec.structs.replace(write.session, head=write.events[count - 1].seq)
            super()._write(ref, self.rows.get(ref), Write(part, write.events[count - 1 : count], None), now)
        super()._write(ref, self.rows.get(ref), msgspec.structs.replace(write, events=()), now)


class WritesBeforeItDecides(MemoryDatabase):
    """A session comes to be by being asked about."""

    def decide(self, ref, decide, *, digest=None):
        if ref not in self.rows:
            self._write(ref, None, Write(Session(ref.id, ref.tenant), (), None), 0)
        return super().decide(ref, decide, digest=digest)


class ForgetsWhenItCloses(MemoryLog):
    """Keeps what is committed in the process that committed it."""

    async def close(self):
        self.database.rows.clear()
        await super().close()


class LetsACommitGo(MemoryLog):
    """Sends the commit on its way, and a caller that is cancelled away."""

    async def commit(self, ref, decide, *, digest=None):
        return await asyncio.shield(self._slowly(ref, decide, digest))

    async def _slowly(self, ref, decide, digest):
        for _ in range(5):
            await asyncio.sleep(0)
        return await super().commit(ref, decide, digest=digest)


# ---------------------------------------------------------------------------- wrong reads


class NewestFirst(MemoryDatabase):
    """Gives a page from its end."""

    def events(self, ref, row, *, after, limit):
        return super().events(ref, row, after=after, limit=limit)[::-1]


class IgnoresTheLimit(MemoryDatabase):
    """Gives the whole rest of the log."""

    def events(self, ref, row, *, after, limit):
        return super().events(ref, row, after=after, limit=row.head)


class SwallowsDamage(MemoryDatabase):
    """Leaves out what it cannot read."""

    def events(self, ref, row, *, after, limit):
        found: list[Event] = []
        for seq in range(after + 1, min(row.head, after + limit) + 1):
            try:
                found.extend(super().events(ref, row, after=seq - 1, limit=1))
            except Unreadable:
                continue
        return found


class BelievesDamage(MemoryDatabase):
    """Does not compare bytes with their checksum."""

    def events(self, ref, row, *, after, limit):
        for event in row.events.values():
            event.checksum = codec.checksum(event.data)
        return super().events(ref, row, after=after, limit=limit)


class SkipsTheMissing(MemoryDatabase):
    """Selects the events that are there."""

    def events(self, ref, row, *, after, limit):
        there = sorted(seq for seq in row.events if seq > after)[:limit]
        return [
            event for seq in there for event in super(SkipsTheMissing, self).events(ref, row, after=seq - 1, limit=1)
        ]


class CutsAtNul(MemoryDatabase):
    """Keeps text as C does."""

    def events(self, ref, row, *, after, limit):
        found = super().events(ref, row, after=after, limit=limit)
        return [msgspec.structs.replace(event, data=event.data.partition(b"\\u0000")[0]) for event in found]


class TreatsUnreadableAsNew(MemoryDatabase):
    """Begins an empty session where it cannot read the old one."""

    def _rebuild(self, ref, row):
        try:
            return super()._rebuild(ref, row)
        except Unreadable:
            return Session(ref.id, ref.tenant)


class FoldsTheLogAlone(MemoryDatabase):
    """Rebuilds a session without its lease."""

    def _rebuild(self, ref, row):
        return fold(ref.id, ref.tenant, self.events(ref, row, after=0, limit=row.head))


class LeaksATenant(MemoryDatabase):
    """Finds a session by its id alone, when it has none of that tenant."""

    def page(self, tenant, query):
        if not any(ref.tenant == tenant for ref in self.rows):
            tenant = next((ref.tenant for ref in self.rows), tenant)
        return super().page(tenant, query)


class ErasesEverybodys(MemoryLog):
    """Erases by id, without the tenant."""

    async def erase(self, ref, epoch):
        await super().erase(ref, epoch)
        for other, row in self.database.rows.items():
            if other.id == ref.id:
                row.known = {}


class ErasesTheLiving(MemoryLog):
    """Does not ask whether the session was deleted."""

    async def erase(self, ref, epoch):
        row = self.database.rows.get(ref)
        if row is not None:
            row.events, row.known, row.erased = {row.head: row.events[row.head]}, {}, True


class ErasesTheTombstone(MemoryLog):
    """Leaves nothing of a deleted session, so that it can be created again."""

    async def erase(self, ref, epoch):
        row = self.database.rows.get(ref)
        if row is not None and self.database.session(ref, row).deleted:
            del self.database.rows[ref]


class RemembersWhose(MemoryDatabase):
    """Leaves in the tombstone what was known of the user."""

    def _write(self, ref, row, write, now):
        if row is not None and write.session.deleted:
            before = self.session(ref, row)
            kept = msgspec.structs.replace(write.session, user=before.user, metadata=before.metadata)
            write = msgspec.structs.replace(write, session=kept)
        super()._write(ref, row, write, now)


class ForgetsToErase(MemoryLog):
    """Knows which sessions it deleted itself."""

    async def commit(self, ref, decide, *, digest=None):
        decision = await super().commit(ref, decide, digest=digest)
        if isinstance(decision, Write) and decision.session.deleted:
            self.__dict__.setdefault("deleted", set()).add(ref)
        return decision

    async def unerased(self, *, after=None, limit):
        found = await super().unerased(after=after, limit=limit)
        return {ref: epoch for ref, epoch in found.items() if ref in self.__dict__.get("deleted", ())}


class NamesTheFirstAgain(MemoryDatabase):
    """Begins with the same sessions, whatever became of them."""

    def unerased(self, after, limit):
        return super().unerased(None, limit)


class CountsBeforeItErases(MemoryDatabase):
    """Says that a session is erased, and then erases it."""

    def erase_some(self, ref, epoch):
        row = self.rows.get(ref)
        if row is not None and row.deleted:
            row.erased = row.erased or row.epoch == epoch
        return super().erase_some(ref, epoch)


class ErasesUnderAnyEpoch(MemoryDatabase):
    """Does not ask what has been written since the erasure began."""

    def erase_some(self, ref, epoch):
        return super().erase_some(ref, self.rows[ref].epoch)


class ErasesOnce(MemoryDatabase):
    """What counts as erased counts for ever."""

    def _write(self, ref, row, write, now):
        super()._write(ref, row, write, now)
        self.rows[ref].erased = row is not None and row.erased


class ErasesWhatItCanRead(MemoryDatabase):
    """Reads the session to see that it was deleted."""

    def erase_some(self, ref, epoch):
        return self.session(ref, self.rows[ref]).deleted and super().erase_some(ref, epoch)


class ListsTheDeleted(MemoryDatabase):
    """Lists every row."""

    def page(self, tenant, query):
        return Page(
            tuple(self.session(ref, row) for ref, row in sorted(self.rows.items(), key=lambda item: item[0].id))
        )


class StopsListingEarly(MemoryDatabase):
    """Forgets to say that there is more."""

    def page(self, tenant, query):
        return Page(super().page(tenant, query).sessions)


class IgnoresFilters(MemoryDatabase):
    """Lists whatever the tenant has."""

    def page(self, tenant, query):
        return super().page(tenant, Query(query.after, query.limit))


# ---------------------------------------------------------------------------- wrong walks


class LeavesOutTheDeleted(MemoryDatabase):
    """Walks past what is listed."""

    def walk(self, after, limit):
        return [one for one in super().walk(after, limit) if not one.deleted]


class LeavesOutATenant(MemoryDatabase):
    """Walks past the first tenant's sessions."""

    def walk(self, after, limit):
        found = super().walk(after, limit)
        first = next(ref.tenant for ref in self.rows) if self.rows else ""
        return [one for one in found if one.tenant == first]


class LeavesOutTheDamaged(MemoryDatabase):
    """Walks on where it cannot read."""

    def walk(self, after, limit):
        begin = 0 if after is None else list(self.rows).index(after) + 1
        found = []
        for ref in list(self.rows)[begin:]:
            try:
                found.append(self.session(ref, self.rows[ref]))
            except Unreadable:
                continue
        return found[:limit]


class TellsNoHeadOfTheDeleted(MemoryLog):
    """Has heads only of what is still there."""

    async def heads(self, refs):
        rows, session = self.database.rows, self.database.session
        heads = await super().heads(refs)
        return {ref: head for ref, head in heads.items() if not session(ref, rows[ref]).deleted}


class TellsHeadsById(MemoryLog):
    """Does not ask whose session it is."""

    async def heads(self, refs):
        by_id = {ref.id: row.head for ref, row in self.database.rows.items()}
        return {ref: by_id[ref.id] for ref in refs if ref.id in by_id}


class WalksInOrderOfWriting(MemoryDatabase):
    """Comes to a place again when its sessions are written: the newest first."""

    def _write(self, ref, row, write, now):
        super()._write(ref, row, write, now)
        self.rows[ref] = self.rows.pop(ref)


class WalksPastOldSnapshots(MemoryDatabase):
    """Believes a snapshot of another version."""

    def walk(self, after, limit):
        return [
            one if self.rows[ref].version else Session(ref.id, ref.tenant)
            for ref, one in zip(self.rows, super().walk(after, limit), strict=False)
        ]


class ForgetsAKey(MemoryDatabase):
    """Knows one key less than it was given."""

    def keys(self, ref):
        return dict(list(super().keys(ref).items())[1:])


class KnowsEverybodysKeys(MemoryDatabase):
    """Finds keys by the session's id."""

    def keys(self, ref):
        found = {}
        for other in self.rows:
            if other.id == ref.id or not self.rows.get(ref):
                found.update(super().keys(other))
        return found


# ---------------------------------------------------------------------------- wrong claims and fleets


class ClaimsTheOwned(MemoryDatabase):
    """Does not ask whether the owner is alive."""

    def claim(self, owner, *, limit, chances=1):
        alive, self.alive = self.alive, lambda incarnation: False  # type: ignore[method-assign]
        try:
            return super().claim(owner, limit=limit, chances=chances)
        finally:
            self.alive = alive  # type: ignore[method-assign]


class ClaimsForTheDead(MemoryDatabase):
    """Does not ask whether the claimant is alive."""

    def claim(self, owner, *, limit, chances=1):
        alive, self.alive = self.alive, lambda incarnation: incarnation == owner or alive(incarnation)  # type: ignore[method-assign]
        try:
            return super().claim(owner, limit=limit, chances=chances)
        finally:
            self.alive = alive  # type: ignore[method-assign]


class ClaimsForTheLate(ClaimsForTheDead):
    """Asks whether the claimant has joined, and not whether it is in time with its beats."""

    def claim(self, owner, *, limit, chances=1):
        return super().claim(owner, limit=limit, chances=chances) if owner in self.members else []


class ClaimsInTwoSteps(MemoryLog):
    """Chooses in one transaction and takes in another, without a condition."""

    async def claim(self, owner, *, limit, chances=1):
        database = self.database
        chosen = [
            ref for ref, row in database.rows.items() if row.ready_at is not None and not database.alive(row.owner)
        ]
        sessions = [(ref, database.session(ref, database.rows[ref])) for ref in chosen[:limit]]
        await asyncio.sleep(0)
        claimed = []
        for ref, session in sessions:
            decision = claim(session, database._unix_ms(), owner=owner)
            if isinstance(decision, Write):
                database._write(ref, database.rows[ref], decision, database._unix_ms())
                claimed.append(decision.result)
        return claimed


class ClaimsTheParked(MemoryDatabase):
    """Does not ask whether a session is ready."""

    def claim(self, owner, *, limit, chances=1):
        for ref, row in self.rows.items():
            if self.session(ref, row).open:
                row.ready_at = 0
        return super().claim(owner, limit=limit, chances=chances)


class ClaimsTheNewestFirst(MemoryDatabase):
    """Whoever waits longest waits longer."""

    def claim(self, owner, *, limit, chances=1):
        for row in self.rows.values():
            row.since = -row.since if row.since > 0 else row.since
        return super().claim(owner, limit=limit, chances=chances)


class ClaimsBeyondTheLimit(MemoryDatabase):
    """Takes all there is."""

    def claim(self, owner, *, limit, chances=1):
        return super().claim(owner, limit=1000, chances=chances)


class GivesEveryoneALastChance(MemoryDatabase):
    """Runs all that may kill again side by side."""

    def claim(self, owner, *, limit, chances=1):
        return super().claim(owner, limit=limit, chances=1000)


class LetsTheDeadGo(MemoryDatabase):
    """Frees the sessions of the dead: nobody counts their attempts any more."""

    def bury(self):
        dead = super().bury()
        for ref, row in self.rows.items():
            if row.owner in dead:
                free = msgspec.structs.replace(self.session(ref, row), owner=None)
                self._write(ref, row, Write(free, (), None), self._unix_ms())
        return dead


class StopsAtDamage(MemoryDatabase):
    """One damaged session stops every claim."""

    def claim(self, owner, *, limit, chances=1):
        for ref, row in self.rows.items():
            if row.ready_at is not None:
                self.session(ref, row)
        return super().claim(owner, limit=limit, chances=chances)


class NeverDies(MemoryDatabase):
    """Who has joined once is alive."""

    def alive(self, incarnation):
        return incarnation in self.members


class WaitsForTheClock(MemoryDatabase):
    """Does not listen to the operating system."""

    def kill(self, incarnation):
        return


class BuriesForGood(MemoryDatabase):
    """Who was buried once cannot beat again."""

    def renew(self, member, ttl):
        if member.incarnation not in self.__dict__.setdefault("buried", set()):
            super().renew(member, ttl)

    def bury(self):
        dead = super().bury()
        self.__dict__.setdefault("buried", set()).update(dead)
        return dead


class NeverBeats(MemoryDatabase):
    """Joins, and that was that."""

    def renew(self, member, ttl):
        if member.incarnation not in self.members:
            super().renew(member, ttl)


class StaysWhenItLeaves(MemoryLog):
    """Leaves without saying so."""

    async def leave(self):
        self._stop_beating()


# ---------------------------------------------------------------------------- the tests

WRONG: dict[type, Callable[..., Any]] = {
    LooksThenWrites: LogCases.test_decisions_about_a_session_happen_one_after_another,
    ForgetsTheFence: LogCases.test_a_number_is_never_used_again,
    ChecksTheHeadOnly: LogCases.test_a_write_under_a_stale_epoch_is_refused,
    LosesTheKey: LogCases.test_a_key_says_it_once,
    ReplacesTheKey: LogCases.test_the_first_of_a_digest_stays,
    SharesKeys: LogCases.test_a_key_is_its_sessions_own,
    WritesOneByOne: LogCases.test_a_read_is_a_prefix_while_others_write,
    WritesInParts: LogCases.test_events_session_and_key_are_written_together_or_not_at_all,
    WritesBeforeItDecides: LogCases.test_what_writes_nothing_comes_back_as_it_is,
    ForgetsWhenItCloses: LogCases.test_what_is_written_survives_its_writer,
    LetsACommitGo: LogCases.test_who_is_cancelled_is_told_when_it_is_decided,
    NewestFirst: LogCases.test_reads_go_by_pages,
    IgnoresTheLimit: LogCases.test_reads_go_by_pages,
    LeaksATenant: LogCases.test_nothing_of_one_tenant_is_found_under_another,
    ErasesEverybodys: LogCases.test_nothing_of_one_tenant_is_found_under_another,
    SwallowsDamage: StorageCases.test_damaged_bytes_are_an_error,
    BelievesDamage: StorageCases.test_damaged_bytes_are_an_error,
    SkipsTheMissing: partial(StorageCases.test_a_missing_event_is_an_error, seq=6),
    CutsAtNul: partial(StorageCases.test_bytes_come_back_as_they_were_given, text="a\0b"),
    TreatsUnreadableAsNew: StorageCases.test_a_session_that_cannot_be_folded_is_an_error,
    FoldsTheLogAlone: StorageCases.test_folding_again_keeps_what_the_log_does_not_hold,
    ErasesTheLiving: ErasureCases.test_only_the_deleted_are_erased,
    ErasesTheTombstone: ErasureCases.test_what_is_erased_is_gone_for_good,
    RemembersWhose: ErasureCases.test_a_tombstone_tells_nothing,
    ForgetsToErase: ErasureCases.test_what_is_deleted_is_named_until_it_is_erased,
    NamesTheFirstAgain: ErasureCases.test_the_unerased_are_named_one_behind_the_other,
    CountsBeforeItErases: partial(ErasureCases.test_an_erasure_that_is_broken_off_is_not_forgotten, steps=2),
    ErasesUnderAnyEpoch: ErasureCases.test_what_was_written_meanwhile_has_the_erasure_begin_again,
    ErasesOnce: ErasureCases.test_what_was_written_meanwhile_has_the_erasure_begin_again,
    ErasesWhatItCanRead: ErasureCases.test_damage_does_not_keep_what_was_deleted,
    ListsTheDeleted: StorageCases.test_a_deleted_session_is_a_tombstone,
    StopsListingEarly: StorageCases.test_a_listing_goes_by_pages_in_order_of_id,
    IgnoresFilters: StorageCases.test_a_listing_is_filtered,
    LeavesOutTheDeleted: WalkCases.test_a_walk_comes_past_every_session,
    LeavesOutATenant: WalkCases.test_a_walk_comes_past_every_session,
    LeavesOutTheDamaged: partial(WalkCases.test_a_walk_leaves_no_damaged_session_out, limit=2),
    TellsNoHeadOfTheDeleted: WalkCases.test_heads_are_told_of_many_at_once,
    TellsHeadsById: WalkCases.test_heads_are_told_of_many_at_once,
    WalksInOrderOfWriting: WalkCases.test_a_walk_goes_on_behind_where_it_was,
    WalksPastOldSnapshots: WalkCases.test_a_walk_rebuilds_what_another_version_wrote,
    ForgetsAKey: WalkCases.test_keys_are_all_there_is_under_a_session,
    KnowsEverybodysKeys: WalkCases.test_keys_are_all_there_is_under_a_session,
    ClaimsTheOwned: ClaimCases.test_a_living_owner_is_left_alone,
    ClaimsInTwoSteps: ClaimCases.test_a_session_goes_to_one_claimant_only,
    ClaimsTheParked: ClaimCases.test_a_parked_turn_is_not_ready,
    ClaimsTheNewestFirst: ClaimCases.test_the_longest_waiting_comes_first,
    ClaimsBeyondTheLimit: ClaimCases.test_the_longest_waiting_comes_first,
    GivesEveryoneALastChance: ClaimCases.test_last_attempts_are_rationed,
    LetsTheDeadGo: ClaimCases.test_a_turn_that_kills_three_replicas_is_poisoned,
    StopsAtDamage: ClaimCases.test_a_damaged_session_does_not_stop_the_others,
    NeverDies: FleetCases.test_who_misses_its_time_is_dead_until_it_beats_again,
    WaitsForTheClock: FleetCases.test_death_is_noticed_at_once,
    BuriesForGood: FleetCases.test_who_misses_its_time_is_dead_until_it_beats_again,
    NeverBeats: FleetCases.test_a_member_lives_as_long_as_it_beats,
    ClaimsForTheDead: FleetCases.test_who_is_not_alive_claims_nothing,
    ClaimsForTheLate: FleetCases.test_an_outage_is_nobodys_death,
    StaysWhenItLeaves: FleetCases.test_members_are_seen_as_they_joined,
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
async def test_the_suite_catches(wrong: type, monkeypatch: pytest.MonkeyPatch):
    """Whoever breaks a promise fails the case that quotes it."""
    monkeypatch.setattr(acts, "EVENTUALLY_SECONDS", 0.3)
    world = _world(wrong)
    try:
        with pytest.raises(CAUGHT):
            await WRONG[wrong](None, world=world)
    finally:
        await world.close()


@pytest.mark.parametrize("wrong", [LosesTheKey, FoldsTheLogAlone, LetsTheDeadGo], ids=lambda wrong: wrong.__name__)
def test_the_machine_catches(wrong: type):
    """Random acts find what differs from the model, without a case that was written for it."""

    @asynccontextmanager
    async def open_world():
        world = _world(wrong)
        yield world
        await world.close()

    few = settings(
        max_examples=300,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(log_machine(open_world), settings=few)


def _world(wrong: type) -> MemoryWorld:
    if issubclass(wrong, MemoryDatabase):
        return MemoryWorld(database=wrong)
    assert issubclass(wrong, MemoryLog)
    return MemoryWorld(handle=wrong)
